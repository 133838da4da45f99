"""The guards: a run that would cut off many people, or everybody, does not by itself."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core import outputs
from reconciler.core.actions import Action, CuttingAction, Phase, WriteOutput
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
        findings=tuple(
            # They are told of a cut, which is not made now.
            found
            for found in plan.findings
            if found.user not in cuts or found.kind.is_problem
        ),
        held=plan.cuts or plan.present,
        why_held=why,
    )


def _why_held(plan: Plan, guards: Guards, allow_cuts: int | None) -> str | None:
    cuts = len(plan.cuts)
    meant = f"if it is meant: rosterd reconcile --allow-cuts {cuts}"
    if plan.last_admins:
        names = ", ".join(plan.last_admins)
        return f"no administrator could log in any more without {names}; let somebody else be one first"
    if allow_cuts is not None:
        if cuts <= allow_cuts:
            return None
        return f"{cuts} people would be cut off, --allow-cuts lets {allow_cuts}; {meant}"
    if plan.empty_roster and plan.present:
        return f"the roster has nobody in it, {len(plan.present)} are managed and {cuts} would be cut off now; {meant}"
    if cuts > guards.max_cuts and cuts * 100 > guards.max_cut_percent * len(plan.present):
        return (
            f"{cuts} of {len(plan.present)} people would be cut off, more than max_cuts {guards.max_cuts}"
            f" and {guards.max_cut_percent} %; {meant}"
        )
    return None


def _without_cuts(action: Action, cuts: frozenset[str], plan: Plan) -> Action | None:
    if isinstance(action, CuttingAction) and action.user in cuts:
        return None
    if isinstance(action, WriteOutput):
        return _with_lines_of_held(action, cuts, plan)
    return action


def _with_lines_of_held(action: WriteOutput, cuts: frozenset[str], plan: Plan) -> WriteOutput | None:
    """Keep the held people's lines in a map, as it is unmapped and as it is written after that."""
    ports = dict(plan.routed_ports)
    if action.phase is Phase.UNMAP:
        return _without_others(action, cuts, ports)
    unmapping = next(
        (
            other
            for other in plan.actions
            if isinstance(other, WriteOutput) and other.phase is Phase.UNMAP and other.output is action.output
        ),
        None,
    )
    if unmapping is not None:
        first = _without_others(unmapping, cuts, ports)
        action = replace(action, before=first.text if first else unmapping.before)
    kept = action.keeping(cuts, ports)
    return kept if kept.needed else None


def _without_others(unmapping: WriteOutput, cuts: frozenset[str], ports: dict[str, int | None]) -> WriteOutput | None:
    """Return what an unmapping is where some people are held; None where nobody else leaves."""
    kept = unmapping.keeping(cuts, ports)
    mapped = {route.user for route in outputs.parse(kept.output, kept.before)}
    return kept if mapped - {route.user for route in kept.routes} else None
