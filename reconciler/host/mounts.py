"""The mount points of this machine, as the kernel tells them (proc_pid_mountinfo(5))."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import ScanFailed

_MOUNTS = Path("/proc/self/mountinfo")
_DEVICE, _ROOT, _WHERE = 2, 3, 4


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount: the device and what of it is mounted, where, and the type of the file system."""

    device: str
    root: str
    where: str
    kind: str


def mounts() -> list[Mount]:
    """Return the mounts in the order in which they were made. Raises `ScanFailed`."""
    try:
        data = _MOUNTS.read_bytes()
    except OSError as error:
        raise ScanFailed(f"{_MOUNTS}: {error.strerror}") from error
    lines = [line.split(" ") for line in data.decode("utf-8", "surrogateescape").split("\n") if line]
    return [Mount(line[_DEVICE], line[_ROOT], _unescaped(line[_WHERE]), line[line.index("-") + 1]) for line in lines]


def _unescaped(path: str) -> str:
    r"""Return a path of mountinfo; it writes white space and backslashes as \040 and so on."""
    for code in ("040", "011", "012", "134"):
        path = path.replace(f"\\{code}", chr(int(code, 8)))
    return path
