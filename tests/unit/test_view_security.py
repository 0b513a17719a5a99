"""With whose rights the views run."""

import pytest

from sinks.view_security import statements_for


@pytest.mark.parametrize("user", ["eventpush", "event`push\\"])
def test_views_run_with_the_rights_of_the_user(user: str) -> None:
    """Views that do already, tables and materialized views are left alone."""
    definitions = {
        "telematics.events": "CREATE VIEW telematics.events (`x` Int64) AS SELECT 1 AS x",
        "telematics.lateness": "CREATE VIEW telematics.lateness DEFINER = d SQL SECURITY DEFINER AS SELECT 1 AS x",
        "telematics.events_store": "CREATE TABLE telematics.events_store …",
        "telematics.events_hourly_refresh": "CREATE MATERIALIZED VIEW …",
    }
    quoted = user.replace("\\", "\\\\").replace("`", "\\`")
    assert statements_for(definitions, user, "main") == [
        f"ALTER TABLE telematics.events ON CLUSTER `main` MODIFY SQL SECURITY DEFINER DEFINER = `{quoted}`"
    ]
