"""The guards: a run that would cut off many people, or everybody, does not by itself."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.actions import Action, HaltUnit, Phase, WriteOutput
from reconciler.core.plan import Plan
from reconciler.core.site import Guards


def guard(plan: Plan, guards: Guards, allow_cuts: int | None = None) -> Plan:
    """Return the plan as it may be carried out: unchanged, or with every cut taken out and held.

    `allow_cuts` is how many an administrator lets through this once.
    """
    why = _why_held(plan, guards, allow_cuts)
    if why is None:
        return plan
    cuts = frozenset(plan.cuts)
    kept = (_without_cuts(action, cuts, plan) for action in plan.actions)
    return replace(
        plan,
        actions=tuple(action for action in kept if action is not None),
        held=plan.cuts or plan.present,
        why_held=f"{why}; if it is meant: rosterd reconcile --allow-cuts {len(plan.cuts)}",
    )


def _why_held(plan: Plan, guards: Guards, allow_cuts: int | None) -> str | None:
    cuts = len(plan.cuts)
    if allow_cuts is not None:
        return None if cuts <= allow_cuts else f"{cuts} people would be cut off, --allow-cuts lets {allow_cuts}"
    if plan.empty_roster and plan.present:
        return f"the roster has nobody in it, {len(plan.present)} are managed and {cuts} would be cut off now"
    if cuts > guards.max_cuts and cuts * 100 > guards.max_cut_percent * len(plan.present):
        return (
            f"{cuts} of {len(plan.present)} people would be cut off, more than max_cuts {guards.max_cuts}"
            f" and {guards.max_cut_percent} %"
        )
    return None


def _without_cuts(action: Action, cuts: frozenset[str], plan: Plan) -> Action | None:
    if isinstance(action, HaltUnit) and action.user in cuts:
        return None
    if isinstance(action, WriteOutput):
        return _with_lines_of_held(action, cuts, plan)
    return action


def _with_lines_of_held(action: WriteOutput, cuts: frozenset[str], plan: Plan) -> WriteOutput | None:
    """Drop the unmapping, and keep the held people's lines in the map as it is written."""
    if action.phase is Phase.UNMAP:
        return None
    unmapping = next(
        (
            other
            for other in plan.actions
            if isinstance(other, WriteOutput) and other.phase is Phase.UNMAP and other.output is action.output
        ),
        None,
    )
    original = replace(action, before=unmapping.before) if unmapping else action
    kept = original.keeping(cuts, dict(plan.routed_ports))
    return kept if kept.needed else None
