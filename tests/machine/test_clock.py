"""The clock is set back, or forward: nobody is cut off for it, and what failed is not tried again and again.

In a machine the clock is the host's and stays as it is. What is set is what rosterd itself takes for the time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machine.homes import STEPS, home_workstation
from tests.machine.machine import Machine, Result
from tests.machine.workstation import eventually, everything, write_roster
from tests.proof.evidence import note, scaled

HOUR, DAY = 3600, 24 * 3600

# All of rosterd as it is, but that its clock is some seconds ahead.
CLOCKED = """\
import sys, time
ahead, real = float(sys.argv.pop(1)), time.time
time.time = lambda: real() + ahead
from reconciler.cli import main
sys.exit(main())
"""
POLICY = {
    "notes": STEPS["notes"],
    "fails": "{command: {run: [/bin/false], creates: never}, tiers: [admin]}",
}
PEOPLE = {"alice": {"tier": "admin"}, "bob": {}, "carl": {}, "dora": {}}


@pytest.fixture(scope="module")
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a workstation where a step fails for alice, dora has left, and carl is cut off by command."""
    with home_workstation(deb, POLICY) as machine:
        machine.write("/root/clocked.py", CLOCKED)
        write_roster(machine, PEOPLE)
        assert clocked(machine, 0).code == 3
        machine.run("rosterd", "cut", "carl")
        write_roster(machine, {name: entry for name, entry in PEOPLE.items() if name != "dora"})
        clocked(machine, 0)
        yield machine


def clocked(machine: Machine, ahead: int, *arguments: str) -> Result:
    """Run rosterd with a clock that is so many seconds ahead of the machine's."""
    command = arguments or ("reconcile",)
    return machine.run("/usr/bin/python3", "/root/clocked.py", str(ahead), *command, check=False)


@dataclass(frozen=True)
class Case:
    """A clock, what of it is said, and how often alice's failing step may be tried again."""

    ahead: int
    said: str
    tries: int


# In this order, each twice: the second run has nothing to try.
EVERY = (
    Case(-DAY, "set back a day", 0),
    Case(DAY, "set forward a day", 1),
    Case(0, "right again", 0),
    Case(-HOUR, "set back an hour, 25 before the last try", 1),
    Case(-30 * DAY, "set back a month", 1),
    Case(0, "right again at last", 1),
)
CASES = EVERY[: scaled(3, len(EVERY))]


def test_a_clock_that_is_set_cuts_nobody_off_and_makes_no_storm(machine: Machine) -> None:
    wrong: list[str] = []
    tries = cuts = 0
    for case in CASES:
        for expected in (case.tries, 0):
            before = everything_but_records(machine)
            result = clocked(machine, case.ahead)
            tried = result.err.count("FAILED home step fails")
            tries += tried
            after = everything_but_records(machine)
            cuts += result.err.count("expire") + (shadow(before) != shadow(after))
            wrong += [] if tried == expected else [f"clock {case.said}: {tried} tries, not {expected}: {result}"]
            wrong += [] if after == before else [f"clock {case.said}: something has changed: {result}"]
            wrong += [] if result.code == 3 else [f"clock {case.said}: {result}"]
    note("clock", clocks=len(CASES), runs=2 * len(CASES), cut_off=cuts, tries=tries, wrong=len(wrong))
    assert not wrong, "\n".join(wrong)


def everything_but_records(machine: Machine) -> list[str]:
    """Return all that a run could change, but for what is on record of steps, and their own log."""
    return [line for line in everything(machine).splitlines() if "/var/lib/rosterd/homes" not in line]


def shadow(lines: list[str]) -> list[str]:
    """Return what is said of the files of accounts."""
    return [line for line in lines if line.startswith(("/etc/shadow ", "/etc/passwd ", "/etc/group "))]


@pytest.mark.parametrize("command", [("status",), ("explain", "alice"), ("reconcile", "--dry-run")])
@pytest.mark.parametrize("ahead", [-DAY, DAY])
def test_who_only_looks_is_not_confused_by_a_clock(machine: Machine, ahead: int, command: tuple[str, ...]) -> None:
    result = clocked(machine, ahead, *command)
    assert result.code in {0, 3}, result
    assert "Traceback" not in result.err


def test_a_person_is_cut_off_and_let_in_again_whatever_the_clock(machine: Machine) -> None:
    for ahead in (-DAY, DAY):
        assert clocked(machine, ahead, "cut", "bob").code == 0
        assert machine.sh("getent shadow bob | cut -d: -f8").out == "1\n"
        assert clocked(machine, -ahead, "uncut", "bob").code == 0
        assert machine.sh("getent shadow bob | cut -d: -f8").out == "\n"
        eventually(lambda: "active" in machine.run("systemctl", "is-active", "t3-serve@bob", check=False).out, within=5)
