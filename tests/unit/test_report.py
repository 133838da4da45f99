"""What a run tells the log, and programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from reconciler.core.actions import Action, AddToGroups, CreateAccount, RunUnit
from reconciler.core.last_run import LastRun
from reconciler.core.observed import Units
from reconciler.core.site import Site
from reconciler.engine import Purpose
from reconciler.report import (
    log_last_lines,
    log_outcome,
    log_standing,
    log_summary,
    report_json,
    restarts_of,
    results_of,
    units_in_trouble,
)
from tests.unit.facts import FAILED, RUNNING, bare, person, roster
from tests.unit.memory_host import MemoryHost
from tests.unit.runs import command, run

TWO = roster(person("alice", "admin"), person("bob"))


@pytest.fixture
def entries() -> Iterator[list[Any]]:
    """Return the list of what is logged."""
    capture = LogCapture()
    structlog.configure(processors=[capture])
    yield capture.entries
    structlog.reset_defaults()


def fails(action: Action) -> str | None:
    return "disk full" if isinstance(action, CreateAccount) and action.user == "bob" else None


def test_each_outcome_has_one_entry_that_names_the_user_and_the_action(entries: list[Any]) -> None:
    report = run(MemoryHost(bare().observed, fails), TWO)
    for outcome in report.outcomes:
        log_outcome(outcome)
    assert len(entries) == len(report.outcomes)
    created = next(entry for entry in entries if entry.get("os_user") == "alice")
    assert created["event"] == "action_done"
    assert created["action"] == "create_account"
    assert created["message"].startswith("alice: account: none → uid 1000")
    failed = next(entry for entry in entries if entry["status"] == "failed")
    assert (failed["event"], failed["log_level"], failed["os_user"]) == ("action_failed", "error", "bob")
    assert failed["message"].startswith("bob: FAILED account: none → uid 1001")
    assert failed["message"].endswith(": disk full")
    skipped = next(entry for entry in entries if entry["status"] == "skipped")
    assert (skipped["event"], skipped["log_level"]) == ("action_skipped", "warning")
    assert skipped["message"].endswith(": bob failed before")


def test_what_concerns_the_machine_names_nobody(entries: list[Any]) -> None:
    log_outcome(run(MemoryHost(bare().observed), TWO).outcomes[0])
    assert entries[0]["message"] == "group rosterd: none → system group"
    assert "os_user" not in entries[0]


def test_what_no_action_mends_is_told_after_the_last_look(entries: list[Any]) -> None:
    host = MemoryHost(bare().account("bob", 1001, managed=False).observed)
    host.ignores = lambda action: isinstance(action, AddToGroups)
    host.observed = bare().account("alice", 1000).account("bob", 1001, managed=False).observed
    report = run(host, TWO)
    log_standing(report.plan, report.unmet)
    told = [(entry["event"], entry["log_level"], entry["os_user"]) for entry in entries]
    assert told == [("conflict", "error", "bob"), ("action_unmet", "error", "alice")]
    assert entries[1]["message"].startswith("alice: did not take effect: groups: alice rosterd →")


def test_who_is_held_is_told(entries: list[Any]) -> None:
    host = MemoryHost(bare().person("alice", 1000, 3773, 8931).person("bob", 1001, 3774, 8932).observed)
    report = run(host, roster())
    log_standing(report.plan, report.unmet)
    held = [entry for entry in entries if entry["event"] == "cut_held"]
    assert [entry["os_user"] for entry in held] == ["alice", "bob"]
    assert held[0]["message"].startswith("alice: not cut off: the roster has nobody in it")


def test_a_run_ends_in_one_line_with_counts_and_time(entries: list[Any]) -> None:
    host = MemoryHost(bare().observed)
    log_summary(run(host, TWO), 1.234)
    log_summary(run(host, TWO), 0.1)
    first, second = entries
    assert first["message"] == "run finished: 19 done; 2 on the roster, 1.23 s"
    assert (first["event"], first["log_level"], first["seconds"]) == ("run_finished", "info", "1.234")
    assert second["message"] == "run finished: nothing to do; 2 on the roster, 0.10 s"


def test_a_run_with_problems_ends_in_a_warning(entries: list[Any]) -> None:
    log_summary(run(MemoryHost(bare().observed, fails), TWO), 0)
    assert entries[0]["log_level"] == "warning"
    assert entries[0]["failed"] == 1
    assert entries[0]["skipped"] == 5


def test_findings_are_counted_apart(entries: list[Any]) -> None:
    host = MemoryHost(bare().having(shell_exists=False).account("bob", 1001, managed=False).observed)
    log_summary(run(host, TWO), 0)
    assert (entries[0]["problems"], entries[0]["warnings"]) == (1, 0)
    host = MemoryHost(bare().account("alice", 1000).account("bob", 1001).account("gone", 1002).observed)
    log_summary(run(host, TWO), 0)
    assert (entries[1]["problems"], entries[1]["warnings"], entries[1]["pending"]) == (0, 0, 2)
    assert ", 2 pending; 2 on the roster" in entries[1]["message"]
    assert entries[1]["log_level"] == "info"


def test_what_is_pending_outside_of_this_machine_is_a_warning_that_says_so(entries: list[Any]) -> None:
    log_standing(bare().account("gone", 1002).known("gone").plan(), [])
    first = next(entry for entry in entries if entry["event"] == "pending")
    assert (first["log_level"], first["os_user"]) == ("warning", "gone")
    assert first["message"].startswith("gone: pending: remove_from_t3_group (k8s gone, authentik gone.x): no hook")


def test_a_run_about_one_person_does_not_count_the_roster(entries: list[Any]) -> None:
    host = MemoryHost(bare().account("bob", 1000).having(outputs={}).observed)
    log_summary(command(host, TWO, Purpose(cut="bob")), 0.5)
    assert entries[0]["message"] == "run finished: 2 done, 2 pending, 1 warning; 0.50 s"


def test_a_run_for_programs_says_what_became_of_every_action() -> None:
    report = run(MemoryHost(bare().observed, fails), TWO)
    document = report_json(
        report, LastRun("0123", 1_700_000_000, 3, 1.235), {"t3-serve@bob.service": ("no such file",)}
    )
    assert document["run"] == {"id": "0123", "exit": 3, "seconds": 1.235}
    assert document["journal"] == {"t3-serve@bob.service": ["no such file"]}
    assert document["changes"] is True
    assert document["unmet"] == []
    failed = [action for action in document["actions"] if action["status"] == "failed"]
    assert [(action["user"], action["action"], action["why"]) for action in failed] == [
        ("bob", "create_account", "disk full")
    ]
    assert len(document["actions"]) == len(report.outcomes)


# --- what was started and is not well ---

BOBS = "t3-serve@bob.service"
MCP = "playwright-mcp@bob.service"


def test_what_the_run_started_and_does_not_listen_is_in_trouble_with_whose_it_is() -> None:
    host = MemoryHost(bare().observed, listens=lambda unit: None if unit == BOBS else 0.0)
    assert units_in_trouble(run(host, TWO)) == {BOBS: "bob"}


def test_what_cannot_be_started_is_in_trouble() -> None:
    def no_start(action: Action) -> str | None:
        return "start job: failed" if isinstance(action, RunUnit) and action.unit == BOBS else None

    assert units_in_trouble(run(MemoryHost(bare().observed, no_start), TWO)) == {BOBS: "bob"}


def test_what_is_started_and_has_failed_when_it_is_looked_at_is_in_trouble() -> None:
    # A stranger has taken the port meanwhile.
    host = MemoryHost(bare().observed, ignores=lambda action: isinstance(action, RunUnit) and action.unit == BOBS)
    report = run(host, TWO)
    assert [action.kind for action in report.unmet] == ["run_unit"]
    assert units_in_trouble(report) == {BOBS: "bob"}


def test_what_is_well_or_was_not_started_is_in_no_trouble() -> None:
    host = MemoryHost(bare().observed)
    assert units_in_trouble(run(host, TWO)) == {}
    assert units_in_trouble(run(host, TWO)) == {}
    machine = bare().person("bob", 1001, 3774, 8932).having(listeners=())
    assert units_in_trouble(run(MemoryHost(machine.observed), roster(person("bob")))) == {}


def test_what_was_skipped_has_nothing_to_say() -> None:
    report = run(MemoryHost(bare().observed, fails), TWO)
    assert units_in_trouble(report) == {}


def test_of_many_in_trouble_some_are_asked() -> None:
    people = roster(*(person(f"u{number:02}") for number in range(20)))
    host = MemoryHost(bare().observed, listens=lambda _: None)
    assert len(units_in_trouble(run(host, people, Site(settle=0, listen=1)))) == 10


def test_the_last_lines_are_told_escaped_and_cut_off(entries: list[Any]) -> None:
    log_last_lines("bob", BOBS, ["a\x1b[2Jb", "x" * 2000])
    assert [entry["event"] for entry in entries] == ["unit_said", "unit_said"]
    assert entries[0]["message"] == f"bob: {BOBS} said: a\\x1b[2Jb"
    assert entries[0]["os_user"] == "bob"
    assert len(entries[1]["message"]) < 600


# --- what is kept of a run ---


def test_restarts_are_those_that_there_were_and_unknown_without_systemd() -> None:
    machine = bare().person("bob", 1001, 3774, 8932).unit(BOBS, replace(RUNNING, restarts=3))
    report = run(MemoryHost(machine.unit(MCP, replace(RUNNING, restarts=0)).observed), roster(person("bob")))
    assert restarts_of(report) == {BOBS: 3}
    assert results_of(report, None).restarts == {("bob", BOBS): 3, ("bob", MCP): 0}
    silent = machine.having(units=Units(states=None, why="no answer"))
    report = run(MemoryHost(silent.observed), roster(person("bob")))
    assert restarts_of(report) is None
    assert results_of(report, None).restarts == {}


def test_results_are_those_of_the_whole_run() -> None:
    machine = bare().having(shell_exists=False).account("bob", 1001, managed=False)
    results = results_of(run(MemoryHost(machine.observed), TWO), None)
    assert (results.conflicts, results.held, results.failed_users) == (1, 0, 0)
    assert results.drift == 0  # the first run ever: nothing says what was so before
    assert results.actions["run_unit", "done"] == 3
    assert {user.name: user.state.value for user in results.status.users} == {"alice": "active", "bob": "unmanaged"}
    held = results_of(run(MemoryHost(bare().person("a", 1000, 1, 2).person("b", 1001, 3, 4).observed), roster()), None)
    assert (held.held, held.pending) == (2, 0)
    cut = results_of(
        run(MemoryHost(bare().person("a", 1000, 1, 2).person("bob", 1001, 3, 4).observed), roster(person("a"))), None
    )
    assert cut.pending == 2


def test_a_service_that_fails_is_a_problem_in_the_last_line(entries: list[Any]) -> None:
    machine = bare().person("bob", 1001, 3774, 8932).unit(BOBS, FAILED)
    host = MemoryHost(machine.observed, lambda action: "start job: failed" if isinstance(action, RunUnit) else None)
    log_summary(run(host, roster(person("bob"))), 0)
    assert entries[0]["failed"] == 1
    assert entries[0]["log_level"] == "warning"
