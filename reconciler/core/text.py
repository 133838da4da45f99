"""Text that comes from elsewhere, made fit to be shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from shlex import quote

# Control characters of ASCII and Latin-1, line and paragraph separators, what turns the direction of writing round, and
# what was no valid UTF-8 on disk.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Up to the last @, a password may hold one. It begins with what is searched for quickly: a line can be long.
_CREDENTIALS = re.compile(r"://[^/\s]+@")
_LONG = 60
_STEP = 1024
_FEW = 10
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_NAMED = 3


def escaped(text: str) -> str:
    """Return text that can be shown on one line of a terminal and written to any stream."""
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found.group()) & 0xFFFF:02x}", text)


def without_credentials(text: str) -> str:
    """Return text in which addresses have lost what they hold of credentials."""
    return _CREDENTIALS.sub("://…@", text)


def credentials_covered(text: str) -> str:
    """Return the same at its old length, for who points at a place in it."""
    return _CREDENTIALS.sub(lambda found: "://" + "*" * (len(found.group()) - 4) + "@", text)


def counted(number: int, word: str) -> str:
    """Return a number with its word, as in 1 file, 2 files."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def printable(text: str) -> str:
    """Return the same, at most 60 characters of it, and no credentials: an address that has some may be refused."""
    plain = escaped(without_credentials(text))
    return plain if len(plain) <= _LONG else plain[: _LONG - 3] + "..."


def listed(things: Iterable[object]) -> str:
    """Return a few of many in words."""
    words = sorted(map(str, things))
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return ", ".join(words[:_NAMED]) + more


def shell_word(text: str) -> str:
    """Return text as one word of a shell command that can be shown, and pasted into bash or zsh."""
    if escaped(text) == text:
        return quote(text)
    return "$'" + "".join(f"\\x{byte:02x}" for byte in text.encode("utf-8", "surrogateescape")) + "'"


def size_words(count: int) -> str:
    """Return bytes as people read them: 410 MiB, 1.5 GiB."""
    size, unit = float(count), 0
    while round(size) >= _STEP and unit < len(_UNITS) - 1:
        size, unit = size / _STEP, unit + 1
    whole = round(size, 1).is_integer() or size >= _FEW
    return f"{size:.0f} {_UNITS[unit]}" if whole else f"{size:.1f} {_UNITS[unit]}"
