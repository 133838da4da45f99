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
    # The other way round, or journalctl before 254 takes --lines for the first ones since that time.
    order = ("--reverse", f"--lines={_LINES}", f"--since=@{since}")
    options = ("--quiet", "--no-pager", "--output=cat", *order, f"--unit={unit}")
    try:
        finished = run(["journalctl", *options], timeout=_SECONDS)
    except StepFailed:
        return ()
    lines = finished.out.splitlines() if finished.code == 0 else []
    return tuple(line for line in reversed(lines) if line.strip())
