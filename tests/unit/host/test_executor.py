"""How units are brought up and halted: in one call each, and one bad unit fails for itself alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reconciler.core.actions import ConfirmAccount, ForgetRecord, HaltUnit, RunUnit, WritePort
from reconciler.core.outcome import Status
from reconciler.errors import StepFailed
from reconciler.host.bus import BusUnavailable, Job, Systemd
from reconciler.host.executor import HostExecutor
from reconciler.host.state import State


class Recording(Systemd):
    """A service manager that notes what it is told, and refuses what it is made to."""

    def __init__(self, bad: str = "", *, dead: bool = False, results: dict[str, str] | None = None) -> None:
        """Refuse the unit `bad`, or everything; jobs end with `results`, else well."""
        super().__init__()
        self.calls: list[str] = []
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

    def run_jobs(self, job: Job, units: Iterable[str], seconds: float) -> dict[str, str]:
        """Run jobs."""
        del seconds
        names = list(units)
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
    assert systemd.calls == ["StopUnit a b", "disable a c", "reload"]


def test_what_could_not_be_stopped_stays_enabled_and_is_seen(tmp_path: Path) -> None:
    systemd = Recording(results={"a": "failed"})
    assert apply(systemd, tmp_path, down("a"), down("b")) == {"a": "a: stop job: failed", "b": ""}
    assert systemd.calls == ["StopUnit a b", "disable b", "reload"]


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


def test_a_record_is_removed_when_the_account_is_complete_or_came_to_nothing(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.save_intent("alice", 1000, 1000)
    state.save_intent("bob", 1001, 1001)
    outcomes = HostExecutor(Recording(), state).apply([ConfirmAccount("alice"), ForgetRecord("bob", 1001)])
    assert [outcome.status for outcome in outcomes] == [Status.DONE, Status.DONE]
    assert state.intents() == {}
