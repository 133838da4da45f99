"""How a path looks, without opening it: enough to tell later whether it is still what it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from reconciler.core.home_steps import Watch

ABSENT, UNKNOWN = "absent", "unknown"
_TYPES = {stat.S_IFDIR: "folder", stat.S_IFREG: "file", stat.S_IFLNK: "link"}


def exists(path: Path) -> Watch:
    """Note whether there is something, and of what type."""
    return _watch(path, "exists")


def same(path: Path) -> Watch:
    """Note which file is there, its size and its times; of a folder only that it is one, what is in it may change."""
    return _watch(path, "same")


def still(watch: Watch) -> bool:
    """Say whether a path looks as it was noted. What cannot be looked at is not known to."""
    try:
        return _look(Path(watch.path), watch.how) == watch.look
    except (OSError, ValueError):  # a person's process named the path, which can be one that no file can have
        return False


def _watch(path: Path, how: str) -> Watch:
    try:
        return Watch(str(path), how, _look(path, how))
    except OSError as error:
        return Watch(str(path), how, (UNKNOWN, error.errno or 0))


def _look(path: Path, how: str) -> tuple[int | str, ...]:
    """Look once. Raises OSError where a folder on the way cannot be searched, or an I/O error comes."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return (ABSENT,)
    kind = _TYPES.get(stat.S_IFMT(found.st_mode), "other")
    if how == "exists" or kind == "folder":
        return (kind,)
    return (kind, found.st_ino, found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
