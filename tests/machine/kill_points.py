"""Where a program can be killed: before each of its system calls that changes something, and each message that does.

strace numbers the calls of each name for itself, so a point is a name and an ordinal. They are found in the trace of
a run that nobody disturbs, made with `-y`.
"""

import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tests.machine.machine import Machine
from tests.machine.workstation import BUS_METHOD
from tests.proof.evidence import scaled

# `openat` counts where it opens to write; `vfork` is where a tool starts. Not fsync: whoever is killed before it leaves
# what they leave who are killed after it.
CHANGING = re.compile(
    r"write|pwrite64|rename\w*|unlink\w*|link\w*|symlink\w*|mkdir\w*|mknod\w*|rmdir|f?chmod\w*|[fl]?chown\w*|f?truncate"
    r"|utimensat|sendfile|copy_file_range|[fl]?setxattr|vfork"
)
CALL = re.compile(r"(\w+)\((.*)")
WRITING = re.compile(r"\bO_(WRONLY|RDWR|CREAT|TRUNC)\b")
WRITES = frozenset({"write", "pwrite64"})
OPENS = frozenset({"open", "openat"})
OPENED = re.compile(r'[^"]*"([^"]*)"')
FILE = re.compile(r"\d+<(/[^>]*)>")
# The methods of systemd and logind that change something.
CHANGING_METHODS = frozenset(
    {
        *("EnableUnitFiles", "DisableUnitFiles", "Reload", "StartUnit", "StopUnit", "ResetFailedUnit", "KillUnit"),
        "SetUserLinger",
    }
)

KILLED = -signal.SIGKILL
T = TypeVar("T")


@dataclass(frozen=True)
class Point:
    """Before the `ordinal`th call of `call`; `shown` is the line of the trace, to tell a reader where that is.

    With a `file`, only the calls about that file count. With `threads`, each thread's are counted for themselves.
    """

    call: str
    ordinal: int
    shown: str = ""
    file: str = ""
    threads: bool = False

    @property
    def inject(self) -> tuple[str, ...]:
        """The arguments of strace that kill there."""
        file = ("-P", self.file) if self.file else ()
        threads = ("-f",) if self.threads else ()  # with --seccomp-bpf beside it, strace 6.1 injects nothing
        kill = f"inject={self.call}:signal=SIGKILL:when={self.ordinal}"
        return (*file, *threads, "-e", f"trace={self.call}", "-e", kill)

    def __str__(self) -> str:
        """Show the place for a person."""
        return f"before {self.call} {self.ordinal}{' of ' * bool(self.file)}{self.file}: {self.shown}"


def points_in(trace: str, *, by_file: bool = False) -> Iterator[Point]:
    """Yield the points of one thread's trace in the order of the run; a call that failed changed nothing.

    With `by_file`, opens and writes are counted for each file: for a program that opens now more, now fewer others, and
    writes more or less often to wake its threads, as GLib does. It takes files of the same names in each run.
    """
    count: Counter[tuple[str, str]] = Counter()
    for line in trace.splitlines():
        found = CALL.match(line)
        if found is None:
            continue
        call, arguments = found.groups()
        file = _file(call, arguments) if by_file else ""
        count[call, file] += 1
        if " = -1 E" not in line and _changes(call, arguments):
            yield Point(call, count[call, file], line[:140], file)


def _file(call: str, arguments: str) -> str:
    """Return the file that a call opens or writes to, as strace knows it in such a call."""
    found = FILE.match(arguments) if call in WRITES else OPENED.match(arguments) if call in OPENS else None
    return found.group(1) if found is not None else ""


def _changes(call: str, arguments: str) -> bool:
    if call in WRITES:
        written = FILE.match(arguments)
        return written is not None and not written.group(1).startswith("/dev/")
    return bool(CHANGING.fullmatch(call) or (call in OPENS and WRITING.search(arguments)))


def traced_points(machine: Machine, *argv: str) -> list[Point]:
    """Run rosterd undisturbed, and return where its main thread can be killed; it has to end with 0."""
    machine.run("strace", "-y", "-qq", "-o", "/run/trace", "--", *argv)
    return list(points_in(machine.read("/run/trace"), by_file=True))


def traced_messages(machine: Machine, *argv: str) -> list[Point]:
    """Run rosterd undisturbed, and return before which messages to systemd it can be killed; it has to end with 0."""
    machine.sh("rm -rf /run/messages; mkdir /run/messages")
    strace = ("strace", "-ff", "--seccomp-bpf", "-qq", "-s", "300", "-e", "trace=sendmsg", "-e", "signal=none")
    machine.run(*strace, "-o", "/run/messages/of", "--", *argv)
    # One thread sends all of them.
    (largest,) = machine.sh("ls --sort=size /run/messages/* | head --lines=1").out.split()
    return [
        Point("sendmsg", ordinal, f"message {name[0]}", threads=True)
        for ordinal, line in enumerate(machine.read(largest).splitlines(), 1)
        if (name := BUS_METHOD.findall(line)) and name[0] in CHANGING_METHODS
    ]


def sample(points: Iterable[T], size: int) -> list[T]:
    """Return `size` points, evenly spread; all of them for `make proof`."""
    found = list(points)
    size = scaled(size, len(found))
    if size >= len(found):
        return found
    return [found[index * len(found) // size] for index in range(size)]
