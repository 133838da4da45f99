"""Has steps in homes taken: for each person a unit that runs as them, its work handed over and its word taken by pipe.

Neither end of a pipe is ever a file of the person's. What a person's own process says of their home is believed, as it
can only be to their own harm, but it is read no further than a pipe holds, and only in the form of results.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.core.home_steps import FileStep, HomeStep, Result, read_result, work_order
from reconciler.errors import FileRefused, StepFailed
from reconciler.host import cutting, files
from reconciler.host.bus import Job, Systemd
from reconciler.host.sources import read_source

FOLDER = Path("/run/rosterd/homes")
# How many people's steps are taken side by side: who hangs holds one place and nobody else.
AT_ONCE = 16
# A unit ends by itself after 11 minutes (rosterd-home@.service); nobody waits longer for the last of them.
_PHASE_SECONDS = 900.0
_PIPE_BYTES = 1024 * 1024
# Canceled: somebody stopped the unit, or the run that it is part of.
_PUT_OFF = ("timeout", "canceled")
_PREFIX, _SUFFIX = "rosterd-home@", ".service"


@dataclass(slots=True)
class Said:
    """What one person's unit said: the results by step, and why the others have none."""

    results: dict[str, Result] = field(default_factory=dict)
    why: str = ""
    put_off: bool = False


@dataclass(slots=True)
class _Pipes:
    """The two named pipes of one person. Both ends that root holds are open before the unit opens the others."""

    work: int
    result: int
    paths: tuple[Path, Path]

    def close(self) -> None:
        _close((self.work, self.result), self.paths)


def _close(descriptors: Iterable[int], paths: Iterable[Path]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    for path in paths:
        path.unlink(missing_ok=True)


def take_steps(
    systemd: Systemd, orders: Mapping[str, tuple[str, Sequence[HomeStep]]], put_off: Callable[[], bool]
) -> Iterator[tuple[str, Said]]:
    """Have the steps of several people taken; `orders` are home and steps by name.

    Yields what each said, as they end. Once `put_off` is true, those who have not ended are stopped. Whatever ends this
    generator stops them too. Raises `StepFailed` where none could be begun.
    """
    files.make_private_folder(FOLDER)
    _stop_leftovers(systemd)
    open_pipes: dict[str, _Pipes] = {}
    refused: dict[str, str] = {}
    unheard = set(orders)

    def heard(unit: str, result: str) -> tuple[str, Said]:
        name = _person(unit)
        unheard.discard(name)
        return name, _heard(unit, result, open_pipes.pop(name))

    try:
        units = _started(orders, open_pipes, refused)
        late = []
        for unit, result in systemd.each_job(Job.START, units, _PHASE_SECONDS, at_once=AT_ONCE, enough=put_off):
            if result == "timeout":
                late.append(unit)
            else:
                yield heard(unit, result)
        if late:
            with contextlib.suppress(StepFailed):
                cutting.stop_units(systemd, late)
        for unit in late:
            yield heard(unit, "timeout")
        for name in sorted(unheard):
            yield name, Said(why=refused[name]) if name in refused else Said(why="put off", put_off=True)
    finally:
        _clean_up(systemd, open_pipes)


def _started(
    orders: Mapping[str, tuple[str, Sequence[HomeStep]]], open_pipes: dict[str, _Pipes], refused: dict[str, str]
) -> Iterator[str]:
    """Yield the units one by one, each with its pipes made when its turn has come, or refuse the work for it."""
    for name, (home, steps) in orders.items():
        order = work_order(home, steps, _contents(steps))
        if len(order) > _PIPE_BYTES:
            refused[name] = f"the work for {name} is larger than {_PIPE_BYTES} bytes"
            continue
        try:
            open_pipes[name] = _open_pipes(name, order)
        except OSError as error:
            refused[name] = f"{error.filename or FOLDER}: {error.strerror}"
        else:
            yield f"{_PREFIX}{name}{_SUFFIX}"


def _heard(unit: str, result: str, pipes: _Pipes) -> Said:
    """Take what a unit said before its job ended, and close its pipes."""
    try:
        return Said(_read(pipes.result), _why(unit, result), put_off=result in _PUT_OFF)
    finally:
        pipes.close()


def _person(unit: str) -> str:
    return unit.removeprefix(_PREFIX).removesuffix(_SUFFIX)


def _contents(steps: Sequence[HomeStep]) -> dict[str, str]:
    """Return the contents of the sources, base64. One that cannot be read is missing, and its step says so."""
    found = {}
    for source in {step.body.source for step in steps if isinstance(step.body, FileStep) and step.body.source}:
        with contextlib.suppress(FileRefused):
            data = read_source(source, trusted=True)
            if data is not None:
                found[source] = base64.b64encode(data).decode()
    return found


def _open_pipes(name: str, order: bytes) -> _Pipes:
    """Make both pipes and put the work into one. Raises OSError."""
    paths = (FOLDER / f"{name}.work", FOLDER / f"{name}.result")
    for path in paths:
        path.unlink(missing_ok=True)  # left by a run that was killed
        os.mkfifo(path, 0o600)
    descriptors: list[int] = []
    try:
        for path in paths:
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            descriptors.append(descriptor)
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.write(descriptors[0], order)  # whole: it is no more than the pipe holds
    except OSError:
        _close(descriptors, paths)
        raise
    return _Pipes(descriptors[0], descriptors[1], paths)


def _read(descriptor: int) -> dict[str, Result]:
    """Return the results in a pipe; a line that is none is left out."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while len(data) < _PIPE_BYTES and (part := os.read(descriptor, _PIPE_BYTES)):
            data += part
    results = {}
    for line in data.splitlines():
        with contextlib.suppress(ValueError):
            result = read_result(line)
            results[result.name] = result
    return results


def _why(unit: str, result: str) -> str:
    if result == "done":
        return ""
    return "put off" if result in _PUT_OFF else f"{unit}: {result}; see: journalctl -u {unit}"


def _stop_leftovers(systemd: Systemd) -> None:
    """Stop the units of a run that was killed: their pipes are gone."""
    left = [unit for unit, state in systemd.states([f"{_PREFIX}*{_SUFFIX}"]).items() if state.active == "activating"]
    if left:
        cutting.stop_units(systemd, left)


def _clean_up(systemd: Systemd, open_pipes: Mapping[str, _Pipes]) -> None:
    """End what is still under way, however it came that nobody waits for it any more."""
    if open_pipes:
        with contextlib.suppress(StepFailed):
            cutting.stop_units(systemd, [f"{_PREFIX}{name}{_SUFFIX}" for name in open_pipes])
    for pipes in open_pipes.values():
        pipes.close()
