"""What the host itself cannot say of a person: how they were before a cut, and what they had before a deletion.

The values, and their form as JSON documents. A `*_from` function raises ValueError, KeyError or TypeError where a
document is not what it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Step(StrEnum):
    """What else there is to take back outside of this machine when somebody leaves."""

    REMOVE_FROM_T3_GROUP = "remove_from_t3_group"
    REVOKE_CLUSTER_RBAC = "revoke_cluster_rbac"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a person is called outside of this machine; the roster does not know it any more once they have left."""

    authentik_user: str
    k8s_user: str


@dataclass(frozen=True, slots=True)
class CutRecord:
    """How somebody was before they were cut off, written before the first change and never overwritten.

    `since` counts seconds since 1970. `by_command`: `rosterd cut` asked for it, so it stays while they are on the
    roster. `expiry` is the day of shadow(5), counted from 1970, None for never; `locked` says whether the password
    was, `passwordless` that it was empty. `running` are the units beside rosterd's own that ran as this user.
    `done` are the external steps that have been taken.
    """

    uid: int
    gid: int
    since: int
    by_command: bool = False
    expiry: int | None = None
    locked: bool = True
    passwordless: bool = False
    lingering: bool = False
    running: tuple[str, ...] = ()
    identity: Identity | None = None
    done: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What a deleted person had, so that nobody else gets it and they can get it back.

    `subuids` and `subgids` are (first, count). `archive` is the path, `digest` the SHA-256 of that file in hex.
    `cut` is the record of the cut that went before. `complete`: nothing is left to delete.
    """

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    gecos: str
    groups: tuple[str, ...]
    subuids: tuple[tuple[int, int], ...]
    subgids: tuple[tuple[int, int], ...]
    ports: Mapping[str, int]
    archive: str
    digest: str
    since: int
    cut: CutRecord
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Records:
    """Everything on record, by the name of the person.

    `retired` are the ids of deleted people whose names have been let go: nobody gets them again.
    """

    cuts: Mapping[str, CutRecord] = field(default_factory=dict)
    tombstones: Mapping[str, Tombstone] = field(default_factory=dict)
    identities: Mapping[str, Identity] = field(default_factory=dict)
    retired: frozenset[int] = frozenset()

    @property
    def reserved_ids(self) -> frozenset[int]:
        """The uids and gids that no new account may get."""
        held: list[CutRecord | Tombstone] = [*self.cuts.values(), *self.tombstones.values()]
        return self.retired | {one.uid for one in held} | {one.gid for one in held}

    @property
    def reserved_ports(self) -> frozenset[int]:
        """The ports that deleted people had."""
        return frozenset(port for stone in self.tombstones.values() for port in stone.ports.values())


def as_document(record: CutRecord | Tombstone | Identity) -> dict[str, Any]:
    """Return a record as a JSON document."""
    return asdict(record)


def cut_record_from(document: Mapping[str, Any]) -> CutRecord:
    """Read the document of a cut record."""
    expiry, identity = document["expiry"], document["identity"]
    return CutRecord(
        uid=whole(document["uid"]),
        gid=whole(document["gid"]),
        since=whole(document["since"]),
        by_command=_flag(document["by_command"]),
        expiry=None if expiry is None else whole(expiry),
        locked=_flag(document["locked"]),
        passwordless=_flag(document["passwordless"]),
        lingering=_flag(document["lingering"]),
        running=_texts(document["running"]),
        identity=None if identity is None else identity_from(identity),
        done=tuple(Step(step) for step in document["done"]),
    )


def tombstone_from(document: Mapping[str, Any]) -> Tombstone:
    """Read the document of a tombstone."""
    return Tombstone(
        name=_text(document["name"]),
        uid=whole(document["uid"]),
        gid=whole(document["gid"]),
        home=_text(document["home"]),
        shell=_text(document["shell"]),
        gecos=_text(document["gecos"]),
        groups=_texts(document["groups"]),
        subuids=tuple((whole(first), whole(count)) for first, count in document["subuids"]),
        subgids=tuple((whole(first), whole(count)) for first, count in document["subgids"]),
        ports={_text(service): whole(port) for service, port in document["ports"].items()},
        archive=_text(document["archive"]),
        digest=_text(document["digest"]),
        since=whole(document["since"]),
        cut=cut_record_from(document["cut"]),
        complete=_flag(document["complete"]),
    )


def identity_from(document: Mapping[str, Any]) -> Identity:
    """Read the document of an identity."""
    return Identity(_text(document["authentik_user"]), _text(document["k8s_user"]))


def whole(value: object) -> int:
    """Return a whole number from 0. Raises TypeError or ValueError for anything else: half a number is damage, too."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    if value < 0:
        raise ValueError(f"{value} is below 0")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is not a list")
    return tuple(_text(value) for value in values)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value
