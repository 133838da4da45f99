"""What deleting and restoring have in common: what a home may be, whose subordinate ids are whose, how to refuse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.core.observed import Observed
from reconciler.core.removal import HomePlace, Spans
from reconciler.core.text import escaped
from reconciler.errors import RemovalRefused

# Folders of the system's own. A home lies at least two levels deep, and not in these.
_SYSTEM_FOLDERS = frozenset(
    ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "root", "run", "sbin", "sys", "usr"]
)
_HOME_DEPTH = 2
_SHOWN = 10


def refuse(what: str, reasons: Iterator[str]) -> None:
    """Raise `RemovalRefused` with every reason, if there is one."""
    if told := list(reasons):
        raise RemovalRefused(f"{what}: " + "\n  ".join(["", *told] if len(told) > 1 else told))


def bad_home(home: str, place: HomePlace) -> Iterator[str]:
    """Yield why nothing is deleted or made where a home is said to lie."""
    parts = home.split("/")[1:]
    if not home.startswith("/") or len(parts) < _HOME_DEPTH or "" in parts or {".", ".."} & set(parts):
        yield f"home {escaped(home)} is no path of a person's own"
    elif parts[0] in _SYSTEM_FOLDERS:
        yield f"home {escaped(home)} lies in a folder of the system's"
    elif place.real != home:
        yield f"home {escaped(home)} is reached through a link; it is {escaped(place.real)}"
    for folder in place.writable_above:
        yield f"others than root can change what lies in {escaped(folder)}, above the home"
    for mount in place.mounts:
        yield f"a file system is mounted at {escaped(mount)}. Unmount it: umount {escaped(mount)}"


def some(texts: Sequence[str]) -> list[str]:
    """Return the first texts, fit to be shown, and how many there are beside them."""
    shown = [escaped(text) for text in texts[:_SHOWN]]
    return shown if len(texts) <= _SHOWN else [*shown, f"and {len(texts) - _SHOWN} more"]


def subids_of(name: str, observed: Observed) -> tuple[Spans, Spans]:
    """Return the subordinate ids that stand under a name."""
    uids, gids = (
        tuple((span.first, span.count) for span in spans or () if span.owner == name)
        for spans in (observed.subuids, observed.subgids)
    )
    return uids, gids
