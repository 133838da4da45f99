"""YAML text as a tree of nodes that know their place, and the problems found in it.

Stricter than YAML on purpose: one document, no anchors, aliases or tags, no duplicate keys,
at most 32 levels. What a plain scalar means follows YAML 1.1, as PyYAML's resolver has it, so
that `no`, `0x10` or `22:30` is never silently taken for a name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import yaml

from reconciler.core.text import credentials_covered, printable, without_credentials
from reconciler.errors import FileRefused

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 32
MAX_SHOWN = 100
_LINE_WIDTH = 100
# C0 controls but tab, line feed and carriage return; DEL and C1; the line and paragraph separators; and a byte order
# mark, which libyaml passes over at the beginning of any line.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_LINE_END = re.compile("\r\n?|\n")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = yaml.resolver.Resolver()


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file; line and column count from 1, columns in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar as written. `kind` is what YAML takes it for: str, bool, int, null, float, timestamp."""

    text: str
    kind: str
    place: Place


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list of nodes."""

    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Mapping:
    """Key and value nodes in the order of the file; every key is a scalar and occurs once."""

    entries: tuple[tuple[Scalar, Node], ...]
    place: Place


Node = Scalar | Sequence | Mapping


@dataclass(slots=True)
class Document:
    """One file's text and the problems found in it so far.

    `name` is the file as the user named it; it opens every message.
    """

    name: str
    text: str
    problems: list[tuple[Place, str]] = field(default_factory=list)
    _settled: set[Place] = field(default_factory=set)

    def problem(self, place: Place, message: str) -> None:
        """Note that something is wrong at `place`; reading goes on, so that all is told at once."""
        if place not in self._settled:
            self.problems.append((place, message))

    def refuse_value(self, place: Place, message: str) -> None:
        """Note that the value at `place` is none; what its readers would say of it is not heard."""
        self.problem(place, message)
        self._settled.add(place)

    def refuse_if_wrong(self) -> None:
        """Raise `FileRefused` with every problem noted, in the order of the file."""
        if not self.problems:
            return
        ordered = sorted(dict.fromkeys(self.problems), key=lambda found: (found[0].line, found[0].column))
        lines, end = credentials_covered(self.text).splitlines(), _place_after(self.text.rstrip())
        # What is missing at the end of a file can have its place behind the last line.
        placed = [(min(place, end, key=lambda found: found.line), message) for place, message in ordered[:MAX_SHOWN]]
        shown = [self._explain(place, message, lines) for place, message in placed]
        if len(ordered) > MAX_SHOWN:
            shown.append(f"{self.name}: and {len(ordered) - MAX_SHOWN} more problems")
        raise FileRefused("\n".join(shown))

    def _explain(self, place: Place, message: str, lines: list[str]) -> str:
        """One message with the line it speaks of and a caret under the place; an address in it without credentials."""
        head = f"{self.name}:{place.line}:{place.column}: {without_credentials(message)}"
        if place.line > len(lines):
            return head
        line, caret = lines[place.line - 1], place.column - 1
        if len(line) > _LINE_WIDTH:
            start = max(0, min(caret - _LINE_WIDTH // 2, len(line) - _LINE_WIDTH))
            line, caret = line[start : start + _LINE_WIDTH], caret - start
        line = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line.replace("\t", " "))
        gutter = f"{place.line:>5} | "
        under = " " * (len(gutter) - 2) + "| " + " " * _width(line[:caret]) + "^"
        return f"{head}\n{gutter}{line}\n{under}"


def _width(text: str) -> int:
    """How many terminal cells `text` takes: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def read_document(name: str, data: bytes) -> tuple[Document, Node | None]:
    """Parse the bytes of one file.

    Returns the document and its root node, None for a file that is empty or only comments.
    Problems that leave the rest readable are noted in the document; those that do not raise
    `FileRefused` at once, together with what was noted before.
    """
    text = _decode(name, data)
    document = Document(name, text)
    _note_control_characters(document)
    document.refuse_if_wrong()
    try:
        root = _Composer(document).compose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        place = min(place, _place_after(text.rstrip()), key=lambda found: found.line)  # not behind the last line
        told = ", ".join(part for part in (error.context, error.problem) if part)
        document.problem(place, f"not valid YAML: {told}{_hint(document, place)}")
        root = None
    except yaml.YAMLError as error:
        document.problem(Place(1, 1), f"not valid YAML: {str(error).splitlines()[0]}")
        root = None
    if root is None:
        document.refuse_if_wrong()
    return document, root


def _decode(name: str, data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise FileRefused(f"{name}: larger than {MAX_BYTES // 1024 // 1024} MiB; such a file is not read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place_after(data[: error.start].decode("utf-8-sig", "replace"))
        byte = f"byte 0x{data[error.start]:02x}"
        raise FileRefused(
            f"{name}:{place.line}:{place.column}: {byte} is not valid UTF-8; save the file as UTF-8"
        ) from None


def _note_control_characters(document: Document) -> None:
    for found in _CONTROL.finditer(document.text):
        place = _place_after(document.text[: found.start()])
        document.problem(place, f"control character U+{ord(found.group()):04X}; remove it")
        if len(document.problems) >= MAX_SHOWN:
            return


def _place_after(text: str) -> Place:
    """Return the place that follows `text`; YAML ends lines with LF, CR LF or CR."""
    lines = _LINE_END.split(text)
    return Place(len(lines), len(lines[-1]) + 1)


def _hint(document: Document, place: Place) -> str:
    lines = document.text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    return "; indent with spaces, YAML allows no tabs there" if "\t" in line else ""


@lru_cache(maxsize=4096)
def _kind_of_plain(text: str) -> str:
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag.rpartition(":")[2]


class _Composer:
    """Builds nodes from parser events, so that depth is known before anything is built."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._events: Iterator[Any] = iter(yaml.parse(document.text, Loader=_LOADER))

    def compose(self) -> Node | None:
        """Return the root of the only document, None if there is none."""
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        root = self._node(next(self._events), 1)
        next(self._events)  # the document's end
        following = next(self._events)
        if not isinstance(following, yaml.StreamEndEvent):
            self._document.problem(_place(following), "a second document starts here; only one is allowed")
        return root

    def _node(self, event: Any, depth: int) -> Node:  # noqa: ANN401 (PyYAML's events share no typed base)
        place = _place(event)
        if depth > MAX_DEPTH:
            self._document.problem(place, f"nested deeper than {MAX_DEPTH} levels")
            self._document.refuse_if_wrong()
        if isinstance(event, yaml.AliasEvent):
            self._document.refuse_value(place, f"alias *{event.anchor} is not allowed; write the value out")
            return Scalar("", "null", place)
        if event.anchor is not None:
            self._document.problem(place, f"anchor &{event.anchor} is not allowed; write the value out")
        if event.tag is not None:
            self._document.refuse_value(place, f"tag {event.tag} is not allowed; write the plain value")
        if isinstance(event, yaml.ScalarEvent):
            kind = _kind_of_plain(event.value) if event.implicit[0] else "str"
            return Scalar(event.value, kind, place)
        if isinstance(event, yaml.SequenceStartEvent):
            return Sequence(tuple(self._items(depth)), place)
        return Mapping(tuple(self._entries(depth)), place)

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _entries(self, depth: int) -> Iterator[tuple[Scalar, Node]]:
        seen: dict[str, Place] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, Scalar):
                self._document.problem(key.place, "a key must be a plain word")
            elif (first := seen.setdefault(key.text, key.place)) is not key.place:
                twice = f"key '{printable(key.text)}' stands twice, first on line {first.line}"
                self._document.problem(key.place, twice)
            else:
                yield key, value


def _place(event: Any) -> Place:  # noqa: ANN401 (as above)
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)
