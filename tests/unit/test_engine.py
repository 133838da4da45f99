"""One run on the host in memory: it converges, survives failures, and looks again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from reconciler.core.actions import (
    Action,
    AddToGroups,
    CreateAccount,
    CreateGroup,
    HaltUnit,
    Phase,
    ReloadProxy,
    RetireUnits,
    RunUnit,
    TakeHomeStep,
    WriteOutput,
    WritePort,
)
from reconciler.core.desired import Desired
from reconciler.core.home_steps import DirectoryStep, HomeStep
from reconciler.core.observed import Home, HomeKind, HomeWork, Listener, Observed, ProxyState
from reconciler.core.outcome import Status
from reconciler.core.outputs import parse
from reconciler.core.roster import Roster
from reconciler.core.site import OutputKind, Site
from reconciler.core.site_homes import SiteStep
from reconciler.engine import MAX_PASSES, Surroundings, reconcile
from reconciler.errors import FileRefused, ScanFailed
from reconciler.inputs import Inputs
from tests.unit.facts import FAILED, OPEN, SITE, Machine, bare, person, roster
from tests.unit.memory_host import MemoryHost
from tests.unit.runs import Run, kinds, run, run_killed

TTYD, DISPATCH = OutputKind.TTYD_USER_MAP, OutputKind.DISPATCH_JSON
TWO = roster(person("alice", "admin"), person("bob"))


def mapped(host: MemoryHost, kind: OutputKind = TTYD) -> set[str]:
    return {route.user for route in parse(kind, host.observed.outputs[kind])}


def failing(kind: type[Action], user: str | None = None) -> MemoryHost:
    """Return a bare machine on which one user's actions of a kind fail."""

    def fails(action: Action) -> str | None:
        return "as the test wants it" if isinstance(action, kind) and action.user == user else None

    return MemoryHost(bare().observed, fails)


# --- a run that works ---


def test_a_first_run_brings_everything_up_and_a_second_does_nothing() -> None:
    host = MemoryHost(bare().observed)
    first = run(host, TWO)
    assert not first.has_problems
    assert first.plan.actions == ()
    assert host.observed.groups_of("alice") == {"alice", "code-shared", "docker", "sudo", "rosterd"}
    assert json.loads(host.observed.outputs[DISPATCH] or "") == {
        "alice.x": {"os_user": "alice", "port": 3773},
        "bob.x": {"os_user": "bob", "port": 3774},
    }
    assert host.observed.intents == {}
    before = host.observed
    second = run(host, TWO)
    assert second.outcomes == []
    assert not second.has_problems
    assert host.observed == before


def test_a_run_looks_again_after_it_has_changed_something() -> None:
    looks = 0

    class Counting(MemoryHost):
        def observe(self, desired: Desired) -> Observed:
            nonlocal looks
            looks += 1
            return super().observe(desired)

    host = Counting(bare().observed)
    run(host, TWO)
    assert looks == 3  # before, after, and once more after the records of the accounts were closed
    looks = 0
    run(host, TWO)
    assert looks == 1


def test_every_action_of_a_phase_is_tried_before_the_next_phase_begins() -> None:
    host = MemoryHost(bare().person("carol", 1002, 3775, 8933).output(TTYD, "carol.x=carol\n").observed)
    run(host, TWO, allow_cuts=1)
    first_look = host.log[: next(i for i, action in enumerate(host.log) if action.phase is Phase.CONFIRM)]
    phases = [action.phase for action in first_look]
    assert phases == sorted(phases)
    assert phases[:2] == [Phase.RECORD, Phase.UNMAP]


def test_the_time_to_settle_is_given_only_where_something_was_started() -> None:
    first = Run(MemoryHost(bare().observed), [TWO], Site(settle=7))
    first.go()
    assert sum(first.sleeps) == 7
    parked = Run(first.host, [roster(person("alice", "admin", parked=True), person("bob"))])
    parked.go()
    assert parked.sleeps == []


def test_each_plan_is_shown_once_before_anything_is_done() -> None:
    told = Run(MemoryHost(bare().observed), [TWO])
    report = told.go()
    (plan,) = told.shown
    assert {action.user for action in plan.actions if action.user} == {"alice", "bob"}
    assert told.ended == report.outcomes


def test_subordinate_ids_of_an_old_account_do_not_overlap_those_that_useradd_gives_a_new_one() -> None:
    host = MemoryHost(bare().account("carol", 1002).having(subuids=(), subgids=()).observed)
    report = run(host, roster(person("bob"), person("carol")))
    assert not report.has_problems
    for ranges in (host.observed.subuids, host.observed.subgids):
        assert ranges is not None
        assert {span.owner for span in ranges} == {"bob", "carol"}
        assert len({span.first for span in ranges}) == 2


def test_people_who_left_are_cut_off_and_the_rest_stay_as_they_are() -> None:
    host = MemoryHost(bare().observed)
    run(host, TWO)
    before = host.observed
    report = run(host, roster(person("alice", "admin")), allow_cuts=1)
    assert not report.plan.held
    assert mapped(host) == {"alice"}
    assert {unit for unit in host.observed.units.states or {} if "@bob." in unit} == set()
    assert host.observed.accounts == before.accounts
    assert host.observed.env_files == before.env_files


def test_cuts_that_a_guard_holds_are_held_by_every_look() -> None:
    host = MemoryHost(bare().observed)
    run(host, roster(person("alice"), person("bob")))
    report = run(host, roster(person("carol")))
    assert report.plan.held == ("alice", "bob")
    assert mapped(host) == {"alice", "bob", "carol"}
    assert not [action for action in host.log if isinstance(action, HaltUnit)]


# --- failures ---


def test_where_an_account_cannot_be_made_its_dependents_are_skipped_and_nobody_elses() -> None:
    report = run(failing(CreateAccount, "bob"), TWO)
    assert kinds(report, Status.FAILED, "bob") == ["create_account"]
    assert set(kinds(report, Status.SKIPPED, "bob")) == {"write_port", "run_unit"}
    assert kinds(report, Status.DONE, "bob") == []
    assert kinds(report, Status.SKIPPED, "alice") == []
    assert "run_unit" in kinds(report, Status.DONE, "alice")
    assert report.has_problems
    assert report.unmet == []


def test_what_was_skipped_says_what_failed_before() -> None:
    report = run(failing(CreateAccount, "bob"), TWO)
    skipped = next(outcome for outcome in report.outcomes if outcome.status is Status.SKIPPED)
    assert skipped.why == "bob failed before"


def test_where_a_port_cannot_be_written_that_service_is_not_started() -> None:
    def fails(action: Action) -> str | None:
        wrong = isinstance(action, WritePort) and (action.user, action.service) == ("bob", "t3")
        return "no space left on device" if wrong else None

    host = MemoryHost(bare().observed, fails)
    report = run(host, TWO)
    states = host.observed.units.states or {}
    assert "t3-serve@bob.service" not in states
    assert "playwright-mcp@bob.service" in states
    assert mapped(host) == mapped(host, DISPATCH) == {"alice"}
    assert report.has_problems


def test_a_group_that_cannot_be_joined_holds_up_nothing_else() -> None:
    host = MemoryHost(
        bare().account("bob", 1001).observed, lambda action: "x" if isinstance(action, AddToGroups) else None
    )
    report = run(host, roster(person("bob", "admin")))
    assert kinds(report, Status.FAILED, "bob") == ["add_to_groups"]
    assert kinds(report, Status.SKIPPED, "bob") == []
    assert mapped(host) == {"bob"}


def test_a_user_who_failed_keeps_the_map_lines_they_have() -> None:
    host = failing(WritePort, "bob")
    host.observed = (
        bare()
        .output(TTYD, "bob.old=bob\n")
        .output(DISPATCH, '{"bob.old": {"os_user": "bob", "port": 4000}}')
        .account("bob", 1001)
        .observed
    )
    run(host, TWO)
    assert "bob.old=bob\n" in (host.observed.outputs[TTYD] or "")
    assert json.loads(host.observed.outputs[DISPATCH] or "") == {
        "alice.x": {"os_user": "alice", "port": 3773},
        "bob.old": {"os_user": "bob", "port": 4000},
    }


def test_a_unit_that_does_not_start_is_tried_once_a_run_and_its_user_is_mapped() -> None:
    host = failing(RunUnit, "bob")
    report = run(host, TWO)
    tried = [action.unit for action in host.log if isinstance(action, RunUnit) and action.user == "bob"]
    assert len(tried) == len(set(tried)) == 3
    assert mapped(host) == {"alice", "bob"}
    assert report.has_problems
    assert report.unmet == []


def test_a_service_that_fails_after_its_start_is_unmet() -> None:
    """The start job of a service is done as soon as it is forked; the second look finds it failed."""

    class Crashing(MemoryHost):
        def observe(self, desired: Desired) -> Observed:
            seen = super().observe(desired)
            if "t3-serve@bob.service" not in (seen.units.states or {}):
                return seen
            return Machine(seen).unit("t3-serve@bob.service", FAILED).observed

    host = Crashing(bare().observed)
    report = run(host, TWO)
    assert [action.describe() for action in report.unmet] == ["t3-serve@bob.service: failed → running"]
    starts = [action for action in host.log if isinstance(action, RunUnit) and action.unit == "t3-serve@bob.service"]
    assert len(starts) == 1


def test_an_action_that_reports_success_without_effect_is_unmet() -> None:
    host = MemoryHost(bare().observed, ignores=lambda action: isinstance(action, AddToGroups))
    host.observed = bare().account("alice", 1000).observed
    report = run(host, roster(person("alice", "admin")))
    assert [action.kind for action in report.unmet] == ["add_to_groups"]
    assert report.count(Status.FAILED) == 0
    assert report.has_problems
    assert len([action for action in host.log if isinstance(action, AddToGroups)]) == 1


def test_where_the_marking_group_cannot_be_made_every_account_fails_by_itself() -> None:
    report = run(failing(CreateGroup), TWO)
    assert kinds(report, Status.FAILED) == ["create_group"]
    assert set(kinds(report, Status.FAILED, "alice")) == {"create_account"}
    assert set(kinds(report, Status.FAILED, "bob")) == {"create_account"}


def test_a_uid_that_was_taken_meanwhile_gives_way_to_the_next_in_the_same_run() -> None:
    class Racing(MemoryHost):
        """Somebody makes an account by hand between the first look and the first action."""

        def observe(self, desired: Desired) -> Observed:
            seen = super().observe(desired)
            if not self.log and "dave" not in seen.accounts:
                self.observed = Machine(seen).account("dave", 1000, managed=False).observed
            return seen

    host = Racing(bare().observed)
    report = run(host, roster(person("alice")))
    assert host.observed.accounts["alice"].uid == 1001
    assert not report.failed
    assert not report.has_problems
    assert mapped(host) == mapped(host, DISPATCH) == {"alice"}
    assert run(host, roster(person("alice"))).outcomes == []


def test_a_map_that_cannot_be_written_fails_for_nobody_and_is_a_problem() -> None:
    report = run(failing(WriteOutput), TWO)
    assert kinds(report, Status.FAILED) == ["write_output"] * 3
    assert report.has_problems
    assert kinds(report, Status.FAILED, "alice") == []


def test_a_proxy_whose_check_fails_keeps_nobody_from_anything_and_is_not_tried_again_in_the_run() -> None:
    site = Site(outputs=(*SITE.outputs, OutputKind.NGINX_MAP))
    before = bare().output(OutputKind.NGINX_MAP, "~^carol[.]x$ 3775; # carol\n").observed
    due = replace(before, proxies={OutputKind.NGINX_MAP: ProxyState(reload_due=True)})

    def fails(action: Action) -> str | None:
        about_it = isinstance(action, ReloadProxy | WriteOutput) and action.output is OutputKind.NGINX_MAP
        return "the check failed" if about_it else None

    host = MemoryHost(due, fails)
    report = run(host, TWO, site)
    # What is due already, taking carol out, and the map with alice and bob: each once.
    assert sorted(kinds(report, Status.FAILED)) == ["reload_proxy", "write_output", "write_output"]
    assert report.has_problems
    assert not report.unmet
    assert mapped(host) == mapped(host, DISPATCH) == {"alice", "bob"}
    mended = MemoryHost(host.observed)
    assert not run(mended, TWO, site).has_problems
    assert mapped(mended, OutputKind.NGINX_MAP) == {"alice", "bob"}
    assert run(mended, TWO, site).outcomes == []


# --- runs that are killed ---


def leftover() -> Machine:
    """Return a machine on which `useradd alice` was killed, and whose record of that is lost."""
    machine = bare().account("alice", 1000, managed=False)
    groups = {name: group for name, group in machine.observed.groups.items() if name != "alice"}
    return machine.having(groups=groups, homes={"alice": Home(HomeKind.MISSING)}, shadow={"root": OPEN})


@pytest.mark.parametrize("machine", [pytest.param(bare(), id="bare"), pytest.param(leftover(), id="leftover")])
def test_a_run_that_was_killed_after_any_action_is_finished_by_the_next(machine: Machine) -> None:
    whole = MemoryHost(machine.observed)
    run(whole, TWO)
    for actions in range(len(whole.log)):
        host = MemoryHost(machine.observed)
        assert not run_killed(host, TWO, actions)
        assert not run(host, TWO).has_problems, f"killed after {actions} actions"
        assert mapped(host) == {"alice", "bob"}
        assert host.observed.groups_of("alice") == whole.observed.groups_of("alice")
        assert run(host, TWO).outcomes == []


# --- a roster that is edited meanwhile ---


def test_a_roster_that_was_edited_during_the_run_is_applied_by_another_pass() -> None:
    told = Run(MemoryHost(bare().observed), [roster(person("alice")), TWO])
    report = told.go()
    assert set(told.host.observed.accounts) == {"root", "alice", "bob"}
    assert report.people == 2
    assert len(told.shown) == 2
    assert told.loaded == 2


def test_a_roster_that_never_rests_is_given_up_after_a_few_passes() -> None:
    people = [roster(*(person(f"p{n}") for n in range(count))) for count in range(1, 10)]
    told = Run(MemoryHost(bare().observed), people)
    told.go()
    assert told.loaded == MAX_PASSES


def test_a_roster_that_is_broken_meanwhile_stops_the_run_after_what_was_begun() -> None:
    host = MemoryHost(bare().observed)
    loads = iter([Inputs(TWO, SITE, "1")])

    def load() -> Inputs:
        try:
            return next(loads)
        except StopIteration:
            raise FileRefused("roster.yaml:1:1: broken") from None

    report = reconcile(
        Surroundings(load, lambda: "2", host, host, lambda _: None, lambda: False, lambda _: None, lambda _: None)
    )
    assert isinstance(report.stopped, FileRefused)
    assert set(host.observed.accounts) == {"root", "alice", "bob"}


def test_somebody_who_failed_and_was_taken_off_the_roster_meanwhile_is_no_problem_any_more() -> None:
    told = Run(failing(CreateAccount, "bob"), [TWO, roster(person("alice", "admin"))])
    assert not told.go().has_problems


# --- runs that cannot begin ---


def test_a_roster_that_is_refused_stops_the_run_before_anything_is_looked_at() -> None:
    class Blind(MemoryHost):
        def observe(self, desired: Desired) -> Observed:
            raise AssertionError(desired)

    def load() -> Inputs:
        raise FileRefused("roster.yaml:1:1: broken")

    host = Blind(bare().observed)
    with pytest.raises(FileRefused):
        reconcile(Surroundings(load, str, host, host, lambda _: None, lambda: False, lambda _: None, lambda _: None))


def test_a_host_that_cannot_be_read_stops_the_run_with_nothing_done() -> None:
    class Unreadable(MemoryHost):
        def observe(self, desired: Desired) -> Observed:
            del desired
            raise ScanFailed("/etc/passwd does not exist")

    host = Unreadable(bare().observed)
    with pytest.raises(ScanFailed):
        run(host, TWO)
    assert host.log == []


def test_a_second_look_that_fails_is_told_and_what_was_done_is_kept() -> None:
    class Breaking(MemoryHost):
        def observe(self, desired: Desired) -> Observed:
            if self.log:
                raise ScanFailed("/etc/passwd does not exist")
            return super().observe(desired)

    report = run(Breaking(bare().observed), TWO)
    assert isinstance(report.stopped, ScanFailed)
    assert report.count(Status.DONE) > 0


def test_nobody_on_the_roster_and_nobody_on_the_machine_is_nothing_to_do() -> None:
    host = MemoryHost(bare().having(outputs={}).observed)
    assert run(host, Roster({}), Site(outputs=())).outcomes == []


# --- homes ---

NOTES = HomeStep("notes", DirectoryStep("notes"), 30)
WITH_NOTES = replace(SITE, homes={"notes": SiteStep(NOTES)})
BOB = roster(person("bob"))


def takes(host: MemoryHost) -> list[str]:
    return [action.step.name for action in host.log if isinstance(action, TakeHomeStep)]


def test_a_step_in_a_home_is_taken_once_and_then_on_record() -> None:
    host = MemoryHost(bare().observed)
    assert not run(host, BOB, WITH_NOTES).has_problems
    assert takes(host) == ["notes"]
    assert run(host, BOB, WITH_NOTES).outcomes == []


def starts(host: MemoryHost, unit: str = "t3-serve@bob.service") -> int:
    return sum(isinstance(action, RunUnit) and action.unit == unit for action in host.log)


def lacking_notes() -> MemoryHost:
    """Return a machine on which bob's t3 starts only with a step taken in his home."""

    def fails(action: Action) -> str | None:
        lacks = isinstance(action, RunUnit) and action.service == "t3" and "notes" not in takes(host)
        return "no notes" if lacks else None

    host = MemoryHost(bare().observed, fails)
    return host


def test_a_service_that_lacked_something_in_the_home_is_started_again_once_it_is_there() -> None:
    host = lacking_notes()
    report = run(host, BOB, WITH_NOTES)
    assert starts(host) == 2
    assert report.failed == {}
    assert not report.has_problems
    assert (host.observed.units.states or {})["t3-serve@bob.service"].active == "active"


def test_a_service_is_not_started_again_where_no_step_was_taken() -> None:
    host = lacking_notes()
    report = run(host, BOB)
    assert starts(host) == 1
    assert [action.kind for action in report.failed.values()] == ["run_unit"]


def test_a_step_of_somebody_else_starts_nothing_again() -> None:
    host = failing(RunUnit, "bob")
    only_admins = replace(SITE, homes={"notes": SiteStep(NOTES, tiers=("admin",))})
    run(host, TWO, only_admins)
    assert takes(host) == ["notes"]
    assert starts(host) == 1


def test_a_step_that_is_due_again_at_once_is_no_problem_and_not_taken_twice() -> None:
    host = MemoryHost(bare().observed, ignores=lambda action: isinstance(action, TakeHomeStep))
    report = run(host, BOB, WITH_NOTES)
    assert [action.kind for action in report.plan.actions] == ["take_home_step"]
    assert report.unmet == []
    assert not report.has_problems
    assert takes(host) == ["notes"]


def test_a_home_that_changes_all_the_time_is_looked_at_once_a_run() -> None:
    class Restless(MemoryHost):
        """Its people change what was made for them as soon as it is there."""

        def observe(self, desired: Desired) -> Observed:
            seen = super().observe(desired)
            work = seen.home_work or HomeWork()
            path = f"/home/bob/notes-{len(self.log)}"
            return replace(seen, home_work=replace(work, changed={("bob", "notes"): path}))

    host = Restless(bare().observed)
    assert not run(host, BOB, WITH_NOTES).has_problems
    assert takes(host) == ["notes"]


def test_a_step_that_fails_is_a_problem_and_holds_up_nothing_else() -> None:
    host = failing(TakeHomeStep, "bob")
    report = run(host, BOB, WITH_NOTES)
    assert report.has_problems
    assert takes(host) == ["notes"]
    assert kinds(report, Status.FAILED, "bob") == ["take_home_step"]
    assert mapped(host) == {"bob"}
    assert starts(host) == 1


def test_where_the_account_fails_no_step_is_taken() -> None:
    host = failing(CreateAccount, "bob")
    assert run(host, BOB, WITH_NOTES).has_problems
    assert takes(host) == []


def test_old_units_make_way_for_the_service_in_the_same_run() -> None:
    old = "playwright-mcp.service"
    machine = bare().account("bob", 1000).env_file("playwright", "bob", "8931")
    host = MemoryHost(
        machine.having(
            listeners=(Listener(8931, 1000, "user@1000.service", 77, old),),
            home_work=HomeWork(legacy_units={("bob", "playwright"): (old,)}),
        ).observed
    )
    report = run(host, BOB)
    assert not report.has_problems
    assert [found.unit for found in host.observed.listeners if found.port == 8931] == ["playwright-mcp@bob.service"]
    assert run(host, BOB).outcomes == []


def test_where_old_units_stay_the_service_is_not_started() -> None:
    machine = (
        bare().account("bob", 1000).having(home_work=HomeWork(legacy_units={("bob", "playwright"): ("a.service",)}))
    )
    host = MemoryHost(machine.observed, lambda action: "no" if isinstance(action, RetireUnits) else None)
    report = run(host, BOB)
    assert kinds(report, Status.FAILED, "bob") == ["retire_units"]
    assert starts(host, "playwright-mcp@bob.service") == 0
    assert starts(host) == 1
