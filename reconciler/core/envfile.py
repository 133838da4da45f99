"""The grammar of systemd's EnvironmentFile=, as far as reading and adding one variable needs it.

Follows parse_env_file_internal() of systemd (src/basic/env-file.c, unchanged from 252 to 257) and
systemd.exec(5): `#` and `;` start comments, values may be quoted with ' or ", may span lines in
quotes or with a trailing backslash, and the last assignment of a variable counts. Works on bytes,
so that what is not ours survives whatever its encoding. A comment that ends in a backslash swallows the
next line before systemd 254 and not since; a text with one is taken for open-ended.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

_NEWLINES = b"\n\r"
_SPACE = b" \t"
_QUOTES = b"'\""
# Characters that stand for themselves wherever they are.
_WORD = re.compile(rb"[A-Za-z0-9_./:,@%+-]+")
# Inside double quotes a backslash escapes only these (env-file.c, SHELL_NEED_ESCAPE and newline).
_ESCAPABLE = b'"\\`$'


@dataclass(frozen=True, slots=True)
class EnvText:
    """What was read: the variables, and whether a line appended might not become one of its own."""

    variables: dict[bytes, bytes]
    open_ended: bool


class _State(Enum):
    LINE_START = auto()
    COMMENT = auto()
    KEY = auto()
    BEFORE_VALUE = auto()
    VALUE = auto()
    QUOTED = auto()


def parse_env(data: bytes) -> EnvText:
    """Read the text of an env file. Never fails: systemd, too, skips what it does not understand."""
    reader = _Reader()
    position = 0
    while position < len(data):
        position = reader.step(data, position)
    reader.end_value()
    return EnvText(reader.variables, reader.open_ended)


def with_assignment(data: bytes, variable: str, value: str) -> bytes:
    """Return `data` with the line `variable=value` appended; every byte before it is kept.

    The caller has seen to it that the text is not `open_ended`.
    """
    separator = b"" if not data or data.endswith(b"\n") else b"\n"
    return data + separator + f"{variable}={value}\n".encode()


class _Reader:
    """A state machine over the bytes, one state a method."""

    def __init__(self) -> None:
        self.variables: dict[bytes, bytes] = {}
        self._unfinished = False
        self._state = _State.LINE_START
        self._key = bytearray()
        self._value = bytearray()
        self._kept = 0  # length of the value without unquoted white space at its end
        self._quote = b""
        self._comment_continued = False

    @property
    def open_ended(self) -> bool:
        """Whether the text ends within a value, or has a comment that systemd's releases read apart."""
        return self._unfinished or self._comment_continued

    def step(self, data: bytes, position: int) -> int:
        """Consume a word or one other character, or an escape and what it escapes; return the next position."""
        word = _WORD.match(data, position)
        piece = word[0] if word else data[position : position + 1]
        if piece == b"\\" and self._state in (_State.COMMENT, _State.BEFORE_VALUE, _State.VALUE):
            return self._escape(data, position)
        if piece == b"\\" and self._quote == b'"':
            return self._escape_in_quotes(data, position)
        self._unfinished = self._state is _State.QUOTED
        match self._state:
            case _State.LINE_START:
                self._line_start(piece)
            case _State.COMMENT:
                if piece in _NEWLINES:
                    self._state = _State.LINE_START
            case _State.KEY:
                self._in_key(piece)
            case _State.BEFORE_VALUE | _State.VALUE:
                self._in_value(piece)
            case _State.QUOTED:
                self._in_quotes(piece)
        return position + len(piece)

    def end_value(self) -> None:
        """Keep the assignment being read; the end of the file ends it as a newline does."""
        if self._state in (_State.BEFORE_VALUE, _State.VALUE, _State.QUOTED):
            self.variables[bytes(self._key).rstrip(_SPACE)] = bytes(self._value[: self._kept])
        self._key.clear()
        self._value.clear()
        self._kept = 0
        self._state = _State.LINE_START

    def _line_start(self, piece: bytes) -> None:
        if piece in b"#;":
            self._state = _State.COMMENT
        elif piece not in _SPACE + _NEWLINES:
            self._key += piece
            self._state = _State.KEY

    def _in_key(self, piece: bytes) -> None:
        if piece in _NEWLINES:
            self._key.clear()
            self._state = _State.LINE_START
        elif piece == b"=":
            self._state = _State.BEFORE_VALUE
        else:
            self._key += piece

    def _in_value(self, piece: bytes) -> None:
        if piece in _NEWLINES:
            self.end_value()
        elif piece in _QUOTES and self._state is _State.BEFORE_VALUE:
            self._quote = piece
            self._state = _State.QUOTED
            self._unfinished = True
        elif piece in _SPACE and self._state is _State.BEFORE_VALUE:
            pass
        else:
            self._value += piece
            self._state = _State.VALUE
            if piece not in _SPACE:
                self._kept = len(self._value)

    def _in_quotes(self, piece: bytes) -> None:
        if piece == self._quote:
            self._quote = b""
            self._state = _State.BEFORE_VALUE
            self._unfinished = False
        else:
            self._value += piece
            self._kept = len(self._value)

    def _escape(self, data: bytes, position: int) -> int:
        """Read a backslash outside quotes: it joins lines, or takes the next character as it is."""
        escaped = data[position + 1 : position + 2]
        # At the end of the file, or with the newline as its last byte, the next line would be swallowed.
        self._unfinished = position + 2 >= len(data) and (not escaped or escaped in (b"\n", b"\r"))
        if self._state is _State.COMMENT:
            self._comment_continued |= escaped in (b"", b"\n", b"\r")
        else:
            self._state = _State.VALUE
            if escaped and escaped not in (b"\n", b"\r"):
                self._value += escaped
                self._kept = len(self._value)
        return position + 2

    def _escape_in_quotes(self, data: bytes, position: int) -> int:
        escaped = data[position + 1 : position + 2]
        if escaped and escaped in _ESCAPABLE:
            self._value += escaped
        elif escaped not in (b"\n", b"\r"):
            self._value += b"\\" + escaped
        self._kept = len(self._value)
        self._unfinished = True
        return position + 2
