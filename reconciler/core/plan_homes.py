"""Homes: which steps are due in whose home, and which old units make way for a service."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from reconciler.core.actions import Action, RetireUnits, TakeHomeStep
from reconciler.core.days import shown_time
from reconciler.core.desired import Desired, DesiredUser
from reconciler.core.findings import Finding, FindingKind, conflict, warning
from reconciler.core.home_records import StepRecord
from reconciler.core.home_steps import Ending, FileStep, HomeStep, Keep, McpStep, RetireStep, filled
from reconciler.core.observed import HomeWork, Observed
from reconciler.core.plan_accounts import home_of
from reconciler.core.ports import Holder

_RETIRE_SECONDS = 60
_HOUR = 3600


@dataclass(slots=True)
class HomePlan:
    """What becomes of the homes."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def plan_homes(desired: Desired, observed: Observed, refused: Collection[str], ports: Mapping[Holder, int]) -> HomePlan:
    """Compare the steps that people are to have in their homes with what is on record of them.

    `refused` people are left alone. Of who is parked only the old units are moved out of the way.
    """
    plan = HomePlan()
    work = observed.home_work
    if work is None:
        return plan
    for user in desired.users.values():
        if user.name in refused:
            continue
        account = observed.accounts.get(user.name)
        if account is not None:
            plan.actions += _retirements(user, account.home, observed)
        if not user.parked:
            home = home_of(user.name) if account is None else account.home
            _plan_steps(user, home, _steps_of(user, home, ports), observed, work, plan, retry=desired.retry)
    return plan


def _retirements(user: DesiredUser, home: str, observed: Observed) -> Iterator[RetireUnits]:
    """Move a person's own old units out of the way of a service that they have."""
    for service in user.services.values():
        units = observed.legacy_units_of(user.name, service.name)
        if units and service.enabled:
            step = HomeStep(service.name, RetireStep(units), _RETIRE_SECONDS)
            yield RetireUnits(user.name, service.name, home, step)


def _steps_of(user: DesiredUser, home: str, ports: Mapping[Holder, int]) -> Iterator[HomeStep]:
    """Return a person's steps; one with the port of a service that they do not have is not for them."""
    values = {"user": user.name, "tier": user.tier, "home": home}
    for service in user.services.values():
        if service.enabled and (user.name, service.name) in ports:
            values[f"port.{service.name}"] = str(ports[user.name, service.name])
    for step in user.steps:
        body = filled(step.body, values)
        if body is not None:
            yield replace(step, body=body)


def _plan_steps(  # noqa: PLR0913 (the whole of a person's plan meets here)
    user: DesiredUser,
    home: str,
    steps: Iterator[HomeStep],
    observed: Observed,
    work: HomeWork,
    plan: HomePlan,
    *,
    retry: bool,
) -> None:
    records = work.records.get(user.name, {})
    waiting: list[str] = []
    for place, step in enumerate(steps):
        source = work.sources.get(step.body.source or "") if isinstance(step.body, FileStep) else None
        if any(step.is_below(name) for name in waiting) or _is_left_out(user.name, step, work):
            continue
        if source is not None and source.problem:
            plan.findings.append(conflict(user.name, f"home step {step.name}: {source.problem}"))
            continue
        record = records.get(step.name)
        current = isinstance(step.body, FileStep) and step.body.keep is Keep.CURRENT
        digest = step.digest(source.state if source and current else "")
        changed = work.changed.get((user.name, step.name), "")
        if why := _why_due(step, digest, record, changed, observed.now, retry=retry):
            plan.actions.append(TakeHomeStep(user.name, home, step, digest, why, is_first=record is None, place=place))
        elif record is not None and not record.went_well:
            waiting.append(step.name)
            plan.findings.append(_not_well(user.name, step, record))


def _is_left_out(user: str, step: HomeStep, work: HomeWork) -> bool:
    """Say whether what a step needs is not on this machine: an agent, a file of root's."""
    if isinstance(step.body, McpStep):
        return user not in work.with_agent
    return isinstance(step.body, FileStep) and step.body.source is not None and step.body.source not in work.sources


def _why_due(  # noqa: PLR0913 (one reason a line)
    step: HomeStep, digest: str, record: StepRecord | None, changed: str, now: int, *, retry: bool
) -> str:
    """Return why a step is to be taken in this run, nothing where it is not."""
    if record is None:
        return "not done yet"
    if record.digest != digest:
        return "its definition has changed"
    if changed and record.ending is not Ending.FAILED:
        return f"{changed} has changed"
    if not record.went_well:
        rests = record.is_within(record.pause, now) and not retry
        return "" if rests else f"{record.failures} times without success"
    if step.refresh and not record.is_within(step.refresh * _HOUR, now):
        return f"looked at last {shown_time(record.at)}"
    return ""


def _not_well(user: str, step: HomeStep, record: StepRecord) -> Finding:
    text = f"home step {step.name}: {record.detail}"
    if record.ending is Ending.BLOCKED:
        return warning(user, text)
    tries = "once" if record.failures == 1 else f"{record.failures} times"
    again = f"tried {tries}, again after {shown_time(record.at + record.pause)} or with --retry"
    return Finding(user, FindingKind.UNHEALTHY, f"{text} ({again})")
