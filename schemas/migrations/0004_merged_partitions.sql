-- name: merged partitions
-- compatibility: expand
-- Partitions merge to one part an hour after their last insert, so that FINAL costs nothing there. Rows by arrival and by
-- insertion are found through minmax indexes; existing parts get them in the background.
-- With FINAL, ClickHouse widens what a skip index selects to all granules whose keys intersect, whatever their partition:
-- most of the table. events_received finds types and days without FINAL, then reads these with it: exact, and as quick.

ALTER TABLE telematics.events_store{on_cluster} MODIFY SETTING min_age_to_force_merge_seconds = 3600, min_age_to_force_merge_on_partition_only = 1;
ALTER TABLE telematics.dead_letters_store{on_cluster} MODIFY SETTING min_age_to_force_merge_seconds = 3600, min_age_to_force_merge_on_partition_only = 1;

ALTER TABLE telematics.events_store{on_cluster} ADD INDEX IF NOT EXISTS received_at_minmax received_at TYPE minmax GRANULARITY 1;
ALTER TABLE telematics.events_store{on_cluster} ADD INDEX IF NOT EXISTS inserted_at_minmax inserted_at TYPE minmax GRANULARITY 1;
ALTER TABLE telematics.dead_letters_store{on_cluster} ADD INDEX IF NOT EXISTS inserted_at_minmax inserted_at TYPE minmax GRANULARITY 1;
ALTER TABLE telematics.events_store{on_cluster} MATERIALIZE INDEX received_at_minmax;
ALTER TABLE telematics.events_store{on_cluster} MATERIALIZE INDEX inserted_at_minmax;
ALTER TABLE telematics.dead_letters_store{on_cluster} MATERIALIZE INDEX inserted_at_minmax;

CREATE OR REPLACE VIEW telematics.events_received{on_cluster} AS
SELECT * FROM telematics.events
WHERE received_at >= {begin:DateTime64(6, 'UTC')} AND received_at < {end:DateTime64(6, 'UTC')}
    AND (event, toDate(device_time)) IN (
        SELECT DISTINCT event, toDate(device_time) FROM telematics.events_store
        WHERE received_at >= {begin:DateTime64(6, 'UTC')} AND received_at < {end:DateTime64(6, 'UTC')})
SETTINGS use_skip_indexes_if_final = 0;
