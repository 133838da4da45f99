"""A machine that rosterd has never seen: the first run, the second, and the dry run."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.machine.machine import Machine, Result
from tests.machine.workstation import (
    MAPS,
    ROSTER,
    Trace,
    account_lines,
    answer_at,
    dispatch,
    entry_of,
    everything,
    groups_of,
    is_enabled,
    is_up,
    lock_held,
    look,
    main_pid,
    map_lines,
    owner_of,
    reconcile,
    roster,
    traced,
    workstation,
    write_roster,
)
from tests.proof.evidence import note

# In another order than that of their names, by which ids and ports are given out.
PEOPLE: dict[str, dict[str, Any]] = {
    "erin": {"services": {"playwright": False}},
    "alice": {"tier": "admin"},
    "bob": {"tier": "namespace-owner", "namespaces": ["shop"], "code_layout": "workspace", "repos": ["api"]},
    "dora": {"parked": True},
    "c-3_x": {},
}
UIDS = {"alice": 1001, "bob": 1002, "c-3_x": 1003, "dora": 1004, "erin": 1005}
T3_PORTS = {"alice": 3773, "bob": 3774, "c-3_x": 3775, "dora": 3776, "erin": 3777}
PLAYWRIGHT_PORTS = {"alice": 8931, "bob": 8932, "c-3_x": 8933, "dora": 8934}

SERVICES = {f"t3-serve@{name}.service": name for name in ("alice", "bob", "c-3_x", "erin")} | {
    f"playwright-mcp@{name}.service": name for name in ("alice", "bob", "c-3_x")
}
TIMERS = [f"playwright-snapshot-refresh@{name}.timer" for name in ("alice", "bob", "c-3_x")]
HALTED = [
    "t3-serve@dora.service",
    "playwright-mcp@dora.service",
    "playwright-mcp@erin.service",
    "playwright-snapshot-refresh@dora.timer",
    "playwright-snapshot-refresh@erin.timer",
]

# What a dry run may say on the bus: none of it changes anything.
BUS_METHODS_THAT_READ = {
    "Hello",
    "Introspect",
    "Subscribe",
    "AddMatch",
    "RemoveMatch",
    "GetNameOwner",
    "StartServiceByName",
    "ListUnitsByPatterns",
    "Get",
}


@dataclass(frozen=True)
class Done:
    """A machine after its first run; `zoe` is somebody whom nobody has put on the roster."""

    machine: Machine
    run: Result
    zoe_before: str


@pytest.fixture(scope="module")
def done(deb: Path) -> Iterator[Done]:
    """Make a first run; whoever uses it leaves the machine as it is."""
    with workstation(deb) as machine:
        machine.run("useradd", "--create-home", "--uid", "1000", "zoe")
        zoe = account_lines(machine, "zoe")
        machine.sh("mkdir -p /etc/skel/.config/app; echo set >/etc/skel/.config/app/settings")
        write_roster(machine, PEOPLE)
        yield Done(machine, machine.run("rosterd", check=False), zoe)


@pytest.fixture
def machine(done: Done) -> Machine:
    """Return the machine after its first run, which a test only looks at."""
    return done.machine


@pytest.fixture
def others(machine: Machine) -> str:
    """Return the path of a roster that is not in force: bob has left and fred has come."""
    path = "/root/others.yaml"
    users = {name: fields for name, fields in PEOPLE.items() if name != "bob"}
    machine.write(path, roster({**users, "fred": {}}))
    return path


# --- the first run ---


def test_a_first_run_does_everything_and_says_so(done: Done) -> None:
    assert done.run.code == 0, done.run
    assert "Plan: " in done.run.out
    assert "run finished" in done.run.err.splitlines()[-1]


@pytest.mark.parametrize("name", PEOPLE)
def test_an_account_has_the_lowest_free_uid_and_a_group_of_the_same_number(machine: Machine, name: str) -> None:
    uid = str(UIDS[name])
    assert entry_of(machine, "passwd", name) == [name, "x", uid, uid, "", f"/home/{name}", "/bin/zsh"]
    assert entry_of(machine, "group", name) == [name, "x", uid, ""]


def test_passwords_are_locked(machine: Machine) -> None:
    for name in PEOPLE:
        assert entry_of(machine, "shadow", name)[1] == "!"
        assert machine.run("passwd", "--status", name).out.split()[1] == "L"


def test_homes_are_closed_and_hold_the_skel(machine: Machine) -> None:
    skel = machine.sh("cd /etc/skel; find . -type f -exec md5sum {} +").out
    assert "./.config/app/settings\n" in skel
    for name in PEOPLE:
        assert look(machine, f"/home/{name}") == f"{name}:{name} 700"
        machine.run("env", f"--chdir=/home/{name}", "md5sum", "--check", "--strict", input=skel)
        assert machine.sh('find "/home/$1" ! -user "$1" -o ! -group "$1"', name).out == ""


def test_nothing_in_the_homes_belongs_to_root(machine: Machine) -> None:
    assert machine.run("find", "/home", "-mindepth", "1", "-user", "root").out == ""


def test_groups_are_those_of_the_tier_and_the_mark(machine: Machine) -> None:
    assert groups_of(machine, "alice") == {"alice", "rosterd", "code-shared", "docker", "sudo"}
    for name in set(PEOPLE) - {"alice"}:
        assert groups_of(machine, name) == {name, "rosterd"}
    assert sorted(entry_of(machine, "group", "rosterd")[3].split(",")) == sorted(PEOPLE)
    assert int(entry_of(machine, "group", "rosterd")[2]) < 1000


def test_everybody_has_subordinate_ids_of_their_own(machine: Machine) -> None:
    for file in ("/etc/subuid", "/etc/subgid"):
        rows = [line.split(":") for line in machine.read(file).splitlines()]
        assert sorted(name for name, _, _ in rows) == sorted([*PEOPLE, "zoe"])
        spans = sorted((int(first), int(first) + int(count)) for _, first, count in rows)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans)), f"{file}: {spans}"


def test_ports_are_given_in_the_order_of_names_in_files_of_roots_alone(machine: Machine) -> None:
    files = {f"{name}.env": f"T3_PORT={port}\n" for name, port in T3_PORTS.items()}
    files |= {f"playwright-{name}.env": f"PLAYWRIGHT_PORT={port}\n" for name, port in PLAYWRIGHT_PORTS.items()}
    assert set(machine.run("ls", "-A", "/etc/t3-serve").out.split()) == {*files, "dispatch.json"}
    for name, text in files.items():
        assert machine.read(f"/etc/t3-serve/{name}") == text
        assert look(machine, f"/etc/t3-serve/{name}") == "root:root 600"


@pytest.mark.parametrize(("unit", "name"), SERVICES.items())
def test_a_service_is_enabled_and_runs_as_its_user(machine: Machine, unit: str, name: str) -> None:
    assert is_enabled(machine, unit)
    assert is_up(machine, unit)
    assert owner_of(machine, main_pid(machine, unit)) == name


def test_timers_of_people_are_enabled_and_wait(machine: Machine) -> None:
    for unit in TIMERS:
        assert is_enabled(machine, unit)
        assert is_up(machine, unit)


def test_what_is_parked_or_switched_off_neither_runs_nor_is_enabled(machine: Machine) -> None:
    for unit in HALTED:
        assert not is_up(machine, unit)
        assert not is_enabled(machine, unit)


def test_a_request_to_a_port_is_answered_by_the_persons_own_server(machine: Machine) -> None:
    for name in ("alice", "bob", "c-3_x"):
        assert answer_at(machine, T3_PORTS[name]) == name
        assert answer_at(machine, PLAYWRIGHT_PORTS[name]) == name
    assert answer_at(machine, T3_PORTS["erin"]) == "erin"


def test_the_maps_name_everybody_and_route_to_those_whose_server_runs(machine: Machine) -> None:
    names = sorted(PEOPLE)
    assert map_lines(machine) == [f"{name}.id={name}" for name in names]
    assert map_lines(machine, "/etc/ttyd-admins") == ["alice"]
    assert dispatch(machine) == {
        f"{name}.id": {"os_user": name, "port": T3_PORTS[name]} for name in names if name != "dora"
    }
    for path in MAPS:
        assert look(machine, path) == "root:root 644"


def test_an_account_that_is_not_on_the_roster_is_left_as_it_is(done: Done) -> None:
    assert account_lines(done.machine, "zoe") == done.zoe_before


# --- the second run ---


def test_a_second_run_has_nothing_to_do_and_changes_nothing(machine: Machine) -> None:
    before = everything(machine)
    result = reconcile(machine)
    assert "nothing to do" in result.out
    assert "nothing to do" in result.err.splitlines()[-1]
    assert everything(machine) == before


def test_a_second_run_starts_no_process_and_writes_no_file_but_its_own_record(machine: Machine) -> None:
    trace = traced(machine, "rosterd")
    note("second_run", started=len(trace.programs), written=len(trace.changes_beyond_its_own))
    assert trace.result.code == 0, trace.result
    assert trace.programs == []
    assert trace.changes_beyond_its_own == []
    assert trace.changes != [], "the lock is opened for writing, so strace must have seen that"


def test_a_second_run_looks_into_nobodys_home(machine: Machine) -> None:
    trace = traced(machine, "rosterd")
    assert [call for call in trace.calls if re.search(r'["<]/home[/">]', call)] == []


# --- the dry run ---


def test_a_dry_run_makes_no_system_call_that_changes_anything(machine: Machine, others: str) -> None:
    before = everything(machine)
    trace = traced(machine, "rosterd", "--dry-run", "--roster", others)
    note("dry_run", calls_looked_at=len(trace.calls), that_change=len(trace.changes), started=len(trace.programs))
    assert trace.result.code == 0, trace.result
    assert "fred" in trace.result.out
    assert trace.programs == []
    assert trace.changes == []
    assert set(trace.bus_methods) <= BUS_METHODS_THAT_READ
    assert "ListUnitsByPatterns" in trace.bus_methods
    assert everything(machine) == before


def test_a_dry_run_takes_no_lock(machine: Machine, others: str) -> None:
    with lock_held(machine):
        machine.run("rosterd", "--dry-run", "--roster", others, timeout=5)


def test_a_dry_run_prints_a_plan_by_person_with_signs_and_a_count(machine: Machine, others: str) -> None:
    lines = machine.run("rosterd", "--dry-run", "--roster", others).out.splitlines()
    fred = lines[lines.index("fred") + 1 :]
    assert fred[0].startswith("  + account: none → uid 1006")
    bob = lines[lines.index("bob") + 1 :]
    assert any(line.startswith("  - t3-serve@bob.service: enabled, running → disabled, stopped") for line in bob)
    assert lines[-1].startswith("Plan: ")
    assert "to add" in lines[-1]
    assert "to stop" in lines[-1]


def test_a_dry_run_can_tell_by_its_exit_code_whether_there_are_changes(machine: Machine, others: str) -> None:
    detailed = ("rosterd", "reconcile", "--dry-run", "--detailed-exitcode")
    assert machine.run(*detailed, check=False).code == 0
    assert machine.run(*detailed, "--roster", others, check=False).code == 2


def test_a_removal_alone_is_a_change_too(machine: Machine) -> None:
    machine.write("/root/fewer.yaml", roster({name: PEOPLE[name] for name in PEOPLE if name != "bob"}))
    detailed = ("rosterd", "--dry-run", "--detailed-exitcode", "--roster", "/root/fewer.yaml")
    assert machine.run(*detailed, check=False).code == 2


def test_a_dry_run_as_json_holds_the_whole_plan(machine: Machine, others: str) -> None:
    plan = json.loads(machine.run("rosterd", "--dry-run", "--json", "--roster", others).out)
    assert plan["changes"] is True
    done = {(action["user"], action["action"]) for action in plan["actions"]}
    assert {("fred", "create_account"), ("fred", "write_port"), ("fred", "run_unit")} <= done
    assert {("bob", "halt_unit"), (None, "write_output")} <= done
    assert {user for user, _ in done} == {"bob", "fred", None}
    assert plan["held"]["users"] == []
    assert plan["unseen"] == []

    nothing = json.loads(machine.run("rosterd", "--dry-run", "--json").out)
    assert (nothing["changes"], nothing["actions"]) == (False, [])


def test_a_dry_run_of_anybody_works_and_names_what_it_could_not_see(machine: Machine, others: str) -> None:
    machine.run("install", "-m", "644", others, "/tmp/others.yaml")
    result = machine.run("runuser", "--user", "zoe", "--", "rosterd", "--dry-run", "--roster", "/tmp/others.yaml")
    assert "+ account: none → uid 1006" in result.out
    unseen = [line for line in result.out.splitlines() if "ould not be seen" in line]
    for what in ("/etc/t3-serve/", "/etc/shadow", "/var/lib/rosterd"):
        assert any(what in line for line in unseen), unseen


def test_a_run_of_anybody_but_root_is_refused(machine: Machine) -> None:
    before = everything(machine)
    result = machine.run("runuser", "--user", "zoe", "--", "rosterd", check=False)
    assert result.code == 1
    assert "root" in result.err
    assert everything(machine) == before


# --- whatever the number of people ---


def of_a_later_run(machine: Machine) -> Trace:
    """Return what a run does that has nothing to do, and nothing new to ask of what was started since the last one."""
    reconcile(machine)
    time.sleep(2)  # the record of a run counts whole seconds
    reconcile(machine)
    return traced(machine, "rosterd")


def test_a_run_says_the_same_few_things_on_the_bus_for_three_people_and_for_thirty(deb: Path) -> None:
    with workstation(deb) as machine:
        write_roster(machine, {f"user{number:02}": {} for number in range(3)})
        few = of_a_later_run(machine).bus_methods

        write_roster(machine, {f"user{number:02}": {} for number in range(30)})
        growing = traced(machine, "rosterd")
        assert growing.result.code == 0, growing.result
        many = of_a_later_run(machine).bus_methods
        assert all(answer_at(machine, port) == f"user{number:02}" for number, port in enumerate(range(3773, 3803)))

    assert many == few
    assert few.count("ListUnitsByPatterns") == 1
    assert growing.bus_methods.count("EnableUnitFiles") == 1
    assert growing.bus_methods.count("Reload") == 1
    assert growing.bus_methods.count("StartUnit") == 27 * 3


# --- the other release ---


def test_the_whole_of_it_on_debian_13(deb: Path) -> None:
    with workstation(deb, "trixie") as machine:
        write_roster(machine, PEOPLE)
        machine.run("systemctl", "start", "rosterd.service")
        for name, uid in UIDS.items():
            number = str(uid - 1)  # nobody came before them here
            assert entry_of(machine, "passwd", name)[2:4] == [number, number]
            assert entry_of(machine, "shadow", name)[1] == "!"
            assert look(machine, f"/home/{name}") == f"{name}:{name} 700"
            assert machine.exists(f"/home/{name}/.bashrc")
        assert groups_of(machine, "alice") == {"alice", "rosterd", "code-shared", "docker", "sudo"}
        for unit, name in SERVICES.items():
            assert is_enabled(machine, unit)
            assert owner_of(machine, main_pid(machine, unit)) == name
        assert answer_at(machine, 3773) == "alice"
        assert answer_at(machine, 8932) == "bob"
        assert len(dispatch(machine)) == 4

        before = everything(machine)
        again = traced(machine, "rosterd")
        assert again.result.code == 0, again.result
        assert again.programs == []
        assert everything(machine) == before

        entries = machine.journal("OS_USER=alice", "ROSTERD_ACTION=create_account")
        assert len(entries) == 1
        machine.write(ROSTER, roster({**PEOPLE, "fred": {}}))
        machine.run("systemctl", "start", "rosterd.path")
        machine.write(ROSTER, roster({**PEOPLE, "gina": {}, "fred": {}}))
        machine.sh("until getent passwd gina; do sleep 0.1; done", timeout=10)
