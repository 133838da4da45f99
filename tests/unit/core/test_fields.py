"""How a value that is not acceptable is shown, and the hints that go with it."""

from __future__ import annotations

import pytest

from reconciler.core.document import Mapping, Node, Place, Scalar, Sequence
from reconciler.core.fields import shown
from reconciler.core.text import printable

HERE = Place(1, 1)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (Sequence((), HERE), "a list"),
        (Mapping((), HERE), "a mapping"),
        (Scalar("~", "null", HERE), "empty"),
        (Scalar("bob", "str", HERE), "'bob'"),
        (Scalar("no", "bool", HERE), "no (which YAML takes for true or false)"),
        (Scalar("0x10", "int", HERE), "0x10 (a number)"),
        (Scalar("2024-01-01", "timestamp", HERE), "2024-01-01 (a date)"),
    ],
)
def test_a_value_is_shown_as_the_file_has_it(node: Node, words: str) -> None:
    assert shown(node) == words


def test_a_text_is_made_fit_for_one_line_of_a_terminal() -> None:
    assert printable("a\nb\x1b[31m\x7f\x9b\u2028") == "a\\x0ab\\x1b[31m\\x7f\\x9b\\x2028"
    assert printable("x" * 61) == "x" * 57 + "..."
    assert printable("x" * 60) == "x" * 60
