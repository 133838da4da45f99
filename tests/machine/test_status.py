"""`rosterd status` against what the host itself says: ss, systemctl, getent, the records."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.machine.limits import CAP, limited_workstation
from tests.machine.machine import Machine
from tests.machine.workstation import (
    ROSTER,
    SITE,
    answer_at,
    entry_of,
    eventually,
    everything,
    main_pid,
    reconcile,
    traced,
    write_roster,
)

POLICY = """\
settle: 1
listen: 3
tiers:
  admin: {groups: [code-shared, docker, sudo], admin: true, cluster: exempt}
  power-user: {limits: {memory_max: 96M}}
  namespace-owner: {namespaces: required}
"""
PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {"tier": "admin"},
    "bob": {},
    "crash": {"services": {"playwright": False}},
    "held": {"services": {"playwright": False}},
    "quiet": {"services": {"playwright": False}},
    "parker": {"parked": True},
    "olga": {},
}
COMING = {**PEOPLE, "nina": {}}
STATES = {
    "alice": "active",
    "bob": "active",
    "crash": "active",
    "held": "active",
    "quiet": "active",
    "parker": "parked",
    "olga": "unmanaged",
    "nina": "missing",
    "gone": "cut",
    "dead": "tombstone",
}
LOOKING = {"Hello", "Introspect", "Subscribe", "AddMatch", "RemoveMatch", "GetNameOwner", "StartServiceByName", "Get"}


@dataclass(frozen=True)
class Seen:
    """A machine with people in every state, and its status as JSON and as text."""

    machine: Machine
    document: dict[str, Any]
    text: str

    def user(self, name: str) -> dict[str, Any]:
        """Return what the JSON has of a person."""
        (found,) = [user for user in self.document["users"] if user["name"] == name]
        return dict(found)

    def service(self, name: str, service: str = "t3") -> dict[str, Any]:
        """Return what it has of one of their services."""
        (found,) = [one for one in self.user(name)["services"] if one["name"] == service]
        return dict(found)

    def row(self, name: str, service: str = "t3") -> list[str]:
        """Return the cells of a row of the table."""
        (found,) = [line for line in self.text.splitlines() if re.match(rf"{name} .* {service} ", line)]
        return re.split(r"  +", found)


def status(machine: Machine, *before: str) -> dict[str, Any]:
    """Return the status as JSON; it ends with 0 whatever it shows."""
    document: dict[str, Any] = json.loads(machine.run(*before, "rosterd", "status", "--json").out)
    return document


@pytest.fixture(scope="module")
def seen(deb: Path) -> Iterator[Seen]:
    """Bring people into every state, and look; whoever uses it leaves the machine as it is."""
    with limited_workstation(deb) as machine:
        machine.write(SITE, POLICY)
        everybody = {name: fields for name, fields in PEOPLE.items() if name != "olga"}
        write_roster(machine, {**everybody, "gone": {}, "dead": {}})
        reconcile(machine)
        write_roster(machine, {**everybody, "gone": {}})
        reconcile(machine)
        machine.run("rosterd", "destroy", "dead", "--yes", "dead")
        machine.run("useradd", "--create-home", "olga")
        machine.run("useradd", "--create-home", "zoe")
        make_ill(machine)
        write_roster(machine, PEOPLE)
        reconcile(machine, code=3)
        write_roster(machine, COMING)
        machine.run("systemctl", "kill", "--signal=KILL", "t3-serve@crash.service")
        eventually(lambda: shown(machine, "t3-serve@crash.service", "NRestarts") == "1", within=10)
        answer_at(machine, port_of(machine, "crash"))
        time.sleep(1.5)
        yield Seen(machine, status(machine), machine.run("rosterd", "status").out)


def make_ill(machine: Machine) -> None:
    """Let a stranger take somebody's port, somebody's server be silent, and another's be started again at once."""
    again = "[Service]\nRestart=always\nRestartSec=100ms\n"
    silent = "[Service]\nExecStart=\nExecStart=/bin/sleep infinity\n"
    machine.write("/etc/systemd/system/t3-serve@crash.service.d/test.conf", again)
    machine.write("/etc/systemd/system/t3-serve@quiet.service.d/test.conf", silent)
    machine.sh(
        "systemctl daemon-reload; systemctl stop t3-serve@held.service; systemctl restart t3-serve@quiet.service"
    )
    port = port_of(machine, "held")
    machine.run("systemd-run", "--quiet", "--uid=zoe", "--unit=theirs", "/usr/bin/t3", "--port", str(port))
    answer_at(machine, port)


def port_of(machine: Machine, name: str, service: str = "") -> int:
    """Return the port in a person's env file."""
    return int(machine.read(f"/etc/t3-serve/{service}{name}.env").strip().rpartition("=")[2])


def shown(machine: Machine, unit: str, name: str) -> str:
    """Return one property of a unit."""
    return machine.run("systemctl", "show", "--value", f"--property={name}", unit).out.strip()


def holder(machine: Machine, port: int) -> int:
    """Return the pid of who listens on a port, as ss says."""
    return int(re.findall(r"pid=(\d+)", machine.run("ss", "-Hltnp", f"sport = :{port}").out)[0])


# --- people ---


def test_everybody_is_there_in_the_state_they_are_in(seen: Seen) -> None:
    assert {user["name"]: user["state"] for user in seen.document["users"]} == STATES
    assert seen.document["version"] == 1


def test_uids_are_those_of_the_accounts_and_tiers_those_of_the_roster(seen: Seen) -> None:
    for name in STATES:
        entry = entry_of(seen.machine, "passwd", name)
        if entry:
            assert seen.user(name)["uid"] == int(entry[2])
        assert seen.user(name)["tier"] == ({} | COMING).get(name, {"tier": ""}).get("tier", "power-user")
    assert seen.user("nina")["uid"] is None
    assert seen.user("dead")["uid"] == json.loads(seen.machine.read("/var/lib/rosterd/tombstones/dead"))["uid"]


def test_the_worst_come_first(seen: Seen) -> None:
    order = [user["name"] for user in seen.document["users"]]
    assert {"held", "quiet", "olga"} <= set(order[:4])
    assert order.index("nina") < order.index("alice") < order.index("parker")


# --- services ---


@pytest.mark.parametrize("name", ["alice", "bob", "crash"])
def test_who_listens_is_who_ss_says(seen: Seen, name: str) -> None:
    service = seen.service(name)
    assert service["port"] == port_of(seen.machine, name)
    unit = f"t3-serve@{name}.service"
    assert service["listener"] == {"pid": holder(seen.machine, service["port"]), "user": name, "unit": unit}
    assert service["listener"]["pid"] == main_pid(seen.machine, unit)


def test_a_stranger_on_the_port_is_named(seen: Seen) -> None:
    service = seen.service("held")
    pid = holder(seen.machine, service["port"])
    assert service["listener"] == {"pid": pid, "user": "zoe", "unit": "theirs.service"}
    assert service["health"] == "unhealthy"
    assert f"pid {pid} of zoe, in theirs.service" in seen.row("held")
    assert any(f"pid {pid}, user zoe, unit theirs.service" in text for text in seen.user("held")["problems"])


def test_who_does_not_listen_is_unhealthy_and_has_no_listener(seen: Seen) -> None:
    service = seen.service("quiet")
    assert (service["listener"], service["health"]) == (None, "unhealthy")
    assert seen.machine.run("ss", "-Hltn", f"sport = :{service['port']}").out == ""
    assert any("none of its processes listens" in text for text in seen.user("quiet")["problems"])


def test_units_are_as_systemctl_says(seen: Seen) -> None:
    units = [unit for user in seen.document["users"] for service in user["services"] for unit in service["units"]]
    assert len(units) > 8
    for unit in units:
        assert unit["active"] == shown(seen.machine, unit["name"], "ActiveState"), unit
        assert unit["sub"] == shown(seen.machine, unit["name"], "SubState"), unit
        enabled = seen.machine.run("systemctl", "is-enabled", unit["name"], check=False).out.strip()
        assert unit["enabled"] == (enabled == "enabled"), unit


def test_restarts_are_those_since_the_last_run(seen: Seen) -> None:
    (unit,) = seen.service("crash")["units"]
    assert unit["restarts"] == 1 == int(shown(seen.machine, unit["name"], "NRestarts"))
    assert seen.service("alice")["units"][0]["restarts"] == 0


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_memory_is_what_systemctl_says_and_the_cap_that_of_the_slice(seen: Seen, name: str) -> None:
    service = status_of(seen.machine, name)
    now = int(shown(seen.machine, f"t3-serve@{name}.service", "MemoryCurrent"))
    assert abs(service["memory"] - now) <= 4 * 4096
    assert service["memory_max"] == (CAP if name == "bob" else None)


def status_of(machine: Machine, name: str) -> dict[str, Any]:
    """Return what status has now of a person's server."""
    (user,) = [user for user in status(machine)["users"] if user["name"] == name]
    (service,) = [service for service in user["services"] if service["name"] == "t3"]
    return dict(service)


def test_who_is_parked_or_cut_off_or_deleted_keeps_the_port_and_runs_nothing(seen: Seen) -> None:
    for name in ("parker", "gone"):
        service = seen.service(name)
        assert service["port"] == port_of(seen.machine, name)
        assert (service["health"], service["listener"]) == ("off", None)
    kept = json.loads(seen.machine.read("/var/lib/rosterd/tombstones/dead"))["ports"]
    assert {one["name"]: one["port"] for one in seen.user("dead")["services"]} == kept


# --- the text ---


def test_the_table_has_a_row_for_everybody_and_what_json_has(seen: Seen) -> None:
    rows = [line.split()[0] for line in seen.text.splitlines() if line[:1].isalpha()]
    assert set(STATES) <= set(rows)
    assert list(dict.fromkeys(row for row in rows if row in STATES)) == [one["name"] for one in seen.document["users"]]
    service = seen.service("bob")
    assert seen.row("bob")[:6] == ["bob", "power-user", "active", "t3", "ok", str(service["port"])]
    assert seen.row("bob")[6] == f"pid {service['listener']['pid']} of bob"
    assert seen.row("bob")[8].endswith("of 96 MiB")


def test_the_last_lines_tell_of_the_last_run_and_of_all(seen: Seen) -> None:
    run, people, verdict = seen.text.splitlines()[-3:]
    last = json.loads(seen.machine.read("/var/lib/rosterd/last-run"))
    assert seen.document["run"] == {"id": last["id"], "at": last["at"], "exit": 3}
    assert "some people failed, or have a conflict or an unhealthy unit" in run
    assert "need attention: " in verdict
    assert f"journalctl RUN_ID={last['id']}" in run
    assert seen.machine.journal(f"RUN_ID={last['id']}")[-1]["ROSTERD_EVENT"] == "run_finished"
    assert "5 active" in people
    assert "1 tombstone" in people


# --- what it does, and for whom ---


def test_it_changes_nothing_and_says_nothing_on_the_bus_that_does(seen: Seen) -> None:
    before = everything(seen.machine)
    trace = traced(seen.machine, "rosterd", "status")
    assert trace.result.code == 0
    assert (trace.programs, trace.changes) == ([], [])
    assert set(trace.bus_methods) <= LOOKING | {"ListUnitsByPatterns"}
    assert everything(seen.machine) == before


def test_anybody_may_look_and_is_told_what_they_could_not_see(seen: Seen) -> None:
    seen.machine.run("install", "-m", "644", ROSTER, "/tmp/roster.yaml")
    as_zoe = ("runuser", "--user", "zoe", "--")
    result = seen.machine.run(*as_zoe, "rosterd", "status", "--roster", "/tmp/roster.yaml")
    assert "Traceback" not in result.err
    for what in ("/var/lib/rosterd", "/etc/t3-serve"):
        assert any(what in line for line in result.out.splitlines() if line.startswith("Could not be seen"))
    document = json.loads(seen.machine.run(*as_zoe, "rosterd", "status", "--json", "--roster", "/tmp/roster.yaml").out)
    assert document["unseen"]
    (alice,) = [user for user in document["users"] if user["name"] == "alice"]
    assert alice["uid"] == int(entry_of(seen.machine, "passwd", "alice")[2])


def test_a_roster_that_is_refused_is_said_and_not_shown(seen: Seen) -> None:
    seen.machine.write("/root/bad.yaml", "users: [alice]\n")
    result = seen.machine.run("rosterd", "status", "--roster", "/root/bad.yaml", check=False)
    assert result.code == 5
    assert "bad.yaml:1:" in result.err


# --- while a failed run lasts ---


def last_line(machine: Machine) -> str:
    """Return the line of the last run."""
    return machine.run("rosterd", "status").out.splitlines()[-3]


def test_a_failed_and_a_held_run_are_told_until_a_good_one(deb: Path) -> None:
    with limited_workstation(deb) as machine:
        machine.write(SITE, "settle: 0\n")
        people: dict[str, dict[str, Any]] = {"alice": {}, "bob": {}, "carol": {}}
        write_roster(machine, people)
        assert last_line(machine) == "Last run: none on record."
        reconcile(machine)
        assert "(exit 0)" in last_line(machine)

        write_roster(machine, {})
        reconcile(machine, code=4)
        write_roster(machine, people)  # mended, and no run yet
        assert "a guard held cuts" in last_line(machine)
        machine.write(ROSTER, "users: [alice]\n")
        reconcile(machine, code=5)
        write_roster(machine, people)
        assert "the roster or the site file is missing or refused" in last_line(machine)
        machine.run("rosterd", "--dry-run")
        assert "refused" in last_line(machine)
        reconcile(machine)
        assert "(exit 0)" in last_line(machine)
        assert status(machine)["run"]["exit"] == 0
