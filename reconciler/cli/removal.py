"""The commands that delete a person for good, bring a deleted one back, and let a name go.

No timer, no path unit and no run comes here: `rosterd reconcile` cannot import what this module imports.
"""

from __future__ import annotations

import argparse
import pwd
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import structlog

from reconciler.cli.common import LOCK_SECONDS, begin, files_of, look_around, tell, this_machine
from reconciler.cli.exits import Exit
from reconciler.core import outputs
from reconciler.core.actions import CuttingAction
from reconciler.core.desired import Desired
from reconciler.core.destroying import Request, check_destroy_name, destroy_steps
from reconciler.core.inventory import Contents
from reconciler.core.observed import Account, Observed
from reconciler.core.plan import make_plan
from reconciler.core.plan_cuts import id_spans
from reconciler.core.records import Tombstone
from reconciler.core.removal import Belongings, Removal, Spans
from reconciler.core.restoring import forget_steps, lost_groups, restore_steps, taken_subids, tombstone_of
from reconciler.core.text import escaped, size_words
from reconciler.errors import RemovalRefused, RosterdError, StepFailed, UnknownName
from reconciler.host import archive, lock
from reconciler.host.belongings import Look, files_elsewhere
from reconciler.host.remover import Remover, archive_folder, archive_path, archives_of
from reconciler.host.state import State
from reconciler.inputs import Files

_SHOWN = 20
_BAR = 30
_REDRAW_SECONDS = 0.1


def destroy(options: argparse.Namespace) -> Exit:
    """Delete somebody who is cut off: archive everything, record it, delete it."""
    begin()
    archive.allow_deep_trees()
    _check_yes(options)
    files = files_of(options, trusted=True)
    folder = archive_folder(options.archive_dir)
    # What the archive holds is read once, under the lock; until then everything is taken to be in it.
    looked = _Destroying.look(options.name, files, folder, read_archive=options.dry_run)
    if not looked.steps:
        tell(f"{options.name} is deleted already; to have them back: rosterd restore {options.name}")
        return Exit.OK
    _tell_destroying(looked, folder)
    if options.dry_run:
        return Exit.OK
    _confirm(options, f"This deletes {options.name}.")
    with lock.exclusive(LOCK_SECONDS):
        looked = _Destroying.look(options.name, files, folder, read_archive=True)
        code = _carry_out(options.name, looked.steps, looked.contents)
    if code is Exit.OK:
        stone = State().records().tombstones[options.name]
        tell(
            f"{stone.name} is deleted; uid {stone.uid} and the ports stay reserved. Archive: {stone.archive}"
            f" (SHA-256 {stone.digest}). To have them back: rosterd restore {stone.name}"
        )
    return code


def restore(options: argparse.Namespace) -> Exit:
    """Bring somebody back who was deleted, as they were: cut off, until they are let in."""
    begin()
    archive.allow_deep_trees()
    files = Files(None, options.site, trusted=True)
    if options.dry_run:
        _tell_steps(_Restoring.look(options.name, files).steps)
        return Exit.OK
    with lock.exclusive(LOCK_SECONDS):
        looked = _Restoring.look(options.name, files)
        for text in looked.losses:
            _log_warning(options.name, text)
        code = _carry_out(options.name, looked.steps, looked.contents)
    if code is Exit.OK:
        also = f", and then rosterd uncut {options.name}" if looked.stone.cut.by_command else ""
        tell(f"{options.name} is restored, and cut off as before. To let them in, put them on the roster{also}")
    return code


def forget(options: argparse.Namespace) -> Exit:
    """Let the name and the ports of somebody deleted go; their ids go to nobody."""
    begin()
    _check_yes(options)
    files = Files(None, options.site, trusted=True)
    steps = _forgetting(options.name, files)
    _tell_steps(steps)
    if options.dry_run:
        return Exit.OK
    _confirm(options, f"Nobody can restore {options.name} by command after this.")
    with lock.exclusive(LOCK_SECONDS):
        return _carry_out(options.name, _forgetting(options.name, files), None)


# --- looking ---


@dataclass(frozen=True, slots=True)
class _Destroying:
    """What there is to delete, and the steps."""

    name: str
    spans: Spans
    has: Belongings
    contents: Contents | None
    steps: Sequence[Removal]

    @classmethod
    def look(cls, name: str, files: Files, folder: Path, *, read_archive: bool) -> _Destroying:
        """Look at the machine, and see that the person can be deleted. Raises `UnknownName` or `RemovalRefused`."""
        inputs, desired, observed = look_around(files, this_machine()[0])
        check_destroy_name(name, inputs.roster.users, observed)
        look = Look(name, desired.services.values(), observed, _Bar())
        has, contents = look.belongings(read_archive=read_archive)
        account = observed.accounts.get(name)
        request = Request(
            name,
            str(archive_path(folder, name, account.uid if account else 0)),
            _open_cut(name, desired, observed),
            look.ports(),
        )
        steps = destroy_steps(request, observed, has)
        return cls(name, _spans(name, account, observed), has, contents, steps)


@dataclass(frozen=True, slots=True)
class _Restoring:
    """What there is to bring back, the steps, and what cannot be had as it was, in words."""

    stone: Tombstone
    contents: Contents | None
    steps: Sequence[Removal]
    losses: Sequence[str]

    @classmethod
    def look(cls, name: str, files: Files) -> _Restoring:
        """Look at the machine, and see that the person can be restored. Raises `UnknownName` or `RemovalRefused`."""
        _, desired, observed = look_around(files, this_machine()[0])
        stone = tombstone_of(name, observed)
        has, contents = Look(name, desired.services.values(), observed, _Bar()).belongings(read_archive=True)
        steps = restore_steps(stone, observed, has)
        losses = [f"the group {group} is not on this machine any more" for group in lost_groups(stone, observed)]
        losses += [
            f"the subordinate ids {first}-{first + count - 1} are somebody else's now; the next run gives others"
            for first, count in taken_subids(stone, observed)
        ]
        return cls(stone, contents, steps, losses)


def _forgetting(name: str, files: Files) -> Sequence[Removal]:
    return forget_steps(name, look_around(files, this_machine()[0])[2])


def _open_cut(name: str, desired: Desired, observed: Observed) -> tuple[str, ...]:
    """Return what a run would still do to cut somebody off, in words."""
    actions = make_plan(desired, observed).actions
    left = [action.describe() for action in actions if isinstance(action, CuttingAction) and action.user == name]
    mapped = [
        f"{kind.path} has them"
        for kind, text in observed.outputs.items()
        if any(route.user == name for route in outputs.parse(kind, text))
    ]
    return (*left, *mapped)


def _spans(name: str, account: Account | None, observed: Observed) -> Spans:
    """Return the (first, last) user ids whose files are theirs; subordinate ones while there is an account."""
    if account is not None:
        return id_spans(account, observed)
    stone = tombstone_of(name, observed)
    return ((stone.uid, stone.uid),)


# --- telling and asking ---


def _tell_destroying(looked: _Destroying, folder: Path) -> None:
    _tell_steps(looked.steps)
    for path in archives_of(folder, looked.name, looked.spans[0][0]):
        tell(f"  an archive that is there already stays: {path}")
    tops = [Path(tree.path) for tree in looked.has.trees.values() if tree.exists]
    try:
        counted = archive.survey(tops)
    except StepFailed as error:
        raise RemovalRefused(f"{looked.name} is not deleted: {error}") from error
    tell(f"  in all {counted.entries} files and folders, {size_words(counted.size)}")
    own = {uid for first, last in looked.spans for uid in counted.owners if first <= uid <= last}
    for uid in sorted(counted.owners.keys() - own - {0}):
        tell(f"  {counted.owners[uid]} of them belong to {_name_of(uid)}, not to {looked.name}")
    if counted.sockets:
        tell(f"  {len(counted.sockets)} sockets are not archived: {', '.join(map(escaped, counted.sockets[:_SHOWN]))}")
    _tell_elsewhere(looked)


def _tell_elsewhere(looked: _Destroying) -> None:
    """Say what of the person lies elsewhere on the machine and stays there."""
    known = [tree.path for tree in looked.has.trees.values()]
    try:
        found, left_out = files_elsewhere(looked.spans, known)
    except StepFailed as error:
        tell(f"  whether files of theirs lie elsewhere is not known: {error}")
        return
    if found:
        tell(f"  {len(found)} files of theirs elsewhere stay, and are in no archive:")
        for path in found[:_SHOWN]:
            tell(f"    {escaped(path)}")
        if len(found) > _SHOWN:
            tell(f"    and {len(found) - _SHOWN} more")
    if left_out:
        tell(f"  not searched: {', '.join(map(escaped, left_out))}")


def _tell_steps(steps: Sequence[Removal]) -> None:
    for step in steps:
        tell(escaped(f"  {step.user}: {step.describe()}"))


def _check_yes(options: argparse.Namespace) -> None:
    """See, before anything is looked at, that there is somebody to ask. Raises `UnknownName`."""
    if options.yes is not None and options.yes != options.name:
        raise UnknownName(f"--yes names '{options.yes}', not '{options.name}'; nothing was done")
    if options.yes is None and not options.dry_run and not sys.stdin.isatty():
        raise UnknownName(f"there is no terminal to ask on; to confirm: --yes {options.name}")


def _confirm(options: argparse.Namespace, text: str) -> None:
    """Have the name typed. Raises `UnknownName` where it is not."""
    if options.yes is not None:
        return
    sys.stderr.write(f"{text} To go on, type the name: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != options.name:
        raise UnknownName("the name was not typed; nothing was done")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


# --- doing ---


def _carry_out(name: str, steps: Sequence[Removal], contents: Contents | None) -> Exit:
    """Carry out the steps in their order up to the first that fails, and log each."""
    bar = _Bar()
    remover = Remover(State(), contents, bar)
    for step in steps:
        try:
            remover.carry_out(step)
        except (RosterdError, OSError) as error:
            bar.clear()
            text = f"{name}: FAILED {step.describe()}: {error}. The same command, once more, does what is left"
            _log().error("removal_failed", message=escaped(text), os_user=name, action=step.kind)
            return Exit.PROBLEMS
        bar.clear()
        message = escaped(f"{name}: {step.describe()}")
        _log().info("removal_done", message=message, os_user=name, action=step.kind)
    return Exit.OK


def _log_warning(name: str, text: str) -> None:
    _log().warning("removal_loss", message=escaped(f"{name}: {text}"), os_user=name)


def _log() -> structlog.BoundLogger:
    log: structlog.BoundLogger = structlog.get_logger()
    return log


@dataclass(slots=True)
class _Bar:
    """Shows how far a long piece of work has come, where standard error is a terminal."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _drawn: float = 0.0
    _what: str = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Draw the bar, a few times a second at most, and where other work begins."""
        too_soon = what == self._what and time.monotonic() - self._drawn < _REDRAW_SECONDS
        if not total or not self.stream.isatty() or too_soon:
            return
        self._what = what
        done = min(done, total)  # tar writes more than the files hold
        filled = _BAR * done // total
        bar = "#" * filled + "-" * (_BAR - filled)
        self.stream.write(f"\r\x1b[K{what} [{bar}] {100 * done // total}% of {size_words(total)}")
        self.stream.flush()
        self._drawn = time.monotonic()

    def clear(self) -> None:
        """Remove the bar, so that something else can be said."""
        if self._drawn:
            self.stream.write("\r\x1b[K")
            self._drawn = 0.0
