"""Units: which instances are brought up, which are halted, which are not well.

A service is well if its units run and have stayed up for the site's `settle`, and a process of its own listens on its
port.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.core.actions import Action, HaltUnit, RunUnit
from reconciler.core.desired import Desired, DesiredService, DesiredUser
from reconciler.core.drop_ins import services_of
from reconciler.core.findings import Finding, conflict, unhealthy, warning
from reconciler.core.last_run import LastRun
from reconciler.core.observed import Observed, Units, UnitState
from reconciler.core.plan_ports import PortPlan
from reconciler.core.site import template_of
from reconciler.core.text import counted

_RUNNING = ("active", "reloading", "refreshing")
_STOPPED = ("inactive", "failed")
_ABSENT = UnitState("inactive", "dead")
# A server may listen at any moment, so it is looked for again soon.
_LISTEN_SECONDS = 1.0
# So that a further look is not a moment too early.
_SLACK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Starting:
    """A service that cannot be judged yet.

    A further look in `wait` seconds may tell; `otherwise` is what is the matter if none ever does.
    """

    wait: float
    otherwise: Finding


@dataclass(slots=True)
class UnitPlan:
    """What becomes of the instances."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    starting: list[Starting] = field(default_factory=list)


def plan_units(
    desired: Desired, observed: Observed, refused: Collection[str], ports: PortPlan, leaving: Collection[str]
) -> UnitPlan:
    """Compare the services that people are to have with the units of the host.

    What is blocked in `ports` is not started, its port is not the person's; `refused` people are left alone;
    what `leaving` people still run is halted.
    """
    plan = UnitPlan()
    if observed.units.states is None:
        if desired.users or leaving:
            plan.findings.append(conflict(None, f"services are not looked after: {observed.units.why}"))
        return plan
    for user in desired.users.values():
        if user.name not in refused:
            for service in user.services.values():
                _plan_service(user, service, desired, observed, ports, plan)
    for name in sorted(leaving):
        for catalogued in desired.services.values():
            for unit in catalogued.instances(name):
                plan.actions += _halt(name, catalogued.name, unit, observed.units, "cut off", kill=True)
    return plan


def _plan_service(  # noqa: PLR0913 (the whole of a service meets here)
    user: DesiredUser, service: DesiredService, desired: Desired, observed: Observed, ports: PortPlan, plan: UnitPlan
) -> None:
    units = observed.units
    if not service.running:
        why = "parked" if user.parked and service.enabled else "switched off"
        for unit in service.instances:
            plan.actions += _halt(user.name, service.name, unit, units, why)
        return
    if (user.name, service.name) in ports.blocked:
        return
    making_way = bool(observed.legacy_units_of(user.name, service.name))
    up = [_run(user.name, service.name, unit, units, plan, restarts=making_way) for unit in service.instances]
    if all(up):
        _judge(user.name, service, desired, observed, ports, plan)


def _run(user: str, service: str, unit: str, units: Units, plan: UnitPlan, *, restarts: bool) -> bool:  # noqa: PLR0913 (the whole of a unit meets here)
    """Plan to bring a unit up, and return whether it runs.

    `restarts`: also one that keeps failing is started, as what held its port makes way in this run.
    """
    template = template_of(unit)
    if template not in units.templates:
        text = f"{service}: template {template} is not installed; {unit} not started"
        plan.findings.append(conflict(user, text, service))
        return False
    if unit in units.masked or template in units.masked:
        text = f"{service}: {unit} is masked; left alone (systemctl unmask {unit})"
        plan.findings.append(warning(user, text, service))
        return False
    state = (units.states or {}).get(unit, _ABSENT)
    enable = unit not in units.enabled and template not in units.not_installable
    if template in units.not_installable:
        text = (
            f"{service}: template {template} has no [Install] section, so {unit} is not enabled and will not"
            " start at boot; add one with WantedBy=multi-user.target"
        )
        plan.findings.append(conflict(user, text, service))
    restarting = restarts and state.sub == "auto-restart"
    start = state.active in (*_STOPPED, "deactivating") or restarting
    if enable or start:
        before = "failed" if state.active == "failed" or restarting else "stopped" if start else state.active
        plan.actions.append(RunUnit(user, service, unit, enable, start, before))
    elif state.active not in _RUNNING:
        text = f"is {state.active} ({state.sub}) and does not come up; see: journalctl -u {unit}"
        plan.findings.append(unhealthy(user, service, unit, text))
    return state.active in _RUNNING


def _judge(  # noqa: PLR0913 (the whole of a service meets here)
    user: str, service: DesiredService, desired: Desired, observed: Observed, ports: PortPlan, plan: UnitPlan
) -> None:
    """Judge a service whose units all run: whether they stay up, and listen."""
    known = observed.units.states or {}
    states = {unit: known[unit] for unit in service.instances}
    plan.findings += _restarts(user, service.name, states, observed.last_run)
    young = next((unit for unit, state in states.items() if state.up is not None and state.up < desired.settle), None)
    if young is not None:
        text = f"does not stay up for {desired.settle} s; see: journalctl -u {young}"
        wait = desired.settle - (states[young].up or 0) + _SLACK_SECONDS
        plan.starting.append(Starting(wait, unhealthy(user, service.name, young, text)))
        return
    holder = (user, service.name)
    port = ports.ports.get(holder)
    if port is None or not desired.listen or holder in ports.listening or holder in ports.elsewhere:
        return
    unit = services_of(service.instances)[0]
    text = f"runs, but none of its processes listens on port {port}; see: journalctl -u {unit}"
    found = unhealthy(user, service.name, unit, text)
    left = desired.listen - _since_start(states, otherwise=desired.listen)
    if left > 0:
        plan.starting.append(Starting(min(_LISTEN_SECONDS, left + _SLACK_SECONDS), found))
    else:
        plan.findings.append(found)


def _since_start(states: Mapping[str, UnitState], *, otherwise: float) -> float:
    """Return for how long the service that was started last has been up; `otherwise` where none of them tells."""
    return min(
        (state.up for unit, state in states.items() if unit.endswith(".service") and state.up is not None),
        default=otherwise,
    )


def _restarts(user: str, service: str, states: Mapping[str, UnitState], last: LastRun | None) -> Iterator[Finding]:
    """Tell of units that run, but that systemd has started again since the last run."""
    before = {} if last is None else last.restarts
    since = "it was started" if last is None else "the last run"
    for unit, state in states.items():
        if risen := restarts_since(state, before.get(unit, 0)):
            times = f"{counted(risen, 'time')} since {since}"
            yield warning(user, f"{service}: systemd restarted {unit} {times}; see: journalctl -u {unit}", service)


def is_stopped(state: UnitState) -> bool:
    """Say whether nothing of a unit runs, nor is about to."""
    return state.active in _STOPPED


def restarts_since(state: UnitState, before: int) -> int:
    """Return how often systemd has restarted a unit by itself since it had done so `before` times.

    Somebody who starts the unit makes systemd count from 0 again.
    """
    now = state.restarts or 0
    return now - before if now >= before else now


def _halt(user: str, service: str, unit: str, units: Units, why: str, *, kill: bool = False) -> Iterator[HaltUnit]:  # noqa: PLR0913 (the whole of a unit meets here)
    state = (units.states or {}).get(unit, _ABSENT)
    disable = unit in units.enabled
    clear = state.active == "failed"
    stop = state.active not in (*_STOPPED, "deactivating")
    if disable or stop or clear:
        before = "failed" if clear else "running" if stop else "stopped"
        yield HaltUnit(user, service, unit, disable, stop, before, why, clear, kill)
