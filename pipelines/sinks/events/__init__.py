"""``events:FILE.db``: events in SQLite, for the page and for questions in SQL; docs/events.md describes the file."""
