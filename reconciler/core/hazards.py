"""The hazards of a machine that several people share, as values, as text and as JSON. No I/O here.

Where the same is wrong with many people it is one hazard, which names a few of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from reconciler.core import hazards_of_files, hazards_of_ports, hazards_of_services
from reconciler.core.desired import Desired
from reconciler.core.hazard_case import Case, Hazard, HazardKind, people_of
from reconciler.core.observed import Observed
from reconciler.core.sightings import Sightings
from reconciler.core.text import counted, escaped

JSON_VERSION = 1
Accepted = Collection[tuple[HazardKind, str | None]]
"""What is not to be told: hazards of a kind that concern a person, or with None all of a kind."""


_FINDERS: Mapping[HazardKind, Callable[[Case], Iterator[Hazard]]] = {
    HazardKind.PORT_HELD: hazards_of_ports.held_ports,
    HazardKind.PORT_SHARED: hazards_of_ports.shared_ports,
    HazardKind.WRONG_PORT: hazards_of_ports.wrong_ports,
    HazardKind.READABLE_SECRET: hazards_of_files.readable_secrets,
    HazardKind.FOREIGN_SOCKET: hazards_of_files.foreign_sockets,
    HazardKind.OPEN_LISTENER: hazards_of_ports.open_listeners,
    HazardKind.READABLE_HOME: hazards_of_files.readable_homes,
    HazardKind.CRASH_LOOP: hazards_of_services.crash_loops,
    HazardKind.NO_MEMORY_CAP: hazards_of_services.no_memory_caps,
    HazardKind.NO_PRIVATE_TMP: hazards_of_services.shared_tmp,
    HazardKind.STRAY_LINK: hazards_of_files.stray_links,
    HazardKind.STRAY_ENV_FILE: hazards_of_files.stray_env_files,
}


def find_hazards(
    desired: Desired, observed: Observed, seen: Sightings, accepted: Accepted = frozenset()
) -> tuple[Hazard, ...]:
    """Return the hazards that nobody has accepted, the worst first. Pure: the same input, the same hazards."""
    case = Case(desired, observed, seen, people_of(desired, observed))
    found: list[Hazard] = []
    for kind, find in _FINDERS.items():
        if (kind, None) not in accepted:
            without = {name for other, name in accepted if other is kind and name is not None}
            found += find(replace(case, people=case.people - without))
    places = {kind: place for place, kind in enumerate(HazardKind)}
    return tuple(sorted(found, key=lambda one: (places[one.kind], one.users, one.evidence)))


def hazards_text(hazards: Sequence[Hazard], accepted: Accepted, unseen: Sequence[str]) -> str:
    """Return the hazards for a terminal: a block a kind, the worst first, then the counts."""
    lines: list[str] = []
    for kind, block in groupby(hazards, key=lambda one: one.kind):
        lines.append(f"{kind.value}: {kind.headline}")
        for remedy, alike in groupby(block, key=lambda one: one.remedy):
            lines += [f"  - {escaped(one.evidence)}" for one in alike]
            lines.append(f"    > {escaped(remedy)}")
        lines.append("")
    lines += [f"Could not be seen, so nothing is known of its hazards: {escaped(what)}" for what in unseen]
    lines.append(_summary(hazards, accepted, complete=not unseen))
    return "\n".join(lines) + "\n"


def _summary(hazards: Sequence[Hazard], accepted: Accepted, *, complete: bool) -> str:
    """Return the last line: how many of what."""
    kinds = Counter(one.kind for one in hazards)
    told = ", ".join(f"{number} {kind.value}" for kind, number in kinds.items())
    left_out = ", ".join(accepted_words(accepted))
    found = f"{counted(len(hazards), 'hazard')}: {told}" if hazards else "No hazards" + ("" if complete else " seen")
    return found + (f"; accepted: {left_out}" if left_out else "") + "."


def accepted_words(accepted: Accepted) -> list[str]:
    """Return what is accepted as the command line has it, as in no-private-tmp, open-listener:bob."""
    return sorted(kind.value if name is None else f"{kind.value}:{name}" for kind, name in accepted)


def hazards_json(hazards: Iterable[Hazard], accepted: Accepted, unseen: Iterable[str]) -> dict[str, Any]:
    """Return the hazards for programs. `version` changes when a key changes its meaning or goes."""
    return {
        "version": JSON_VERSION,
        "hazards": [
            {"kind": one.kind.value, "users": list(one.users), "evidence": one.evidence, "remedy": one.remedy}
            for one in hazards
        ],
        "accepted": accepted_words(accepted),
        "unseen": list(unseen),
    }
