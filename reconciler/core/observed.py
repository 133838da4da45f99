"""What is on the host, as plain values. Scanners fill this in; the plan reads it.

None stands for "could not be seen" where a field says so, never for "is not there".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from reconciler.core.home_records import StepRecord
from reconciler.core.last_run import LastRun
from reconciler.core.ports import Holder, port_number
from reconciler.core.records import Records
from reconciler.core.site import OutputKind


@dataclass(frozen=True, slots=True)
class Account:
    """One line of passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


@dataclass(frozen=True, slots=True)
class Group:
    """One line of group(5)."""

    name: str
    gid: int
    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class SubidRange:
    """One line of subuid(5) or subgid(5)."""

    owner: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class IdLimits:
    """Where login.defs(5) lets new ids start and end."""

    uid_min: int = 1000
    uid_max: int = 60000
    subid_min: int = 100_000
    subid_max: int = 600_100_000
    subid_count: int = 65536


@dataclass(frozen=True, slots=True)
class Login:
    """What shadow(5) says of an account, without the password.

    `expiry` is the day counted from 1970 after which nobody can log in, None for never. `locked`: the
    password begins with `!`, as usermod --lock leaves it; `passwordless`: it is empty.
    """

    locked: bool = True
    passwordless: bool = False
    expiry: int | None = None


class HomeKind(StrEnum):
    """What lies at the path of a home, without following a link.

    `MISSING` can be made, `NOWHERE` cannot: no absolute path, or no folder above it. `UNREADABLE` is what not even
    root may look at, as a file system that a person mounted there for themselves.
    """

    MISSING = "missing"
    NOWHERE = "nowhere"
    FOLDER = "folder"
    SYMLINK = "symlink"
    OTHER = "other"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Home:
    """The home folder itself as lstat(2) has it; nothing below it was opened."""

    kind: HomeKind
    uid: int = 0
    mode: int = 0


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP socket.

    `unit` is the unit of the system's manager that it belongs to, `user_unit` the one of a person's own
    manager; these and `pid` are None if there is none, or if it is unknown. `loopback`: it is bound to an address
    that only this machine reaches.
    """

    port: int
    uid: int
    unit: str | None = None
    pid: int | None = None
    user_unit: str | None = None
    loopback: bool = True


@dataclass(frozen=True, slots=True)
class UnitState:
    """One loaded unit as systemd reports it (org.freedesktop.systemd1, ListUnitsByPatterns).

    `up` is for how many seconds it has been as it is since it was last started, `restarts` how often systemd has
    started it again by itself since somebody did, `in_slice` whether its processes are in the slice of its user; each
    None where it is not known, or where nobody asks.
    """

    active: str
    sub: str
    up: float | None = None
    restarts: int | None = None
    in_slice: bool | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a unit uses, in bytes, and the lowest cap that holds for it, None for none."""

    now: int
    cap: int | None = None


@dataclass(frozen=True, slots=True)
class Units:
    """The instances of the catalogue's templates.

    `states` is None where systemd could not be asked, and `why` says why. `enabled` are the names
    linked from a `.wants` or `.requires` folder, `masked` those that are masked, `templates`
    the template files that exist, `not_installable` those of them without an [Install] section. `drop_ins` are the
    texts of rosterd's own, by unit, None where they could not be seen; `reload_due`: some were changed, and systemd has
    not read them yet.
    """

    states: Mapping[str, UnitState] | None
    enabled: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    templates: frozenset[str] = frozenset()
    not_installable: frozenset[str] = frozenset()
    drop_ins: Mapping[str, str] | None = field(default_factory=dict)
    reload_due: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class EnvFile:
    """One variable of one env file: `value` is None where the file or the assignment is missing.

    `open_ended`: the file ends inside a quote or a continued line, nothing can be appended. `problem` says
    why a file that is there cannot be used at all.
    """

    exists: bool
    value: str | None = None
    open_ended: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """A running process: its real user id, and what it calls itself."""

    pid: int
    uid: int
    name: str


@dataclass(frozen=True, slots=True)
class ForeignUnit:
    """A service beside rosterd's own whose `User=` is a person.

    `enabled`: it starts at boot. `transient`: it has no file, and once it has ended nothing can start it
    again. `triggers` are the timers, sockets and the like that start it.
    """

    name: str
    active: bool
    enabled: bool = False
    transient: bool = False
    triggers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Presence:
    """What of a person runs on the machine or is due to, looked at only where they are cut off or come back.

    `at_jobs` are the names of job files, the `held_` ones are kept where neither cron nor atd looks. `held_at_jobs`
    are those that are still to come; `late_at_jobs` came due while they were held. `slice_active` says
    whether systemd has a slice of the person's sessions.
    """

    crontab: bool = False
    at_jobs: tuple[str, ...] = ()
    held_crontab: bool = False
    held_at_jobs: tuple[str, ...] = ()
    late_at_jobs: tuple[str, ...] = ()
    lingering: bool = False
    slice_active: bool = False
    units: tuple[ForeignUnit, ...] = ()
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A file of root's whose content is for homes: what tells one state of it from another, or why it is not usable."""

    state: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class HomeWork:
    """What is known of the homes without opening anything in them.

    `records` are the steps on record, by person and name; `changed` the first path of each that does not look any more
    as it did then. `sources` are those that are there, by path; `with_agent` the people who have an agent's command;
    `legacy_units` the old unit files that are there, by person and service.
    """

    records: Mapping[str, Mapping[str, StepRecord]] = field(default_factory=dict)
    changed: Mapping[tuple[str, str], str] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    with_agent: frozenset[str] = frozenset()
    legacy_units: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProxyState:
    """What there is of a proxy that reads one of the maps.

    `reload_due`: it may not have the map as it is. `has_check`: the program of its check is there, or none is named;
    `has_unit` likewise.
    """

    reload_due: bool = False
    has_check: bool = True
    has_unit: bool = True


@dataclass(frozen=True)
class Observed:
    """All that a plan needs to know of the host.

    `env_files` holds, per service and user, whoever the user is. `shadow` has the lines of
    shadow(5) by name, `shadow_groups` the names in gshadow(5). `shadow_groups`, `subuids` and `subgids` are None
    where the host has no such file. `skel_gaps` are, per account whose creation has not been confirmed, the entries
    of /etc/skel that its home lacks. `intents` are the uids of those accounts, by name, and `intent_gids` their
    gids. `records` is None where they could not be read. `presence` holds the people whom a cut concerns,
    `containers` the containers on this machine if there are such people. `memory` is by unit, for those who ask.
    `now` counts seconds since 1970. `unseen` names what could not be read.
    """

    accounts: Mapping[str, Account]
    groups: Mapping[str, Group]
    limits: IdLimits = IdLimits()
    shadow: Mapping[str, Login] | None = None
    shadow_groups: frozenset[str] | None = None
    subuids: tuple[SubidRange, ...] | None = None
    subgids: tuple[SubidRange, ...] | None = None
    homes: Mapping[str, Home] = field(default_factory=dict)
    skel_gaps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    intents: Mapping[str, int] = field(default_factory=dict)
    intent_gids: Mapping[str, int] = field(default_factory=dict)
    env_files: Mapping[tuple[str, str], EnvFile] | None = field(default_factory=dict)
    outputs: Mapping[OutputKind, str | None] = field(default_factory=dict)
    proxies: Mapping[OutputKind, ProxyState] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    units: Units = Units(states={})
    shell_exists: bool = True
    records: Records | None = field(default_factory=Records)
    presence: Mapping[str, Presence] = field(default_factory=dict)
    containers: tuple[str, ...] = ()
    home_work: HomeWork | None = field(default_factory=HomeWork)
    last_run: LastRun | None = None
    memory: Mapping[str, Memory] = field(default_factory=dict)
    now: int = 0
    unseen: tuple[str, ...] = ()

    @cached_property
    def on_record(self) -> Records:
        """The records; nothing where they could not be read, which `records` tells apart."""
        return self.records or Records()

    @cached_property
    def gids(self) -> frozenset[int]:
        """The ids of all groups."""
        return frozenset(group.gid for group in self.groups.values())

    def lacks_group_shadow(self, name: str) -> bool:
        """Say whether a group has a line in group(5) alone, as a killed `groupadd` leaves it."""
        return self.shadow_groups is not None and name in self.groups and name not in self.shadow_groups

    @cached_property
    def names_by_uid(self) -> Mapping[int, str]:
        """The accounts by uid; of several with one uid the last of passwd."""
        return {account.uid: account.name for account in self.accounts.values()}

    @cached_property
    def sticky_ports(self) -> Mapping[Holder, int]:
        """Every port that an env file keeps, whoever its user is."""
        found = {}
        for (service, user), file in (self.env_files or {}).items():
            port = port_number(file.value) if file.value is not None else None
            if port is not None:
                found[user, service] = port
        return found

    @cached_property
    def listeners_by_port(self) -> Mapping[int, Sequence[Listener]]:
        """What listens, by port."""
        found = defaultdict(list)
        for listener in self.listeners:
            found[listener.port].append(listener)
        return dict(found)

    @cached_property
    def listeners_by_unit(self) -> Mapping[str, Sequence[Listener]]:
        """What listens of a unit of the system's manager, by unit."""
        found = defaultdict(list)
        for listener in self.listeners:
            if listener.unit is not None:
                found[listener.unit].append(listener)
        return dict(found)

    @cached_property
    def subuid_owners(self) -> frozenset[str] | None:
        """Who has subordinate uids, by name or by number; None where the host has no such file."""
        return None if self.subuids is None else frozenset(span.owner for span in self.subuids)

    @cached_property
    def subgid_owners(self) -> frozenset[str] | None:
        """Who has subordinate gids, likewise."""
        return None if self.subgids is None else frozenset(span.owner for span in self.subgids)

    @cached_property
    def _groups_by_member(self) -> Mapping[str, frozenset[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for group in self.groups.values():
            for member in group.members:
                found[member].add(group.name)
        by_gid = {group.gid: group.name for group in self.groups.values()}
        for account in self.accounts.values():
            if account.gid in by_gid:
                found[account.name].add(by_gid[account.gid])
        return {name: frozenset(groups) for name, groups in found.items()}

    def groups_of(self, name: str) -> frozenset[str]:
        """Return the groups of an account by name, the primary one included."""
        return self._groups_by_member.get(name, frozenset())

    def legacy_units_of(self, user: str, service: str) -> tuple[str, ...]:
        """Return the person's own old units that a service takes the place of."""
        return () if self.home_work is None else self.home_work.legacy_units.get((user, service), ())

    def user_of(self, uid: int) -> str:
        """Return the name of the account with this uid, or the number where there is none."""
        return self.names_by_uid.get(uid, str(uid))
