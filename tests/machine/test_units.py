"""rosterd's own units: the timer, and the path unit that applies an edit of the roster at once."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machine.machine import Machine
from tests.machine.workstation import (
    ROSTER,
    SITE,
    answer_at,
    entry_of,
    eventually,
    is_up,
    map_lines,
    roster,
    stop_own_units,
    workstation,
    write_roster,
)

# An hourly timer, made to fire at once. (The machine's clock is the host's, so it cannot be set.)
SOON = "[Timer]\nOnCalendar=\nOnBootSec=\nOnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=10ms\n"


@pytest.fixture
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a workstation with alice, whose next edit of the roster is applied."""
    with workstation(deb) as machine:
        machine.write(SITE, "settle: 0\n")  # no run takes longer than it must
        write_roster(machine, {"alice": {}})
        machine.run("systemctl", "start", "rosterd.service")
        machine.run("systemctl", "start", "rosterd.path")
        yield machine


def edit_in_place(machine: Machine, text: str) -> None:
    """Write into the file that is there, as `cat >` does."""
    machine.sh('cat >"$1"', ROSTER, input=text)


def edit_by_rename(machine: Machine, text: str) -> None:
    """Put another file in its place, as editors do."""
    machine.write(ROSTER, text)


def has_account(machine: Machine, name: str) -> bool:
    """Say whether somebody has an account."""
    return bool(entry_of(machine, "passwd", name))


def state_of(machine: Machine, unit: str) -> str:
    """Return the state of a unit: active, inactive, failed, activating."""
    return machine.run("systemctl", "is-active", unit, check=False).out.strip()


def wait_until_idle(machine: Machine) -> None:
    """Wait until no run is going and none is about to start."""
    units = ("rosterd.service", "rosterd-recheck.service")

    def idle() -> bool:
        jobs = machine.run("systemctl", "list-jobs", "--no-legend").out
        return not jobs.strip() and not any(state_of(machine, unit) == "activating" for unit in units)

    eventually(idle, within=20)


def test_the_timer_makes_a_run(machine: Machine) -> None:
    stop_own_units(machine)
    machine.write("/etc/systemd/system/rosterd.timer.d/test.conf", SOON)
    machine.run("systemctl", "daemon-reload")
    write_roster(machine, {"alice": {}, "bob": {}})
    assert not has_account(machine, "bob")
    machine.run("systemctl", "start", "rosterd.timer")
    eventually(lambda: is_up(machine, "t3-serve@bob.service"), within=5)


def test_the_timer_is_hourly_and_makes_up_for_an_hour_that_was_missed(machine: Machine) -> None:
    shown = machine.run(
        "systemctl", "show", "--property=TimersCalendar,TimersMonotonic,Persistent", "rosterd.timer"
    ).out
    assert "OnCalendar=hourly" in shown or "OnCalendar=*-*-* *:00:00" in shown
    assert "OnBootUSec=2min" in shown
    assert "Persistent=yes" in shown


@pytest.mark.parametrize("edit", [edit_in_place, edit_by_rename])
def test_an_edit_is_applied_within_two_seconds(machine: Machine, edit: Callable[[Machine, str], None]) -> None:
    for names in (["alice", "bob"], ["alice", "bob", "carol"]):
        wait_until_idle(machine)
        edit(machine, roster({name: {} for name in names}))
        eventually(lambda: has_account(machine, names[-1]), within=2)  # noqa: B023 - waited for here
        assert answer_at(machine, 3772 + len(names)) == names[-1]


def test_an_edit_of_the_policy_is_applied_as_well(machine: Machine) -> None:
    machine.write(SITE, "settle: 0\noutputs: [ttyd-user-map]\ntiers: {power-user: {groups: [docker]}}\n")
    eventually(lambda: "alice" in entry_of(machine, "group", "docker")[3], within=2)


def test_an_edit_while_a_run_is_going_is_applied_after_it(machine: Machine) -> None:
    machine.write(SITE, "settle: 3\n")
    wait_until_idle(machine)
    edit_by_rename(machine, roster({"alice": {}, "bob": {}}))
    eventually(lambda: is_up(machine, "t3-serve@bob.service"), within=5)
    edit_by_rename(machine, roster({"alice": {}, "bob": {}, "carol": {}}))
    assert state_of(machine, "rosterd.service") == "activating"
    assert not has_account(machine, "carol")
    eventually(lambda: is_up(machine, "t3-serve@carol.service"), within=10)


def test_twenty_edits_in_ten_seconds_end_with_the_last_one_applied(machine: Machine) -> None:
    started = time.monotonic()
    for number in range(20):
        edit = (edit_in_place, edit_by_rename)[number % 2]
        edit(machine, roster({"alice": {"authentik_user": f"alice.{number}"}}))
        # Not at equal distances: the edits are to fall into every part of a run, its very end too.
        time.sleep(max(0, started + (number + 1) * 0.49 - (number % 7) * 0.03 - time.monotonic()))
    assert time.monotonic() - started < 12

    eventually(lambda: map_lines(machine) == ["alice.19=alice"], within=3)
    wait_until_idle(machine)
    assert map_lines(machine) == ["alice.19=alice"]
    assert state_of(machine, "rosterd.path") == "active"
    assert state_of(machine, "rosterd.service") == "inactive"
    assert machine.run("systemctl", "--failed", "--no-legend", "--plain").out == ""

    edit_in_place(machine, roster({"alice": {}}))
    eventually(lambda: map_lines(machine) == ["alice.id=alice"], within=2)


def test_a_refused_roster_fails_the_service_with_its_place_and_the_next_edit_recovers(machine: Machine) -> None:
    edit_by_rename(machine, "users:\n  alice: {authentik_user: alice.id, k8s_user: alice, tier: king}\n")
    eventually(lambda: state_of(machine, "rosterd.service") == "failed", within=5)
    status = machine.run("systemctl", "show", "--property=ExecMainStatus", "--value", "rosterd.service").out.strip()
    assert status == "5"
    told = [str(entry["MESSAGE"]) for entry in machine.journal("--unit=rosterd.service", "--priority=err")]
    assert any(f"{ROSTER}:2:60: user 'alice': tier" in text for text in told), told
    assert answer_at(machine, 3773) == "alice"
    wait_until_idle(machine)

    edit_in_place(machine, roster({"alice": {}, "bob": {}}))
    eventually(lambda: has_account(machine, "bob"), within=2)
    wait_until_idle(machine)
    assert state_of(machine, "rosterd.service") == "inactive"
