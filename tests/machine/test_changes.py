"""The roster changes: people come, are parked, leave and return."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.machine import Machine
from tests.machine.workstation import (
    MAPS,
    account_lines,
    answer_at,
    dispatch,
    everything,
    groups_of,
    is_enabled,
    is_up,
    main_pid,
    map_lines,
    reconcile,
    traced,
    workstation,
    write_roster,
)

KINDS = ("t3-serve@{}.service", "playwright-mcp@{}.service", "playwright-snapshot-refresh@{}.timer")


@pytest.fixture
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a workstation that has had no run yet."""
    with workstation(deb) as machine:
        yield machine


def units_of(name: str) -> list[str]:
    """Return the names of a person's units."""
    return [kind.format(name) for kind in KINDS]


def run_with(machine: Machine, users: dict[str, dict[str, Any]], *arguments: str, code: int = 0) -> str:
    """Put a roster in place, make a run, and return its log."""
    write_roster(machine, users)
    return reconcile(machine, *arguments, code=code).err


def is_whole(machine: Machine, name: str, port: int) -> bool:
    """Say whether everything of a person runs, is enabled and is mapped."""
    units = units_of(name)
    return (
        all(is_up(machine, unit) and is_enabled(machine, unit) for unit in units)
        and answer_at(machine, port) == name
        and dispatch(machine).get(f"{name}.id") == {"os_user": name, "port": port}
        and f"{name}.id={name}" in map_lines(machine)
    )


def is_halted(machine: Machine, name: str) -> bool:
    """Say whether nothing of a person runs or would run after a boot, nor is routed to."""
    units = units_of(name)
    return (
        not any(is_up(machine, unit) or is_enabled(machine, unit) for unit in units)
        and machine.run("pgrep", "--uid", name, check=False).code == 1
        and f"{name}.id" not in dispatch(machine)
    )


def test_a_new_person_comes_while_the_others_services_run_on(machine: Machine) -> None:
    run_with(machine, {"bob": {}, "carol": {}})
    pids = {unit: main_pid(machine, unit) for unit in (*units_of("bob")[:2], *units_of("carol")[:2])}
    before = {name: account_lines(machine, name) for name in ("bob", "carol")}

    run_with(machine, {"bob": {}, "carol": {}, "alice": {}})

    assert is_whole(machine, "alice", 3775)
    assert {unit: main_pid(machine, unit) for unit in pids} == pids
    assert 0 not in pids.values()
    for name, lines in before.items():
        mine = account_lines(machine, name)
        assert [line for line in mine.splitlines() if "rosterd:" not in line] == [
            line for line in lines.splitlines() if "rosterd:" not in line
        ]


@pytest.mark.parametrize(
    "change", [{"parked": True}, {"services": {"t3": False, "playwright": False}}], ids=["parked", "switched-off"]
)
def test_who_is_parked_or_switched_off_keeps_all_but_what_runs_and_gets_it_back(
    machine: Machine, change: dict[str, Any]
) -> None:
    run_with(machine, {"alice": {}, "bob": {}})
    assert is_whole(machine, "alice", 3773)
    alice, bob = account_lines(machine, "alice"), main_pid(machine, "t3-serve@bob.service")
    maps = [machine.read(path) for path in MAPS]

    write_roster(machine, {"alice": change, "bob": {}})
    planned = machine.run("rosterd", "--dry-run").out
    assert is_whole(machine, "alice", 3773)
    reconcile(machine)
    why = "parked" if "parked" in change else "switched off"
    tell_alike(
        machine, planned, [f"{unit}: enabled, running → disabled, stopped ({why})" for unit in units_of("alice")]
    )
    assert is_halted(machine, "alice")
    assert "alice.id=alice" in map_lines(machine)
    assert machine.read("/etc/t3-serve/alice.env") == "T3_PORT=3773\n"
    assert machine.read("/etc/t3-serve/playwright-alice.env") == "PLAYWRIGHT_PORT=8931\n"
    assert account_lines(machine, "alice") == alice
    assert machine.exists("/home/alice/.bashrc")
    assert main_pid(machine, "t3-serve@bob.service") == bob
    halted = everything(machine)
    reconcile(machine)
    assert everything(machine) == halted

    write_roster(machine, {"alice": {}, "bob": {}})
    planned = machine.run("rosterd", "--dry-run").out
    assert is_halted(machine, "alice")
    reconcile(machine)
    tell_alike(machine, planned, [f"{unit}: disabled, stopped → enabled, running" for unit in units_of("alice")])
    assert is_whole(machine, "alice", 3773)
    assert answer_at(machine, 8931) == "alice"
    assert [machine.read(path) for path in MAPS] == maps


def tell_alike(machine: Machine, planned: str, lines: list[str]) -> None:
    """See that these changes of alice's stood in the plan, and stand in the journal under her name."""
    told = machine.run("journalctl", "OS_USER=alice", "--output=cat").out.splitlines()
    for line in lines:
        assert re.search(rf"^  [-+~] {re.escape(line)}$", planned, re.MULTILINE), f"{line}\n{planned}"
        assert f"alice: {line}" in told


@pytest.mark.parametrize("change", [{"parked": True}, {"services": {"t3": False}}], ids=["parked", "switched-off"])
def test_who_is_parked_or_switched_off_leaves_no_failed_unit_behind(machine: Machine, change: dict[str, Any]) -> None:
    run_with(machine, {"alice": {}, "bob": {}})
    dropin = "/etc/systemd/system/t3-serve@alice.service.d/broken.conf"
    machine.write(dropin, "[Service]\nExecStart=\nExecStart=/usr/bin/false\nRestart=no\n")
    machine.sh("systemctl daemon-reload; systemctl restart t3-serve@alice.service || :")
    assert machine.run("systemctl", "is-failed", "t3-serve@alice.service").out == "failed\n"

    write_roster(machine, {"alice": change, "bob": {}})
    assert "t3-serve@alice.service: enabled, failed → disabled, stopped" in machine.run("rosterd", "--dry-run").out
    reconcile(machine)
    assert "t3-serve@alice.service" not in machine.run("systemctl", "--failed", "--no-legend", "--plain").out
    assert machine.read("/etc/t3-serve/alice.env") == "T3_PORT=3773\n"

    machine.sh('rm "$1"; systemctl daemon-reload', dropin)
    run_with(machine, {"alice": {}, "bob": {}})
    assert is_whole(machine, "alice", 3773)


def test_one_service_switched_off_leaves_the_other_running(machine: Machine) -> None:
    run_with(machine, {"alice": {}})
    t3 = main_pid(machine, "t3-serve@alice.service")
    run_with(machine, {"alice": {"services": {"playwright": False}}})
    assert main_pid(machine, "t3-serve@alice.service") == t3 != 0
    assert not any(is_up(machine, unit) or is_enabled(machine, unit) for unit in units_of("alice")[1:])
    assert "alice.id" in dispatch(machine)
    run_with(machine, {"alice": {"services": {"t3": False}}})
    assert not is_up(machine, "t3-serve@alice.service")
    assert all(is_up(machine, unit) for unit in units_of("alice")[1:])
    assert dispatch(machine) == {}


def test_who_leaves_is_cut_off_and_gets_all_of_it_back(machine: Machine) -> None:
    run_with(machine, {"alice": {"tier": "admin"}, "bob": {}})
    bob = account_lines(machine, "bob")
    machine.write("/home/bob/work", "in progress", owner="bob")

    run_with(machine, {"alice": {"tier": "admin"}, "carol": {}})
    assert is_halted(machine, "bob")
    assert "bob" not in "".join(machine.read(path) for path in MAPS)
    assert groups_of(machine, "bob") == {"bob", "rosterd"}
    assert machine.read("/home/bob/work") == "in progress"
    assert machine.read("/etc/t3-serve/bob.env") == "T3_PORT=3774\n"
    assert is_whole(machine, "alice", 3773)
    assert is_whole(machine, "carol", 3775)
    cut = everything(machine)
    reconcile(machine)
    assert everything(machine) == cut

    # Whoever comes meanwhile gets neither the uid nor the port, although nobody listens there now.
    run_with(machine, {"alice": {"tier": "admin"}, "carol": {}, "dora": {}})
    assert is_whole(machine, "dora", 3776)
    assert "dora:x:1003:" in account_lines(machine, "dora")

    run_with(machine, {"alice": {"tier": "admin"}, "bob": {}, "dora": {}})
    assert is_halted(machine, "carol")
    assert is_whole(machine, "bob", 3774)
    assert without_members(account_lines(machine, "bob")) == without_members(bob)
    assert answer_at(machine, 8932) == "bob"
    assert map_lines(machine) == ["alice.id=alice", "bob.id=bob", "dora.id=dora"]
    assert map_lines(machine, "/etc/ttyd-admins") == ["alice"]


def without_members(lines: str) -> list[str]:
    """Return the lines of account files without those of the group that everybody is in."""
    return [line for line in lines.splitlines() if "rosterd:" not in line]


def test_a_roster_with_nobody_in_it_cuts_nobody_off(machine: Machine) -> None:
    run_with(machine, {"alice": {}})
    before = everything(machine)
    log = run_with(machine, {}, code=4)
    assert "alice" in log
    assert "--allow-cuts 1" in log
    after = everything(machine)
    assert _without(after, "/etc/rosterd") == _without(before, "/etc/rosterd")


def test_many_who_leave_at_once_are_held_until_somebody_lets_them_through(machine: Machine) -> None:
    run_with(machine, {"alice": {}, "bob": {}, "carol": {}})
    two_left: dict[str, dict[str, Any]] = {"alice": {}, "dora": {}}

    log = run_with(machine, two_left, code=4)
    assert "--allow-cuts 2" in log
    assert is_whole(machine, "dora", 3776)
    for name, port in (("alice", 3773), ("bob", 3774), ("carol", 3775)):
        assert is_whole(machine, name, port)

    run_with(machine, two_left, "--allow-cuts", "1", code=4)
    assert is_whole(machine, "bob", 3774)
    assert is_whole(machine, "carol", 3775)

    run_with(machine, two_left, "--allow-cuts", "2")
    assert is_halted(machine, "bob")
    assert is_halted(machine, "carol")
    assert map_lines(machine) == ["alice.id=alice", "dora.id=dora"]
    assert sorted(dispatch(machine)) == ["alice.id", "dora.id"]
    reconcile(machine)


def test_what_was_lost_on_an_account_is_mended_without_looking_into_the_home(machine: Machine) -> None:
    run_with(machine, {"alice": {"tier": "admin"}, "bob": {}})
    alice = account_lines(machine, "alice")
    machine.sh("""
        gpasswd --delete alice docker
        rm /etc/t3-serve/dispatch.json /etc/t3-serve/alice.env
        sed -i '/^bob:/d' /etc/shadow /etc/subuid
        systemctl stop t3-serve@bob.service; systemctl disable playwright-mcp@bob.service
    """)

    trace = traced(machine, "rosterd")

    assert trace.result.code == 0, trace.result
    assert trace.programs != []
    assert [call for call in trace.calls if re.search(r'["<]/home[/">]', call)] == []
    assert account_lines(machine, "alice") == alice
    assert is_whole(machine, "alice", 3773)
    assert is_whole(machine, "bob", 3774)
    assert machine.run("passwd", "--status", "bob").out.split()[1] == "L"
    assert "bob:" in machine.read("/etc/subuid")
    assert machine.run("find", "/home", "-mindepth", "1", "-user", "root").out == ""


def _without(listing: str, path: str) -> list[str]:
    return [line for line in listing.splitlines() if not line.startswith(path)]
