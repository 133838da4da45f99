"""Reads the fields of a YAML mapping into Python values, noting every problem with its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from reconciler.core.document import Document, Mapping, Node, Place, Scalar, Sequence
from reconciler.core.text import printable

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a text must look like: a pattern that it matches whole, and words for it."""

    pattern: re.Pattern[str]
    words: str

    def accepts(self, text: str) -> bool:
        """Say whether `text` as a whole fits."""
        return self.pattern.fullmatch(text) is not None


@dataclass(slots=True)
class Fields:
    """The fields of one mapping. Each `take_*` reads one key; `finish` reports the keys nobody took.

    A `take_*` notes a problem and returns the default for a value that is not acceptable, so that
    reading goes on. `subject` opens each message, as in "user 'bob'".
    """

    document: Document
    subject: str
    node: Mapping
    _taken: set[str] = field(default_factory=set)
    _values: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the mapping once."""
        self._values = {key.text: value for key, value in self.node.entries}

    def wrong(self, place: Place, message: str) -> None:
        """Note a problem of this mapping."""
        self.document.problem(place, f"{self.subject}: {message}" if self.subject else message)

    def value(self, key: str) -> Node | None:
        """Return the node under `key`, None where the key is absent."""
        self._taken.add(key)
        return self._values.get(key)

    def place(self, key: str) -> Place:
        """Return where the value of `key` stands, or the mapping itself without one."""
        node = self._values.get(key)
        return node.place if node else self.node.place

    def take_text(self, key: str, rule: Rule, default: str = "") -> str:
        """Return a text; absent gives the default."""
        node = self.value(key)
        if node is None:
            return default
        return self.text_of(key, node, rule, default)

    def take_required(self, key: str, rule: Rule) -> str:
        """Return a text that must be there."""
        if key not in self._values:
            self._taken.add(key)
            self.wrong(self.node.place, f"{key} is missing; it must be {rule.words}")
            return ""
        return self.take_text(key, rule)

    def take_choice(self, key: str, allowed: Iterable[str], default: str) -> str:
        """Return one of the words of a closed list."""
        node = self.value(key)
        if node is None:
            return default
        words = list(allowed)
        if isinstance(node, Scalar) and node.kind == "str" and node.text in words:
            return node.text
        self.wrong(node.place, f"{key} is {shown(node)}; allowed: {', '.join(words)}")
        return default

    def take_flag(self, key: str, *, default: bool) -> bool:
        """Return true or false; a quoted word is neither."""
        node = self.value(key)
        if node is None:
            return default
        return self.flag_of(key, node, default=default)

    def take_number(self, key: str, low: int, high: int, default: int) -> int:
        """Return a whole number in decimal digits between `low` and `high`, both included."""
        node = self.value(key)
        if node is None:
            return default
        if isinstance(node, Scalar) and node.kind == "int" and re.fullmatch(r"0|[1-9][0-9]{0,9}", node.text):
            number = int(node.text)
            if low <= number <= high:
                return number
        self.wrong(node.place, f"{key} is {shown(node)}; it must be a whole number from {low} to {high}")
        return default

    def take_texts(self, key: str, rule: Rule, refuse: Callable[[str], str | None] = lambda _: None) -> tuple[str, ...]:
        """Return a list of different texts; absent gives an empty one.

        `refuse` says of a text that fits the rule why it is not acceptable all the same.
        """
        found: dict[str, None] = {}
        for node in self.take_list(key):
            text = self.text_of(f"an entry of {key}", node, rule, "")
            if text in found:
                self.wrong(node.place, f"{key} holds '{text}' twice")
            elif why := refuse(text):
                self.wrong(node.place, why)
            elif text:
                found[text] = None
        return tuple(found)

    def take_list(self, key: str) -> tuple[Node, ...]:
        """Return the items of a list; absent gives an empty one."""
        node = self.value(key)
        if node is None:
            return ()
        if isinstance(node, Sequence):
            return node.items
        self.wrong(node.place, f"{key} is {shown(node)}; it must be a list, as in [{_example(node)}]")
        return ()

    def take_mapping(self, key: str) -> Mapping | None:
        """Return a mapping; absent, or null, gives None."""
        node = self.value(key)
        if node is None or is_null(node):
            return None
        if isinstance(node, Mapping):
            return node
        self.wrong(node.place, f"{key} is {shown(node)}; it must be a mapping, as in {{key: value}}")
        return None

    def take_each(self, key: str, read: Callable[[Scalar, Node], _T | None]) -> dict[str, _T] | None:
        """Return `read` of each entry of the mapping under `key`, without those that it gives None for."""
        node = self.take_mapping(key)
        if node is None:
            return None
        read_all = {name.text: read(name, value) for name, value in node.entries}
        return {name: value for name, value in read_all.items() if value is not None}

    def text_of(self, key: str, node: Node, rule: Rule, default: str) -> str:
        """Return the text of a node that follows `rule`."""
        if isinstance(node, Scalar) and node.kind == "str" and rule.accepts(node.text):
            return node.text
        self.wrong(node.place, f"{key} is {shown(node)}; it must be {rule.words}{_quote_hint(node)}")
        return default

    def flag_of(self, key: str, node: Node, *, default: bool) -> bool:
        """Return the truth value of a node."""
        if isinstance(node, Scalar) and node.kind == "bool":
            return node.text.lower() in ("true", "yes", "on", "y")
        self.wrong(node.place, f"{key} is {shown(node)}; allowed: true, false")
        return default

    def finish(self) -> None:
        """Note every key that no `take_*` asked for, and every one that YAML does not take for text."""
        for key, _ in self.node.entries:
            if key.text not in self._taken:
                near = difflib.get_close_matches(key.text, self._taken, n=1)
                meant = f"; did you mean '{near[0]}'?" if near else ""
                allowed = ", ".join(sorted(self._taken))
                self.wrong(key.place, f"unknown key '{printable(key.text)}'{meant} (allowed: {allowed})")
            else:
                self.refuse_other_than_text(key)

    def refuse_other_than_text(self, key: Scalar) -> None:
        """Note a key such as `no`, which YAML takes for something else than text."""
        if key.kind != "str":
            self.wrong(key.place, f"YAML takes the key '{printable(key.text)}' for {key.kind}, not text; quote it")


def is_null(node: Node) -> bool:
    """Say whether the node is YAML's null."""
    return isinstance(node, Scalar) and node.kind == "null"


def shown(node: Node) -> str:
    """Words for a value that is not acceptable."""
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    if node.kind == "null":
        return "empty"
    if node.kind == "str":
        return f"'{printable(node.text)}'"
    return f"{printable(node.text)} ({_KINDS.get(node.kind, node.kind)})"


_KINDS = {"bool": "which YAML takes for true or false", "int": "a number", "float": "a number",
          "timestamp": "a date"}  # fmt: skip


def _quote_hint(node: Node) -> str:
    quotable = isinstance(node, Scalar) and node.kind in ("bool", "int", "float", "timestamp")
    return "; put it in quotes if it is meant as text" if quotable else ""


def _example(node: Node) -> str:
    return printable(node.text) if isinstance(node, Scalar) and node.text else "one, two"
