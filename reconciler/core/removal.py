"""Deleting a person for good, bringing a deleted one back, letting a name go: the steps of the three commands.

A closed union of its own, `Removal`, that no plan of a run can hold: nothing that runs by itself knows this module.
The steps are computed from what is there, in their order, so a command that was killed anywhere is finished by the
next one. Nothing is deleted before a tombstone is on record, and no tombstone before an archive was read back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from reconciler.core.names import MANAGED_GROUP
from reconciler.core.records import CutRecord, Tombstone

Spans = tuple[tuple[int, int], ...]


class Part(StrEnum):
    """The trees of files that belong to a person. Jobs are the held crontab and the held at jobs."""

    HOME = "home"
    MAIL = "mail"
    JOBS = "jobs"


class Match(StrEnum):
    """How what is there agrees with the archive: all of it is there, a part of it, or something else."""

    WHOLE = "whole"
    PARTIAL = "partial"
    OTHER = "other"


# --- what is there ---


@dataclass(frozen=True, slots=True)
class Tree:
    """One part where it lies.

    `is_sound`: it is what it should be, a folder or, for mail, a file; `uid` owns it. `match` is None where there is no
    archive to compare with, `differences` says in words what OTHER means. `archived`: the archive has this part.
    """

    path: str
    exists: bool = False
    is_sound: bool = True
    uid: int = 0
    match: Match | None = None
    differences: tuple[str, ...] = ()
    archived: bool = False


@dataclass(frozen=True, slots=True)
class HomePlace:
    """Where a home lies.

    `real` is its path without links. `writable_above` are the folders on the way there that others than root could
    rename things in. `mounts` are the file systems mounted at it or below.
    """

    real: str
    writable_above: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Belongings:
    """What there is of one person beside what `Observed` says.

    `env_files` are the paths of those that exist. `has_shadow` and `has_gshadow` say whether shadow(5) and gshadow(5)
    have a line of the name, `in_gshadow` which groups of gshadow have it as a member. `staging` are the leftovers of
    an interrupted archiving or restoring.

    The rest is known where there is a tombstone and `is_compared`, for to read an archive takes its time:
    `archive_problem` is why it cannot be used, `archived_env` and `differing_env` are env files in it, all of them and
    those that are there with another text; `login_as_archived` says whether the shadow line is as archived.
    """

    trees: Mapping[Part, Tree]
    place: HomePlace
    gecos: str = ""
    env_files: tuple[str, ...] = ()
    has_shadow: bool = False
    has_gshadow: bool = False
    in_gshadow: tuple[str, ...] = ()
    staging: tuple[str, ...] = ()
    is_compared: bool = False
    archive_problem: str = ""
    archived_env: tuple[str, ...] = ()
    differing_env: tuple[str, ...] = ()
    login_as_archived: bool = True


# --- the steps ---


@dataclass(frozen=True, slots=True)
class DropStaging:
    """Remove what an interrupted archiving or restoring has left beside its place."""

    kind: ClassVar = "drop_staging"
    user: str
    paths: tuple[str, ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"{', '.join(self.paths)}: left by an interrupted command → removed"


@dataclass(frozen=True, slots=True)
class ArchiveFiles:
    """Put everything of a person into an archive, and compare it with what was read back. `sources` exist."""

    kind: ClassVar = "archive_files"
    user: str
    archive: str
    sources: tuple[str, ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"archive: none → {self.archive}, read back and compared ({', '.join(self.sources) or 'no files'})"


@dataclass(frozen=True, slots=True)
class WriteTombstone:
    """Record, before anything is deleted, what there was. The digest is that of the archive just made."""

    kind: ClassVar = "write_tombstone"
    user: str
    stone: Tombstone

    def describe(self) -> str:
        """Say what changes, in one line."""
        ports = "".join(f", {service} {port}" for service, port in sorted(self.stone.ports.items()))
        return f"tombstone: none → uid {self.stone.uid}, gid {self.stone.gid}{ports}"


@dataclass(frozen=True, slots=True)
class DeleteTree:
    """Delete one part, all of which is in the archive."""

    user: str
    part: Part
    path: str
    uid: int

    @property
    def kind(self) -> str:
        """One kind for each part."""
        return f"delete_{self.part}"

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"{self.part} {self.path} → deleted"


@dataclass(frozen=True, slots=True)
class DeleteEnvFiles:
    """Delete the env files, all of which are in the archive."""

    kind: ClassVar = "delete_env_files"
    user: str
    paths: tuple[str, ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"{', '.join(self.paths)} → deleted"


@dataclass(frozen=True, slots=True)
class ReleaseSubids:
    """Take the subordinate ids back; (first, count) each. Once the account has gone, no tool does it."""

    kind: ClassVar = "release_subids"
    user: str
    uids: Spans
    gids: Spans

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"subordinate ids: {_spans(self.uids, self.gids)} → none"


@dataclass(frozen=True, slots=True)
class DeleteAccount:
    """Delete the account, its memberships and its own group, and no file."""

    kind: ClassVar = "delete_account"
    user: str
    uid: int

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"account: uid {self.uid} → deleted"


@dataclass(frozen=True, slots=True)
class DropOrphans:
    """Remove the lines that a killed `userdel` leaves of an account that has gone.

    `memberships` are lines of group(5), `gid` the group of the person's own, `shadow` and `gshadow` whether these
    files have lines that nothing goes with.
    """

    kind: ClassVar = "drop_orphans"
    user: str
    memberships: tuple[str, ...] = ()
    gid: int | None = None
    shadow: bool = False
    gshadow: bool = False

    def describe(self) -> str:
        """Say what changes, in one line."""
        places = [
            *(["shadow"] if self.shadow else []),
            *(["group"] if self.gid is not None or self.memberships else []),
            *(["gshadow"] if self.gshadow else []),
        ]
        return f"lines without an account in {', '.join(places)} → removed"


@dataclass(frozen=True, slots=True)
class ForgetCut:
    """Remove the record of the cut. Where somebody was deleted, the tombstone says the same."""

    kind: ClassVar = "forget_cut"
    user: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return "record of the cut → removed"


@dataclass(frozen=True, slots=True)
class CompleteTombstone:
    """Record that nothing is left to delete."""

    kind: ClassVar = "complete_tombstone"
    user: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return "tombstone: being deleted → deleted"


@dataclass(frozen=True, slots=True)
class ReopenTombstone:
    """Record that the person is being brought back."""

    kind: ClassVar = "reopen_tombstone"
    user: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return "tombstone: deleted → being restored"


@dataclass(frozen=True, slots=True)
class RecordCut:
    """Record the cut again, before there is an account: it is a closed one from its first moment."""

    kind: ClassVar = "record_cut"
    user: str
    record: CutRecord

    def describe(self) -> str:
        """Say what changes, in one line."""
        return "cut off: no → as before the deletion"


@dataclass(frozen=True, slots=True)
class RecreateGroups:
    """Make the group of the person's own with its old gid, and the group of managed accounts if the host lacks it."""

    kind: ClassVar = "recreate_groups"
    user: str
    gid: int | None
    managed: bool

    def describe(self) -> str:
        """Say what changes, in one line."""
        told = [] if self.gid is None else [f"{self.user} (gid {self.gid})"]
        return f"groups: none → {', '.join([*told, *([MANAGED_GROUP] if self.managed else [])])}"


@dataclass(frozen=True, slots=True)
class CompleteOwnGroup:
    """Write the gshadow line that an interrupted restore left out for the group of the person's own."""

    kind: ClassVar = "complete_own_group"
    user: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"gshadow line of the group {self.user}: missing → no password"


@dataclass(frozen=True, slots=True)
class RecreateAccount:
    """Make the account with its old ids, expired and with a locked password; no file."""

    kind: ClassVar = "recreate_account"
    user: str
    stone: Tombstone
    groups: tuple[str, ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        groups = f"groups {' '.join(self.groups)}" if self.groups else "no groups"
        return f"account: none → uid {self.stone.uid}, {groups}, expired, password locked"


@dataclass(frozen=True, slots=True)
class CloseAccount:
    """Expire an account that an interrupted restore made, and lock its password, whatever of that is missing."""

    kind: ClassVar = "close_account"
    user: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return "login: half made → expired, password locked"


@dataclass(frozen=True, slots=True)
class RejoinGroups:
    """Put the account into groups that an interrupted restore has left out."""

    kind: ClassVar = "rejoin_groups"
    user: str
    groups: tuple[str, ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"groups: + {' '.join(self.groups)}"


@dataclass(frozen=True, slots=True)
class ReturnSubids:
    """Give the subordinate ids back; (first, count) each."""

    kind: ClassVar = "return_subids"
    user: str
    uids: Spans
    gids: Spans

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"subordinate ids: none → {_spans(self.uids, self.gids)}"


@dataclass(frozen=True, slots=True)
class RestoreTree:
    """Put one part back from the archive. `replaces`: what is there goes first, all of it is in the archive too."""

    user: str
    part: Part
    path: str
    uid: int
    replaces: bool

    @property
    def kind(self) -> str:
        """One kind for each part."""
        return f"restore_{self.part}"

    def describe(self) -> str:
        """Say what changes, in one line."""
        before = "in part" if self.replaces else "missing"
        return f"{self.part} {self.path}: {before} → as archived"


@dataclass(frozen=True, slots=True)
class RestoreEnvFiles:
    """Write the env files as archived, byte for byte."""

    kind: ClassVar = "restore_env_files"
    user: str
    paths: tuple[str, ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"{', '.join(self.paths)}: missing → as archived"


@dataclass(frozen=True, slots=True)
class RestorePassword:
    """Put the password, locked as it was archived, and its dates back."""

    kind: ClassVar = "restore_password"
    user: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return "password and its dates: none → as archived, still locked"


@dataclass(frozen=True, slots=True)
class RetireIds:
    """Record that nobody gets these ids again."""

    kind: ClassVar = "retire_ids"
    user: str
    ids: tuple[int, ...]

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"ids {', '.join(map(str, self.ids))}: {self.user}'s → nobody's, ever"


@dataclass(frozen=True, slots=True)
class RemoveTombstone:
    """Remove the tombstone; the archive stays."""

    kind: ClassVar = "remove_tombstone"
    user: str
    archive: str

    def describe(self) -> str:
        """Say what changes, in one line."""
        return f"tombstone → removed (the archive stays: {self.archive})"


Removal = (
    DropStaging
    | ArchiveFiles
    | WriteTombstone
    | DeleteTree
    | DeleteEnvFiles
    | ReleaseSubids
    | DeleteAccount
    | DropOrphans
    | ForgetCut
    | CompleteTombstone
    | ReopenTombstone
    | RecordCut
    | RecreateGroups
    | CompleteOwnGroup
    | RecreateAccount
    | CloseAccount
    | RejoinGroups
    | ReturnSubids
    | RestoreTree
    | RestoreEnvFiles
    | RestorePassword
    | RetireIds
    | RemoveTombstone
)


def _spans(uids: Spans, gids: Spans) -> str:
    told = [("uids", first, count) for first, count in uids] + [("gids", first, count) for first, count in gids]
    return ", ".join(f"{word} {first}-{first + count - 1}" for word, first, count in told)
