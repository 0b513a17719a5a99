-- name: device history
-- compatibility: expand
-- Who drove what, when: a row of devices_store is a device's record in the registry, with all of its intervals. The sink
-- writes it; the record that is later on the topic counts. events_as_of joins each event with what held at its device_time,
-- and overspeed_by_driver reads it: a late event is not the fault of whoever drives now.
--
-- The rollup is events_daily's, over events_as_of. Before the sink changes a history, it marks the days that the change is
-- about, so the rollup counts them on the spot from then on.

CREATE TABLE IF NOT EXISTS telematics.devices_store{on_cluster} (
    imei String COMMENT '15 digits' CODEC(ZSTD(1)),
    intervals Array(Tuple(vehicle LowCardinality(Nullable(String)), fleet LowCardinality(Nullable(String)), driver LowCardinality(Nullable(String)), valid_from Nullable(DateTime64(6, 'UTC')), valid_to Nullable(DateTime64(6, 'UTC')))) COMMENT 'what held when; empty when the device was removed with its history' CODEC(ZSTD(1)),
    partition UInt32 COMMENT 'of the record on the registry''s topic',
    offset UInt64 COMMENT 'of the record; the highest of a device counts',
    loaded_at DateTime64(6, 'UTC') COMMENT 'when the record was loaded' CODEC(Delta, ZSTD(1)),
    inserted_at DateTime64(6, 'UTC') DEFAULT now64(6) COMMENT 'when ClickHouse stored it' CODEC(Delta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree(offset)}
ORDER BY imei
SETTINGS {deduplication_window};

CREATE OR REPLACE VIEW telematics.devices_history{on_cluster} (
    imei String COMMENT '15 digits',
    vehicle LowCardinality(Nullable(String)) COMMENT 'the vehicle that carries the device',
    fleet LowCardinality(Nullable(String)) COMMENT 'the fleet that the vehicle belongs to',
    driver LowCardinality(Nullable(String)) COMMENT 'the vehicle''s driver',
    valid_from Nullable(DateTime64(6, 'UTC')) COMMENT 'since when; NULL: from the beginning',
    valid_to Nullable(DateTime64(6, 'UTC')) COMMENT 'until when, not included; NULL: until further notice',
    loaded_at DateTime64(6, 'UTC') COMMENT 'when the device''s history was last changed'
)
AS SELECT imei, held.vehicle AS vehicle, held.fleet AS fleet, held.driver AS driver, held.valid_from AS valid_from,
    held.valid_to AS valid_to, loaded_at
FROM telematics.devices_store FINAL ARRAY JOIN intervals AS held;

CREATE OR REPLACE VIEW telematics.events_as_of{on_cluster} (
    event_id UUID COMMENT 'UUID of the event''s identity: the same after every retry and replay',
    event LowCardinality(String) COMMENT 'event type, normalised',
    changes Int64 COMMENT 'the type''s own value: litres, km/h above the limit, …',
    imei String COMMENT '15 digits',
    device_time DateTime64(6, 'UTC') COMMENT 'when it happened, by the device''s clock',
    server_time DateTime64(6, 'UTC') COMMENT 'when the platform received it',
    received_at DateTime64(6, 'UTC') COMMENT 'when the ingress accepted it',
    latitude Float64 COMMENT 'degrees north, WGS 84',
    longitude Float64 COMMENT 'degrees east, WGS 84',
    location Nullable(String) COMMENT 'address for people, as sent; NULL when none was sent',
    geofence_name LowCardinality(Nullable(String)) COMMENT 'NULL when none was sent',
    category LowCardinality(String) COMMENT 'what the type is about: driving, fuel, geofence, security, emergency, other',
    severity LowCardinality(String) COMMENT 'info, warning or critical',
    h3_r7 UInt64 COMMENT 'H3 cell of resolution 7, as geoToH3 gives it',
    h3_r9 UInt64 COMMENT 'H3 cell of resolution 9',
    time_zone LowCardinality(String) COMMENT 'IANA name at the coordinates',
    device_time_local DateTime64(6, 'UTC') COMMENT 'the wall clock of device_time in time_zone; no instant: do not convert it',
    imei_valid Bool COMMENT 'whether the IMEI''s check digit is right',
    tac LowCardinality(String) COMMENT 'type allocation code: the IMEI''s first eight digits',
    device_delay_ms Int64 COMMENT 'device_time to server_time',
    platform_delay_ms Int64 COMMENT 'server_time to received_at; negative if the platform''s clock is ahead',
    vehicle LowCardinality(Nullable(String)) COMMENT 'the vehicle by the registry, as of device_time',
    fleet LowCardinality(Nullable(String)) COMMENT 'the fleet by the registry, as of device_time',
    driver LowCardinality(Nullable(String)) COMMENT 'the driver by the registry, as of device_time',
    event_as_sent LowCardinality(Nullable(String)) COMMENT 'the event type as it was sent, where `event` differs',
    warnings Array(LowCardinality(String)) COMMENT 'what is suspicious about the event: codes, see docs/warnings.md',
    extra String COMMENT 'JSON object of the fields that the contract does not know',
    receipt_id Nullable(String) COMMENT 'the id in the response''s X-Receipt-Id header',
    sender LowCardinality(Nullable(String)) COMMENT 'name of the bearer token or signature secret of the request; NULL when neither is required',
    raw Tuple(topic LowCardinality(String), partition UInt32, offset UInt64) COMMENT 'source record on the raw topic: topic, partition, offset',
    inserted_at DateTime64(6, 'UTC') COMMENT 'when ClickHouse stored it',
    vehicle_on_arrival LowCardinality(Nullable(String)) COMMENT 'the device''s vehicle in the registry on arrival',
    fleet_on_arrival LowCardinality(Nullable(String)) COMMENT 'the device''s fleet in the registry on arrival',
    driver_on_arrival LowCardinality(Nullable(String)) COMMENT 'the device''s driver in the registry on arrival'
)
AS SELECT e.event_id AS event_id, e.event AS event, e.changes AS changes, e.imei AS imei, e.device_time AS device_time, e.server_time AS server_time, e.received_at AS received_at, e.latitude AS latitude, e.longitude AS longitude, e.location AS location, e.geofence_name AS geofence_name, e.category AS category, e.severity AS severity, e.h3_r7 AS h3_r7, e.h3_r9 AS h3_r9, e.time_zone AS time_zone, e.device_time_local AS device_time_local, e.imei_valid AS imei_valid, e.tac AS tac, e.device_delay_ms AS device_delay_ms, e.platform_delay_ms AS platform_delay_ms, if(h.valid_to IS NULL OR e.device_time < h.valid_to, h.vehicle, NULL) AS vehicle, if(h.valid_to IS NULL OR e.device_time < h.valid_to, h.fleet, NULL) AS fleet, if(h.valid_to IS NULL OR e.device_time < h.valid_to, h.driver, NULL) AS driver, e.event_as_sent AS event_as_sent, e.warnings AS warnings, e.extra AS extra, e.receipt_id AS receipt_id, e.sender AS sender, e.raw AS raw, e.inserted_at AS inserted_at, e.vehicle AS vehicle_on_arrival, e.fleet AS fleet_on_arrival, e.driver AS driver_on_arrival
FROM telematics.events AS e
ASOF LEFT JOIN (
    SELECT imei, vehicle, fleet, driver, ifNull(valid_from, toDateTime64('1900-01-01', 6, 'UTC')) AS since, valid_to
    FROM telematics.devices_history
) AS h ON e.imei = h.imei AND e.device_time >= h.since;

CREATE OR REPLACE VIEW telematics.registered_never_seen{on_cluster} (
    imei String COMMENT '15 digits',
    vehicle LowCardinality(Nullable(String)) COMMENT 'its vehicle by the registry, now',
    fleet LowCardinality(Nullable(String)) COMMENT 'its fleet by the registry, now',
    driver LowCardinality(Nullable(String)) COMMENT 'its driver by the registry, now',
    valid_from Nullable(DateTime64(6, 'UTC')) COMMENT 'since when that holds; NULL: from the beginning',
    loaded_at DateTime64(6, 'UTC') COMMENT 'when the device''s history was last changed'
)
AS SELECT imei, vehicle, fleet, driver, valid_from, loaded_at
FROM telematics.devices_history
WHERE ifNull(valid_from <= now64(6), true) AND ifNull(valid_to > now64(6), true)
    AND imei NOT IN (SELECT imei FROM telematics.device_latest);

CREATE OR REPLACE VIEW telematics.overspeed_by_driver{on_cluster}
AS SELECT driver, fleet, count() AS overspeeds, uniqExact(imei) AS vehicles, uniqExact(toDate(device_time_local)) AS days,
    avg(changes) AS over_kmh_mean, max(changes) AS over_kmh_max, countIf(changes > 30) AS over_30_kmh,
    countIf(toHour(device_time_local) >= 22 OR toHour(device_time_local) < 5) AS at_night, max(device_time) AS last_at
FROM telematics.events_as_of
WHERE event = 'overspeed' AND device_time >= {begin:DateTime64(6, 'UTC')} AND device_time < {end:DateTime64(6, 'UTC')}
GROUP BY driver, fleet;

CREATE TABLE IF NOT EXISTS telematics.events_daily_as_of_store{on_cluster} (
    day Date COMMENT 'day of device_time, in UTC' CODEC(Delta, ZSTD(1)),
    event LowCardinality(String) COMMENT 'event type',
    category LowCardinality(String) COMMENT 'what the type is about',
    severity LowCardinality(String) COMMENT 'info, warning or critical',
    fleet LowCardinality(Nullable(String)) COMMENT 'the fleet by the registry, as of device_time',
    vehicle LowCardinality(Nullable(String)) COMMENT 'the vehicle by the registry, as of device_time',
    driver LowCardinality(Nullable(String)) COMMENT 'the driver by the registry, as of device_time',
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
ORDER BY (day, event, category, severity, isNull(fleet), ifNull(fleet, ''), isNull(vehicle), ifNull(vehicle, ''), isNull(driver), ifNull(driver, ''))
SETTINGS {deduplication_window};

CREATE MATERIALIZED VIEW IF NOT EXISTS telematics.events_daily_as_of_refresh{on_cluster}
REFRESH EVERY 1 MINUTE APPEND TO telematics.events_daily_as_of_store AS
WITH (SELECT max(through) FROM telematics.events_daily_as_of_store WHERE day = toDate('2149-06-06')) AS done,
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
SELECT day, event, category, severity, fleet, vehicle, driver, events, devices, changes_sum, changes_min, changes_max, device_delay_ms_sum, device_delay_ms_max, platform_delay_ms_sum, platform_delay_ms_max, through, computed_at FROM (
    SELECT toDate(device_time) AS day, event, category, severity, fleet, vehicle, driver, count() AS events, uniqExact(imei) AS devices, sum(changes) AS changes_sum, min(changes) AS changes_min, max(changes) AS changes_max, sum(device_delay_ms) AS device_delay_ms_sum, max(device_delay_ms) AS device_delay_ms_max, sum(platform_delay_ms) AS platform_delay_ms_sum, max(platform_delay_ms) AS platform_delay_ms_max, next AS through, at AS computed_at
    FROM telematics.events_as_of
    WHERE toDate(device_time) IN (SELECT toDate(arrayJoin(changed)))
        AND toDate(device_time) IN (SELECT arrayJoin(changed))
    GROUP BY day, event, category, severity, fleet, vehicle, driver
    UNION ALL
    SELECT day, event, category, severity, fleet, vehicle, driver, 0, 0, 0, 0, 0, 0, 0, 0, 0, next, at - INTERVAL 1 MICROSECOND
    FROM telematics.events_daily_as_of_store
    WHERE day < toDate('2149-06-06')
        AND day IN (SELECT arrayJoin(changed))
    GROUP BY day, event, category, severity, fleet, vehicle, driver
    UNION ALL
    SELECT toDate('2149-06-06'), '', '', '', NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, next, at WHERE is_due
) ORDER BY day
SETTINGS max_insert_threads = 1, max_memory_usage = 2000000000, max_bytes_before_external_group_by = 500000000, max_bytes_before_external_sort = 500000000;

CREATE OR REPLACE VIEW telematics.events_daily_as_of{on_cluster} (
    day Date COMMENT 'day of device_time, in UTC',
    event LowCardinality(String) COMMENT 'event type',
    category LowCardinality(String) COMMENT 'what the type is about',
    severity LowCardinality(String) COMMENT 'info, warning or critical',
    fleet LowCardinality(Nullable(String)) COMMENT 'the fleet by the registry, as of device_time',
    vehicle LowCardinality(Nullable(String)) COMMENT 'the vehicle by the registry, as of device_time',
    driver LowCardinality(Nullable(String)) COMMENT 'the driver by the registry, as of device_time',
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
AS WITH (SELECT max(through) FROM telematics.events_daily_as_of_store WHERE day = toDate('2149-06-06')) AS done,
    (SELECT groupUniqArray(day) FROM (
        SELECT toDate(device_time) AS day FROM telematics.events_store WHERE inserted_at > done - INTERVAL 5 MINUTE
        UNION ALL SELECT toDate(hour) FROM telematics.rollup_marks WHERE inserted_at > done - INTERVAL 5 MINUTE
    )) AS changed
SELECT day, event, category, severity, fleet, vehicle, driver, events, devices, changes_sum, changes_min, changes_max, device_delay_ms_sum, device_delay_ms_max, platform_delay_ms_sum, platform_delay_ms_max
FROM telematics.events_daily_as_of_store FINAL
WHERE events > 0 AND day < toDate('2149-06-06')
    AND day NOT IN (SELECT arrayJoin(changed))
UNION ALL
SELECT toDate(device_time) AS day, event, category, severity, fleet, vehicle, driver, count() AS events, uniqExact(imei) AS devices, sum(changes) AS changes_sum, min(changes) AS changes_min, max(changes) AS changes_max, sum(device_delay_ms) AS device_delay_ms_sum, max(device_delay_ms) AS device_delay_ms_max, sum(platform_delay_ms) AS platform_delay_ms_sum, max(platform_delay_ms) AS platform_delay_ms_max
FROM telematics.events_as_of
WHERE toDate(device_time) IN (SELECT toDate(arrayJoin(changed)))
    AND toDate(device_time) IN (SELECT arrayJoin(changed))
GROUP BY day, event, category, severity, fleet, vehicle, driver;
