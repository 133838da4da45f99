"""The changes that a run can make, a closed union. None of them deletes an account or a file.

Each action names the user it is for, describes itself in one line with old and new value, has a sign
and a phase. Its `key` says what depends on what: where an action fails, those whose key extends
its key are skipped in the later phases.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import ClassVar

from reconciler.core import outputs
from reconciler.core.days import shown_day
from reconciler.core.drop_ins import described
from reconciler.core.home_steps import HomeStep
from reconciler.core.outputs import Route
from reconciler.core.records import CutRecord, Identity, Step
from reconciler.core.site import OutputKind, Proxy

Key = tuple[str, ...]


class Sign(StrEnum):
    """How a plan marks a line."""

    ADD = "+"
    CHANGE = "~"
    STOP = "-"
    CONFLICT = "!"


class Phase(IntEnum):
    """The order of a run. Every action of a phase is tried before the next phase begins."""

    RECORD = 1
    UNMAP = 2
    GHOSTS = 3
    HOLD_JOBS = 4
    LOCK = 5
    STOPS = 6
    LINGER_OFF = 7
    KILL = 8
    SYSTEM_GROUPS = 9
    ACCOUNTS = 10
    MEMBERSHIPS = 11
    OPEN_LOGIN = 12
    RESUME = 13
    ENV_FILES = 14
    LIMITS = 15
    RETIRE = 16
    UNITS = 17
    MAPS = 18
    HOMES = 19
    EXTERNAL = 20
    CONFIRM = 21


class _OfUser:
    """What is done for one person. The whole account, or one `aspect` of it that nothing else waits for."""

    __slots__ = ()
    user: str
    aspect: ClassVar[tuple[str, ...]] = ()

    @property
    def key(self) -> Key:
        """The user, and the aspect if it is only one."""
        return (self.user, *self.aspect)


@dataclass(frozen=True, slots=True)
class RemoveGhost(_OfUser):
    """Take a name without an account out of the group that marks managed accounts."""

    phase: ClassVar = Phase.GHOSTS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "remove_ghost"
    user: str
    group: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"group {self.group}: {self.user} → nobody (no such account)"


@dataclass(frozen=True, slots=True)
class CreateGroup:
    """Create a system group."""

    phase: ClassVar = Phase.SYSTEM_GROUPS
    sign: ClassVar = Sign.ADD
    kind: ClassVar = "create_group"
    user: ClassVar = None
    group: str

    @property
    def key(self) -> Key:
        """Nobody's: a user who needs the group fails by themselves."""
        return ("", self.group)

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"group {self.group}: none → system group"


@dataclass(frozen=True, slots=True)
class CreateAccount(_OfUser):
    """Create an account: its group first, then `useradd` with the explicit uid.

    `existing_gid`: the group is there already, from a creation that was interrupted.
    """

    phase: ClassVar = Phase.ACCOUNTS
    sign: ClassVar = Sign.ADD
    kind: ClassVar = "create_account"
    user: str
    uid: int
    home: str
    shell: str
    groups: tuple[str, ...]
    subids: bool = True
    existing_gid: int | None = None

    def describe(self) -> str:
        """Say what changes, in one line."""
        return (
            f"account: none → uid {self.uid}, home {self.home} (0700), shell {self.shell},"
            f" groups {' '.join(self.groups)}, password locked"
        )


@dataclass(frozen=True, slots=True)
class Adopt(_OfUser):
    """Mark an existing account as managed; from now on it is completed, never reduced."""

    phase: ClassVar = Phase.ACCOUNTS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "adopt_account"
    user: str
    uid: int
    group: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"account: uid {self.uid} not managed → managed (group {self.group})"


@dataclass(frozen=True, slots=True)
class CompleteGroup(_OfUser):
    """Create the primary group that an account names but the host lacks."""

    phase: ClassVar = Phase.ACCOUNTS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "complete_group"
    user: str
    gid: int

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"primary group {self.gid}: missing → {self.user}"


@dataclass(frozen=True, slots=True)
class CompleteGroupShadow(_OfUser):
    """Write the missing gshadow line of an account's own group, as groupadd would: without a password."""

    phase: ClassVar = Phase.ACCOUNTS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "complete_group_shadow"
    user: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"gshadow line of the group {self.user}: missing → no password"


@dataclass(frozen=True, slots=True)
class CompleteShadow(_OfUser):
    """Write the missing shadow line of an account, with a locked password."""

    phase: ClassVar = Phase.ACCOUNTS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "complete_shadow"
    user: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return "shadow line: missing → password locked"


@dataclass(frozen=True, slots=True)
class AddSubids(_OfUser):
    """Give an account the subordinate ids that it lacks; None leaves the one kind alone."""

    phase: ClassVar = Phase.ACCOUNTS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "add_subids"
    aspect: ClassVar = ("subids",)
    user: str
    uids: tuple[int, int] | None
    gids: tuple[int, int] | None

    def describe(self) -> str:
        """Say what changes, in one line."""
        told = [f"{name} {span[0]}-{span[1]}" for name, span in (("uids", self.uids), ("gids", self.gids)) if span]
        return f"subordinate ids: missing → {', '.join(told)}"


@dataclass(frozen=True, slots=True)
class MakeHome(_OfUser):
    """Make a missing home from /etc/skel. `remove_empty`: an empty one that root owns goes first."""

    phase: ClassVar = Phase.ACCOUNTS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "make_home"
    user: str
    home: str
    remove_empty: bool = False

    def describe(self) -> str:
        """Say what changes, in one line."""
        before = "empty, owned by root" if self.remove_empty else "missing"
        return f"home {self.home}: {before} → made from /etc/skel (0700)"


@dataclass(frozen=True, slots=True)
class SetHomeMode(_OfUser):
    """Close a home that an interrupted creation left with another mode; done as the user."""

    phase: ClassVar = Phase.ACCOUNTS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "set_home_mode"
    user: str
    home: str
    before: int

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"home {self.home}: mode {self.before:04o} → 0700"


@dataclass(frozen=True, slots=True)
class FillSkel(_OfUser):
    """Copy the entries of /etc/skel that an interrupted creation left out; done as the user."""

    phase: ClassVar = Phase.MEMBERSHIPS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "fill_skel"
    aspect: ClassVar = ("skel",)
    user: str
    home: str
    entries: tuple[str, ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"home {self.home}: {len(self.entries)} entries of /etc/skel missing → {' '.join(self.entries)}"


@dataclass(frozen=True, slots=True)
class AddToGroups(_OfUser):
    """Add an account to groups; those it has are kept."""

    phase: ClassVar = Phase.MEMBERSHIPS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "add_to_groups"
    aspect: ClassVar = ("groups",)
    user: str
    groups: tuple[str, ...]
    before: tuple[str, ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"groups: {' '.join(self.before) or 'none'} → + {' '.join(self.groups)}"


@dataclass(frozen=True, slots=True)
class WritePort:
    """Keep a service's port in the env file: one line appended, every other byte left as it is."""

    phase: ClassVar = Phase.ENV_FILES
    sign: ClassVar = Sign.ADD
    kind: ClassVar = "write_port"
    user: str
    service: str
    path: str
    variable: str
    port: int

    @property
    def key(self) -> Key:
        """The service of the user."""
        return (self.user, self.service)

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"{self.service} port: none → {self.port} ({self.variable} in {self.path})"


@dataclass(frozen=True, slots=True)
class SetDropIn:
    """Write or remove rosterd's drop-in for a unit, and have systemd read it.

    `text` is the whole new text, `before` that of now, each None for no file. `user` is None where it is nobody's.
    """

    phase: ClassVar = Phase.LIMITS
    kind: ClassVar = "set_drop_in"
    user: str | None
    unit: str
    text: str | None
    before: str | None

    @property
    def sign(self) -> Sign:
        """A new file is added, one that goes is a change: nothing is taken from anybody."""
        return Sign.ADD if self.before is None else Sign.CHANGE

    @property
    def key(self) -> Key:
        """The unit's drop-in alone: without it the unit starts all the same."""
        return (self.user or "", "", self.unit, "drop-in")

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"{self.unit}: {described(self.before, self.text)}"


@dataclass(frozen=True, slots=True)
class ReloadSystemd:
    """Have systemd read its unit files: a run was killed after it had changed some."""

    phase: ClassVar = Phase.LIMITS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "reload_systemd"
    user: ClassVar = None

    @property
    def key(self) -> Key:
        """Nobody's."""
        return ("", "systemd")

    def describe(self) -> str:
        """Say what changes, in one line."""
        return "systemd: drop-ins changed → read"


@dataclass(frozen=True, slots=True)
class RunUnit:
    """Bring one instance up: enable it, reset it if it failed, start it. A running one is not restarted."""

    phase: ClassVar = Phase.UNITS
    kind: ClassVar = "run_unit"
    user: str
    service: str
    unit: str
    enable: bool
    start: bool
    before: str

    @property
    def sign(self) -> Sign:
        """A unit that failed is mended, another is added."""
        return Sign.CHANGE if self.before == "failed" else Sign.ADD

    @property
    def key(self) -> Key:
        """The unit within its service."""
        return (self.user, self.service, self.unit)

    def describe(self) -> str:
        """Say what changes, in one line."""
        before = [*(["disabled"] if self.enable else []), *([self.before] if self.start else [])]
        after = [*(["enabled"] if self.enable else []), *(["running"] if self.start else [])]
        return f"{self.unit}: {', '.join(before)} → {', '.join(after)}"


@dataclass(frozen=True, slots=True)
class HaltUnit:
    """Stop a unit, disable it, clear its failed state. Its template, its port and its files stay.

    `kill`: what has not ended after a few seconds is killed, for somebody who is being cut off. `service` is "" for
    a unit beside the catalogue.
    """

    phase: ClassVar = Phase.STOPS
    sign: ClassVar = Sign.STOP
    kind: ClassVar = "halt_unit"
    user: str
    service: str
    unit: str
    disable: bool
    stop: bool
    before: str
    why: str
    clear: bool = False
    kill: bool = False

    @property
    def key(self) -> Key:
        """The unit within its service."""
        return (self.user, self.service, self.unit)

    def describe(self) -> str:
        """Say what changes, in one line."""
        before = [*(["enabled"] if self.disable else []), *([self.before] if self.stop or self.clear else [])]
        after = [*(["disabled"] if self.disable else []), *(["stopped"] if self.stop or self.clear else [])]
        return f"{self.unit}: {', '.join(before)} → {', '.join(after)} ({self.why})"


@dataclass(frozen=True, slots=True)
class WriteOutput:
    """Replace one generated map. `before` is its text now, None where there is no such file.

    `proxy`: the one that reads it checks it, and is reloaded.
    """

    kind: ClassVar = "write_output"
    user: ClassVar = None
    output: OutputKind
    routes: tuple[Route, ...]
    before: str | None
    phase: Phase = Phase.MAPS
    proxy: Proxy | None = None

    @property
    def key(self) -> Key:
        """Nobody's: a user who failed keeps the lines they have, see `keeping`."""
        return ("", self.output.value)

    @property
    def sign(self) -> Sign:
        """A new file is added, another changed; one that only drops people is a stop."""
        if self.phase is Phase.UNMAP:
            return Sign.STOP
        return Sign.ADD if self.before is None else Sign.CHANGE

    @property
    def text(self) -> str:
        """The whole new text."""
        return outputs.render(self.output, self.routes)

    @property
    def needed(self) -> bool:
        """Whether the file differs from what it should be."""
        return self.text != self.before

    def keeping(self, users: Collection[str], ports: dict[str, int | None] | None = None) -> WriteOutput:
        """Return the same change with the lines of `users` left as the file has them now.

        `ports` are ports that the file does not tell, for the order of its lines.
        """
        if not users:
            return self
        known = ports or {}
        kept = tuple(
            replace(route, port=known.get(route.user)) if route.port is None else route
            for route in outputs.parse(self.output, self.before)
            if route.user in users
        )
        others = tuple(route for route in self.routes if route.user not in users)
        # An identity that has gone to somebody else meanwhile is not kept: it would carry them to a wrong account.
        given_away = {route.identity for route in others if route.identity}
        return replace(self, routes=(*others, *(route for route in kept if route.identity not in given_away)))

    def taking_out(self) -> WriteOutput | None:
        """Return the part of the change that takes routes out and adds none, None where it takes none out."""
        before, after = (set(outputs.parse(self.output, text)) for text in (self.before, self.text))
        return replace(self, routes=tuple(before & after)) if before - after else None

    def describe(self) -> str:
        """Say what changes, in one line."""
        before = {(route.identity, route.user): route.port for route in outputs.parse(self.output, self.before)}
        after = {(route.identity, route.user): route.port for route in outputs.parse(self.output, self.text)}
        moved = sorted(key for key in before.keys() & after.keys() if before[key] != after[key])
        told = [
            *(f"+ {user}" for user in _users(after.keys() - before.keys())),
            *(f"- {user}" for user in _users(before.keys() - after.keys())),
            *(f"{key[1]} {before[key]} → {after[key]}" for key in moved),
        ]
        state = "none" if self.before is None else _lines(len(before))
        reload = f", reload of {self.proxy.unit}" if self.proxy and self.proxy.unit else ""
        return f"{self.output.path}: {state} → {_lines(len(after))}{_in_brackets(told)}{reload}"


@dataclass(frozen=True, slots=True)
class ReloadProxy:
    """Check and reload a proxy that may not have its map as it is: a run ended, or failed, before it was reloaded.

    Among the first things of a run: the map may be without somebody whom the proxy still lets in.
    """

    phase: ClassVar = Phase.UNMAP
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "reload_proxy"
    user: ClassVar = None
    output: OutputKind
    proxy: Proxy

    @property
    def key(self) -> Key:
        """Nobody's, below the map: where that could not be put in place, nothing is reloaded."""
        return ("", self.output.value, "reload")

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"{self.proxy.unit or self.output.value}: not reloaded since {self.output.path} changed → reloaded"


@dataclass(frozen=True, slots=True)
class ConfirmAccount(_OfUser):
    """Close the record of a creation whose account has been seen complete."""

    phase: ClassVar = Phase.CONFIRM
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "confirm_account"
    aspect: ClassVar = ("confirm",)
    user: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return "account: being created → complete"


@dataclass(frozen=True, slots=True)
class ForgetRecord(_OfUser):
    """Remove the record of a creation that came to nothing."""

    phase: ClassVar = Phase.GHOSTS
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "forget_record"
    aspect: ClassVar = ("record",)
    user: str
    uid: int

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"record of a creation with uid {self.uid}: open → forgotten (no such account of rosterd's)"


@dataclass(frozen=True, slots=True)
class RecordCut(_OfUser):
    """Record, before anything is changed, how somebody is who is about to be cut off."""

    phase: ClassVar = Phase.RECORD
    sign: ClassVar = Sign.STOP
    kind: ClassVar = "record_cut"
    user: str
    record: CutRecord

    def describe(self) -> str:
        """Say what changes, in one line."""
        why = "by command" if self.record.by_command else "not on the roster"
        return f"cut off ({why}): no → on record for the return ({', '.join(_state(self.record))})"


@dataclass(frozen=True, slots=True)
class SetCutReason(_OfUser):
    """Change who asks for a cut; what is on record of the time before stays."""

    phase: ClassVar = Phase.RECORD
    kind: ClassVar = "set_cut_reason"
    aspect: ClassVar = ("reason",)
    user: str
    by_command: bool

    @property
    def sign(self) -> Sign:
        """Asking for a cut is a stop, taking that back is a change."""
        return Sign.STOP if self.by_command else Sign.CHANGE

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"cut off by command: {'no → yes' if self.by_command else 'yes → no'}"


@dataclass(frozen=True, slots=True)
class HoldJobs(_OfUser):
    """Move the crontab and the at jobs to where neither cron nor atd looks."""

    phase: ClassVar = Phase.HOLD_JOBS
    sign: ClassVar = Sign.STOP
    kind: ClassVar = "hold_jobs"
    aspect: ClassVar = ("jobs",)
    user: str
    crontab: bool
    at_jobs: tuple[str, ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"{_jobs(crontab=self.crontab, at_jobs=self.at_jobs)}: due → held"


@dataclass(frozen=True, slots=True)
class LockAccount(_OfUser):
    """Expire the account, which stops keys, `su`, cron and at, and lock the password."""

    phase: ClassVar = Phase.LOCK
    sign: ClassVar = Sign.STOP
    kind: ClassVar = "lock_account"
    aspect: ClassVar = ("login",)
    user: str
    expiry: int | None
    locked: bool

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"login: expires {_day(self.expiry)}, {_password(locked=self.locked)} → expired, password locked"


@dataclass(frozen=True, slots=True)
class SetLinger(_OfUser):
    """Let a person's own services run without a session, or no more; over logind."""

    kind: ClassVar = "set_linger"
    aspect: ClassVar = ("linger",)
    user: str
    uid: int
    on: bool

    @property
    def phase(self) -> Phase:
        """Off before the sessions end, on once the login is open."""
        return Phase.RESUME if self.on else Phase.LINGER_OFF

    @property
    def sign(self) -> Sign:
        """Ending it is a stop."""
        return Sign.CHANGE if self.on else Sign.STOP

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"lingering: {'off → on' if self.on else 'on → off'}"


@dataclass(frozen=True, slots=True)
class EndProcesses(_OfUser):
    """Stop the slice of a person's sessions, then kill whatever of theirs still runs, in any cgroup.

    `spans` are the (first, last) user ids that count as theirs: their own, and their subordinate ones.
    """

    phase: ClassVar = Phase.KILL
    sign: ClassVar = Sign.STOP
    kind: ClassVar = "end_processes"
    aspect: ClassVar = ("processes",)
    user: str
    uid: int
    spans: tuple[tuple[int, int], ...]
    slice_active: bool
    processes: tuple[tuple[int, str], ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        told = [f"user-{self.uid}.slice"] if self.slice_active else []
        if self.processes:
            word = "1 process" if len(self.processes) == 1 else f"{len(self.processes)} processes"
            told.append(f"{word}{_in_brackets([f'{name} {pid}' for pid, name in self.processes])}")
        return f"{', '.join(told)} → ended"


@dataclass(frozen=True, slots=True)
class OpenLogin(_OfUser):
    """Give an account the expiry and the password back that it had before the cut.

    `unlock`: the password was not locked; `passwordless`: it was empty.
    """

    phase: ClassVar = Phase.OPEN_LOGIN
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "open_login"
    aspect: ClassVar = ("login",)
    user: str
    expiry: int | None
    unlock: bool
    passwordless: bool

    def describe(self) -> str:
        """Say what changes, in one line."""
        password = _password(locked=not self.unlock)
        return f"login: expired → expires {_day(self.expiry)}, {password}, as before the cut"


@dataclass(frozen=True, slots=True)
class ResumeJobs(_OfUser):
    """Put the held crontab, and the at jobs that are still to come, back.

    Not while the login could not be opened: atd destroys a job that comes due for an expired account.
    """

    phase: ClassVar = Phase.RESUME
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "resume_jobs"
    aspect: ClassVar = ("login", "jobs")
    user: str
    crontab: bool
    at_jobs: tuple[str, ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"{_jobs(crontab=self.crontab, at_jobs=self.at_jobs)}: held → due"


@dataclass(frozen=True, slots=True)
class RetireUnits(_OfUser):
    """Stop, disable and rename units of a person's own systemd that hold what a service needs. Done as the person."""

    phase: ClassVar = Phase.RETIRE
    sign: ClassVar = Sign.STOP
    kind: ClassVar = "retire_units"
    user: str
    service: str
    home: str
    step: HomeStep

    @property
    def key(self) -> Key:
        """The service of the user."""
        return (self.user, self.service)

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"{self.service}: own unit {self.step.body.describe()} → stopped, disabled, renamed"


@dataclass(frozen=True, slots=True)
class TakeHomeStep(_OfUser):
    """Take one step in a person's home, as the person. `digest` is its definition's, `why` says why it is due.

    `place` is where it stands among the person's steps, which are taken in the site's order.
    """

    phase: ClassVar = Phase.HOMES
    kind: ClassVar = "take_home_step"
    user: str
    home: str
    step: HomeStep
    digest: str
    why: str
    is_first: bool
    place: int

    @property
    def sign(self) -> Sign:
        """What was never there is added."""
        return Sign.ADD if self.is_first else Sign.CHANGE

    @property
    def key(self) -> Key:
        """The step of the user, below the one that it needs."""
        return (self.user, "home step", *self.step.name.split("/"))

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"home step {self.step.name}: {self.why} → {self.step.body.describe()}"


@dataclass(frozen=True, slots=True)
class RunHook(_OfUser):
    """Run the site's command for an external step, and record that it has been taken."""

    phase: ClassVar = Phase.EXTERNAL
    sign: ClassVar = Sign.STOP
    kind: ClassVar = "run_hook"
    user: str
    step: Step
    command: tuple[str, ...]
    timeout: int

    @property
    def key(self) -> Key:
        """The step of the user."""
        return (self.user, "hook", self.step)

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"{self.step}: pending → done by {self.command[0]}"


@dataclass(frozen=True, slots=True)
class RecordIdentities:
    """Keep what the people of the roster are called elsewhere, for when they have left it."""

    phase: ClassVar = Phase.CONFIRM
    kind: ClassVar = "record_identities"
    user: ClassVar = None
    identities: tuple[tuple[str, Identity], ...]
    before: int

    @property
    def sign(self) -> Sign:
        """The first are added."""
        return Sign.CHANGE if self.before else Sign.ADD

    @property
    def key(self) -> Key:
        """Nobody's."""
        return ("", "identities")

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"identities on record: {self.before} → {len(self.identities)}"


@dataclass(frozen=True, slots=True)
class ForgetCut(_OfUser):
    """Close the record of a cut that has been undone.

    What is held still is set aside, so that no later return takes it for its own: `late_at_jobs`, which came due
    meanwhile, and a crontab that another has taken the place of.
    """

    phase: ClassVar = Phase.CONFIRM
    sign: ClassVar = Sign.CHANGE
    kind: ClassVar = "forget_cut"
    aspect: ClassVar = ("cut",)
    user: str
    taken: tuple[Step, ...] = ()
    late_at_jobs: tuple[str, ...] = ()
    crontab: bool = False

    def describe(self) -> str:
        """Say what changes, in one line."""
        told = [f"to be given back outside of this machine: {', '.join(self.taken)}"] if self.taken else []
        if self.late_at_jobs:
            told.append(f"{_jobs(crontab=False, at_jobs=self.late_at_jobs)} came due meanwhile and did not run")
        if self.crontab:
            told.append("the held crontab is set aside, there is a newer one")
        return "cut off: yes → no" + (f" ({'; '.join(told)})" if told else "")


Action = (
    RemoveGhost
    | CreateGroup
    | CreateAccount
    | Adopt
    | CompleteGroup
    | CompleteGroupShadow
    | CompleteShadow
    | AddSubids
    | MakeHome
    | SetHomeMode
    | FillSkel
    | AddToGroups
    | WritePort
    | SetDropIn
    | ReloadSystemd
    | RunUnit
    | HaltUnit
    | WriteOutput
    | ReloadProxy
    | ConfirmAccount
    | ForgetRecord
    | RecordCut
    | SetCutReason
    | HoldJobs
    | LockAccount
    | SetLinger
    | EndProcesses
    | OpenLogin
    | ResumeJobs
    | RetireUnits
    | TakeHomeStep
    | RunHook
    | RecordIdentities
    | ForgetCut
)

DUE_IN_TIME = (TakeHomeStep, RunHook)
"""What can become due as time passes, so that it is no sign that somebody changed something."""

CuttingAction = RecordCut | CompleteShadow | HoldJobs | LockAccount | HaltUnit | SetLinger | EndProcesses | RunHook
"""What takes something away from a person who leaves; guards hold these together."""


def _state(record: CutRecord) -> list[str]:
    return [
        f"expires {_day(record.expiry)}",
        "no password" if record.passwordless else _password(locked=record.locked),
        *(["lingering"] if record.lingering else []),
        *record.running,
    ]


def _day(expiry: int | None) -> str:
    return "never" if expiry is None else shown_day(expiry)


def _password(*, locked: bool) -> str:
    return "password locked" if locked else "password open"


def _jobs(*, crontab: bool, at_jobs: Collection[str]) -> str:
    number = len(at_jobs)
    told = ["crontab"] if crontab else []
    told += [f"{number} at job" if number == 1 else f"{number} at jobs"] if number else []
    return " and ".join(told)


def _lines(number: int) -> str:
    return "1 line" if number == 1 else f"{number} lines"


def _users(pairs: Collection[tuple[str, str]]) -> list[str]:
    return sorted({user for _, user in pairs})


def _in_brackets(words: list[str]) -> str:
    if not words:
        return ""
    shown = ", ".join(words[:_SHOWN])
    return f" ({shown}, …)" if len(words) > _SHOWN else f" ({shown})"


_SHOWN = 6
