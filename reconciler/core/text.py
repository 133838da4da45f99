"""Text that comes from elsewhere, made fit to be shown."""

from __future__ import annotations

import re

# Control characters of ASCII and Latin-1, line and paragraph separators, what turns the direction of writing round, and
# what was no valid UTF-8 on disk.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LONG = 60


def escaped(text: str) -> str:
    """Return text that can be shown on one line of a terminal and written to any stream."""
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found.group()) & 0xFFFF:02x}", text)


def counted(number: int, word: str) -> str:
    """Return a number with its word, as in 1 file, 2 files."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def printable(text: str) -> str:
    """Return the same, at most 60 characters of it."""
    plain = escaped(text)
    return plain if len(plain) <= _LONG else plain[: _LONG - 3] + "..."
