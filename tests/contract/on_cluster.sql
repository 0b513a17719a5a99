CREATE DATABASE IF NOT EXISTS telematics ON CLUSTER `main`;
CREATE TABLE IF NOT EXISTS telematics.schema_migrations ON CLUSTER `main` (
    version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/telematics/schema_migrations', '{replica}', applied_at) ORDER BY version;
CREATE TABLE IF NOT EXISTS telematics.events_store ON CLUSTER `main` (
    event_id UUID COMMENT 'function of the event''s identity alone: the same after every retry and replay',
    event LowCardinality(String) COMMENT 'event type as sent',
    changes Int64 COMMENT 'the type''s own value: litres, km/h, …' CODEC(T64, ZSTD(1)),
    imei String COMMENT '15 digits' CODEC(ZSTD(1)),
    device_time DateTime64(6, 'UTC') COMMENT 'when it happened, by the device''s clock' CODEC(Delta, ZSTD(1)),
    server_time DateTime64(6, 'UTC') COMMENT 'when the platform received it' CODEC(Delta, ZSTD(1)),
    received_at DateTime64(6, 'UTC') COMMENT 'when the ingress accepted it' CODEC(Delta, ZSTD(1)),
    latitude Float64 COMMENT 'degrees north, WGS 84' CODEC(ZSTD(1)),
    longitude Float64 COMMENT 'degrees east, WGS 84' CODEC(ZSTD(1)),
    location String COMMENT 'address for people, as sent' CODEC(ZSTD(1)),
    geofence_name LowCardinality(Nullable(String)) COMMENT 'NULL when none was sent',
    category LowCardinality(String) COMMENT 'what the type is about: driving, fuel, geofence, security, emergency, other',
    severity LowCardinality(String) COMMENT 'info, warning or critical',
    h3_r7 UInt64 COMMENT 'H3 cell of resolution 7, as geoToH3 gives it' CODEC(ZSTD(1)),
    h3_r9 UInt64 COMMENT 'H3 cell of resolution 9' CODEC(ZSTD(1)),
    time_zone LowCardinality(String) COMMENT 'IANA name at the coordinates',
    device_time_local DateTime64(6, 'UTC') COMMENT 'the wall clock of device_time in time_zone; no instant: do not convert it' CODEC(Delta, ZSTD(1)),
    imei_valid Bool COMMENT 'the IMEI''s check digit is right',
    tac LowCardinality(String) COMMENT 'type allocation code: the IMEI''s first eight digits',
    device_delay_ms Int64 COMMENT 'device_time to server_time' CODEC(T64, ZSTD(1)),
    platform_delay_ms Int64 COMMENT 'server_time to received_at; negative if the platform''s clock is ahead' CODEC(T64, ZSTD(1)),
    vehicle LowCardinality(Nullable(String)) COMMENT 'the device''s vehicle in the registry on arrival',
    fleet LowCardinality(Nullable(String)) COMMENT 'the device''s fleet in the registry on arrival',
    driver LowCardinality(Nullable(String)) COMMENT 'the device''s driver in the registry on arrival',
    extra String COMMENT 'JSON object of the fields that the contract does not know' CODEC(ZSTD(1)),
    receipt_id Nullable(String) COMMENT 'the id in the answer''s headers' CODEC(ZSTD(1)),
    raw Tuple(topic LowCardinality(String), partition UInt32, offset UInt64) COMMENT 'where the bytes lie that it came of' CODEC(ZSTD(1)),
    inserted_at DateTime64(6, 'UTC') DEFAULT now64(6) COMMENT 'when ClickHouse stored it' CODEC(Delta, ZSTD(1)),
    precedence UInt64 MATERIALIZED 9223372036854775807 - toUnixTimestamp64Micro(received_at) COMMENT 'the earlier the arrival, the higher: what stays of two rows of one identity' CODEC(Delta, ZSTD(1)),
    INDEX event_id_bloom event_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/telematics/events_store', '{replica}', precedence)
PARTITION BY toYYYYMM(device_time)
ORDER BY (event, toDate(device_time), imei, toUnixTimestamp64Micro(device_time), event_id)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE TABLE IF NOT EXISTS telematics.dead_letters_store ON CLUSTER `main` (
    dead_letter_id UUID COMMENT 'function of stage and raw position: the same after every replay',
    stage LowCardinality(String) COMMENT 'who refused it: streams or sink',
    reasons Array(Tuple(code LowCardinality(String), field String, found String, expected String)) COMMENT 'every broken rule: reason code, field, what was found, what is expected' CODEC(ZSTD(1)),
    event Nullable(String) COMMENT 'event type as sent, where it is a string' CODEC(ZSTD(1)),
    imei Nullable(String) COMMENT 'IMEI as sent, where it is a string' CODEC(ZSTD(1)),
    received_at DateTime64(6, 'UTC') COMMENT 'when the ingress accepted it' CODEC(Delta, ZSTD(1)),
    receipt_id Nullable(String) COMMENT 'the id in the answer''s headers' CODEC(ZSTD(1)),
    payload String COMMENT 'the bytes as they came, as text or in base64' CODEC(ZSTD(1)),
    payload_encoding LowCardinality(String) COMMENT 'utf-8 or base64',
    conflict_with_event_id Nullable(UUID) COMMENT 'the event that was accepted under the same identity',
    raw Tuple(topic LowCardinality(String), partition UInt32, offset UInt64) COMMENT 'where the bytes lie that it came of' CODEC(ZSTD(1)),
    inserted_at DateTime64(6, 'UTC') DEFAULT now64(6) COMMENT 'when ClickHouse stored it' CODEC(Delta, ZSTD(1)),
    precedence UInt64 MATERIALIZED 9223372036854775807 - toUnixTimestamp64Micro(received_at) COMMENT 'the earlier the arrival, the higher: what stays of two rows of one identity' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/telematics/dead_letters_store', '{replica}', precedence)
PARTITION BY toYYYYMM(received_at)
ORDER BY (toDate(received_at), ifNull(imei, ''), dead_letter_id)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800;
CREATE VIEW IF NOT EXISTS telematics.events ON CLUSTER `main` (
    event_id UUID COMMENT 'function of the event''s identity alone: the same after every retry and replay',
    event LowCardinality(String) COMMENT 'event type as sent',
    changes Int64 COMMENT 'the type''s own value: litres, km/h, …',
    imei String COMMENT '15 digits',
    device_time DateTime64(6, 'UTC') COMMENT 'when it happened, by the device''s clock',
    server_time DateTime64(6, 'UTC') COMMENT 'when the platform received it',
    received_at DateTime64(6, 'UTC') COMMENT 'when the ingress accepted it',
    latitude Float64 COMMENT 'degrees north, WGS 84',
    longitude Float64 COMMENT 'degrees east, WGS 84',
    location String COMMENT 'address for people, as sent',
    geofence_name LowCardinality(Nullable(String)) COMMENT 'NULL when none was sent',
    category LowCardinality(String) COMMENT 'what the type is about: driving, fuel, geofence, security, emergency, other',
    severity LowCardinality(String) COMMENT 'info, warning or critical',
    h3_r7 UInt64 COMMENT 'H3 cell of resolution 7, as geoToH3 gives it',
    h3_r9 UInt64 COMMENT 'H3 cell of resolution 9',
    time_zone LowCardinality(String) COMMENT 'IANA name at the coordinates',
    device_time_local DateTime64(6, 'UTC') COMMENT 'the wall clock of device_time in time_zone; no instant: do not convert it',
    imei_valid Bool COMMENT 'the IMEI''s check digit is right',
    tac LowCardinality(String) COMMENT 'type allocation code: the IMEI''s first eight digits',
    device_delay_ms Int64 COMMENT 'device_time to server_time',
    platform_delay_ms Int64 COMMENT 'server_time to received_at; negative if the platform''s clock is ahead',
    vehicle LowCardinality(Nullable(String)) COMMENT 'the device''s vehicle in the registry on arrival',
    fleet LowCardinality(Nullable(String)) COMMENT 'the device''s fleet in the registry on arrival',
    driver LowCardinality(Nullable(String)) COMMENT 'the device''s driver in the registry on arrival',
    extra String COMMENT 'JSON object of the fields that the contract does not know',
    receipt_id Nullable(String) COMMENT 'the id in the answer''s headers',
    raw Tuple(topic LowCardinality(String), partition UInt32, offset UInt64) COMMENT 'where the bytes lie that it came of',
    inserted_at DateTime64(6, 'UTC') COMMENT 'when ClickHouse stored it'
)
AS SELECT event_id, event, changes, imei, device_time, server_time, received_at, latitude, longitude, location, geofence_name, category, severity, h3_r7, h3_r9, time_zone, device_time_local, imei_valid, tac, device_delay_ms, platform_delay_ms, vehicle, fleet, driver, extra, receipt_id, raw, inserted_at
FROM telematics.events_store FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
CREATE VIEW IF NOT EXISTS telematics.dead_letters ON CLUSTER `main` (
    dead_letter_id UUID COMMENT 'function of stage and raw position: the same after every replay',
    stage LowCardinality(String) COMMENT 'who refused it: streams or sink',
    reasons Array(Tuple(code LowCardinality(String), field String, found String, expected String)) COMMENT 'every broken rule: reason code, field, what was found, what is expected',
    event Nullable(String) COMMENT 'event type as sent, where it is a string',
    imei Nullable(String) COMMENT 'IMEI as sent, where it is a string',
    received_at DateTime64(6, 'UTC') COMMENT 'when the ingress accepted it',
    receipt_id Nullable(String) COMMENT 'the id in the answer''s headers',
    payload String COMMENT 'the bytes as they came, as text or in base64',
    payload_encoding LowCardinality(String) COMMENT 'utf-8 or base64',
    conflict_with_event_id Nullable(UUID) COMMENT 'the event that was accepted under the same identity',
    raw Tuple(topic LowCardinality(String), partition UInt32, offset UInt64) COMMENT 'where the bytes lie that it came of',
    inserted_at DateTime64(6, 'UTC') COMMENT 'when ClickHouse stored it'
)
AS SELECT dead_letter_id, stage, reasons, event, imei, received_at, receipt_id, payload, payload_encoding, conflict_with_event_id, raw, inserted_at
FROM telematics.dead_letters_store FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
CREATE VIEW IF NOT EXISTS telematics.conflicts ON CLUSTER `main` AS
SELECT d.dead_letter_id AS dead_letter_id, assumeNotNull(d.conflict_with_event_id) AS event_id,
    e.imei AS imei, e.event AS event, e.device_time AS device_time, e.geofence_name AS geofence_name,
    e.changes AS accepted_changes, e.latitude AS accepted_latitude, e.longitude AS accepted_longitude,
    e.received_at AS accepted_at, e.raw AS accepted_raw,
    d.payload AS refused_payload, d.payload_encoding AS refused_payload_encoding,
    d.received_at AS refused_at, d.raw AS refused_raw
FROM telematics.dead_letters AS d
LEFT JOIN (
    SELECT * FROM telematics.events WHERE event_id IN (
        SELECT assumeNotNull(conflict_with_event_id) FROM telematics.dead_letters_store WHERE conflict_with_event_id IS NOT NULL
    )
) AS e ON e.event_id = d.conflict_with_event_id
WHERE conflict_with_event_id IS NOT NULL;
