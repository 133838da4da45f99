"""The commands about one person, on the host in memory: whom they take, what they say, how they end."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from reconciler import log
from reconciler.cli import ending, people
from reconciler.cli import run as running
from reconciler.cli.exits import Exit
from reconciler.cli.parser import parser_of_all, with_command
from reconciler.core.actions import Action, LockAccount
from reconciler.core.records import Step
from reconciler.core.roster import Roster
from reconciler.errors import FileRefused, ScanFailed, UnknownName
from reconciler.host import lock
from reconciler.host.state import State
from reconciler.inputs import Inputs
from tests.unit.core.test_records import CUT
from tests.unit.facts import SITE, bare, person, roster
from tests.unit.memory_host import MemoryHost

ADMIN_GROUPS = ("code-shared", "docker", "sudo")
TWO = roster(person("alice", "admin"), person("bob"))


@dataclass
class Machine:
    """What the commands find instead of a real machine; `people` is what the roster says, None where it is bad."""

    host: MemoryHost
    state: State
    people: Roster | None = TWO
    session: int | None = None
    is_root: bool = True
    locked: int = 0
    log: LogCapture = field(default_factory=LogCapture)


@dataclass
class Given:
    """Files of a machine, as the commands name them."""

    machine: Machine
    roster: str | None
    site: str | None = None
    trusted: bool = False

    def load(self, reserved: Collection[str]) -> Inputs:
        """Load."""
        del reserved
        if self.roster is None:
            return Inputs(Roster({}), SITE, "")
        if self.machine.people is None:
            raise FileRefused("roster.yaml:1:1: broken")
        return Inputs(self.machine.people, SITE, "")

    def digest(self) -> str:
        """Find nothing changed."""
        return ""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Let the commands find a machine with an administrator and bob, and nothing of the real one."""
    found = bare().account("alice", 1000, *ADMIN_GROUPS).account("bob", 1001).known("alice", "bob")
    made = Machine(MemoryHost(found.account("foreign", 1005, managed=False).observed), State(tmp_path))

    def begin() -> str:
        if not made.is_root:
            raise ScanFailed("only root can change this machine")
        return "0123"

    @contextlib.contextmanager
    def exclusive(_seconds: float) -> Iterator[None]:
        made.locked += 1
        yield

    for module in (people, running):
        monkeypatch.setattr(module, "begin", begin)
        monkeypatch.setattr(module, "this_machine", lambda _files=None: (made.host, made.host))
    monkeypatch.setattr(lock, "exclusive", exclusive)
    monkeypatch.setattr(lock, "is_wanted", lambda: False)
    monkeypatch.setattr(people, "session_uid", lambda: made.session)
    for keeping in (people, ending):
        monkeypatch.setattr(keeping, "State", lambda: made.state)
    monkeypatch.setattr(time, "sleep", made.host.sleep)
    monkeypatch.setattr(people, "Files", lambda *options, **trusted: Given(made, *options, **trusted))
    for module in (people, running):
        monkeypatch.setattr(module, "files_of", lambda options, **_: Given(made, options.roster))
    structlog.configure(processors=[made.log])
    monkeypatch.setattr(log, "configure", lambda: None)
    yield made
    structlog.reset_defaults()


def parsed(*arguments: str) -> argparse.Namespace:
    return parser_of_all().parse_args(with_command(list(arguments)))


def rosterd(*arguments: str) -> Exit:
    """Run one command as the command line does."""
    options = parsed(*arguments)
    code: Exit = options.command(options)
    return code


def is_cut(machine: Machine, name: str = "bob") -> bool:
    records = machine.host.observed.records
    return records is not None and name in records.cuts


# --- arguments ---


def test_each_command_takes_its_arguments() -> None:
    cut = parsed("cut", "bob", "--dry-run", "--json", "--site", "s")
    assert (cut.command, cut.name, cut.dry_run, cut.json, cut.site) == (people.cut, "bob", True, True, "s")
    uncut = parsed("uncut", "--roster", "r", "bob")
    assert (uncut.command, uncut.name, uncut.dry_run, uncut.json, uncut.roster) == (
        people.uncut,
        "bob",
        False,
        False,
        "r",
    )
    done = parsed("done", "bob", "revoke_cluster_rbac", "remove_from_t3_group")
    assert (done.command, done.name, done.steps) == (
        people.done,
        "bob",
        ["revoke_cluster_rbac", "remove_from_t3_group"],
    )


@pytest.mark.parametrize(
    ("arguments", "wait", "allow"), [([], 60, None), (["--allow-cuts", "3", "--lock-wait", "0"], 0, 3)]
)
def test_without_a_command_it_is_a_run_for_everybody(arguments: list[str], wait: int, allow: int | None) -> None:
    options = parsed(*arguments)
    assert (options.command, options.lock_wait, options.allow_cuts) == (running.reconcile, wait, allow)


@pytest.mark.parametrize("step", ["revoke", "REVOKE_CLUSTER_RBAC", "destroy", ""])
def test_only_the_two_steps_can_be_done(step: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed("done", "bob", step)
    assert ended.value.code == Exit.USAGE


# --- cut ---


def test_somebody_is_cut_off_under_the_lock_and_nobody_else(machine: Machine) -> None:
    assert rosterd("cut", "bob") is Exit.OK
    assert is_cut(machine)
    assert machine.locked == 1
    assert {action.user for action in machine.host.log} <= {"bob", None}
    assert rosterd("cut", "bob") is Exit.OK


def test_a_dry_run_shows_the_cut_and_changes_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.is_root = False
    assert rosterd("cut", "--dry-run", "bob") is Exit.OK
    shown = capsys.readouterr().out
    assert shown.startswith("bob\n  - cut off (by command): no → on record for the return")
    assert "alice" not in shown
    assert machine.host.log == []
    assert machine.locked == 0


def test_for_programs_a_dry_run_is_a_document(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    rosterd("cut", "--dry-run", "--json", "bob")
    document = json.loads(capsys.readouterr().out)
    assert "record_cut" in {action["action"] for action in document["actions"]}
    assert machine.host.log == []


def test_only_root_can_cut(machine: Machine) -> None:
    machine.is_root = False
    with pytest.raises(ScanFailed, match="only root"):
        rosterd("cut", "bob")
    assert not is_cut(machine)


@pytest.mark.parametrize("name", ["nobody-here", "root", "foreign"])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_whom_a_cut_cannot_mean_is_told_and_left_alone(machine: Machine, name: str, more: list[str]) -> None:
    with pytest.raises(UnknownName, match=f"^'{name}' "):
        rosterd("cut", name, *more)
    assert machine.host.log == []


def test_nobody_is_cut_off_out_of_a_session_of_their_own(machine: Machine) -> None:
    machine.session = 1001
    with pytest.raises(UnknownName, match="a session of bob's"):
        rosterd("cut", "bob")
    assert machine.host.log == []


def test_a_cut_works_whatever_state_the_roster_is_in(machine: Machine) -> None:
    machine.people = None
    assert rosterd("cut", "bob") is Exit.OK
    assert is_cut(machine)


def test_the_last_administrator_is_held_with_4(machine: Machine) -> None:
    assert rosterd("cut", "alice") is Exit.HELD
    assert not is_cut(machine, "alice")


def test_a_part_that_fails_ends_with_3(machine: Machine) -> None:
    def fails(action: Action) -> str | None:
        return "somebody runs vipw" if isinstance(action, LockAccount) else None

    machine.host.fails = fails
    assert rosterd("cut", "bob") is Exit.PROBLEMS


# --- uncut ---


def test_somebody_on_the_roster_is_let_in_again(machine: Machine) -> None:
    before = machine.host.observed.shadow
    rosterd("cut", "bob")
    assert rosterd("uncut", "bob") is Exit.OK
    assert not is_cut(machine)
    assert machine.host.observed.shadow == before


def test_somebody_off_the_roster_stays_cut_off_which_is_told(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    rosterd("cut", "bob")
    machine.people = roster(person("alice", "admin"))
    capsys.readouterr()
    assert rosterd("uncut", "bob") is Exit.OK
    assert is_cut(machine)
    assert capsys.readouterr().out.endswith("bob is not on the roster, and stays cut off until they are\n")
    machine.people = TWO
    assert rosterd() is Exit.OK
    assert not is_cut(machine)


def test_a_dry_run_lets_nobody_in(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    rosterd("cut", "bob")
    machine.host.log.clear()
    assert rosterd("uncut", "--dry-run", "bob") is Exit.OK
    assert "cut off by command: yes → no" in capsys.readouterr().out
    assert machine.host.log == []


@pytest.mark.parametrize("name", ["alice", "nobody-here"])
def test_who_is_not_cut_off_by_command_cannot_be_meant(machine: Machine, name: str) -> None:
    with pytest.raises(UnknownName, match=f"'{name}' is not cut off"):
        rosterd("uncut", name)
    assert machine.host.log == []


def test_the_end_of_a_cut_needs_a_good_roster(machine: Machine) -> None:
    rosterd("cut", "bob")
    machine.people = None
    with pytest.raises(FileRefused):
        rosterd("uncut", "bob")
    assert is_cut(machine)


# --- done ---


def test_steps_are_recorded_as_taken_and_the_log_says_how(machine: Machine) -> None:
    machine.people = None
    rosterd("cut", "bob")
    machine.state.save_cut("bob", CUT)
    assert rosterd("done", "bob", "remove_from_t3_group") is Exit.OK
    assert machine.state.records().cuts["bob"].done == tuple(sorted(Step))
    entry = machine.log.entries[-1]
    assert (entry["message"], entry["os_user"]) == ("bob: remove_from_t3_group: pending → done, by hand", "bob")
    assert machine.locked == 2


def test_nothing_is_pending_for_somebody_who_is_there(machine: Machine) -> None:
    with pytest.raises(UnknownName, match="neither cut off nor deleted"):
        rosterd("done", "bob", "remove_from_t3_group")
    assert machine.state.records().cuts == {}


def test_only_root_can_say_that_something_is_done(machine: Machine) -> None:
    machine.is_root = False
    with pytest.raises(ScanFailed, match="only root"):
        rosterd("done", "bob", "remove_from_t3_group")
