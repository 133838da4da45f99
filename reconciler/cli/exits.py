"""The exit codes. Nothing beside the command line gives them; `core.status_words` has them in words.

0 done, or nothing to do · 1 could not run, or a tier conflict · 2 with --dry-run --detailed-exitcode, there
are changes · 3 some users failed or have a conflict · 4 a guard held something · 5 the roster or the site file is
missing or refused · 64 wrong usage · 75 another run holds the lock · 130 interrupted.
"""

from __future__ import annotations

from enum import IntEnum

from reconciler.engine import Report
from reconciler.errors import FileRefused, LockBusy, RemovalRefused, RosterdError, UnknownName


class Exit(IntEnum):
    """The exit codes, as the module says."""

    OK = 0
    CANNOT_RUN = 1
    CHANGES = 2
    PROBLEMS = 3
    HELD = 4
    REFUSED = 5
    USAGE = 64
    BUSY = 75
    INTERRUPTED = 130


_EXITS: tuple[tuple[type[RosterdError], Exit], ...] = (
    (FileRefused, Exit.REFUSED),
    (UnknownName, Exit.USAGE),
    (RemovalRefused, Exit.PROBLEMS),
    (LockBusy, Exit.BUSY),
)


def exit_for(error: RosterdError) -> Exit:
    """Return the exit code of a command that ended with this error."""
    return next((code for kind, code in _EXITS if isinstance(error, kind)), Exit.CANNOT_RUN)


def exit_of(done: Report) -> Exit:
    """Return the exit code of a run."""
    if done.stopped is not None:
        # 1 and 5 say that nothing was changed.
        return Exit.PROBLEMS if done.outcomes else exit_for(done.stopped)
    if done.plan.held:
        return Exit.HELD
    return Exit.PROBLEMS if done.has_problems else Exit.OK
