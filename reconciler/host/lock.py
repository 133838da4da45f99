"""One run at a time: an exclusive flock(2) on a file below /run/rosterd."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from reconciler.errors import LockBusy, ScanFailed
from reconciler.host.files import closing_descriptor

DEFAULT_PATH = Path("/run/rosterd/lock")
_PAUSE = 0.1
# Held, shared, by those who wait for the lock: so that who has it can see it, and make haste.
_WAITING = "waiting"


@contextmanager
def exclusive(wait: float, path: Path = DEFAULT_PATH) -> Iterator[None]:
    """Hold the lock, waiting for it `wait` seconds at most; raises `LockBusy` then.

    The lock goes with the process, however it ends; children do not inherit it.
    """
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ScanFailed(f"{path}: {error.strerror}; only root can change this machine") from error
    try:
        _acquire(descriptor, wait, path)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, wait: float, path: Path) -> None:
    if _try(descriptor, fcntl.LOCK_EX):
        return
    deadline = time.monotonic() + wait
    with _open_waiting(path) as waiting:
        while not _try(descriptor, fcntl.LOCK_EX):
            _try(waiting, fcntl.LOCK_SH)
            if time.monotonic() >= deadline:
                raise LockBusy(f"another run holds {path}; waited {wait:.0f} s (who: fuser {path})")
            time.sleep(_PAUSE)


def is_wanted(path: Path = DEFAULT_PATH) -> bool:
    """Say whether somebody waits for the lock, which the caller holds."""
    with _open_waiting(path) as waiting:
        return not _try(waiting, fcntl.LOCK_EX)


def _open_waiting(path: Path) -> AbstractContextManager[int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return closing_descriptor(os.open(path.with_name(_WAITING), flags, 0o600))


def _try(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
