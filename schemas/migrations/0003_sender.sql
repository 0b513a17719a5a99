-- name: sender
-- compatibility: expand

ALTER TABLE telematics.events_store{on_cluster} ADD COLUMN IF NOT EXISTS sender LowCardinality(Nullable(String)) COMMENT 'name of the bearer token or signature secret of the request; NULL when neither is required' AFTER receipt_id;
ALTER TABLE telematics.dead_letters_store{on_cluster} ADD COLUMN IF NOT EXISTS sender LowCardinality(Nullable(String)) COMMENT 'name of the bearer token or signature secret of the request; NULL when neither is required' AFTER receipt_id;

CREATE OR REPLACE VIEW telematics.events{on_cluster} (
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
    vehicle LowCardinality(Nullable(String)) COMMENT 'the device''s vehicle in the registry on arrival',
    fleet LowCardinality(Nullable(String)) COMMENT 'the device''s fleet in the registry on arrival',
    driver LowCardinality(Nullable(String)) COMMENT 'the device''s driver in the registry on arrival',
    event_as_sent LowCardinality(Nullable(String)) COMMENT 'the event type as it was sent, where `event` differs',
    warnings Array(LowCardinality(String)) COMMENT 'what is suspicious about the event: codes, see docs/warnings.md',
    extra String COMMENT 'JSON object of the fields that the contract does not know',
    receipt_id Nullable(String) COMMENT 'the id in the response''s X-Receipt-Id header',
    sender LowCardinality(Nullable(String)) COMMENT 'name of the bearer token or signature secret of the request; NULL when neither is required',
    raw Tuple(topic LowCardinality(String), partition UInt32, offset UInt64) COMMENT 'source record on the raw topic: topic, partition, offset',
    inserted_at DateTime64(6, 'UTC') COMMENT 'when ClickHouse stored it'
)
AS SELECT event_id, event, changes, imei, device_time, server_time, received_at, latitude, longitude, location, geofence_name, category, severity, h3_r7, h3_r9, time_zone, device_time_local, imei_valid, tac, device_delay_ms, platform_delay_ms, vehicle, fleet, driver, event_as_sent, warnings, extra, receipt_id, sender, raw, inserted_at
FROM telematics.events_store FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW telematics.dead_letters{on_cluster} (
    dead_letter_id UUID COMMENT 'streams: UUID of the payload''s bytes; sink: UUID of the refused record''s position. Stable over replays',
    stage LowCardinality(String) COMMENT 'which stage refused it: streams or sink',
    reasons Array(Tuple(code LowCardinality(String), field String, found String, expected String)) COMMENT 'every broken rule: reason code, field, what was found, what is expected',
    event Nullable(String) COMMENT 'event type as sent, where it is a string',
    imei Nullable(String) COMMENT 'IMEI as sent, where it is a string',
    received_at DateTime64(6, 'UTC') COMMENT 'when the ingress accepted it',
    receipt_id Nullable(String) COMMENT 'the id in the response''s X-Receipt-Id header',
    sender LowCardinality(Nullable(String)) COMMENT 'name of the bearer token or signature secret of the request; NULL when neither is required',
    payload String COMMENT 'the bytes as they came, see payload_encoding',
    payload_encoding LowCardinality(String) COMMENT 'utf-8: text; base64: all bytes; base64-cut: the first MiB',
    conflict_with_event_id Nullable(UUID) COMMENT 'the event that was accepted under the same identity',
    raw Tuple(topic LowCardinality(String), partition UInt32, offset UInt64) COMMENT 'source record: topic, partition, offset',
    inserted_at DateTime64(6, 'UTC') COMMENT 'when ClickHouse stored it'
)
AS SELECT dead_letter_id, stage, reasons, event, imei, received_at, receipt_id, sender, payload, payload_encoding, conflict_with_event_id, raw, inserted_at
FROM telematics.dead_letters_store FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
