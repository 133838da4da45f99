"""`rosterd status` as a table: columns that align, words for sizes, names that can do no harm; and as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.core.status import (
    AccountState,
    Health,
    MachineStatus,
    PortHolder,
    RunStatus,
    ServiceStatus,
    UnitStatus,
    UserStatus,
    status_json,
)
from reconciler.core.status_text import last_run_text, status_text

NOW = 1_800_000_000
UNIT = UnitStatus("t3-serve@alice.service", "active", "running", enabled=True, restarts=0)
T3 = ServiceStatus(
    "t3", 3773, PortHolder(4711, "alice", "t3-serve@alice.service"), (UNIT,), 410 << 20, 4 << 30, Health.OK
)
ALICE = UserStatus("alice", 1000, "power-user", AccountState.ACTIVE, (), (), (), (T3,))
WELL = MachineStatus(RunStatus("feed", NOW - 720, 0), (ALICE,))


def shown(status: MachineStatus, *, colour: bool = False) -> list[str]:
    text = status_text(status, now=NOW, colour=colour)
    assert text.endswith("\n")
    return text.splitlines()


def row(service: ServiceStatus) -> list[str]:
    """Return the cells of the one row of a machine with this service."""
    return re.split(r" {2,}", shown(replace(WELL, users=(replace(ALICE, services=(service,)),)))[1])


# --- the table ---


def test_a_machine_on_which_all_is_well_is_a_table_and_three_lines() -> None:
    assert shown(WELL) == [
        "USER   TIER        STATE   SERVICE  HEALTH  PORT  LISTENER           RESTARTS  MEMORY            UNITS",
        (
            "alice  power-user  active  t3       ok      3773  pid 4711 of alice  0         410 MiB of 4 GiB"
            "  service active (running)"
        ),
        "Last run: 2027-01-15 07:48 UTC, 12 minutes before this look: all done, or nothing to do (exit 0).",
        "People: 1 active. Services: 1 ok.",
        "Nobody needs attention.",
    ]


def test_a_machine_with_nobody_has_no_table() -> None:
    assert shown(MachineStatus(None, ())) == [
        "Last run: none on record.",
        "People: none. Services: none.",
        "Nobody is on the roster, and rosterd manages nobody here.",
    ]


def test_somebody_without_a_service_has_a_row_too() -> None:
    found = shown(replace(WELL, users=(replace(ALICE, tier="", services=(), state=AccountState.TOMBSTONE),)))
    assert found[1].split() == ["alice", "-", "tombstone", "-", "-", "-", "-", "-", "-", "-"]


def test_what_is_the_matter_stands_below_the_person_and_what_concerns_the_machine_below_all() -> None:
    user = replace(ALICE, problems=("t3: bad",), pending=("step: rests",), changes=("port: none → 1",))
    bob = replace(ALICE, name="bob")
    status = replace(WELL, users=(user, bob), problems=("map is broken",), changes=("group: none → x",), unseen=("it",))
    found = shown(status)
    assert found[2:5] == ["    ! t3: bad", "    ? step: rests", "    → port: none → 1"]
    assert found[5].startswith("bob ")
    assert found[6:9] == ["! map is broken", "→ group: none → x", "Could not be seen: it"]
    assert found[-1].startswith("1 of 2 needs attention: alice.")


words = st.text(min_size=1, max_size=12)
holders = st.none() | st.builds(PortHolder, st.none() | st.integers(1, 99999), words, st.none() | words)
units = st.builds(UnitStatus, words, words, words, st.booleans(), st.none() | st.integers(0, 99))
sizes = st.none() | st.integers(0, 1 << 50)
services = st.builds(
    ServiceStatus,
    words,
    st.none() | st.integers(1, 65535),
    holders,
    st.lists(units, max_size=3).map(tuple),
    sizes,
    sizes,
    st.sampled_from(Health),
)
texts = st.lists(words, max_size=2).map(tuple)
users = st.builds(
    UserStatus,
    words,
    st.none() | st.integers(0, 60000),
    words | st.just(""),
    st.sampled_from(AccountState),
    texts,
    texts,
    texts,
    st.lists(services, max_size=3).map(tuple),
)
statuses = st.builds(
    MachineStatus,
    st.none() | st.builds(RunStatus, words, st.integers(0, NOW), st.integers(0, 143)),
    st.lists(users, max_size=4).map(tuple),
    texts,
    texts,
    texts,
)


few = settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])


@few
@given(statuses)
def test_names_of_any_kind_make_one_line_each_and_no_control_character(status: MachineStatus) -> None:
    found = status_text(status, now=NOW)
    rows = sum(max(1, len(user.services)) for user in status.users)
    remarks = sum(len(user.problems) + len(user.pending) + len(user.changes) for user in status.users)
    lines = found.split("\n")
    of_machine = len(status.problems) + len(status.changes) + len(status.unseen)
    assert len(lines) == bool(rows) + rows + remarks + of_machine + 3 + 1
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", found)
    found.encode("utf-8")


@few
@given(statuses)
def test_every_column_begins_where_its_heading_does(status: MachineStatus) -> None:
    lines = status_text(status, now=NOW).split("\n")
    place = 1
    for user in status.users:
        for service in user.services or (None,):
            line = lines[place]
            starts = [lines[0].index(word) for word in ("STATE", "SERVICE", "HEALTH", "PORT", "RESTARTS", "UNITS")]
            assert all(line[start - 2 : start] == "  " for start in starts)
            assert line[starts[0] :].split(" ")[0] == user.state.value
            if service is not None:
                assert line[starts[2] :].split(" ")[0] == service.health.value
                assert line[starts[3] :].split(" ")[0] == str(service.port or "-")
            place += 1
        place += len(user.problems) + len(user.pending) + len(user.changes)


@few
@given(statuses)
def test_colour_changes_nothing_but_colour_and_marks_health_alone(status: MachineStatus) -> None:
    plain, coloured = (status_text(status, now=NOW, colour=colour) for colour in (False, True))
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == plain
    marked = [service.health for user in status.users for service in user.services if service.health is not Health.OFF]
    assert coloured.count("\x1b[0m") == len(marked)


def test_what_is_not_well_is_red_and_what_is_well_green() -> None:
    bad = replace(WELL, users=(replace(ALICE, services=(replace(T3, health=Health.UNHEALTHY),)),))
    assert "\x1b[1;31munhealthy\x1b[0m" in shown(bad, colour=True)[1]
    assert "\x1b[32mok" in shown(WELL, colour=True)[1]


# --- cells ---


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (UNIT, "service active (running)"),
        (replace(UNIT, enabled=False), "service active (running), disabled"),
        (replace(UNIT, active="failed", sub="failed"), "service failed (failed)"),
        (replace(UNIT, name="refresh@alice.timer", sub="waiting"), "timer active (waiting)"),
    ],
)
def test_a_unit_is_told_by_its_kind_and_how_it_is(unit: UnitStatus, text: str) -> None:
    assert row(replace(T3, units=(unit,)))[-1] == text


def test_restarts_of_several_units_are_added_and_unknown_ones_are_none() -> None:
    two = (replace(UNIT, restarts=2), replace(UNIT, restarts=3), replace(UNIT, restarts=None))
    assert row(replace(T3, units=two))[7] == "5"
    assert row(replace(T3, units=two[2:]))[7] == "-"


# --- the last lines ---


@pytest.mark.parametrize("code", [1, 3, 4, 5, 9])
def test_a_run_that_did_not_go_well_says_how_and_where_to_read_on(code: int) -> None:
    text = last_run_text(replace(WELL, run=RunStatus("feed", NOW, code)), NOW)
    assert f"(exit {code})" in text
    assert text.endswith(" See: journalctl RUN_ID=feed")
    assert "\n" not in text


def test_people_are_counted_by_state_and_services_by_health() -> None:
    bad = replace(T3, health=Health.UNHEALTHY)
    users = (replace(ALICE, services=(bad, T3)), replace(ALICE, state=AccountState.CUT, services=(), changes=("x",)))
    assert shown(replace(WELL, users=users))[-2] == "People: 1 active, 1 cut. Services: 1 ok, 1 unhealthy."


# --- for programs ---


def keys(found: object) -> set[str]:
    assert isinstance(found, dict)
    return set(found)


def test_the_document_has_exactly_the_keys_that_are_promised() -> None:
    found = json.loads(json.dumps(status_json(WELL)))
    assert found["version"] == 1
    assert keys(found) == {"version", "run", "users", "problems", "changes", "unseen"}
    assert keys(found["run"]) == {"id", "at", "exit"}
    (user,) = found["users"]
    assert keys(user) == {"name", "uid", "tier", "state", "pending", "problems", "changes", "services"}
    (service,) = user["services"]
    assert keys(service) == {"name", "port", "listener", "units", "memory", "memory_max", "health"}
    assert keys(service["listener"]) == {"pid", "user", "unit"}
    assert [keys(unit) for unit in service["units"]] == [{"name", "active", "sub", "enabled", "restarts"}]


def test_the_document_has_the_values_of_the_machine() -> None:
    found = json.loads(json.dumps(status_json(WELL)))
    assert found["run"] == {"id": "feed", "at": NOW - 720, "exit": 0}
    assert found["users"][0]["state"] == "active"
    assert found["users"][0]["services"][0] == {
        "name": "t3",
        "port": 3773,
        "listener": {"pid": 4711, "user": "alice", "unit": "t3-serve@alice.service"},
        "units": [
            {"name": "t3-serve@alice.service", "active": "active", "sub": "running", "enabled": True, "restarts": 0}
        ],
        "memory": 410 << 20,
        "memory_max": 4 << 30,
        "health": "ok",
    }


def test_what_is_not_there_is_null() -> None:
    service = replace(T3, port=None, listener=None, memory=None, memory_max=None)
    found = json.loads(json.dumps(status_json(MachineStatus(None, (replace(ALICE, uid=None, services=(service,)),)))))
    assert found["run"] is None
    assert found["users"][0]["uid"] is None
    assert {found["users"][0]["services"][0][key] for key in ("port", "listener", "memory", "memory_max")} == {None}


@few
@given(statuses)
def test_any_machine_is_a_document_that_is_read_back(status: MachineStatus) -> None:
    found = json.loads(json.dumps(status_json(status)))
    assert [user["name"] for user in found["users"]] == [user.name for user in status.users]
    assert [len(user["services"]) for user in found["users"]] == [len(user.services) for user in status.users]
