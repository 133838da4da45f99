"""One run at a time: exclusive flock(2)s on a file below /run/rosterd, and on that folder.

The file is what an administrator looks at and can hold. Who removes or replaces it by hand while a run goes would let
in a second run if it were all; the folder stays.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from reconciler.errors import LockBusy, ScanFailed

DEFAULT_PATH = Path("/run/rosterd/lock")
_PAUSE = 0.1
# Held, shared, by those who wait for the lock: so that who has it can see it, and make haste.
_WAITING = "waiting"
_LOCK_FILE = os.O_RDWR | os.O_CREAT


@contextmanager
def exclusive(wait: float, path: Path = DEFAULT_PATH) -> Iterator[None]:
    """Hold the lock, waiting for it `wait` seconds at most; raises `LockBusy` then.

    The lock goes with the process, however it ends; children do not inherit it. Raises `ScanFailed` where something
    is in its place that is no lock.
    """
    with _open_lock(path) as descriptors:
        try:
            _acquire(descriptors, wait, path)
        except OSError as error:
            raise ScanFailed(f"{path}: {error.strerror}") from error
        yield


@contextmanager
def _open_lock(path: Path) -> Iterator[tuple[int, int]]:
    """Open the folder and the file in it, which are made if they are not there."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _no_lock(path.parent, error) from error
    with _opened(path.parent, os.O_RDONLY | os.O_DIRECTORY) as folder, _opened(path, _LOCK_FILE) as file:
        yield folder, file


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _no_lock(path, error) from error
    try:
        yield descriptor
    finally:
        with suppress(OSError):  # what was done is done; an error of closing does not keep the lock
            os.close(descriptor)


def _no_lock(path: Path, error: OSError) -> ScanFailed:
    return ScanFailed(f"{path} cannot be locked: {error.strerror}; if it is no lock of rosterd's, remove it")


def _acquire(descriptors: tuple[int, int], wait: float, path: Path) -> None:
    if _try_both(descriptors):
        return
    deadline = time.monotonic() + wait
    with _open_waiting(path) as waiting:
        while not _try_both(descriptors):
            _try(waiting, fcntl.LOCK_SH)
            if time.monotonic() >= deadline:
                raise LockBusy(f"another run holds {path}; waited {wait:.0f} s (who: fuser {path} {path.parent})")
            time.sleep(_PAUSE)


def _try_both(descriptors: tuple[int, int]) -> bool:
    """Take the folder, which every run has to, then the file; what was taken is kept while the other is waited for."""
    return all(_try(descriptor, fcntl.LOCK_EX) for descriptor in descriptors)


def is_wanted(path: Path = DEFAULT_PATH) -> bool:
    """Say whether somebody waits for the lock, which the caller holds. Where that cannot be seen, nobody does."""
    try:
        with _open_waiting(path) as waiting:
            return not _try(waiting, fcntl.LOCK_EX)
    except (ScanFailed, OSError):
        return False  # it only makes haste


def _open_waiting(path: Path) -> AbstractContextManager[int]:
    return _opened(path.with_name(_WAITING), _LOCK_FILE)


def _try(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
