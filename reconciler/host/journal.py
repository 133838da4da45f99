"""Asks the journal what a unit said last."""

from __future__ import annotations

from reconciler.errors import StepFailed
from reconciler.host.process import run

_LINES = 5
_SECONDS = 10.0


def last_lines(unit: str, since: int) -> tuple[str, ...]:
    """Return the last few lines of a unit, and of systemd about it, from a time on; seconds since 1970.

    Nothing where the journal cannot be asked: what is the matter with the unit is told all the same.
    """
    options = ("--quiet", "--no-pager", "--output=cat", f"--lines={_LINES}", f"--since=@{since}", f"--unit={unit}")
    try:
        finished = run(["journalctl", *options], timeout=_SECONDS)
    except StepFailed:
        return ()
    if finished.code != 0:
        return ()
    # A message can have any number of lines.
    return tuple(line for line in finished.out.split("\n") if line.strip())[-_LINES:]
