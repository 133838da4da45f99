"""How jobs are held and come back, how units and processes are ended, how a hook is run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from reconciler.core.actions import EndProcesses, HoldJobs, ResumeJobs, RunHook
from reconciler.core.observed import Process
from reconciler.core.records import Step
from reconciler.errors import StepFailed
from reconciler.host import cutting, outside
from reconciler.host.bus import Job, Systemd
from reconciler.host.process import Finished
from tests.unit.facts import at_job, process

JOBS = (at_job(1, 1), at_job(2, 2))


class Manager(Systemd):
    """A service manager that notes what it is told; stopping some units takes longer than anybody waits."""

    def __init__(self, *slow: str, unkillable: bool = False, dead: bool = False) -> None:
        """Be slow to stop these, until they are killed."""
        super().__init__()
        self.calls: list[str] = []
        self._slow = set(slow)
        self._unkillable = unkillable
        self._is_dead = dead

    def run_jobs(self, job: Job, units: Iterable[str], seconds: float) -> dict[str, str]:
        """Run jobs."""
        names = list(units)
        if self._is_dead:
            raise StepFailed("no answer")
        self.calls.append(f"{job} {' '.join(names)} {seconds:.0f}")
        return {unit: "timeout" if unit in self._slow else "done" for unit in names}

    def kill(self, unit: str) -> None:
        """Kill."""
        self.calls.append(f"kill {unit}")
        if self._unkillable:
            raise StepFailed("Unit not loaded")
        self._slow.discard(unit)

    def hang_up(self, unit: str) -> None:
        """Send SIGHUP."""
        self.calls.append(f"hang up {unit}")
        if self._is_dead:
            raise StepFailed("no answer")


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a spool of cron and at, with jobs of bob's."""
    for name, folder in (("CRONTABS", "crontabs"), ("AT_JOBS", "atjobs"), ("HELD_JOBS", "held")):
        monkeypatch.setattr(cutting, name, tmp_path / folder)
    for folder in ("crontabs", "atjobs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "crontabs" / "bob").write_text("the first\n")
    for job in JOBS:
        (tmp_path / "atjobs" / job).write_text(job)
    return tmp_path


def tree(spool: Path) -> dict[str, str]:
    """Return every file below the spool with its text."""
    return {str(path.relative_to(spool)): path.read_text() for path in sorted(spool.rglob("*")) if path.is_file()}


BEFORE = {"crontabs/bob": "the first\n"} | {f"atjobs/{job}": job for job in JOBS}
HELD = {"held/bob/crontab": "the first\n"} | {f"held/bob/{job}": job for job in JOBS}


# --- jobs ---


def test_jobs_are_held_in_a_folder_of_roots_alone_and_come_back_as_they_were(spool: Path) -> None:
    assert tree(spool) == BEFORE
    cutting.hold_jobs(HoldJobs("bob", crontab=True, at_jobs=JOBS))
    assert tree(spool) == HELD
    assert (spool / "held").stat().st_mode & 0o777 == (spool / "held" / "bob").stat().st_mode & 0o777 == 0o700
    systemd = Manager()
    cutting.resume_jobs(ResumeJobs("bob", crontab=True, at_jobs=JOBS), systemd)
    assert tree(spool) == BEFORE
    assert systemd.calls == ["hang up atd.service"]


def test_only_what_is_asked_for_is_held_and_comes_back(spool: Path) -> None:
    cutting.hold_jobs(HoldJobs("bob", crontab=False, at_jobs=JOBS[:1]))
    assert tree(spool).keys() == {"crontabs/bob", f"atjobs/{JOBS[1]}", f"held/bob/{JOBS[0]}"}
    cutting.hold_jobs(HoldJobs("bob", crontab=True, at_jobs=()))
    cutting.resume_jobs(ResumeJobs("bob", crontab=True, at_jobs=()), systemd := Manager())
    assert tree(spool).keys() == {"crontabs/bob", f"atjobs/{JOBS[1]}", f"held/bob/{JOBS[0]}"}
    assert systemd.calls == []  # cron sees it by itself


def test_jobs_that_have_gone_meanwhile_are_no_error(spool: Path) -> None:
    (spool / "crontabs" / "bob").unlink()
    (spool / "atjobs" / JOBS[0]).unlink()
    cutting.hold_jobs(HoldJobs("bob", crontab=True, at_jobs=JOBS))
    assert tree(spool) == {f"held/bob/{JOBS[1]}": JOBS[1]}


def test_a_crontab_that_was_made_during_the_cut_does_not_replace_the_held_one(spool: Path) -> None:
    hold = HoldJobs("bob", crontab=True, at_jobs=())
    cutting.hold_jobs(hold)
    for text in ("the second\n", "the third\n"):
        (spool / "crontabs" / "bob").write_text(text)
        cutting.hold_jobs(hold)
    held = {path: text for path, text in tree(spool).items() if path.startswith("held")}
    assert sorted(held.values()) == ["the first\n", "the second\n", "the third\n"]
    cutting.resume_jobs(ResumeJobs("bob", crontab=True, at_jobs=()), Manager())
    assert (spool / "crontabs" / "bob").read_text() == "the first\n"


def test_nothing_that_is_there_is_overwritten_by_what_comes_back(spool: Path) -> None:
    cutting.hold_jobs(HoldJobs("bob", crontab=True, at_jobs=JOBS))
    (spool / "crontabs" / "bob").write_text("new\n")
    with pytest.raises(StepFailed, match="crontabs/bob is there already"):
        cutting.resume_jobs(ResumeJobs("bob", crontab=True, at_jobs=JOBS), Manager())
    assert (spool / "crontabs" / "bob").read_text() == "new\n"


def test_without_a_spool_of_cron_nothing_can_be_held(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "HELD_JOBS", spool / "none" / "held")
    with pytest.raises(StepFailed, match="held cannot be made"):
        cutting.hold_jobs(HoldJobs("bob", crontab=True, at_jobs=()))


def test_an_at_daemon_that_does_not_run_is_no_error(spool: Path) -> None:
    cutting.hold_jobs(HoldJobs("bob", crontab=False, at_jobs=JOBS))
    cutting.resume_jobs(ResumeJobs("bob", crontab=False, at_jobs=JOBS), Manager(dead=True))
    assert tree(spool) == BEFORE


def test_what_is_held_still_is_set_aside_for_good(spool: Path) -> None:
    for text in ("the first\n", "the second\n"):
        (spool / "crontabs" / "bob").write_text(text)
        cutting.hold_jobs(HoldJobs("bob", crontab=True, at_jobs=()))
        cutting.set_held_aside("bob")
    held = {path: text for path, text in tree(spool).items() if path.startswith("held")}
    assert held == {"held/bob.1/crontab": "the first\n", "held/bob.2/crontab": "the second\n"}


def test_where_nothing_is_held_any_more_nothing_is_left(spool: Path) -> None:
    cutting.set_held_aside("bob")
    cutting.hold_jobs(HoldJobs("bob", crontab=True, at_jobs=()))
    cutting.resume_jobs(ResumeJobs("bob", crontab=True, at_jobs=()), Manager())
    cutting.set_held_aside("bob")
    assert list((spool / "held").iterdir()) == []
    assert (spool / "crontabs" / "bob").read_text() == "the first\n"


# --- units ---


def test_units_that_end_in_time_are_not_killed() -> None:
    systemd = Manager()
    assert cutting.stop_units(systemd, ["a.service", "b.service"]) == {"a.service": "done", "b.service": "done"}
    assert systemd.calls == ["StopUnit a.service b.service 5"]


def test_those_that_take_their_time_are_killed_and_waited_for() -> None:
    systemd = Manager("b.service")
    assert cutting.stop_units(systemd, ["a.service", "b.service"]) == {"a.service": "done", "b.service": "done"}
    assert systemd.calls == ["StopUnit a.service b.service 5", "kill b.service", "StopUnit b.service 10"]


def test_those_that_cannot_be_killed_are_told() -> None:
    results = cutting.stop_units(Manager("b.service", unkillable=True), ["a.service", "b.service"])
    assert results == {"a.service": "done", "b.service": "timeout"}


# --- processes ---


class Killer:
    """Stands in for the child that kills: notes with whose id, and says what is left at each look."""

    def __init__(self, *looks: list[Process]) -> None:
        """Find these at the looks, the last one again and again."""
        self.looks = list(looks)
        self.spans: list[object] = []
        self.killed: list[int] = []
        self.code = ""
        self.now = 0.0

    def scan(self, spans: object) -> list[Process]:
        """Look."""
        self.spans.append(spans)
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def run(self, argv: tuple[str, ...], *, timeout: float) -> Finished:
        """Kill."""
        assert argv[:4] == (sys.executable, "-I", "-S", "-c")
        assert timeout > 0
        self.code = argv[4]
        self.killed.append(int(argv[5]))
        if self.killed[-1] == 100_001:
            raise StepFailed("killed by those it was to kill")
        return Finished(argv, -9, "", "")

    def monotonic(self) -> float:
        """Tell the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


Install = Callable[..., Killer]


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Let processes be looked for and killed in memory."""

    def install(*looks: list[Process]) -> Killer:
        made = Killer(*looks)
        monkeypatch.setattr(cutting, "scan_processes", made.scan)
        monkeypatch.setattr(cutting, "run", made.run)
        monkeypatch.setattr(cutting, "time", made)
        return made

    return install


SPANS = ((1001, 1001), (100_000, 100_009))


def end(*, slice_active: bool = False) -> EndProcesses:
    return EndProcesses("bob", 1001, SPANS, slice_active, ())


def test_processes_are_killed_as_each_of_their_users_until_none_is_left(killer: Install) -> None:
    found = killer([process(1, 1001), process(2, 100_000), process(3, 1001)], [process(4, 100_000)], [])
    cutting.end_processes(end(), systemd := Manager())
    assert found.killed == [1001, 100_000, 100_000]
    assert found.spans == [SPANS] * 3
    assert "os.kill(-1, signal.SIGKILL)" in found.code
    assert systemd.calls == []


def test_a_session_is_stopped_first_and_one_that_takes_its_time_is_killed(killer: Install) -> None:
    killer([])
    cutting.end_processes(end(slice_active=True), systemd := Manager("user-1001.slice"))
    assert systemd.calls == ["StopUnit user-1001.slice 5", "kill user-1001.slice", "StopUnit user-1001.slice 10"]


def test_where_systemd_does_not_answer_the_processes_are_killed_all_the_same(killer: Install) -> None:
    found = killer([process(1, 1001)], [])
    cutting.end_processes(end(slice_active=True), Manager(dead=True))
    assert len(found.killed) == 1


def test_a_killer_that_is_killed_is_followed_by_another(killer: Install) -> None:
    found = killer([process(1, 100_001)], [process(1, 100_001)], [])
    cutting.end_processes(end(), Manager())
    assert len(found.killed) == 2


def test_nothing_is_ever_killed_as_root(killer: Install) -> None:
    found = killer([Process(1, 0, "init"), process(2, 1001)], [])
    cutting.end_processes(end(), Manager())
    assert found.killed == [1001]


def test_what_cannot_be_ended_is_told_within_a_bounded_time(killer: Install) -> None:
    found = killer([process(pid, 1001, "stuck") for pid in range(1, 8)])
    with pytest.raises(StepFailed) as caught:
        cutting.end_processes(end(), Manager())
    assert str(caught.value) == (
        "7 of the processes cannot be ended, among them 1 (stuck), 2 (stuck), 3 (stuck), 4 (stuck), 5 (stuck)"
    )
    assert 10 < found.now < 11


# --- hooks ---


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], float]]:
    """Note what is run and how long it may take; /bin/false fails."""
    calls: list[tuple[tuple[str, ...], float]] = []

    def run(argv: tuple[str, ...], *, timeout: float) -> Finished:
        calls.append((argv, timeout))
        return Finished(argv, 1 if "/bin/false" in argv else 0, "", "no such grant")

    monkeypatch.setattr(outside, "run", run)
    return calls


def test_a_hook_runs_in_a_unit_of_its_own_with_its_own_time(ran: list[tuple[tuple[str, ...], float]]) -> None:
    cutting.run_hook(RunHook("bob", Step.REVOKE_CLUSTER_RBAC, ("/bin/revoke", "--flag", "bob"), 7))
    ((argv, timeout),) = ran
    assert argv[0] == "systemd-run"
    assert {"--wait", "--pipe", "--collect", "--property=RuntimeMaxSec=7"} <= set(argv)
    assert argv[argv.index("--") + 1 :] == ("/bin/revoke", "--flag", "bob")
    assert timeout > 7


@pytest.mark.usefixtures("ran")
def test_a_hook_that_fails_is_told_by_its_own_name() -> None:
    with pytest.raises(StepFailed) as caught:
        cutting.run_hook(RunHook("bob", Step.REVOKE_CLUSTER_RBAC, ("/bin/false",), 7))
    assert "false" in str(caught.value)
    assert "no such grant" in str(caught.value)
    assert "systemd-run" not in str(caught.value)


def test_a_hook_that_takes_too_long_is_told_as_that(killer: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = killer([])

    def slowly(argv: tuple[str, ...], *, timeout: float) -> Finished:
        assert timeout > 7
        clock.now += 7
        return Finished(argv, 1, "", "")

    monkeypatch.setattr(outside, "run", slowly)
    monkeypatch.setattr(outside, "time", clock)
    with pytest.raises(StepFailed, match=r"^/bin/revoke did not end within 7 s and was ended$"):
        cutting.run_hook(RunHook("bob", Step.REVOKE_CLUSTER_RBAC, ("/bin/revoke",), 7))
