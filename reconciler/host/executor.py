"""Carries out actions on this machine: system tools for accounts, D-Bus for units, files by rename."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import assert_never

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
from reconciler.core.envfile import with_assignment
from reconciler.core.home_records import StepRecord, recorded_step
from reconciler.core.home_steps import Ending, Result
from reconciler.core.observed import Account
from reconciler.core.outcome import Outcome, Status
from reconciler.core.plan_cuts import EXPIRED_DAY
from reconciler.errors import AccountFilesLocked, FileRefused, RosterdError, StepFailed
from reconciler.host import cutting, drop_ins, files, lock, proxies
from reconciler.host.bus import BusUnavailable, Job, Systemd
from reconciler.host.homes import Said, take_steps
from reconciler.host.looks import same, still
from reconciler.host.process import RunAs, run
from reconciler.host.scan_accounts import scan_passwd
from reconciler.host.sources import refuse_writable_parents
from reconciler.host.state import State

# shadow-utils waits 15 s for the lock of passwd before it gives up (lckpwdf(3)).
_TOOL_SECONDS = 60.0
# A unit's own TimeoutStartSec= is 90 s unless it says otherwise (systemd-system.conf(5)).
_JOB_SECONDS = 100.0
# systemd works off the jobs of a batch one after the other, and all of them are waited for together.
_SECONDS_EACH = 0.05
# Whatever else waits to be written to that disk goes with it.
_SYNC_SECONDS = 600.0
_ENV_MODE = 0o600
_ETC = Path("/etc")


HomeAction = RetireUnits | TakeHomeStep
_TOGETHER = HaltUnit | RunUnit | HomeAction | SetDropIn | ReloadSystemd | ConfirmAccount
_STATUS = {
    Ending.DONE: Status.DONE,
    Ending.KEPT: Status.DONE,
    Ending.BLOCKED: Status.SKIPPED,
    Ending.FAILED: Status.FAILED,
}


class HostExecutor:
    """Changes this machine. Needs root."""

    def __init__(self, systemd: Systemd, state: State, watched: Sequence[Path] = ()) -> None:
        """Use this connection for units and these records; long work is put off once a file of `watched` is edited."""
        self._systemd = systemd
        self._state = state
        self._watched = watched
        self._locked: AccountFilesLocked | None = None

    def apply(self, actions: Sequence[Action]) -> Iterator[Outcome]:
        """Carry out one phase. What goes together goes together, everything else one after the other."""
        homes = [action for action in actions if isinstance(action, RetireUnits | TakeHomeStep)]
        halts = [action for action in actions if isinstance(action, HaltUnit)]
        runs = [action for action in actions if isinstance(action, RunUnit)]
        changes = [action for action in actions if isinstance(action, SetDropIn | ReloadSystemd)]
        created = [action for action in actions if isinstance(action, ConfirmAccount)]
        for action in actions:
            if not isinstance(action, _TOGETHER):
                yield self._attempt(action)
        if created:
            yield from self._confirm(created)
        if changes:
            yield from self._set_drop_ins(changes)
        if halts:
            yield from self._halt(halts)
        if runs:
            yield from self._run(runs)
        if homes:
            yield from self._in_homes(homes)

    def _attempt(self, action: Action) -> Outcome:
        try:
            self._carry_out(action)
        except (RosterdError, OSError) as error:
            return Outcome(action, Status.FAILED, str(error))
        return Outcome(action)

    def _carry_out(self, action: Action) -> None:  # noqa: C901, PLR0912, PLR0915 (one arm for each member of the union)
        match action:
            case RemoveGhost():
                self._tool("gpasswd", "--delete", action.user, action.group)
            case CreateGroup():
                self._tool("groupadd", "--system", "--", action.group)
            case CreateAccount():
                self._create_account(action)
            case Adopt():
                self._tool("gpasswd", "--add", action.user, action.group)
            case CompleteGroup():
                self._tool("groupadd", "--gid", str(action.gid), "--", action.user)
            case CompleteGroupShadow():
                # Of all that shadow-utils do to a group, this writes the line and changes nothing else.
                self._tool("gpasswd", "--restrict", "--", action.user)
            case CompleteShadow():
                # Not --lock: without a shadow line that would put the ! into passwd itself.
                self._tool("usermod", "--password", "!", "--", action.user)
            case AddSubids():
                self._add_subids(action)
            case MakeHome():
                self._make_home(action)
            case SetHomeMode():
                self._as_user(action.user, "chmod", "0700", "--", action.home)
            case FillSkel():
                self._fill_skel(action)
            case AddToGroups():
                for group in action.groups:
                    self._tool("gpasswd", "--add", action.user, group)
            case WritePort():
                self._write_port(action)
            case WriteOutput():
                self._write_output(action)
            case ReloadProxy():
                proxies.reload_proxy(action, self._systemd)
            case ConfirmAccount() | ForgetRecord():
                self._state.remove_intent(action.user)
            case RecordCut():
                self._state.save_cut(action.user, action.record)
            case SetCutReason():
                self._state.set_cut_reason(action.user, by_command=action.by_command)
            case HoldJobs():
                cutting.hold_jobs(action)
            case LockAccount():
                self._tool("usermod", "--expiredate", str(EXPIRED_DAY), "--lock", "--", action.user)
            case SetLinger():
                self._systemd.set_linger(action.uid, on=action.on)
            case EndProcesses():
                cutting.end_processes(action, self._systemd)
            case OpenLogin():
                self._open_login(action)
            case ResumeJobs():
                cutting.resume_jobs(action, self._systemd)
            case RunHook():
                cutting.run_hook(action)
                self._state.mark_done(action.user, action.step)
            case RecordIdentities():
                self._state.save_identities(dict(action.identities))
            case ForgetCut():
                cutting.set_held_aside(action.user)
                self._state.remove_cut(action.user)
            case SetDropIn() | ReloadSystemd() | RunUnit() | HaltUnit() | RetireUnits() | TakeHomeStep():
                raise AssertionError("units and homes are carried out in batches")
            case _:
                assert_never(action)

    def _create_account(self, action: CreateAccount) -> None:
        gid = action.uid if action.existing_gid is None else action.existing_gid
        self._state.save_intent(action.user, action.uid, gid)
        if action.existing_gid is None:
            self._tool("groupadd", "--gid", str(action.uid), "--", action.user)
        subids = () if action.subids else ("--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0")
        self._tool(
            *("useradd", "--uid", str(action.uid), "--gid", action.user),
            *("--home-dir", action.home, "--create-home", "--shell", action.shell),
            # Debian 12's login.defs sets no HOME_MODE; homes would be readable by everybody.
            *("--key", "HOME_MODE=0700", *subids),
            *("--groups", ",".join(action.groups), "--", action.user),
        )

    def _add_subids(self, action: AddSubids) -> None:
        spans = []
        if action.uids:
            spans += ["--add-subuids", f"{action.uids[0]}-{action.uids[1]}"]
        if action.gids:
            spans += ["--add-subgids", f"{action.gids[0]}-{action.gids[1]}"]
        self._tool("usermod", *spans, "--", action.user)

    def _open_login(self, action: OpenLogin) -> None:
        if action.passwordless:
            # usermod --unlock refuses to leave an empty password; the expiry still keeps everybody out.
            self._tool("passwd", "--quiet", "--delete", "--", action.user)
        unlock = ["--unlock"] if action.unlock and not action.passwordless else []
        expiry = "" if action.expiry is None else str(action.expiry)
        self._tool("usermod", "--expiredate", expiry, *unlock, "--", action.user)

    def _make_home(self, action: MakeHome) -> None:
        """Make the folder and give it to its owner; a further look fills in the skel, as the record says."""
        account = self._account(action.user)
        self._state.save_intent(action.user, account.uid, account.gid)
        if action.remove_empty:
            files.remove_empty_folder(Path(action.home))
        files.make_owned_folder(Path(action.home), account.uid, account.gid)

    def _fill_skel(self, action: FillSkel) -> None:
        """Root reads the skel, some of which may be for root alone; the user writes.

        What an interrupted useradd left as root's, the owner of the folder above may replace but not change:
        tar does so with files, and a folder that is root's is still empty.
        """
        left = [str(path) for path in (Path(action.home, entry) for entry in action.entries) if _is_roots_folder(path)]
        if left:
            self._as_user(action.user, "rmdir", "--", *reversed(left))
        tar = ("tar", "--extract", "--file=-", "--preserve-permissions", "--no-same-owner")
        archive = files.packed(Path("/etc/skel"), action.entries)
        self._as_user(action.user, *tar, f"--directory={action.home}", given=archive)

    def _confirm(self, actions: Sequence[ConfirmAccount]) -> Iterator[Outcome]:
        """Forget that accounts are being created once all of them is on disk: useradd leaves homes to the kernel."""
        try:
            homes = {account.name: Path(account.home) for account in scan_passwd(_ETC / "passwd").values()}
            folders = {homes[action.user].parent for action in actions if action.user in homes}
            argv = ("sync", "--file-system", "--", *sorted(map(str, {_ETC, *folders})))
            run(argv, timeout=_SYNC_SECONDS).or_fail()
        except (RosterdError, OSError) as error:
            yield from (Outcome(action, Status.FAILED, str(error)) for action in actions)
        else:
            yield from map(self._attempt, actions)

    def _write_port(self, action: WritePort) -> None:
        path = _root_s_alone(action.path)
        try:
            before = files.read_bytes(path) or b""
        except OSError as error:
            raise StepFailed(f"{path} cannot be read: {error.strerror}") from error
        files.replace_file(path, with_assignment(before, action.variable, str(action.port)), _ENV_MODE)

    def _write_output(self, action: WriteOutput) -> None:
        path = _root_s_alone(action.output.path)
        if action.proxy is not None:
            proxies.put_in_place(action, action.proxy, self._systemd)
        else:
            files.replace_file(path, action.text.encode(), proxies.MAP_MODE)

    def _tool(self, *argv: str) -> None:
        """Run one of shadow-utils; after the first that finds its files locked, no further one waits."""
        if self._locked is not None:
            raise self._locked
        finished = run(argv, timeout=_TOOL_SECONDS)
        if finished.code == 0:
            return
        if "lock" in finished.err and "try again later" in finished.err:
            self._locked = AccountFilesLocked(
                f"{finished.complaint} (a leftover /etc/passwd.lock or a running vipw or passwd holds it)"
            )
            raise self._locked
        raise StepFailed(finished.complaint)

    def _as_user(self, user: str, *argv: str, given: bytes | None = None) -> None:
        """Run a program as the user: in a home root does nothing itself."""
        account = self._account(user)
        owner = RunAs(account.uid, account.gid, account.home)
        run(argv, timeout=_TOOL_SECONDS, run_as=owner, given=given).or_fail()

    def _account(self, user: str) -> Account:
        """Return the account as it is now, which an action before may have made."""
        account = scan_passwd(_ETC / "passwd").get(user)
        if account is None or account.uid == 0:
            raise StepFailed(f"{user} has no account")
        return account

    def _set_drop_ins(self, actions: Sequence[SetDropIn | ReloadSystemd]) -> Iterator[Outcome]:
        """Change the files, then have systemd read them once; until it has, the next run is to see to that."""
        texts = {action.unit: action.text for action in actions if isinstance(action, SetDropIn)}
        failed: dict[str, str] = {}
        for_all = ""
        try:
            drop_ins.mark_reload_due()
            failed = self._guarded(list(texts), lambda unit: drop_ins.write(unit, texts[unit]))
            self._systemd.reload()
            drop_ins.clear_reload_due()
        except StepFailed as error:
            for_all = str(error)
        for action in actions:
            why = failed.get(action.unit, for_all) if isinstance(action, SetDropIn) else for_all
            yield Outcome(action, Status.FAILED, why) if why else Outcome(action)

    def _halt(self, actions: list[HaltUnit]) -> Iterator[Outcome]:
        """Stop, then disable in one call: a unit that could not be stopped stays enabled, and is seen."""
        cut = [action.unit for action in actions if action.stop and action.kill]
        results = self._jobs(cut, lambda units: cutting.stop_units(self._systemd, units))
        others = [action.unit for action in actions if action.stop and not action.kill]
        results |= self._jobs(others, partial(self._systemd.run_jobs, Job.STOP, seconds=_limit(others)))
        failed = {unit: f"stop job: {why}" for unit, why in results.items() if why != "done"}
        # Some fail on being stopped. Those that did not are unknown by now, which is no error.
        self._guarded([action.unit for action in actions if action.stop or action.clear], self._systemd.reset_failed)
        disabling = [action.unit for action in actions if action.disable and action.unit not in failed]
        failed |= self._change_links(disabling, self._systemd.disable)
        yield from _outcomes(actions, failed)

    def _run(self, actions: list[RunUnit]) -> Iterator[Outcome]:
        """Enable all in one call, reload once if a link was made, then start all at once."""
        failed = self._change_links([action.unit for action in actions if action.enable], self._systemd.enable)
        starting = [action for action in actions if action.start and action.unit not in failed]
        broken = [action.unit for action in starting if action.before == "failed"]
        failed |= self._guarded(broken, self._systemd.reset_failed)
        good = [action.unit for action in starting if action.unit not in failed]
        results = self._jobs(good, partial(self._systemd.run_jobs, Job.START, seconds=_limit(good)))
        failed |= {unit: f"start job: {why}" for unit, why in results.items() if why != "done"}
        yield from _outcomes(actions, failed)

    def _in_homes(self, actions: Sequence[HomeAction]) -> Iterator[Outcome]:
        """Have the steps of all homes taken side by side, and put on record how each ended."""
        people: dict[str, list[HomeAction]] = {}
        for action in actions:
            people.setdefault(action.user, []).append(action)
        orders = {name: (own[0].home, [action.step for action in own]) for name, own in people.items()}
        before = [same(path) for path in self._watched]
        try:
            records = self._state.home_steps()
            for name, said in take_steps(
                self._systemd, orders, put_off=lambda: lock.is_wanted() or not all(map(still, before))
            ):
                yield from self._judge(people.pop(name), said, records.get(name, {}))
        except (RosterdError, OSError) as error:
            for action in (action for own in people.values() for action in own):
                yield Outcome(action, Status.FAILED, str(error))

    def _judge(self, actions: Sequence[HomeAction], said: Said, records: Mapping[str, StepRecord]) -> Sequence[Outcome]:
        now, steps = int(time.time()), dict(records)
        outcomes: list[Outcome] = []
        for action in actions:
            name = action.step.name
            result = said.results.get(name)
            if result is None and said.why and not said.put_off:
                result = Result(name, Ending.FAILED, said.why)  # the unit ended before it, by its time or by a signal
            if result is None:
                outcomes.append(Outcome(action, Status.SKIPPED, said.why or "its turn did not come"))
                continue
            if isinstance(action, TakeHomeStep):
                steps[name] = recorded_step(result, action.digest, now, records.get(name), action.home)
            outcomes.append(Outcome(action, _STATUS[result.ending], result.detail))
        if steps != records:
            try:
                self._state.save_home_steps(actions[0].user, steps)
            except StepFailed as error:
                return [Outcome(action, Status.FAILED, str(error)) for action in actions]
        return outcomes

    def _jobs(self, units: list[str], run_jobs: Callable[[list[str]], dict[str, str]]) -> dict[str, str]:
        if not units:
            return {}
        try:
            return run_jobs(units)
        except StepFailed as error:
            return dict.fromkeys(units, str(error))

    def _change_links(self, units: list[str], change: Callable[[list[str]], bool]) -> dict[str, str]:
        """Enable or disable in one call, and reload once if that changed anything.

        systemd refuses the whole list for one bad unit, so then each is tried alone, and only the
        bad one fails.
        """
        if not units:
            return {}
        try:
            changed, failed = change(units), {}
        except BusUnavailable as error:
            return dict.fromkeys(units, str(error))
        except StepFailed:
            failed = self._guarded(units, lambda unit: change([unit]))
            changed = len(failed) < len(units)
        if changed:
            failed |= dict.fromkeys(units, why) if (why := self._reload()) else {}
        return failed

    def _reload(self) -> str:
        try:
            self._systemd.reload()
        except StepFailed as error:
            return str(error)
        return ""

    def _guarded(self, units: list[str], call: Callable[[str], object]) -> dict[str, str]:
        """Call for each unit; return the reasons of those that failed."""
        failed = {}
        for unit in units:
            try:
                call(unit)
            except StepFailed as error:
                failed[unit] = str(error)
        return failed


def _limit(units: Sequence[str]) -> float:
    """Return how many seconds a batch of jobs may take."""
    return _JOB_SECONDS + _SECONDS_EACH * len(units)


def _root_s_alone(path: str) -> Path:
    """Return a path that nobody but root can put another file at, or on the way to. Raises `StepFailed`.

    Whoever could would decide what a service is started with, or have root write in a folder of theirs.
    """
    try:
        refuse_writable_parents(path, links=True)
    except FileRefused as error:
        raise StepFailed(str(error)) from error
    return Path(path)


def _is_roots_folder(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0


def _outcomes(actions: Iterable[RunUnit | HaltUnit], failed: Mapping[str, str]) -> Iterator[Outcome]:
    for action in actions:
        why = failed.get(action.unit)
        yield Outcome(action) if why is None else Outcome(action, Status.FAILED, f"{action.unit}: {why}")
