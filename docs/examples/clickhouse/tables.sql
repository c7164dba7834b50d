-- The store of `edgecv ingest` in ClickHouse. A repeated event has the same key and disappears in a merge; SELECT … FINAL sees it once before.
CREATE TABLE IF NOT EXISTS events (
    tenant LowCardinality(String), device LowCardinality(String), boot Int64, seq Int64, digest UInt64, renamed Bool,
    time DateTime64(6, 'UTC'), received DateTime64(6, 'UTC'), mono_ns Int64, clock_synced Bool,
    type LowCardinality(String), lane LowCardinality(String), model LowCardinality(String),
    camera LowCardinality(Nullable(String)), frame Nullable(Int64), frame_width Nullable(Int32), frame_height Nullable(Int32),
    age_ms Nullable(Float64), position_s Nullable(Float64), objects Nullable(Int32), counter Nullable(String), direction Nullable(String),
    how Nullable(String), total Nullable(Int64), inside Nullable(Int64), dwell_s Nullable(Float64), track_id Nullable(Int64),
    class_id Nullable(Int32), class_name LowCardinality(Nullable(String)), score Nullable(Float32), code Nullable(String),
    message Nullable(String), data Nullable(String)
) ENGINE = ReplacingMergeTree ORDER BY (tenant, device, time, boot, seq, digest);

CREATE TABLE IF NOT EXISTS detections (
    tenant LowCardinality(String), device LowCardinality(String), boot Int64, seq Int64, digest UInt64, n Int32,
    time DateTime64(6, 'UTC'), received DateTime64(6, 'UTC'), camera LowCardinality(Nullable(String)), frame Nullable(Int64),
    model LowCardinality(String), class_id Nullable(Int32), class_name LowCardinality(Nullable(String)), score Nullable(Float32),
    x1 Nullable(Float32), y1 Nullable(Float32), x2 Nullable(Float32), y2 Nullable(Float32), track_id Nullable(Int64), extra Nullable(String)
) ENGINE = ReplacingMergeTree ORDER BY (tenant, device, time, boot, seq, digest, n);

-- What load.py has brought, by the hash of a file or the id of a forgotten device.
CREATE TABLE IF NOT EXISTS loaded (mark String, at DateTime DEFAULT now()) ENGINE = ReplacingMergeTree ORDER BY mark;
