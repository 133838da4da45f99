"""Why everything of one person is as it is: what is wanted and why, what is there, what a run would do. No I/O here.

The plan is the oracle for what a run would do: each of its actions and findings for the person stands at the attribute
that it belongs to, at exactly one.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from reconciler.core import explain_leaving as leaving
from reconciler.core import explain_services as services
from reconciler.core.actions import (
    Action,
    AddSubids,
    AddToGroups,
    Adopt,
    CompleteGroup,
    CompleteGroupShadow,
    CompleteShadow,
    ConfirmAccount,
    CreateAccount,
    CreateGroup,
    EndProcesses,
    FillSkel,
    ForgetCut,
    ForgetRecord,
    HaltUnit,
    HoldJobs,
    LockAccount,
    MakeHome,
    OpenLogin,
    RecordCut,
    RecordIdentities,
    ReloadProxy,
    ReloadSystemd,
    RemoveGhost,
    ResumeJobs,
    RetireUnits,
    RunHook,
    RunUnit,
    SetCutReason,
    SetDropIn,
    SetHomeMode,
    SetLinger,
    TakeHomeStep,
    WriteOutput,
    WritePort,
)
from reconciler.core.explain_account import (
    LIMITS,
    LOGIN,
    SUBIDS,
    account_attributes,
    group_attributes,
    roster_attributes,
)
from reconciler.core.explain_homes import home_attributes
from reconciler.core.explain_standing import standing
from reconciler.core.explanation import (
    ACCOUNT,
    GROUPS,
    HOME,
    LEAVING,
    MAPS,
    ROSTER,
    Attribute,
    Case,
    Explanation,
    Spot,
    service_topic,
)
from reconciler.core.findings import Finding
from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import Observed, Presence
from reconciler.core.plan import Plan, only
from reconciler.core.plan_accounts import managed_accounts
from reconciler.core.plan_outputs import mapped_users
from reconciler.core.records import Step
from reconciler.core.roster import Roster
from reconciler.core.text import escaped
from reconciler.errors import UnknownName

_STEP = "home step "


def explain(case: Case, stopped: str = "") -> Explanation:
    """Explain one person; `stopped` is why a run would end before it has changed anything, if it would."""
    state, because, remedy = standing(case)
    attributes = [
        *roster_attributes(case),
        *account_attributes(case),
        *leaving.leaving_attributes(case),
        *group_attributes(case),
        *services.service_attributes(case),
        *services.map_attributes(case),
        *home_attributes(case),
    ]
    units = case.observed.units
    return Explanation(
        case.name,
        state,
        because,
        remedy,
        tuple(_with_plan(attributes, case)),
        held=case.plan.why_held if case.name in case.plan.held else "",
        unseen=(*case.observed.unseen, *([f"units ({units.why})"] if units.states is None else [])),
        stopped=stopped,
    )


def check_known(name: str, roster: Roster, observed: Observed, plan: Plan) -> None:
    """See that there is something to explain of a name. Raises `UnknownName`, with the name that may be meant."""
    records = observed.on_record
    known = {*roster.users, *records.cuts, *records.tombstones, *observed.intents}
    known |= managed_accounts(observed) | mapped_users(observed)
    known |= {told.user for told in (*plan.actions, *plan.findings) if told.user}
    if name in known:
        return
    near = difflib.get_close_matches(name, sorted(known), n=1)
    meant = f"; did you mean '{escaped(near[0])}'?" if near else ""
    unseen = "; only root can see who was deleted" if observed.records is None else ""
    has = "has an account that rosterd does not manage, and is" if name in observed.accounts else "is"
    raise UnknownName(f"'{name}' {has} neither on the roster, nor managed, nor cut off, nor deleted{meant}{unseen}")


# --- what a run would do, at the attribute that it belongs to ---


def _with_plan(attributes: list[Attribute], case: Case) -> Iterator[Attribute]:
    spots = {attribute.spot for attribute in attributes}
    first = (ACCOUNT, "account")
    actions: dict[Spot, list[Action]] = defaultdict(list)
    findings: dict[Spot, list[Finding]] = defaultdict(list)
    for action in _actions(case):
        spot = spot_of(action)
        actions[spot if spot in spots else first].append(action)
    for finding in case.plan.findings:
        if finding.user == case.name:
            spot = _spot_of_finding(finding, case)
            findings[spot if spot in spots else first].append(finding)
    for attribute in attributes:
        found = tuple(actions[attribute.spot]), tuple(findings[attribute.spot])
        yield replace(attribute, actions=found[0], findings=found[1])


def _actions(case: Case) -> Iterator[Action]:
    """Yield what a run would do for the person, and what it would do for nobody in particular that concerns them.

    Of a change to a map that is what becomes of their line.
    """
    yield from (action for action in only(case.plan, case.name).actions if _concerns(action, case))
    wanted = () if case.wanted is None else (*case.wanted.groups, MANAGED_GROUP)
    for action in case.plan.actions:
        if isinstance(action, CreateGroup) and action.group in wanted:
            yield action
        if isinstance(action, RecordIdentities) and _is_renamed(action, case):
            yield action


def _concerns(action: Action, case: Case) -> bool:
    if not isinstance(action, WriteOutput):
        return True
    before, after = (services.lines_of(case.name, action.output, text) for text in (action.before, action.text))
    return before != after


def _is_renamed(action: RecordIdentities, case: Case) -> bool:
    return dict(action.identities).get(case.name) != case.observed.on_record.identities.get(case.name)


def spot_of(action: Action) -> Spot:  # noqa: C901, PLR0911, PLR0912 (one arm for each kind)
    """Return the attribute that an action changes."""
    match action:
        case CreateAccount() | Adopt() | CompleteGroup() | CompleteGroupShadow():
            return (ACCOUNT, "account")
        case ConfirmAccount() | ForgetRecord() | RemoveGhost():
            return (ACCOUNT, "account")
        case CompleteShadow() | LockAccount() | OpenLogin():
            return (ACCOUNT, LOGIN)
        case AddSubids():
            return (ACCOUNT, SUBIDS)
        case MakeHome() | SetHomeMode() | FillSkel():
            return (ACCOUNT, "home")
        case SetDropIn() | ReloadSystemd():
            return (ACCOUNT, LIMITS)
        case AddToGroups(groups=(group, *_)) | CreateGroup(group=group):
            return (GROUPS, group)
        case AddToGroups():
            return (GROUPS, "")
        case WritePort():
            return (service_topic(action.service), services.PORT)
        case RunUnit(service="") | HaltUnit(service=""):
            return (LEAVING, leaving.UNITS)
        case RunUnit() | HaltUnit():
            return (service_topic(action.service), action.unit)
        case RetireUnits():
            return (service_topic(action.service), services.LEGACY)
        case WriteOutput() | ReloadProxy():
            return (MAPS, action.output.path)
        case TakeHomeStep():
            return (HOME, action.step.name)
        case RecordCut() | SetCutReason() | ForgetCut():
            return (LEAVING, leaving.RECORD)
        case HoldJobs() | ResumeJobs():
            return (LEAVING, leaving.JOBS)
        case SetLinger():
            return (LEAVING, leaving.LINGERING)
        case EndProcesses():
            return (LEAVING, leaving.PROCESSES)
        case RunHook():
            return (LEAVING, action.step)
        case RecordIdentities():
            return (ROSTER, "authentik_user")
        case _:
            assert_never(action)


def _spot_of_finding(finding: Finding, case: Case) -> Spot:
    """Return the attribute that a finding is about, which its text begins with; the account if it names none."""
    head = finding.text.partition(": ")[0]
    if head in case.site.services:
        return _spot_in_service(head, finding.text, case)
    if head.startswith(_STEP):
        return (HOME, head.removeprefix(_STEP))
    word = head.partition(" ")[0]
    if word in list(Step):
        return (LEAVING, word)
    if word in ("home", "shell"):
        return (ACCOUNT, word)
    if any(unit.name in finding.text for unit in case.observed.presence.get(case.name, Presence()).units):
        return (LEAVING, leaving.UNITS)
    return (ACCOUNT, "account")


def _spot_in_service(service: str, text: str, case: Case) -> Spot:
    units = case.site.services[service].instances(case.name)
    unit = next((unit for unit in units if unit in text), None)
    has_port = case.site.services[service].port is not None
    return (service_topic(service), unit or (services.PORT if has_port else services.SWITCH))
