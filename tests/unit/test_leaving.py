"""Runs on the host in memory over somebody who leaves and comes back: failures, hooks, and being killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from reconciler.core.actions import (
    Action,
    EndProcesses,
    HoldJobs,
    LockAccount,
    OpenLogin,
    RecordCut,
    RunHook,
    RunUnit,
    SetLinger,
)
from reconciler.core.observed import Login, Observed, Presence
from reconciler.core.outcome import Outcome, Status
from reconciler.core.outputs import parse
from reconciler.core.records import CutRecord, Records, Step
from reconciler.core.site import Hook, OutputKind, Site
from reconciler.engine import MAX_PASSES, Purpose, Report
from tests.unit.facts import CUT, SITE, Machine, at_job, bare, identity, person, process, roster, service
from tests.unit.memory_host import MemoryHost
from tests.unit.runs import command, kinds, run, run_killed

TTYD = OutputKind.TTYD_USER_MAP
TWO = roster(person("alice", "admin"), person("bob"))
ONE = roster(person("alice", "admin"))
BOTH_HOOKS = Site(hooks={step: Hook((f"/bin/{step}", "{k8s_user}")) for step in Step})
RBAC = Step.REVOKE_CLUSTER_RBAC


def settled() -> Observed:
    """Return a machine that agrees with the roster of two, where bob has everything that can be taken from him."""
    machine = bare().account("alice", 1000).account("bob", 1001).login("bob", Login(locked=False, expiry=30000))
    host = MemoryHost(machine.observed)
    run(host, TWO)
    return (
        Machine(host.observed)
        .present(
            "bob",
            crontab=True,
            at_jobs=(at_job(5),),
            lingering=True,
            slice_active=True,
            units=(service("backup.service"), service("run-u1.service", transient=True)),
            processes=(process(4242, 1001),),
        )
        .observed
    )


def failing(kind: type[Action]) -> MemoryHost:
    """Return the settled machine, on which bob's actions of a kind fail."""

    def fails(action: Action) -> str | None:
        return "as the test wants it" if isinstance(action, kind) and action.user == "bob" else None

    return MemoryHost(settled(), fails)


def mapped(host: MemoryHost) -> set[str]:
    return {route.user for route in parse(TTYD, host.observed.outputs[TTYD])}


def record(host: MemoryHost) -> CutRecord | None:
    return (host.observed.records or Records()).cuts.get("bob")


def bobs(host: MemoryHost) -> list[str]:
    return [action.kind for action in host.log if action.user == "bob"]


def cut(host: MemoryHost, site: Site = SITE) -> Report:
    return run(host, ONE, site)


def test_a_cut_is_done_in_one_run_and_a_second_does_nothing() -> None:
    host = MemoryHost(settled())
    report = cut(host)
    assert not report.has_problems
    assert report.plan.actions == ()
    assert host.observed.presence["bob"] == Presence(
        held_crontab=True, held_at_jobs=(at_job(5),), units=(service("backup.service", active=False),)
    )
    assert (host.observed.shadow or {})["bob"] == CUT
    assert cut(host).outcomes == []


def test_what_somebody_was_called_is_forgotten_only_when_their_record_has_it() -> None:
    host = MemoryHost(settled())
    for actions in range(20):
        run_killed(host, ONE, actions)
        records = host.observed.records or Records()
        known = records.identities.get("bob") or (records.cuts["bob"].identity if "bob" in records.cuts else None)
        assert known == identity("bob")
    cut(host)
    assert (host.observed.records or Records()).identities.keys() == {"alice"}


# --- failures ---


def test_where_the_record_cannot_be_written_nothing_is_taken_from_them() -> None:
    host = failing(RecordCut)
    before = host.observed
    report = cut(host)
    assert kinds(report, Status.FAILED, "bob") == ["record_cut"]
    assert kinds(report, Status.DONE, "bob") == []
    assert set(kinds(report, Status.SKIPPED, "bob")) == {
        *("hold_jobs", "lock_account", "halt_unit", "set_linger", "end_processes"),
    }
    assert mapped(host) == {"alice", "bob"}
    assert host.observed.presence == before.presence
    assert host.observed.shadow == before.shadow
    assert report.has_problems


@pytest.mark.parametrize("kind", [HoldJobs, LockAccount])
def test_where_one_part_fails_the_others_are_done_all_the_same(kind: type[Action]) -> None:
    host = failing(kind)
    report = cut(host)
    assert len(kinds(report, Status.FAILED, "bob")) == 1
    assert kinds(report, Status.SKIPPED, "bob") == []
    assert mapped(host) == {"alice"}
    left = host.observed.presence["bob"]
    assert not left.lingering
    assert left.processes == ()
    assert report.has_problems
    host.fails = lambda _action: None
    assert not cut(host).has_problems
    assert host.observed.presence["bob"].held_crontab
    assert (host.observed.shadow or {})["bob"] == CUT


def test_where_the_login_cannot_be_opened_the_record_stays_and_the_next_run_tries_again() -> None:
    host = failing(OpenLogin)
    cut(host)
    report = run(host, TWO)
    assert kinds(report, Status.FAILED, "bob") == ["open_login"]
    assert record(host) is not None
    # atd would destroy a job that comes due while the account is still expired.
    assert kinds(report, Status.SKIPPED, "bob") == ["resume_jobs"]
    assert host.observed.presence["bob"].held_crontab
    host.fails = lambda _action: None
    assert not run(host, TWO).has_problems
    assert (host.observed.shadow or {})["bob"] == Login(locked=False, expiry=30000)
    assert record(host) is None


def test_a_crontab_that_somebody_made_meanwhile_is_not_overwritten_by_the_held_one() -> None:
    host = MemoryHost(settled())
    cut(host)
    host.observed = Machine(host.observed).present("bob", crontab=True).observed
    assert not run(host, TWO).has_problems
    assert host.observed.presence["bob"].crontab
    assert record(host) is None
    assert not host.observed.presence["bob"].held_crontab  # set aside: a later return would take it for its own


def test_a_unit_that_does_not_start_again_is_told_and_the_rest_is_given_back() -> None:
    host = failing(RunUnit)
    cut(host)
    report = run(host, TWO)
    assert "run_unit" in kinds(report, Status.FAILED, "bob")
    assert (host.observed.shadow or {})["bob"] == Login(locked=False, expiry=30000)
    assert host.observed.presence["bob"].lingering


def test_a_unit_that_has_ended_by_itself_after_it_was_started_again_is_given_back() -> None:
    host = MemoryHost(settled(), ignores=lambda action: isinstance(action, RunUnit) and action.unit == "backup.service")
    cut(host)
    for _ in range(2):
        run(host, TWO)
    assert bobs(host).count("forget_cut") == 1
    assert record(host) is None


# --- somebody who works against it ---


class Resisting(MemoryHost):
    """A host where bob's processes open again what is closed, as long as they run."""

    def apply(self, actions: Sequence[Action]) -> Iterator[Outcome]:
        """Carry out, and let bob do what he can."""
        for outcome in super().apply(actions):
            if isinstance(outcome.action, HoldJobs | SetLinger) and self.observed.presence["bob"].processes:
                machine = Machine(self.observed).present("bob", crontab=True, at_jobs=(at_job(9),), lingering=True)
                self.observed = machine.observed
            yield outcome


def test_what_somebody_opens_again_before_they_are_ended_is_closed_in_the_same_run() -> None:
    host = Resisting(settled())
    report = cut(host)
    assert not report.has_problems
    assert report.unmet == []
    left = host.observed.presence["bob"]
    assert not any([left.crontab, left.at_jobs, left.lingering, left.processes])
    assert bobs(host).count("hold_jobs") == bobs(host).count("set_linger") == 2


def test_who_cannot_be_ended_is_not_fought_for_ever_and_told() -> None:
    host = Resisting(settled(), lambda action: "7 processes are stuck" if isinstance(action, EndProcesses) else None)
    report = cut(host)
    assert report.has_problems
    assert bobs(host).count("hold_jobs") == MAX_PASSES
    assert "hold_jobs" in {action.kind for action in report.unmet}


# --- hooks ---


def test_each_hook_is_run_once_and_its_step_is_recorded() -> None:
    host = MemoryHost(settled())
    assert not cut(host, BOTH_HOOKS).has_problems
    run(host, ONE, BOTH_HOOKS)
    assert [action.command for action in host.log if isinstance(action, RunHook)] == [
        ("/bin/remove_from_t3_group", "bob"),
        ("/bin/revoke_cluster_rbac", "bob"),
    ]
    found = record(host)
    assert found is not None
    assert found.done == tuple(sorted(Step))


def test_a_hook_that_fails_is_a_problem_and_is_run_again_by_the_next_run() -> None:
    host = failing(RunHook)
    report = cut(host, BOTH_HOOKS)
    assert kinds(report, Status.FAILED, "bob") == ["run_hook", "run_hook"]
    found = record(host)
    assert found is not None
    assert found.done == ()
    assert (host.observed.shadow or {})["bob"] == CUT
    host.fails = lambda _action: None
    assert kinds(cut(host, BOTH_HOOKS), Status.DONE, "bob") == ["run_hook", "run_hook"]


def test_a_step_that_was_taken_before_is_taken_again_after_the_next_cut() -> None:
    host = MemoryHost(settled())
    for people in (ONE, TWO, ONE):
        assert not run(host, people, BOTH_HOOKS).has_problems
    assert bobs(host).count("run_hook") == 4


def test_a_hook_for_somebody_deleted_is_run_once() -> None:
    host = MemoryHost(bare().person("alice", 1000, 3773, 8931).buried("bob", 1001).observed)
    for _ in range(2):
        assert not run(host, roster(person("alice")), BOTH_HOOKS).has_problems
    assert bobs(host) == ["run_hook", "run_hook"]


# --- by command ---


def test_a_cut_by_command_changes_nothing_else_even_where_a_roster_would() -> None:
    host = MemoryHost(settled())
    report = command(host, TWO, Purpose(cut="bob"))
    assert report.people is None
    assert not report.has_problems
    assert {action.user for action in host.log} == {"bob", None}
    assert mapped(host) == {"alice"}
    assert (host.observed.records or Records()).identities.keys() == {"alice", "bob"}
    found = record(host)
    assert found is not None
    assert found.by_command
    assert found.identity == identity("bob")


def test_the_end_of_a_cut_by_command_gives_back_what_they_had_and_nobody_else_anything() -> None:
    host = MemoryHost(settled())
    command(host, TWO, Purpose(cut="bob"))
    host.log.clear()
    report = command(host, roster(person("alice"), person("bob"), person("new")), Purpose(uncut="bob"))
    assert report.people is None
    assert not report.has_problems
    assert record(host) is None
    assert {action.user for action in host.log} == {"bob", None}
    assert (host.observed.shadow or {})["bob"] == Login(locked=False, expiry=30000)


def test_the_last_administrator_is_held_and_nothing_is_done() -> None:
    host = MemoryHost(settled())
    before = host.observed
    report = command(host, TWO, Purpose(cut="alice"))
    assert report.plan.held == ("alice",)
    assert report.outcomes == []
    assert host.observed == before


def test_the_site_cannot_forbid_a_command_to_cut_one_person() -> None:
    host = MemoryHost(settled())
    site = Site(guards=replace(Site().guards, max_cuts=0, max_cut_percent=0))
    assert command(host, TWO, Purpose(cut="bob"), site).plan.held == ()
    assert record(host) is not None


def test_the_end_of_a_cut_is_not_held_for_a_roster_with_nobody_on_it() -> None:
    host = MemoryHost(settled())
    command(host, TWO, Purpose(cut="bob"))
    assert command(host, roster(), Purpose(uncut="bob")).plan.held == ()


# --- killed anywhere ---


def test_a_cut_that_was_killed_after_any_action_is_finished_by_the_next_run() -> None:
    whole = MemoryHost(settled())
    cut(whole, BOTH_HOOKS)
    for actions in range(len(whole.log)):
        host = MemoryHost(settled())
        assert not run_killed(host, ONE, actions, BOTH_HOOKS)
        assert not cut(host, BOTH_HOOKS).has_problems, f"killed after {actions} actions"
        assert host.observed == whole.observed


def test_a_return_that_was_killed_after_any_action_is_finished_by_the_next_run() -> None:
    away = MemoryHost(settled())
    cut(away)
    whole = MemoryHost(away.observed)
    run(whole, TWO)
    for actions in range(len(whole.log)):
        host = MemoryHost(away.observed)
        assert not run_killed(host, TWO, actions)
        assert not run(host, TWO).has_problems, f"killed after {actions} actions"
        assert host.observed == whole.observed
