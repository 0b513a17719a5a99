-- name: reports
-- compatibility: expand
-- Views for analysts. Those with parameters look at a period; all of them order events by the device's clock, so that late
-- events count where they belong. `schemas/views.py` declares what they show.

CREATE OR REPLACE VIEW telematics.geofence_visits{on_cluster}
AS SELECT imei, vehicle, fleet, driver, geofence_name,
    if(enters, device_time, NULL) AS entered_at,
    if(enters, if(next_event = 'geofence_exit', next_at, NULL), device_time) AS exited_at,
    if(enters AND next_event = 'geofence_exit', dateDiff('second', device_time, next_at), NULL) AS dwell_s,
    toBool(enters AND next_event = '') AS is_ongoing,
    toBool(enters AND next_event = 'geofence_enter') AS exit_missing,
    toBool(NOT enters AND previous_event = '') AS started_before_range
FROM (
    SELECT imei, vehicle, fleet, driver, geofence_name, device_time, event = 'geofence_enter' AS enters,
        leadInFrame(toString(event)) OVER visits AS next_event, leadInFrame(device_time) OVER visits AS next_at,
        lagInFrame(toString(event)) OVER visits AS previous_event
    FROM telematics.events
    WHERE event IN ('geofence_enter', 'geofence_exit') AND device_time >= {begin:DateTime64(6, 'UTC')} AND device_time < {end:DateTime64(6, 'UTC')}
    WINDOW visits AS (PARTITION BY imei, geofence_name ORDER BY device_time, event
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
)
WHERE enters OR previous_event != 'geofence_enter';

CREATE OR REPLACE VIEW telematics.inside_now{on_cluster} (
    imei String COMMENT '15 digits',
    vehicle LowCardinality(Nullable(String)) COMMENT 'the device''s vehicle in the registry on arrival',
    fleet LowCardinality(Nullable(String)) COMMENT 'the device''s fleet in the registry on arrival',
    driver LowCardinality(Nullable(String)) COMMENT 'the device''s driver in the registry on arrival',
    geofence_name LowCardinality(Nullable(String)) COMMENT 'the geofence, as sent',
    entered_at DateTime64(6, 'UTC') COMMENT 'when it last entered, by the device''s clock',
    last_seen_at DateTime64(6, 'UTC') COMMENT 'the device''s last event of any type'
)
AS SELECT i.imei AS imei, i.last.1 AS vehicle, i.last.2 AS fleet, i.last.3 AS driver, i.geofence_name AS geofence_name,
    i.entered_at AS entered_at, l.device_time AS last_seen_at
FROM (
    SELECT imei, geofence_name, argMax(tuple(vehicle, fleet, driver), (device_time, event)) AS last,
        max(device_time) AS entered_at
    FROM telematics.events
    WHERE event IN ('geofence_enter', 'geofence_exit')
    GROUP BY imei, geofence_name
    HAVING argMax(event, (device_time, event)) = 'geofence_enter'
) AS i
INNER JOIN telematics.device_latest AS l ON l.imei = i.imei;

CREATE OR REPLACE VIEW telematics.overspeed_by_driver{on_cluster}
AS SELECT driver, fleet, count() AS overspeeds, uniqExact(imei) AS vehicles, uniqExact(toDate(device_time_local)) AS days,
    avg(changes) AS over_kmh_mean, max(changes) AS over_kmh_max, countIf(changes > 30) AS over_30_kmh,
    countIf(toHour(device_time_local) >= 22 OR toHour(device_time_local) < 5) AS at_night, max(device_time) AS last_at
FROM telematics.events
WHERE event = 'overspeed' AND device_time >= {begin:DateTime64(6, 'UTC')} AND device_time < {end:DateTime64(6, 'UTC')}
GROUP BY driver, fleet;

CREATE OR REPLACE VIEW telematics.fuel_suspects{on_cluster}
AS SELECT event_id, imei, vehicle, fleet, driver, device_time, device_time_local, changes AS litres, latitude, longitude, location,
    h3_r9, toBool(fills = 0) AS without_fill, toBool(toHour(device_time_local) >= 22 OR toHour(device_time_local) < 5) AS at_night,
    count() OVER (PARTITION BY h3_r9) AS drains_in_cell, toBool(incidents > 0) AS power_or_tampering,
    toUInt8(without_fill + at_night + (drains_in_cell > 1) + power_or_tampering) AS score
FROM (
    SELECT event_id, event, imei, vehicle, fleet, driver, device_time, device_time_local, changes, latitude, longitude,
        location, h3_r9,
        countIf(event = 'fuel_fill') OVER (PARTITION BY imei ORDER BY toUnixTimestamp64Milli(device_time)
            RANGE BETWEEN 3600000 PRECEDING AND 3600000 FOLLOWING) AS fills,
        countIf(event IN ('power_cut', 'tampering')) OVER (PARTITION BY imei ORDER BY toUnixTimestamp64Milli(device_time)
            RANGE BETWEEN 1800000 PRECEDING AND 1800000 FOLLOWING) AS incidents
    FROM telematics.events
    WHERE event IN ('fuel_drain', 'fuel_fill', 'power_cut', 'tampering')
        AND device_time >= {begin:DateTime64(6, 'UTC')} - INTERVAL 1 HOUR AND device_time < {end:DateTime64(6, 'UTC')} + INTERVAL 1 HOUR
)
WHERE event = 'fuel_drain' AND device_time >= {begin:DateTime64(6, 'UTC')} AND device_time < {end:DateTime64(6, 'UTC')};

CREATE OR REPLACE VIEW telematics.sos_context{on_cluster}
AS SELECT event_id, imei, vehicle, fleet, driver, device_time, latitude, longitude, location,
    (device_delay_ms + platform_delay_ms) / 1000 AS delay_s, device_delay_ms / 1000 AS device_delay_s,
    platform_delay_ms / 1000 AS platform_delay_s,
    CAST(arrayMap(x -> (dateDiff('second', device_time, x.1), x.2, x.3),
        arraySort(arrayFilter(x -> x.4 != event_id, nearby))),
        'Array(Tuple(seconds Int64, event String, changes Int64))') AS around,
    arrayFirstOrNull(x -> x.seconds >= 0 AND x.event = 'power_cut', around).seconds AS power_cut_s,
    toBool(NOT arrayExists(x -> x.seconds >= 0, around)) AS silent_after
FROM (
    SELECT event_id, event, imei, vehicle, fleet, driver, device_time, latitude, longitude, location, device_delay_ms,
        platform_delay_ms,
        groupArray((device_time, toString(event), changes, event_id)) OVER (
            PARTITION BY imei ORDER BY toUnixTimestamp64Milli(device_time)
            RANGE BETWEEN 3600000 PRECEDING AND 3600000 FOLLOWING) AS nearby
    FROM telematics.events
    WHERE device_time >= {begin:DateTime64(6, 'UTC')} - INTERVAL 1 HOUR AND device_time < {end:DateTime64(6, 'UTC')} + INTERVAL 1 HOUR
        AND imei IN (SELECT imei FROM telematics.events WHERE event = 'sos' AND device_time >= {begin:DateTime64(6, 'UTC')} AND device_time < {end:DateTime64(6, 'UTC')})
)
WHERE event = 'sos' AND device_time >= {begin:DateTime64(6, 'UTC')} AND device_time < {end:DateTime64(6, 'UTC')};

CREATE OR REPLACE VIEW telematics.device_health{on_cluster}
AS SELECT ifNull(toString(imei), '') AS imei, CAST(tupleElement(e.latest, 1) AS LowCardinality(Nullable(String))) AS vehicle,
    CAST(tupleElement(e.latest, 2) AS LowCardinality(Nullable(String))) AS fleet, e.events AS events,
    if(e.events > 0, e.last_event_at, NULL) AS last_event_at, e.usual_gap_s AS usual_gap_s,
    if(e.events > 0, dateDiff('microsecond', e.last_event_at, least({end:DateTime64(6, 'UTC')}, now64(6, 'UTC'))) / 1000000, NULL) AS silence_s,
    toBool(ifNull(e.events >= 5 AND silence_s > 3 * e.long_gap_s, false)) AS is_silent,
    d.dead_letters AS dead_letters, d.dead_letters / (e.events + d.dead_letters) AS dead_letter_share,
    e.clock_ahead AS clock_ahead, e.delay_s_median AS delay_s_median, e.same_position_run AS same_position_run,
    e.position_zero AS position_zero
FROM (
    SELECT imei, argMax(tuple(vehicle, fleet), (device_time, event_id)) AS latest,
        count() AS events, max(device_time) AS last_event_at,
        quantileExactOrNullIf(0.5)(gap_s, gap_s >= 0) AS usual_gap_s,
        quantileExactOrNullIf(0.9)(gap_s, gap_s >= 0) AS long_gap_s,
        countIf(device_time > received_at) AS clock_ahead,
        quantileExactOrNull(0.5)((device_delay_ms + platform_delay_ms) / 1000) AS delay_s_median,
        arrayMax(mapValues(sumMap(map(run, toUInt64(1))))) AS same_position_run,
        countIf(latitude = 0 AND longitude = 0) AS position_zero
    FROM (
        SELECT *, sum(moved) OVER (PARTITION BY imei ORDER BY device_time, event_id) AS run
        FROM (
            SELECT imei, event_id, vehicle, fleet, device_time, received_at, device_delay_ms, platform_delay_ms, latitude,
                longitude, row_number() OVER device AS nth,
                if(nth = 1, -1, dateDiff('microsecond', lagInFrame(device_time) OVER device, device_time) / 1000000) AS gap_s,
                nth = 1 OR lagInFrame((latitude, longitude)) OVER device != (latitude, longitude) AS moved
            FROM telematics.events
            WHERE device_time >= {begin:DateTime64(6, 'UTC')} AND device_time < {end:DateTime64(6, 'UTC')}
            WINDOW device AS (PARTITION BY imei ORDER BY device_time, event_id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
        )
    )
    GROUP BY imei
) AS e
FULL JOIN (
    SELECT ifNull(imei, '') AS imei, count() AS dead_letters FROM telematics.dead_letters
    WHERE received_at >= {begin:DateTime64(6, 'UTC')} AND received_at < {end:DateTime64(6, 'UTC')} GROUP BY imei
) AS d USING (imei);

CREATE OR REPLACE VIEW telematics.ingestion_warnings{on_cluster}
AS SELECT sender, code, field,
    multiIf(code IN ('device_time_after_server_time', 'in_future', 'device_time_before_2010', 'clock_ahead', 'time_cut')
        OR field IN ('Device_Time', 'Server_Time'), 'time',
        code IN ('position_zero', 'location_missing') OR field IN ('Coordinates', 'Location'), 'position',
        code IN ('imei_zero', 'imei_check_digit') OR field = 'IMEI', 'device',
        code = 'type_normalised' OR field IN ('Event', 'Changes', 'Geofence_Name'), 'type',
        code IN ('not_json', 'not_object', 'too_large', 'duplicate_keys'), 'payload',
        code = 'conflict', 'conflict', code = 'refused_by_clickhouse', 'storage', 'other') AS category,
    severity, count() AS count, min(received_at) AS first_seen, max(received_at) AS last_seen,
    argMax(receipt_id, received_at) AS sample_receipt
FROM (
    SELECT sender, toString(reason.1) AS code, reason.2 AS field, 'error' AS severity, received_at, receipt_id
    FROM telematics.dead_letters
    ARRAY JOIN arrayDistinct(arrayMap(r -> (r.code, r.field), reasons)) AS reason
    WHERE received_at >= {begin:DateTime64(6, 'UTC')} AND received_at < {end:DateTime64(6, 'UTC')}
    UNION ALL
    SELECT sender, toString(warning), '', 'warning', received_at, receipt_id
    FROM telematics.events_received(begin = {begin:DateTime64(6, 'UTC')}, end = {end:DateTime64(6, 'UTC')})
    ARRAY JOIN warnings AS warning
)
GROUP BY sender, code, field, severity;

CREATE OR REPLACE VIEW telematics.lateness{on_cluster} (
    day Date COMMENT 'day of device_time, in UTC',
    event LowCardinality(String) COMMENT 'event type',
    tac LowCardinality(String) COMMENT 'type allocation code: the IMEI''s first eight digits',
    events UInt64 COMMENT 'number of events',
    within_1h Float64 COMMENT 'share that arrived within an hour',
    within_6h Float64 COMMENT 'share that arrived within 6 hours',
    within_1d Float64 COMMENT 'share that arrived within a day',
    within_7d Float64 COMMENT 'share that arrived within 7 days'
)
AS SELECT toDate(device_time) AS day, event, tac, count() AS events,
    countIf(toUnixTimestamp64Micro(received_at) - toUnixTimestamp64Micro(device_time) <= 3600000000) / count() AS within_1h,
    countIf(toUnixTimestamp64Micro(received_at) - toUnixTimestamp64Micro(device_time) <= 21600000000) / count() AS within_6h,
    countIf(toUnixTimestamp64Micro(received_at) - toUnixTimestamp64Micro(device_time) <= 86400000000) / count() AS within_1d,
    countIf(toUnixTimestamp64Micro(received_at) - toUnixTimestamp64Micro(device_time) <= 604800000000) / count() AS within_7d
FROM telematics.events
GROUP BY day, event, tac;

CREATE OR REPLACE VIEW telematics.event_by_id{on_cluster}
AS SELECT * FROM telematics.events
WHERE event_id = {id:UUID} AND (event, toDate(device_time)) IN (
    SELECT event, toDate(device_time) FROM telematics.events_store WHERE event_id = {id:UUID})
SETTINGS use_skip_indexes_if_final = 0;
