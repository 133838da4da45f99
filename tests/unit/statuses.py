"""Statuses that tests and pictures are made of: a workstation on a bad day, a hostile one, a large one."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.status import (
    AccountState,
    Health,
    MachineStatus,
    PortHolder,
    RunStatus,
    ServiceStatus,
    UnitStatus,
    UserStatus,
)

MIB = 1024 * 1024
GIB = 1024 * MIB
# 2026-11-24 14:17 UTC.
NOW = 1_795_529_820

_T3_PORT = 3773
_BROWSER_PORT = 8931


def unit(name: str, active: str = "active", sub: str = "running", restarts: int | None = 0) -> UnitStatus:
    """Return an enabled unit."""
    return UnitStatus(name, active, sub, enabled=True, restarts=restarts)


def t3(name: str, number: int, memory: int = 0) -> ServiceStatus:
    """Return the agent server of a person, as it is when all is well."""
    own = unit(f"t3-serve@{name}.service")
    holder = PortHolder(1200 + 37 * number, name, own.name)
    cap = 2 * GIB
    return ServiceStatus("t3", _T3_PORT + number, holder, (own,), memory or 180 * MIB, cap, Health.OK)


def browser(name: str, number: int, memory: int = 0) -> ServiceStatus:
    """Return the browser of a person, as it is when all is well."""
    own = unit(f"playwright-mcp@{name}.service")
    timer = unit(f"playwright-snapshot-refresh@{name}.timer", sub="waiting", restarts=None)
    holder = PortHolder(1210 + 37 * number, name, own.name)
    return ServiceStatus(
        "playwright", _BROWSER_PORT + number, holder, (own, timer), memory or 95 * MIB, None, Health.OK
    )


def off(service: ServiceStatus) -> ServiceStatus:
    """Return a service that is not to run, and does not."""
    stopped = tuple(replace(own, active="inactive", sub="dead", enabled=False, restarts=None) for own in service.units)
    return replace(service, listener=None, units=stopped, memory=None, health=Health.OFF)


def person(name: str, number: int, tier: str = "power-user") -> UserStatus:
    """Return a person with whom all is well."""
    services = (t3(name, number, (140 + 83 * number) * MIB), browser(name, number, (90 + 21 * number) * MIB))
    return UserStatus(name, 1001 + number, tier, AccountState.ACTIVE, (), (), (), services)


def bad_day() -> MachineStatus:
    """Return a workstation with one of most things that can be."""
    return MachineStatus(
        RunStatus("5b0d0f52c1f3", NOW - 12 * 60, 4),
        (*_in_trouble(), _grace(), person("alice", 0, "admin"), _bob(), _erin(), _frances(), _ivan()),
        problems=("heidi is not cut off: 2 would be cut, the guard lets 1 through (max_cuts)",),
        unseen=("/etc/shadow (Permission denied)",),
        changes=("/etc/t3-serve/dispatch.json: + dave.d (port 3776)",),
    )


def large(people: int) -> MachineStatus:
    """Return a machine with this many people of two services each; every tenth has a problem, a step and a change."""
    users = [person(f"user{number:04}", number) for number in range(people)]
    users[::10] = [
        replace(
            user,
            problems=(f"port {_T3_PORT} is held by another process (pid 812, user bob, unit x.service)",),
            pending=("home step code/api: failed 2 times, next try in 4 min",),
            changes=(f"t3-serve@{user.name}.service: disabled, stopped → enabled, running",),
        )
        for user in users[::10]
    ]
    return MachineStatus(RunStatus("run", NOW, 0), tuple(users))


def hostile(text: str) -> MachineStatus:
    """Return a status with a text in each place for one. There is one person, with one of everything."""
    holder = PortHolder(812, text, text)
    own = UnitStatus(text, text, text, enabled=True, restarts=1)
    service = ServiceStatus(text, 3773, holder, (own,), MIB, GIB, Health.UNHEALTHY)
    user = UserStatus(text, 1000, text, AccountState.ACTIVE, (text,), (text,), (text,), (service,))
    return MachineStatus(RunStatus(text, NOW, 3), (user,), (text,), (text,), (text,))


def _in_trouble() -> tuple[UserStatus, ...]:
    return _dave(), _carol(), _heidi(), _mallory()


def _dave() -> UserStatus:
    dave = person("dave", 3)
    mine, other = dave.services
    failing = unit("t3-serve@dave.service", "activating", "auto-restart", restarts=14)
    mine = replace(mine, listener=PortHolder(4242, "carol", "run-u42.service"), units=(failing,), memory=None)
    return replace(
        dave,
        services=(replace(mine, health=Health.UNHEALTHY), other),
        problems=(
            "t3: port 3776 is held by another process (pid 4242, user carol, unit run-u42.service); nothing is moved",
            "t3-serve@dave.service does not stay up; its last line: listen EADDRINUSE: address already in use :::3776",
        ),
        pending=("home step code/api: failed 3 times, git clone: could not read from remote; next try at 14:40 UTC",),
    )


def _carol() -> UserStatus:
    carol = person("carol", 2, "namespace-owner")
    mine, other = carol.services
    failed = unit("playwright-mcp@carol.service", "failed", "failed", restarts=5)
    other = replace(other, listener=None, units=(failed, other.units[1]), memory=None, health=Health.UNHEALTHY)
    return replace(
        carol,
        services=(replace(mine, memory=1_930 * MIB), other),
        problems=("playwright-mcp@carol.service: failed (start-limit-hit)",),
        changes=("playwright-mcp@carol.service: failed → running",),
    )


def _heidi() -> UserStatus:
    heidi = person("heidi", 7)
    return replace(heidi, tier="", problems=("not on the roster, and not cut off: a guard held it",))


def _mallory() -> UserStatus:
    text = "account exists (uid 1042) and is not managed by rosterd; to take it over: rosterd adopt mallory"
    return UserStatus("mallory", 1042, "power-user", AccountState.UNMANAGED, (), (text,), (), ())


def _grace() -> UserStatus:
    changes = (
        "account: none → uid 1011, tier namespace-owner (groups rosterd)",
        "t3 port: none → 3780 (T3_PORT in /etc/t3-serve/grace.env)",
        "t3-serve@grace.service: disabled, stopped → enabled, running",
    )
    return UserStatus("grace", None, "namespace-owner", AccountState.MISSING, (), (), changes, ())


def _bob() -> UserStatus:
    bob = person("bob", 1)
    first, second = bob.services
    young = replace(first.units[0], restarts=1)
    return replace(bob, services=(replace(first, units=(young,), health=Health.STARTING), second))


def _erin() -> UserStatus:
    erin = person("erin", 4)
    return replace(erin, services=(erin.services[0], off(erin.services[1])))


def _frances() -> UserStatus:
    frances = person("frances", 5)
    return replace(
        frances,
        tier="",
        state=AccountState.CUT,
        pending=(
            "revoke_cluster_rbac: to be done outside of this machine; then: rosterd done frances revoke_cluster_rbac",
        ),
        services=tuple(off(service) for service in frances.services),
    )


def _ivan() -> UserStatus:
    return UserStatus("ivan", 1009, "", AccountState.TOMBSTONE, (), (), (), ())
