"""The plan: what a run would do, as a sorted, printable value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.core import outputs
from reconciler.core.actions import (
    Action,
    CreateAccount,
    CuttingAction,
    Phase,
    ReloadProxy,
    TakeHomeStep,
    WriteOutput,
)
from reconciler.core.desired import Desired
from reconciler.core.findings import Finding, conflict, warning
from reconciler.core.observed import Observed
from reconciler.core.plan_accounts import is_admin, managed_accounts, plan_accounts
from reconciler.core.plan_cuts import commanded, last_admins, misrecorded, other_account, plan_cuts, recorded, without
from reconciler.core.plan_homes import plan_homes
from reconciler.core.plan_limits import plan_limits
from reconciler.core.plan_outputs import (
    absent_proxies,
    mapped_users,
    plan_outputs,
    plan_reloads,
    routed_ports,
    unreadable_outputs,
)
from reconciler.core.plan_ports import plan_ports
from reconciler.core.plan_returns import plan_returns, unrecorded
from reconciler.core.plan_steps import plan_identities, plan_steps
from reconciler.core.plan_units import Starting, plan_units
from reconciler.core.ports import Holder
from reconciler.core.site import Proxy


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done and what is to be told.

    `actions` stand in the order of a run. `cuts` are the people whom the run would cut off: they have
    something to lose here and are not on the roster. `present` is everybody whom rosterd manages
    or maps and is not cut off already, `last_admins` are administrators whose cut would leave none who can
    log in, `empty_roster` says that nobody is on it. `held` are the cuts that a guard has stopped,
    `why_held` its reason. `routed_ports` are for maps that are written without some of their changes. `ports` are
    those of each user and service, new ones too, `starting` the services that cannot be judged yet.
    """

    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    unseen: tuple[str, ...] = ()
    cuts: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    last_admins: tuple[str, ...] = ()
    empty_roster: bool = False
    held: tuple[str, ...] = ()
    why_held: str = ""
    routed_ports: tuple[tuple[str, int | None], ...] = ()
    ports: Mapping[Holder, int] = field(default_factory=dict)
    starting: tuple[Starting, ...] = ()

    @property
    def has_problems(self) -> bool:
        """Whether something stands in the way that somebody has to see to."""
        return any(finding.kind.is_problem for finding in self.findings)


def make_plan(desired: Desired, observed: Observed) -> Plan:
    """Compare what is wanted with what is there. Pure: the same input gives the same plan."""
    by_command = commanded(desired, observed)
    wanted = without(desired, by_command)
    managed, mapped = managed_accounts(observed), mapped_users(observed)
    done, others = recorded(observed), misrecorded(observed)
    gone = (managed | mapped) - wanted.users.keys()
    admins = frozenset(name for name in gone - by_command - done - others if is_admin(desired, observed, name))
    leaving = gone - admins - others
    cut = leaving & managed
    accounts = plan_accounts(wanted, observed)
    ports = plan_ports(wanted, observed, accounts.refused)
    # Whoever only a map names is taken out of it; what they run is not rosterd's to stop.
    units = plan_units(wanted, observed, accounts.refused, ports, cut)
    limits = plan_limits(wanted, observed, _uids(wanted, observed, accounts.actions), managed, accounts.refused)
    maps = plan_outputs(wanted, observed, accounts.refused | admins | others, ports, leaving)
    known_ports = {**observed.sticky_ports, **ports.ports}
    homes = plan_homes(wanted, observed, accounts.refused, known_ports)
    cuts = plan_cuts(desired, observed, cut)
    returns = plan_returns(desired, observed, wanted.users.keys() - accounts.refused)
    steps = plan_steps(desired, observed, cut)
    actions = [*accounts.actions, *ports.actions, *limits.actions, *units.actions, *maps, *homes.actions]
    actions += [*cuts.actions, *returns, *steps.actions, *plan_identities(desired, observed, cut | admins)]
    actions += plan_reloads(desired, observed)
    findings = [*accounts.findings, *ports.findings, *limits.findings, *units.findings, *homes.findings]
    findings += [*cuts.findings, *steps.findings]
    findings += [*map(_unreadable, unreadable_outputs(observed)), *absent_proxies(desired, observed)]
    findings += [*_half_deleted(wanted, observed), *unrecorded(observed, wanted.users.keys() & managed)]
    findings += [*map(_only_mapped, leaving - managed), *map(_kept_admin, admins)]
    findings += [conflict(name, other_account(name, observed)) for name in others & gone]
    return Plan(
        actions=tuple(sorted(actions, key=_order)),
        findings=_sorted(findings),
        unseen=observed.unseen,
        cuts=tuple(sorted(_losing(actions, leaving, mapped) - done)),
        present=tuple(sorted((managed | mapped) - done)),
        last_admins=tuple(sorted(last_admins(desired, observed, cut - done))),
        empty_roster=not desired.users,
        routed_ports=tuple(sorted(routed_ports(desired, known_ports).items())),
        ports=ports.ports,
        starting=tuple(units.starting),
    )


def _uids(wanted: Desired, observed: Observed, actions: Sequence[Action]) -> dict[str, int]:
    """Return the uids of the people of the roster, of those too whose account is to be made."""
    there = {name: observed.accounts[name].uid for name in wanted.users if name in observed.accounts}
    return there | {action.user: action.uid for action in actions if isinstance(action, CreateAccount)}


def judged(plan: Plan) -> Plan:
    """Return the plan in which what is still starting is not well: it had its time."""
    findings = (*plan.findings, *(service.otherwise for service in plan.starting))
    return replace(plan, findings=_sorted(findings), starting=())


def put_off(plan: Plan) -> Plan:
    """Return the plan that says of what is still starting that this run does not tell whether it is well."""
    told = (
        warning(
            one.otherwise.user,
            f"{one.otherwise.service}: started; whether it is well, the next run tells",
            one.otherwise.service,
        )
        for one in plan.starting
    )
    return replace(plan, findings=_sorted([*plan.findings, *told]))


def only(plan: Plan, name: str) -> Plan:
    """Return what of a plan concerns one person; in the maps everybody else's lines stay as they are."""
    maps = {action.output: action for action in plan.actions if isinstance(action, WriteOutput)}
    originals = {
        action.output: action.before
        for action in reversed(plan.actions)  # the last to count is the first of a run: it has the file as it is
        if isinstance(action, WriteOutput)
    }
    kept = [_only_lines_of(name, replace(action, before=originals[kind]), plan) for kind, action in maps.items()]
    # A proxy that is to be reloaded may still let them in.
    actions: list[Action] = [
        action for action in plan.actions if action.user == name or isinstance(action, ReloadProxy)
    ]
    # A map that is not there, and would not have them either, is for a run to make.
    actions += [action for action in kept if action.needed and (action.before is not None or action.routes)]
    findings = (
        found for found in plan.findings if found.user == name or (found.user is None and found.kind.is_problem)
    )
    return replace(
        plan,
        actions=tuple(sorted(actions, key=_order)),
        findings=tuple(findings),
        cuts=tuple(cut for cut in plan.cuts if cut == name),
        starting=tuple(one for one in plan.starting if one.otherwise.user == name),
    )


def _only_lines_of(name: str, action: WriteOutput, plan: Plan) -> WriteOutput:
    """Reduce the last change of a map to one person's line; taking it out comes first in a run."""
    mapped = {route.user for route in outputs.parse(action.output, action.before)}
    wanted = {route.user for route in action.routes}
    phase = Phase.UNMAP if name in mapped - wanted else action.phase
    return replace(action.keeping((mapped | wanted) - {name}, dict(plan.routed_ports)), phase=phase)


def _unreadable(path: str) -> Finding:
    return conflict(None, f"{path} is not of its format, so nobody's line in it is touched; mend or remove the file")


def _only_mapped(name: str) -> Finding:
    return warning(name, "a map names them, but they are not on the roster, and their account is not managed")


def _half_deleted(wanted: Desired, observed: Observed) -> list[Finding]:
    """Tell of deletions that were interrupted; of people on the roster it is told why they are refused."""
    stones = observed.on_record.tombstones
    return [
        warning(name, f"is half deleted; to finish: rosterd destroy {name}; to take it back: rosterd restore {name}")
        for name, stone in stones.items()
        if not stone.complete and name not in wanted.users
    ]


def _kept_admin(name: str) -> Finding:
    return conflict(
        name,
        "is an administrator and not on the roster; rosterd does not cut an administrator off by itself."
        " Put them back, or take them out of the groups of that tier",
    )


def _losing(actions: list[Action], leaving: frozenset[str], mapped: frozenset[str]) -> set[str]:
    """Return the people who are leaving and would lose something in this run."""
    halted = {action.user for action in actions if isinstance(action, CuttingAction) and action.user in leaving}
    unmapping = any(isinstance(action, WriteOutput) and action.phase is Phase.UNMAP for action in actions)
    return halted | (leaving & mapped if unmapping else set())


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda found: (found.user or "", found.kind, found.text)))


def _order(action: Action) -> tuple[Phase, str, int, str, tuple[str, ...]]:
    return (action.phase, action.user or "", _place(action), action.kind, action.key)


def _place(action: Action) -> int:
    match action:
        case TakeHomeStep():
            return action.place
        case ReloadProxy() | WriteOutput(proxy=Proxy()):
            return 1  # a check takes its time, and no other map waits for it
        case _:
            return 0
