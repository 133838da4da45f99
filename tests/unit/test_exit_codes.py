"""The exit code of a run, from its report; what only a run on a real machine shows is tested there."""

from __future__ import annotations

import pytest

from reconciler.cli.exits import Exit, exit_for, exit_of
from reconciler.core.actions import Action, CreateAccount, RunHook
from reconciler.core.records import Step
from reconciler.core.site import Hook, Site
from reconciler.engine import Report
from reconciler.errors import (
    AccountFilesLocked,
    FileRefused,
    LockBusy,
    RemovalRefused,
    RosterdError,
    ScanFailed,
    StepFailed,
    TierConflict,
    UnknownName,
)
from tests.unit.facts import bare, person, roster
from tests.unit.memory_host import MemoryHost
from tests.unit.runs import run

ALICE = roster(person("alice"))


def no_account(action: Action) -> str | None:
    return "disk full" if isinstance(action, CreateAccount) else None


def test_a_run_that_did_all_ends_with_0_and_so_does_one_with_nothing_to_do() -> None:
    host = MemoryHost(bare().observed)
    assert exit_of(run(host, ALICE)) is Exit.OK
    assert exit_of(run(host, ALICE)) is Exit.OK


def test_a_warning_alone_ends_with_0() -> None:
    report = run(MemoryHost(bare().having(shell_exists=False).observed), ALICE)
    assert exit_of(report) is Exit.OK


def test_a_failure_ends_with_3_and_so_does_a_conflict() -> None:
    assert exit_of(run(MemoryHost(bare().observed, no_account), ALICE)) is Exit.PROBLEMS
    unmanaged = bare().account("alice", 1000, managed=False).observed
    assert exit_of(run(MemoryHost(unmanaged), ALICE)) is Exit.PROBLEMS


def test_a_cut_that_is_held_ends_with_4_even_where_something_failed() -> None:
    two = bare().person("bob", 1001, 3774, 8932).person("carol", 1002, 3775, 8933).observed
    report = run(MemoryHost(two, no_account), ALICE)
    assert report.failed
    assert exit_of(report) is Exit.HELD


@pytest.mark.parametrize(
    ("error", "code"),
    [(FileRefused("x"), Exit.REFUSED), (TierConflict("x"), Exit.CANNOT_RUN), (ScanFailed("x"), Exit.CANNOT_RUN)],
)
def test_a_run_that_was_stopped_ends_with_1_or_5_only_if_nothing_was_changed(error: RosterdError, code: Exit) -> None:
    untouched = Report(1, run(MemoryHost(bare().observed), ALICE).last, Site(), stopped=error)
    assert exit_of(untouched) is code
    changed = run(MemoryHost(bare().observed), ALICE)
    changed.stopped = error
    assert exit_of(changed) is Exit.PROBLEMS


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileRefused, 5),
        (UnknownName, 64),
        (RemovalRefused, 3),
        (LockBusy, 75),
        (TierConflict, 1),
        (ScanFailed, 1),
        (StepFailed, 1),
        (AccountFilesLocked, 1),
    ],
)
def test_a_command_that_ended_with_an_error_has_its_code(error: type[RosterdError], code: int) -> None:
    assert exit_for(error("x")) == code


def test_a_cut_ends_with_0_whatever_is_pending_elsewhere() -> None:
    two = bare().person("alice", 1000, 3773, 8931).account("bob", 1001).observed
    report = run(MemoryHost(two), ALICE)
    assert [found.kind for found in report.plan.findings] == ["pending", "pending"]
    assert exit_of(report) is Exit.OK


def test_a_hook_that_fails_ends_with_3() -> None:
    site = Site(hooks={Step.REVOKE_CLUSTER_RBAC: Hook(("/bin/revoke",))})
    two = bare().person("alice", 1000, 3773, 8931).account("bob", 1001).observed
    host = MemoryHost(two, lambda action: "no" if isinstance(action, RunHook) else None)
    assert exit_of(run(host, ALICE, site)) is Exit.PROBLEMS
