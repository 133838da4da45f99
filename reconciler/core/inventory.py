"""What a tree of files holds, as values, and how two of them differ. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What an entry is, as `find -type` tells them apart."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symbolic link"
    FIFO = "FIFO"
    CHARACTER = "character device"
    BLOCK = "block device"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, without its name.

    `mode` are the permission bits, `size` bytes and 0 for what is no file. `content` is the SHA-256 of a file, the
    target of a link, the numbers of a device. `attributes` are the extended attributes with their values; ACLs are
    among them, as system.posix_acl_access and system.posix_acl_default (acl(5)).
    """

    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int = 0
    content: bytes = b""
    attributes: frozenset[tuple[str, bytes]] = frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """One entry where it lies: its path without the leading /, and (device, inode), which hard links share."""

    path: str
    entry: Entry
    inode: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds.

    `digest` is the SHA-256 of the archive's own file, in hex. A hard link stands in `entries` like the file that it
    is a second name of, and in `twins` with that file's path. `kept` are the bytes of some small files.
    """

    digest: str
    entries: Mapping[str, Entry]
    twins: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, bytes] = field(default_factory=dict)

    def below(self, top: str) -> frozenset[str]:
        """Return the paths of a tree, its top included."""
        return frozenset(path for path in self.entries if path == top or path.startswith(f"{top}/"))


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a tree agrees with an archive.

    `differences` are what it has and the archive has not, or has otherwise, each in words. `missing` are the
    paths that only the archive has.
    """

    differences: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()


def compare(tree: Iterable[Found], contents: Contents, top: str) -> Comparison:
    """Compare a tree with the part of an archive that lies at `top`."""
    differences = []
    inodes = {}
    missing = set(contents.below(top))
    linked = set(contents.twins) | set(contents.twins.values())
    for found in tree:
        archived = contents.entries.get(found.path)
        if archived is None:
            differences.append(f"/{found.path} is not in the archive")
        elif other := _differing(archived, found.entry):
            differences.append(f"/{found.path} has another {', '.join(other)} in the archive")
        missing.discard(found.path)
        if found.path in linked:
            inodes[found.path] = found.inode
    for path, twin in contents.twins.items():
        if path in inodes and twin in inodes and inodes[path] != inodes[twin]:
            differences.append(f"/{path} is a hard link to /{twin} in the archive alone")
    return Comparison(tuple(differences), frozenset(missing))


def _differing(archived: Entry, found: Entry) -> list[str]:
    """Return what two entries do not have in common, in words."""
    pairs = {
        "kind": (archived.kind, found.kind),
        "mode": (archived.mode, found.mode),
        "owner": ((archived.uid, archived.gid), (found.uid, found.gid)),
        "size": (archived.size, found.size),
        "content": (archived.content, found.content),
        "set of extended attributes or ACL": (archived.attributes, found.attributes),
    }
    return [word for word, (before, after) in pairs.items() if before != after]
