"""Whether a service is well: it runs, it has stayed up, and a process of its own unit listens on its port.

What is there is told by systemctl, ss and journalctl; that nothing connects, by strace.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.machine.machine import Machine, Result
from tests.machine.workstation import (
    SITE,
    STAND_IN,
    answer_at,
    eventually,
    main_pid,
    reconcile,
    workstation,
    write_roster,
)

POLICY = """\
settle: 1
listen: 3
services:
  t3:
    units: [t3-serve@.service]
    port: {variable: T3_PORT, base: 3773, env_file: "/etc/t3-serve/{user}.env"}
  asked:
    units: [asked@.socket]
    port: {variable: ASKED_PORT, base: 4000, env_file: "/etc/t3-serve/asked-{user}.env"}
    enabled: false
"""
PEOPLE: dict[str, dict[str, Any]] = {
    "ann": {},
    "bob": {},
    "cat": {},
    "dan": {},
    "eve": {},
    "fay": {},
    "gus": {"services": {"t3": False, "asked": True}},
    "hal": {},
}
PORTS = {"ann": 3773, "bob": 3774, "cat": 3775, "dan": 3776, "eve": 3790, "fay": 3777, "gus": 4000, "hal": 3778}
ILL = {"bob", "cat", "dan", "eve", "hal"}

# What each one's server does instead of what it should; ${T3_PORT} is systemd's.
SILENT = "/bin/sh -c 'seq --format \"step %%g\" 20; echo warming up; exec sleep infinity'"
CRASHES = "/bin/sh -c 'echo cannot open the database >&2; sleep 0.3; exit 1'"
NO_PROGRAM = "/usr/bin/no-such-program"
BY_A_CHILD = "/bin/sh -c '/usr/bin/t3 --port ${T3_PORT} & exec sleep infinity'"
LATE = "/bin/sh -c 'sleep %s; exec /usr/bin/t3 --port ${T3_PORT}'"
OFTEN = "StartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec=100ms"

ASKED_SOCKET = "[Socket]\nListenStream=127.0.0.1:4000\nAccept=no\n[Install]\nWantedBy=sockets.target\n"
ASKED_SERVICE = "[Service]\nUser=%i\nExecStart=/bin/sleep infinity\n"


@dataclass(frozen=True)
class Ailing:
    """A machine after a run in which some services are not well, with its log and what it took."""

    machine: Machine
    run: Result
    seconds: float

    def errors_about(self, name: str) -> str:
        """Return the lines of the run's log that tell of an error of somebody's."""
        return "\n".join(line for line in self.run.err.splitlines() if f" error   {name}: " in line)


def override(machine: Machine, name: str, command: str, more: str = "") -> None:
    """Have a person's server be another program."""
    text = f"[Unit]\n{more or '[Service]'}\nExecStart=\nExecStart={command}\n"
    machine.write(f"/etc/systemd/system/t3-serve@{name}.service.d/test.conf", text)
    machine.run("systemctl", "daemon-reload")


def show(machine: Machine, unit: str, name: str) -> str:
    """Return one property of a unit."""
    return machine.run("systemctl", "show", "--value", f"--property={name}", unit).out.strip()


def listens(machine: Machine, port: int) -> bool:
    """Say whether anything listens on a port."""
    return f":{port} " in machine.run("ss", "-Hltn", f"sport = :{port}").out


@pytest.fixture(scope="module")
def ailing(deb: Path) -> Iterator[Ailing]:
    """Make a first run in which services are ill in every way; whoever uses it leaves the machine as it is."""
    with workstation(deb) as machine:
        machine.write(SITE, POLICY)
        override(machine, "bob", SILENT)
        override(machine, "cat", CRASHES, OFTEN)
        override(machine, "dan", NO_PROGRAM, OFTEN)
        override(machine, "fay", BY_A_CHILD)
        override(machine, "hal", "/usr/bin/t3 --port 3999")
        machine.write("/etc/systemd/system/asked@.socket", ASKED_SOCKET)
        machine.write("/etc/systemd/system/asked@.service", ASKED_SERVICE)
        machine.run("systemctl", "daemon-reload")
        machine.sh("mkdir -p /etc/t3-serve; useradd --create-home zoe")
        machine.write("/etc/t3-serve/eve.env", "T3_PORT=3790\n", mode=0o600)
        machine.run("systemd-run", "--quiet", "--uid=zoe", "--unit=theirs", "/usr/bin/t3", "--port", "3790")
        answer_at(machine, 3790)
        write_roster(machine, PEOPLE)
        started = time.monotonic()
        done = machine.run("rosterd", check=False)
        yield Ailing(machine, done, time.monotonic() - started)


# --- a first run ---


def test_a_run_that_leaves_something_ill_exits_3_in_the_time_it_gives(ailing: Ailing) -> None:
    assert ailing.run.code == 3, ailing.run
    assert 3 < ailing.seconds < 20


@pytest.mark.parametrize("name", ["ann", "fay", "gus"])
def test_who_listens_by_a_process_of_their_unit_is_well(ailing: Ailing, name: str) -> None:
    assert listens(ailing.machine, PORTS[name])
    assert ailing.errors_about(name) == ""


def test_it_is_a_child_that_listens(ailing: Ailing) -> None:
    shown = ailing.machine.run("ss", "-Hltnp", f"sport = :{PORTS['fay']}").out
    assert f"pid={main_pid(ailing.machine, 't3-serve@fay.service')}," not in shown
    assert answer_at(ailing.machine, PORTS["fay"]) == "fay"


def test_the_socket_of_a_socket_unit_is_the_managers_and_well(ailing: Ailing) -> None:
    assert show(ailing.machine, "asked@gus.socket", "SubState") == "listening"
    assert "pid=1," in ailing.machine.run("ss", "-Hltnp", "sport = :4000").out
    assert show(ailing.machine, "asked@gus.service", "ActiveState") == "inactive"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bob", "t3: t3-serve@bob.service runs, but none of its processes listens on port 3774"),
        ("cat", "t3-serve@cat.service"),
        ("dan", "t3-serve@dan.service"),
        ("eve", "t3: port 3790 is held by another process"),
    ],
    ids=["does-not-listen", "crashes", "no-program", "a-stranger-listens"],
)
def test_who_is_ill_is_told_in_the_words_of_the_plan(ailing: Ailing, name: str, text: str) -> None:
    assert text in ailing.errors_about(name), ailing.run


def test_a_stranger_on_the_port_is_named_and_the_unit_not_started(ailing: Ailing) -> None:
    pid = main_pid(ailing.machine, "theirs.service")
    assert f"(pid {pid}, user zoe, unit theirs.service)" in ailing.errors_about("eve")
    assert show(ailing.machine, "t3-serve@eve.service", "ActiveState") == "inactive"


def test_a_unit_that_listens_elsewhere_is_told_with_both_ports(ailing: Ailing) -> None:
    said = [line for line in ailing.run.err.splitlines() if " hal: " in line and "3999" in line]
    assert said, ailing.run
    assert str(PORTS["hal"]) in said[0]


def test_the_last_lines_of_the_unit_are_told(ailing: Ailing) -> None:
    assert "t3-serve@cat.service said: cannot open the database" in ailing.errors_about("cat")
    said = [line.partition(" said: ")[2] for line in ailing.errors_about("bob").splitlines() if " said: " in line]
    assert len(said) == 5
    # systemd's words that it starts and has started are among them, or before them.
    own = [line for line in said if "t3-serve@" not in line]
    assert len(own) >= 3
    assert own == [*(f"step {number}" for number in range(1, 21)), "warming up"][-len(own) :]
    assert re.search(r"dan.service said: .*no-such-program", ailing.errors_about("dan"))
    said = [line for line in ailing.run.err.splitlines() if "t3-serve@cat.service said: " in line]
    journal = ailing.machine.run("journalctl", "--output=cat", "--no-pager", "--unit=t3-serve@cat.service").out
    assert 0 < len(said) <= 5
    assert all(line.split(" said: ", 1)[1] in journal for line in said)
    assert "said: " not in ailing.errors_about("eve")


def test_the_next_run_says_so_again_and_does_not_wait(ailing: Ailing) -> None:
    time.sleep(3)  # so that nothing is young any more
    started = time.monotonic()
    again = ailing.machine.run("rosterd", check=False)
    assert again.code == 3
    assert time.monotonic() - started < 10
    assert "none of its processes listens on port 3774" in again.err


# --- one at a time ---


@pytest.fixture(scope="module")
def shared(deb: Path) -> Iterator[Machine]:
    """Boot a workstation on which each test makes one person more."""
    with workstation(deb) as machine:
        machine.write(SITE, POLICY)
        # bob has been here, so that who has which port does not depend on the order of the tests.
        write_roster(machine, {"ann": {}, "bob": {}})
        reconcile(machine)
        write_roster(machine, {"ann": {}})
        reconcile(machine, "--allow-cuts", "1")
        yield machine


@pytest.fixture
def machine(shared: Machine) -> Iterator[Machine]:
    """Return the workstation with nobody's server changed."""
    yield shared
    shared.sh("rm -rf /etc/systemd/system/t3-serve@*.d; systemctl daemon-reload; systemctl reset-failed")
    shared.write(SITE, POLICY)
    write_roster(shared, {"ann": {}})
    reconcile(shared, "--allow-cuts", "1")
    prepare_again(shared)


def active_state(machine: Machine, unit: str) -> str:
    """Return what systemd says of a unit, as in `active`."""
    return machine.run("systemctl", "is-active", unit, check=False).out.strip()


def prepare_again(machine: Machine) -> None:
    """Have everybody's server be the stand-in that listens."""
    machine.write("/usr/bin/t3", STAND_IN, mode=0o755)
    machine.run("systemctl", "restart", "t3-serve@ann.service")
    answer_at(machine, PORTS["ann"])


def test_who_listens_late_is_waited_for_and_well(machine: Machine) -> None:
    override(machine, "bob", LATE % 3)
    machine.write(SITE, POLICY.replace("listen: 3", "listen: 20"))
    write_roster(machine, {"ann": {}, "bob": {}})
    started = time.monotonic()
    done = reconcile(machine)
    assert 3 <= time.monotonic() - started < 15
    assert " error " not in done.err
    assert listens(machine, 3774)


def test_who_listens_too_late_is_ill_in_this_run_and_well_in_the_next(machine: Machine) -> None:
    override(machine, "bob", LATE % 8)
    write_roster(machine, {"ann": {}, "bob": {}})
    assert "listens on port 3774" in reconcile(machine, code=3).err
    eventually(lambda: listens(machine, 3774), within=15)
    reconcile(machine)


def test_a_cut_and_an_edit_are_not_held_up_by_a_server_that_takes_its_time(machine: Machine) -> None:
    machine.write(SITE, POLICY.replace("listen: 3", "listen: 60"))
    write_roster(machine, {"ann": {}, "cat": {}})
    reconcile(machine)
    override(machine, "bob", SILENT)
    write_roster(machine, {"ann": {}, "bob": {}, "cat": {}})
    going = machine.start("rosterd", "reconcile")
    eventually(lambda: active_state(machine, "t3-serve@bob.service") == "active", within=15)
    started = time.monotonic()
    machine.run("rosterd", "cut", "cat")
    assert time.monotonic() - started < 15
    assert going.wait(10) == 0

    machine.run("rosterd", "uncut", "cat")
    machine.run("systemctl", "restart", "t3-serve@bob.service")
    going = machine.start("rosterd", "reconcile")
    time.sleep(2)
    write_roster(machine, {"ann": {}, "bob": {}})
    eventually(lambda: active_state(machine, "t3-serve@cat.service") == "inactive", within=15)
    going.end()


def test_a_site_can_do_without_listening(machine: Machine) -> None:
    override(machine, "bob", SILENT)
    machine.write(SITE, POLICY.replace("listen: 3", "listen: 0"))
    write_roster(machine, {"ann": {}, "bob": {}})
    assert " error " not in reconcile(machine).err


def test_the_last_lines_are_in_the_json_too(machine: Machine) -> None:
    override(machine, "bob", SILENT)
    write_roster(machine, {"ann": {}, "bob": {}})
    document = json.loads(reconcile(machine, "--json", code=3).out)
    assert "warming up" in document["journal"]["t3-serve@bob.service"]
    assert document["run"]["exit"] == 3
    assert any("none of its processes listens" in json.dumps(found) for found in document["findings"])


def test_a_slow_crash_loop_is_told_by_the_next_run_with_the_number_of_restarts(machine: Machine) -> None:
    unit = "t3-serve@bob.service"
    write_roster(machine, {"ann": {}, "bob": {}})
    override(machine, "bob", LATE % 0, OFTEN)
    reconcile(machine)
    for killed in (1, 2, 3):
        machine.run("systemctl", "kill", "--signal=KILL", unit)
        eventually(lambda: show(machine, unit, "NRestarts") == str(killed), within=10)  # noqa: B023 - waited for here
        answer_at(machine, 3774)
    time.sleep(1.5)  # settled, as a crash loop is that takes its time
    assert f"systemd restarted {unit} 3 times since the last run" in reconcile(machine).err
    assert "systemd restarted" not in reconcile(machine).err

    machine.run("systemctl", "kill", "--signal=KILL", unit)
    eventually(lambda: show(machine, unit, "NRestarts") == "4", within=10)
    answer_at(machine, 3774)
    time.sleep(1.5)
    assert f"systemd restarted {unit} 1 time since the last run" in reconcile(machine).err

    # Somebody who restarts it makes systemd count from 0.
    machine.run("systemctl", "restart", unit)
    assert show(machine, unit, "NRestarts") == "0"
    answer_at(machine, 3774)
    time.sleep(1.5)
    assert "systemd restarted" not in reconcile(machine).err


def test_no_connection_is_made_to_find_out(machine: Machine) -> None:
    override(machine, "bob", SILENT)
    write_roster(machine, {"ann": {}, "bob": {}})
    calls = ("-f", "-qq", "-o", "/tmp/connects", "-e", "trace=connect,socket,sendto")
    assert machine.run("strace", *calls, "rosterd", check=False).code == 3
    told = machine.read("/tmp/connects")
    assert "AF_UNIX" in told
    assert [line for line in told.splitlines() if "AF_INET" in line] == []


# --- for how long a unit has been up ---

UP = """\
import json, sys
sys.path.insert(0, "/usr/lib/python3/dist-packages")
from reconciler.host.bus import Systemd
from reconciler.host.scan_units import scan_units
states = scan_units(Systemd(), ["t3-serve@.service"]).states
print(json.dumps({name: [state.up, state.restarts] for name, state in states.items()}))
"""
AGAIN = "[Service]\nRestart=always\nRestartSec=100ms\n"


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_how_long_a_unit_is_up_is_what_systemd_says(deb: Path, release: str) -> None:
    with workstation(deb, release) as machine:
        machine.write(SITE, POLICY)
        write_roster(machine, {"ann": {}, "bob": {}, "cat": {}})
        reconcile(machine)
        machine.run("systemctl", "restart", "t3-serve@bob.service")
        machine.write("/etc/systemd/system/t3-serve@cat.service.d/test.conf", AGAIN)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "kill", "--signal=KILL", "t3-serve@cat.service")
        eventually(lambda: show(machine, "t3-serve@cat.service", "NRestarts") == "1", within=10)
        answer_at(machine, PORTS["cat"])
        machine.run("systemctl", "daemon-reload")
        time.sleep(1)
        found = json.loads(machine.run("python3", "-c", UP).out)
        now = float(machine.run("date", "+%s.%N").out)
        for name in ("ann", "bob", "cat"):
            unit = f"t3-serve@{name}.service"
            entered = show(machine, unit, "ActiveEnterTimestampMonotonic")
            boot = now - float(machine.read("/proc/uptime").split()[0])
            up, restarts = found[unit]
            assert abs((now - up) - (boot + int(entered) / 1e6)) < 1, (name, up)
            assert str(restarts) == show(machine, unit, "NRestarts")
            link = machine.run("readlink", f"/run/systemd/units/invocation:{unit}").out.strip()
            assert link == show(machine, unit, "InvocationID")


def test_a_unit_that_is_started_again_while_a_run_looks_is_not_taken_for_one_that_stays_up(machine: Machine) -> None:
    """It runs most of the time, and never for as long as it must."""
    machine.write(SITE, POLICY.replace("settle: 1", "settle: 2"))
    crash = "/bin/sh -c '/usr/bin/t3 --port ${T3_PORT} & sleep 1.2; exit 1'"
    override(machine, "bob", crash, OFTEN)
    write_roster(machine, {"ann": {}, "bob": {}})
    done = reconcile(machine, code=3)
    assert "t3-serve@bob.service" in done.err
