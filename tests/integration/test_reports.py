"""The views for analysts on the real engine: what they say is right for late, repeated and out-of-order rows."""

from collections.abc import Iterator
from typing import Any

import pytest

from schemas import views
from schemas.event_warnings import WARNINGS
from schemas.rules import Reason
from schemas.views import VIEWS, View
from tests import stack
from tests.integration.reporting import IMEI, Reporting

JUNE = ("2026-06-01", "2026-07-01")
OTHER = "350612075195949"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reporting]:
    """One server for this module."""
    reporting = Reporting(stack.ClickHouse(tmp_path_factory.mktemp("clickhouse")))
    reporting.start()
    yield reporting
    reporting.client.close()
    reporting.server.end_if_running()


@pytest.fixture
def reporting(started: Reporting) -> Reporting:
    """The server, without rows."""
    started.empty()
    return started


def at(time: str, event: str, **more: Any) -> dict[str, Any]:
    """An event of 10 June."""
    return {"event": event, "device_time": f"2026-06-10 {time}", **more}


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_is_as_declared(started: Reporting, view: View) -> None:
    """Name and type of every column; the meaning too where ClickHouse keeps it: a view without parameters."""
    declared = [(name, kind, "" if view.parameters else text) for name, (kind, text) in view.columns.items()]
    assert started.described(view) == declared


def test_visits(reporting: Reporting) -> None:
    """Enter and exit pair up by the device's clock; what has no partner says which one is missing, and why."""
    depot, yard = {"geofence_name": "Depot"}, {"geofence_name": "Yard"}
    reporting.store([
        at("07:00:00", "geofence_exit", **depot),
        at("08:00:00", "geofence_enter", **depot), at("08:30:00", "geofence_enter", **yard),
        at("09:00:00", "geofence_exit", **depot),
        at("10:00:00", "geofence_enter", **depot), at("10:00:01", "geofence", **depot),
        at("11:00:00", "geofence_enter", **depot), at("11:00:30", "geofence_exit", **depot),
        at("12:00:00", "geofence_enter", imei=OTHER, **depot),
    ])  # fmt: skip
    shown = "imei, geofence_name, entered_at, exited_at, dwell_s, is_ongoing, exit_missing, started_before_range"
    none = None
    assert reporting.report(views.GEOFENCE_VISITS, shown, *JUNE) == [
        [IMEI, "Depot", _time("08:00:00"), _time("09:00:00"), 3600, False, False, False],
        [IMEI, "Depot", _time("10:00:00"), none, none, False, True, False],
        [IMEI, "Depot", _time("11:00:00"), _time("11:00:30"), 30, False, False, False],
        [IMEI, "Depot", none, _time("07:00:00"), none, False, False, True],
        [IMEI, "Yard", _time("08:30:00"), none, none, True, False, False],
        [OTHER, "Depot", _time("12:00:00"), none, none, True, False, False],
    ]
    # A period that begins during a visit, and ends before the next exit.
    assert reporting.report(views.GEOFENCE_VISITS, shown, "2026-06-10 08:40:00", "2026-06-10 10:30:00") == [
        [IMEI, "Depot", _time("10:00:00"), none, none, True, False, False],
        [IMEI, "Depot", none, _time("09:00:00"), none, False, False, True],
    ]


def _time(time: str) -> str:
    return f"2026-06-10 {time}.000000"


def test_inside_now(reporting: Reporting) -> None:
    """The device's last word about a geofence counts, although an older one was stored after it."""
    reporting.store([
        at("08:00:00", "geofence_enter", geofence_name="Depot"),
        at("09:00:00", "geofence_exit", geofence_name="Depot"),
        at("09:30:00", "geofence_enter", geofence_name="Yard"),
        at("09:45:00", "sos"),
        at("10:00:00", "geofence_enter", geofence_name="Depot", imei=OTHER),
    ])  # fmt: skip
    assert reporting.report(views.INSIDE_NOW, "imei, geofence_name, entered_at, last_seen_at", *JUNE) == [
        [IMEI, "Yard", _time("09:30:00"), _time("09:45:00")],
        [OTHER, "Depot", _time("10:00:00"), _time("10:00:00")],
    ]


def test_overspeed_by_driver(reporting: Reporting) -> None:
    """Each event counts once, in its period, at its local hour, for who drove then, whoever was known on arrival."""
    noon = "2026-06-10 12:00:00"
    reporting.register(IMEI, ("B. Sen", None, noon), ("A. Rao", noon, None))
    reporting.register(OTHER, ("C. Das", "2026-07-01 00:00:00", None))
    reporting.store([
        at("08:00:00", "overspeed", changes=20), at("09:00:00", "overspeed", changes=40),
        at("17:00:00", "overspeed", changes=30, device_time_local="2026-06-10 22:30:00"),
        at("09:00:00", "overspeed", changes=5, driver=None, imei=OTHER), at("09:00:00", "sos", changes=99),
        {"event": "overspeed", "device_time": "2026-07-01 00:00:00", "changes": 99},
    ])  # fmt: skip
    shown = "driver, overspeeds, vehicles, days, over_kmh_mean, over_kmh_max, over_30_kmh, at_night, last_at"
    assert reporting.report(views.OVERSPEED_BY_DRIVER, shown, *JUNE) == [
        ["A. Rao", 1, 1, 1, 30, 30, 0, 1, _time("17:00:00")],
        ["B. Sen", 2, 1, 1, 30, 40, 1, 0, _time("09:00:00")],
        [None, 1, 1, 1, 5, 5, 0, 0, _time("09:00:00")],
    ]


def test_fuel_suspects(reporting: Reporting) -> None:
    """Each sign is seen also when its event came before, after, or late; what is too far away is none."""
    night = {"device_time_local": "2026-06-11 02:00:00"}
    reporting.store([
        at("08:00:00", "fuel_drain", changes=40, h3_r9=1), at("08:59:00", "fuel_fill"),
        at("12:00:00", "fuel_drain", changes=30, h3_r9=2), at("11:31:00", "tampering"), at("13:01:00", "fuel_fill"),
        at("20:30:00", "fuel_drain", changes=20, h3_r9=1, imei=OTHER, **night), at("21:01:00", "power_cut", imei=OTHER),
        at("20:30:00", "power_cut"),
    ])  # fmt: skip
    shown = "device_time, litres, without_fill, at_night, drains_in_cell, power_or_tampering, score"
    assert reporting.report(views.FUEL_SUSPECTS, shown, *JUNE) == [
        [_time("08:00:00"), 40, False, False, 2, False, 1],
        [_time("12:00:00"), 30, True, False, 1, True, 2],
        [_time("20:30:00"), 20, True, True, 2, False, 3],
    ]


def test_sos_context(reporting: Reporting) -> None:
    """What the device reported around it, in order, and the delays; an SOS beside another one sees it."""
    reporting.store([
        at("08:00:00", "overspeed", changes=50), at("08:10:00", "sos", device_delay_ms=2500, platform_delay_ms=500),
        at("08:10:20", "sos"), at("08:25:00", "power_cut"), at("09:10:01", "tampering"),
        at("08:10:05", "sos", imei=OTHER), at("07:00:00", "power_cut", imei=OTHER),
    ])  # fmt: skip
    shown = "imei, device_time, delay_s, device_delay_s, platform_delay_s, around, power_cut_s, silent_after"

    def near(*events: tuple[int, str, int]) -> list[dict[str, Any]]:
        return [{"seconds": s, "event": event, "changes": changes} for s, event, changes in events]

    assert reporting.report(views.SOS_CONTEXT, shown, *JUNE) == [
        [IMEI, _time("08:10:00"), 3, 2.5, 0.5,
         near((-600, "overspeed", 50), (20, "sos", 0), (900, "power_cut", 0)), 900, False],
        [IMEI, _time("08:10:20"), 0, 0, 0,
         near((-620, "overspeed", 50), (-20, "sos", 0), (880, "power_cut", 0), (3581, "tampering", 0)), 880, False],
        [OTHER, _time("08:10:05"), 0, 0, 0, [], None, True],
    ]  # fmt: skip


def test_device_health(reporting: Reporting) -> None:
    """Silence against the usual gap, stuck coordinates, clocks, and dead letters of devices that have no event."""
    here, there = {"latitude": 22.5, "longitude": 75.5}, {"latitude": 22.6, "longitude": 75.5}
    reporting.store([
        at("08:00:00", "sos", **here), at("08:10:00", "sos", **there), at("08:20:00", "sos", **there),
        at("08:30:00", "sos", **there), at("08:40:00", "sos", **here), at("08:50:00", "sos", latitude=0, longitude=0),
        at("08:50:00", "sos", imei=OTHER, received_at="2026-06-10 08:49:00", device_delay_ms=-60000, **here),
    ])  # fmt: skip
    letters: list[dict[str, Any]] = [{"imei": IMEI}, {"imei": "broken"}, {"imei": None}, {"imei": None}]
    reporting.store_dead_letters([letter | {"received_at": "2026-06-10 09:00:00"} for letter in letters])
    shown = (
        "imei, events, last_event_at, usual_gap_s, silence_s, is_silent, dead_letters, round(dead_letter_share, 3),"
        " clock_ahead, delay_s_median, same_position_run, position_zero"
    )
    none = None
    assert reporting.report(views.DEVICE_HEALTH, shown, "2026-06-10", "2026-06-10 10:00:00") == [
        ["", 0, none, none, none, False, 2, 1, 0, none, 0, 0],
        [IMEI, 6, _time("08:50:00"), 600, 4200, True, 1, 0.143, 0, 0, 3, 1],
        [OTHER, 1, _time("08:50:00"), none, 4200, False, 0, 0, 1, -60, 1, 0],
        ["broken", 0, none, none, none, False, 1, 1, 0, none, 0, 0],
    ]


def test_ingestion_warnings(reporting: Reporting) -> None:
    """Exact counts of reasons and warnings by sender, by arrival; two reasons of a kind in one payload count once."""
    reason = {"code": "missing", "field": "IMEI", "found": "", "expected": ""}
    letters: list[dict[str, Any]] = [
        {"sender": "north", "received_at": "2026-06-10 09:00:00", "receipt_id": "r1", "reasons": [reason, reason]},
        {"sender": "north", "received_at": "2026-06-10 08:00:00", "receipt_id": "r0", "reasons": [reason]},
        {"sender": "north", "received_at": "2026-07-10 08:00:00", "receipt_id": "r2", "reasons": [reason]},
        {"sender": None, "received_at": "2026-06-10 08:00:00", "reasons": [reason | {"code": "not_json", "field": ""}]},
    ]
    reporting.store_dead_letters(letters)
    reporting.store([
        at("08:00:00", "sos", sender="north", receipt_id="r3", warnings=["clock_ahead", "position_zero"]),
        at("08:00:01", "sos", sender="north", receipt_id="r4", warnings=["clock_ahead"]),
        at("08:00:02", "sos", sender="south"),
    ])  # fmt: skip
    shown = "sender, code, field, category, severity, count, first_seen, last_seen, sample_receipt"
    assert reporting.report(views.INGESTION_WARNINGS, shown, *JUNE) == [
        ["north", "clock_ahead", "", "time", "warning", 2, _time("08:00:00"), _time("08:00:01"), "r4"],
        ["north", "missing", "IMEI", "device", "error", 2, _time("08:00:00"), _time("09:00:00"), "r1"],
        ["north", "position_zero", "", "position", "warning", 1, _time("08:00:00"), _time("08:00:00"), "r3"],
        [None, "not_json", "", "payload", "error", 1, _time("08:00:00"), _time("08:00:00"), None],
    ]


def test_lateness(reporting: Reporting) -> None:
    """Shares by the first arrival of each event, which a later repeat does not change."""
    reporting.store([
        at("08:00:00", "sos", tac="35061207", received_at="2026-06-10 09:00:00"),
        at("08:00:00", "sos", tac="35061207", received_at="2026-06-10 09:00:01"),
        at("08:00:00", "sos", tac="35061207", received_at="2026-06-11 08:00:00"),
        at("08:00:00", "sos", tac="35061207", received_at="2026-06-17 08:00:01"),
        at("08:00:00", "sos", tac="86", received_at="2026-06-10 08:00:00"),
    ])  # fmt: skip
    assert reporting.report(views.LATENESS, "*", *JUNE) == [
        ["2026-06-10", "sos", "35061207", 4, 0.25, 0.5, 0.75, 0.75],
        ["2026-06-10", "sos", "86", 1, 1, 1, 1, 1],
    ]


def test_event_by_id(reporting: Reporting) -> None:
    """One event is found by its id, in the version that counts; an unknown id is nothing."""
    reporting.store([at("08:00:00", "sos", changes=5), at("09:00:00", "overspeed"), at("10:00:00", "sos")])
    (known,) = reporting.ask("SELECT event_id FROM telematics.events WHERE changes = 5")
    found = [reporting.ask(f"SELECT changes FROM telematics.event_by_id(id = '{event_id}')")
             for event_id in (known["event_id"], "0198c5d6-0000-7000-8000-999999999999")]  # fmt: skip
    assert found == [[{"changes": 5}], []]


def test_every_code_has_a_category(reporting: Reporting) -> None:
    """No reason or warning is shown as `other`."""
    fieldless = {Reason.NOT_JSON, Reason.NOT_OBJECT, Reason.TOO_LARGE, Reason.CONFLICT, Reason.REFUSED_BY_CLICKHOUSE}
    reporting.store_dead_letters([
        {"received_at": "2026-06-10 08:00:00",
         "reasons": [{"code": code, "field": "" if code in fieldless else "IMEI", "found": "", "expected": ""}]}
        for code in Reason
    ])  # fmt: skip
    reporting.store([at("08:00:00", "sos", warnings=[warning.code for warning in WARNINGS])])
    assert reporting.report(views.INGESTION_WARNINGS, "code", *JUNE)
    assert [
        row for row in reporting.report(views.INGESTION_WARNINGS, "category, code", *JUNE) if row[0] == "other"
    ] == []
