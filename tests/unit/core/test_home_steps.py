"""Steps and results on their way between root and a person's process, and what is filled into them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.home_steps import (
    CodeLayout,
    CommandStep,
    DirectoryStep,
    Ending,
    FileStep,
    GitStep,
    HomeStep,
    Keep,
    LayoutStep,
    McpStep,
    Result,
    RetireStep,
    StepBody,
    Watch,
    filled,
    placeholders_of,
    read_order,
    read_result,
    result_line,
    work_order,
)

BODIES: list[StepBody] = [
    DirectoryStep("notes", "0700"),
    FileStep("a", "é {x}\n", None, "0600", Keep.CURRENT, "//"),
    FileStep("a", source="/etc/a"),
    GitStep("code", "https://x/y.git", "main", (("a", "https://a/b"), ("c", "https://c/d")), ("git-crypt",), 3),
    GitStep("code", "https://x/y.git"),
    McpStep("web", "http://localhost:1/"),
    CommandStep(("a", "b c"), None, ("d", "e"), 7),
    CommandStep(("a",), "x"),
    LayoutStep(CodeLayout.WORKSPACE, "code", None, ("api", "web")),
    RetireStep(("a.service", "b.timer")),
]
GOOD = {"name": "x", "ending": "done", "detail": "so", "watches": [{"path": "/x", "how": "same", "look": ["file", 1]}]}


def test_every_kind_arrives_as_it_was_sent() -> None:
    steps = [HomeStep(f"step-{number}", body, 30 + number) for number, body in enumerate(BODIES)]
    line = work_order("/home/bob", steps, {"/etc/a": "YWJj"})
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert read_order(line) == ("/home/bob", steps, {"/etc/a": "YWJj"})
    arrived = [step.body for step in read_order(line)[1]]
    assert next(body.keep for body in arrived if isinstance(body, FileStep)) is Keep.CURRENT
    assert next(body.layout for body in arrived if isinstance(body, LayoutStep)) is CodeLayout.WORKSPACE


def test_definitions_that_differ_have_different_digests() -> None:
    digests = {HomeStep("x", body, 30).digest() for body in BODIES}
    digests |= {HomeStep("y", BODIES[0], 30).digest(), HomeStep("x", BODIES[0], 31).digest()}
    digests.add(HomeStep("x", BODIES[0], 30).digest("another source"))
    assert len(digests) == len(BODIES) + 3


def test_the_digest_of_one_definition_is_always_the_same() -> None:
    assert HomeStep("x", DirectoryStep("a"), 1).digest() == HomeStep("x", DirectoryStep("a"), 1).digest()


@pytest.mark.parametrize("ending", Ending)
def test_a_result_arrives_as_it_was_sent(ending: Ending) -> None:
    result = Result("code/infra", ending, "é so", (Watch("/x", "same", ("file", 1, 2**63)), Watch("/y", "exists", ())))
    line = result_line(result)
    assert line.count(b"\n") == 1
    assert read_result(line) == result


def test_a_detail_is_made_fit_to_be_shown() -> None:
    line = result_line(Result("x", Ending.KEPT, "a\nb\x1b[2J\u202e"))
    assert read_result(line).detail == "a\\x0ab\\x1b[2J\\x202e"


def test_a_detail_is_cut_off_where_it_is_long() -> None:
    line = json.dumps({**GOOD, "detail": "x" * 10_000_000}).encode()
    assert read_result(line).detail == "x" * 500


WRONG_ENDINGS: list[Any] = ["well", 1, None, [], {}]
WRONG_WATCHES: list[Any] = [None, 1, "x", [1], [None], {"a": 1}, [[]], [{}]]
WRONG_PARTS: list[Any] = [
    {"path": 1},
    {"path": None},
    {"how": "x"},
    {"how": []},
    {"how": {}},
    {"look": 1},
    {"look": {}},
]
HOSTILE = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 200_000,
    b"9" * 10_000,
    b"null",
    b"[]",
    b"NaN",
    b'"x"',
    b"{}",
    *(
        json.dumps({key: value for key, value in GOOD.items() if key != missing}).encode()
        for missing in ("name", "ending", "detail", "watches")
    ),
    *(json.dumps({**GOOD, "ending": wrong}).encode() for wrong in WRONG_ENDINGS),
    *(json.dumps({**GOOD, "watches": wrong}).encode() for wrong in WRONG_WATCHES),
    *(
        json.dumps({**GOOD, "watches": [{"path": "/x", "how": "same", "look": [], **wrong}]}).encode()
        for wrong in WRONG_PARTS
    ),
]


def test_the_result_that_hostile_ones_are_made_of_is_good() -> None:
    assert read_result(json.dumps(GOOD).encode()) == Result("x", Ending.DONE, "so", (Watch("/x", "same", ("file", 1)),))


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_a_line_that_is_no_result_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (of many kinds)
        read_result(line)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["done", "same", "/x"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["name", "ending", "detail", "watches", "path", "how", "look"]), inner),
    ),
    max_leaves=12,
)


@given(st.one_of(st.binary(), JSON.map(lambda value: json.dumps(value).encode())))
def test_nothing_that_comes_is_another_error(line: bytes) -> None:
    try:
        result = read_result(line)
    except ValueError:
        return
    assert isinstance(result, Result)


# --- placeholders ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{user} {home}/x {port.t3-2}", {"user", "home", "port.t3-2"}),
        ("{{user}}", set()),
        ("${HOME} {} { user } {9} {A}", set()),
        ("awk '{print}'", {"print"}),
    ],
)
def test_words_in_braces_are_placeholders(text: str, expected: set[str]) -> None:
    assert placeholders_of(text) == expected


VALUES = {"user": "bob", "home": "/home/bob", "port.t3": "3773"}


@pytest.mark.parametrize("body", BODIES)
def test_a_step_without_placeholders_stays_as_it_is(body: StepBody) -> None:
    if not (isinstance(body, FileStep) and body.content):
        assert filled(body, {}) == body


def test_every_text_of_a_step_is_filled() -> None:
    git = GitStep("{user}", "https://x/{user}", None, (("a", "https://x/{user}"),), ())
    assert filled(git, VALUES) == GitStep("bob", "https://x/bob", None, (("a", "https://x/bob"),), ())
    command = CommandStep(("{home}/{user}", "{{user}} {port.t3}"), None, ("{user}",))
    assert filled(command, VALUES) == CommandStep(("/home/bob/bob", "{user} 3773"), None, ("bob",))
    file = filled(FileStep("{user}", "{user}{{x}}{X}", None, "0600", Keep.CURRENT), VALUES)
    assert file == FileStep("bob", "bob{x}{X}", None, "0600", Keep.CURRENT)
    assert file is not None
    assert file.keep is Keep.CURRENT


def test_a_value_is_not_filled_again() -> None:
    assert filled(DirectoryStep("{user}"), {"user": "{home}", "home": "x"}) == DirectoryStep("{home}")


def test_a_step_with_a_placeholder_that_has_no_value_is_none() -> None:
    assert filled(CommandStep(("{user}",), None, ("{port.web}",)), VALUES) is None
