"""Asks the journal what a unit said last."""

from __future__ import annotations

import json

from reconciler.errors import StepFailed
from reconciler.host.process import run

_LINES = 5
_SECONDS = 10.0


def last_lines(unit: str, since: int) -> tuple[str, ...]:
    """Return the last few lines of a unit, and of systemd about it, from a time on; seconds since 1970.

    Nothing where the journal cannot be asked: what is the matter with the unit is told all the same.
    """
    # The newest first, or journalctl before 254 takes --lines for the first ones since that time.
    order = ("--reverse", f"--lines={_LINES}", f"--since=@{since}")
    options = ("--quiet", "--no-pager", "--all", "--output=json", "--output-fields=MESSAGE", *order, f"--unit={unit}")
    try:
        finished = run(["journalctl", *options], timeout=_SECONDS)
    except StepFailed:
        return ()
    if finished.code != 0:
        return ()
    messages = reversed([_message(entry) for entry in finished.out.split("\n") if entry])
    # A message can have any number of lines.
    return tuple(line for message in messages for line in message.split("\n") if line.strip())[-_LINES:]


def _message(entry: str) -> str:
    """Return the message of an entry; one that is no valid UTF-8 is a list of bytes there (journalctl(1), json)."""
    message = json.loads(entry).get("MESSAGE") or ""
    return message if isinstance(message, str) else bytes(message).decode("utf-8", "replace")
