"""How work reaches homes and what comes back: the pipes, the turns, and what ends early."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

import pytest

from reconciler.core.home_steps import DirectoryStep, Ending, FileStep, HomeStep, Result, result_line
from reconciler.core.observed import UnitState
from reconciler.host import cutting, homes
from reconciler.host.bus import Job, Systemd
from reconciler.host.homes import Said, take_steps

STEP = HomeStep("notes", DirectoryStep("notes"), 30)


class FakeSystemd:
    """Starts the first units that it is given; `ends` says how each ends, after what it writes to its pipe."""

    def __init__(self, folder: Path, at_once: int, ends: Callable[[str], str], writes: bytes = b"") -> None:
        """Note what is to happen."""
        self.folder = folder
        self.at_once = at_once
        self.ends = ends
        self.writes = writes
        self.orders: dict[str, dict[str, object]] = {}
        self.stopped: list[list[str]] = []

    def states(self, patterns: Sequence[str]) -> Mapping[str, UnitState]:
        """Return that no unit is left of an earlier run."""
        del patterns
        return {}

    def each_job(
        self, job: Job, units: Iterable[str], seconds: float, *, at_once: int, enough: Callable[[], bool]
    ) -> Iterator[tuple[str, str]]:
        """Take as many units as it starts, and answer for each."""
        assert job is Job.START
        assert seconds > 0
        assert at_once == homes.AT_ONCE
        assert not enough()
        for unit in islice(units, self.at_once):
            name = unit.removeprefix("rosterd-home@").removesuffix(".service")
            with (self.folder / f"{name}.work").open("rb", buffering=0) as work:
                self.orders[name] = json.loads(work.readline())
            result = os.open(self.folder / f"{name}.result", os.O_WRONLY | os.O_NONBLOCK)
            os.write(result, self.writes)
            os.close(result)
            yield unit, self.ends(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(homes, "FOLDER", tmp_path / "homes")
    return tmp_path / "homes"


def take(fake: FakeSystemd, monkeypatch: pytest.MonkeyPatch, names: Sequence[str], step: HomeStep) -> dict[str, Said]:
    def stop_units(_: Systemd, units: Sequence[str]) -> dict[str, str]:
        fake.stopped.append(list(units))
        return {}

    monkeypatch.setattr(cutting, "stop_units", stop_units)
    orders = {name: (f"/home/{name}", [step]) for name in names}
    return dict(take_steps(cast("Systemd", fake), orders, put_off=lambda: False))


def test_the_work_goes_in_by_one_pipe_and_the_word_comes_back_by_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Result("notes", Ending.DONE, "made")
    fake = FakeSystemd(folder, 9, lambda _: "done", b"no result\n" + result_line(result) + b"{")
    assert take(fake, monkeypatch, ["alice"], STEP) == {"alice": Said({"notes": result})}
    assert fake.orders["alice"]["home"] == "/home/alice"
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700


def test_whose_turn_did_not_come_has_no_pipes_and_has_not_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"person{number}" for number in range(600)]
    fake = FakeSystemd(folder, 3, lambda _: "timeout")
    before = len(list(Path("/proc/self/fd").iterdir()))
    said = take(fake, monkeypatch, names, STEP)
    assert said.keys() == set(names)
    assert {(one.put_off, one.why) for one in said.values()} == {(True, "put off")}
    assert fake.stopped == [[f"rosterd-home@person{number}.service" for number in range(3)]]
    assert list(folder.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_unit_that_failed_is_told_from_one_that_was_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeSystemd(folder, 9, lambda name: {"alice": "failed", "bob": "canceled"}[name])
    said = take(fake, monkeypatch, ["alice", "bob"], STEP)
    assert said["alice"] == Said(
        why="rosterd-home@alice.service: failed; see: journalctl -u rosterd-home@alice.service"
    )
    assert said["bob"].put_off


def test_work_that_no_pipe_holds_is_that_persons_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = HomeStep("large", FileStep("x", content="x" * (1024 * 1024)), 30)
    fake = FakeSystemd(folder, 9, lambda _: "done")
    assert take(fake, monkeypatch, ["alice"], large) == {
        "alice": Said(why="the work for alice is larger than 1048576 bytes")
    }
    assert fake.orders == {}
