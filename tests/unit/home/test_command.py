"""Commands that are to have been run."""

from __future__ import annotations

import time

import pytest

from reconciler.core.home_steps import CommandStep, Ending
from reconciler.errors import StepFailed
from reconciler.home.command import take_command
from reconciler.home.place import Home
from reconciler.host.looks import still

pytestmark = pytest.mark.processes

APPEND = ("/bin/sh", "-c", 'echo run >> log; mkdir -p "$HOME/made"')


def runs(home: Home) -> int:
    log = home.path / "log"
    return log.read_text().count("run\n") if log.exists() else 0


@pytest.mark.parametrize(
    "step", [CommandStep(APPEND, creates="made"), CommandStep(APPEND, unless=("test", "-d", "made"))]
)
def test_it_is_run_once(home: Home, step: CommandStep) -> None:
    first, second = take_command(step, home), take_command(step, home)
    assert [(ended.ending, ended.detail) for ended in (first, second)] == [
        (Ending.DONE, "run"),
        (Ending.DONE, "already so"),
    ]
    assert runs(home) == 1
    for ended in (first, second):
        assert [watch.path for watch in ended.watches] == ([str(home.path / "made")] if step.creates else [])
        assert all(map(still, ended.watches))


def test_it_is_run_again_once_what_it_made_has_gone(home: Home) -> None:
    step = CommandStep(APPEND, creates="made")
    (watch,) = take_command(step, home).watches
    (home.path / "made").rmdir()
    assert not still(watch)
    take_command(step, home)
    assert runs(home) == 2


def test_a_link_to_nothing_is_something(home: Home) -> None:
    (home.path / "made").symlink_to("nowhere")
    take_command(CommandStep(APPEND, creates="made"), home)
    assert runs(home) == 0


def test_arguments_are_no_shells(home: Home) -> None:
    take_command(CommandStep(("touch", "--", "a b; touch c $HOME"), creates="a b; touch c $HOME"), home)
    assert sorted(path.name for path in home.path.iterdir()) == [".gitconfig", "a b; touch c $HOME"]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (CommandStep(("/bin/sh", "-c", "echo broken >&2; exit 7"), creates="made"), "exited 7.*broken"),
        (CommandStep(("/bin/true",), creates="made"), "^/bin/true exited 0, but ~/made is not there$"),
        (CommandStep(("/bin/true",), unless=("/bin/false",)), "^/bin/true exited 0, but /bin/false still fails$"),
        (CommandStep(("/no/such/program",), creates="made"), "/no/such/program"),
        (CommandStep(("/bin/true",), unless=("/no/such/program",)), "/no/such/program"),
    ],
)
def test_what_does_not_work_is_told(home: Home, step: CommandStep, why: str) -> None:
    with pytest.raises(StepFailed, match=why):
        take_command(step, home)


def test_it_ends_with_the_time_of_the_step(home: Home) -> None:
    started = time.monotonic()
    home.deadline = started + 0.5
    with pytest.raises(StepFailed, match="sleep"):
        take_command(CommandStep(("/bin/sleep", "30"), creates="made"), home)
    assert time.monotonic() - started < 5


def test_it_runs_in_the_home_with_little_else(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of root's")
    take_command(CommandStep(("/bin/sh", "-c", "pwd > made; env >> made"), creates="made"), home)
    folder, *environment = (home.path / "made").read_text().splitlines()
    assert folder == str(home.path)
    assert f"HOME={home.path}" in environment
    assert not [line for line in environment if line.startswith("SECRET")]
