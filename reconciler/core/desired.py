"""What the roster and the site together ask for, before anyone has looked at the host."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from reconciler.core.home_steps import HomeStep
from reconciler.core.records import Step
from reconciler.core.roster import Roster, User
from reconciler.core.site import Hook, Limits, OutputKind, PortRule, Proxy, Service, Site
from reconciler.core.standard_homes import home_steps


@dataclass(frozen=True, slots=True)
class DesiredService:
    """One service of one person.

    `enabled`: the person has it, and so a port of their own. `running`: its units are to run,
    which they are not while the person is parked.
    """

    name: str
    instances: tuple[str, ...]
    port: PortRule | None
    route: bool
    enabled: bool
    running: bool


@dataclass(frozen=True, slots=True)
class DesiredUser:
    """One person of the roster with everything that the site gives them."""

    name: str
    identity: str
    k8s_user: str
    tier: str
    groups: tuple[str, ...]
    admin: bool
    parked: bool
    adopt: bool
    services: Mapping[str, DesiredService]
    steps: tuple[HomeStep, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def routed(self) -> DesiredService | None:
        """The service that requests for this person are sent to."""
        return next((service for service in self.services.values() if service.route), None)


@dataclass(frozen=True, slots=True)
class Desired:
    """The people by name, sorted, and the site's policy for the machine as a whole.

    `admin_groups`: who is in all groups of one of these sets is an administrator. `proxies` are those that read one
    of the outputs. `cut` are people whom a command cuts off now, beside those whose record says so; `uncut` those for
    whom a command ends that. `retry`: steps in homes that failed are tried again before their time.
    """

    users: Mapping[str, DesiredUser]
    services: Mapping[str, Service]
    outputs: tuple[OutputKind, ...]
    admin_groups: tuple[frozenset[str], ...]
    shell: str
    subids: bool
    create_groups: bool
    proxies: Mapping[OutputKind, Proxy] = field(default_factory=dict)
    hooks: Mapping[Step, Hook] = field(default_factory=dict)
    legacy_units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settle: int = 5
    listen: int = 30
    retry: bool = False
    cut: frozenset[str] = frozenset()
    uncut: frozenset[str] = frozenset()

    @property
    def templates(self) -> frozenset[str]:
        """The template units of all services."""
        return frozenset(unit for service in self.services.values() for unit in service.units)


def desire(
    roster: Roster, site: Site, *, cut: Collection[str] = (), uncut: Collection[str] = (), retry: bool = False
) -> Desired:
    """Combine who works here with what the site gives to each tier, and with what a command asks for."""
    return Desired(
        users={name: _desired_user(user, site) for name, user in roster.users.items()},
        services=site.services,
        outputs=site.outputs,
        admin_groups=tuple(frozenset(tier.groups) for tier in site.tiers.values() if tier.admin and tier.groups),
        shell=site.shell,
        subids=site.subids,
        create_groups=site.create_groups,
        proxies={kind: proxy for kind, proxy in site.proxies.items() if kind in site.outputs},
        hooks=site.hooks,
        legacy_units=site.legacy_units,
        settle=site.settle,
        listen=site.listen,
        retry=retry,
        cut=frozenset(cut),
        uncut=frozenset(uncut),
    )


def _desired_user(user: User, site: Site) -> DesiredUser:
    tier = site.tiers[user.tier]
    switches = dict(user.services)
    return DesiredUser(
        name=user.name,
        identity=user.authentik_user,
        k8s_user=user.k8s_user,
        tier=user.tier,
        groups=tier.groups,
        admin=tier.admin,
        parked=user.parked,
        adopt=user.adopt,
        services={
            service.name: _desired_service(service, user, enabled=switches.get(service.name, service.enabled))
            for service in site.services.values()
        },
        steps=home_steps(user, site),
        limits=tier.limits,
    )


def _desired_service(service: Service, user: User, *, enabled: bool) -> DesiredService:
    return DesiredService(
        name=service.name,
        instances=service.instances(user.name),
        port=service.port,
        route=service.route,
        enabled=enabled,
        running=enabled and not user.parked,
    )
