"""Takes the steps of one home, one after the other, and says after each what became of it."""

from __future__ import annotations

import base64
import os
import pwd
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from reconciler.core.home_steps import (
    CommandStep,
    DirectoryStep,
    Ending,
    FileStep,
    GitStep,
    HomeStep,
    LayoutStep,
    McpStep,
    Result,
    RetireStep,
    read_order,
    result_line,
)
from reconciler.errors import RosterdError
from reconciler.home.command import take_command
from reconciler.home.directory import take_directory
from reconciler.home.file import take_file
from reconciler.home.git import take_git
from reconciler.home.layout import take_layout
from reconciler.home.mcp import CONFIGURATION, take_mcp
from reconciler.home.place import Ended, Home, InTheWay, undisturbed, without_passwords
from reconciler.home.retire import take_retire
from reconciler.host.looks import same

PERSON_SECONDS = 600
"""How long all steps of one home may take together."""


def main() -> None:
    """Read the work from standard input, and write a line for each step that was taken to standard output."""
    if os.geteuid() == 0:
        sys.exit("steps in a home are taken by its owner, never by root")
    path, steps, contents = read_order(sys.stdin.buffer.readline())
    if path != pwd.getpwuid(os.getuid()).pw_dir:
        sys.exit(f"{path} is not the home of who this runs as")
    home = Home(Path(path), {name: base64.b64decode(text) for name, text in contents.items()})
    for result in take(steps, home):
        sys.stdout.buffer.write(result_line(result))
        sys.stdout.buffer.flush()


def take(steps: Sequence[HomeStep], home: Home, seconds: float = PERSON_SECONDS) -> Iterator[Result]:
    """Take the steps; those whose time has not come, or whose foundation is not laid, have no result."""
    end = time.monotonic() + seconds
    lacking: list[str] = []
    agents: list[tuple[HomeStep, Result]] = []
    for step in steps:
        if any(step.is_below(name) for name in lacking) or time.monotonic() >= end:
            continue
        home.deadline = min(end, time.monotonic() + step.timeout)
        ended = _ended(step, home)
        if ended.ending in (Ending.BLOCKED, Ending.FAILED):
            lacking.append(step.name)
        result = Result(step.name, ended.ending, without_passwords(ended.detail), ended.watches)
        if isinstance(step.body, McpStep):
            agents.append((step, result))
        yield result
    yield from _looked_at_again(agents[:-1], home)


def _looked_at_again(agents: Sequence[tuple[HomeStep, Result]], home: Home) -> Iterator[Result]:
    """Say once more how the agent's file looks: all entries are in one, and the later ones have changed it."""
    for step, result in agents:
        home.deadline = time.monotonic() + step.timeout
        yield replace(result, watches=_ended(step, home).watches)


def _ended(step: HomeStep, home: Home) -> Ended:
    own = CONFIGURATION if isinstance(step.body, McpStep) else getattr(step.body, "path", None)
    watches = () if own is None else (same(home.inside(own)),)
    try:
        return _take(step, home)
    except InTheWay as error:
        return Ended(Ending.BLOCKED, str(error), watches)
    except RosterdError as error:
        return Ended(Ending.FAILED, str(error))
    except OSError as error:
        return Ended(Ending.FAILED, f"{error.filename or 'input/output'}: {error.strerror}")


def _take(step: HomeStep, home: Home) -> Ended:  # noqa: PLR0911 (one arm for each member of the union)
    match step.body:
        case DirectoryStep() as body:
            return take_directory(body, home)
        case FileStep() as body:
            return take_file(body, home)
        case GitStep() as body:
            return take_git(body, home)
        case McpStep() as body:
            return take_mcp(body, home)
        case CommandStep() as body:
            return take_command(body, home)
        case LayoutStep() as body:
            with undisturbed():
                return take_layout(body, home)
        case RetireStep() as body:
            return take_retire(body, home)
        case _:
            assert_never(step.body)
