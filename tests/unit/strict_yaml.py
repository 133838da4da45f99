"""A second reader of YAML files, for the strict checker: PyYAML's parser in Python, where rosterd has libyaml's in C.

The rules are those of docs/roster.md, "Form". It shares no code with reconciler/, and what a plain word means is
written down anew, from the types of YAML 1.1 (yaml.org/type).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

MOST_BYTES = 16 * 1024 * 1024
MOST_LEVELS = 32

_DECIMAL, _SIXTIES = r"(?:0|[1-9][0-9_]*)", r"[1-9][0-9_]*(?::[0-5]?[0-9])+"
_KINDS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
    "int": rf"[-+]?(?:0b[01_]+|0[0-7_]+|{_DECIMAL}|0x[0-9a-fA-F_]+|{_SIXTIES})",
    "float": r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
    "date": r"\d{4}-\d\d-\d\d|\d{4}-\d\d?-\d\d?(?:[Tt]|[ \t]+)\d\d?:\d\d:\d\d(?:\.\d*)?"
    r"(?:[ \t]*(?:Z|[-+]\d\d?(?::\d\d)?))?",
    "merge": "<<",
    "value": "=",
}


class NotStrict(Exception):
    """The file is not of the strict form, so nothing more can be said of it."""


@dataclass(frozen=True)
class Word:
    """A scalar: its text, and what YAML takes it for; `text` for what is text."""

    text: str
    kind: str


@dataclass(frozen=True)
class Table:
    """A mapping: the entries by the text of their keys, and which keys are no text."""

    entries: dict[str, Tree]
    other_keys: frozenset[str]


Tree = Word | list[Any] | Table


class _Loader(yaml.SafeLoader):
    """PyYAML's parser, with tabs as YAML has them: refused in indentation, else as good as spaces."""

    def scan_to_next_token(self) -> None:
        """Pass over white space, comments and line ends."""
        while True:
            while self.peek() == " " or (self.peek() == "\t" and (self.flow_level or not self.allow_simple_key)):
                self.forward()
            if self.peek() == "#":
                while self.peek() not in "\0\r\n":
                    self.forward()
            if not self.scan_line_break():  # type: ignore[no-untyped-call]
                return
            if not self.flow_level:
                self.allow_simple_key = True


def read(data: bytes) -> Tree | None:
    """Return the tree of the only document, None for an empty file. Raises `NotStrict`."""
    if len(data) > MOST_BYTES:
        raise NotStrict("too large")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise NotStrict("not UTF-8") from error
    if any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} and char not in "\t\r\n" for char in text):
        raise NotStrict("control character")
    if "\ufeff" in text:
        raise NotStrict("a byte order mark within the file")
    # In brackets PyYAML's own parser takes a question mark within a word for a sign, which it is not in YAML.
    loader = yaml.CSafeLoader if re.search(r"[^\s?]\?", text) else _Loader
    try:
        return _document(iter(yaml.parse(text, Loader=loader)))
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The last two: an escape such as "\U00110000", which the parser in Python does not look at.
        raise NotStrict(f"not YAML: {error}") from error


def _document(events: Iterator[Any]) -> Tree | None:
    next(events)  # the start of the stream
    first = next(events)
    if isinstance(first, yaml.StreamEndEvent):
        return None
    tree = _tree(next(events), events, 1)
    next(events)  # the end of the document
    if not isinstance(next(events), yaml.StreamEndEvent):
        raise NotStrict("a second document")
    return tree


def _tree(event: Any, events: Iterator[Any], level: int) -> Tree:  # noqa: ANN401 (PyYAML's events have no typed base)
    if level > MOST_LEVELS:
        raise NotStrict("nested too deeply")
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None or event.tag is not None:
        raise NotStrict("an anchor, an alias or a tag")
    if isinstance(event, yaml.ScalarEvent):
        is_plain = not event.style
        return Word(event.value, _kind(event.value) if is_plain else "text")
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(following := next(events), yaml.SequenceEndEvent):
            items.append(_tree(following, events, level + 1))
        return items
    return _table(events, level)


def _table(events: Iterator[Any], level: int) -> Table:
    entries: dict[str, Tree] = {}
    other = set()
    while not isinstance(following := next(events), yaml.MappingEndEvent):
        key = _tree(following, events, level + 1)
        if not isinstance(key, Word):
            raise NotStrict("a key that is no word")
        if key.text in entries:
            raise NotStrict(f"{key.text!r} twice")
        if key.kind != "text":
            other.add(key.text)
        entries[key.text] = _tree(next(events), events, level + 1)
    return Table(entries, frozenset(other))


def _kind(text: str) -> str:
    return next((kind for kind, pattern in _KINDS.items() if re.fullmatch(pattern, text, re.ASCII)), "text")
