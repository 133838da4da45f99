"""Runs a site's command in a transient unit: out of the sandbox of rosterd.service, and ended with all it started."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from reconciler.errors import StepFailed
from reconciler.host.process import Finished, run

_POLITE_SECONDS = 5.0
# systemd-run itself, beside the command's own time.
_OVERHEAD_SECONDS = 15.0


def run_outside(what: str, command: Sequence[str], timeout: int) -> Finished:
    """Run `command`, `timeout` seconds at most, and return how it ended. Raises `StepFailed` where it took longer."""
    about = f"--description=rosterd {what}"
    limits = (f"--property=RuntimeMaxSec={timeout}", f"--property=TimeoutStopSec={_POLITE_SECONDS}")
    argv = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", about, *limits, "--", *command)
    started = time.monotonic()
    finished = run(argv, timeout=timeout + _OVERHEAD_SECONDS)
    if finished.code != 0 and time.monotonic() - started >= timeout:
        raise StepFailed(f"{command[0]} did not end within {timeout} s and was ended")
    return replace(finished, argv=tuple(command))  # the command is told of, not systemd-run
