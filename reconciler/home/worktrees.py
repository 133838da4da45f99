"""Linked worktrees (`git worktree`), which know each other and their clone by full paths: mended after a move."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from reconciler.home.place import Home
from reconciler.home.repository import Repository, git, is_clone, words_of

_MOST_BYTES = 4096


def mend_worktrees(code: Path, infra: Path, home: Home) -> list[str]:
    """Let git repair what links the clones in `code` and `infra` with their worktrees; return what it complains of.

    Run whether or not something has just been moved, since the run that moved it may have been killed. Worktrees that
    were moved along are found where they must be now: a level lower than before, below `infra`, or a level higher.
    """
    complaints: list[str] = []
    children = [*_children(code), *_children(infra)]
    for clone in [path for path in [code, *children] if is_clone(path)]:
        entries = _children(clone / ".git" / "worktrees")
        if entries:
            moved = [str(place) for entry in entries for place in _moved(entry, code, infra)]
            mended = Repository(home, clone).git("worktree", "repair", *moved)
            if mended.code != 0:
                complaints.append(f"git worktree repair in {home.shown(clone)}: {words_of(mended)}")
    # Of clones elsewhere, which still have the old place of their worktree.
    for worktree in [path for path in children if "/worktrees/" in _line(path / ".git")]:
        mended = git(home, "worktree", "repair", folder=worktree)
        if mended.code != 0:
            complaints.append(f"git worktree repair in {home.shown(worktree)}: {words_of(mended)}")
    return complaints


def _moved(entry: Path, code: Path, infra: Path) -> Iterator[Path]:
    """Yield where the worktree of an entry in `.git/worktrees` must be now, if it is not where the entry says."""
    link = Path(os.path.normpath(entry / _line(entry / "gitdir")))
    if os.path.lexists(link) or not link.is_relative_to(code):
        return
    inside_infra = link.is_relative_to(infra)
    now = code / link.relative_to(infra) if inside_infra else infra / link.relative_to(code)
    if _line(now).endswith(f"/worktrees/{entry.name}"):
        yield now.parent


def _line(path: Path) -> str:
    """Return what stands in a small file, nothing where there is none; anything but a plain file is not opened."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return ""
        with path.open("rb") as file:
            return os.fsdecode(file.read(_MOST_BYTES)).strip()
    except OSError:
        return ""


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []
