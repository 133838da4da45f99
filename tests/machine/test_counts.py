"""What a command costs, counted instead of timed: programs, D-Bus calls, files looked at and changed.

A count is the same on a busy machine as on an idle one. Everything is counted twice by strace, with five people and
with fifteen. What may grow with the people is listed here, path by path; nothing else may.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machine.machine import Machine
from tests.machine.workstation import BUS_METHOD, SITE, reconcile, workstation, write_roster

FEW, MANY = 5, 15
NOTHING_TO_DO = {"run": ("reconcile",), "dry run": ("--dry-run",), "status": ("status",)}
ONE_MORE = "one more person"

# How often each path may be opened, and asked about without, for one person.
EACH = Counter(
    {
        "open /etc/t3-serve/NAME.env": 1,
        "open /etc/t3-serve/playwright-NAME.env": 1,
        "look /run/systemd/units/invocation:t3-serve@NAME.service": 1,
        "look /run/systemd/units/invocation:playwright-mcp@NAME.service": 1,
        "look /home/NAME": 1,
        # One for each step in the home.
        "look /home/NAME/.config": 1,
        "look /home/NAME/.config/systemd/user/playwright-mcp.service": 1,
        "look /home/NAME/.config/systemd/user/playwright-snapshot-refresh.service": 1,
        "look /home/NAME/.config/systemd/user/playwright-snapshot-refresh.timer": 1,
        "look /home/NAME/.local": 1,
        "look /home/NAME/.local/bin/claude": 1,
        # Whose socket it is that listens, found by going through the groups of services.
        "open CGROUP/t3-serve@NAME.service": 1,
        "open CGROUP/playwright-mcp@NAME.service": 1,
    }
)
SERVICES = ("t3-serve@NAME.service", "playwright-mcp@NAME.service")
# Beside it: which process of each service listens, through which of its descriptors, and what memory each has.
EACH_IN_STATUS = (
    EACH
    + Counter({f"open CGROUP/{service}/{file}": 1 for service in SERVICES for file in ("cgroup.procs", "MEMORY")})
    + Counter({f"open CGROUP/{service}/MEMORY": 1 for service in SERVICES})
    + Counter({"open /proc/PID/fd": 2} | {f"look /proc/PID/fd/{number}": 2 for number in range(4)})
)
MAY_GROW = {"run": EACH, "dry run": EACH, "status": EACH_IN_STATUS}

# What every run leaves: its lock, and the record of how it ended.
OWN_CHANGES = {"/run/rosterd/lock", "/var/lib/rosterd/.last-run.rosterd-new"}

# The name of a call on a file, and its path: after a folder's descriptor, where it has one.
FILE_CALL = re.compile(r'(\w+)\((?:AT_FDCWD<[^>]*>, |\d+<([^>]*)>, )?"([^"]*)"')
OPENS_TO_CHANGE = re.compile(r"\bO_(WRONLY|RDWR|CREAT|TRUNC|APPEND)\b")
LOOKS = re.compile(r"execve|chdir|getcwd|\w*access\w*|readlink\w*|\w*stat\w*")
# What is a person's, or one process's, in a path; shadow-utils has its pid in the names of its lock files.
NAMES = (
    (r"person\d\d", "NAME"),
    (r"^/proc/\d+", "/proc/PID"),
    (r"^(/etc/\w+\.)\d+$", r"\1PID"),
    (r"^/sys/fs/cgroup/.*/(?=[^/]*@NAME\.service)", "CGROUP/"),
    (r"/memory\.\w+$", "/MEMORY"),
)


@dataclass(frozen=True)
class Counts:
    """What one command did: programs it started, methods it called, files it looked at and files it changed."""

    programs: int
    bus: Counter[str]
    looked: Counter[str]
    changed: Counter[str]


@pytest.fixture(scope="module")
def counts(deb: Path) -> Iterator[dict[tuple[str, int], Counts]]:
    """Count each command, by its name and the number of people."""
    with workstation(deb) as machine:
        machine.write(SITE, "settle: 0\nlisten: 0\n")
        found = {}
        for people in (FEW, MANY):
            put_on_roster(machine, people)
            reconcile(machine)
            # Of a service that has just been started a run asks whether it was restarted; this is about the others.
            time.sleep(2)
            reconcile(machine)
            for name, argv in NOTHING_TO_DO.items():
                found[name, people] = counted(machine, *argv)
            put_on_roster(machine, people + 1)
            found[ONE_MORE, people] = counted(machine, "reconcile")
        yield found


def put_on_roster(machine: Machine, people: int) -> None:
    """Put a number of people on the roster, whose names are all as long."""
    write_roster(machine, {f"person{number:02}": {} for number in range(people)})


def counted(machine: Machine, *argv: str) -> Counts:
    """Run rosterd and count what it and what it started did; it must succeed."""
    machine.sh("rm -rf /tmp/trace; mkdir /tmp/trace")
    # One file for each thread, or calls of two would be cut up.
    strace = ("strace", "-ff", "-qq", "-y", "-s", "300", "-e", "trace=%file,sendmsg", "-e", "signal=none")
    machine.run(*strace, "-o", "/tmp/trace/of", "--", "rosterd", *argv)
    calls = machine.sh("cat /tmp/trace/of.*").out.splitlines()
    looked, changed = Counter[str](), Counter[str]()
    for call in calls:
        if (found := FILE_CALL.match(call)) and found[3]:  # without a path it is about what is open already
            path = named("/".join(filter(None, found.group(2, 3))))
            if found[1].startswith("open") and not OPENS_TO_CHANGE.search(call):
                looked[f"open {path}"] += 1
            elif LOOKS.fullmatch(found[1]):
                looked[f"look {path}"] += 1
            elif " = -1 " not in call:
                changed[path] += 1
    return Counts(
        programs=sum(call.startswith("execve(") and call.endswith(" = 0") for call in calls) - 1,
        bus=Counter(method for call in calls if call.startswith("sendmsg(") for method in BUS_METHOD.findall(call)),
        looked=looked,
        changed=changed,
    )


def named(path: str) -> str:
    """Return a path with what differs from person to person, or from process to process, taken out."""
    for pattern, name in NAMES:
        path = re.sub(pattern, name, path)
    return path


Found = dict[tuple[str, int], Counts]


@pytest.mark.parametrize("command", NOTHING_TO_DO)
def test_what_has_nothing_to_do_starts_no_program(counts: Found, command: str) -> None:
    assert [counts[command, people].programs for people in (FEW, MANY)] == [0, 0]


@pytest.mark.parametrize("command", NOTHING_TO_DO)
def test_it_asks_systemd_once_about_all_of_them(counts: Found, command: str) -> None:
    for people in (FEW, MANY):
        assert counts[command, people].bus == {"Hello": 1, "Introspect": 1, "ListUnitsByPatterns": 1}, people


@pytest.mark.parametrize("command", NOTHING_TO_DO)
def test_only_a_run_changes_a_file_and_only_its_own(counts: Found, command: str) -> None:
    few, many = counts[command, FEW].changed, counts[command, MANY].changed
    assert set(few) == (OWN_CHANGES if command == "run" else set())
    assert few == many


@pytest.mark.parametrize("command", NOTHING_TO_DO)
def test_it_looks_at_a_few_files_of_each_person_and_no_more_often_at_any_other(counts: Found, command: str) -> None:
    few, many = counts[command, FEW].looked, counts[command, MANY].looked
    assert few["open /etc/t3-serve/NAME.env"] >= FEW, "they are read, so strace must have seen it"
    allowed = Counter({path: (MANY - FEW) * times for path, times in MAY_GROW[command].items()})
    assert many - few - allowed == Counter()


def test_one_more_person_takes_as_many_programs_calls_and_changes_whoever_is_there_already(counts: Found) -> None:
    few, many = counts[ONE_MORE, FEW], counts[ONE_MORE, MANY]
    assert few.programs == many.programs
    assert few.bus == many.bus
    assert few.bus["StartUnit"] == 3, "the server, the browser, and the timer that refreshes it"
    assert (few.bus["EnableUnitFiles"], few.bus["Reload"]) == (1, 1)
    assert few.changed == many.changed
