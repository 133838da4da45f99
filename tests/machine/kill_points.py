"""Where a program can be killed: before each of its system calls that changes something.

strace numbers the calls of each name for itself, so a point is a name and an ordinal. They are found in the trace of
a run that nobody disturbs.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.proof.evidence import scaled

# `openat` counts where it opens to write; `vfork` is where a tool starts.
CHANGING = re.compile(
    r"write|pwrite64|rename\w*|unlink\w*|link\w*|symlink\w*|mkdir\w*|rmdir|f?chmod\w*|[fl]?chown\w*|f?truncate|utimensat"
    r"|fsync|fdatasync|sendfile|copy_file_range|[fl]?setxattr|sendmsg|vfork"
)
CALL = re.compile(r"(\w+)\((.*)")
WRITING = re.compile(r"\bO_(WRONLY|RDWR|CREAT|TRUNC)\b")


@dataclass(frozen=True)
class Point:
    """Before the `ordinal`th call of `call`; `shown` is the line of the trace, to tell a reader where that is."""

    call: str
    ordinal: int
    shown: str = ""

    @property
    def inject(self) -> tuple[str, ...]:
        """The arguments of strace that kill there."""
        return ("-e", f"trace={self.call}", "-e", f"inject={self.call}:signal=SIGKILL:when={self.ordinal}")

    def __str__(self) -> str:
        """Show the place for a person."""
        return f"before {self.call} {self.ordinal}: {self.shown}"


def points_in(trace: str) -> Iterator[Point]:
    """Yield the points of a trace in the order of the run."""
    count: Counter[str] = Counter()
    for line in trace.splitlines():
        found = CALL.match(line)
        if found is None:
            continue
        call, arguments = found.groups()
        count[call] += 1
        if CHANGING.fullmatch(call) or (call in {"open", "openat"} and WRITING.search(arguments)):
            yield Point(call, count[call], line[:100])


def sample(points: Iterable[Point], size: int) -> list[Point]:
    """Return `size` points, evenly spread; all of them for `make proof`."""
    found = list(points)
    size = scaled(size, len(found))
    if size >= len(found):
        return found
    return [found[index * len(found) // size] for index in range(size)]
