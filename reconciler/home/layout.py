"""Where a person's clones lie: `~/code` as the infra clone, or as a folder with it and others beside each other.

A change from one to the other is a few renames, with `.code.rosterd` beside `~/code` as the place for what is on its
way. Whatever one that was killed left behind is recognized, and finished or turned round. Nothing is copied, written
over or removed, so that branches, stashes, changed and untracked files stay what they are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from reconciler.core.home_steps import CodeLayout, Ending, LayoutStep, Watch
from reconciler.core.text import printable
from reconciler.errors import StepFailed
from reconciler.home.directory import make_parents
from reconciler.home.place import Ended, Home, InTheWay
from reconciler.home.repository import Repository, is_clone, is_empty_folder, what_is_there
from reconciler.home.worktrees import mend_worktrees
from reconciler.host.looks import exists

INFRA = "infra"
_PASSES = 5
_NAMED = 5


def take_layout(step: LayoutStep, home: Home) -> Ended:
    """Bring `~/code` to the layout. Raises `InTheWay`, with nothing moved, where it is none of those known."""
    layout = _Layout(step, home)
    done: list[str] = []
    for _ in range(_PASSES):
        # Noted before a pass that changes nothing: what the person changes meanwhile is seen by the next run.
        watches = tuple(layout.watches())
        try:
            new = list(layout.arrange())
        except OSError as error:
            raise StepFailed(f"{home.shown(Path(error.filename or layout.code))}: {error.strerror}") from error
        if not new:
            done += mend_worktrees(layout.code, layout.infra, home)
            return Ended(Ending.DONE, ", ".join(done) or "already so", watches)
        done += new
    raise StepFailed(f"{home.shown(layout.code)} does not stay as it was arranged")


class _Layout:
    """The places that a step is about."""

    def __init__(self, step: LayoutStep, home: Home) -> None:
        self.step = step
        self.home = home
        self.code = home.inside(step.path)
        self.away = self.code.with_name(f".{self.code.name}.rosterd")
        self.infra = self.code / INFRA
        self.shown = home.shown(self.code)

    def arrange(self) -> Iterator[str]:
        """Do what is to be done, and say each thing that was."""
        if self.step.layout is CodeLayout.WORKSPACE:
            yield from self._arrange_workspace()
        elif self.step.url is not None:
            yield from self._arrange_single(self.step.url)

    def watches(self) -> Iterator[Watch]:
        """Note what, once it looks different, may need another arrangement.

        The clones that other steps make here afterwards are no such thing.
        """
        yield exists(self.away)
        if self.step.layout is CodeLayout.SINGLE:
            yield exists(self.infra / ".git")
            if os.path.lexists(self.code / ".git"):
                yield exists(self.code / ".git")
            return
        yield exists(self.code)
        yield exists(self.code / ".git")
        for repo in self.step.repos:
            yield exists(self.infra / repo / ".git")
            if is_clone(self.infra / repo):
                yield exists(self.code / repo)

    # --- a folder for all clones ---

    def _arrange_workspace(self) -> Iterator[str]:
        yield from self._bring_back()
        if not os.path.lexists(self.code):
            make_parents(self.code, self.home)
            _make_folder(self.code)
            yield "made"
        elif is_clone(self.code):
            self._refuse_unless_infra(self.code)
            yield from self._move_under()
        elif not self.code.is_dir() or self.code.is_symlink() or os.path.lexists(self.code / ".git"):
            raise InTheWay(
                f"{self.shown} {what_is_there(self.code)}; move it away, and a folder for the clones is made"
            )
        yield from self._drop_away()
        if self.step.url is not None:
            yield from self._lift()

    def _move_under(self) -> Iterator[str]:
        """Put the clone at `~/code` a level lower."""
        if not os.path.lexists(self.away):
            _make_folder(self.away)
        try:
            self.code.rename(self.away / INFRA)
        except OSError:
            with contextlib.suppress(OSError):
                self.away.rmdir()
            raise
        self.away.rename(self.code)
        yield f"{INFRA} moved to {self.home.shown(self.infra)}"

    def _lift(self) -> Iterator[str]:
        """Put each clone that lies in the infra clone, and is none of its files, beside it."""
        for repo in self.step.repos:
            inner, own = self.infra / repo, self.code / repo
            if not is_clone(inner) or not (is_empty_folder(own) or not os.path.lexists(own)):
                continue
            if is_clone(self.infra) and not self._tracks(repo):
                inner.rename(own)
                yield f"{repo} lifted to {self.home.shown(own)}"

    def _tracks(self, name: str) -> bool:
        return bool(Repository(self.home, self.infra).must("ls-files", "--", f":(top,literal){name}"))

    # --- the infra clone alone ---

    def _arrange_single(self, url: str) -> Iterator[str]:
        yield from self._bring_back()
        if not os.path.lexists(self.code) or is_empty_folder(self.code):
            yield from self._drop_away()
        elif is_clone(self.code):
            self._refuse_unless_infra(self.code)
            yield from self._drop_away()
        elif self.code.is_symlink() or not self.code.is_dir() or os.path.lexists(self.code / ".git"):
            raise InTheWay(f"{self.shown} {what_is_there(self.code)}; move it away, and a clone of {url} is made")
        elif is_clone(self.infra):
            self._refuse_unless_infra(self.infra)
            yield from self._drop_away()
            yield from self._move_up()
        else:
            names = _few(sorted(path.name for path in self.code.iterdir()))
            raise InTheWay(
                f"{self.shown} is a folder with {names} and no clone of {url}; move it away, and one is made"
            )

    def _move_up(self) -> Iterator[str]:
        """Put the clone in `~/code` a level higher, and all that is beside it into it."""
        names = sorted(path.name for path in self.code.iterdir() if path.name != INFRA)
        self._refuse_collisions(names)
        self.code.rename(self.away)
        try:
            for name in names:
                self._move_in(name)
            (self.away / INFRA).rename(self.code)
        except (OSError, InTheWay):  # a mount point, say, cannot be moved
            with contextlib.suppress(OSError):
                self.away.rename(self.code)
            raise
        self.away.rmdir()
        yield f"{INFRA} moved to {self.shown}" + (f" with {_few(names)} in it" if names else "")

    def _move_in(self, name: str) -> None:
        target = self.away / INFRA / name
        if os.path.lexists(target):
            raise InTheWay(f"{self.home.shown(self.infra / name)} is there since a moment ago; move it away")
        (self.away / name).rename(target)

    def _refuse_collisions(self, names: Iterable[str]) -> None:
        both = [name for name in names if os.path.lexists(self.infra / name)]
        if both:
            raise InTheWay(
                f"{self.shown} and {self.home.shown(self.infra)} both hold {_few(both)}, and are to become one folder; "
                "rename or move away one of each"
            )

    # --- either way ---

    def _bring_back(self) -> Iterator[str]:
        """Turn round what was killed with `~/code` away: the place for what is on its way has it and infra in it."""
        if not os.path.lexists(self.away) or is_empty_folder(self.away):
            return
        free = not os.path.lexists(self.code) or is_empty_folder(self.code)
        shown = self.home.shown(self.away)
        if not free or self.away.is_symlink() or not is_clone(self.away / INFRA):
            raise InTheWay(f"{shown} {what_is_there(self.away)}, which is no state to go on from; move it away")
        self.away.rename(self.code)
        yield f"{shown} of an interrupted change put back"

    def _drop_away(self) -> Iterator[str]:
        """Remove the place for what is on its way, if an interrupted change left it. It is empty."""
        if os.path.lexists(self.away):
            try:
                self.away.rmdir()
            except OSError as error:
                raise InTheWay(f"{self.home.shown(self.away)} {what_is_there(self.away)}; move it away") from error
            yield f"{self.home.shown(self.away)} of an interrupted change removed"

    def _refuse_unless_infra(self, path: Path) -> None:
        url = self.step.url
        if url is None:
            raise InTheWay(f"{self.home.shown(path)} is a clone, where a folder for clones is to be; move it away")
        if not Repository(self.home, path).is_of(url):
            raise InTheWay(f"{self.home.shown(path)} is a clone of something else than {url}; move it away")


def _make_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)  # the mode given to mkdir() is subject to the umask


def _few(names: list[str]) -> str:
    """Return the first names of several, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(printable(name) for name in names[:_NAMED]) + more
