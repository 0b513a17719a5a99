-- name: completeness
-- compatibility: expand
-- The sink of an earlier release writes neither table: nothing new is proven then, and the account stands still.
--
-- Any number of sinks may write any of these rows, any number of times: of completeness the latest proof counts, and a
-- batch's summary is the same whoever writes it. The account has no partitions: an insert is one part, stored whole or not.

CREATE TABLE IF NOT EXISTS telematics.completeness_store{on_cluster} (
    partition UInt32 COMMENT 'partition of the raw topic',
    complete_through DateTime64(6, 'UTC') COMMENT 'everything accepted before is stored; 1970 while nothing is proven',
    proven_at DateTime64(6, 'UTC') DEFAULT now64(6) COMMENT 'when that was known'
)
ENGINE = {engine:ReplacingMergeTree(complete_through)}
ORDER BY partition
SETTINGS {deduplication_window};

CREATE OR REPLACE VIEW telematics.completeness{on_cluster} (
    partition UInt32 COMMENT 'partition of the raw topic; a device''s events are in one partition',
    complete_through DateTime64(6, 'UTC') COMMENT 'everything accepted before is stored; 1970 while nothing is proven',
    proven_at DateTime64(6, 'UTC') COMMENT 'when that was known'
)
AS SELECT partition, complete_through, proven_at FROM telematics.completeness_store FINAL;

CREATE TABLE IF NOT EXISTS telematics.account_store{on_cluster} (
    partition UInt32 COMMENT 'partition of the raw topic',
    first_offset UInt64 COMMENT 'the batch''s first raw offset' CODEC(Delta, ZSTD(1)),
    next_offset UInt64 COMMENT 'the raw offset after its last one' CODEC(Delta, ZSTD(1)),
    committed_at DateTime64(6, 'UTC') COMMENT 'when the batch was committed' CODEC(Delta, ZSTD(1)),
    counts Array(Tuple(minute DateTime('UTC'), event LowCardinality(String), unique UInt32, duplicate UInt32, dead_lettered UInt32, replayed UInt32, erased UInt32)) COMMENT 'its records by minute of arrival, type and outcome' CODEC(ZSTD(1)),
    account_offset UInt64 COMMENT 'offset of the summary on the account topic' CODEC(Delta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree(account_offset)}
ORDER BY (toStartOfHour(committed_at), partition, first_offset)
TTL toDateTime(committed_at) + INTERVAL 400 DAY
SETTINGS {deduplication_window};

CREATE OR REPLACE VIEW telematics.account_minutes{on_cluster}
AS SELECT a.minute AS minute, a.event AS event, a.accepted AS accepted, a.replayed AS replayed, a.unique AS unique,
    a.duplicate AS duplicate, a.dead_lettered AS dead_lettered, a.erased AS erased, e.stored AS stored,
    d.stored AS stored_dead_letters,
    toInt64(unique + dead_lettered) - toInt64(stored + stored_dead_letters) AS not_stored
FROM (
    SELECT count.minute AS minute, toString(count.event) AS event,
        toUInt64(sum(count.unique + count.duplicate + count.dead_lettered + count.erased) - sum(count.replayed))
            AS accepted,
        sum(count.replayed) AS replayed, sum(count.unique) AS unique, sum(count.duplicate) AS duplicate,
        sum(count.dead_lettered) AS dead_lettered, sum(count.erased) AS erased
    FROM (
        SELECT arrayJoin(counts) AS count FROM telematics.account_store FINAL
        WHERE committed_at >= {begin:DateTime64(6, 'UTC')} - INTERVAL 1 HOUR
    )
    WHERE count.minute >= {begin:DateTime64(6, 'UTC')} AND count.minute <= {end:DateTime64(6, 'UTC')} - INTERVAL 1 MINUTE
    GROUP BY minute, event
) AS a
LEFT JOIN (
    SELECT toStartOfMinute(received_at) AS minute, toString(event) AS event, count() AS stored
    FROM telematics.events_received(begin = {begin:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')})
    GROUP BY minute, event
) AS e ON e.minute = a.minute AND e.event = a.event
LEFT JOIN (
    SELECT toStartOfMinute(received_at) AS minute, ifNull(event, '') AS event, count() AS stored
    FROM telematics.dead_letters
    WHERE received_at >= {begin:DateTime64(6, 'UTC')} AND received_at < {end:DateTime64(6, 'UTC')}
    GROUP BY minute, event
) AS d ON d.minute = a.minute AND d.event = a.event;
