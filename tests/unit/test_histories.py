"""Random histories: the roster is edited, runs are killed, things broken by hand, people cut off and let in again.

Whatever has happened, a run without a fault sets it right, and what must never be so is not so after any run: two
people with one port or uid, something taken from a person of the roster, a way in for somebody cut off, a change of an
account that is not managed. All of it is seen on the machine, not in a plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from reconciler.core.actions import Action
from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import Home, HomeKind, Login, Observed, Presence
from reconciler.core.records import Records
from reconciler.core.roster import Roster, User
from reconciler.core.site import OutputKind
from reconciler.engine import EVERYBODY, Purpose, Report
from tests.proof.evidence import note, scaled
from tests.unit.facts import CUT, FAILED, SITE, Machine, bare, person, process, roster
from tests.unit.runs import command, run, run_killed
from tests.unit.scenarios import NAMES, PORTS, TIER_GROUPS, presences
from tests.unit.test_leaving_properties import ALL, HOOKED, Watching, check_closed
from tests.unit.test_properties import is_admin, is_running, lines, mapped, port_values

STRANGER, UNMANAGED = "mallory", "dave"
DAY = 86400
FAILING = [
    "create_account", "write_port", "run_unit", "halt_unit", "lock_account", "open_login", "write_output",
    "add_to_groups", "end_processes", "hold_jobs",
]  # fmt: skip
people = st.sampled_from(NAMES)
services = st.sampled_from(sorted(SITE.services))
instances = st.sampled_from([(service.name, number) for service in SITE.services.values()
                             for number in range(len(service.units))])  # fmt: skip
logins = st.builds(Login, st.booleans(), expiry=st.sampled_from([None, 0, 20000, 30000]))
allowances = st.sampled_from([None, None, len(NAMES)])


def at_first() -> Machine:
    """Return a machine with two accounts that are not managed: one may get into the roster, one never does."""
    machine = bare().account(UNMANAGED, 1003, "video", managed=False).account(STRANGER, 1500, "docker", managed=False)
    machine = machine.login(STRANGER, Login(locked=False)).env_file("t3", STRANGER, "3774")
    return machine.present(STRANGER, crontab=True, lingering=True, processes=(process(99, 1500),))


def cut_records(seen: Observed) -> set[str]:
    return set((seen.records or Records()).cuts)


def managed(seen: Observed) -> set[str]:
    group = seen.groups.get(MANAGED_GROUP)
    return set(group.members if group else ()) & seen.accounts.keys()


def belongings(seen: Observed, name: str) -> dict[str, Any]:
    """Return all that the machine says of one account."""
    return {
        "account": seen.accounts[name],
        "groups": seen.groups_of(name),
        "login": (seen.shadow or {}).get(name),
        "home": seen.homes.get(name),
        "ports": {holder: value for holder, value in port_values(seen).items() if holder[1] == name},
        "presence": seen.presence.get(name, Presence()),
        "ids": [span for span in (*(seen.subuids or ()), *(seen.subgids or ())) if span.owner == name],
        "units": {unit: state for unit, state in (seen.units.states or {}).items() if f"@{name}." in unit},
        "record": (seen.records or Records()).cuts.get(name),
    }


class History(RuleBasedStateMachine):
    """One history. `commanded` are those cut off by command, `original` how the login was before the cut on record."""

    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        """Begin with a machine that rosterd has not seen."""
        super().__init__()
        self.host = Watching(at_first().observed)
        self.users: dict[str, User] = {}
        self.commanded: set[str] = set()
        self.original: dict[str, Login | None] = {}
        self.ports_by_hand: set[tuple[str, str]] = set()
        self.seen["histories"] += 1

    @initialize(names=st.sets(people, min_size=2), admin=people)
    def begin(self, names: set[str], admin: str) -> None:
        """Begin with some people who are at work."""
        for name in names:
            self.users[name] = person(name, "admin" if name == admin else "power-user")
        self.reconcile(None)

    def teardown(self) -> None:
        """End with a run: whatever has happened, it sets it right."""
        self.reconcile(len(NAMES))

    @property
    def roster(self) -> Roster:
        """The roster as it is now."""
        return roster(*self.users.values())

    @property
    def machine(self) -> Machine:
        """The machine as it is now, to be changed by hand."""
        return Machine(self.host.observed)

    def by_hand(self, machine: Machine) -> None:
        """Put a machine in place that somebody has changed."""
        self.seen["broken_by_hand"] += 1
        self.host.observed = machine.observed

    # --- edits of the roster ---

    @rule(
        name=people,
        tier=st.sampled_from(sorted(TIER_GROUPS)),
        parked=st.booleans(),
        adopt=st.booleans(),
        switches=st.dictionaries(services, st.booleans()),
    )
    def edit(self, name: str, tier: str, *, parked: bool, adopt: bool, switches: dict[str, bool]) -> None:
        """Put somebody on the roster, or change their entry; who is renamed may have another's identity by now."""
        self.seen["edits"] += 1
        entry = person(name, tier, parked=parked, adopt=adopt, services=switches)
        taken = {user.authentik_user for user in self.users.values() if user.name != name}
        identity = self.users[name].authentik_user if name in self.users else entry.authentik_user
        if identity in taken:
            identity = next(f"{name}.{letter}" for letter in "xyz" if f"{name}.{letter}" not in taken)
        self.users[name] = replace(entry, authentik_user=identity)

    @rule(name=people)
    def leave(self, name: str) -> None:
        """Take somebody off the roster."""
        self.seen["edits"] += 1
        self.users.pop(name, None)

    @rule(name=people, new=people)
    def rename(self, name: str, new: str) -> None:
        """Give an entry, with its identity, another name: to rosterd that is another person."""
        if name in self.users and new not in self.users:
            self.seen["edits"] += 1
            self.users[new] = replace(self.users.pop(name), name=new)

    # --- runs ---

    @rule(allow_cuts=allowances)
    def reconcile(self, allow_cuts: int | None) -> None:
        """Make a run, see what is so after it, and that another one has nothing to do."""
        self.seen["runs"] += 1
        before = self.remember()
        report = run(self.host, self.roster, HOOKED, allow_cuts)
        assert report.stopped is None
        assert not report.failed
        assert report.unmet == []
        self.check_always(before)
        self.check_everybody(before, report, allow_cuts)
        after = self.host.observed
        again = run(self.host, self.roster, HOOKED, allow_cuts)
        assert again.outcomes == []
        assert self.host.observed == after

    @rule(actions=st.integers(0, 8), allow_cuts=st.booleans())
    def be_killed(self, actions: int, *, allow_cuts: bool) -> None:
        """Make a run that is killed after so many actions."""
        before = self.remember()
        ended = run_killed(self.host, self.roster, actions, HOOKED, ALL if allow_cuts else EVERYBODY)
        self.seen["killed"] += not ended
        self.check_always(before)

    @rule(kinds=st.sets(st.sampled_from(FAILING)))
    def fail(self, kinds: set[str]) -> None:
        """Make a run in which some kinds of actions fail."""
        self.seen["failing"] += 1
        before = self.remember()
        refuse: Callable[[Action], str | None] = lambda action: "no" if action.kind in kinds else None  # noqa: E731 (one field takes it)
        self.host.fails = refuse
        run(self.host, self.roster, HOOKED, len(NAMES))
        self.host.fails = lambda _: None
        self.check_always(before)

    @rule(name=people, actions=st.one_of(st.none(), st.integers(0, 8)))
    def cut(self, name: str, actions: int | None) -> None:
        """Cut somebody off by command; the command may be killed."""
        seen = self.host.observed
        if name not in managed(seen) or is_admin(seen, name):
            return
        self.seen["cuts"] += 1
        before = self.remember()
        self.by_command(Purpose(cut=name), actions)
        record = (self.host.observed.records or Records()).cuts.get(name)
        if actions is None or (record and record.by_command):
            self.commanded.add(name)
        self.check_always(before)
        if actions is None:
            self.check_closed({name})
            self.check_others(before, name)

    @precondition(lambda self: bool(self.can_return))
    @rule(data=st.data(), actions=st.one_of(st.none(), st.integers(0, 6)))
    def uncut(self, data: st.DataObject, actions: int | None) -> None:
        """Let somebody in again by command."""
        name = data.draw(st.sampled_from(self.can_return))
        self.seen["returns"] += 1
        before = self.remember()
        self.by_command(Purpose(uncut=name), actions)
        record = (self.host.observed.records or Records()).cuts.get(name)
        if record is None or not record.by_command:
            self.commanded.discard(name)
        assert actions is not None or record is None
        self.check_always(before)
        if actions is None:
            self.check_others(before, name)

    @property
    def can_return(self) -> list[str]:
        """Those on the roster who are cut off by command."""
        return sorted(self.commanded & self.users.keys() & self.host.observed.accounts.keys())

    def by_command(self, purpose: Purpose, actions: int | None) -> None:
        """Carry a command out, or be killed in it."""
        if actions is None:
            report = command(self.host, self.roster, purpose, HOOKED)
            assert report.stopped is None
            assert not report.failed
        else:
            who = Roster({}) if purpose.cut else self.roster
            self.seen["killed"] += not run_killed(self.host, who, actions, HOOKED, purpose)

    # --- by hand ---

    @rule(name=people, part=st.sampled_from(["group", "shadow", "home", "subids"]))
    def lose_part(self, name: str, part: str) -> None:
        """Delete a part of the account of somebody who is on the roster."""
        seen = self.host.observed
        if name not in managed(seen) or name not in self.users or name in cut_records(seen):
            return
        changes: dict[str, dict[str, object]] = {
            "group": {"groups": {other: group for other, group in seen.groups.items() if other != name}},
            "shadow": {"shadow": {other: login for other, login in (seen.shadow or {}).items() if other != name}},
            "home": {"homes": {**seen.homes, name: Home(HomeKind.MISSING)}},
            "subids": {"subuids": tuple(span for span in seen.subuids or () if span.owner != name)},
        }
        # What runs under an id that is nobody's any more is nobody's.
        found = seen.presence.get(name, Presence())
        own = tuple(one for one in found.processes if one.uid == seen.accounts[name].uid)
        machine = self.machine.present(name, processes=own) if part == "subids" else self.machine
        self.by_hand(machine.having(**changes[part]))
        # A run sets that right, and then they are as any other.
        self.reconcile(len(NAMES))

    @rule(name=people, service=services, value=st.sampled_from([None, "", "no port", "3774", "3775", "8931"]))
    def edit_env_file(self, name: str, service: str, value: str | None) -> None:
        """Edit or empty an env file."""
        self.ports_by_hand.add((service, name))
        self.by_hand(self.machine.env_file(service, name, value))

    @rule(service=services, offset=st.integers(0, 4))
    def take_port(self, service: str, offset: int) -> None:
        """Let a stranger listen on a port, where nobody does."""
        port = PORTS[service][offset]
        if all(found.port != port for found in self.host.observed.listeners):
            self.by_hand(self.machine.listener(port, 1500, "stranger.service", 4242))

    @rule()
    def free_ports(self) -> None:
        """Let the strangers go."""
        kept = tuple(found for found in self.host.observed.listeners if found.unit != "stranger.service")
        self.by_hand(self.machine.having(listeners=kept))

    @rule(name=people, instance=instances, what=st.sampled_from(["stop", "disable", "mask", "unmask", "fail"]))
    def break_unit(self, name: str, instance: tuple[str, int], what: str) -> None:
        """Stop, disable, mask or fail a unit of somebody's."""
        seen, unit = self.host.observed, SITE.services[instance[0]].instances(name)[instance[1]]
        units, states = seen.units, dict(seen.units.states or {})
        if name not in seen.accounts:
            return
        match what:
            case "stop" | "fail" if unit in states:
                states.pop(unit)
                states |= {unit: FAILED} if what == "fail" else {}
                listeners = tuple(found for found in seen.listeners if found.unit != unit)
                seen = replace(seen, units=replace(units, states=states), listeners=listeners)
            case "disable":
                seen = replace(seen, units=replace(units, enabled=units.enabled - {unit}))
            case "mask" if unit not in states:
                # systemd lets nobody mask what is enabled by a link of the same name.
                seen = replace(seen, units=replace(units, masked=units.masked | {unit}, enabled=units.enabled - {unit}))
            case "unmask":
                seen = replace(seen, units=replace(units, masked=units.masked - {unit}))
            case _:
                return
        self.by_hand(Machine(seen))

    @rule(name=people, login=logins)
    def change_login(self, name: str, login: Login) -> None:
        """Unlock, lock or extend a login; also of somebody who is cut off."""
        if name in self.host.observed.accounts:
            self.host.closed.discard(name)
            self.by_hand(self.machine.login(name, login))

    @rule(name=people, data=st.data())
    def work(self, name: str, data: st.DataObject) -> None:
        """Have somebody run and plan things; also somebody who is cut off, as root could for them."""
        seen = self.host.observed
        if name in seen.accounts and any(span.owner == name for span in seen.subuids or ()):
            facts = data.draw(presences(self.machine, name))
            held = seen.presence.get(name, Presence())
            # What is held stays held; a job has one file.
            facts["at_jobs"] = tuple(job for job in facts["at_jobs"] if job not in held.held_at_jobs)
            facts["late_at_jobs"] = held.late_at_jobs
            self.by_hand(self.machine.present(name, **facts))

    @rule(output=st.sampled_from([OutputKind.TTYD_USER_MAP, OutputKind.DISPATCH_JSON]), name=people)
    def edit_map(self, output: OutputKind, name: str) -> None:
        """Remove a map, or write a line into it."""
        outputs = dict(self.host.observed.outputs)
        outputs[output] = None if output is OutputKind.DISPATCH_JSON else f"{name}.x={name}\n{STRANGER}.x={STRANGER}\n"
        self.by_hand(self.machine.having(outputs=outputs))

    @rule(seconds=st.sampled_from([60, DAY, -DAY, 365 * DAY, -365 * DAY]))
    def turn_clock(self, seconds: int) -> None:
        """Let time go on, or set the clock: jobs come due, those that are held are late."""
        now = self.host.observed.now + seconds
        presence = {}
        for name, found in self.host.observed.presence.items():
            held = {*found.held_at_jobs, *found.late_at_jobs}
            coming = {job for job in held if is_to_come(job, now)}
            presence[name] = replace(
                found,
                at_jobs=tuple(job for job in found.at_jobs if is_to_come(job, now)),
                held_at_jobs=tuple(sorted(coming)),
                late_at_jobs=tuple(sorted(held - coming)),
            )
        self.seen["clock_jumps"] += 1
        self.host.observed = replace(self.host.observed, now=now, presence=presence)

    # --- what is so after every run ---

    def remember(self) -> Observed:
        """Return the machine before a run, and keep how the logins are of those who are not cut off."""
        seen = self.host.observed
        for name in seen.accounts.keys() - cut_records(seen):
            self.original[name] = (seen.shadow or {}).get(name)
        return seen

    def check_always(self, before: Observed) -> None:
        """See what has to be so also when a run was killed or failed."""
        self.seen["steps"] += 1
        after = self.host.observed
        self.check_nothing_is_shared(before, after)
        self.check_unmanaged_are_untouched(before, after)
        for name, account in before.accounts.items():
            assert after.accounts[name] == account
            assert after.groups_of(name) >= before.groups_of(name)
            assert before.homes.get(name, Home(HomeKind.MISSING)).kind is HomeKind.MISSING or (
                after.homes[name].kind is HomeKind.FOLDER
            )
        assert port_values(after).items() >= port_values(before).items()
        for name in before.accounts.keys() & cut_records(before) - cut_records(after):
            # Who was let in by hand meanwhile keeps what they were given.
            if (before.shadow or {}).get(name) == CUT:
                assert (after.shadow or {})[name] == self.original[name]
        for name in self.users.keys() & before.accounts.keys() - self.commanded - cut_records(before):
            self.check_nothing_is_taken(name, before, after)

    def check_nothing_is_shared(self, before: Observed, after: Observed) -> None:
        """See that no uid, gid, range of ids or new port is two people's."""
        assert len({account.uid for account in after.accounts.values()}) == len(after.accounts)
        assert len({group.gid for group in after.groups.values()}) == len(after.groups)
        for ranges in (after.subuids or (), after.subgids or ()):
            ordered = sorted(ranges, key=lambda span: span.first)
            assert all(low.first + low.count <= high.first for low, high in pairwise(ordered))
        ports = port_values(after)
        held = Counter(ports.values())
        new = ports.keys() - port_values(before).keys()
        assert all(held[ports[holder]] == 1 for holder in new)
        self.ports_by_hand -= new
        given = [ports[holder] for holder in ports.keys() - self.ports_by_hand]
        assert len(given) == len(set(given))

    def check_unmanaged_are_untouched(self, before: Observed, after: Observed) -> None:
        """See that an account is as it was which is not managed, and which the roster does not adopt."""
        adopted = {name for name, user in self.users.items() if user.adopt}
        for name in before.accounts.keys() - managed(before) - adopted:
            had, has = belongings(before, name), belongings(after, name)
            if name != STRANGER and name not in self.users:
                # What a map or a unit says of them is rosterd's own, from a time before; who is not managed has none.
                had["units"] = has["units"] = {}
            assert has == had

    def check_nothing_is_taken(self, name: str, before: Observed, after: Observed) -> None:
        """See that somebody on the roster has what they had: login, jobs, sessions, processes, services that run."""
        had, has = belongings(before, name), belongings(after, name)
        assert has["login"] == had["login"] or had["login"] is None
        assert has["presence"] == had["presence"]
        user = self.users[name]
        for service in SITE.services.values():
            wanted = dict(user.services).get(service.name, True) and not user.parked
            for unit in service.instances(name) if wanted else ():
                assert unit not in had["units"] or not is_running(before, unit) or is_running(after, unit)

    # --- what is so after a run that ended well ---

    def check_everybody(self, before: Observed, report: Report, allow_cuts: int | None) -> None:
        """See that each has what is theirs, and that who has left has nothing."""
        after = self.host.observed
        here = {name for name in self.users if self.is_served(before, name)} - self.commanded
        for name in here:
            assert name in managed(after)
            present = set(before.groups) & set(TIER_GROUPS[self.users[name].tier])
            assert after.groups_of(name) >= present
            assert name in (after.shadow or {})
            assert after.homes[name].uid == after.accounts[name].uid
            assert f"{self.users[name].authentik_user}={name}" in lines(after)
            assert name not in cut_records(after)
        left = managed(before) - self.users.keys() - {name for name in before.accounts if is_admin(before, name)}
        held = set(report.plan.held)
        assert allow_cuts is None or not held & left
        self.check_closed((left - held) | (self.commanded & after.accounts.keys()))
        assert allow_cuts is not None or len(left - held - cut_records(before)) <= 1

    def check_closed(self, names: set[str]) -> None:
        """See that nothing of these people is open."""
        seen = self.host.observed
        self.seen["seen_closed"] += len(names)
        check_closed(replace(seen, presence={**dict.fromkeys(names, Presence()), **seen.presence}), names)

    def check_others(self, before: Observed, name: str) -> None:
        """See that a command about one person was about nobody else."""
        after = self.host.observed
        for other in before.accounts.keys() - {name}:
            assert belongings(after, other) == belongings(before, other)
        assert mapped(after) - {name} == mapped(before) - {name}

    def is_served(self, before: Observed, name: str) -> bool:
        """Say whether something may be done for somebody: a new account, a managed one, or one that is adopted."""
        return name not in before.accounts or name in managed(before) or self.users[name].adopt


def is_to_come(job: str, now: int) -> bool:
    return int(job[6:], 16) * 60 > now


def test_whatever_happens_a_run_sets_it_right_and_what_must_never_be_is_not() -> None:
    History.seen.clear()
    size = settings(
        max_examples=scaled(40, 3000),
        stateful_step_count=scaled(25, 50),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(History, settings=size)
    finally:
        note("histories", **History.seen)
    assert all(History.seen[kind] for kind in ("killed", "cuts", "seen_closed"))
