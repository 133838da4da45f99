"""The steps outside of this machine for people who left, and the names that those are taken by."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from reconciler.core.actions import RecordIdentities, RunHook
from reconciler.core.desired import Desired
from reconciler.core.findings import Finding, FindingKind
from reconciler.core.observed import Observed
from reconciler.core.plan_cuts import CutPlan, record_of
from reconciler.core.records import Identity, Step
from reconciler.core.site import Hook


def plan_steps(desired: Desired, observed: Observed, leaving: Collection[str]) -> CutPlan:
    """Plan the steps outside of this machine for those cut off or deleted: a hook takes them, else they are pending."""
    plan = CutPlan()
    records = observed.records
    if records is None:
        return plan
    cut = {name: records.cuts.get(name) or record_of(name, desired, observed, records) for name in leaving}
    deleted = {name: stone.cut for name, stone in records.tombstones.items()}
    for name, record in sorted((deleted | cut).items()):
        for step in Step:
            if step not in record.done:
                _plan_step(name, step, desired.hooks.get(step), record.identity, plan)
    return plan


def plan_identities(desired: Desired, observed: Observed, leaving: Collection[str]) -> Iterator[RecordIdentities]:
    """Keep what people are called elsewhere up to date; of those who leave, until their cut is on record."""
    records = observed.records
    if records is None:
        return
    wanted = {user.name: Identity(user.identity, user.k8s_user) for user in desired.users.values()}
    for name in set(leaving) - records.cuts.keys():
        if name in records.identities:
            wanted.setdefault(name, records.identities[name])
    if wanted != records.identities:
        yield RecordIdentities(tuple(sorted(wanted.items(), key=lambda item: item[0])), len(records.identities))


def _plan_step(name: str, step: Step, hook: Hook | None, identity: Identity | None, plan: CutPlan) -> None:
    by_hand = f"take it by hand, then: rosterd done {name} {step}"
    if hook is None:
        told = f" (k8s {identity.k8s_user}, authentik {identity.authentik_user})" if identity else ""
        text = f"{step}{told}: no hook is set for it; {by_hand}"
    elif (command := _filled(hook.command, name, identity)) is None:
        text = f"{step}: its hook needs an identity that is not on record; {by_hand}"
    else:
        plan.actions.append(RunHook(name, step, command, hook.timeout))
        return
    plan.findings.append(Finding(name, FindingKind.PENDING, text))


def _filled(command: tuple[str, ...], name: str, identity: Identity | None) -> tuple[str, ...] | None:
    """Put the names into a hook's arguments; None where one is needed that is not known."""
    known: Mapping[str, str] = {"{user}": name}
    if identity is not None:
        known = {**known, "{authentik_user}": identity.authentik_user, "{k8s_user}": identity.k8s_user}
    elif any(word in argument for argument in command for word in ("{authentik_user}", "{k8s_user}")):
        return None
    filled = list(command)
    for word, value in known.items():
        filled = [argument.replace(word, value) for argument in filled]
    return tuple(filled)
