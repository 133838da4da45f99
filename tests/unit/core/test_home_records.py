"""What is on record of steps: when one is tried again, and how it gets to the disk and back."""

from __future__ import annotations

import json

import pytest

from reconciler.core.home_records import StepRecord, home_document, home_records_from, recorded_step
from reconciler.core.home_steps import Ending, Result, Watch

HOUR = 3600
NOW = 1_800_000_000
WATCHES = (Watch("/home/bob/x", "same", ("file", 17, 33188)), Watch("/home/bob/y", "exists", ("absent",)))


def test_pauses_grow_from_an_hour_to_a_day() -> None:
    record, pauses = None, []
    for _ in range(9):
        record = recorded_step(Result("x", Ending.FAILED, "no"), "d", NOW, record, "/home/bob")
        pauses.append(record.pause // HOUR)
    assert pauses == [1, 2, 4, 8, 16, 24, 24, 24, 24]


def test_a_pause_stays_a_day_after_years_of_failures() -> None:
    assert StepRecord("d", Ending.FAILED, "", NOW, failures=100_000).pause == 24 * HOUR


@pytest.mark.parametrize("ending", [Ending.DONE, Ending.KEPT])
def test_a_step_that_went_well_begins_to_count_anew(ending: Ending) -> None:
    before = StepRecord("d", Ending.FAILED, "", NOW, failures=7)
    record = recorded_step(Result("x", ending, "so", WATCHES), "e", NOW + 1, before, "/home/bob")
    assert record == StepRecord("e", ending, "so", NOW + 1, 0, WATCHES)
    assert record.went_well


def test_nothing_outside_of_the_home_is_looked_at_later_nor_without_end() -> None:
    outside = [Watch(path, "same", ("absent",)) for path in ("/home/bobby/x", "/net/x", "/home/bob/../eve", "x")]
    many = [Watch(f"/home/bob/{number}", "same", ("absent",)) for number in range(1000)]
    record = recorded_step(Result("x", Ending.DONE, "", (*outside, *many)), "d", NOW, None, "/home/bob")
    assert record.watches == tuple(many[:100])


@pytest.mark.parametrize("home", ["/home/bob", "/home/bob/", "/home//bob"])
def test_a_home_may_be_written_in_several_ways(home: str) -> None:
    record = recorded_step(Result("x", Ending.DONE, "", WATCHES), "d", NOW, None, home)
    assert record.watches == WATCHES


@pytest.mark.parametrize("ending", [Ending.BLOCKED, Ending.FAILED])
def test_one_that_did_not_counts_on(ending: Ending) -> None:
    before = StepRecord("d", Ending.BLOCKED, "", NOW, failures=7)
    record = recorded_step(Result("x", ending, "no"), "d", NOW, before, "/home/bob")
    assert record.failures == 8
    assert not record.went_well


@pytest.mark.parametrize(
    ("age", "expected"),
    [(0, True), (HOUR - 1, True), (HOUR, False), (-24 * HOUR, True), (-24 * HOUR - 1, False), (10**9, False)],
)
def test_a_time_ago_is_told_from_a_clock_that_jumped(age: int, expected: bool) -> None:  # noqa: FBT001 (a table)
    assert StepRecord("d", Ending.DONE, "", NOW - age).is_within(HOUR, NOW) is expected


def test_records_come_back_from_json_as_they_were() -> None:
    records = {
        "notes": StepRecord("d", Ending.BLOCKED, "é\n", NOW, 3, WATCHES),
        "code/infra": StepRecord("e", Ending.DONE, "", 0),
    }
    assert home_records_from(json.loads(json.dumps(home_document(records)))) == records


@pytest.mark.parametrize(
    "change",
    [
        {"ending": "well"},
        {"at": "soon"},
        {"failures": None},
        {"watches": None},
        {"watches": [1]},
        {"watches": [{"path": "/x", "how": "different", "look": []}]},
        {"watches": [{"path": 1, "how": "same", "look": []}]},
        {"watches": [{"path": "/" + "x" * 1024, "how": "same", "look": []}]},
        {"watches": [{"path": "/x", "how": "same", "look": [1] * 8}]},
        {"watches": [{"path": "/x", "how": "same", "look": ["x" * 17]}]},
        {"watches": [{"path": "/x", "how": "same", "look": [1 << 64]}]},
    ],
)
def test_a_document_that_is_none_is_refused(change: dict[str, object]) -> None:
    document = json.loads(json.dumps(home_document({"x": StepRecord("d", Ending.DONE, "", NOW)})))
    assert home_records_from(document)
    with pytest.raises((KeyError, TypeError, ValueError)):
        home_records_from({"x": {**document["x"], **change}})
