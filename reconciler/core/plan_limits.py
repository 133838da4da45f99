"""Limits: one ceiling a person, for their sessions and their services together."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.core.actions import Action, ReloadSystemd, SetDropIn
from reconciler.core.desired import Desired, DesiredUser
from reconciler.core.drop_ins import is_written_by_rosterd, limits_text, placement_text, services_of, slice_of
from reconciler.core.findings import Finding, warning
from reconciler.core.observed import Observed
from reconciler.core.site import instance_of

_USER_SLICE = re.compile(r"user-(\d+)\.slice")


@dataclass(slots=True)
class LimitPlan:
    """What becomes of the limits."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def plan_limits(
    desired: Desired, observed: Observed, uids: Mapping[str, int], managed: Collection[str], refused: Collection[str]
) -> LimitPlan:
    """Compare the drop-ins that there are with those that the tiers ask for.

    `uids` are those of the people of the roster, of accounts that are to be made too. Of `managed` people who are
    not on the roster, and of those `refused`, nothing is changed; what rosterd wrote for nobody else is removed.
    """
    plan = LimitPlan()
    wanted: dict[str, tuple[DesiredUser, str]] = {}
    for user in desired.users.values():
        if user.limits.settings and user.name in uids and user.name not in refused:
            wanted |= {unit: (user, text) for unit, text in _drop_ins(user, uids[user.name])}
            plan.findings += _outside(user, slice_of(uids[user.name]), observed)
    there = observed.units.drop_ins
    if there is None:
        return plan
    for unit, (user, text) in wanted.items():
        if there.get(unit) != text:
            plan.actions.append(SetDropIn(user.name, unit, text, there.get(unit)))
    left_alone = (set(managed) - desired.users.keys()) | set(refused)
    for unit in sorted(there.keys() - wanted.keys()):
        owner = _owner_of(unit, observed)
        if owner not in left_alone and is_written_by_rosterd(there[unit]):
            plan.actions.append(SetDropIn(owner, unit, None, there[unit]))
    if observed.units.reload_due and not plan.actions:
        plan.actions.append(ReloadSystemd())
    return plan


def _drop_ins(user: DesiredUser, uid: int) -> Iterator[tuple[str, str]]:
    yield slice_of(uid), limits_text(user.limits)
    for service in user.services.values():
        if service.enabled:
            for unit in services_of(service.instances):
                yield unit, placement_text(slice_of(uid))


def _outside(user: DesiredUser, slice_name: str, observed: Observed) -> Iterator[Finding]:
    """Tell of services that run in another slice: they were started before, and moving them means a restart."""
    for service in user.services.values():
        for unit in service.instances:
            state = (observed.units.states or {}).get(unit)
            if state is None or state.sub == "exited":
                continue  # nothing of it runs anywhere
            if state.in_slice is False and service.running:
                yield warning(
                    user.name,
                    f"{service.name}: restart pending, {unit} runs outside of {slice_name}, so the limits of"
                    f" {user.tier} do not hold for it; when it suits the user: systemctl restart {unit}",
                    service.name,
                )


def _owner_of(unit: str, observed: Observed) -> str | None:
    """Return whose slice or instance a unit is; None where there is no such account."""
    if found := _USER_SLICE.fullmatch(unit):
        return observed.names_by_uid.get(int(found[1]))
    return instance_of(unit) if instance_of(unit) in observed.accounts else None
