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
from reconciler.core.desired import Desired
from reconciler.core.home_records import StepRecord
from reconciler.core.home_steps import Ending, RetireStep
from reconciler.core.observed import (
    Account,
    EnvFile,
    Group,
    Home,
    HomeKind,
    HomeWork,
    Listener,
    Login,
    Observed,
    Presence,
    ProxyState,
    SubidRange,
    UnitState,
)
from reconciler.core.outcome import Outcome, Status
from reconciler.core.plan_cuts import concerned
from reconciler.core.ports import port_number
from reconciler.core.records import CutRecord, Records, Step
from reconciler.core.site import OutputKind, template_of
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
    """A machine that is a value. `log` lists every action that was tried, in order, `looks` how often it was looked at.

    `fails` gives the reason why an action fails, None where it does not; `ignores` says of which
    actions success is reported although nothing happens; `listens` how many seconds after its start a unit
    listens on its port, None for never. Time goes on only where somebody sleeps.
    """

    def __init__(
        self,
        observed: Observed,
        fails: Callable[[Action], str | None] = lambda _action: None,
        ignores: Callable[[Action], bool] = lambda _action: False,
        listens: Callable[[str], float | None] = lambda _unit: 0.0,
    ) -> None:
        """Start from `observed`."""
        self.observed = observed
        self.fails = fails
        self.ignores = ignores
        self.listens = listens
        self.log: list[Action] = []
        self.looks = 0
        self.clock = 0.0
        self._started: dict[str, float] = {}

    def observe(self, desired: Desired) -> Observed:
        """Return what is there; only what people have running is looked at for few, as on a machine."""
        self.looks += 1
        seen = self.observed
        asked = concerned(desired, seen)
        presence = {name: found for name, found in seen.presence.items() if name in asked}
        return replace(
            seen,
            presence=presence,
            containers=seen.containers if asked else (),
            units=replace(seen.units, states=self._states()),
            listeners=tuple(found for found in seen.listeners if self._is_listening(found.unit)),
        )

    def sleep(self, seconds: float) -> None:
        """Let time go on."""
        self.clock += seconds

    def _states(self) -> Mapping[str, UnitState] | None:
        """Return the units, each up since it was started here, or for longer than at the beginning."""
        states = self.observed.units.states
        if states is None:
            return None
        return {name: replace(state, up=self._up(name, state)) for name, state in states.items()}

    def _up(self, unit: str, state: UnitState) -> float | None:
        if unit in self._started:
            return self.clock - self._started[unit]
        return None if state.up is None else state.up + self.clock

    def _is_listening(self, unit: str | None) -> bool:
        if unit not in self._started:
            return True
        seconds = self.listens(unit)
        return seconds is not None and self.clock - self._started[unit] >= seconds

    def apply(self, actions: Sequence[Action]) -> Iterator[Outcome]:
        """Carry out the actions one after the other."""
        for action in actions:
            self.log.append(action)
            yield self._attempt(action)

    def _attempt(self, action: Action) -> Outcome:
        if (why := self.fails(action)) is not None:
            return Outcome(action, Status.FAILED, why)
        try:
            if not self.ignores(action):
                self.observed = after(self.observed, action)
                if isinstance(action, RunUnit) and action.start:
                    self._started[action.unit] = self.clock
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
        case CompleteGroupShadow():
            return replace(seen, shadow_groups=(seen.shadow_groups or frozenset()) | {action.user})
        case CompleteShadow():
            return _with_login(seen, action.user, Login())
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
        case SetDropIn():
            drop_ins = {unit: text for unit, text in (seen.units.drop_ins or {}).items() if unit != action.unit}
            drop_ins |= {} if action.text is None else {action.unit: action.text}
            return replace(seen, units=replace(seen.units, drop_ins=drop_ins, reload_due=False))
        case ReloadSystemd():
            return replace(seen, units=replace(seen.units, reload_due=False))
        case RunUnit():
            return _with_running(seen, action)
        case HaltUnit():
            return _without_running(seen, action)
        case WriteOutput():
            seen = replace(seen, outputs={**seen.outputs, action.output: action.text})
            return seen if action.proxy is None else _with_proxy_reloaded(seen, action.output)
        case ReloadProxy():
            return _with_proxy_reloaded(seen, action.output)
        case ConfirmAccount() | ForgetRecord():
            return replace(
                seen,
                intents=_without(seen.intents, action.user),
                intent_gids=_without(seen.intent_gids, action.user),
                skel_gaps=_without(seen.skel_gaps, action.user),
            )
        case ForgetCut():
            # What is held still is set aside, where no look finds it.
            left = replace(_presence(seen, action.user), held_crontab=False, held_at_jobs=(), late_at_jobs=())
            return replace(_with_presence(seen, action.user, left), records=_records_after(seen, action))
        case RecordCut() | SetCutReason() | RunHook() | RecordIdentities():
            return replace(seen, records=_records_after(seen, action))
        case LockAccount():
            return _locked(seen, action.user)
        case OpenLogin():
            return _opened(seen, action)
        case HoldJobs():
            return _with_presence(seen, action.user, _holding(_presence(seen, action.user), action, seen.now))
        case ResumeJobs():
            return _with_presence(seen, action.user, _resuming(seen, action))
        case SetLinger():
            # logind starts a person's own manager with it.
            found = _presence(seen, action.user)
            found = replace(found, lingering=action.on, slice_active=found.slice_active or action.on)
            return _with_presence(seen, action.user, found)
        case EndProcesses():
            return _without_processes(seen, action)
        case RetireUnits():
            return _without_legacy_units(seen, action)
        case TakeHomeStep():
            return _with_step_taken(seen, action)
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
        shadow={**(seen.shadow or {}), action.user: Login()},
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
    shadow_groups = None if seen.shadow_groups is None else seen.shadow_groups | {group.name}
    return replace(seen, groups={**seen.groups, group.name: group}, shadow_groups=shadow_groups)


def _with_members(seen: Observed, group: str, add: str = "", remove: str = "") -> Observed:
    if group not in seen.groups:
        raise ToolFailed(f"gpasswd exited 3: group '{group}' does not exist in /etc/group", seen)
    members = (seen.groups[group].members | {add}) - {remove, ""}
    return replace(seen, groups={**seen.groups, group: replace(seen.groups[group], members=members)})


def _system_gid(seen: Observed) -> int:
    return next(gid for gid in range(_LAST_SYSTEM_GID, 0, -1) if gid not in seen.gids)


def _with_running(seen: Observed, action: RunUnit) -> Observed:
    """Enable and start a unit. A service that finds its port taken fails after the start job is done."""
    if not action.service:
        return _with_foreign(seen, action)
    units = seen.units
    if template_of(action.unit) not in units.templates:
        raise ToolFailed(f"{action.unit}: Unit file {template_of(action.unit)} does not exist.", seen)
    if action.enable:
        units = replace(units, enabled=units.enabled | {action.unit})
    port = _port_of(seen, action) if action.start else None
    placed = True if action.unit in (units.drop_ins or {}) else None
    state = UnitState("active", "running" if action.unit.endswith(".service") else "waiting", in_slice=placed)
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
    if not action.service:
        return _with_foreign(seen, action)
    units = seen.units
    if action.stop or action.clear:
        units = replace(units, states=_without(units.states or {}, action.unit))
        listeners = tuple(found for found in seen.listeners if found.unit != action.unit)
        seen = replace(seen, listeners=listeners)
    if action.disable:
        units = replace(units, enabled=units.enabled - {action.unit})
    return replace(seen, units=units)


def _with_proxy_reloaded(seen: Observed, output: OutputKind) -> Observed:
    state = replace(seen.proxies.get(output, ProxyState()), reload_due=False)
    return replace(seen, proxies={**seen.proxies, output: state})


# --- homes ---


def _without_legacy_units(seen: Observed, action: RetireUnits) -> Observed:
    """Rename the unit files and stop the units, which frees their ports."""
    body = action.step.body
    if not isinstance(body, RetireStep):
        raise TypeError(f"{body} retires nothing")
    uid = seen.accounts[action.user].uid
    work = _home_work(seen)
    units = {owner: left for owner, left in work.legacy_units.items() if owner != (action.user, action.service)}
    listeners = tuple(found for found in seen.listeners if not (found.uid == uid and found.user_unit in body.units))
    return replace(seen, listeners=listeners, home_work=replace(work, legacy_units=units))


def _with_step_taken(seen: Observed, action: TakeHomeStep) -> Observed:
    """Take a step with success. Nothing is watched: no look finds a change of what it relied on."""
    if action.user not in seen.accounts:
        raise ToolFailed(f"no account {action.user}", seen)
    work = _home_work(seen)
    record = StepRecord(action.digest, Ending.DONE, "done", seen.now)
    steps = {**work.records.get(action.user, {}), action.step.name: record}
    changed = {place: path for place, path in work.changed.items() if place != (action.user, action.step.name)}
    return replace(seen, home_work=replace(work, records={**work.records, action.user: steps}, changed=changed))


def _home_work(seen: Observed) -> HomeWork:
    return seen.home_work or HomeWork()


def _with_foreign(seen: Observed, action: RunUnit | HaltUnit) -> Observed:
    """Start or stop a unit beside the catalogue. A transient one has no file to be started from again."""
    found = _presence(seen, action.user)
    if action.unit not in {unit.name for unit in found.units}:
        raise ToolFailed(f"Unit {action.unit} not found.", seen)
    units = [
        replace(unit, active=isinstance(action, RunUnit)) if unit.name == action.unit else unit
        for unit in found.units
        if not (unit.name == action.unit and unit.transient)
    ]
    return _with_presence(seen, action.user, replace(found, units=tuple(units)))


# --- people who leave and who return ---


def _presence(seen: Observed, user: str) -> Presence:
    return seen.presence.get(user, Presence())


def _with_presence(seen: Observed, user: str, found: Presence) -> Observed:
    return replace(seen, presence={**seen.presence, user: found})


def _with_login(seen: Observed, user: str, login: Login) -> Observed:
    return replace(seen, shadow={**(seen.shadow or {}), user: login})


def _cut(seen: Observed, user: str) -> CutRecord:
    record = (seen.records or Records()).cuts.get(user)
    if record is None:
        raise ToolFailed(f"/var/lib/rosterd/cuts/{user} is not a record of rosterd's", seen)
    return record


def _records_after(
    seen: Observed, action: RecordCut | SetCutReason | ForgetCut | RunHook | RecordIdentities
) -> Records:
    """Keep records as the folder of them does: that of a cut is written once."""
    records = seen.records or Records()
    match action:
        case RecordCut():
            if action.user in records.cuts:
                raise ToolFailed(f"/var/lib/rosterd/cuts/{action.user} is there already", seen)
            return replace(records, cuts={**records.cuts, action.user: action.record})
        case SetCutReason():
            changed = replace(_cut(seen, action.user), by_command=action.by_command)
            return replace(records, cuts={**records.cuts, action.user: changed})
        case ForgetCut():
            return replace(records, cuts=_without(records.cuts, action.user))
        case RunHook():
            return with_step_done(records, action.user, action.step)
        case RecordIdentities():
            return replace(records, identities=dict(action.identities))


def with_step_done(records: Records, user: str, step: Step) -> Records:
    """Mark a step as taken in whatever is on record of somebody."""
    cuts, stones = dict(records.cuts), dict(records.tombstones)
    if user in cuts:
        cuts[user] = _with_done(cuts[user], step)
    if user in stones:
        stones[user] = replace(stones[user], cut=_with_done(stones[user].cut, step))
    return replace(records, cuts=cuts, tombstones=stones)


def _with_done(record: CutRecord, step: Step) -> CutRecord:
    return replace(record, done=tuple(sorted({*record.done, step})))


def _locked(seen: Observed, user: str) -> Observed:
    """Do what `usermod --expiredate 1 --lock` does: an empty password becomes `!`."""
    if user not in (seen.shadow or {}):
        raise ToolFailed(f"usermod exited 6: user '{user}' does not exist in /etc/shadow", seen)
    return _with_login(seen, user, Login(locked=True, passwordless=False, expiry=1))


def _opened(seen: Observed, action: OpenLogin) -> Observed:
    """Do what `usermod --expiredate N [--unlock]` does, or `passwd --delete` before it.

    What is behind the `!` stands in no look; the record of the cut knows.
    """
    login, record = (seen.shadow or {})[action.user], _cut(seen, action.user)
    if action.passwordless:
        login = replace(login, locked=False, passwordless=True)
    elif action.unlock:
        if record.locked or record.passwordless:
            raise ToolFailed("usermod: unlocking the user's password would result in a passwordless account", seen)
        login = replace(login, locked=False)
    return _with_login(seen, action.user, replace(login, expiry=action.expiry))


def _is_to_come(job: str, now: int) -> bool:
    return int(job[6:], 16) * 60 > now and not job.startswith("=")


def _holding(found: Presence, action: HoldJobs, now: int) -> Presence:
    """Move jobs that are there to where nobody looks for them; what is held first keeps its name."""
    moved = {job for job in action.at_jobs if job in found.at_jobs}
    coming = {job for job in moved if _is_to_come(job, now)}
    return replace(
        found,
        crontab=found.crontab and not action.crontab,
        held_crontab=found.held_crontab or (found.crontab and action.crontab),
        at_jobs=tuple(job for job in found.at_jobs if job not in moved),
        held_at_jobs=tuple(sorted({*found.held_at_jobs, *coming})),
        late_at_jobs=tuple(sorted({*found.late_at_jobs, *(moved - coming)})),
    )


def _resuming(seen: Observed, action: ResumeJobs) -> Presence:
    """Move jobs back; nothing that is there is overwritten."""
    found = _presence(seen, action.user)
    if action.crontab and found.crontab:
        raise ToolFailed(f"/var/spool/cron/crontabs/{action.user} is there already", seen)
    back = {job for job in action.at_jobs if job in (*found.held_at_jobs, *found.late_at_jobs)}
    return replace(
        found,
        crontab=found.crontab or (found.held_crontab and action.crontab),
        held_crontab=found.held_crontab and not action.crontab,
        at_jobs=tuple(sorted({*found.at_jobs, *back})),
        held_at_jobs=tuple(job for job in found.held_at_jobs if job not in back),
        late_at_jobs=tuple(job for job in found.late_at_jobs if job not in back),
    )


def _without_processes(seen: Observed, action: EndProcesses) -> Observed:
    """End a person's sessions if asked to, and whatever runs under one of the ids, whosever it is."""
    presence = {}
    for name, found in seen.presence.items():
        left = [one for one in found.processes if not any(low <= one.uid <= high for low, high in action.spans)]
        presence[name] = replace(found, processes=tuple(left))
    seen = replace(seen, presence=presence)
    if not action.slice_active:
        return seen
    return _with_presence(seen, action.user, replace(_presence(seen, action.user), slice_active=False))


def _without(table: Mapping[str, _T], key: str) -> dict[str, _T]:
    return {name: value for name, value in table.items() if name != key}
