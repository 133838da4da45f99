"""What an executor makes of the word of people's own units: outcomes, and what goes on record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from reconciler.core.actions import RetireUnits, TakeHomeStep
from reconciler.core.home_records import StepRecord
from reconciler.core.home_steps import DirectoryStep, Ending, HomeStep, Result, RetireStep, Watch
from reconciler.core.outcome import Status
from reconciler.errors import StepFailed
from reconciler.host import executor
from reconciler.host.bus import Systemd
from reconciler.host.executor import HomeAction, HostExecutor
from reconciler.host.homes import Said
from reconciler.host.state import State

WATCH = Watch("/home/bob/a", "exists", ("folder",))


def take(name: str, user: str = "bob", digest: str = "d") -> TakeHomeStep:
    step = HomeStep(name, DirectoryStep(name), 30)
    return TakeHomeStep(user, f"/home/{user}", step, digest, "not done yet", is_first=True, place=0)


def retire() -> RetireUnits:
    return RetireUnits("bob", "web", "/home/bob", HomeStep("web", RetireStep(("a.service",)), 60))


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


@pytest.fixture
def saying(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mapping[str, Said], Sequence[HomeAction]], list[tuple[str, str, Status, str]]]:
    """Return what carries out actions with units that say this."""

    def carry_out(said: Mapping[str, Said], actions: Sequence[HomeAction]) -> list[tuple[str, str, Status, str]]:
        def steps(
            _systemd: Systemd, orders: Mapping[str, tuple[str, Sequence[HomeStep]]], put_off: Callable[[], bool]
        ) -> Iterator[tuple[str, Said]]:
            del put_off
            assert orders.keys() == {action.user for action in actions}
            yield from said.items()
            if missing := orders.keys() - said.keys():
                raise StepFailed(f"broke off before {sorted(missing)}")

        monkeypatch.setattr(executor, "take_steps", steps)
        outcomes = HostExecutor(Systemd(), state).apply(actions)
        return [(str(one.action.user), one.action.key[-1], one.status, one.why) for one in outcomes]

    return carry_out


Saying = Callable[[Mapping[str, Said], Sequence[HomeAction]], list[tuple[str, str, Status, str]]]


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (Ending.DONE, Status.DONE),
        (Ending.KEPT, Status.DONE),
        (Ending.BLOCKED, Status.SKIPPED),
        (Ending.FAILED, Status.FAILED),
    ],
)
def test_an_ending_is_an_outcome_and_a_record(saying: Saying, state: State, ending: Ending, status: Status) -> None:
    said = Said({"a": Result("a", ending, "so", (WATCH,))})
    assert saying({"bob": said}, [take("a")]) == [("bob", "a", status, "so")]
    record = state.home_steps()["bob"]["a"]
    assert (record.digest, record.ending, record.detail, record.watches) == ("d", ending, "so", (WATCH,))
    assert record.failures == (ending in (Ending.BLOCKED, Ending.FAILED))


def test_failures_are_counted_from_run_to_run_and_other_steps_stay_on_record(saying: Saying, state: State) -> None:
    state.save_home_steps("bob", {"b": StepRecord("e", Ending.DONE, "", 7)})
    for _ in range(3):
        saying({"bob": Said({"a": Result("a", Ending.FAILED, "no")})}, [take("a")])
    records = state.home_steps()["bob"]
    assert records["a"].failures == 3
    assert records["b"] == StepRecord("e", Ending.DONE, "", 7)


def test_where_a_unit_breaks_off_what_it_has_not_told_of_has_failed(saying: Saying, state: State) -> None:
    said = Said({"a": Result("a", Ending.DONE, "so")}, why="timed out")
    assert saying({"bob": said}, [take("a"), take("b"), take("c")]) == [
        ("bob", "a", Status.DONE, "so"),
        ("bob", "b", Status.FAILED, "timed out"),
        ("bob", "c", Status.FAILED, "timed out"),
    ]
    assert {name: record.ending for name, record in state.home_steps()["bob"].items()} == {
        "a": Ending.DONE,
        "b": Ending.FAILED,
        "c": Ending.FAILED,
    }


def test_what_was_put_off_has_not_failed(saying: Saying, state: State) -> None:
    said = Said({"a": Result("a", Ending.DONE, "so")}, why="put off", put_off=True)
    assert saying({"bob": said}, [take("a"), take("b")]) == [
        ("bob", "a", Status.DONE, "so"),
        ("bob", "b", Status.SKIPPED, "put off"),
    ]
    assert state.home_steps()["bob"].keys() == {"a"}


def test_a_step_without_a_word_of_it_is_left_for_another_run(saying: Saying, state: State) -> None:
    assert saying({"bob": Said()}, [take("a")]) == [("bob", "a", Status.SKIPPED, "its turn did not come")]
    assert state.home_steps() == {}


def test_a_result_of_a_step_that_nobody_asked_for_is_not_kept(saying: Saying, state: State) -> None:
    said = Said({"other": Result("other", Ending.DONE), "a": Result("a", Ending.DONE)})
    saying({"bob": said}, [take("a")])
    assert state.home_steps()["bob"].keys() == {"a"}


def test_retired_units_are_not_on_record(saying: Saying, state: State) -> None:
    said = Said({"web": Result("web", Ending.DONE, "renamed")})
    assert saying({"bob": said}, [retire()]) == [("bob", "web", Status.DONE, "renamed")]
    assert state.home_steps() == {}


def test_one_person_is_told_of_though_another_breaks_the_rest_off(saying: Saying, state: State) -> None:
    said = Said({"a": Result("a", Ending.DONE, "so")})
    assert saying({"alice": said}, [take("a", "alice"), take("a"), take("b")]) == [
        ("alice", "a", Status.DONE, "so"),
        ("bob", "a", Status.FAILED, "broke off before ['bob']"),
        ("bob", "b", Status.FAILED, "broke off before ['bob']"),
    ]
    assert state.home_steps().keys() == {"alice"}
