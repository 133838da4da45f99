"""What holds of every cut and every return, whatever somebody has and wherever a run is killed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from reconciler.core.actions import Action, LockAccount, OpenLogin, RunHook
from reconciler.core.observed import Login, Observed
from reconciler.core.outcome import Outcome, Status
from reconciler.core.outputs import parse
from reconciler.core.records import CutRecord, Records, Step, Tombstone
from reconciler.core.roster import Roster
from reconciler.core.site import Hook, Site
from reconciler.engine import Purpose, Report
from tests.unit.facts import CUT, NOW, SITE, Machine, bare
from tests.unit.memory_host import MemoryHost
from tests.unit.runs import command, run, run_killed
from tests.unit.scenarios import NAMES, PORTS, Settled, logins, presences, rosters, settled

many = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
HOOKED = Site(
    hooks={
        Step.REMOVE_FROM_T3_GROUP: Hook(("/bin/remove", "{user}", "{authentik_user}")),
        Step.REVOKE_CLUSTER_RBAC: Hook(("/bin/revoke", "{k8s_user}")),
    }
)
ALL = Purpose(allow_cuts=len(NAMES))


class Watching(MemoryHost):
    """A host that sees to it that a login which a run has closed stays closed until a run opens it."""

    def __init__(self, observed: Observed) -> None:
        """Watch `observed`."""
        super().__init__(observed)
        self.closed: set[str] = set()

    def apply(self, actions: Sequence[Action]) -> Iterator[Outcome]:
        """Carry out, and look after each."""
        for outcome in super().apply(actions):
            match outcome.action:
                case LockAccount() if outcome.status is Status.DONE:
                    self.closed.add(outcome.action.user)
                case OpenLogin():
                    self.closed.discard(outcome.action.user)
                case _:
                    pass
            for name in self.closed:
                assert (self.observed.shadow or {})[name] == CUT
            yield outcome


def check_converged(report: Report) -> None:
    assert report.stopped is None
    assert not report.failed
    assert report.unmet == []
    assert report.plan.actions == ()


def check_closed(seen: Observed, names: Collection[str]) -> None:
    """See that nothing of these people is open: by what is on the machine, not by what a plan says."""
    mapped = {route.user for kind, text in seen.outputs.items() for route in parse(kind, text)}
    assert not mapped & set(names)
    for name in names:
        assert (seen.shadow or {})[name] == CUT
        instances = {unit for service in SITE.services.values() for unit in service.instances(name)}
        assert not instances & (seen.units.states or {}).keys()
        assert not instances & seen.units.enabled
        left = seen.presence[name]
        assert not any([left.crontab, left.at_jobs, left.lingering, left.slice_active, left.processes])
        assert not [unit for unit in left.units if unit.active]


def check_nothing_is_lost(before: Observed, seen: Observed) -> None:
    """See that what a cut may never take is there: accounts, groups, homes, ports, ids."""
    assert seen.accounts == before.accounts
    assert seen.groups == before.groups
    assert seen.homes == before.homes
    assert seen.env_files == before.env_files
    assert (seen.subuids, seen.subgids) == (before.subuids, before.subgids)
    for name, had in before.presence.items():
        has = seen.presence[name]
        assert has.crontab or has.held_crontab or not had.crontab
        jobs = {*has.at_jobs, *has.held_at_jobs, *has.late_at_jobs}
        assert jobs == {*had.at_jobs, *had.held_at_jobs, *had.late_at_jobs}
        assert {unit.name: unit.enabled for unit in has.units if not unit.transient} == {
            unit.name: unit.enabled for unit in had.units if not unit.transient
        }


def returned(seen: Observed, names: Collection[str]) -> Observed:
    """Return a look without what does not come back: sessions, processes, transient units, jobs that came due."""
    presence = {}
    for name, had in seen.presence.items():
        fixed = tuple(unit for unit in had.units if not unit.transient)
        gone = replace(had, processes=(), slice_active=had.lingering, units=fixed, late_at_jobs=())
        presence[name] = gone if name in names else had
    order = sorted(seen.listeners, key=lambda found: (found.port, found.unit or ""))
    units = replace(seen.units, states=dict(sorted((seen.units.states or {}).items())))
    return replace(seen, presence=presence, listeners=tuple(order), units=units)


def of_others(seen: Observed, names: Collection[str]) -> Observed:
    """Return a look without these people: their logins, what they run, their lines and records."""
    records = seen.records or Records()
    outputs = {
        kind: ",".join(
            sorted(f"{route.user} {route.identity}" for route in parse(kind, text) if route.user not in names)
        )
        for kind, text in seen.outputs.items()
    }

    def others(unit: str | None) -> bool:
        return not any(f"@{name}." in (unit or "") for name in names)

    states = {unit: state for unit, state in (seen.units.states or {}).items() if others(unit)}
    enabled = frozenset(unit for unit in seen.units.enabled if others(unit))
    return replace(
        seen,
        shadow={name: login for name, login in (seen.shadow or {}).items() if name not in names},
        presence={name: one for name, one in seen.presence.items() if name not in names},
        outputs=outputs,
        units=replace(seen.units, states=states, enabled=enabled),
        listeners=tuple(found for found in seen.listeners if others(found.unit)),
        records=replace(records, cuts={name: one for name, one in records.cuts.items() if name not in names}),
    )


@st.composite
def leavings(draw: st.DrawFn) -> tuple[Settled, list[str]]:
    """Draw a settled machine, and some who leave it."""
    found = draw(settled())
    return found, sorted(draw(st.sets(st.sampled_from(found.cuttable), min_size=1)))


Leaving = tuple[Settled, list[str]]


@many
@given(leavings())
def test_a_cut_converges_in_one_run_closes_everything_and_takes_nothing_for_good(leaving: Leaving) -> None:
    before, names = leaving
    host = Watching(before.machine.observed)
    report = run(host, before.without(names), allow_cuts=len(NAMES))
    check_converged(report)
    check_closed(host.observed, names)
    check_nothing_is_lost(before.machine.observed, host.observed)
    seen = host.observed
    again = run(host, before.without(names))  # guards do not count who is cut off already
    assert again.outcomes == []
    assert not again.plan.held
    assert host.observed == seen
    assert again.plan.findings == report.plan.findings


@many
@given(leavings())
def test_a_cut_and_a_return_give_everything_back(leaving: Leaving) -> None:
    before, names = leaving
    host = Watching(before.machine.observed)
    run(host, before.without(names), allow_cuts=len(NAMES))
    report = run(host, before.roster)
    check_converged(report)
    assert returned(host.observed, names) == returned(before.machine.observed, names)
    assert host.observed.records == before.machine.observed.records
    assert run(host, before.roster).outcomes == []


@many
@given(leavings())
def test_a_cut_by_command_and_its_end_give_everything_back_and_concern_nobody_else(leaving: Leaving) -> None:
    before, names = leaving
    name, others = names[0], of_others(before.machine.observed, names[:1])
    host = Watching(before.machine.observed)
    check_converged(command(host, before.roster, Purpose(cut=name)))
    check_closed(host.observed, [name])
    assert of_others(host.observed, [name]) == others
    assert run(host, before.roster).outcomes == []
    check_converged(command(host, before.roster, Purpose(uncut=name)))
    assert of_others(host.observed, [name]) == others
    assert returned(host.observed, [name]) == returned(before.machine.observed, [name])
    assert host.observed.records == before.machine.observed.records


@many
@given(leavings(), st.integers(0, 30))
def test_a_cut_that_was_killed_anywhere_is_finished_by_the_next_run(leaving: Leaving, actions: int) -> None:
    before, names = leaving
    left = before.without(names)
    whole, host = MemoryHost(before.machine.observed), Watching(before.machine.observed)
    run(whole, left, HOOKED, len(NAMES))
    ended = run_killed(host, left, actions, HOOKED, ALL)
    event(f"killed: {not ended}")
    event(f"locked before: {bool(host.closed)}")
    check_converged(run(host, left, HOOKED, len(NAMES)))
    check_closed(host.observed, names)
    assert host.observed == whole.observed
    taken = [(action.user, action.step) for action in host.log if isinstance(action, RunHook)]
    assert sorted(taken) == [(name, step) for name in names for step in sorted(Step)]


@many
@given(leavings(), st.integers(0, 30), st.integers(0, 30))
def test_a_return_that_was_killed_anywhere_is_finished_by_the_next_run(
    leaving: Leaving, cut_after: int, back_after: int
) -> None:
    before, names = leaving
    host = Watching(before.machine.observed)
    event(f"cut killed: {not run_killed(host, before.without(names), cut_after, purpose=ALL)}")
    event(f"return killed: {not run_killed(host, before.roster, back_after)}")
    check_converged(run(host, before.roster))
    assert (host.observed.records or Records()).cuts == {}
    assert returned(host.observed, NAMES) == returned(before.machine.observed, NAMES)


@many
@given(leavings(), st.integers(0, 30))
def test_a_return_that_turns_into_a_cut_again_keeps_what_was_first_on_record(leaving: Leaving, actions: int) -> None:
    before, names = leaving
    host = Watching(before.machine.observed)
    run(host, before.without(names), allow_cuts=len(NAMES))
    records = host.observed.records
    run_killed(host, before.roster, actions)
    left = host.observed.records
    run(host, before.without(names), allow_cuts=len(NAMES))
    check_closed(host.observed, names)
    assert records is not None
    assert left is not None
    kept = host.observed.records
    assert kept is not None
    for name, record in kept.cuts.items():
        first = records.cuts[name]
        if name in left.cuts:
            assert record == first
        elif record.running == first.running:
            # Their return had come to its end, and was on record no more: this is a new cut of somebody as they were.
            assert replace(record, since=first.since) == first
    check_converged(run(host, before.roster))
    assert returned(host.observed, names) == returned(before.machine.observed, names)


@st.composite
def opened(draw: st.DrawFn) -> tuple[Settled, list[str], dict[str, tuple[Login, dict[str, object]]]]:
    """Draw people who leave, and what of each somebody opens by hand afterwards."""
    found, names = draw(leavings())
    return found, names, {name: (draw(logins), draw(presences(found.machine, name))) for name in names}


@many
@given(opened())
def test_what_is_opened_by_hand_is_closed_by_the_next_run_and_the_record_stays(
    case: tuple[Settled, list[str], dict[str, tuple[Login, dict[str, object]]]],
) -> None:
    before, names, changes = case
    host = MemoryHost(before.machine.observed)
    run(host, before.without(names), allow_cuts=len(NAMES))
    records = host.observed.records
    machine = Machine(host.observed)
    for name, (login, facts) in changes.items():
        machine = machine.login(name, login).present(name, **facts)
    host.observed = machine.observed
    report = run(host, before.without(names))
    check_converged(report)
    assert not report.plan.held
    check_closed(host.observed, names)
    assert host.observed.records == records


@many
@given(leavings())
def test_people_who_are_held_lose_nothing_at_all(leaving: Leaving) -> None:
    before, names = leaving
    host = MemoryHost(before.machine.observed)
    report = run(host, before.without(names), HOOKED, allow_cuts=0)
    assert report.plan.held == tuple(names)
    assert report.outcomes == []
    assert host.observed == before.machine.observed


# --- what was somebody's is nobody else's ---


@st.composite
def graveyards(draw: st.DrawFn) -> tuple[Machine, Roster]:
    """Draw a machine on which people are deleted, cut off without an account, or let go, and a roster."""
    machine = bare()
    ids = st.integers(1000, 1006)
    for name in draw(st.sets(st.sampled_from([*NAMES, "old"]))):
        ports = {service: draw(st.sampled_from(ports)) for service, ports in PORTS.items() if draw(st.booleans())}
        machine = machine.buried(name, draw(ids), gid=draw(ids), ports=ports)
    for name in draw(st.sets(st.sampled_from([*NAMES, "lost"]))):
        machine = machine.on_record(cuts={name: CutRecord(draw(ids), draw(ids), NOW)})
    records = machine.observed.records or Records()
    retired = frozenset(draw(st.sets(ids, max_size=2)))
    return machine.having(records=replace(records, retired=retired)), draw(rosters())


@many
@given(graveyards())
def test_nobody_gets_the_name_the_ids_or_the_ports_of_somebody_who_is_gone(case: tuple[Machine, Roster]) -> None:
    machine, people = case
    records = machine.observed.records or Records()
    host = MemoryHost(machine.observed)
    run(host, people)
    gone = records.tombstones.keys() | records.cuts.keys()
    made = {name: account for name, account in host.observed.accounts.items() if name != "root"}
    assert made.keys() == people.users.keys() - gone
    taken = {one for account in made.values() for one in (account.uid, account.gid)}
    held: list[CutRecord | Tombstone] = [*records.cuts.values(), *records.tombstones.values()]
    assert not taken & ({one.uid for one in held} | {one.gid for one in held} | records.retired)
    ports = {file.value for file in (host.observed.env_files or {}).values()}
    assert not ports & {str(port) for stone in records.tombstones.values() for port in stone.ports.values()}
    mapped = {route.user for kind, text in host.observed.outputs.items() for route in parse(kind, text)}
    assert mapped <= made.keys()
    assert (host.observed.records or Records()).tombstones == records.tombstones
    assert (host.observed.records or Records()).cuts == records.cuts
