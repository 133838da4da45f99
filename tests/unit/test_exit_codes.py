"""The exit code of a run, from its report; what only a run on a real machine shows is tested there."""

from __future__ import annotations

import pytest

from reconciler.cli import Exit, _exit_of
from reconciler.core.actions import Action, CreateAccount
from reconciler.core.plan import Plan
from reconciler.engine import Report
from reconciler.errors import FileRefused, RosterdError, ScanFailed, TierConflict
from tests.unit.facts import bare, person, roster
from tests.unit.memory_host import MemoryHost
from tests.unit.runs import run

ALICE = roster(person("alice"))


def no_account(action: Action) -> str | None:
    return "disk full" if isinstance(action, CreateAccount) else None


def test_a_run_that_did_all_ends_with_0_and_so_does_one_with_nothing_to_do() -> None:
    host = MemoryHost(bare().observed)
    assert _exit_of(run(host, ALICE)) is Exit.OK
    assert _exit_of(run(host, ALICE)) is Exit.OK


def test_a_warning_alone_ends_with_0() -> None:
    report = run(MemoryHost(bare().having(shell_exists=False).observed), ALICE)
    assert _exit_of(report) is Exit.OK


def test_a_failure_ends_with_3_and_so_does_a_conflict() -> None:
    assert _exit_of(run(MemoryHost(bare().observed, no_account), ALICE)) is Exit.PROBLEMS
    unmanaged = bare().account("alice", 1000, managed=False).observed
    assert _exit_of(run(MemoryHost(unmanaged), ALICE)) is Exit.PROBLEMS


def test_a_cut_that_is_held_ends_with_4_even_where_something_failed() -> None:
    two = bare().person("bob", 1001, 3774, 8932).person("carol", 1002, 3775, 8933).observed
    report = run(MemoryHost(two, no_account), ALICE)
    assert report.failed
    assert _exit_of(report) is Exit.HELD


@pytest.mark.parametrize(
    ("error", "code"),
    [(FileRefused("x"), Exit.REFUSED), (TierConflict("x"), Exit.CANNOT_RUN), (ScanFailed("x"), Exit.CANNOT_RUN)],
)
def test_a_run_that_was_stopped_ends_with_1_or_5_only_if_nothing_was_changed(error: RosterdError, code: Exit) -> None:
    untouched = Report(people=1, plan=Plan(), stopped=error)
    assert _exit_of(untouched) is code
    changed = run(MemoryHost(bare().observed), ALICE)
    changed.stopped = error
    assert _exit_of(changed) is Exit.PROBLEMS
