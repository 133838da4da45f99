"""What a run leaves behind: its record and its metrics, also where it was stopped, and not where it was about one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from reconciler import engine
from reconciler.cli import ending
from reconciler.cli import run as cli_run
from reconciler.cli.exits import Exit
from reconciler.core.actions import CreateAccount
from reconciler.core.last_run import LastRun
from reconciler.core.observed import UnitState
from reconciler.core.plan import Plan
from reconciler.core.site import Site
from reconciler.engine import Purpose, Report, Surroundings
from reconciler.errors import FileRefused, RosterdError, ScanFailed
from reconciler.host import lock
from reconciler.host.state import State
from reconciler.inputs import Files
from reconciler.report import results_of
from tests.unit.facts import RUNNING, bare, person, roster
from tests.unit.memory_host import MemoryHost
from tests.unit.metrics_text import read, values
from tests.unit.runs import run

ALICE = roster(person("alice"))
T3 = "t3-serve@alice.service"
RAN = LastRun("0123", 1_800_000_000, 0, 1.5)
BEFORE = LastRun("old", 1_700_000_000, 0, 1.0, good=1_700_000_000, restarts={T3: 4})


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """Return the records of this test."""
    kept = State(tmp_path / "state")
    monkeypatch.setattr(ending, "State", lambda: kept)
    return kept


@pytest.fixture
def entries() -> Iterator[list[Any]]:
    """Return the list of what is logged."""
    capture = LogCapture()
    structlog.configure(processors=[capture])
    yield capture.entries
    structlog.reset_defaults()


def good_run(restarts: int = 0) -> Report:
    machine = bare().person("alice", 1000, 3773, 8931).unit(T3, replace(RUNNING, restarts=restarts))
    return run(MemoryHost(machine.observed), ALICE)


def metrics_of(tmp_path: Path) -> Site:
    (tmp_path / "metrics").mkdir(exist_ok=True)
    return Site(metrics=str(tmp_path / "metrics/rosterd.prom"))


# --- what is kept ---


def test_a_run_that_went_well_is_the_last_good_one(state: State) -> None:
    assert ending.keep(RAN, good_run(2), Site()) is Exit.OK
    assert state.last_run() == replace(RAN, good=RAN.at, restarts={T3: 2}, digest="1")


@pytest.mark.parametrize("code", [Exit.PROBLEMS, Exit.HELD, Exit.REFUSED, Exit.CANNOT_RUN])
def test_one_that_did_not_keeps_what_is_known_of_the_last_good_one(state: State, code: Exit) -> None:
    state.save_last_run(BEFORE)
    assert ending.keep(replace(RAN, exit=code), good_run(), Site()) is code
    assert state.last_run() == replace(RAN, exit=code, good=BEFORE.good, digest="1")


def test_one_that_could_not_begin_keeps_what_is_known_of_restarts(state: State) -> None:
    state.save_last_run(BEFORE)
    ending.keep(replace(RAN, exit=5), None, Site())
    assert state.last_run() == replace(RAN, exit=5, good=BEFORE.good, restarts={T3: 4})


def test_the_first_run_of_all_may_be_a_bad_one(state: State) -> None:
    ending.keep(replace(RAN, exit=5), None, None)
    assert state.last_run() == replace(RAN, exit=5)


def test_metrics_are_written_where_the_site_says_and_everybody_may_read_them(state: State, tmp_path: Path) -> None:
    site = metrics_of(tmp_path)
    assert ending.keep(RAN, good_run(3), site) is Exit.OK
    path = Path(site.metrics or "")
    assert path.stat().st_mode & 0o777 == 0o644
    families = read(path.read_text())
    assert values(families, "rosterd_run_exit_code") == {(): 0}
    assert values(families, "rosterd_unit_restarts_total")["alice", T3] == 3
    assert values(families, "rosterd_users")["active",] == 1
    assert state.last_run() is not None


def test_a_run_that_could_not_begin_tells_the_metrics_too(state: State, tmp_path: Path) -> None:
    state.save_last_run(BEFORE)
    site = metrics_of(tmp_path)
    ending.keep(replace(RAN, exit=5), None, site)
    families = read(Path(site.metrics or "").read_text())
    assert values(families, "rosterd_run_exit_code") == {(): 5}
    assert values(families, "rosterd_run_success_timestamp_seconds") == {(): 1_700_000_000}
    assert "rosterd_users" not in families


@pytest.mark.parametrize(("code", "after"), [(0, 3), (3, 3), (4, 4), (5, 5)])
def test_metrics_that_cannot_be_written_are_a_problem_of_a_run_that_had_none(
    state: State, tmp_path: Path, entries: list[Any], code: int, after: int
) -> None:
    state.save_last_run(BEFORE)
    site = Site(metrics=str(tmp_path / "no/such/folder/rosterd.prom"))
    assert ending.keep(replace(RAN, exit=code), good_run(), site) == after
    kept = state.last_run()
    assert kept is not None
    assert (kept.exit, kept.good) == (after, BEFORE.good)
    assert [entry["event"] for entry in entries] == ["run_not_kept"]
    assert "rosterd.prom" in entries[0]["message"]


@pytest.mark.parametrize(("code", "after"), [(0, 3), (4, 4)])
def test_a_record_that_cannot_be_written_is_likewise_and_the_metrics_are_written_all_the_same(
    state: State, tmp_path: Path, entries: list[Any], code: int, after: int
) -> None:
    assert state.last_run() is None
    (tmp_path / "state").write_text("in the way")
    site = metrics_of(tmp_path)
    # A folder that is a file: what is in it cannot even be asked for.
    assert ending.keep(replace(RAN, exit=code), good_run(), site) == after
    assert Path(site.metrics or "").exists()
    assert [entry["event"] for entry in entries] == ["run_not_kept"]


# --- of which runs ---


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, state: State) -> MemoryHost:  # noqa: ARG001 (the records are those of the test)
    """Return a machine in memory that commands work on, without a lock and whoever runs the test."""

    @contextmanager
    def no_lock(_seconds: float) -> Iterator[None]:
        yield

    host = MemoryHost(bare().person("alice", 1000, 3773, 8931).observed)
    monkeypatch.setattr(cli_run, "begin", lambda: "feed")
    monkeypatch.setattr(lock, "exclusive", no_lock)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli_run, "last_lines", lambda unit, _since: (f"{unit} is sad",))
    return host


def files(tmp_path: Path, text: str, site: str = "settle: 0\nlisten: 0\n") -> Files:
    (tmp_path / "roster.yaml").write_text(text)
    (tmp_path / "site.yaml").write_text(site)
    return Files(str(tmp_path / "roster.yaml"), str(tmp_path / "site.yaml"), trusted=False)


GOOD = "users:\n  alice: {authentik_user: alice.x, k8s_user: alice, tier: power-user}\n"


def working_on(host: MemoryHost, given: Files, monkeypatch: pytest.MonkeyPatch) -> Files:
    surroundings = Surroundings(
        load=lambda: given.load(()),
        digest=given.digest,
        host=host,
        executor=host,
        sleep=host.sleep,
        is_wanted=lambda: False,
        planned=lambda _: None,
        ended=lambda _: None,
    )
    monkeypatch.setattr(cli_run, "surroundings_of", lambda _files, *, quiet: surroundings)  # noqa: ARG005 (as it is called)
    return given


def test_a_run_goes_on_where_its_plan_cannot_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surroundings = cli_run.surroundings_of(files(tmp_path, GOOD), quiet=False)
    with open("/dev/full", "w") as full:  # noqa: PTH123 (a device, as a shell opens it)
        monkeypatch.setattr("sys.stdout", full)
        surroundings.planned(Plan((), ()))


@pytest.mark.usefixtures("entries")
def test_a_run_over_everybody_is_kept(
    machine: MemoryHost, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = working_on(machine, files(tmp_path, GOOD), monkeypatch)
    assert cli_run.run(given) is Exit.OK
    kept = state.last_run()
    assert kept is not None
    assert (kept.id, kept.exit, kept.good) == ("feed", 0, kept.at)


@pytest.mark.parametrize("purpose", [Purpose(cut="alice"), Purpose(uncut="alice")])
@pytest.mark.usefixtures("entries")
def test_a_run_about_one_person_is_not(
    machine: MemoryHost, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, purpose: Purpose
) -> None:
    state.save_last_run(BEFORE)
    cli_run.run(working_on(machine, files(tmp_path, GOOD), monkeypatch), purpose)
    assert state.last_run() == BEFORE


@pytest.mark.parametrize(
    ("text", "site", "has_metrics"),
    [("users: []\n", "metrics: {}/m.prom\n", True), (GOOD, "metrics: {}/m.prom\nbad: 1\n", False)],
)
@pytest.mark.usefixtures("entries")
def test_a_refused_roster_is_kept_and_told_to_the_metrics_while_the_site_file_is_good(  # noqa: PLR0913 (fixtures and columns)
    machine: MemoryHost,
    state: State,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    site: str,
    has_metrics: bool,  # noqa: FBT001 (a column of the table)
) -> None:
    state.save_last_run(BEFORE)
    given = working_on(machine, files(tmp_path, text, site.format(tmp_path)), monkeypatch)
    assert cli_run.run(given) is Exit.REFUSED
    kept = state.last_run()
    assert kept is not None
    assert (kept.id, kept.exit, kept.good, kept.restarts) == ("feed", 5, BEFORE.good, BEFORE.restarts)
    assert (tmp_path / "m.prom").exists() == has_metrics
    if has_metrics:
        assert values(read((tmp_path / "m.prom").read_text()), "rosterd_run_exit_code") == {(): 5}


@pytest.mark.parametrize(("error", "code"), [(ScanFailed("x"), 1), (FileRefused("x"), 5)])
@pytest.mark.usefixtures("machine", "entries")
def test_whatever_stops_a_run_before_it_begins_is_kept(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RosterdError, code: int
) -> None:
    def stop(*_: object) -> Report:
        raise error

    given = files(tmp_path, GOOD)
    monkeypatch.setattr(cli_run, "surroundings_of", lambda *_, **_options: None)
    monkeypatch.setattr(engine, "reconcile", stop)
    assert cli_run.run(given) == code
    kept = state.last_run()
    assert kept is not None
    assert (kept.exit, kept.good) == (code, None)


def test_metrics_that_cannot_be_written_end_a_good_run_with_3(
    machine: MemoryHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[Any]
) -> None:
    site = f"settle: 0\nlisten: 0\nmetrics: {tmp_path}/none/at/all/m.prom\n"
    assert cli_run.run(working_on(machine, files(tmp_path, GOOD, site), monkeypatch)) is Exit.PROBLEMS
    assert "run_not_kept" in [entry["event"] for entry in entries]


def test_what_was_started_and_is_not_well_has_its_last_lines_told(
    machine: MemoryHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[Any]
) -> None:
    machine.observed = bare().observed
    machine.listens = lambda unit: None if unit == T3 else 0.0
    given = working_on(machine, files(tmp_path, GOOD, "settle: 1\nlisten: 3\n"), monkeypatch)
    assert cli_run.run(given) is Exit.PROBLEMS
    said = [entry for entry in entries if entry["event"] == "unit_said"]
    assert [(entry["message"], entry["os_user"]) for entry in said] == [(f"alice: {T3} said: {T3} is sad", "alice")]


def test_what_failed_before_the_run_is_told_without_its_lines(
    machine: MemoryHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[Any]
) -> None:
    states = {**(machine.observed.units.states or {}), T3: UnitState("activating", "auto-restart")}
    machine.observed = replace(machine.observed, units=replace(machine.observed.units, states=states))
    assert cli_run.run(working_on(machine, files(tmp_path, GOOD), monkeypatch)) is Exit.PROBLEMS
    assert [entry["event"] for entry in entries if entry["event"] in ("unhealthy", "unit_said")] == ["unhealthy"]


def test_people_for_whom_something_failed_are_counted_once() -> None:
    host = MemoryHost(bare().observed, lambda action: "no" if isinstance(action, CreateAccount) else None)
    results = results_of(run(host, roster(person("alice"), person("bob"))), None)
    assert results.failed_users == 2
    assert results.actions["create_account", "failed"] == 2
