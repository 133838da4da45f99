"""A run waits until what it started is known to be well or not: within a time, and only where there is something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli.exits import Exit, exit_of
from reconciler.core.actions import Action, RunUnit, TakeHomeStep
from reconciler.core.desired import Desired
from reconciler.core.findings import FindingKind
from reconciler.core.home_steps import DirectoryStep, HomeStep
from reconciler.core.observed import Observed, UnitState
from reconciler.core.site import Limits, Site, Tier
from reconciler.core.site_homes import SiteStep
from reconciler.engine import EVERYBODY, Purpose, Report, Surroundings, reconcile
from reconciler.inputs import Inputs
from tests.unit.facts import RUNNING, SITE, Machine, bare, person, roster
from tests.unit.memory_host import MemoryHost
from tests.unit.runs import Run, run

T3 = "t3-serve@alice.service"
ALICE = roster(person("alice"))
TWO = roster(person("alice"), person("bob"))


def unhealthy(report: Report) -> list[str]:
    return [found.text for found in report.plan.findings if found.kind is FindingKind.UNHEALTHY]


def slow(seconds: float | None, unit: str = T3) -> Callable[[str], float | None]:
    """Let one unit take so long to listen; the others listen at once."""
    return lambda name: seconds if name == unit else 0.0


class Crashing(MemoryHost):
    """A machine on which a unit has never been up for longer than some seconds, whenever somebody looks."""

    def __init__(self, machine: Machine, unit: str = T3) -> None:
        """Find this unit up for half a second at each look."""
        super().__init__(machine.observed)
        self._unit = unit

    def observe(self, desired: Desired) -> Observed:
        """Look at a unit that has just been restarted once more."""
        seen = super().observe(desired)
        states = dict(seen.units.states or {})
        if self._unit in states:
            states[self._unit] = replace(states[self._unit], up=0.5)
        return replace(seen, units=replace(seen.units, states=states))


def converged() -> MemoryHost:
    """Return a machine that has had its run, a while ago."""
    host = MemoryHost(bare().observed)
    run(host, TWO)
    host.sleep(3600)
    host.looks = 0
    return host


# --- something else comes up ---


def test_a_command_that_waits_for_the_run_ends_the_waiting_and_nobody_is_judged() -> None:
    host = MemoryHost(bare().observed, listens=slow(None))
    first = Run(host, [ALICE])
    first.is_wanted = lambda: sum(first.sleeps) >= 7
    report = first.go()
    assert sum(first.sleeps) == 7
    assert unhealthy(report) == []
    assert [one.otherwise.unit for one in report.plan.starting] == [T3]
    assert "alice" in host.observed.accounts


def test_an_edit_ends_the_waiting_for_what_the_files_before_it_started() -> None:
    host = MemoryHost(bare().observed, listens=slow(None))
    edited = Run(host, [ALICE, TWO])
    report = edited.go()
    assert report.people == 2
    assert sum(edited.sleeps) <= 5 + 30 + 1.5
    assert [T3 in text for text in unhealthy(report)] == [True]


# --- nothing to wait for ---


def test_a_machine_on_which_everything_is_settled_is_looked_at_once_and_nobody_waits() -> None:
    host = converged()
    again = Run(host, [TWO])
    report = again.go()
    assert (again.sleeps, host.looks) == ([], 1)
    assert (report.outcomes, report.drift) == ([], 0)
    assert exit_of(report) is Exit.OK


def test_what_listens_when_its_time_to_settle_is_over_is_waited_for_no_longer() -> None:
    first = Run(MemoryHost(bare().observed, listens=slow(4.9)), [ALICE], Site(settle=5, listen=30))
    assert exit_of(first.go()) is Exit.OK
    assert sum(first.sleeps) == 5


def test_nobody_waits_for_what_the_site_does_not_ask_for() -> None:
    first = Run(MemoryHost(bare().observed, listens=slow(None)), [ALICE], Site(settle=0, listen=0))
    assert exit_of(first.go()) is Exit.OK
    assert sum(first.sleeps) == 0


# --- waiting ---


def test_what_listens_at_the_second_look_is_well() -> None:
    host = MemoryHost(bare().observed, listens=slow(5.5))
    first = Run(host, [ALICE], Site(settle=5, listen=30))
    report = first.go()
    assert exit_of(report) is Exit.OK
    assert report.plan.starting == ()
    assert sum(first.sleeps) == 6


def test_what_listens_late_but_in_time_is_well() -> None:
    first = Run(MemoryHost(bare().observed, listens=slow(29.5)), [ALICE], Site(settle=5, listen=30))
    assert exit_of(first.go()) is Exit.OK
    assert sum(first.sleeps) == pytest.approx(30, abs=1)


def test_what_never_listens_is_unhealthy_when_its_time_is_over() -> None:
    first = Run(MemoryHost(bare().observed, listens=slow(None)), [TWO], Site(settle=5, listen=30))
    report = first.go()
    assert exit_of(report) is Exit.PROBLEMS
    assert unhealthy(report) == [
        f"t3: {T3} runs, but none of its processes listens on port 3773; see: journalctl -u {T3}"
    ]
    assert sum(first.sleeps) == pytest.approx(30, abs=1.5)
    assert report.plan.starting == ()


def test_several_that_never_listen_are_waited_for_together() -> None:
    first = Run(MemoryHost(bare().observed, listens=lambda _: None), [TWO], Site(settle=5, listen=30))
    assert len(unhealthy(first.go())) == 4
    assert sum(first.sleeps) == pytest.approx(30, abs=1.5)


def test_what_never_listens_is_told_by_the_next_run_at_once() -> None:
    host = MemoryHost(bare().observed, listens=slow(None))
    run(host, ALICE)
    host.sleep(3600)
    again = Run(host, [ALICE])
    assert exit_of(again.go()) is Exit.PROBLEMS
    assert again.sleeps == []


def test_what_is_restarted_again_and_again_is_unhealthy_after_a_time() -> None:
    host = Crashing(bare())
    first = Run(host, [ALICE], Site(settle=5, listen=30))
    report = first.go()
    assert exit_of(report) is Exit.PROBLEMS
    assert unhealthy(report) == [f"t3: {T3} does not stay up for 5 s; see: journalctl -u {T3}"]
    assert 35 <= sum(first.sleeps) - 5 <= 35 + 5.1


def test_what_is_started_later_in_a_run_has_its_own_time_whatever_the_run_gave_up_on_before() -> None:
    notes = HomeStep("notes", DirectoryStep("notes"), 30)
    host = Crashing(bare(), "playwright-mcp@alice.service")
    host.listens = slow(20)

    def fails(action: Action) -> str | None:
        lacks = isinstance(action, RunUnit) and action.unit == T3
        return "no notes" if lacks and not any(isinstance(one, TakeHomeStep) for one in host.log) else None

    host.fails = fails
    report = run(host, ALICE, replace(SITE, homes={"notes": SiteStep(notes)}))
    assert report.failed == {}
    assert [text.split()[1] for text in unhealthy(report)] == ["playwright-mcp@alice.service"]


def test_a_further_look_is_made_as_soon_as_it_can_tell_of_anybody() -> None:
    machine = bare().person("alice", 1000, 3773, 8931).having(listeners=())
    machine = machine.unit(T3, replace(RUNNING, up=6.0)).unit("playwright-mcp@alice.service", replace(RUNNING, up=1.0))
    waiting = Run(MemoryHost(machine.observed), [ALICE], Site(settle=5, listen=30))
    waiting.go()
    assert waiting.sleeps[:4] == [1.0, 1.0, 1.0, 1.0]


def test_what_somebody_started_just_before_the_run_is_given_its_time_too() -> None:
    machine = bare().person("alice", 1000, 3773, 8931).unit(T3, replace(RUNNING, up=2.0))
    host = MemoryHost(machine.observed)
    run(host, ALICE)
    host.observed = replace(host.observed, listeners=())
    young = Run(MemoryHost(host.observed), [ALICE])
    report = young.go()
    assert report.outcomes == []
    assert sum(young.sleeps) == pytest.approx(28.1)  # the rest of `settle`, and of `listen`
    assert any(T3 in text for text in unhealthy(report))


def test_a_unit_of_which_nobody_knows_since_when_it_is_up_counts_as_one_that_stays_up() -> None:
    machine = bare().person("alice", 1000, 3773, 8931).having(outputs={})
    settled = Run(MemoryHost(machine.observed), [ALICE])
    assert exit_of(settled.go()) is Exit.OK
    assert settled.sleeps == []


class Flapping(MemoryHost):
    """A machine on which every unit is found up for whatever the test says."""

    def __init__(self, ups: list[float]) -> None:
        """Find `ups` one after the other."""
        super().__init__(bare().observed, listens=lambda _: None)
        self._ups = cycle(ups)

    def observe(self, desired: Desired) -> Observed:
        """Look at units in any state of their lives."""
        seen = super().observe(desired)
        states = {name: replace(state, up=next(self._ups)) for name, state in (seen.units.states or {}).items()}
        return replace(seen, units=replace(seen.units, states=states))


@given(st.integers(0, 20), st.integers(0, 40), st.lists(st.floats(0, 50, width=16), min_size=1, max_size=20))
def test_no_unit_however_it_behaves_makes_a_run_wait_for_longer_than_the_site_says(
    settle: int, listen: int, ups: list[float]
) -> None:
    host = Flapping(ups)
    first = Run(host, [ALICE], Site(settle=settle, listen=listen))
    report = first.go()
    assert report.plan.starting == ()
    longest_wait = max(settle + 0.2, 1.0)
    assert sum(first.sleeps) <= settle + settle + listen + longest_wait
    assert all(0 < seconds <= 1 for seconds in first.sleeps)
    assert host.looks <= 4 + sum(first.sleeps) / 0.1


@given(st.floats(0, 60, width=16))
def test_a_service_is_well_exactly_if_it_listens_within_its_time(seconds: float) -> None:
    first = Run(MemoryHost(bare().observed, listens=slow(seconds)), [ALICE], Site(settle=5, listen=30))
    code = exit_of(first.go())
    if seconds <= 30:
        assert code is Exit.OK
        assert sum(first.sleeps) <= max(5, seconds + 1.2)
    elif seconds > 31.2:
        assert code is Exit.PROBLEMS


def test_a_run_about_one_person_does_not_wait_for_others() -> None:
    host = converged()
    host.observed = replace(
        host.observed,
        listeners=tuple(found for found in host.observed.listeners if found.unit != "t3-serve@bob.service"),
        units=replace(
            host.observed.units,
            states={**(host.observed.units.states or {}), "t3-serve@bob.service": UnitState("active", "running", 1.0)},
        ),
    )
    host = MemoryHost(host.observed)
    cutting = Run(host, [TWO], purpose=Purpose(cut="alice"))
    cutting.go()
    assert cutting.sleeps == []


# --- what does not wait ---


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_command_that_waits_is_let_in_and_what_still_starts_is_told_as_that(number: int) -> None:
    going = Run(MemoryHost(bare().observed, listens=slow(20)), [ALICE], Site(settle=5, listen=30))
    going.is_wanted = lambda: len(going.sleeps) >= number
    report = going.go()
    assert len(going.sleeps) == number
    assert unhealthy(report) == []
    assert exit_of(report) is Exit.OK
    told = [found.text for found in report.plan.findings]
    assert "t3: started; whether it is well, the next run tells" in told
    assert report.plan.starting


def test_an_edit_is_looked_at_before_what_was_started_is_judged() -> None:
    slept_before: dict[str | None, float] = {}

    def note(action: Action) -> None:
        slept_before.setdefault(action.user, sum(going.sleeps))

    host = MemoryHost(bare().observed, fails=note, listens=slow(20))
    going = Run(host, [ALICE, TWO], Site(settle=5, listen=30))
    report = going.go()
    assert slept_before["bob"] == 0
    assert unhealthy(report) == []
    assert report.plan.starting == ()


# --- what is told of a run ---


def test_drift_is_what_the_first_look_asked_for_whatever_came_of_it() -> None:
    host = MemoryHost(bare().observed, lambda _action: "no")
    failed = run(host, TWO)
    worked = run(MemoryHost(bare().observed), TWO)
    assert failed.drift == worked.drift > 0
    first_look = Run(MemoryHost(bare().observed), [TWO])
    first_look.go()
    assert worked.drift == len(first_look.shown[0].actions)


def test_limits_that_were_changed_are_written_once_and_are_drift_of_that_run() -> None:
    host = converged()
    capped = replace(SITE, tiers={**SITE.tiers, "power-user": Tier("power-user", limits=Limits("4G"))})
    changed = run(host, TWO, capped)
    assert [outcome.action.kind for outcome in changed.outcomes] == ["set_drop_in"] * 8
    assert changed.drift == 8
    assert run(host, TWO, capped).drift == 0


def test_a_report_is_of_the_files_as_they_were_loaded_last() -> None:
    host = MemoryHost(bare().observed)
    sites = [Site(settle=3, listen=0), Site(settle=7, listen=0, metrics="/var/lib/metrics/rosterd.prom")]
    loaded: list[Site] = []

    def load() -> Inputs:
        loaded.append(sites[min(len(loaded), 1)])
        return Inputs(ALICE if len(loaded) == 1 else TWO, loaded[-1], str(min(len(loaded), 2)))

    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        host.sleep(seconds)

    report = reconcile(
        Surroundings(load, lambda: "2", host, host, sleep, lambda: False, lambda _: None, lambda _: None), EVERYBODY
    )
    assert len(loaded) == 2
    assert report.site == sites[1]
    assert report.people == 2
    assert sum(sleeps) == 7  # nobody waits for what the first files started once they are edited
