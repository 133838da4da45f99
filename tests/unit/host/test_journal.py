"""What a unit said last, asked of journalctl; here of a program that answers in its place."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from reconciler.errors import StepFailed
from reconciler.host import journal
from reconciler.host.process import Finished

UNIT = "t3-serve@alice.service"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str | int | StepFailed]:
    """Return what journalctl answers: its output, its exit code, or that it cannot be run; then its arguments."""
    answers: list[str | int | StepFailed] = []

    def run(argv: Sequence[str], *, timeout: float) -> Finished:
        assert 0 < timeout <= 30
        answer = answers.pop()
        if isinstance(answer, StepFailed):
            raise answer
        answers.extend(argv)
        return Finished(tuple(argv), answer, "x\n", "") if isinstance(answer, int) else Finished((), 0, answer, "")

    monkeypatch.setattr(journal, "run", run)
    return answers


def entries(*messages: str) -> str:
    """Return entries as journalctl has them, the newest first."""
    return "".join(json.dumps({"MESSAGE": message, "__CURSOR": "c"}, ensure_ascii=False) + "\n" for message in messages)


def test_what_is_no_text_is_shown_as_far_as_it_is_some(said: list[str | int | StepFailed]) -> None:
    said.append('{"MESSAGE": [111, 107, 255]}\n{"MESSAGE": null}\n')
    assert journal.last_lines(UNIT, 0) == ("ok\ufffd",)


def test_the_last_lines_of_the_unit_since_the_run_began_are_asked_for(said: list[str | int | StepFailed]) -> None:
    said.append(entries("two", "one"))
    assert journal.last_lines(UNIT, 1_700_000_000) == ("one", "two")
    assert said[0] == "journalctl"
    assert {f"--unit={UNIT}", "--since=@1700000000", "--lines=5", "--reverse", "--no-pager"} <= set(said)


def test_blank_lines_say_nothing(said: list[str | int | StepFailed]) -> None:
    said.append(entries("", "one", "  "))
    assert journal.last_lines(UNIT, 0) == ("one",)


def test_one_message_of_many_lines_is_no_more_than_the_last_few(said: list[str | int | StepFailed]) -> None:
    said.append(entries("\n".join(f"line {number}" for number in range(10_000)), "before"))
    assert journal.last_lines(UNIT, 0) == tuple(f"line {number}" for number in range(9995, 10_000))


def test_only_a_newline_ends_a_line(said: list[str | int | StepFailed]) -> None:
    said.append(entries("one\x0ctwo\u2028three\rfour"))
    assert journal.last_lines(UNIT, 0) == ("one\x0ctwo\u2028three\rfour",)


@pytest.mark.parametrize("answer", [1, StepFailed("journalctl did not end within 10 s")])
def test_a_journal_that_does_not_answer_says_nothing(
    said: list[str | int | StepFailed], answer: int | StepFailed
) -> None:
    said.append(answer)
    assert journal.last_lines(UNIT, 0) == ()
