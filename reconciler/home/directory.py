"""A folder that is to be there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from reconciler.core.home_steps import DirectoryStep, Ending
from reconciler.home.place import Ended, Home, InTheWay
from reconciler.host.looks import exists


def take_directory(step: DirectoryStep, home: Home) -> Ended:
    """Make a folder if it is absent. What is there already keeps its mode, and may be a link to a folder."""
    path = home.inside(step.path)
    make_parents(path, home)
    try:
        _make(path, int(step.mode, 8))
    except FileExistsError:
        if not path.is_dir():
            raise InTheWay(f"{home.shown(path)} is there and is no folder") from None
        return Ended(Ending.DONE, "already there", (exists(path),))
    return Ended(Ending.DONE, "made", (exists(path),))


def _make(path: Path, mode: int) -> None:
    """Make a folder that has its mode from the start: whoever is killed in between must not leave it wider for ever."""
    umask = os.umask(0)
    try:
        path.mkdir(mode)
    finally:
        os.umask(umask)
    path.chmod(mode)  # an ACL of the folder above can have taken something from it


def make_parents(path: Path, home: Home) -> None:
    """Make the folders between the home and a path in it, 0755. Raises `InTheWay`."""
    for parent in reversed(path.relative_to(home.path).parents[:-1]):
        folder = home.path / parent
        if not folder.is_dir():
            if os.path.lexists(folder):
                raise InTheWay(f"{home.shown(folder)} is there and is no folder")
            folder.mkdir(mode=0o755)


def kind_of(path: Path) -> str:
    """Return what is at a path, a link not followed, in a word; nothing where there is nothing."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    names = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link", stat.S_IFIFO: "FIFO"}
    return names.get(stat.S_IFMT(mode), "device or socket")
