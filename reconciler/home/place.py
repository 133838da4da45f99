"""The home that steps are taken in, and how a step ends."""

from __future__ import annotations

import os
import pwd
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.core.home_steps import Ending, Watch
from reconciler.core.text import without_credentials
from reconciler.errors import RosterdError
from reconciler.host.process import Finished, run


class InTheWay(RosterdError):
    """Something of the person's own is where the step would put something; it is theirs to decide."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step ended. `watches` are what has to look the same for a later run to leave it at that."""

    ending: Ending
    detail: str
    watches: tuple[Watch, ...] = ()


@dataclass(slots=True)
class Home:
    """One home, and the time that its steps have. `contents` are those of root's files that steps are given."""

    path: Path
    contents: Mapping[str, bytes] = field(default_factory=dict)
    deadline: float = field(default_factory=lambda: time.monotonic() + 3600)

    def inside(self, path: str) -> Path:
        """Return a path of a step's, which is relative to the home."""
        return self.path / path

    def shown(self, path: Path) -> str:
        """Return a path as people write it."""
        return f"~/{path.relative_to(self.path)}" if path.is_relative_to(self.path) else str(path)

    def run(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> Finished:
        """Run a program as the person that this process is, until the step's time is over. Raises `StepFailed`."""
        person = pwd.getpwuid(os.getuid())
        own = {
            "HOME": str(self.path),
            "USER": person.pw_name,
            "LOGNAME": person.pw_name,
            "PATH": f"{self.path}/.local/bin:/usr/local/bin:/usr/bin:/bin",
            "XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}",
        }
        return run(
            argv,
            timeout=max(0.1, self.deadline - time.monotonic()),
            environment=own | dict(environment or {}),
            folder=str(folder or self.path),
        )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off SIGTERM, for this process and for those that it starts meanwhile: half of a change would be worse.

    systemd waits for five seconds before it kills (rosterd-home@.service).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def without_passwords(text: str) -> str:
    """Return a text on one line, what addresses in it hold of credentials left out."""
    return without_credentials(" ".join(text.split()))
