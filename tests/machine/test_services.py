"""Services that do not come up, two runs at once, and a bus that is down or says nothing."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.machine.machine import Machine, Result
from tests.machine.workstation import (
    SITE,
    answer_at,
    dispatch,
    entry_of,
    everything,
    is_enabled,
    is_up,
    lock_held,
    look,
    main_pid,
    owner_of,
    reconcile,
    workstation,
    write_roster,
)

# The default catalogue, and two services that only those have whose entry says so.
CATALOGUE = """\
settle: 1
services:
  t3:
    units: [t3-serve@.service]
    port: {variable: T3_PORT, base: 3773, env_file: "/etc/t3-serve/{user}.env"}
    route: true
  absent: {units: [absent@.service], enabled: false}
  broken: {units: [broken@.service], enabled: false}
"""
PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {"tier": "admin"},
    "bob": {},
    "carol": {},
    "dora": {"services": {"absent": True}},
    "erin": {},
    "fred": {"services": {"broken": True}},
    "gina": {},
}
FALSE = "[Service]\nExecStart=\nExecStart=/bin/false\nRestart=no\n"
CRASHES = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'sleep 0.2; exit 1'\nRestartSec=60\n"
ENDS_SOON = FALSE.replace("/bin/false", "/bin/sh -c 'sleep 0.3; exit 1'")
NO_PROGRAM = "[Service]\nExecStart=\nExecStart=/usr/bin/no-such-program\n"


@pytest.fixture
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a workstation that has had no run yet."""
    with workstation(deb) as machine:
        yield machine


@dataclass(frozen=True)
class Ailing:
    """A machine after a first run in which some services do not come up."""

    machine: Machine
    run: Result

    def errors_about(self, name: str) -> str:
        """Return the lines of the run's log that tell of an error of somebody's."""
        lines = [line for line in self.run.err.splitlines() if f" {name}: " in line and " error " in line]
        return "\n".join(lines)


@pytest.fixture(scope="module")
def ailing(deb: Path) -> Iterator[Ailing]:
    """Make a first run with units that fail; whoever uses it leaves the machine as it is."""
    with workstation(deb) as machine:
        machine.write(SITE, CATALOGUE)
        override(machine, "t3-serve@bob.service", FALSE)
        override(machine, "t3-serve@carol.service", CRASHES)
        override(machine, "t3-serve@erin.service", NO_PROGRAM)
        override(machine, "t3-serve@gina.service", ENDS_SOON)
        machine.write(
            "/etc/systemd/system/broken@.service",
            "[Service]\nType=oneshot\nUser=%i\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n",
        )
        machine.run("systemctl", "daemon-reload")
        write_roster(machine, PEOPLE)
        yield Ailing(machine, machine.run("rosterd", check=False))


def override(machine: Machine, unit: str, text: str) -> None:
    """Change a unit by a drop-in."""
    machine.write(f"/etc/systemd/system/{unit}.d/test.conf", text)


# --- units that fail ---


def test_a_run_in_which_services_fail_exits_3(ailing: Ailing) -> None:
    assert ailing.run.code == 3, ailing.run


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("bob", "t3-serve@bob.service"),
        ("carol", "t3-serve@carol.service"),
        ("dora", "absent@.service"),
        ("erin", "t3-serve@erin.service"),
        ("fred", "broken@fred.service"),
        ("gina", "t3-serve@gina.service"),
    ],
    ids=["ends-at-once", "crash-loops", "no-template", "no-program", "oneshot-fails", "ends-soon"],
)
def test_a_service_that_does_not_come_up_is_named(ailing: Ailing, name: str, unit: str) -> None:
    assert unit in ailing.errors_about(name), ailing.run
    assert not is_up(ailing.machine, unit.replace("@.", f"@{name}."))


def test_the_others_and_their_other_services_run(ailing: Ailing) -> None:
    for name in ("alice", "dora", "fred"):
        unit = f"t3-serve@{name}.service"
        assert is_enabled(ailing.machine, unit)
        assert owner_of(ailing.machine, main_pid(ailing.machine, unit)) == name
        assert f"{name}.id" in dispatch(ailing.machine)
    assert ailing.errors_about("alice") == ""


def test_accounts_and_ports_of_those_whose_service_fails_are_there(ailing: Ailing) -> None:
    for name in PEOPLE:
        assert look(ailing.machine, f"/home/{name}") == f"{name}:{name} 700"
        assert look(ailing.machine, f"/etc/t3-serve/{name}.env") == "root:root 600"


def test_a_unit_that_failed_for_good_is_started_again_once_it_is_mended(machine: Machine) -> None:
    override(machine, "t3-serve@alice.service", FALSE.replace("Restart=no", "Restart=always\nRestartSec=10ms"))
    machine.run("systemctl", "daemon-reload")
    write_roster(machine, {"alice": {}})
    reconcile(machine, code=3)
    machine.sh("until systemctl is-failed t3-serve@alice.service; do sleep 0.1; done", timeout=10)
    assert machine.run("systemctl", "start", "t3-serve@alice.service", check=False).code != 0

    machine.sh("rm -r /etc/systemd/system/t3-serve@alice.service.d; systemctl daemon-reload")
    reconcile(machine)
    assert answer_at(machine, 3773) == "alice"


# --- two runs at once ---


def test_of_two_runs_at_once_one_waits_and_both_end_well(machine: Machine) -> None:
    names = ("alice", "bob", "carol")
    write_roster(machine, {name: {} for name in names})
    with lock_held(machine):
        runs = [machine.start("rosterd"), machine.start("rosterd")]
        time.sleep(0.5)
        assert [run.poll() for run in runs] == [None, None]
        assert entry_of(machine, "passwd", "alice") == []
    logs = [run.communicate(timeout=30)[1] for run in runs]

    assert [run.returncode for run in runs] == [0, 0], logs
    assert sorted("nothing to do" in log for log in logs) == [False, True], logs
    assert [entry_of(machine, "passwd", name)[2] for name in names] == ["1000", "1001", "1002"]
    assert [answer_at(machine, port) for port in (3773, 3774, 3775)] == list(names)


def test_a_run_by_hand_gives_up_when_another_holds_the_lock_for_too_long(machine: Machine) -> None:
    write_roster(machine, {"alice": {}})
    before = everything(machine)
    with lock_held(machine):
        started = time.monotonic()
        result = reconcile(machine, "--lock-wait", "1", code=75)
        assert 1 <= time.monotonic() - started < 3
    assert "/run/rosterd/lock" in result.err
    assert everything(machine) == before


# --- the bus ---


def test_without_a_bus_the_accounts_are_done_and_the_services_named(machine: Machine) -> None:
    write_roster(machine, {"alice": {"tier": "admin"}})
    machine.run("systemctl", "stop", "dbus.socket", "dbus.service")
    started = time.monotonic()
    result = machine.run("rosterd", check=False, timeout=60)
    assert result.code == 3, result
    assert time.monotonic() - started < 20
    _assert_done_without_services(machine, result)

    machine.run("systemctl", "start", "dbus.socket")
    reconcile(machine)
    assert answer_at(machine, 3773) == "alice"


def test_with_a_frozen_bus_the_accounts_are_done_and_the_services_named_in_time(machine: Machine) -> None:
    write_roster(machine, {"alice": {"tier": "admin"}})
    machine.run("systemctl", "kill", "--signal=STOP", "dbus.service")
    started = time.monotonic()
    result = machine.run("rosterd", check=False, timeout=60)
    assert result.code == 3, result
    assert time.monotonic() - started < 30
    _assert_done_without_services(machine, result)

    machine.run("systemctl", "kill", "--signal=CONT", "dbus.service")
    reconcile(machine)
    assert answer_at(machine, 3773) == "alice"


def _assert_done_without_services(machine: Machine, run: Result) -> None:
    assert entry_of(machine, "passwd", "alice")[2] == "1000"
    assert look(machine, "/etc/t3-serve/alice.env") == "root:root 600"
    assert any(" error " in line and "bus" in line for line in run.err.splitlines()), run
    assert not is_up(machine, "t3-serve@alice.service")
