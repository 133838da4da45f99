"""What the doctor looks at beside what a run does, as plain values. `host.scan_hazards` fills this in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

_WORD = re.compile(r"[A-Za-z0-9]+")
_LONGEST_NAME = 32  # useradd(8)
# Everybody can fill /tmp with long names; no program has more words than this in one.
_MOST_WORDS = 16


@dataclass(frozen=True, slots=True)
class ServiceLook:
    """A running service as the manager has it loaded: what its next start has, were it to come now.

    `memory_max` counts bytes, None where it is not capped. `cgroup` is where it runs, "" where it has no process.
    """

    private_tmp: bool
    memory_max: int | None
    cgroup: str = ""


@dataclass(frozen=True, slots=True)
class FileLook:
    """A regular file by lstat(2) alone."""

    path: str
    uid: int
    gid: int
    mode: int


@dataclass(frozen=True, slots=True)
class SharedPlace:
    """A socket, or a folder, in a folder that everybody may write to.

    `sockets` are the names of those in the folder itself; a folder that not everybody may list was not looked into.
    """

    path: str
    uid: int
    mode: int
    is_socket: bool
    sockets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnitLink:
    """A link that enables an instance. `has_template`: there is a unit file that it can be an instance of."""

    path: str
    unit: str
    has_template: bool


@dataclass(frozen=True, slots=True)
class Sightings:
    """All that the doctor sees.

    `services` are the running instances of the catalogue, by unit; `slice_caps` the memory caps of people's slices in
    bytes, by name, None where there is none. `before` and `now` count the restarts of units at two looks, `before`
    empty where there was but one; `restarting` are the units that waited for a restart at the last. `unseen` names what
    could not be read.
    """

    services: Mapping[str, ServiceLook] = field(default_factory=dict)
    slice_caps: Mapping[str, int | None] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)
    now: Mapping[str, int] = field(default_factory=dict)
    restarting: frozenset[str] = frozenset()
    secrets: tuple[FileLook, ...] = ()
    shared: tuple[SharedPlace, ...] = ()
    links: tuple[UnitLink, ...] = ()
    unseen: tuple[str, ...] = ()


def words_for(people: Mapping[str, int]) -> dict[str, str]:
    """Return by whom each name, and each uid, of these people is meant where it stands in the name of a file."""
    return {str(uid): name for name, uid in people.items()} | {name: name for name in people}


def named_after(entry: str, words: Mapping[str, str]) -> frozenset[str]:
    """Return whose name or uid stands in a file's name as a word of its own, as bob's does in agent-bob.sock."""
    found = [match.span() for match in islice(_WORD.finditer(entry), _MOST_WORDS)]
    whose = set()
    for place, (start, _) in enumerate(found):
        for _, end in found[place:]:
            if end > start + _LONGEST_NAME:
                break
            if (word := entry[start:end]) in words:
                whose.add(words[word])
    return frozenset(whose)
