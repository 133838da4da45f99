"""How everybody stands: what `rosterd status` tells, worked out of what is wanted, what is there, and the plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.core.actions import DUE_IN_TIME, Action
from reconciler.core.desired import Desired, DesiredUser
from reconciler.core.findings import Finding, FindingKind
from reconciler.core.observed import Observed, UnitState
from reconciler.core.plan import Plan
from reconciler.core.plan_accounts import is_managed, managed_accounts
from reconciler.core.plan_outputs import mapped_users
from reconciler.core.plan_units import is_stopped, restarts_since
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

_ABSENT = UnitState("inactive", "dead")


def standing(desired: Desired, observed: Observed, plan: Plan) -> MachineStatus:
    """Return how everybody stands, the worst first, and the machine itself."""
    facts = _Facts.of(desired, observed, plan)
    users = [_user(name, facts) for name in sorted(_everybody(desired, observed))]
    last = observed.last_run
    return MachineStatus(
        run=RunStatus(last.id, last.at, last.exit) if last else None,
        users=tuple(sorted(users, key=lambda user: (_rank(user), user.name))),
        problems=(*(found.text for found in facts.findings[None]), *_held(plan)),
        changes=tuple(action.describe() for action in facts.actions[None]),
        unseen=observed.unseen,
    )


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known, sorted by what it is asked by."""

    desired: Desired
    observed: Observed
    plan: Plan
    findings: Mapping[str | None, list[Finding]]
    actions: Mapping[str | None, list[Action]]
    ports: Mapping[tuple[str, str], int]
    starting: frozenset[tuple[str | None, str]]

    @classmethod
    def of(cls, desired: Desired, observed: Observed, plan: Plan) -> _Facts:
        """Sort it."""
        findings: dict[str | None, list[Finding]] = defaultdict(list)
        actions: dict[str | None, list[Action]] = defaultdict(list)
        for found in plan.findings:
            findings[found.user].append(found)
        for action in plan.actions:
            actions[action.user].append(action)
        ports = {**observed.sticky_ports, **plan.ports}
        starting = frozenset((one.otherwise.user, one.otherwise.service) for one in plan.starting)
        return cls(desired, observed, plan, findings, actions, ports, starting)


def _everybody(desired: Desired, observed: Observed) -> set[str]:
    records = observed.on_record
    known = managed_accounts(observed) | mapped_users(observed)
    return {*desired.users, *known, *records.cuts, *records.tombstones}


def _user(name: str, facts: _Facts) -> UserStatus:
    account, user = facts.observed.accounts.get(name), facts.desired.users.get(name)
    state = _state(name, user, facts.observed)
    found = facts.findings[name]
    stone = facts.observed.on_record.tombstones.get(name)
    return UserStatus(
        name=name,
        uid=account.uid if account else stone.uid if stone else None,
        tier=user.tier if user else "",
        state=state,
        pending=(
            *(one.text for one in found if not _is_problem(one)),
            *(action.describe() for action in facts.actions[name] if isinstance(action, DUE_IN_TIME)),
        ),
        problems=tuple(one.text for one in found if _is_problem(one)),
        changes=tuple(action.describe() for action in facts.actions[name] if not isinstance(action, DUE_IN_TIME)),
        services=tuple(_services(name, user if state in _WITH_SERVICES else None, facts)),
    )


_WITH_SERVICES = (AccountState.ACTIVE, AccountState.PARKED, AccountState.MISSING)


def _is_problem(found: Finding) -> bool:
    """Say whether somebody has to see to it; a step in a home that rests is pending, it is tried again by itself."""
    return found.kind.is_problem and not (found.kind is FindingKind.UNHEALTHY and not found.service)


def _state(name: str, user: DesiredUser | None, observed: Observed) -> AccountState:
    records = observed.on_record
    if name in records.tombstones:
        return AccountState.TOMBSTONE
    if name in records.cuts:
        return AccountState.CUT
    if name not in observed.accounts:
        return AccountState.MISSING if user else AccountState.UNMANAGED
    if not (is_managed(observed, name) or (user and user.adopt)):
        return AccountState.UNMANAGED
    return AccountState.PARKED if user and user.parked else AccountState.ACTIVE


def _services(name: str, user: DesiredUser | None, facts: _Facts) -> Iterable[ServiceStatus]:
    """Return the services that a person has, or that something is left of: a port, a unit that runs."""
    stone = facts.observed.on_record.tombstones.get(name)
    states = facts.observed.units.states or {}
    for service in facts.desired.services.values():
        instances = service.instances(name)
        kept = stone.ports.get(service.name) if stone else None
        port = facts.ports.get((name, service.name), kept)
        wanted = user.services[service.name] if user else None
        runs = [unit for unit in instances if unit in states and not is_stopped(states[unit])]
        if port is None and not runs and not (wanted and wanted.enabled):
            continue
        used = [facts.observed.memory[unit] for unit in instances if unit in facts.observed.memory]
        health = _health(name, service.name, instances, facts, wanted=bool(wanted and wanted.running))
        yield ServiceStatus(
            name=service.name,
            port=port,
            listener=_listener(port, facts),
            units=tuple(_unit(unit, facts.observed) for unit in instances) if not stone else (),
            memory=sum(memory.now for memory in used) if used else None,
            memory_max=min((memory.cap for memory in used if memory.cap is not None), default=None),
            health=health,
        )


def _unit(unit: str, observed: Observed) -> UnitStatus:
    state = (observed.units.states or {}).get(unit, _ABSENT)
    before = observed.last_run.restarts.get(unit, 0) if observed.last_run else 0
    known = observed.units.states is not None
    restarts = restarts_since(state, before) if known and unit.endswith(".service") else None
    active, sub = (state.active, state.sub) if known else ("unknown", "unknown")
    return UnitStatus(unit, active, sub, unit in observed.units.enabled, restarts)


def _listener(port: int | None, facts: _Facts) -> PortHolder | None:
    found = facts.observed.listeners_by_port.get(port, ()) if port is not None else ()
    if not found:
        return None
    return PortHolder(found[0].pid, facts.observed.user_of(found[0].uid), found[0].user_unit or found[0].unit)


def _health(name: str, service: str, instances: Iterable[str], facts: _Facts, *, wanted: bool) -> Health:
    states = facts.observed.units.states
    if states is None:
        return Health.UNKNOWN
    known = [states.get(unit, _ABSENT) for unit in instances]
    if not wanted:
        # What somebody runs whom a guard keeps from being cut off is as it was.
        running = Health.OK if name in facts.plan.held else Health.UNHEALTHY
        return Health.OFF if all(map(is_stopped, known)) else running
    found = [one for one in facts.findings[name] if one.service == service]
    if any(one.kind.is_problem for one in found) or any(map(is_stopped, known)):
        return Health.UNHEALTHY
    if facts.observed.env_files is None and facts.desired.services[service].port:
        return Health.UNKNOWN
    if (name, service) in facts.starting:
        return Health.STARTING
    return Health.OK


def _held(plan: Plan) -> list[str]:
    return [f"held: {', '.join(plan.held)} would be cut off: {plan.why_held}"] if plan.held else []


def _rank(user: UserStatus) -> int:
    """Return how soon somebody should look: 0 at once."""
    health = {service.health for service in user.services}
    if user.problems or Health.UNHEALTHY in health:
        return 0
    if user.pending or Health.UNKNOWN in health:
        return 1
    if user.changes or Health.STARTING in health:
        return 2
    return 3 + list(AccountState).index(user.state)
