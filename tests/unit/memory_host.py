"""A host in memory: applies actions to an `Observed` as the real executor changes a real machine.

It is Host and Executor at once. `after` knows what each action does and what the tools refuse
(shadow-utils of Debian 12, systemd 252); a machine test holds it to the real thing. Faults are put in
by the two hooks of `MemoryHost`. Nothing here needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, assert_never

from reconciler.core.actions import (
    Action,
    AddSubids,
    AddToGroups,
    Adopt,
    CompleteGroup,
    CompleteShadow,
    ConfirmAccount,
    CreateAccount,
    CreateGroup,
    FillSkel,
    ForgetRecord,
    HaltUnit,
    MakeHome,
    RemoveGhost,
    RunUnit,
    SetHomeMode,
    WriteOutput,
    WritePort,
)
from reconciler.core.desired import Desired
from reconciler.core.observed import (
    Account,
    EnvFile,
    Group,
    Home,
    HomeKind,
    Listener,
    Observed,
    SubidRange,
    UnitState,
)
from reconciler.core.outcome import Outcome, Status
from reconciler.core.ports import port_number
from reconciler.core.site import template_of
from reconciler.errors import StepFailed

_T = TypeVar("_T")
_LAST_SYSTEM_GID = 999

DEBIAN_SKEL = (".bash_logout", ".bashrc", ".profile")


class ToolFailed(StepFailed):
    """A tool refused; `seen` is what the steps before it have left behind."""

    def __init__(self, why: str, seen: Observed) -> None:
        """Fail with the tool's words."""
        super().__init__(why)
        self.seen = seen


class MemoryHost:
    """A machine that is a value. `log` lists every action that was tried, in order.

    `fails` gives the reason why an action fails, None where it does not; `ignores` says of which
    actions success is reported although nothing happens.
    """

    def __init__(
        self,
        observed: Observed,
        fails: Callable[[Action], str | None] = lambda _action: None,
        ignores: Callable[[Action], bool] = lambda _action: False,
    ) -> None:
        """Start from `observed`."""
        self.observed = observed
        self.fails = fails
        self.ignores = ignores
        self.log: list[Action] = []

    def observe(self, desired: Desired) -> Observed:
        """Return what is there; everything is seen, whatever is desired."""
        del desired
        return self.observed

    def apply(self, actions: Sequence[Action]) -> Iterator[Outcome]:
        """Carry out the actions one after the other."""
        for action in actions:
            self.log.append(action)
            yield self._attempt(action)

    def _attempt(self, action: Action) -> Outcome:
        if (why := self.fails(action)) is not None:
            return Outcome(action, Status.FAILED, why)
        try:
            self.observed = self.observed if self.ignores(action) else after(self.observed, action)
        except ToolFailed as error:
            self.observed = error.seen
            return Outcome(action, Status.FAILED, str(error))
        return Outcome(action)


def after(seen: Observed, action: Action) -> Observed:  # noqa: C901, PLR0911, PLR0912 (one arm for each action)
    """Return what is on the host once the action is done. Raises `ToolFailed` where the tools would."""
    match action:
        case RemoveGhost():
            return _with_members(seen, action.group, remove=action.user)
        case CreateGroup():
            return _with_group(seen, Group(action.group, _system_gid(seen), frozenset()))
        case CreateAccount():
            return _with_account(seen, action)
        case Adopt():
            return _with_members(seen, action.group, add=action.user)
        case CompleteGroup():
            return _with_group(seen, Group(action.user, action.gid, frozenset()))
        case CompleteShadow():
            return replace(seen, shadow=(seen.shadow or frozenset()) | {action.user})
        case AddSubids():
            return _with_subids(seen, action)
        case MakeHome():
            return _with_home(seen, action.user)
        case SetHomeMode():
            home = Home(HomeKind.FOLDER, seen.accounts[action.user].uid, 0o700)
            return replace(seen, homes={**seen.homes, action.user: home})
        case FillSkel():
            return replace(seen, skel_gaps={**seen.skel_gaps, action.user: ()})
        case AddToGroups():
            for group in action.groups:
                seen = _with_members(seen, group, add=action.user)
            return seen
        case WritePort():
            file = EnvFile(exists=True, value=str(action.port))
            files = {**(seen.env_files or {}), (action.service, action.user): file}
            return replace(seen, env_files=files)
        case RunUnit():
            return _with_running(seen, action)
        case HaltUnit():
            return _without_running(seen, action)
        case WriteOutput():
            return replace(seen, outputs={**seen.outputs, action.output: action.text})
        case ConfirmAccount() | ForgetRecord():
            return replace(
                seen,
                intents=_without(seen.intents, action.user),
                intent_gids=_without(seen.intent_gids, action.user),
                skel_gaps=_without(seen.skel_gaps, action.user),
            )
        case _:
            assert_never(action)


def _with_account(seen: Observed, action: CreateAccount) -> Observed:
    """Create an account as `groupadd` and `useradd` do, after the record of it."""
    gid = action.uid if action.existing_gid is None else action.existing_gid
    seen = replace(
        seen,
        intents={**seen.intents, action.user: action.uid},
        intent_gids={**seen.intent_gids, action.user: gid},
    )
    if action.existing_gid is None:
        seen = _with_group(seen, Group(action.user, gid, frozenset()))
    if action.uid in seen.names_by_uid:
        raise ToolFailed(f"useradd exited 4: UID {action.uid} is not unique", seen)
    for group in action.groups:
        seen = _with_members(seen, group, add=action.user)
    return replace(
        seen,
        accounts={**seen.accounts, action.user: Account(action.user, action.uid, gid, action.home, action.shell)},
        shadow=(seen.shadow or frozenset()) | {action.user},
        subuids=_with_free_span(seen, seen.subuids, action),
        subgids=_with_free_span(seen, seen.subgids, action),
        homes={**seen.homes, action.user: Home(HomeKind.FOLDER, action.uid, 0o700)},
        skel_gaps={**seen.skel_gaps, action.user: ()},
    )


def _with_free_span(
    seen: Observed, ranges: tuple[SubidRange, ...] | None, action: CreateAccount
) -> tuple[SubidRange, ...] | None:
    """Add the lowest free range, as `useradd` does where the host keeps such ranges."""
    if ranges is None or not action.subids:
        return ranges
    first, count = seen.limits.subid_min, seen.limits.subid_count
    for span in sorted(ranges, key=lambda span: span.first):
        if first + count <= span.first:
            break
        first = max(first, span.first + span.count)
    return (*ranges, SubidRange(action.user, first, count))


def _with_home(seen: Observed, user: str) -> Observed:
    """Return the host with an empty home, and the record that asks for its skel."""
    account = seen.accounts[user]
    return replace(
        seen,
        homes={**seen.homes, user: Home(HomeKind.FOLDER, account.uid, 0o700)},
        intents={**seen.intents, user: account.uid},
        intent_gids={**seen.intent_gids, user: account.gid},
        skel_gaps={**seen.skel_gaps, user: DEBIAN_SKEL},
    )


def _with_subids(seen: Observed, action: AddSubids) -> Observed:
    subuids, subgids = seen.subuids or (), seen.subgids or ()
    if action.uids:
        subuids = (*subuids, _span(action.user, action.uids))
    if action.gids:
        subgids = (*subgids, _span(action.user, action.gids))
    return replace(seen, subuids=subuids, subgids=subgids)


def _span(user: str, bounds: tuple[int, int]) -> SubidRange:
    return SubidRange(user, bounds[0], bounds[1] - bounds[0] + 1)


def _with_group(seen: Observed, group: Group) -> Observed:
    if group.name in seen.groups:
        raise ToolFailed(f"groupadd exited 9: group '{group.name}' already exists", seen)
    if group.gid in seen.gids:
        raise ToolFailed(f"groupadd exited 4: GID '{group.gid}' already exists", seen)
    return replace(seen, groups={**seen.groups, group.name: group})


def _with_members(seen: Observed, group: str, add: str = "", remove: str = "") -> Observed:
    if group not in seen.groups:
        raise ToolFailed(f"gpasswd exited 3: group '{group}' does not exist in /etc/group", seen)
    members = (seen.groups[group].members | {add}) - {remove, ""}
    return replace(seen, groups={**seen.groups, group: replace(seen.groups[group], members=members)})


def _system_gid(seen: Observed) -> int:
    return next(gid for gid in range(_LAST_SYSTEM_GID, 0, -1) if gid not in seen.gids)


def _with_running(seen: Observed, action: RunUnit) -> Observed:
    """Enable and start a unit. A service that finds its port taken fails after the start job is done."""
    units = seen.units
    if template_of(action.unit) not in units.templates:
        raise ToolFailed(f"{action.unit}: Unit file {template_of(action.unit)} does not exist.", seen)
    if action.enable:
        units = replace(units, enabled=units.enabled | {action.unit})
    port = _port_of(seen, action) if action.start else None
    state = UnitState("active", "running" if action.unit.endswith(".service") else "waiting")
    if port is not None and any(listener.port == port for listener in seen.listeners):
        state = UnitState("failed", "failed")
    elif port is not None:
        listener = Listener(port, seen.accounts[action.user].uid, action.unit)
        seen = replace(seen, listeners=(*seen.listeners, listener))
    if action.start:
        units = replace(units, states={**(units.states or {}), action.unit: state})
    return replace(seen, units=units)


def _port_of(seen: Observed, action: RunUnit) -> int | None:
    file = (seen.env_files or {}).get((action.service, action.user))
    if file is None or file.value is None or not action.unit.endswith(".service"):
        return None
    return port_number(file.value)


def _without_running(seen: Observed, action: HaltUnit) -> Observed:
    """Stop and disable a unit; systemd forgets one that is neither."""
    units = seen.units
    if action.stop:
        units = replace(units, states=_without(units.states or {}, action.unit))
        listeners = tuple(found for found in seen.listeners if found.unit != action.unit)
        seen = replace(seen, listeners=listeners)
    if action.disable:
        units = replace(units, enabled=units.enabled - {action.unit})
    return replace(seen, units=units)


def _without(table: Mapping[str, _T], key: str) -> dict[str, _T]:
    return {name: value for name, value in table.items() if name != key}
