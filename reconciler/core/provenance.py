"""Where what is wanted comes from: the file and the line of each value, or that no file says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.core.document import Mapping as MappingNode
from reconciler.core.document import Node, Scalar, Sequence, read_document

Path = tuple[str, ...]
"""The keys that lead to a value, as in ("users", "alice", "tier"); a word of a list is the last of its path."""

DEFAULT = "default"


def places(name: str, data: bytes) -> Mapping[Path, int]:
    """Return the lines of a file's keys and of the words in its lists, counted from 1. Raises `FileRefused`.

    A value is where its key stands, on whichever line it begins. Of a word that is twice in a list the first counts.
    """
    _, root = read_document(name, data)
    found: dict[Path, int] = {}
    for path, line in _places(root, ()) if root is not None else ():
        found.setdefault(path, line)
    return found


def _places(node: Node, path: Path) -> Iterator[tuple[Path, int]]:
    if isinstance(node, MappingNode):
        for key, value in node.entries:
            yield (*path, key.text), key.place.line
            yield from _places(value, (*path, key.text))
    elif isinstance(node, Sequence):
        for item in node.items:
            if isinstance(item, Scalar):
                yield (*path, item.text), item.place.line


@dataclass(frozen=True, slots=True)
class Sources:
    """The places of both files. A file is called by its name alone, without its folder."""

    roster_name: str = "roster.yaml"
    site_name: str = "site.yaml"
    roster: Mapping[Path, int] = field(default_factory=dict)
    site: Mapping[Path, int] = field(default_factory=dict)

    @classmethod
    def read(cls, roster: tuple[str, bytes], site: tuple[str, bytes | None]) -> Sources:
        """Find the places in the two files, given as path and content; None for a site file that is not there."""
        return cls(
            _last_part(roster[0]),
            _last_part(site[0]),
            places(*roster),
            places(site[0], site[1]) if site[1] is not None else {},
        )

    def of_user(self, user: str, *path: str) -> str:
        """Say where the roster has a person's entry, or one value of it: `roster.yaml:4`, or `default`."""
        return _told(self.roster_name, self.roster.get(("users", user, *path)))

    def of_site(self, *path: str) -> str:
        """Say where the site file has a value: `site.yaml:12`, or `default`."""
        return _told(self.site_name, self.site.get(path))


def _told(name: str, line: int | None) -> str:
    return DEFAULT if line is None else f"{name}:{line}"


def _last_part(path: str) -> str:
    return path.rpartition("/")[2]
