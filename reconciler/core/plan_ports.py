"""Ports: who keeps which, who gets a new one, and who is in whose way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.core.actions import WritePort
from reconciler.core.desired import Desired, DesiredService, DesiredUser
from reconciler.core.findings import Finding, conflict, warning
from reconciler.core.observed import EnvFile, Listener, Observed
from reconciler.core.ports import Holder, allocate
from reconciler.core.site import PortRule
from reconciler.core.text import listed


@dataclass(slots=True)
class PortPlan:
    """The port of each (user, service), and those that something is wrong with.

    `ports` has sticky and new ones. `blocked` are the services that must not be started: their port is
    unknown, or something else holds it. `misrouted` are those of them to which no request may be sent: who
    answers there is, or could be, another person. `listening` are those whose own unit listens on the port,
    `elsewhere` those where it listens on another one.
    """

    ports: dict[Holder, int] = field(default_factory=dict)
    blocked: set[Holder] = field(default_factory=set)
    misrouted: set[Holder] = field(default_factory=set)
    listening: set[Holder] = field(default_factory=set)
    elsewhere: set[Holder] = field(default_factory=set)
    actions: list[WritePort] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def block(self, holder: Holder, text: str, *, is_safe: bool = False) -> None:
        """Leave this service as it is and say why; `is_safe`: it is the person's own program that answers."""
        self.blocked.add(holder)
        if not is_safe:
            self.misrouted.add(holder)
        self.findings.append(conflict(holder[0], f"{holder[1]}: {text}", holder[1]))


def taken_ports(observed: Observed) -> set[int]:
    """Return every port that nobody may be given: kept by an env file or for somebody deleted, or listened on."""
    return {*observed.sticky_ports.values(), *observed.listeners_by_port, *observed.on_record.reserved_ports}


def plan_ports(desired: Desired, observed: Observed, refused: Collection[str]) -> PortPlan:
    """Keep the sticky ports, give out new ones, and find the conflicts."""
    plan = PortPlan()
    people = [user for user in desired.users.values() if user.name not in refused]
    if observed.env_files is None:
        for user in people:
            plan.blocked |= {(user.name, service.name) for service in user.services.values() if service.port}
        return plan
    taken = taken_ports(observed)
    for name, service in desired.services.items():
        if service.port is not None:
            _plan_service(name, service.port, people, observed, taken, plan)
    _find_shared_ports(desired, observed, plan)
    _find_strangers(people, observed, plan)
    return plan


def _plan_service(  # noqa: PLR0913 (the whole of a plan meets here)
    service: str,
    rule: PortRule,
    people: list[DesiredUser],
    observed: Observed,
    taken: set[int],
    plan: PortPlan,
) -> None:
    sticky = observed.sticky_ports
    in_use = _ports_in_use(rule, observed, set(sticky.values()))
    without = []
    for user in people:
        holder = (user.name, service)
        own = {port for unit in user.services[service].instances for port in in_use.get(unit, ())}
        if holder in sticky:
            plan.ports[holder] = sticky[holder]
        elif not user.services[service].enabled:
            continue
        elif why := _why_no_port(rule, user.name, (observed.env_files or {}).get((service, user.name)), own):
            plan.block(holder, why, is_safe=bool(own))
        elif own:
            _give(service, rule, user.name, own.pop(), plan)  # the env file is lost, the running service tells
        else:
            without.append(user.name)
    for name, port in allocate(rule, without, taken).items():
        if port is None:
            plan.block((name, service), f"no port is left between {rule.base} and {rule.limit}")
        else:
            _give(service, rule, name, port, plan)


def _ports_in_use(rule: PortRule, observed: Observed, kept: set[int]) -> Mapping[str, set[int]]:
    """Return by unit the ports of the rule's range that it listens on and no env file keeps."""
    found: dict[str, set[int]] = defaultdict(set)
    for listener in observed.listeners:
        if listener.unit and rule.base <= listener.port <= rule.limit and listener.port not in kept:
            found[listener.unit].add(listener.port)
    return found


def _give(service: str, rule: PortRule, user: str, port: int, plan: PortPlan) -> None:
    plan.ports[user, service] = port
    plan.actions.append(WritePort(user, service, rule.path_for(user), rule.variable, port))


def _why_no_port(rule: PortRule, user: str, file: EnvFile | None, own: set[int]) -> str | None:
    """Say why an env file without a usable port cannot be given one; None where it can."""
    path = rule.path_for(user)
    if file is not None and file.problem:
        return file.problem
    if file is not None and file.value is not None:
        return f"{rule.variable} in {path} is not a port from 1 to 65535; correct or remove that line"
    if file is not None and file.open_ended:
        return f"{path} ends in an open quote, or holds a continued comment; no line can be added safely"
    if len(own) > 1:
        return f"{path} has no {rule.variable}, and the service listens on {listed(own)}; write the right one there"
    return None


def _find_shared_ports(desired: Desired, observed: Observed, plan: PortPlan) -> None:
    """Find ports that two env files claim. Whoever listens on it through their own unit keeps it."""
    claims: dict[int, set[Holder]] = defaultdict(set)
    for holder, port in observed.sticky_ports.items():
        claims[port].add(holder)
    for port, holders in claims.items():
        if len(holders) == 1:
            continue
        owner = next((holder for holder in sorted(holders) if listens(holder, port, desired, observed)), None)
        for holder in sorted(holders - {owner} if owner else holders):
            if holder in plan.ports:
                others = listed(f"{user} ({service})" for user, service in holders - {holder})
                plan.block(holder, f"port {port} is also the port of {others}; change one of the env files")


def listens(holder: Holder, port: int, desired: Desired, observed: Observed) -> bool:
    """Say whether a person's own service listens on this port."""
    user, service = holder
    own = desired.services[service].instances(user) if service in desired.services else ()
    return any(found.unit in own for found in observed.listeners_by_port.get(port, ()))


def _find_strangers(people: list[DesiredUser], observed: Observed, plan: PortPlan) -> None:
    for user in people:
        for service in user.services.values():
            holder = (user.name, service.name)
            port = plan.ports.get(holder)
            if port is None or holder in plan.blocked:
                continue
            listeners = observed.listeners_by_port.get(port, ())
            strangers = [found for found in listeners if not is_own(found, user.name, service, observed)]
            if strangers and service.enabled:
                # The person's own program answers there: in place of the unit, or beside it on another address.
                own = len(strangers) < len(listeners) or all(
                    observed.user_of(found.uid) == user.name for found in strangers
                )
                told = holder_words(strangers[0], observed)
                plan.block(holder, f"port {port} is held by {told}; nothing is moved", is_safe=own)
            elif listeners:
                plan.listening.add(holder)
            elif pending := list(_restart_pending(user.name, service, port, observed)):
                plan.findings += pending
                plan.elsewhere.add(holder)


def is_own(listener: Listener, user: str, service: DesiredService, observed: Observed) -> bool:
    """Say whether what listens on a service's port may do so: the service, or what makes way for it."""
    if listener.unit in service.instances or _makes_way(listener, user, service, observed):
        return True
    if listener.uid == 0 and any(unit.endswith(".socket") for unit in service.instances):
        return True  # the socket of a socket unit is opened by the service manager itself
    account = observed.accounts.get(user)
    return listener.unit is None and account is not None and account.uid == listener.uid


def _makes_way(listener: Listener, user: str, service: DesiredService, observed: Observed) -> bool:
    """Say whether it is an old unit of the person's own, which is retired before the service is started."""
    account = observed.accounts.get(user)
    own = account is not None and account.uid == listener.uid
    return own and listener.user_unit in observed.legacy_units_of(user, service.name)


def holder_words(listener: Listener, observed: Observed) -> str:
    """Return who listens, for a message."""
    pid = f"pid {listener.pid}, " if listener.pid is not None else ""
    unit = "".join(f", unit {name}" for name in (listener.unit, listener.user_unit) if name)
    return f"another process ({pid}user {observed.user_of(listener.uid)}{unit})"


def _restart_pending(user: str, service: DesiredService, port: int, observed: Observed) -> Iterator[Finding]:
    for unit in service.instances:
        for listener in observed.listeners_by_unit.get(unit, ())[:1]:
            yield warning(
                user,
                f"{service.name}: restart pending, {unit} listens on {listener.port} but its env file says"
                f" {port}; when it suits the user: systemctl restart {unit}",
                service.name,
            )
