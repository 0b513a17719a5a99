-- name: rollups
-- compatibility: expand
-- Each rollup is a store, a view that refreshes it, and the view that people read.
--
-- The refresh computes again, from the exact view, every bucket for which a row was inserted since the last one, and appends
-- the result: the newest computed_at counts. The last row that it appends is its watermark, a bucket at the end of time that
-- says up to which insertion all is counted. It goes last into a table of one partition through one thread, so a refresh
-- that was interrupted leaves no watermark and is made again. A group that is gone is written with 0 events.
--
-- The view that people read takes from the store only buckets that nothing was inserted into since, and counts the others on
-- the spot. So it equals the same query over telematics.events at every moment, also while no refresh runs.
--
-- An insert becomes visible after its inserted_at: each look goes back five minutes before the watermark. A refresh looks at
-- five million newly inserted rows at most, so that the first one over an old table is as small as any other.

CREATE TABLE IF NOT EXISTS telematics.rollup_marks{on_cluster} (
    hour DateTime('UTC') COMMENT 'hour of device_time to compute again',
    imei String DEFAULT '' COMMENT 'device to compute again; empty for none',
    inserted_at DateTime64(6, 'UTC') DEFAULT now64(6) COMMENT 'when the mark was set'
)
ENGINE = {engine:ReplacingMergeTree(inserted_at)}
ORDER BY (hour, imei)
TTL toDateTime(inserted_at) + INTERVAL 30 DAY;

CREATE TABLE IF NOT EXISTS telematics.events_hourly_store{on_cluster} (
    hour DateTime('UTC') COMMENT 'hour of device_time' CODEC(Delta, ZSTD(1)),
    event LowCardinality(String) COMMENT 'event type',
    category LowCardinality(String) COMMENT 'what the type is about',
    severity LowCardinality(String) COMMENT 'info, warning or critical',
    fleet LowCardinality(Nullable(String)) COMMENT 'the fleet in the registry on arrival',
    sender LowCardinality(Nullable(String)) COMMENT 'name of the sender''s token or secret',
    events UInt64 COMMENT 'number of events' CODEC(T64, ZSTD(1)),
    devices UInt64 COMMENT 'number of devices; do not add it up over rows' CODEC(T64, ZSTD(1)),
    vehicles UInt64 COMMENT 'number of vehicles; do not add it up over rows' CODEC(T64, ZSTD(1)),
    changes_sum Int64 COMMENT 'sum of changes' CODEC(T64, ZSTD(1)),
    changes_min Int64 COMMENT 'least changes' CODEC(T64, ZSTD(1)),
    changes_max Int64 COMMENT 'greatest changes' CODEC(T64, ZSTD(1)),
    device_delay_ms_sum Int64 COMMENT 'sum of device_delay_ms; divided by events, the mean' CODEC(T64, ZSTD(1)),
    device_delay_ms_max Int64 COMMENT 'greatest device_delay_ms' CODEC(T64, ZSTD(1)),
    platform_delay_ms_sum Int64 COMMENT 'sum of platform_delay_ms; divided by events, the mean' CODEC(T64, ZSTD(1)),
    platform_delay_ms_max Int64 COMMENT 'greatest platform_delay_ms' CODEC(T64, ZSTD(1)),
    through DateTime64(6, 'UTC') COMMENT 'in the watermark: rows inserted up to then are counted' CODEC(Delta, ZSTD(1)),
    computed_at DateTime64(6, 'UTC') COMMENT 'when it was computed; the newest row of a group counts' CODEC(Delta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree(computed_at)}
ORDER BY (hour, event, category, severity, isNull(fleet), ifNull(fleet, ''), isNull(sender), ifNull(sender, ''))
SETTINGS {deduplication_window};

CREATE MATERIALIZED VIEW IF NOT EXISTS telematics.events_hourly_refresh{on_cluster}
REFRESH EVERY 1 MINUTE APPEND TO telematics.events_hourly_store AS
WITH (SELECT max(through) FROM telematics.events_hourly_store WHERE hour = toDateTime('2106-02-07 06:00:00', 'UTC')) AS done,
    now64(6) AS at,
    (SELECT if(count() < 5000000, at, max(inserted_at)) FROM (
        SELECT inserted_at FROM (
            SELECT inserted_at FROM telematics.events_store WHERE inserted_at > done
            UNION ALL SELECT inserted_at FROM telematics.rollup_marks WHERE inserted_at > done
        ) ORDER BY inserted_at LIMIT 5000000
    )) AS next,
    (SELECT count() > 0 FROM (
        SELECT 1 FROM telematics.events_store WHERE inserted_at > done - INTERVAL 5 MINUTE
        UNION ALL SELECT 1 FROM telematics.rollup_marks WHERE inserted_at > done - INTERVAL 5 MINUTE
    )) AS is_due,
    (SELECT groupUniqArray(hour) FROM (
        SELECT toStartOfHour(device_time) AS hour FROM telematics.events_store WHERE inserted_at > done - INTERVAL 5 MINUTE AND inserted_at <= next
        UNION ALL SELECT hour FROM telematics.rollup_marks WHERE inserted_at > done - INTERVAL 5 MINUTE AND inserted_at <= next
    )) AS changed
SELECT hour, event, category, severity, fleet, sender, events, devices, vehicles, changes_sum, changes_min, changes_max, device_delay_ms_sum, device_delay_ms_max, platform_delay_ms_sum, platform_delay_ms_max, through, computed_at FROM (
    SELECT toStartOfHour(device_time) AS hour, event, category, severity, fleet, sender, count() AS events, uniqExact(imei) AS devices, uniqExact(vehicle) AS vehicles, sum(changes) AS changes_sum, min(changes) AS changes_min, max(changes) AS changes_max, sum(device_delay_ms) AS device_delay_ms_sum, max(device_delay_ms) AS device_delay_ms_max, sum(platform_delay_ms) AS platform_delay_ms_sum, max(platform_delay_ms) AS platform_delay_ms_max, next AS through, at AS computed_at
    FROM telematics.events
    WHERE toDate(device_time) IN (SELECT toDate(arrayJoin(changed)))
        AND toStartOfHour(device_time) IN (SELECT arrayJoin(changed))
    GROUP BY hour, event, category, severity, fleet, sender
    UNION ALL
    SELECT hour, event, category, severity, fleet, sender, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, next, at - INTERVAL 1 MICROSECOND
    FROM telematics.events_hourly_store
    WHERE hour < toDateTime('2106-02-07 06:00:00', 'UTC')
        AND hour IN (SELECT arrayJoin(changed))
    GROUP BY hour, event, category, severity, fleet, sender
    UNION ALL
    SELECT toDateTime('2106-02-07 06:00:00', 'UTC'), '', '', '', NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, next, at WHERE is_due
) ORDER BY hour
SETTINGS max_insert_threads = 1, max_memory_usage = 2000000000, max_bytes_before_external_group_by = 500000000, max_bytes_before_external_sort = 500000000;

CREATE OR REPLACE VIEW telematics.events_hourly{on_cluster} (
    hour DateTime('UTC') COMMENT 'hour of device_time',
    event LowCardinality(String) COMMENT 'event type',
    category LowCardinality(String) COMMENT 'what the type is about',
    severity LowCardinality(String) COMMENT 'info, warning or critical',
    fleet LowCardinality(Nullable(String)) COMMENT 'the fleet in the registry on arrival',
    sender LowCardinality(Nullable(String)) COMMENT 'name of the sender''s token or secret',
    events UInt64 COMMENT 'number of events',
    devices UInt64 COMMENT 'number of devices; do not add it up over rows',
    vehicles UInt64 COMMENT 'number of vehicles; do not add it up over rows',
    changes_sum Int64 COMMENT 'sum of changes',
    changes_min Int64 COMMENT 'least changes',
    changes_max Int64 COMMENT 'greatest changes',
    device_delay_ms_sum Int64 COMMENT 'sum of device_delay_ms; divided by events, the mean',
    device_delay_ms_max Int64 COMMENT 'greatest device_delay_ms',
    platform_delay_ms_sum Int64 COMMENT 'sum of platform_delay_ms; divided by events, the mean',
    platform_delay_ms_max Int64 COMMENT 'greatest platform_delay_ms'
)
AS WITH (SELECT max(through) FROM telematics.events_hourly_store WHERE hour = toDateTime('2106-02-07 06:00:00', 'UTC')) AS done,
    (SELECT groupUniqArray(hour) FROM (
        SELECT toStartOfHour(device_time) AS hour FROM telematics.events_store WHERE inserted_at > done - INTERVAL 5 MINUTE
        UNION ALL SELECT hour FROM telematics.rollup_marks WHERE inserted_at > done - INTERVAL 5 MINUTE
    )) AS changed
SELECT hour, event, category, severity, fleet, sender, events, devices, vehicles, changes_sum, changes_min, changes_max, device_delay_ms_sum, device_delay_ms_max, platform_delay_ms_sum, platform_delay_ms_max
FROM telematics.events_hourly_store FINAL
WHERE events > 0 AND hour < toDateTime('2106-02-07 06:00:00', 'UTC')
    AND hour NOT IN (SELECT arrayJoin(changed))
UNION ALL
SELECT toStartOfHour(device_time) AS hour, event, category, severity, fleet, sender, count() AS events, uniqExact(imei) AS devices, uniqExact(vehicle) AS vehicles, sum(changes) AS changes_sum, min(changes) AS changes_min, max(changes) AS changes_max, sum(device_delay_ms) AS device_delay_ms_sum, max(device_delay_ms) AS device_delay_ms_max, sum(platform_delay_ms) AS platform_delay_ms_sum, max(platform_delay_ms) AS platform_delay_ms_max
FROM telematics.events
WHERE toDate(device_time) IN (SELECT toDate(arrayJoin(changed)))
    AND toStartOfHour(device_time) IN (SELECT arrayJoin(changed))
GROUP BY hour, event, category, severity, fleet, sender;

CREATE TABLE IF NOT EXISTS telematics.events_daily_store{on_cluster} (
    day Date COMMENT 'day of device_time, in UTC' CODEC(Delta, ZSTD(1)),
    event LowCardinality(String) COMMENT 'event type',
    category LowCardinality(String) COMMENT 'what the type is about',
    severity LowCardinality(String) COMMENT 'info, warning or critical',
    fleet LowCardinality(Nullable(String)) COMMENT 'the fleet in the registry on arrival',
    vehicle LowCardinality(Nullable(String)) COMMENT 'the vehicle in the registry on arrival',
    sender LowCardinality(Nullable(String)) COMMENT 'name of the sender''s token or secret',
    events UInt64 COMMENT 'number of events' CODEC(T64, ZSTD(1)),
    devices UInt64 COMMENT 'number of devices; do not add it up over rows' CODEC(T64, ZSTD(1)),
    changes_sum Int64 COMMENT 'sum of changes' CODEC(T64, ZSTD(1)),
    changes_min Int64 COMMENT 'least changes' CODEC(T64, ZSTD(1)),
    changes_max Int64 COMMENT 'greatest changes' CODEC(T64, ZSTD(1)),
    device_delay_ms_sum Int64 COMMENT 'sum of device_delay_ms; divided by events, the mean' CODEC(T64, ZSTD(1)),
    device_delay_ms_max Int64 COMMENT 'greatest device_delay_ms' CODEC(T64, ZSTD(1)),
    platform_delay_ms_sum Int64 COMMENT 'sum of platform_delay_ms; divided by events, the mean' CODEC(T64, ZSTD(1)),
    platform_delay_ms_max Int64 COMMENT 'greatest platform_delay_ms' CODEC(T64, ZSTD(1)),
    through DateTime64(6, 'UTC') COMMENT 'in the watermark: rows inserted up to then are counted' CODEC(Delta, ZSTD(1)),
    computed_at DateTime64(6, 'UTC') COMMENT 'when it was computed; the newest row of a group counts' CODEC(Delta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree(computed_at)}
ORDER BY (day, event, category, severity, isNull(fleet), ifNull(fleet, ''), isNull(vehicle), ifNull(vehicle, ''), isNull(sender), ifNull(sender, ''))
SETTINGS {deduplication_window};

CREATE MATERIALIZED VIEW IF NOT EXISTS telematics.events_daily_refresh{on_cluster}
REFRESH EVERY 1 MINUTE APPEND TO telematics.events_daily_store AS
WITH (SELECT max(through) FROM telematics.events_daily_store WHERE day = toDate('2149-06-06')) AS done,
    now64(6) AS at,
    (SELECT if(count() < 5000000, at, max(inserted_at)) FROM (
        SELECT inserted_at FROM (
            SELECT inserted_at FROM telematics.events_store WHERE inserted_at > done
            UNION ALL SELECT inserted_at FROM telematics.rollup_marks WHERE inserted_at > done
        ) ORDER BY inserted_at LIMIT 5000000
    )) AS next,
    (SELECT count() > 0 FROM (
        SELECT 1 FROM telematics.events_store WHERE inserted_at > done - INTERVAL 5 MINUTE
        UNION ALL SELECT 1 FROM telematics.rollup_marks WHERE inserted_at > done - INTERVAL 5 MINUTE
    )) AS is_due,
    (SELECT groupUniqArray(day) FROM (
        SELECT toDate(device_time) AS day FROM telematics.events_store WHERE inserted_at > done - INTERVAL 5 MINUTE AND inserted_at <= next
        UNION ALL SELECT toDate(hour) FROM telematics.rollup_marks WHERE inserted_at > done - INTERVAL 5 MINUTE AND inserted_at <= next
    )) AS changed
SELECT day, event, category, severity, fleet, vehicle, sender, events, devices, changes_sum, changes_min, changes_max, device_delay_ms_sum, device_delay_ms_max, platform_delay_ms_sum, platform_delay_ms_max, through, computed_at FROM (
    SELECT toDate(device_time) AS day, event, category, severity, fleet, vehicle, sender, count() AS events, uniqExact(imei) AS devices, sum(changes) AS changes_sum, min(changes) AS changes_min, max(changes) AS changes_max, sum(device_delay_ms) AS device_delay_ms_sum, max(device_delay_ms) AS device_delay_ms_max, sum(platform_delay_ms) AS platform_delay_ms_sum, max(platform_delay_ms) AS platform_delay_ms_max, next AS through, at AS computed_at
    FROM telematics.events
    WHERE toDate(device_time) IN (SELECT toDate(arrayJoin(changed)))
        AND toDate(device_time) IN (SELECT arrayJoin(changed))
    GROUP BY day, event, category, severity, fleet, vehicle, sender
    UNION ALL
    SELECT day, event, category, severity, fleet, vehicle, sender, 0, 0, 0, 0, 0, 0, 0, 0, 0, next, at - INTERVAL 1 MICROSECOND
    FROM telematics.events_daily_store
    WHERE day < toDate('2149-06-06')
        AND day IN (SELECT arrayJoin(changed))
    GROUP BY day, event, category, severity, fleet, vehicle, sender
    UNION ALL
    SELECT toDate('2149-06-06'), '', '', '', NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, next, at WHERE is_due
) ORDER BY day
SETTINGS max_insert_threads = 1, max_memory_usage = 2000000000, max_bytes_before_external_group_by = 500000000, max_bytes_before_external_sort = 500000000;

CREATE OR REPLACE VIEW telematics.events_daily{on_cluster} (
    day Date COMMENT 'day of device_time, in UTC',
    event LowCardinality(String) COMMENT 'event type',
    category LowCardinality(String) COMMENT 'what the type is about',
    severity LowCardinality(String) COMMENT 'info, warning or critical',
    fleet LowCardinality(Nullable(String)) COMMENT 'the fleet in the registry on arrival',
    vehicle LowCardinality(Nullable(String)) COMMENT 'the vehicle in the registry on arrival',
    sender LowCardinality(Nullable(String)) COMMENT 'name of the sender''s token or secret',
    events UInt64 COMMENT 'number of events',
    devices UInt64 COMMENT 'number of devices; do not add it up over rows',
    changes_sum Int64 COMMENT 'sum of changes',
    changes_min Int64 COMMENT 'least changes',
    changes_max Int64 COMMENT 'greatest changes',
    device_delay_ms_sum Int64 COMMENT 'sum of device_delay_ms; divided by events, the mean',
    device_delay_ms_max Int64 COMMENT 'greatest device_delay_ms',
    platform_delay_ms_sum Int64 COMMENT 'sum of platform_delay_ms; divided by events, the mean',
    platform_delay_ms_max Int64 COMMENT 'greatest platform_delay_ms'
)
AS WITH (SELECT max(through) FROM telematics.events_daily_store WHERE day = toDate('2149-06-06')) AS done,
    (SELECT groupUniqArray(day) FROM (
        SELECT toDate(device_time) AS day FROM telematics.events_store WHERE inserted_at > done - INTERVAL 5 MINUTE
        UNION ALL SELECT toDate(hour) FROM telematics.rollup_marks WHERE inserted_at > done - INTERVAL 5 MINUTE
    )) AS changed
SELECT day, event, category, severity, fleet, vehicle, sender, events, devices, changes_sum, changes_min, changes_max, device_delay_ms_sum, device_delay_ms_max, platform_delay_ms_sum, platform_delay_ms_max
FROM telematics.events_daily_store FINAL
WHERE events > 0 AND day < toDate('2149-06-06')
    AND day NOT IN (SELECT arrayJoin(changed))
UNION ALL
SELECT toDate(device_time) AS day, event, category, severity, fleet, vehicle, sender, count() AS events, uniqExact(imei) AS devices, sum(changes) AS changes_sum, min(changes) AS changes_min, max(changes) AS changes_max, sum(device_delay_ms) AS device_delay_ms_sum, max(device_delay_ms) AS device_delay_ms_max, sum(platform_delay_ms) AS platform_delay_ms_sum, max(platform_delay_ms) AS platform_delay_ms_max
FROM telematics.events
WHERE toDate(device_time) IN (SELECT toDate(arrayJoin(changed)))
    AND toDate(device_time) IN (SELECT arrayJoin(changed))
GROUP BY day, event, category, severity, fleet, vehicle, sender;

CREATE TABLE IF NOT EXISTS telematics.device_latest_store{on_cluster} (
    imei String COMMENT '15 digits' CODEC(ZSTD(1)),
    device_time DateTime64(6, 'UTC') COMMENT 'when the device last reported, by its clock' CODEC(Delta, ZSTD(1)),
    event LowCardinality(String) COMMENT 'event type',
    changes Int64 COMMENT 'the type''s own value' CODEC(T64, ZSTD(1)),
    latitude Float64 COMMENT 'degrees north, WGS 84' CODEC(ZSTD(1)),
    longitude Float64 COMMENT 'degrees east, WGS 84' CODEC(ZSTD(1)),
    location Nullable(String) COMMENT 'address for people, as sent' CODEC(ZSTD(1)),
    geofence_name LowCardinality(Nullable(String)) COMMENT 'NULL when none was sent',
    category LowCardinality(String) COMMENT 'what the type is about',
    severity LowCardinality(String) COMMENT 'info, warning or critical',
    vehicle LowCardinality(Nullable(String)) COMMENT 'the device''s vehicle in the registry on arrival',
    fleet LowCardinality(Nullable(String)) COMMENT 'the device''s fleet in the registry on arrival',
    driver LowCardinality(Nullable(String)) COMMENT 'the device''s driver in the registry on arrival',
    received_at DateTime64(6, 'UTC') COMMENT 'when the ingress accepted it' CODEC(Delta, ZSTD(1)),
    event_id UUID COMMENT 'the event, in telematics.events',
    present Bool COMMENT 'false when the device has no event any more',
    through DateTime64(6, 'UTC') COMMENT 'in the watermark: rows inserted up to then are counted' CODEC(Delta, ZSTD(1)),
    computed_at DateTime64(6, 'UTC') COMMENT 'when it was computed; the newest row of a device counts' CODEC(Delta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree(computed_at)}
ORDER BY imei
SETTINGS {deduplication_window};

CREATE MATERIALIZED VIEW IF NOT EXISTS telematics.device_latest_refresh{on_cluster}
REFRESH EVERY 1 MINUTE APPEND TO telematics.device_latest_store AS
WITH (SELECT max(through) FROM telematics.device_latest_store WHERE imei = '~') AS done,
    now64(6) AS at,
    (SELECT if(count() < 5000000, at, max(inserted_at)) FROM (
        SELECT inserted_at FROM (
            SELECT inserted_at FROM telematics.events_store WHERE inserted_at > done
            UNION ALL SELECT inserted_at FROM telematics.rollup_marks WHERE inserted_at > done
        ) ORDER BY inserted_at LIMIT 5000000
    )) AS next,
    (SELECT count() > 0 FROM (
        SELECT 1 FROM telematics.events_store WHERE inserted_at > done - INTERVAL 5 MINUTE
        UNION ALL SELECT 1 FROM telematics.rollup_marks WHERE inserted_at > done - INTERVAL 5 MINUTE
    )) AS is_due
SELECT imei, device_time, event, changes, latitude, longitude, location, geofence_name, category, severity, vehicle, fleet, driver, received_at, event_id, present, through, computed_at FROM (
    SELECT imei, last.1 AS device_time, last.2 AS event, last.3 AS changes, last.4 AS latitude, last.5 AS longitude, last.6 AS location, last.7 AS geofence_name, last.8 AS category, last.9 AS severity, last.10 AS vehicle, last.11 AS fleet, last.12 AS driver, last.13 AS received_at, last.14 AS event_id, true AS present, next AS through, at AS computed_at FROM (
        SELECT imei, argMax(tuple(device_time, event, changes, latitude, longitude, location, geofence_name, category, severity, vehicle, fleet, driver, received_at, event_id), (device_time, event_id, -toUnixTimestamp64Micro(received_at))) AS last
        FROM (
            SELECT imei, device_time, event, changes, latitude, longitude, location, geofence_name, category, severity, vehicle, fleet, driver, received_at, event_id FROM telematics.device_latest_store FINAL
            WHERE present AND imei != '~' AND imei IN (SELECT imei FROM telematics.events_store WHERE inserted_at > done - INTERVAL 5 MINUTE AND inserted_at <= next) AND imei NOT IN (SELECT imei FROM telematics.rollup_marks WHERE imei != '' AND inserted_at > done - INTERVAL 5 MINUTE AND inserted_at <= next)
            UNION ALL
            SELECT imei, device_time, event, changes, latitude, longitude, location, geofence_name, category, severity, vehicle, fleet, driver, received_at, event_id FROM telematics.events
            WHERE inserted_at > done - INTERVAL 5 MINUTE AND inserted_at <= next AND (event, toDate(device_time)) IN (
                SELECT DISTINCT event, toDate(device_time) FROM telematics.events_store WHERE inserted_at > done - INTERVAL 5 MINUTE AND inserted_at <= next)
            UNION ALL
            SELECT imei, device_time, event, changes, latitude, longitude, location, geofence_name, category, severity, vehicle, fleet, driver, received_at, event_id FROM telematics.events WHERE imei IN (SELECT imei FROM telematics.rollup_marks WHERE imei != '' AND inserted_at > done - INTERVAL 5 MINUTE AND inserted_at <= next)
        )
        GROUP BY imei
    )
    UNION ALL
    SELECT imei, toDateTime64(0, 6, 'UTC'), '', 0, 0, 0, NULL, NULL, '', '', NULL, NULL, NULL, toDateTime64(0, 6, 'UTC'), toUUID('00000000-0000-0000-0000-000000000000'), false, next, at - INTERVAL 1 MICROSECOND FROM telematics.rollup_marks
    WHERE imei != '' AND inserted_at > done - INTERVAL 5 MINUTE AND inserted_at <= next GROUP BY imei
    UNION ALL
    SELECT '~', toDateTime64(0, 6, 'UTC'), '', 0, 0, 0, NULL, NULL, '', '', NULL, NULL, NULL, toDateTime64(0, 6, 'UTC'), toUUID('00000000-0000-0000-0000-000000000000'), false, next, at WHERE is_due
) ORDER BY imei
SETTINGS max_insert_threads = 1, max_memory_usage = 2000000000, max_bytes_before_external_group_by = 500000000, max_bytes_before_external_sort = 500000000;

CREATE OR REPLACE VIEW telematics.device_latest{on_cluster} (
    imei String COMMENT '15 digits',
    device_time DateTime64(6, 'UTC') COMMENT 'when the device last reported, by its clock',
    event LowCardinality(String) COMMENT 'event type',
    changes Int64 COMMENT 'the type''s own value',
    latitude Float64 COMMENT 'degrees north, WGS 84',
    longitude Float64 COMMENT 'degrees east, WGS 84',
    location Nullable(String) COMMENT 'address for people, as sent',
    geofence_name LowCardinality(Nullable(String)) COMMENT 'NULL when none was sent',
    category LowCardinality(String) COMMENT 'what the type is about',
    severity LowCardinality(String) COMMENT 'info, warning or critical',
    vehicle LowCardinality(Nullable(String)) COMMENT 'the device''s vehicle in the registry on arrival',
    fleet LowCardinality(Nullable(String)) COMMENT 'the device''s fleet in the registry on arrival',
    driver LowCardinality(Nullable(String)) COMMENT 'the device''s driver in the registry on arrival',
    received_at DateTime64(6, 'UTC') COMMENT 'when the ingress accepted it',
    event_id UUID COMMENT 'the event, in telematics.events'
)
AS WITH (SELECT max(through) FROM telematics.device_latest_store WHERE imei = '~') AS done
SELECT imei, last.1 AS device_time, last.2 AS event, last.3 AS changes, last.4 AS latitude, last.5 AS longitude, last.6 AS location, last.7 AS geofence_name, last.8 AS category, last.9 AS severity, last.10 AS vehicle, last.11 AS fleet, last.12 AS driver, last.13 AS received_at, last.14 AS event_id FROM (
        SELECT imei, argMax(tuple(device_time, event, changes, latitude, longitude, location, geofence_name, category, severity, vehicle, fleet, driver, received_at, event_id), (device_time, event_id, -toUnixTimestamp64Micro(received_at))) AS last
        FROM (
            SELECT imei, device_time, event, changes, latitude, longitude, location, geofence_name, category, severity, vehicle, fleet, driver, received_at, event_id FROM telematics.device_latest_store FINAL
            WHERE present AND imei != '~' AND imei NOT IN (SELECT imei FROM telematics.rollup_marks WHERE imei != '' AND inserted_at > done - INTERVAL 5 MINUTE)
            UNION ALL
            SELECT imei, device_time, event, changes, latitude, longitude, location, geofence_name, category, severity, vehicle, fleet, driver, received_at, event_id FROM telematics.events
            WHERE inserted_at > done - INTERVAL 5 MINUTE AND (event, toDate(device_time)) IN (
                SELECT DISTINCT event, toDate(device_time) FROM telematics.events_store WHERE inserted_at > done - INTERVAL 5 MINUTE)
            UNION ALL
            SELECT imei, device_time, event, changes, latitude, longitude, location, geofence_name, category, severity, vehicle, fleet, driver, received_at, event_id FROM telematics.events WHERE imei IN (SELECT imei FROM telematics.rollup_marks WHERE imei != '' AND inserted_at > done - INTERVAL 5 MINUTE)
        )
        GROUP BY imei
);
