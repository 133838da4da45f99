"""Reading YAML: what is refused before anything is built, and how problems are shown."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.document import MAX_BYTES, Document, Mapping, Place, Scalar, read_document
from reconciler.errors import FileRefused

_SECONDS = 1.0


def read(data: bytes) -> None:
    document, _ = read_document("roster.yaml", data)
    document.refuse_if_wrong()


def refusal(data: bytes) -> str:
    with pytest.raises(FileRefused) as caught:
        read(data)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(b"[" * 20_000 + b"]" * 20_000, "1:33: nested deeper than 32 levels", id="brackets"),
        pytest.param(b"{a: " * 20_000, "1:126: nested deeper than 32 levels", id="braces"),
        pytest.param(b"- " * 20_000, "1:65: nested deeper than 32 levels", id="dashes"),
        pytest.param(b"#" * (MAX_BYTES + 1), "larger than 16 MiB", id="too large"),
        pytest.param(b"\x00" * MAX_BYTES, "control character U+0000", id="all NUL"),
        pytest.param(b"\xff" * MAX_BYTES, "byte 0xff is not valid UTF-8", id="no text at all"),
        pytest.param(b'"' + b"a" * 1_000_000, "unexpected end of stream", id="a quote that never ends"),
    ],
)
def test_hostile_files_are_refused_at_once(data: bytes, told: str) -> None:
    started = time.monotonic()
    assert told in refusal(data)
    assert time.monotonic() - started < _SECONDS


def test_a_file_of_the_largest_size_is_read() -> None:
    text = b"users: {}\n"
    _, root = read_document("roster.yaml", text + b"#" * (MAX_BYTES - len(text)))
    assert isinstance(root, Mapping)


def test_nesting_of_32_levels_is_read() -> None:
    document, root = read_document("roster.yaml", b"[" * 32 + b"]" * 32)
    assert root is not None
    assert document.problems == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("no", "bool"),
        ("On", "bool"),
        ("0x10", "int"),
        ("010", "int"),
        ("1_000", "int"),
        ("22:30", "int"),
        ("1.5", "float"),
        (".inf", "float"),
        ("~", "null"),
        ("", "null"),
        ("2024-01-01", "timestamp"),
        ("'no'", "str"),
        ('"0x10"', "str"),
        ("y", "str"),
        ("1e3", "str"),
        ("bob", "str"),
    ],
)
def test_scalars_mean_what_yaml_1_1_says(text: str, kind: str) -> None:
    _, root = read_document("roster.yaml", f"- {text}\n".encode())
    assert root is not None
    assert not isinstance(root, Scalar | Mapping)
    (item,) = root.items
    assert isinstance(item, Scalar)
    assert item.kind == kind


def test_only_a_hundred_problems_are_shown_and_the_rest_counted() -> None:
    document = Document("roster.yaml", "x\n" * 200)
    for line in range(1, 151):
        document.problem(Place(line, 1), "wrong")
    with pytest.raises(FileRefused) as caught:
        document.refuse_if_wrong()
    assert str(caught.value).count(": wrong") == 100
    assert str(caught.value).endswith("roster.yaml: and 50 more problems")


def test_a_problem_found_twice_is_told_once() -> None:
    document = Document("roster.yaml", "x\n")
    document.problem(Place(1, 1), "wrong")
    document.problem(Place(1, 1), "wrong")
    with pytest.raises(FileRefused) as caught:
        document.refuse_if_wrong()
    assert str(caught.value).count("wrong") == 1


def test_problems_come_in_the_order_of_the_file() -> None:
    document = Document("roster.yaml", "one\ntwo\n")
    for place in (Place(2, 1), Place(1, 3), Place(1, 1)):
        document.problem(place, f"{place.line}-{place.column}")
    with pytest.raises(FileRefused) as caught:
        document.refuse_if_wrong()
    heads = [line for line in str(caught.value).splitlines() if line.startswith("roster.yaml:")]
    assert heads == ["roster.yaml:1:1: 1-1", "roster.yaml:1:3: 1-3", "roster.yaml:2:1: 2-1"]


@pytest.mark.parametrize(
    ("line", "column", "shown"),
    [
        pytest.param("abcdef", 3, ["    1 | abcdef", "      |   ^"], id="plain"),
        pytest.param("abc", 4, ["    1 | abc", "      |    ^"], id="behind the line"),
        pytest.param("\tab\tc", 5, ["    1 |  ab c", "      |     ^"], id="a tab takes one cell"),
        pytest.param("日本x", 3, ["    1 | 日本x", "      |     ^"], id="wide characters take two"),
        pytest.param("e\u0301x", 3, ["    1 | e\u0301x", "      |  ^"], id="combining characters take none"),
        pytest.param(
            "a" * 150 + "X" + "b" * 150,
            151,
            ["    1 | " + "a" * 50 + "X" + "b" * 49, "      | " + " " * 50 + "^"],
            id="a long line is cut on both sides",
        ),
        pytest.param("X" + "b" * 150, 1, ["    1 | X" + "b" * 99, "      | ^"], id="a long line is cut on the right"),
        pytest.param(
            "a" * 150 + "X", 151, ["    1 | " + "a" * 99 + "X", "      | " + " " * 99 + "^"], id="on the left"
        ),
    ],
)
def test_the_caret_stands_under_the_character(line: str, column: int, shown: list[str]) -> None:
    document = Document("roster.yaml", line + "\n")
    document.problem(Place(1, column), "wrong")
    with pytest.raises(FileRefused) as caught:
        document.refuse_if_wrong()
    assert str(caught.value).splitlines() == [f"roster.yaml:1:{column}: wrong", *shown]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'"a\\e[31mb": 1\n"a\\e[31mb": 2\n', id="a key that stands twice"),
        pytest.param(b"a: !%1B[31m b\n", id="a tag"),
    ],
)
def test_what_is_quoted_in_a_message_cannot_steer_the_terminal(data: bytes) -> None:
    assert "\x1b" not in refusal(data)


def test_the_place_is_right_on_lines_that_end_in_a_carriage_return_alone() -> None:
    assert "roster.yaml:2:2: control character" in refusal(b"a: 1\rb\x01: 2\r")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_never_crash(data: bytes) -> None:
    try:
        read(data)
    except FileRefused as refused:
        assert str(refused).startswith("roster.yaml:")  # noqa: PT017 (both ends are allowed here)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@,?\\ \n\t\r<=~0", max_size=60))
def test_any_text_is_read_or_refused_and_never_crashes(text: str) -> None:
    try:
        read(text.encode())
    except FileRefused as refused:
        assert str(refused).startswith("roster.yaml:")  # noqa: PT017 (both ends are allowed here)
