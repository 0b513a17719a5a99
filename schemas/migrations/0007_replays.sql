-- name: replays of dead letters
-- compatibility: expand
-- The sink of 0.1.0 keeps writing: it names its columns.

ALTER TABLE telematics.dead_letters_store{on_cluster} COMMENT COLUMN dead_letter_id 'streams: UUID of the payload''s bytes, and of the attempt if it is a replay; sink: UUID of the position of the refused record';
ALTER TABLE telematics.dead_letters_store{on_cluster} ADD COLUMN IF NOT EXISTS replay_of Nullable(UUID) COMMENT 'the dead letter that was replayed and failed again; NULL if this is no replay' AFTER conflict_with_event_id;
ALTER TABLE telematics.dead_letters_store{on_cluster} ADD COLUMN IF NOT EXISTS attempt Int64 COMMENT '0: as the sender sent it; 1: after its first replay, and so on' CODEC(T64, ZSTD(1)) AFTER replay_of;

CREATE TABLE IF NOT EXISTS telematics.replays_store{on_cluster} (
    replay_id UUID COMMENT 'in the header of each raw record that the replay sends',
    started_at DateTime64(6, 'UTC') COMMENT 'when it began: later dead letters are not selected' CODEC(Delta, ZSTD(1)),
    finished_at Nullable(DateTime64(6, 'UTC')) COMMENT 'when the outcome of every letter was known; NULL until then',
    started_by String COMMENT 'user and host, or as given with --by' CODEC(ZSTD(1)),
    selection String COMMENT 'JSON: which dead letters' CODEC(ZSTD(1)),
    repair String COMMENT 'JSON: what is changed in their payloads' CODEC(ZSTD(1)),
    written_at DateTime64(6, 'UTC') DEFAULT now64(6) COMMENT 'the newest row of a replay counts' CODEC(Delta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree(written_at)}
ORDER BY replay_id
SETTINGS {deduplication_window};

CREATE TABLE IF NOT EXISTS telematics.replayed_store{on_cluster} (
    replay_id UUID COMMENT 'the replay',
    dead_letter_id UUID COMMENT 'a dead letter that it selected',
    attempt Int64 COMMENT 'the number of the attempt, from 1' CODEC(T64, ZSTD(1)),
    event_id Nullable(UUID) COMMENT 'the event that the repaired payload is, by the rules',
    refused_id Nullable(UUID) COMMENT 'the dead letter that the attempt is, if it fails again',
    outcome LowCardinality(String) COMMENT 'sent, event, dead_letter or left_out',
    detail String COMMENT 'why it was left out' CODEC(ZSTD(1)),
    written_at DateTime64(6, 'UTC') DEFAULT now64(6) COMMENT 'the newest row of a letter in a replay counts' CODEC(Delta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree(written_at)}
ORDER BY (dead_letter_id, replay_id)
SETTINGS {deduplication_window};

CREATE OR REPLACE VIEW telematics.replayed{on_cluster} AS
SELECT replay_id, dead_letter_id, attempt, event_id, refused_id, outcome, detail, written_at
FROM telematics.replayed_store FINAL;

CREATE OR REPLACE VIEW telematics.replays{on_cluster} AS
SELECT r.replay_id AS replay_id, r.started_at AS started_at, r.finished_at AS finished_at,
    r.started_by AS started_by, r.selection AS selection, r.repair AS repair,
    l.selected AS selected, l.sent AS sent, l.events AS events, l.dead_letters AS dead_letters,
    l.left_out AS left_out, l.waiting AS waiting
FROM (SELECT * FROM telematics.replays_store FINAL) AS r
LEFT JOIN (
    SELECT replay_id, count() AS selected, countIf(outcome != 'left_out') AS sent,
        countIf(outcome = 'event') AS events, countIf(outcome = 'dead_letter') AS dead_letters,
        countIf(outcome = 'left_out') AS left_out, countIf(outcome = 'sent') AS waiting
    FROM telematics.replayed_store FINAL GROUP BY replay_id
) AS l ON l.replay_id = r.replay_id;

CREATE OR REPLACE VIEW telematics.dead_letters{on_cluster} (
    dead_letter_id UUID COMMENT 'streams: UUID of the payload''s bytes, and of the attempt if it is a replay; sink: UUID of the position of the refused record',
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
    replay_of Nullable(UUID) COMMENT 'the dead letter that was replayed and failed again; NULL if this is no replay',
    attempt Int64 COMMENT '0: as the sender sent it; 1: after its first replay, and so on',
    raw Tuple(topic LowCardinality(String), partition UInt32, offset UInt64) COMMENT 'source record: topic, partition, offset',
    inserted_at DateTime64(6, 'UTC') COMMENT 'when ClickHouse stored it',
    resolved_by_event_id Nullable(UUID) COMMENT 'the event that a replay made of it'
)
AS SELECT d.dead_letter_id AS dead_letter_id, d.stage AS stage, d.reasons AS reasons, d.event AS event, d.imei AS imei, d.received_at AS received_at, d.receipt_id AS receipt_id, d.sender AS sender, d.payload AS payload, d.payload_encoding AS payload_encoding, d.conflict_with_event_id AS conflict_with_event_id, d.replay_of AS replay_of, d.attempt AS attempt, d.raw AS raw, d.inserted_at AS inserted_at, r.event_id AS resolved_by_event_id
FROM (SELECT * FROM telematics.dead_letters_store FINAL) AS d
LEFT JOIN (
    SELECT dead_letter_id, argMax(event_id, written_at) AS event_id
    FROM telematics.replayed_store FINAL WHERE outcome = 'event' GROUP BY dead_letter_id
) AS r ON r.dead_letter_id = d.dead_letter_id
SETTINGS do_not_merge_across_partitions_select_final = 1;
