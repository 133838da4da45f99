"""The mount points of this machine, as the kernel tells them (proc_pid_mountinfo(5))."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import ScanFailed

_DEVICE, _ROOT, _WHERE = 2, 3, 4


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount: the device and what of it is mounted, where, the type of the file system, and the options of that."""

    device: str
    root: str
    where: str
    kind: str
    options: str


def mounts(proc: Path = Path("/proc")) -> list[Mount]:
    """Return the mounts in the order in which they were made. Raises `ScanFailed`.

    A person can mount something in their home, below a name of any bytes.
    """
    path = proc / "self/mountinfo"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ScanFailed(f"{path}: {error.strerror}") from error
    try:
        return [_mount(line.split(" ")) for line in data.decode("utf-8", "surrogateescape").split("\n") if line]
    except (ValueError, IndexError) as error:
        raise ScanFailed(f"{path} has a line that is none") from error


def _mount(line: list[str]) -> Mount:
    kind = line[line.index("-") + 1]
    return Mount(line[_DEVICE], line[_ROOT], _unescaped(line[_WHERE]), kind, line[-1])


def _unescaped(path: str) -> str:
    r"""Return a path of mountinfo; it writes white space and backslashes as \040 and so on."""
    for code in ("040", "011", "012", "134"):
        path = path.replace(f"\\{code}", chr(int(code, 8)))
    return path
