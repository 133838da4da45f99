"""Units: which instances are brought up, which are halted, which are not well."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from reconciler.core.actions import Action, HaltUnit, RunUnit
from reconciler.core.desired import Desired, DesiredService, DesiredUser
from reconciler.core.findings import Finding, FindingKind, conflict, warning
from reconciler.core.observed import Observed, Units, UnitState
from reconciler.core.plan_ports import Holder
from reconciler.core.site import template_of

_RUNNING = ("active", "reloading", "refreshing")
_STOPPED = ("inactive", "failed")
_ABSENT = UnitState("inactive", "dead")


@dataclass(slots=True)
class UnitPlan:
    """What becomes of the instances."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def plan_units(
    desired: Desired,
    observed: Observed,
    refused: Collection[str],
    blocked: Collection[Holder],
    leaving: Collection[str],
) -> UnitPlan:
    """Compare the services that people are to have with the units of the host.

    `blocked` services are not started, their port is not theirs; `refused` people are left alone;
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
                _plan_service(user, service, observed, blocked, plan)
    for name in sorted(leaving):
        for catalogued in desired.services.values():
            for unit in catalogued.instances(name):
                plan.actions += _halt(name, catalogued.name, unit, observed.units, "cut off", kill=True)
    return plan


def _plan_service(
    user: DesiredUser, service: DesiredService, observed: Observed, blocked: Collection[Holder], plan: UnitPlan
) -> None:
    units = observed.units
    if not service.running:
        why = "parked" if user.parked and service.enabled else "switched off"
        for unit in service.instances:
            plan.actions += _halt(user.name, service.name, unit, units, why)
        return
    for unit in service.instances:
        if (user.name, service.name) not in blocked:
            making_way = bool(observed.legacy_units_of(user.name, service.name))
            _run(user.name, service.name, unit, units, plan, restarts=making_way)


def _run(user: str, service: str, unit: str, units: Units, plan: UnitPlan, *, restarts: bool) -> None:  # noqa: PLR0913 (the whole of a unit meets here)
    """Plan to bring a unit up; `restarts`: also one that keeps failing, as what held its port makes way in this run."""
    template = template_of(unit)
    if template not in units.templates:
        plan.findings.append(conflict(user, f"{service}: template {template} is not installed; {unit} not started"))
        return
    if unit in units.masked or template in units.masked:
        plan.findings.append(warning(user, f"{service}: {unit} is masked; left alone (systemctl unmask {unit})"))
        return
    state = (units.states or {}).get(unit, _ABSENT)
    enable = unit not in units.enabled and template not in units.not_installable
    if template in units.not_installable:
        plan.findings.append(
            conflict(
                user,
                f"{service}: template {template} has no [Install] section, so {unit} is not enabled and will not"
                " start at boot; add one with WantedBy=multi-user.target",
            )
        )
    restarting = restarts and state.sub == "auto-restart"
    start = state.active in (*_STOPPED, "deactivating") or restarting
    if enable or start:
        before = "failed" if state.active == "failed" or restarting else "stopped" if start else state.active
        plan.actions.append(RunUnit(user, service, unit, enable, start, before))
    elif state.active not in _RUNNING:
        plan.findings.append(
            Finding(
                user,
                FindingKind.UNHEALTHY,
                f"{service}: {unit} is {state.active} ({state.sub}) and does not come up; see: journalctl -u {unit}",
            )
        )


def _halt(user: str, service: str, unit: str, units: Units, why: str, *, kill: bool = False) -> Iterator[HaltUnit]:  # noqa: PLR0913 (the whole of a unit meets here)
    state = (units.states or {}).get(unit, _ABSENT)
    disable = unit in units.enabled
    clear = state.active == "failed"
    stop = state.active not in (*_STOPPED, "deactivating")
    if disable or stop or clear:
        before = "failed" if clear else "running" if stop else "stopped"
        yield HaltUnit(user, service, unit, disable, stop, before, why, clear, kill)
