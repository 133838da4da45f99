"""The one place that starts processes: an argument list, a fixed environment, and an end.

No shell. Standard input is closed or a given text, the locale is C so that messages can be told
apart, and a child that outlives its time is killed together with all that it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import StepFailed

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_TOLD = 500
_KILL_SECONDS = 5.0
_WATCH_SECONDS = 0.2
_KILL_GROUP = "import os, signal, sys; os.killpg(int(sys.argv[1]), signal.SIGKILL)"


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that ended by itself, with what it wrote."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What it was, how it ended, and what it said, on one line."""
        said = " ".join((self.err or self.out).split())[:_TOLD] or "and said nothing"
        return f"{Path(self.argv[0]).name} exited {self.code}: {said}"

    def or_fail(self) -> Finished:
        """Return itself, or raise `StepFailed` with the complaint if it did not exit with 0."""
        if self.code != 0:
            raise StepFailed(self.complaint)
        return self


@dataclass(frozen=True, slots=True)
class RunAs:
    """The ids that a child drops to before it starts its program."""

    uid: int
    gid: int
    home: str


def run(  # noqa: PLR0913 (all that a process is started with meets here)
    argv: Sequence[str],
    *,
    timeout: float,
    run_as: RunAs | None = None,
    given: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    folder: str = "/",
    watch: Callable[[int], None] | None = None,
) -> Finished:
    """Run a program to its end, `timeout` seconds at most, with `given` on its standard input.

    It is started in `folder`, with `environment` beside the few variables that every program gets.
    `watch` is called with its pid a few times a second, while it runs.

    Raises `StepFailed` if it cannot be started or does not end in time; any exit code is returned.
    """
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT | ({"HOME": run_as.home} if run_as else {}) | dict(environment or {}),
            cwd=folder,
            start_new_session=True,
            umask=0o022 if run_as is None else 0o077,
            user=run_as.uid if run_as else None,
            group=run_as.gid if run_as else None,
            extra_groups=[] if run_as else None,
        )
    except OSError as error:
        raise StepFailed(f"{argv[0]} cannot be started: {error.strerror}") from error
    try:
        out, err = _communicate(child, given, timeout, watch)
    except subprocess.TimeoutExpired as late:
        if child.poll() is None:
            raise StepFailed(f"{Path(argv[0]).name} did not end within {timeout:.0f} s and was killed") from None
        # It ended, but something that it left behind holds its output open.
        out, err = late.output or b"", late.stderr or b""
    finally:
        _end(child, run_as)
    return Finished(tuple(argv), child.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _communicate(
    child: subprocess.Popen[bytes], given: bytes | None, timeout: float, watch: Callable[[int], None] | None
) -> tuple[bytes, bytes]:
    """Wait for the child's end and return its output. Raises TimeoutExpired."""
    deadline = time.monotonic() + timeout
    while watch is not None and time.monotonic() + _WATCH_SECONDS < deadline:
        try:
            return child.communicate(given, timeout=_WATCH_SECONDS)
        except subprocess.TimeoutExpired:  # what it wrote so far is kept for the next call
            watch(child.pid)
    return child.communicate(given, timeout=max(0.0, deadline - time.monotonic()))


def _end(child: subprocess.Popen[bytes], run_as: RunAs | None) -> None:
    """Kill what is left of the child's session, whichever way its run ended, and collect the child."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        if run_as is not None:  # rosterd.service has no CAP_KILL; who dropped to a user is killed by that user
            _kill_as(run_as, child.pid)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=_KILL_SECONDS)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def _kill_as(owner: RunAs, group: int) -> None:
    killer = subprocess.Popen(
        [sys.executable, "-I", "-c", _KILL_GROUP, str(group)],
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        user=owner.uid,
        group=owner.gid,
        extra_groups=[],
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        killer.wait(timeout=_KILL_SECONDS)
