"""A run that is killed: at each of its own changes, before each message to systemd, or with all of its unit."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.machine.faults import SITE, breakable, everything_wrong, run, write_roster
from tests.machine.kill_points import sample
from tests.machine.machine import Machine
from tests.machine.sweep import Sweep, restore, save
from tests.proof.evidence import scaled

PEOPLE = ["anna", "bob"]
QUICK = "settle: 0\nlisten: 0\n"
LIMITED = f"""\
{QUICK}tiers:
  admin: {{groups: [code-shared, docker, sudo], admin: true, cluster: exempt, limits: {{memory_max: %s}}}}
"""
# A variable that is called like the port, but is a part of a secret.
OWN_LINES = "# anna's own\nTOKEN=secret\nNOTE='several\nT3_PORT=1\nlines'\n"
RUN = ("rosterd", "reconcile")
MOMENTS = scaled(2, 80)
GOLDEN = 0.618034  # its multiples are spread evenly, however many there are
SERVICE = ("systemctl", "start", "rosterd.service")


@pytest.fixture(scope="module")
def clean() -> Iterator[Machine]:
    """Boot a machine with the service too, and nothing that starts it; keep it as it is before any run."""
    with breakable() as machine:
        machine.sh("cp /src/units/rosterd*.service /etc/systemd/system; systemctl daemon-reload")
        machine.run("systemctl", "--quiet", "mask", "--runtime", "rosterd-recheck.service")
        machine.write("/etc/t3-serve/anna.env", OWN_LINES, mode=0o600)
        save(machine, "clean")
        yield machine


@pytest.fixture
def machine(clean: Machine) -> Machine:
    """Return the machine as it was before any run."""
    restore(clean, "clean")
    return clean


def before_a_first_run(machine: Machine) -> Sweep:
    """Nobody has anything but what stands in anna's env file."""
    machine.write(SITE, QUICK)
    write_roster(machine, PEOPLE)
    return Sweep(machine, *RUN)


def before_one_person_more(machine: Machine) -> Sweep:
    """All but one have everything."""
    machine.write(SITE, QUICK)
    write_roster(machine, PEOPLE[:-1])
    run(machine)
    write_roster(machine, PEOPLE)
    return Sweep(machine, *RUN)


def before_a_changed_limit(machine: Machine) -> Sweep:
    """All have everything, and are to have more memory."""
    machine.write(SITE, LIMITED % "1G")
    write_roster(machine, PEOPLE)
    run(machine)
    machine.write(SITE, LIMITED % "2G")
    return Sweep(machine, *RUN)


def assert_all_is_there(sweep: Sweep) -> None:
    """See that an undisturbed run left what was asked for: by this everything else is measured."""
    assert not everything_wrong(sweep.machine, PEOPLE)
    kept = sweep.machine.read("/etc/t3-serve/anna.env")
    assert kept == f"{OWN_LINES}T3_PORT=3773\n"


@pytest.mark.parametrize(
    ("start", "least", "size"),
    [(before_a_first_run, 60, 3), (before_one_person_more, 40, 2), (before_a_changed_limit, 10, 1)],
)
def test_a_run_killed_at_any_change_is_completed_by_the_next(
    machine: Machine, start: Callable[[Machine], Sweep], least: int, size: int
) -> None:
    sweep = start(machine)
    points = sweep.undisturbed()
    assert_all_is_there(sweep)
    assert len(points) >= least
    for point in sample(points, size):
        sweep.kill(point)
    sweep.tally.judge("killed", start.__name__)


def test_a_run_killed_between_enabling_and_the_reload_has_it_active_after_the_next(machine: Machine) -> None:
    """The one point of a first run that is never left out of a sample."""
    sweep = before_a_first_run(machine)
    messages = [point for point in sweep.undisturbed() if point.call == "sendmsg"]
    assert_all_is_there(sweep)
    told = [point.shown.removeprefix("message ") for point in messages]
    assert told == ["EnableUnitFiles", "Reload", *["StartUnit"] * 3 * len(PEOPLE)]
    sweep.kill(messages[1])
    sweep.tally.judge("killed", "between enabling and the reload")


def test_the_whole_unit_killed_at_any_moment_is_completed_by_its_next_run(machine: Machine) -> None:
    sweep = before_a_first_run(machine)
    sweep.undisturbed()
    assert_all_is_there(sweep)
    sweep.reset()
    started = time.monotonic()
    machine.run(*SERVICE)
    whole = time.monotonic() - started
    # A run is now faster, now slower: where one was over before its moment, another moment is drawn.
    for drawn in range(1, 3 * MOMENTS + 10):
        if sweep.tally.points < MOMENTS:
            seconds, whom = whole * (drawn * GOLDEN % 1), ("all", "main")[drawn % 2]
            killed = partial(unit_killed, machine, whom, seconds)
            whole *= 1 if sweep.disturb(f"{whom} after {seconds:.3f} s", killed, SERVICE) else 0.95
    sweep.tally.judge("unit", "the unit")
    assert sweep.tally.points == MOMENTS


def unit_killed(machine: Machine, whom: str, seconds: float) -> bool:
    """Start the service, kill it after so many seconds, and say whether it had not ended by then."""
    machine.run("systemctl", "start", "--no-block", "rosterd.service")
    time.sleep(seconds)
    machine.run("systemctl", "kill", "--signal=KILL", f"--kill-whom={whom}", "rosterd.service", check=False)
    wait = "while systemctl is-active rosterd.service | grep -q activating; do sleep 0.02; done"
    machine.sh(wait)
    return machine.run("systemctl", "show", "--property=Result", "--value", "rosterd.service").out.strip() == "signal"
