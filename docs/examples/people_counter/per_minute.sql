-- sqlite3 -readonly -box events.db < per_minute.sql
SELECT substr(time, 1, 16) AS minute, source, rule, direction, COUNT(*) AS people
FROM events
WHERE kind = 'line.crossed'
GROUP BY 1, 2, 3, 4;
