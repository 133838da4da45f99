"""The bus or systemd starts anew in the middle of a run: bounded, the accounts are done, the next run does the rest."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.machine.faults import (
    RUN_LIMIT,
    SITE,
    account_problems,
    breakable,
    leftovers,
    map_problems,
    run,
    service_problems,
    write_roster,
)
from tests.machine.machine import Machine
from tests.proof.evidence import note, scaled

# What is done to the bus, or to systemd, by itself.
DISTURBANCES = {
    "the bus is restarted": ("systemctl", "restart", "dbus.service"),
    "the bus is killed": ("systemctl", "kill", "--signal=KILL", "dbus.service"),
    "systemd is executed anew": ("systemctl", "daemon-reexec"),
    "systemd is reloaded": ("systemctl", "daemon-reload"),
}

# All of rosterd as it is, but that something is done before one batch of its actions, or some time into it.
DISTURBED = """\
import pathlib, subprocess, sys, threading
from reconciler.cli import main
from reconciler.host.executor import HostExecutor

moment, delay, *command = sys.argv[1:]
batches = 0
real = HostExecutor.apply

def apply(self, actions):
    global batches
    if batches == int(moment):
        other = threading.Timer(float(delay), subprocess.run, [command])
        other.start()
        if float(delay) == 0:
            other.join()
    batches += 1
    pathlib.Path("/run/batches").write_text(f"{batches}")
    yield from real(self, actions)

HostExecutor.apply = apply
sys.argv[1:] = ["reconcile"]
sys.exit(main())
"""
SLOW = "[Service]\nExecStartPre=/bin/sleep 0.6\n"
MEANWHILE = 0.3  # seconds into a batch


@dataclass(frozen=True)
class Point:
    """When something is done, and what: before a batch, or in the middle of it."""

    batch: int
    delay: float
    what: str

    def __str__(self) -> str:
        """Show it for a person."""
        return f"{self.what} {'during' if self.delay else 'before'} batch {self.batch}"


def points(batches: int) -> list[Point]:
    """Return a few of all points, or all of them."""
    every = [Point(batch, delay, what) for what in DISTURBANCES for batch in range(batches) for delay in (0, MEANWHILE)]
    size = scaled(3, len(every))
    # A stride that is no divisor, so that a few are of each kind.
    return [every[(index * (len(every) // size) + index) % len(every)] for index in range(size)]


@pytest.fixture
def host() -> Iterator[Machine]:
    """Boot a machine whose services take a moment to start."""
    with breakable() as machine:
        machine.write("/etc/systemd/system/t3-serve@.service.d/slow.conf", SLOW)
        machine.run("systemctl", "daemon-reload")
        machine.write("/root/disturbed.py", DISTURBED)
        machine.write(SITE, "settle: 0\nlisten: 0\n")
        yield machine


def disturbed(machine: Machine, batch: int, delay: float, *command: str) -> tuple[int, str, float]:
    """Make a run that is disturbed: its exit code, what it said, and how many seconds it took."""
    argv = ("/usr/bin/python3", "/root/disturbed.py", str(batch), str(delay), *command)
    started = time.monotonic()
    result = machine.run(*argv, check=False, timeout=2 * RUN_LIMIT)
    return result.code, result.out + result.err, time.monotonic() - started


def wait_for_bus(machine: Machine) -> None:
    """Wait until systemd is on the bus and nothing starts any more."""
    machine.sh("until busctl --timeout=1 status org.freedesktop.systemd1 >/dev/null 2>&1; do sleep 0.05; done")
    machine.sh("while systemctl list-jobs | grep -q service; do sleep 0.05; done")


def test_a_bus_or_a_systemd_that_starts_anew_in_a_run_costs_no_account_and_no_time(host: Machine) -> None:
    people = ["anna"]
    write_roster(host, people)
    assert disturbed(host, -1, 0, "true")[0] == 0
    batches = int(host.read("/run/batches"))
    wrong: list[str] = []
    named, longest, tried = 0, 0.0, points(batches)
    for number, point in enumerate(tried):
        people.append(f"new{number:03}")
        write_roster(host, people)
        code, said, seconds = disturbed(host, point.batch, point.delay, *DISTURBANCES[point.what])
        longest = max(longest, seconds)
        named += code == 3
        problems = account_problems(host, people[-1:])
        problems += [] if code in {0, 3} and "Traceback" not in said else [f"exit code {code}: {said}"]
        problems += [] if seconds < RUN_LIMIT else [f"took {seconds:.1f} s"]
        wait_for_bus(host)
        # What was not seen to start is told; what is told is so.
        if code == 0:
            problems += service_problems(host, people)
        again = run(host, code=None)
        problems += [] if again.code == 0 else [f"afterwards: {again}"]
        problems += [*service_problems(host, people), *map_problems(host, people), *leftovers(host)]
        wrong += [f"{point}: {problem}" for problem in problems]
    note("restarts", batches=batches, points=len(tried), told=named, longest_s=round(longest), wrong=len(wrong))
    assert not wrong, "\n".join(wrong)
