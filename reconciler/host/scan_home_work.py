"""Looks at homes from outside: whether what is on record of them still holds. Opens nothing below a home.

A look can hang on a file system that a person has mounted in their home: what lies on one is not looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from reconciler.core.desired import Desired
from reconciler.core.home_records import StepRecord
from reconciler.core.home_steps import AGENT_PLACES, USER_UNITS, FileStep, fill
from reconciler.core.observed import Account, HomeWork, Source
from reconciler.errors import FileRefused
from reconciler.host.looks import ABSENT, UNKNOWN, exists, same, still
from reconciler.host.mounts import mounts
from reconciler.host.sources import check_source
from reconciler.host.state import State


def scan_home_work(desired: Desired, accounts: Mapping[str, Account], state: State) -> HomeWork:
    """Return what is known of the homes of the people on the roster. Raises `ScanFailed` or PermissionError."""
    records = {name: steps for name, steps in state.home_steps().items() if name in desired.users}
    homes = {name: Path(accounts[name].home) for name in desired.users if name in accounts}
    mounted = _mounts_below(frozenset(homes.values()))
    for_machine = any(_is_there(Path(place)) for place in AGENT_PLACES if place.startswith("/"))
    own = [place for place in AGENT_PLACES if not place.startswith("/")]
    return HomeWork(
        records=records,
        changed=_changed(desired, records, homes, mounted),
        sources=_sources(desired),
        with_agent=frozenset(
            name
            for name in desired.users
            if for_machine
            or (name in homes and any(_is_there(homes[name] / place, homes[name], mounted) for place in own))
        ),
        legacy_units=_legacy_units(desired, homes, mounted),
    )


def _changed(
    desired: Desired,
    records: Mapping[str, Mapping[str, StepRecord]],
    homes: Mapping[str, Path],
    mounted: Iterable[Path],
) -> dict[tuple[str, str], str]:
    found = {}
    for name in records.keys() & homes.keys():
        steps = records[name]
        wanted = {step.name for step in desired.users[name].steps}
        for step, record in steps.items():
            for watch in record.watches if step in wanted else ():
                if _is_out_of_reach(Path(watch.path), homes[name], mounted) or not still(watch):
                    found[name, step] = watch.path
                    break
    return found


def _sources(desired: Desired) -> dict[str, Source]:
    """Return the files of root's that steps take their content from. They are read when a step is taken."""
    paths = {
        fill(step.body.source, {"user": user.name, "tier": user.tier})
        for user in desired.users.values()
        for step in user.steps
        if isinstance(step.body, FileStep) and step.body.source
    }
    found = {}
    for path in sorted(paths):
        look = same(Path(path)).look
        if look[0] != ABSENT:
            unknown = f"{path}: {os.strerror(int(look[1]))}" if look[0] == UNKNOWN else ""
            found[path] = Source(repr(look), unknown or _problem(path))
    return found


def _problem(path: str) -> str:
    """Return why a source cannot be used: the same that is found when it is read for a step."""
    try:
        check_source(path)
    except FileRefused as error:
        return str(error)
    return ""


def _legacy_units(
    desired: Desired, homes: Mapping[str, Path], mounted: Iterable[Path]
) -> dict[tuple[str, str], tuple[str, ...]]:
    catalogue = {service: units for service, units in desired.legacy_units.items() if service in desired.services}
    found = {}
    for name, home in homes.items():
        if not catalogue or _is_out_of_reach(home / USER_UNITS / "any", home, mounted):
            continue
        for service, units in catalogue.items():
            there = tuple(unit for unit in units if _is_there(home / USER_UNITS / unit))
            if there:
                found[name, service] = there
    return found


def _is_there(path: Path, home: Path | None = None, mounted: Iterable[Path] = ()) -> bool:
    """Say whether there is a file, or a link to something; one to /dev/null masks a unit."""
    if home is not None and _is_out_of_reach(path, home, mounted):
        return False
    kind = exists(path).look[0]
    return kind == "file" or (kind == "link" and not _is_mask(path))


def _is_mask(path: Path) -> bool:
    try:
        return path.readlink() == Path(os.devnull)
    except OSError:  # its owner has just put something else there
        return False


def _is_out_of_reach(path: Path, home: Path, mounted: Iterable[Path]) -> bool:
    """Say whether a path lies on another file system, or beyond a link of the person's: a look there may never end."""
    place, top = str(path), str(home)
    if not _is_below(place, top) or ".." in path.parts or any(_is_below(place, str(mount)) for mount in mounted):
        return True
    for part in place[len(top) + 1 :].split("/")[:-1]:
        top = f"{top}/{part}"
        try:
            if stat.S_ISLNK(os.lstat(top).st_mode):
                return True
        except (FileNotFoundError, NotADirectoryError):
            return False  # nothing is there, and nothing beyond it
        except (OSError, ValueError):  # a path that no system has, or that not even root may look at
            return True
    return False


def _is_below(place: str, top: str) -> bool:
    return place == top or place.startswith(f"{top}/")


def _mounts_below(homes: Collection[Path]) -> tuple[Path, ...]:
    """Return the mount points in homes, which are not homes themselves."""
    points = {Path(mount.where) for mount in mounts()}
    return tuple(sorted(point for point in points - set(homes) if not set(point.parents).isdisjoint(homes)))
