"""Random rosters and random machines, for property tests. A scenario knows what it is made of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from hypothesis import strategies as st

from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import Group, Home, HomeKind, Login, UnitState
from reconciler.core.roster import Roster, User
from reconciler.core.site import OutputKind
from tests.unit.facts import FAILED, RUNNING, SITE, Machine, at_job, bare, person, process, roster
from tests.unit.facts import service as foreign
from tests.unit.memory_host import MemoryHost
from tests.unit.runs import run

NAMES = ("alice", "bob", "carol", "dave", "erin")
TIER_GROUPS = {"admin": ("code-shared", "docker", "sudo"), "power-user": (), "namespace-owner": ()}
EXTRA_GROUPS = ("video", "shop")
# Few ports, so that they collide.
PORTS = {"t3": range(3773, 3778), "playwright": range(8931, 8936)}


class Past(StrEnum):
    """How somebody's account came to be as it is."""

    ABSENT = "absent"
    MANAGED = "managed"
    HAND_MADE = "made by hand"
    KILLED_EARLY = "useradd was killed before passwd"
    KILLED_LATE = "useradd was killed after passwd"
    KILLED_UNRECORDED = "useradd was killed after passwd, and its record was lost"


@dataclass(frozen=True)
class Scenario:
    """A machine, a roster, and how each account came to be."""

    machine: Machine
    roster: Roster
    pasts: dict[str, Past]

    @property
    def refused(self) -> set[str]:
        """The people for whom nothing may be done."""
        return {
            name for name, user in self.roster.users.items() if self.pasts[name] is Past.HAND_MADE and not user.adopt
        }


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Draw a scenario."""
    pasts = {name: draw(st.sampled_from(Past)) for name in NAMES}
    machine = draw(_without_some_groups(bare()))
    for number, (name, past) in enumerate(pasts.items()):
        machine = _with_past(draw, machine, name, past, 1000 + number)
    machine = draw(_with_env_files(machine))
    machine = _with_units(draw, machine, [name for name, past in pasts.items() if past is not Past.ABSENT])
    machine = draw(_with_strangers(machine))
    return Scenario(draw(_with_maps(machine)), draw(rosters()), pasts)


@dataclass(frozen=True)
class Settled:
    """A machine that agrees with its roster, on which people have all kinds of things running or due."""

    machine: Machine
    roster: Roster

    @property
    def cuttable(self) -> list[str]:
        """The people whom a run cuts off by itself: no administrators."""
        return sorted(name for name, user in self.roster.users.items() if user.tier != "admin")

    def without(self, names: Collection[str]) -> Roster:
        """Return the roster that these people have left."""
        return roster(*(user for name, user in self.roster.users.items() if name not in names))


@st.composite
def settled(draw: st.DrawFn) -> Settled:
    """Draw a machine with somebody on it who can be cut off, after a run."""
    people = draw(rosters().filter(lambda found: any(user.tier != "admin" for user in found.users.values())))
    machine = draw(_with_strangers(bare()))
    for number, name in enumerate(people.users):
        groups = sorted(draw(st.sets(st.sampled_from(EXTRA_GROUPS))))
        machine = machine.account(name, 1000 + number, *groups).login(name, draw(logins))
    host = MemoryHost(machine.observed)
    run(host, people)
    machine = Machine(host.observed)
    for name in people.users:
        machine = machine.present(name, **draw(presences(machine, name)))
    return Settled(machine, people)


passwords = st.sampled_from([Login(locked=True), Login(locked=False), Login(locked=False, passwordless=True)])
logins = st.builds(
    lambda login, expiry: replace(login, expiry=expiry), passwords, st.sampled_from([None, None, 0, 1, 2, 20000, 30000])
)
"""How far an account can be open: whether locked, whether with a password, and until which day."""


def presences(machine: Machine, name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return what somebody can have running or due. Who lingers has a manager of their own running."""
    uid = machine.observed.accounts[name].uid
    own = next(span for span in machine.observed.subuids or () if span.owner == name)
    numbers = st.sets(st.integers(1, 3))
    units = st.lists(
        st.builds(
            foreign,
            st.sampled_from([f"{name}-backup.service", f"{name}-site.service", f"{name}-bot.service"]),
            active=st.booleans(),
            enabled=st.booleans(),
        ),
        unique_by=lambda unit: unit.name,
        max_size=3,
    )
    transient = st.booleans().map(lambda some: (foreign(f"run-u{uid}.service", transient=True),) if some else ())
    pids = st.sets(st.integers(100, 103)).map(sorted)
    ids = st.sampled_from([uid, own.first, own.first + own.count - 1])
    return st.fixed_dictionaries(
        {
            "crontab": st.booleans(),
            "at_jobs": numbers.map(lambda found: tuple(at_job(number, uid) for number in sorted(found))),
            "late_at_jobs": st.sampled_from([(), (at_job(-5, uid),)]),
            "lingering": st.booleans(),
            "slice_active": st.booleans(),
            "units": st.builds(lambda fixed, run: (*sorted(fixed, key=lambda unit: unit.name), *run), units, transient),
            "processes": pids.flatmap(
                lambda found: st.tuples(*(st.builds(process, st.just(uid * 1000 + pid), ids) for pid in found))
            ),
        }
    ).map(lambda facts: {**facts, "slice_active": facts["slice_active"] or facts["lingering"]})


@st.composite
def rosters(draw: st.DrawFn) -> Roster:
    """Draw a roster of some of the people."""
    return roster(*(draw(_users(name)) for name in NAMES if draw(st.integers(0, 3))))


def _users(name: str) -> st.SearchStrategy[User]:
    return st.builds(
        person,
        st.just(name),
        st.sampled_from(sorted(TIER_GROUPS)),
        parked=st.booleans(),
        adopt=st.sampled_from([False, False, False, True]),
        services=st.dictionaries(st.sampled_from(sorted(SITE.services)), st.booleans()),
    )


@st.composite
def _without_some_groups(draw: st.DrawFn, machine: Machine) -> Machine:
    groups = dict(machine.observed.groups)
    for name in draw(st.sets(st.sampled_from(TIER_GROUPS["admin"]))):
        del groups[name]
    if draw(st.booleans()):
        groups[MANAGED_GROUP] = Group(MANAGED_GROUP, 999, frozenset(draw(st.sets(st.just("ghost")))))
    return machine.having(groups=groups)


def _with_past(draw: st.DrawFn, machine: Machine, name: str, past: Past, uid: int) -> Machine:
    match past:
        case Past.ABSENT:
            return machine
        case Past.MANAGED | Past.HAND_MADE:
            present = sorted(set(TIER_GROUPS["admin"]) & set(machine.observed.groups))
            groups = draw(st.sets(st.sampled_from([*EXTRA_GROUPS, *present])))
            return machine.account(name, uid, *sorted(groups), managed=past is Past.MANAGED)
        case Past.KILLED_EARLY:
            own = {name: Group(name, uid, frozenset())} if draw(st.booleans()) else {}
            return machine.recorded(name, uid).having(groups={**machine.observed.groups, **own})
        case Past.KILLED_LATE:
            machine = machine.recorded(name, uid)
            if draw(st.booleans()):
                return draw(_half_made(machine.account(name, uid), name))
            # The mark is written before the home is made.
            machine = draw(_half_made(machine.account(name, uid, managed=False), name))
            return machine.having(homes={**machine.observed.homes, name: Home(HomeKind.MISSING)})
        case Past.KILLED_UNRECORDED:
            machine = draw(_half_made(machine.account(name, uid, managed=False), name))
            seen = machine.observed
            groups_without = {other: group for other, group in seen.groups.items() if other != name}
            return machine.having(
                groups=groups_without, homes={**seen.homes, name: Home(HomeKind.MISSING)}, skel_gaps={}
            )


@st.composite
def _half_made(draw: st.DrawFn, machine: Machine, name: str) -> Machine:
    """Take away what `useradd` does last."""
    seen = machine.observed
    uid = seen.accounts[name].uid
    homes = (
        Home(HomeKind.MISSING),
        Home(HomeKind.FOLDER, 0, 0o755),
        Home(HomeKind.FOLDER, uid, 0o755),
        Home(HomeKind.FOLDER, uid, 0o700),
    )
    gaps = draw(st.sampled_from([(), (".bashrc",)]))
    changes: dict[str, object] = {
        "homes": {**seen.homes, name: draw(st.sampled_from(homes))},
        "skel_gaps": {**seen.skel_gaps, name: gaps},
    }
    if draw(st.booleans()):
        changes["shadow"] = {other: login for other, login in (seen.shadow or {}).items() if other != name}
    if draw(st.booleans()):
        changes["subuids"] = tuple(span for span in seen.subuids or () if span.owner != name)
    if draw(st.booleans()):
        changes["subgids"] = tuple(span for span in seen.subgids or () if span.owner != name)
    return machine.having(**changes)


@st.composite
def _with_env_files(draw: st.DrawFn, machine: Machine) -> Machine:
    for service, ports in PORTS.items():
        values = st.sampled_from([*map(str, ports), "", "no port", None])
        for name, value in draw(st.dictionaries(st.sampled_from([*NAMES, "gone"]), values)).items():
            open_ended = value is None and draw(st.booleans())
            machine = machine.env_file(service, name, value, open_ended=open_ended)
    return machine


def _with_units(draw: st.DrawFn, machine: Machine, names: list[str]) -> Machine:
    states = st.sampled_from([None, RUNNING, FAILED, UnitState("activating", "auto-restart")])
    for name in names:
        for service in SITE.services.values():
            for unit in service.instances(name):
                state = draw(states)
                if state is not None:
                    machine = machine.unit(unit, state, enabled=draw(st.booleans()))
                if state is RUNNING and unit.endswith(".service"):
                    machine = draw(_with_own_listener(machine, service.name, name, unit))
    return machine


@st.composite
def _with_own_listener(draw: st.DrawFn, machine: Machine, service: str, name: str, unit: str) -> Machine:
    """Let a running service listen where its env file says, if nobody does; or nowhere."""
    file = (machine.observed.env_files or {}).get((service, name))
    account = machine.observed.accounts.get(name)
    if file is None or account is None or not (file.value or "").isdigit() or draw(st.booleans()):
        return machine
    port = int(file.value or "")
    if any(listener.port == port for listener in machine.observed.listeners):
        return machine
    return machine.listener(port, account.uid, unit)


@st.composite
def _with_strangers(draw: st.DrawFn, machine: Machine) -> Machine:
    used = {listener.port for listener in machine.observed.listeners}
    free = [port for ports in PORTS.values() for port in ports if port not in used]
    for port in sorted(draw(st.sets(st.sampled_from(free), max_size=2))) if free else []:
        machine = machine.listener(port, draw(st.sampled_from([0, 1000, 4711])), "stranger.service", 4242)
    return machine


@st.composite
def _with_maps(draw: st.DrawFn, machine: Machine) -> Machine:
    """Let the maps have lines, right ones and others."""
    names = st.sampled_from([*NAMES, "gone"])
    identities = st.sampled_from([f"{name}.x" for name in NAMES])
    lines = draw(st.dictionaries(identities, names))
    if draw(st.booleans()):
        text = "".join(f"{identity}={name}\n" for identity, name in lines.items())
        machine = machine.output(OutputKind.TTYD_USER_MAP, text)
    if draw(st.booleans()):
        machine = machine.output(OutputKind.TTYD_ADMINS, "".join(f"{name}\n" for name in sorted(draw(st.sets(names)))))
    return machine
