"""How units are brought up and halted: in one call each, and one bad unit fails for itself alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from reconciler.core.actions import (
    Action,
    ConfirmAccount,
    ForgetCut,
    ForgetRecord,
    HaltUnit,
    LockAccount,
    OpenLogin,
    RecordCut,
    RecordIdentities,
    ReloadSystemd,
    RunHook,
    RunUnit,
    SetCutReason,
    SetDropIn,
    SetLinger,
    WritePort,
)
from reconciler.core.observed import Account
from reconciler.core.outcome import Outcome, Status
from reconciler.core.records import CutRecord, Records, Step
from reconciler.errors import ScanFailed, StepFailed
from reconciler.host import cutting, drop_ins, executor, outside
from reconciler.host.bus import BusUnavailable, Job, Systemd
from reconciler.host.executor import HostExecutor
from reconciler.host.process import Finished
from reconciler.host.state import State
from tests.unit.facts import identity


class Recording(Systemd):
    """A service manager that notes what it is told, and refuses what it is made to."""

    def __init__(self, bad: str = "", *, dead: bool = False, results: dict[str, str] | None = None) -> None:
        """Refuse the unit `bad`, or everything; jobs end with `results`, else well."""
        super().__init__()
        self.calls: list[str] = []
        self.seconds: list[float] = []
        self._bad = bad
        self._is_dead = dead
        self._ends = results or {}

    def enable(self, units: Iterable[str]) -> bool:
        """Enable."""
        return self._note("enable", list(units))

    def disable(self, units: Iterable[str]) -> bool:
        """Disable."""
        return self._note("disable", list(units))

    def reload(self) -> None:
        """Reload."""
        self._note("reload", [])

    def reset_failed(self, unit: str) -> None:
        """Reset."""
        self._note("reset", [unit])

    def kill(self, unit: str) -> None:
        """Kill."""
        self._note("kill", [unit])

    def set_linger(self, uid: int, *, on: bool) -> None:
        """Set lingering."""
        self._note("linger" if on else "no linger", [str(uid)])

    def run_jobs(self, job: Job, units: Iterable[str], seconds: float) -> dict[str, str]:
        """Run jobs."""
        names = list(units)
        self.seconds.append(seconds)
        self._note(job.value, names)
        return {unit: self._ends.get(unit, "done") for unit in names}

    def _note(self, call: str, units: list[str]) -> bool:
        if self._is_dead:
            raise BusUnavailable("no answer")
        self.calls.append(" ".join([call, *units]))
        if self._bad in units and call == "enable":
            raise StepFailed(f"{self._bad} is bad")
        return True


def up(unit: str, *, enable: bool = True, start: bool = True, before: str = "stopped") -> RunUnit:
    return RunUnit("alice", "t3", unit, enable, start, before)


def down(unit: str, *, disable: bool = True, stop: bool = True) -> HaltUnit:
    return HaltUnit("alice", "t3", unit, disable, stop, "running", "parked")


def apply(systemd: Systemd, tmp_path: Path, *actions: RunUnit | HaltUnit) -> dict[str, str]:
    """Carry out one phase; return, by unit, why it failed, and "" where it did not."""
    outcomes = list(HostExecutor(systemd, State(tmp_path)).apply(actions))
    assert [outcome.action for outcome in outcomes] == list(actions)
    assert all((outcome.status is Status.FAILED) == bool(outcome.why) for outcome in outcomes)
    return {action.unit: outcome.why for action, outcome in zip(actions, outcomes, strict=True)}


def test_all_are_enabled_in_one_call_then_one_reload_then_all_starts(tmp_path: Path) -> None:
    systemd = Recording()
    assert apply(systemd, tmp_path, up("a"), up("b", start=False), up("c", enable=False)) == {"a": "", "b": "", "c": ""}
    assert systemd.calls == ["enable a b", "reload", "StartUnit a c"]


def test_many_jobs_may_take_longer_than_one(tmp_path: Path) -> None:
    systemd = Recording()
    apply(systemd, tmp_path, *(up(f"u{number}", enable=False) for number in range(1000)))
    apply(systemd, tmp_path, *(down(f"u{number}", disable=False) for number in range(1000)))
    assert systemd.seconds == [150.0, 150.0]


def test_a_failed_unit_is_reset_before_it_is_started(tmp_path: Path) -> None:
    systemd = Recording()
    apply(systemd, tmp_path, up("a", enable=False, before="failed"), up("b", enable=False))
    assert systemd.calls == ["reset a", "StartUnit a b"]


def test_one_unit_that_cannot_be_enabled_fails_alone_and_is_not_started(tmp_path: Path) -> None:
    systemd = Recording(bad="b")
    assert apply(systemd, tmp_path, up("a"), up("b"), up("c")) == {"a": "", "b": "b: b is bad", "c": ""}
    assert systemd.calls == ["enable a b c", "enable a", "enable b", "enable c", "reload", "StartUnit a c"]


def test_a_job_that_does_not_end_well_fails_for_its_unit(tmp_path: Path) -> None:
    systemd = Recording(results={"b": "timeout"})
    assert apply(systemd, tmp_path, up("a"), up("b")) == {"a": "", "b": "b: start job: timeout"}


def test_all_are_stopped_and_only_then_disabled_in_one_call(tmp_path: Path) -> None:
    systemd = Recording()
    apply(systemd, tmp_path, down("a"), down("b", disable=False), down("c", stop=False))
    assert systemd.calls == ["StopUnit a b", "reset a", "reset b", "disable a c", "reload"]


def test_what_could_not_be_stopped_stays_enabled_and_is_seen(tmp_path: Path) -> None:
    systemd = Recording(results={"a": "failed"})
    assert apply(systemd, tmp_path, down("a"), down("b")) == {"a": "a: stop job: failed", "b": ""}
    assert systemd.calls == ["StopUnit a b", "reset a", "reset b", "disable b", "reload"]


def test_a_bus_that_does_not_answer_fails_every_unit_and_is_asked_once(tmp_path: Path) -> None:
    systemd = Recording(dead=True)
    assert apply(systemd, tmp_path, up("a"), up("b")) == {"a": "a: no answer", "b": "b: no answer"}


def test_a_port_is_appended_and_every_other_byte_stays(tmp_path: Path) -> None:
    path = tmp_path / "alice.env"
    path.write_bytes(b'TOKEN="one\nT3_PORT=1"\n# no newline at the end\xff')
    action = WritePort("alice", "t3", str(path), "T3_PORT", 3773)
    (outcome,) = HostExecutor(Recording(), State(tmp_path)).apply([action])
    assert outcome.status is Status.DONE
    assert path.read_bytes() == b'TOKEN="one\nT3_PORT=1"\n# no newline at the end\xff\nT3_PORT=3773\n'
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_env_file_that_cannot_be_read_fails_the_step_and_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "alice.env"
    path.symlink_to("/etc/hostname")
    action = WritePort("alice", "t3", str(path), "T3_PORT", 3773)
    (outcome,) = HostExecutor(Recording(), State(tmp_path)).apply([action])
    assert outcome.status is Status.FAILED
    assert "alice.env cannot be read" in outcome.why
    assert path.is_symlink()


def test_a_record_is_removed_when_the_account_came_to_nothing(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.save_intent("bob", 1001, 1001)
    (outcome,) = HostExecutor(Recording(), state).apply([ForgetRecord("bob", 1001)])
    assert outcome.status is Status.DONE
    assert state.intents() == {}


@pytest.mark.parametrize(("code", "left"), [(0, set()), (1, {"alice", "bob", "carol"})])
def test_records_are_removed_when_homes_and_accounts_are_on_disk_by_one_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, left: set[str]
) -> None:
    ran = []

    def run(argv: tuple[str, ...], **_: object) -> Finished:
        ran.append(" ".join(argv))
        return Finished(argv, code, "", "an I/O error")

    monkeypatch.setattr(executor, "run", run)
    homes = {"alice": "/home/alice", "bob": "/home/bob", "carol": "/srv/carol"}
    accounts = {name: Account(name, 1000, 1000, home, "/bin/sh") for name, home in homes.items()}
    monkeypatch.setattr(executor, "scan_passwd", lambda _path: accounts)
    state = State(tmp_path)
    for name in accounts:
        state.save_intent(name, 1000, 1000)
    outcomes = HostExecutor(Recording(), state).apply([ConfirmAccount(name) for name in accounts])
    assert {outcome.why for outcome in outcomes} == ({"sync exited 1: an I/O error"} if code else {""})
    assert ran == ["sync --file-system -- /etc /home /srv"]
    assert set(state.intents()) == left


def test_where_the_accounts_cannot_be_read_or_sync_cannot_be_heard_the_record_stays_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_path: Path) -> dict[str, Account]:
        raise ScanFailed("/etc/passwd: Input/output error")

    def deaf(*_: object, **__: object) -> Finished:
        raise OSError(5, "Input/output error")

    state = State(tmp_path)
    state.save_intent("bob", 1000, 1000)
    monkeypatch.setattr(executor, "run", deaf)
    for scan in (unreadable, lambda _: {"bob": Account("bob", 1000, 1000, "/home/bob", "/bin/sh")}):
        monkeypatch.setattr(executor, "scan_passwd", scan)
        (outcome,) = HostExecutor(Recording(), state).apply([ConfirmAccount("bob")])
        assert outcome.status is Status.FAILED
        assert "Input/output error" in outcome.why
    assert state.intents() == {"bob": (1000, 1000)}


# --- people who leave and return ---


def cut_down(unit: str, *, disable: bool = True, clear: bool = False) -> HaltUnit:
    return HaltUnit("bob", "t3", unit, disable, not clear, "running", "cut off", clear, kill=True)


def test_the_units_of_somebody_who_is_cut_off_are_given_less_time_and_killed(tmp_path: Path) -> None:
    systemd = Recording(results={"b": "timeout"})
    assert apply(systemd, tmp_path, cut_down("a"), cut_down("b"), down("c")) == {
        "a": "",
        "b": "b: stop job: timeout",
        "c": "",
    }
    assert systemd.calls[:4] == ["StopUnit a b", "kill b", "StopUnit b", "StopUnit c"]
    assert systemd.seconds[0] < systemd.seconds[2]
    assert systemd.calls[-2:] == ["disable a c", "reload"]


def test_a_unit_that_only_failed_is_cleared_and_disabled(tmp_path: Path) -> None:
    systemd = Recording()
    assert apply(systemd, tmp_path, cut_down("a", clear=True)) == {"a": ""}
    assert systemd.calls == ["reset a", "disable a", "reload"]


@pytest.fixture(autouse=True)
def _no_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep off the spool of the machine that the tests run on."""
    monkeypatch.setattr(cutting, "HELD_JOBS", tmp_path / "held")


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the tools that are run instead of running them."""
    ran: list[str] = []

    def run(argv: tuple[str, ...], **_: object) -> Finished:
        ran.append(" ".join(repr(word) if word == "" else word for word in argv))
        return Finished(argv, 0, "", "")

    monkeypatch.setattr(executor, "run", run)
    return ran


def carry_out(tmp_path: Path, *actions: Action, systemd: Systemd | None = None) -> list[Outcome]:
    return list(HostExecutor(systemd or Recording(), State(tmp_path)).apply(actions))


def test_an_account_is_locked_and_expired_by_one_call_of_one_tool(tmp_path: Path, tools: list[str]) -> None:
    carry_out(tmp_path, LockAccount("bob", 30000, locked=False))
    assert tools == ["usermod --expiredate 1 --lock -- bob"]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (OpenLogin("bob", None, unlock=True, passwordless=False), ["usermod --expiredate '' --unlock -- bob"]),
        (OpenLogin("bob", None, unlock=False, passwordless=False), ["usermod --expiredate '' -- bob"]),
        (OpenLogin("bob", 0, unlock=False, passwordless=False), ["usermod --expiredate 0 -- bob"]),
        (OpenLogin("bob", 30000, unlock=True, passwordless=False), ["usermod --expiredate 30000 --unlock -- bob"]),
        (
            OpenLogin("bob", 30000, unlock=True, passwordless=True),
            ["passwd --quiet --delete -- bob", "usermod --expiredate 30000 -- bob"],
        ),
    ],
)
def test_a_login_is_opened_as_it_was(tmp_path: Path, tools: list[str], action: OpenLogin, expected: list[str]) -> None:
    carry_out(tmp_path, action)
    assert tools == expected


def test_lingering_is_logind_s(tmp_path: Path) -> None:
    systemd = Recording()
    carry_out(tmp_path, SetLinger("bob", 1001, on=False), SetLinger("bob", 1001, on=True), systemd=systemd)
    assert systemd.calls == ["no linger 1001", "linger 1001"]


CUT = CutRecord(1001, 1001, 5)


def test_records_are_kept_changed_and_forgotten(tmp_path: Path) -> None:
    state = State(tmp_path)
    carry_out(
        tmp_path,
        RecordCut("bob", CUT),
        RecordCut("eve", CUT),
        SetCutReason("bob", by_command=True),
        ForgetCut("eve"),
        RecordIdentities((("alice", identity("alice")),), before=0),
    )
    assert state.records() == Records(
        cuts={"bob": CutRecord(1001, 1001, 5, by_command=True)}, identities={"alice": identity("alice")}
    )


def test_what_is_held_still_is_set_aside_before_the_record_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "held" / "bob").mkdir(parents=True)
    (tmp_path / "held" / "bob" / "crontab").touch()
    State(tmp_path).save_cut("bob", CUT)
    carry_out(tmp_path, ForgetCut("bob"))
    assert [path.name for path in (tmp_path / "held").iterdir()] == ["bob.1"]
    assert State(tmp_path).records().cuts == {}


def test_a_second_record_of_a_cut_fails(tmp_path: Path) -> None:
    first, second = carry_out(tmp_path, RecordCut("bob", CUT), RecordCut("bob", CutRecord(1, 1, 1)))
    assert (first.status, second.status) == (Status.DONE, Status.FAILED)
    assert State(tmp_path).records().cuts == {"bob": CUT}


@pytest.mark.parametrize(("code", "done"), [(0, (Step.REVOKE_CLUSTER_RBAC,)), (1, ())])
def test_a_step_is_marked_as_taken_only_if_its_hook_has_worked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, done: tuple[Step, ...]
) -> None:
    monkeypatch.setattr(outside, "run", lambda argv, **_: Finished(argv, code, "", "no"))
    State(tmp_path).save_cut("bob", CUT)
    (outcome,) = carry_out(tmp_path, RunHook("bob", Step.REVOKE_CLUSTER_RBAC, ("/bin/revoke",), 5))
    assert (outcome.status is Status.DONE) is bool(done)
    assert State(tmp_path).records().cuts["bob"].done == done


def test_a_damaged_record_fails_the_step_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "cuts").mkdir()
    (tmp_path / "cuts" / "bob").write_text("")
    (outcome,) = carry_out(tmp_path, SetCutReason("bob", by_command=True))
    assert outcome.status is Status.FAILED


# --- drop-ins ---


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is done to drop-ins, in the order in which it is done; they lie where the test may write."""
    done: list[str] = []

    def noting(word: str, change: Callable[..., None]) -> Callable[..., None]:
        def note(*arguments: str) -> None:
            done.append(" ".join([word, *arguments[:1]]))
            change(*arguments)

        return note

    (tmp_path / "etc").mkdir()
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(drop_ins, "path_of", lambda unit: str(tmp_path / "etc" / f"{unit}.d" / "50-rosterd.conf"))
    monkeypatch.setattr(drop_ins, "_MARK", tmp_path / "run/rosterd/reload-due")
    for name, word in (("mark_reload_due", "mark"), ("write", "write"), ("clear_reload_due", "clear")):
        monkeypatch.setattr(drop_ins, name, noting(word, getattr(drop_ins, name)))
    return done


class Reloading(Recording):
    """A service manager that notes its reloads among what is done to the disk."""

    def __init__(self, disk: list[str], *, dead: bool = False) -> None:
        """Reload, or not answer."""
        super().__init__(dead=dead)
        self._disk = disk

    def reload(self) -> None:
        """Reload."""
        self._disk.append("reload")
        super().reload()


def placed(unit: str, text: str | None = "[Service]\n", before: str | None = None) -> SetDropIn:
    return SetDropIn("alice", unit, text, before)


def change(systemd: Systemd, tmp_path: Path, *actions: Action) -> list[tuple[Status, str]]:
    outcomes = list(HostExecutor(systemd, State(tmp_path / "state")).apply(actions))
    assert [outcome.action for outcome in outcomes] == list(actions)
    return [(outcome.status, outcome.why) for outcome in outcomes]


DONE = (Status.DONE, "")


def test_drop_ins_are_written_between_the_mark_and_one_reload_which_clears_it(disk: list[str], tmp_path: Path) -> None:
    outcomes = change(Reloading(disk), tmp_path, placed("a.service"), placed("b.service"), placed("c", None, "x"))
    assert outcomes == [DONE, DONE, (Status.FAILED, outcomes[2][1])]  # there is no folder of c to remove it from
    assert disk == ["mark", "write a.service", "write b.service", "write c", "reload", "clear"]
    assert (tmp_path / "etc/a.service.d/50-rosterd.conf").read_text() == "[Service]\n"
    assert not drop_ins.is_reload_due()


def test_a_reload_that_is_due_changes_no_file(disk: list[str], tmp_path: Path) -> None:
    drop_ins.mark_reload_due()
    assert change(Reloading(disk), tmp_path, ReloadSystemd()) == [DONE]
    assert disk == ["mark", "mark", "reload", "clear"]
    assert not drop_ins.is_reload_due()


def test_where_systemd_cannot_be_reloaded_all_fail_and_the_next_run_sees_the_mark(
    disk: list[str], tmp_path: Path
) -> None:
    outcomes = change(Reloading(disk, dead=True), tmp_path, placed("a.service"), placed("b.service"))
    assert outcomes == [(Status.FAILED, "no answer")] * 2
    assert disk == ["mark", "write a.service", "write b.service", "reload"]
    assert drop_ins.is_reload_due()


def test_one_drop_in_that_cannot_be_written_fails_alone(disk: list[str], tmp_path: Path) -> None:
    (tmp_path / "etc/b.service.d").write_text("in the way")
    outcomes = change(Reloading(disk), tmp_path, placed("a.service"), placed("b.service"), placed("c.service"))
    assert [status for status, _ in outcomes] == [Status.DONE, Status.FAILED, Status.DONE]
    assert "b.service.d/50-rosterd.conf cannot be written" in outcomes[1][1]
    assert disk[-2:] == ["reload", "clear"]


def test_where_the_mark_cannot_be_made_nothing_is_changed(disk: list[str], tmp_path: Path) -> None:
    (tmp_path / "run/rosterd").write_text("in the way")
    ((status, why),) = change(Reloading(disk), tmp_path, placed("a.service"))
    assert status is Status.FAILED
    assert "reload-due cannot be written" in why
    assert disk == ["mark"]
    assert not (tmp_path / "etc/a.service.d").exists()


def test_what_is_removed_is_gone_and_read(disk: list[str], tmp_path: Path) -> None:
    change(Reloading(disk), tmp_path, placed("a.service"))
    assert change(Reloading(disk), tmp_path, placed("a.service", None, "[Service]\n")) == [DONE]
    assert list((tmp_path / "etc").iterdir()) == []
