"""Short words for the facts that tests of the plan start from: people of a roster, and a machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from reconciler.core.actions import Action
from reconciler.core.desired import Desired, desire
from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import (
    Account,
    EnvFile,
    ForeignUnit,
    Group,
    Home,
    HomeKind,
    Listener,
    Login,
    Observed,
    Presence,
    Process,
    SubidRange,
    Units,
    UnitState,
)
from reconciler.core.plan import Plan, make_plan
from reconciler.core.records import CutRecord, Identity, Records, Tombstone
from reconciler.core.roster import Roster, User
from reconciler.core.site import OutputKind, Site

SITE = Site()
RUNNING = UnitState("active", "running")
FAILED = UnitState("failed", "failed")
MINUTE = 30_000_000
"""The minute since 1970 at which the machines of these tests are looked at: on day 20833, in 2027."""
NOW = MINUTE * 60
OPEN = Login(locked=False)
CUT = Login(locked=True, expiry=1)
"""How a cut leaves a line of shadow(5)."""


def person(
    name: str,
    tier: str = "power-user",
    *,
    parked: bool = False,
    adopt: bool = False,
    services: Mapping[str, bool] | None = None,
) -> User:
    """Return an entry of the roster: alice's identity is alice.x."""
    return User(
        name,
        authentik_user=f"{name}.x",
        k8s_user=name,
        tier=tier,
        namespaces=("shop",) if tier == "namespace-owner" else (),
        parked=parked,
        adopt=adopt,
        services=tuple((services or {}).items()),
    )


def roster(*people: User) -> Roster:
    """Return a roster of these people."""
    return Roster({user.name: user for user in sorted(people, key=lambda user: user.name)})


def desired(*people: User, site: Site = SITE, cut: Collection[str] = (), uncut: Collection[str] = ()) -> Desired:
    """Return what these people are to have."""
    return desire(roster(*people), site, cut=cut, uncut=uncut)


def identity(name: str) -> Identity:
    """Return what `person` calls somebody elsewhere."""
    return Identity(f"{name}.x", name)


def at_job(minutes: int, number: int = 1) -> str:
    """Return the name of the file of a job that is due so many minutes from now."""
    return f"a{number:05x}{MINUTE + minutes:08x}"


def process(pid: int, uid: int, name: str = "bash") -> Process:
    """Return a running process."""
    return Process(pid, uid, name)


def service(name: str, *, active: bool = True, enabled: bool = False, transient: bool = False) -> ForeignUnit:
    """Return a service beside rosterd's own."""
    return ForeignUnit(name, active, enabled, transient)


@dataclass(frozen=True)
class Machine:
    """What is on a machine; each method returns another one with more on it."""

    observed: Observed

    def account(self, name: str, uid: int, *groups: str, managed: bool = True) -> Machine:
        """Add a complete account: primary group, shadow line, subordinate ids, a home of its own."""
        first = 100_000 + (uid - 1000) * 65536
        span = SubidRange(name, first, 65536)
        seen = self.observed
        with_account = replace(
            seen,
            accounts={**seen.accounts, name: Account(name, uid, uid, f"/home/{name}", "/bin/zsh")},
            groups={**seen.groups, name: Group(name, uid, frozenset())},
            shadow={**(seen.shadow or {}), name: Login()},
            subuids=(*(seen.subuids or ()), span),
            subgids=(*(seen.subgids or ()), span),
            homes={**seen.homes, name: Home(HomeKind.FOLDER, uid, 0o700)},
        )
        return Machine(with_account).member(name, *groups, *([MANAGED_GROUP] if managed else []))

    def member(self, name: str, *groups: str) -> Machine:
        """Add a name to groups, which are made if need be."""
        found = dict(self.observed.groups)
        for group in groups:
            known = found.get(group) or Group(group, 900 + len(found), frozenset())
            found[group] = replace(known, members=known.members | {name})
        return self.having(groups=found)

    def recorded(self, name: str, uid: int) -> Machine:
        """Add the record of a creation that was begun."""
        seen = self.observed
        return self.having(intents={**seen.intents, name: uid}, intent_gids={**seen.intent_gids, name: uid})

    def login(self, name: str, login: Login) -> Machine:
        """Let the shadow line of an account say this."""
        return self.having(shadow={**(self.observed.shadow or {}), name: login})

    def present(self, name: str, **facts: object) -> Machine:
        """Let somebody have this running or due, beside what they have."""
        found = replace(self.observed.presence.get(name, Presence()), **facts)  # type: ignore[arg-type]
        return self.having(presence={**self.observed.presence, name: found})

    def on_record(self, **kinds: Mapping[str, object]) -> Machine:
        """Add records."""
        records = self.observed.records or Records()
        added: dict[str, Any] = {kind: {**getattr(records, kind), **new} for kind, new in kinds.items()}
        return self.having(records=replace(records, **added))

    def known(self, *names: str) -> Machine:
        """Have on record what these people are called elsewhere."""
        return self.on_record(identities={name: identity(name) for name in names})

    def cut(self, name: str, **facts: object) -> Machine:
        """Have on record that the account is cut off, and its login closed."""
        account = self.observed.accounts[name]
        record = CutRecord(account.uid, account.gid, NOW - 3600, **{"identity": identity(name), **facts})  # type: ignore[arg-type]
        return self.on_record(cuts={name: record}).login(name, CUT)

    def buried(self, name: str, uid: int, **facts: object) -> Machine:
        """Have on record that somebody is deleted."""
        stone = Tombstone(  # noqa: S604 (a login shell)
            name=name,
            uid=uid,
            gid=uid,
            home=f"/home/{name}",
            shell="/bin/zsh",
            gecos="",
            groups=("rosterd",),
            subuids=(),
            subgids=(),
            ports={},
            archive=f"/var/backups/rosterd/{name}.tar",
            digest="00",
            since=NOW,
            cut=CutRecord(uid, uid, NOW, identity=identity(name)),
            complete=True,
        )
        stone = replace(stone, **facts)  # type: ignore[arg-type]
        return self.on_record(tombstones={name: stone})

    def env_file(self, service: str, name: str, value: str | None, *, open_ended: bool = False) -> Machine:
        """Add an env file: `value` is what its port variable says, None where it has none."""
        files = {
            **(self.observed.env_files or {}),
            (service, name): EnvFile(exists=True, value=value, open_ended=open_ended),
        }
        return self.having(env_files=files)

    def unit(self, name: str, state: UnitState = RUNNING, *, enabled: bool = True) -> Machine:
        """Add an instance."""
        units = self.observed.units
        changed = replace(
            units,
            states={**(units.states or {}), name: state},
            enabled=units.enabled | ({name} if enabled else set()),
        )
        return self.having(units=changed)

    def listener(self, port: int, uid: int, unit: str | None = None, pid: int | None = None) -> Machine:
        """Add a listening socket."""
        return self.having(listeners=(*self.observed.listeners, Listener(port, uid, unit, pid)))

    def output(self, kind: OutputKind, text: str) -> Machine:
        """Add a generated map."""
        return self.having(outputs={**self.observed.outputs, kind: text})

    def person(self, name: str, uid: int, t3: int, playwright: int) -> Machine:
        """Add somebody whose account, ports, units and records are as they should be."""
        return (
            self.account(name, uid)
            .known(name)
            .env_file("t3", name, str(t3))
            .env_file("playwright", name, str(playwright))
            .unit(f"t3-serve@{name}.service")
            .unit(f"playwright-mcp@{name}.service")
            .unit(f"playwright-snapshot-refresh@{name}.timer", UnitState("active", "waiting"))
            .listener(t3, uid, f"t3-serve@{name}.service")
            .listener(playwright, uid, f"playwright-mcp@{name}.service")
        )

    def having(self, **facts: object) -> Machine:
        """Return this machine with other facts."""
        return Machine(replace(self.observed, **facts))  # type: ignore[arg-type]

    def plan(self, *people: User, site: Site = SITE, cut: Collection[str] = (), uncut: Collection[str] = ()) -> Plan:
        """Return what a run would do here for these people."""
        return make_plan(desired(*people, site=site, cut=cut, uncut=uncut), self.observed)


def bare() -> Machine:
    """Return a machine with the groups of the default site and its templates, and nobody on it."""
    templates = frozenset(unit for service in SITE.services.values() for unit in service.units)
    groups = {"root": 0, "sudo": 27, "code-shared": 800, "docker": 801}
    return Machine(
        Observed(
            accounts={"root": Account("root", 0, 0, "/root", "/bin/bash")},
            groups={name: Group(name, gid, frozenset()) for name, gid in groups.items()},
            shadow={"root": OPEN},
            subuids=(),
            subgids=(),
            outputs=dict.fromkeys(OutputKind),
            units=Units(states={}, templates=templates),
            now=NOW,
        )
    )


def told(plan: Plan, user: str | None = None) -> list[str]:
    """Return what a plan says of one person, or of the machine, a line each: sign and words."""
    actions = [f"{action.sign} {action.describe()}" for action in plan.actions if action.user == user]
    findings = [f"{found.kind}: {found.text}" for found in plan.findings if found.user == user]
    return actions + findings


def only(actions: tuple[Action, ...], kind: type[Action]) -> list[Action]:
    """Return the actions of one kind."""
    return [action for action in actions if isinstance(action, kind)]
