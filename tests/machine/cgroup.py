"""A control group for each machine, on a host where no systemd hands one out.

systemd-nspawn puts a machine into a group named `payload` below its own. Two machines that are started from
one group share it, and each systemd then counts, and may kill, the processes of the other.
"""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")

# Where systemd keeps its units on cgroup v1, and the controllers that the tests of limits use.
V1_HIERARCHIES = ("name=systemd", "memory", "pids", "cpu", "cpuacct", "cpu,cpuacct")

REMOVE_TIMEOUT = 10.0  # seconds


def create(name: str) -> list[Path]:
    """Make a group `name` below this process's own in every hierarchy that counts; return their folders."""
    folders = [parent / name for parent in _own_groups()]
    for folder in folders:
        folder.mkdir()
    return folders


def remove(folder: Path) -> None:
    """Remove a group and all below it, of which every process has ended. Does nothing if it is gone.

    The kernel counts a process that has ended for a moment longer; OSError if that takes over REMOVE_TIMEOUT.
    """
    deadline = time.monotonic() + REMOVE_TIMEOUT
    for path, _, _ in os.walk(folder, topdown=False):
        while not _is_removed(Path(path), deadline):
            time.sleep(0.01)


def _is_removed(folder: Path, deadline: float) -> bool:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno == errno.EBUSY and time.monotonic() < deadline:
            return False
        raise
    return True


def _own_groups() -> Iterator[Path]:
    """Yield the folders of this process's group: lines of /proc/self/cgroup are `ID:HIERARCHY:PATH`."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, hierarchy, path = line.split(":", 2)
        if hierarchy == "":
            yield _v2_mount() / path[1:]
        elif hierarchy in V1_HIERARCHIES:
            yield CGROUPS / hierarchy.removeprefix("name=") / path[1:]


def _v2_mount() -> Path:
    """Return the mount of cgroup v2, which beside v1 is `unified`."""
    unified = CGROUPS / "unified"
    return unified if unified.is_dir() else CGROUPS
