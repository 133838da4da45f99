"""systemd's EnvironmentFile grammar: each case of cases/envfile is a file and what systemd makes of it.

`NAME.json` beside `NAME.env` holds `variables`, and `open_ended` where a line appended to the file
would not become an assignment of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.envfile import parse_env, with_assignment

CASES = Path(__file__).parent.parent / "cases" / "envfile"
# What matters to the grammar, and a little that does not.
BYTES = st.lists(st.sampled_from([bytes([byte]) for byte in b"AB=1 \t\n\r\\'\"#;$`\xff"]), max_size=40)


def expected(case: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(case.with_suffix(".json").read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("case", sorted(CASES.glob("*.env")), ids=lambda path: path.stem)
def test_a_file_means_what_systemd_makes_of_it(case: Path) -> None:
    read = parse_env(case.read_bytes())
    variables = {name.decode(): value.decode() for name, value in read.variables.items()}
    assert variables == expected(case)["variables"]
    assert read.open_ended == expected(case).get("open_ended", False)


def test_each_case_has_a_file_and_its_meaning() -> None:
    assert {path.stem for path in CASES.glob("*.env")} == {path.stem for path in CASES.glob("*.json")}


@pytest.mark.parametrize(
    "case",
    [path for path in sorted(CASES.glob("*.env")) if not expected(path).get("open_ended")],
    ids=lambda path: path.stem,
)
def test_a_port_is_added_to_any_file_that_is_closed(case: Path) -> None:
    before = case.read_bytes()
    after = with_assignment(before, "NEW_PORT", "3773")
    assert after.startswith(before)
    variables = {name.decode(): value.decode() for name, value in parse_env(after).variables.items()}
    assert variables == {**expected(case)["variables"], "NEW_PORT": "3773"}


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"", b"P=1\n"), (b"A=1\n", b"A=1\nP=1\n"), (b"A=1", b"A=1\nP=1\n"), (b"A=1\r", b"A=1\r\nP=1\n")],
)
def test_nothing_but_a_line_is_added_and_the_newline_that_was_missing(before: bytes, after: bytes) -> None:
    assert with_assignment(before, "P", "1") == after


@given(BYTES.map(b"".join))
def test_adding_keeps_every_byte_and_every_variable_and_reads_back(before: bytes) -> None:
    read = parse_env(before)
    if read.open_ended:
        return
    after = with_assignment(before, "NEW_PORT", "3773")
    assert after.startswith(before)
    assert parse_env(after).variables == {**read.variables, b"NEW_PORT": b"3773"}
    assert not parse_env(after).open_ended


@given(st.binary(max_size=200))
def test_any_bytes_are_read(data: bytes) -> None:
    parse_env(data)


@given(st.text(alphabet="abc =#;'\"\t\n$`\\", max_size=30))
def test_a_value_in_double_quotes_is_read_as_it_was(value: str) -> None:
    """The oracle is the rule of systemd.exec(5): in double quotes a backslash escapes a quote, itself, ` and $."""
    quoted = "".join(f"\\{char}" if char in '"\\`$' else char for char in value)
    assert parse_env(f'SECRET="{quoted}"\nPORT=1\n'.encode()).variables == {
        b"SECRET": value.encode(),
        b"PORT": b"1",
    }


@pytest.mark.parametrize("text", [b"# see \\\nT3_PORT=1\n", b"; \\\r\nT3_PORT=1\n", b"# the end \\"])
def test_a_comment_that_systemd_releases_read_apart_closes_the_file_to_additions(text: bytes) -> None:
    assert parse_env(text).open_ended


@pytest.mark.parametrize("text", [b"# C:\\dir\nT3_PORT=1\n", b"#\\\\\nT3_PORT=1\n"])
def test_a_backslash_within_a_comment_does_no_harm(text: bytes) -> None:
    assert not parse_env(text).open_ended
    assert parse_env(text).variables == {b"T3_PORT": b"1"}
