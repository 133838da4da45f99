"""The plan: what a run would do, as a sorted, printable value."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.core.actions import Action, HaltUnit, Phase, WriteOutput
from reconciler.core.desired import Desired
from reconciler.core.findings import Finding, conflict, warning
from reconciler.core.observed import Observed
from reconciler.core.plan_accounts import is_admin, managed_accounts, plan_accounts
from reconciler.core.plan_outputs import mapped_users, plan_outputs, routed_ports, unreadable_outputs
from reconciler.core.plan_ports import plan_ports, sticky_ports
from reconciler.core.plan_units import plan_units


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done and what is to be told.

    `actions` stand in the order of a run. `cuts` are the people whom the run would cut off: they have
    something to lose here and are not on the roster. `present` is everybody whom rosterd manages
    or maps, `empty_roster` says that nobody is on it. `held` are the cuts that a guard has stopped,
    `why_held` its reason. `routed_ports` are for maps that are written without some of their changes.
    """

    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    unseen: tuple[str, ...] = ()
    cuts: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    empty_roster: bool = False
    held: tuple[str, ...] = ()
    why_held: str = ""
    routed_ports: tuple[tuple[str, int | None], ...] = ()

    @property
    def has_problems(self) -> bool:
        """Whether something stands in the way that somebody has to see to."""
        return any(finding.kind.is_problem for finding in self.findings)


def make_plan(desired: Desired, observed: Observed) -> Plan:
    """Compare what is wanted with what is there. Pure: the same input gives the same plan."""
    managed, mapped = managed_accounts(observed), mapped_users(observed)
    present = managed | mapped
    gone = present - desired.users.keys()
    admins = frozenset(name for name in gone if is_admin(desired, observed, name))
    leaving = gone - admins
    accounts = plan_accounts(desired, observed)
    ports = plan_ports(desired, observed, accounts.refused)
    # Whoever only a map names is taken out of it; what they run is not rosterd's to stop.
    units = plan_units(desired, observed, accounts.refused, ports.blocked, leaving & managed)
    maps = plan_outputs(desired, observed, accounts.refused | admins, ports, leaving)
    actions = [*accounts.actions, *ports.actions, *units.actions, *maps]
    findings = [*accounts.findings, *ports.findings, *units.findings]
    findings += map(_unreadable, unreadable_outputs(observed))
    findings += [*map(_still_open, leaving & managed), *map(_only_mapped, leaving - managed)]
    findings += map(_kept_admin, admins)
    return Plan(
        actions=tuple(sorted(actions, key=_order)),
        findings=tuple(sorted(findings, key=lambda found: (found.user or "", found.kind, found.text))),
        unseen=observed.unseen,
        cuts=tuple(sorted(_losing(actions, leaving, mapped))),
        present=tuple(sorted(present)),
        empty_roster=not desired.users,
        routed_ports=tuple(sorted(routed_ports(desired, sticky_ports(observed) | ports.ports).items())),
    )


def _unreadable(path: str) -> Finding:
    return conflict(None, f"{path} is not of its format, so nobody's line in it is touched; mend or remove the file")


def _still_open(name: str) -> Finding:
    return warning(
        name,
        "not on the roster, but the account itself can still log in; this version does not lock it."
        f" To lock it: usermod --lock --expiredate 1 {name}",
    )


def _only_mapped(name: str) -> Finding:
    return warning(name, "a map names them, but they are not on the roster, and their account is not managed")


def _kept_admin(name: str) -> Finding:
    return conflict(
        name,
        "is an administrator and not on the roster; rosterd does not cut an administrator off by itself."
        " Put them back, or take them out of the groups of that tier",
    )


def _losing(actions: list[Action], leaving: frozenset[str], mapped: frozenset[str]) -> set[str]:
    """Return the people who are leaving and would lose something in this run."""
    halted = {action.user for action in actions if isinstance(action, HaltUnit) and action.user in leaving}
    unmapping = any(isinstance(action, WriteOutput) and action.phase is Phase.UNMAP for action in actions)
    return halted | (leaving & mapped if unmapping else set())


def _order(action: Action) -> tuple[Phase, str, str, tuple[str, ...]]:
    return (action.phase, action.user or "", action.kind, action.key)
