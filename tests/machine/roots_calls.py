"""What root did below people's homes, as strace saw it, and what was only done as the person.

A process counts as root's until it has given its uid up, and so do its children until then. A home itself is its
owner's, but lies in a folder of root's, where nobody else can put something in its place; what counts is below it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from signal import SIGINT

from tests.machine.machine import Machine, Result
from tests.machine.workstation import eventually

FOLDER = "/tmp/roots-calls"
# Every call that takes a path, and those on what is open; `-y` shows the path of that too.
OPTIONS = ("-ff", "-qq", "-y", "-s", "300", "-e", "signal=none")
CALLS = "%file,?fchmod,?fchown,?ftruncate,?fsetxattr,?fremovexattr,?getdents64,%process,setuid,setreuid,setresuid"
STRACE = ("strace", *OPTIONS, "-e", f"trace={CALLS}")

BELOW_A_HOME = re.compile(r'[<"]/home/[^/">]+/|</home/[^/">]+>, "[^/"]|getdents64\(\d+</home/[^/">]+>')
CHILD = re.compile(r"(?:clone3?|v?fork)\(.* = (\d+)(?: |$)")
DROPPED = re.compile(r"set(?:uid|reuid|resuid)\((?:\d+, )*[1-9]\d*\) += 0$")
# A link at the end of its path is not followed; nothing is opened or read.
LOOK = re.compile(r"(?:newfstatat|statx)\(.*AT_SYMLINK_NOFOLLOW.*\) = |lstat\(")


@dataclass
class Roots:
    """The calls of root's processes below homes: those that only looked, and all others.

    `persons` is how many calls below homes were not root's.
    """

    looks: list[str] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)
    persons: int = 0

    def add(self, call: str, *, is_root: bool) -> None:
        """Sort a call in."""
        if not BELOW_A_HOME.search(call):
            return
        if not is_root:
            self.persons += 1
        elif LOOK.match(call):
            self.looks.append(call)
        else:
            self.acts.append(call)


def run_seen(machine: Machine, *argv: str) -> tuple[Result, Roots]:
    """Run a command as root, and see what root did in it."""
    machine.sh('rm -rf "$1"; mkdir "$1"', FOLDER)
    result = machine.run(*STRACE, "-o", f"{FOLDER}/of", "--", *argv, check=False)
    return result, _seen(machine)


@contextmanager
def system_seen(machine: Machine, into: list[Roots]) -> Iterator[None]:
    """See what root did in whatever systemd starts meanwhile, and systemd itself; puts it into the list at the end."""
    with system_traced(machine, FOLDER, *STRACE):
        yield
    into.append(_seen(machine))


@contextmanager
def system_traced(machine: Machine, folder: str, *strace: str) -> Iterator[None]:
    """Have systemd, and all that it starts meanwhile, traced into a folder: a file `of.PID` for each process."""
    machine.sh('rm -rf "$1"; mkdir -m 700 "$1"', folder)
    tracer = machine.start(*strace, "-o", f"{folder}/of", "-p", "1")
    eventually(lambda: "TracerPid:\t0" not in machine.read("/proc/1/status"), within=5)
    try:
        yield
    finally:
        tracer.send_signal(SIGINT)
        tracer.communicate(timeout=10)


def _seen(machine: Machine) -> Roots:
    """Read what strace wrote, a file for each process."""
    calls: dict[int, list[str]] = {}
    for line in machine.sh(f"cd {FOLDER}; grep -H '' of.*").out.splitlines():
        file, _, call = line.partition(":")
        calls.setdefault(int(file.removeprefix("of.")), []).append(call)
    return roots_calls(calls)


def roots_calls(calls: Mapping[int, Sequence[str]]) -> Roots:
    """Tell root's calls from others'. Whose start was not seen began as root's: it is what was run, or systemd."""
    children = {int(child[1]) for own in calls.values() for call in own if (child := CHILD.match(call))}
    found = Roots()
    for pid in calls.keys() - children:
        _walk(calls, pid, found, is_root=True)
    return found


def _walk(calls: Mapping[int, Sequence[str]], pid: int, found: Roots, *, is_root: bool) -> None:
    for call in calls.get(pid, ()):
        if child := CHILD.match(call):
            _walk(calls, int(child[1]), found, is_root=is_root)
        elif DROPPED.match(call):
            is_root = False
        else:
            found.add(call, is_root=is_root)
