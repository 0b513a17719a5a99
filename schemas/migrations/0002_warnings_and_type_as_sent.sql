-- name: warnings, event_as_sent, nullable location
-- compatibility: expand
-- The sink of 0.1.0 keeps writing: it names its columns, and its Strings go into the nullable location.
-- MODIFY COLUMN location rewrites that one column of the existing parts, in the background.

ALTER TABLE telematics.events_store{on_cluster} COMMENT COLUMN event_id 'UUID of the event''s identity: the same after every retry and replay';
ALTER TABLE telematics.events_store{on_cluster} COMMENT COLUMN event 'event type, normalised';
ALTER TABLE telematics.events_store{on_cluster} COMMENT COLUMN changes 'the type''s own value: litres, km/h above the limit, …';
ALTER TABLE telematics.events_store{on_cluster} MODIFY COLUMN location Nullable(String) COMMENT 'address for people, as sent; NULL when none was sent' CODEC(ZSTD(1));
ALTER TABLE telematics.events_store{on_cluster} COMMENT COLUMN imei_valid 'whether the IMEI''s check digit is right';
ALTER TABLE telematics.events_store{on_cluster} ADD COLUMN IF NOT EXISTS event_as_sent LowCardinality(Nullable(String)) COMMENT 'the event type as it was sent, where `event` differs' AFTER driver;
ALTER TABLE telematics.events_store{on_cluster} ADD COLUMN IF NOT EXISTS warnings Array(LowCardinality(String)) COMMENT 'what is suspicious about the event: codes, see docs/warnings.md' CODEC(ZSTD(1)) AFTER event_as_sent;
ALTER TABLE telematics.events_store{on_cluster} COMMENT COLUMN receipt_id 'the id in the response''s X-Receipt-Id header';
ALTER TABLE telematics.events_store{on_cluster} COMMENT COLUMN raw 'source record on the raw topic: topic, partition, offset';

ALTER TABLE telematics.dead_letters_store{on_cluster} COMMENT COLUMN dead_letter_id 'streams: UUID of the payload''s bytes; sink: UUID of the refused record''s position. Stable over replays';
ALTER TABLE telematics.dead_letters_store{on_cluster} COMMENT COLUMN stage 'which stage refused it: streams or sink';
ALTER TABLE telematics.dead_letters_store{on_cluster} COMMENT COLUMN receipt_id 'the id in the response''s X-Receipt-Id header';
ALTER TABLE telematics.dead_letters_store{on_cluster} COMMENT COLUMN payload 'the bytes as they came, see payload_encoding';
ALTER TABLE telematics.dead_letters_store{on_cluster} COMMENT COLUMN payload_encoding 'utf-8: text; base64: all bytes; base64-cut: the first MiB';
ALTER TABLE telematics.dead_letters_store{on_cluster} COMMENT COLUMN raw 'source record: topic, partition, offset';

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
    raw Tuple(topic LowCardinality(String), partition UInt32, offset UInt64) COMMENT 'source record on the raw topic: topic, partition, offset',
    inserted_at DateTime64(6, 'UTC') COMMENT 'when ClickHouse stored it'
)
AS SELECT event_id, event, changes, imei, device_time, server_time, received_at, latitude, longitude, location, geofence_name, category, severity, h3_r7, h3_r9, time_zone, device_time_local, imei_valid, tac, device_delay_ms, platform_delay_ms, vehicle, fleet, driver, event_as_sent, warnings, extra, receipt_id, raw, inserted_at
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
    payload String COMMENT 'the bytes as they came, see payload_encoding',
    payload_encoding LowCardinality(String) COMMENT 'utf-8: text; base64: all bytes; base64-cut: the first MiB',
    conflict_with_event_id Nullable(UUID) COMMENT 'the event that was accepted under the same identity',
    raw Tuple(topic LowCardinality(String), partition UInt32, offset UInt64) COMMENT 'source record: topic, partition, offset',
    inserted_at DateTime64(6, 'UTC') COMMENT 'when ClickHouse stored it'
)
AS SELECT dead_letter_id, stage, reasons, event, imei, received_at, receipt_id, payload, payload_encoding, conflict_with_event_id, raw, inserted_at
FROM telematics.dead_letters_store FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW telematics.conflicts{on_cluster} AS
SELECT d.dead_letter_id AS dead_letter_id, assumeNotNull(d.conflict_with_event_id) AS event_id,
    e.imei AS imei, e.event AS event, e.device_time AS device_time, e.geofence_name AS geofence_name,
    e.changes AS accepted_changes, e.latitude AS accepted_latitude, e.longitude AS accepted_longitude,
    e.received_at AS accepted_at, e.raw AS accepted_raw,
    d.payload AS refused_payload, d.payload_encoding AS refused_payload_encoding,
    d.received_at AS refused_at, d.raw AS refused_raw,
    arrayFilter(x -> x.accepted != x.refused, CAST(arrayConcat(
        [('Changes', toString(e.changes),
          ifNull(toString(JSONExtract(d.payload, 'Changes', 'Nullable(Int64)')), JSONExtractRaw(d.payload, 'Changes'))),
         ('Coordinates', concat(toString(e.latitude), ',', toString(e.longitude)),
          arrayStringConcat(arrayMap(x -> ifNull(toString(toFloat64OrNull(trimBoth(x))), x),
              splitByChar(',', JSONExtractString(d.payload, 'Coordinates'))), ',')),
         ('Server_Time', toString(e.server_time),
          ifNull(toString(parseDateTime64BestEffortOrNull(JSONExtractString(d.payload, 'Server_Time'), 6, 'UTC')),
              JSONExtractString(d.payload, 'Server_Time'))),
         ('Location', ifNull(e.location, ''), JSONExtractString(d.payload, 'Location'))],
        arrayMap(x -> (x.1, JSONExtractRaw(e.extra, x.1), x.2), arrayFilter(
            x -> x.1 NOT IN ('Event', 'Changes', 'Device_Time', 'IMEI', 'Server_Time', 'Coordinates', 'Location',
                'Geofence_Name'),
            JSONExtractKeysAndValuesRaw(d.payload)))
    ), 'Array(Tuple(field String, accepted String, refused String))')) AS differences
FROM telematics.dead_letters AS d
LEFT JOIN (
    SELECT * FROM telematics.events WHERE event_id IN (
        SELECT assumeNotNull(conflict_with_event_id) FROM telematics.dead_letters_store WHERE conflict_with_event_id IS NOT NULL
    )
) AS e ON e.event_id = d.conflict_with_event_id
WHERE conflict_with_event_id IS NOT NULL;
