"""Reads the control groups, in which systemd keeps the processes of each unit apart (cgroups(7)).

A unit's group lies in those of its slices: /user.slice/user-1000.slice/t3-serve@alice.service. Paths here are
relative to the root of the hierarchy.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from reconciler.core.observed import Memory
from reconciler.errors import ScanFailed
from reconciler.host.mounts import mounts

# What has no limit has the largest number of whole pages there (memory.limit_in_bytes of cgroup v1).
_NO_LIMIT = 1 << 62


@functools.cache
def mount(proc: Path = Path("/proc")) -> str | None:
    """Return where the unified hierarchy is mounted (proc_pid_mountinfo(5)); None where there is none."""
    return _mounted("cgroup2", "", proc)


@functools.cache
def memory_mount(proc: Path = Path("/proc")) -> tuple[str, bool] | None:
    """Return where memory is accounted, and whether by the unified hierarchy; None where it is not."""
    unified = mount(proc)
    try:
        if unified and "memory" in Path(unified, "cgroup.controllers").read_text().split():
            return unified, True
    except OSError as error:
        raise ScanFailed(f"{error.filename}: {error.strerror}") from error
    first = _mounted("cgroup", "memory", proc)
    return (first, False) if first else None


def units_in(slice_name: str, proc: Path = Path("/proc")) -> frozenset[str] | None:
    """Return the units with processes in a user's slice; None where control groups cannot be looked at."""
    top = mount(proc)
    if top is None:
        return None
    try:
        with os.scandir(f"{top}/user.slice/{slice_name}") as entries:
            return frozenset(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return frozenset()
    except OSError:
        return None


def scan_memory(units: Collection[str], proc: Path = Path("/proc")) -> dict[str, Memory]:
    """Return what each of these units uses, and the lowest cap on its way up; of those that have processes."""
    found = memory_mount(proc)
    if found is None:
        return {}
    top, unified = found
    files = ("memory.current", "memory.max") if unified else ("memory.usage_in_bytes", "memory.limit_in_bytes")
    memory = {}
    for folder, cap in _slices(top, files[1], None):
        for name in _folders(folder):
            if name in units and (now := _number(f"{folder}/{name}/{files[0]}")) is not None:
                memory[name] = Memory(now, _lower(cap, _number(f"{folder}/{name}/{files[1]}")))
    return memory


def _slices(folder: str, cap_file: str, above: int | None) -> Iterator[tuple[str, int | None]]:
    """Yield every slice below a folder, the folder first, with the lowest cap that holds in it."""
    yield folder, above
    for name in _folders(folder):
        if name.endswith(".slice"):
            path = f"{folder}/{name}"
            yield from _slices(path, cap_file, _lower(above, _number(f"{path}/{cap_file}")))


def _folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []  # it ended meanwhile


def _number(path: str) -> int | None:
    """Return a number of a control group, None for none: `max`, or what the older hierarchy has for it."""
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    return int(text) if text.strip().isdigit() and int(text) < _NO_LIMIT else None


def _lower(first: int | None, second: int | None) -> int | None:
    return min((one for one in (first, second) if one is not None), default=None)


def _mounted(kind: str, option: str, proc: Path) -> str | None:
    found = (one for one in mounts(proc) if one.kind == kind)
    return next((one.where for one in found if not option or option in one.options.split(",")), None)
