"""Units that people once made in their own systemd, and that hold the port of a service: out of its way, for good.

The field case: such leftovers kept the ports for 16 days, and the new instances restarted 187,000 times unseen.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.machine.machine import Machine, Result
from tests.machine.workstation import (
    answer_at,
    bytes_of,
    eventually,
    everything,
    is_enabled,
    is_up,
    main_pid,
    reconcile,
    workstation,
    write_roster,
)

SERVER, TIMER, REFRESH = (
    "playwright-mcp.service",
    "playwright-snapshot-refresh.timer",
    "playwright-snapshot-refresh.service",
)
UNITS = (SERVER, TIMER, REFRESH)
FOLDER = "/home/{}/.config/systemd/user"
RETIRED = ".retired-by-rosterd"
INSTANCE = "playwright-mcp@{}.service"

# The server as its owner once made it, with the stand-in for npx; it comes back whatever ends it.
SERVER_UNIT = """\
[Service]
ExecStart=/usr/bin/npx --port {port}
Restart=always
RestartSec=0
[Install]
WantedBy=default.target
"""
TIMER_UNIT = "[Timer]\nOnActiveSec=1h\n[Install]\nWantedBy=timers.target\n"
REFRESH_UNIT = "[Service]\nType=oneshot\nExecStart=/bin/true\n"
OWN_UNIT = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=default.target\n"

# Fixed, so that the old server is on the very port that the instance gets.
PORTS = {
    "alice": 8931,
    "bob": 8932,
    "carol": 8933,
    "dora": 8934,
    "eve": 8935,
    "frank": 8936,
    "gina": 8937,
    "hugh": 8938,
    "ida": 8939,
}
ENTRY: Mapping[str, Any] = {"adopt": True, "services": {"t3": False}}
WITHOUT: Mapping[str, Any] = {"adopt": True, "services": {"t3": False, "playwright": False}}
PEOPLE = {**dict.fromkeys(PORTS, ENTRY), "hugh": WITHOUT, "ida": WITHOUT}


@dataclass
class Field:
    """A machine on which old units ran, and what one run said and did; no instance had ever been started.

    `before` and `after_dry_run` list all that a run could change, `dry_run` is what was shown of it.
    """

    machine: Machine
    before: str
    dry_run: str
    after_dry_run: str
    bobs_pid: str
    result: Result
    people: dict[str, Mapping[str, Any]] = field(default_factory=lambda: dict(PEOPLE))

    def change(self, name: str, entry: Mapping[str, Any]) -> None:
        """Give somebody another entry in the roster."""
        self.people[name] = entry
        write_roster(self.machine, self.people)


@pytest.fixture(scope="module")
def site(deb: Path) -> Iterator[Field]:
    """Set the old units up and make one run."""
    with workstation(deb) as machine:
        for name, port in PORTS.items():
            machine.run("useradd", "--create-home", "--shell", "/bin/sh", name)
            machine.write(f"/etc/t3-serve/playwright-{name}.env", f"PLAYWRIGHT_PORT={port}\n")
            make_old_units(machine, name)
        for name in ("alice", "bob", "frank", "hugh", "ida"):
            enable_old_units(machine, name)
        machine.run("rm", *(f"{FOLDER.format('bob')}/{unit}" for unit in UNITS))
        # Nothing of carol's runs: no session, no lingering.
        for wants, unit in (("default", SERVER), ("timers", TIMER)):
            as_person(machine, "carol", 'mkdir -p "$1.target.wants"; ln -s "../$2" "$1.target.wants/$2"', wants, unit)
        as_person(machine, "dora", "rm *; ln -s /dev/null playwright-mcp.service")
        machine.write("/home/gina/secret", "mine\n", mode=0o600, owner="gina")
        as_person(machine, "eve", f"rm {SERVER}; ln -s /home/gina/secret {SERVER}; mkdir default.target.wants")
        as_person(machine, "eve", f"ln -s /home/gina/secret default.target.wants/{SERVER}; rm {TIMER} {REFRESH}")
        as_person(machine, "gina", "rm *")

        write_roster(machine, PEOPLE)
        before = everything(machine)
        dry_run = machine.run("rosterd", "--dry-run").out
        after = everything(machine)
        bobs_pid = user_systemctl(machine, "bob", "show", "--property=MainPID", "--value", "my-notes.service")
        yield Field(machine, before, dry_run, after, bobs_pid, reconcile(machine))


def make_old_units(machine: Machine, name: str) -> None:
    """Write a person's old units, and one of another name."""
    units = {SERVER: SERVER_UNIT.format(port=PORTS[name]), TIMER: TIMER_UNIT, REFRESH: REFRESH_UNIT}
    machine.sh('install -d -o "$1" -g "$1" "/home/$1/.config" "/home/$1/.config/systemd" "$2"', name, folder(name))
    for unit, text in {**units, "my-notes.service": OWN_UNIT}.items():
        if name == "bob" or unit in units:
            machine.write(f"{folder(name)}/{unit}", text, owner=name)


def enable_old_units(machine: Machine, name: str) -> None:
    """Enable and start them as their owner does; they run from boot on. bob has only the one of another name."""
    machine.run("loginctl", "enable-linger", name)
    eventually(lambda: machine.exists(f"/run/user/{uid_of(machine, name)}/systemd/private"), within=10)
    user_systemctl(machine, name, "daemon-reload")
    user_systemctl(machine, name, "enable", "--now", *(["my-notes.service"] if name == "bob" else [SERVER, TIMER]))
    if name != "bob":
        assert answer_at(machine, PORTS[name]) == name


def folder(name: str) -> str:
    """Return where a person's own units are."""
    return FOLDER.format(name)


def uid_of(machine: Machine, name: str) -> str:
    """Return a person's uid."""
    return machine.run("id", "--user", name).out.strip()


def as_person(machine: Machine, name: str, script: str, *arguments: str) -> str:
    """Run a shell script as a person in the folder of their units; return what it writes."""
    start = 'cd "$HOME/.config/systemd/user"; '
    run_as = ("runuser", "-u", name, "--", "/bin/sh", "-euc", start + script, "sh", *arguments)
    return machine.run(*run_as, env={"HOME": f"/home/{name}"}).out


def user_systemctl(machine: Machine, name: str, *arguments: str, check: bool = True) -> str:
    """Call a person's own systemd as them; return what it says."""
    environment = {"HOME": f"/home/{name}", "XDG_RUNTIME_DIR": f"/run/user/{uid_of(machine, name)}"}
    return machine.run(
        "runuser", "-u", name, "--", "systemctl", "--user", *arguments, env=environment, check=check
    ).out.strip()


def sub_state(machine: Machine, unit: str) -> str:
    """Return what systemd calls the finer state of a unit."""
    return machine.run("systemctl", "show", "--property=SubState", "--value", unit).out.strip()


def listening_pid(machine: Machine, port: int) -> int:
    """Return the process that listens on a port."""
    found = re.search(r"pid=(\d+)", machine.run("ss", "-Hltnp", f"sport = :{port}").out)
    return int(found[1]) if found else 0


def units_of(machine: Machine, name: str) -> set[str]:
    """Return all that is below the folder of a person's units, folders left out."""
    return set(machine.run("find", folder(name), "!", "-type", "d", "-printf", "%P\n").out.split())


@pytest.mark.parametrize("name", ["alice", "carol"])
def test_old_units_make_way_and_the_instance_has_the_port_at_once(site: Field, name: str) -> None:
    machine, instance = site.machine, INSTANCE.format(name)
    assert answer_at(machine, PORTS[name]) == name
    assert is_up(machine, instance)
    assert is_enabled(machine, instance)
    assert listening_pid(machine, PORTS[name]) == main_pid(machine, instance) > 0
    assert machine.run("systemctl", "show", "--property=NRestarts", "--value", instance).out == "0\n"
    assert machine.read(f"/etc/t3-serve/playwright-{name}.env") == f"PLAYWRIGHT_PORT={PORTS[name]}\n"


def test_old_units_are_stopped_disabled_and_renamed(site: Field) -> None:
    for name in ("alice", "carol"):
        assert units_of(site.machine, name) == {f"{unit}{RETIRED}" for unit in UNITS}
        text = site.machine.read(f"{folder(name)}/{SERVER}{RETIRED}")
        assert text == SERVER_UNIT.format(port=PORTS[name])
    for unit in UNITS:
        assert user_systemctl(site.machine, "alice", "is-active", unit, check=False) == "inactive"
    listed = user_systemctl(site.machine, "alice", "list-unit-files", "--no-legend", "playwright-*", check=False)
    assert listed == ""
    failed = user_systemctl(site.machine, "alice", "--failed", "--no-legend", "--plain")
    assert failed == ""


def test_units_of_another_name_are_not_touched(site: Field) -> None:
    unit = "my-notes.service"
    assert units_of(site.machine, "bob") == {unit, f"default.target.wants/{unit}"}
    pid = user_systemctl(site.machine, "bob", "show", "--property=MainPID", "--value", unit)
    assert pid == site.bobs_pid != "0"


def test_a_masked_unit_is_left(site: Field) -> None:
    assert units_of(site.machine, "dora") == {SERVER}
    link = site.machine.run("readlink", f"{folder('dora')}/{SERVER}").out
    assert link == "/dev/null\n"


def test_of_a_link_to_somebody_elses_file_only_the_link_is_renamed(site: Field) -> None:
    machine = site.machine
    assert units_of(machine, "eve") == {f"{SERVER}{RETIRED}"}
    assert machine.run("readlink", f"{folder('eve')}/{SERVER}{RETIRED}").out == "/home/gina/secret\n"
    listing = next(line for line in site.before.splitlines() if line.startswith("/home/gina/secret "))
    assert listing in everything(machine).splitlines()
    assert bytes_of(machine, "/home/gina/secret") == b"mine\n"


def test_a_dry_run_says_so_and_touches_nothing(site: Field) -> None:
    told = {}
    for name, lines in re.findall(r"^(\w+)\n((?:  .*\n)+)", site.dry_run, re.MULTILINE):
        told[name] = re.findall(r"own unit (.*) → stopped, disabled, renamed", lines)
    assert {name: units for name, units in told.items() if units} == {
        "eve": [SERVER],
        **{name: [", ".join(UNITS)] for name in ("alice", "carol", "frank")},
    }
    assert site.after_dry_run == site.before


def test_a_second_run_has_nothing_to_do(site: Field) -> None:
    # Whatever the test of the undoing has left.
    reconcile(site.machine)
    before = everything(site.machine)
    result = reconcile(site.machine)
    assert "own unit" not in result.out + result.err
    assert everything(site.machine) == before


def test_a_rename_back_undoes_it_where_the_service_is_off(site: Field) -> None:
    machine, name = site.machine, "frank"
    site.change(name, WITHOUT)
    reconcile(machine)
    assert not is_up(machine, INSTANCE.format(name))
    as_person(machine, name, f'for unit in *{RETIRED}; do mv "$unit" "${{unit%{RETIRED}}}"; done')
    user_systemctl(machine, name, "daemon-reload")
    user_systemctl(machine, name, "enable", "--now", SERVER, TIMER)
    assert answer_at(machine, PORTS[name]) == name
    pid = user_systemctl(machine, name, "show", "--property=MainPID", "--value", SERVER)
    reconcile(machine)
    assert listening_pid(machine, PORTS[name]) == int(pid)
    assert units_of(machine, name) >= set(UNITS)


@pytest.mark.parametrize(
    ("name", "restart", "state"), [("hugh", "on-failure", "auto-restart"), ("ida", "no", "failed")]
)
def test_an_instance_that_crashed_for_want_of_its_port_gets_it(
    site: Field, name: str, restart: str, state: str
) -> None:
    machine, unit = site.machine, INSTANCE.format(name)
    machine.write(f"/etc/systemd/system/{unit}.d/restart.conf", f"[Service]\nRestart={restart}\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "--now", "--quiet", unit, check=False)
    eventually(lambda: sub_state(machine, unit) == state, within=10)
    site.change(name, ENTRY)
    reconcile(machine)
    assert is_up(machine, unit)
    assert listening_pid(machine, PORTS[name]) == main_pid(machine, unit) > 0
