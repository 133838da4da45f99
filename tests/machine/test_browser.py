"""The browser MCP of a person, for real: @playwright/mcp as npx brings it, with Debian's Chromium.

A run of rosterd starts each person's server on their own port. Chromium runs in its own sandbox here too, made of user
namespaces, as on any Debian.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.browser import (
    Calls,
    browser_workstation,
    give_token,
    held_talks,
    offer_storage_state,
    opened,
    talks,
    wait_for_port,
)
from tests.machine.machine import Machine
from tests.machine.workstation import eventually, is_up, look, port_in, reconcile, write_roster

PEOPLE = ("alice", "bob")
STATE = "/home/{}/.cache/playwright/storage-state.json"


@pytest.fixture(scope="module")
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a workstation on which a run has started the browser MCP of alice and of bob."""
    with browser_workstation(deb) as machine:
        write_roster(machine, {name: {} for name in PEOPLE})
        reconcile(machine)
        for name in PEOPLE:
            give_token(machine, name, f"token-of-{name}")
            wait_for_port(machine, port_of(machine, name))
        yield machine


def port_of(machine: Machine, name: str) -> int:
    """Return the port of a person's browser MCP, as its unit gets it."""
    return port_in(machine, f"/etc/t3-serve/playwright-{name}.env", "PLAYWRIGHT_PORT")


def session(machine: Machine, name: str, calls: Calls) -> tuple[int, Calls]:
    """Return what one session with a person's server is to do."""
    return port_of(machine, name), calls


def what_a_page_sees(machine: Machine, name: str) -> str:
    """Return what a page finds in a new session of a person."""
    return talks(machine, {name: session(machine, name, opened("/"))})[name][-1]


def refresh(machine: Machine, name: str, mark: str) -> None:
    """Have a person's storage state renewed by its own unit; `mark` is in it."""
    offer_storage_state(machine, name, f"token-of-{name}", mark)
    machine.run("systemctl", "start", f"playwright-snapshot-refresh@{name}.service")


def processes_of(machine: Machine, unit: str) -> list[tuple[str, str]]:
    """Return the user and the command line of each process of a unit."""
    group = machine.run("systemctl", "show", "--property=ControlGroup", "--value", unit).out.strip()
    script = """
        cat "/sys/fs/cgroup/systemd$1/cgroup.procs" "/sys/fs/cgroup$1/cgroup.procs" 2>/dev/null |
            sort -nu | xargs -r ps --no-headers --format=user:32=,args= --pid
    """
    lines = machine.sh(script, group).out.splitlines()
    return [(user, args) for user, args in (line.split(maxsplit=1) for line in lines)]


def test_sessions_of_two_people_and_of_one_at_once_are_kept_apart(machine: Machine) -> None:
    names = {"alice-first": "alice", "alice-second": "alice", "bob-only": "bob"}
    # All have set their mark when the first one looks.
    calls = {name: [*opened(f"/set/{name}"), *opened("/")] for name in names}
    came = talks(machine, {name: session(machine, person, calls[name]) for name, person in names.items()})
    for name in names:
        seen = came[name][-1]
        assert f"mark={name}" in seen, seen
        assert f'\\"mark\\":\\"{name}\\"' in seen, seen
        assert not [other for other in names if other != name and other in seen], seen


def test_a_browser_runs_as_its_person_and_in_its_own_sandbox(machine: Machine) -> None:
    done = "/run/test-browser-done"
    sessions = {name: session(machine, name, opened("/")) for name in PEOPLE}
    client = held_talks(machine, sessions, done)
    units = {name: f"playwright-mcp@{name}.service" for name in PEOPLE}

    def renderers() -> list[str]:
        return [user for user, args in everybodys_browsers() if "--type=renderer" in args]

    def everybodys_browsers() -> list[tuple[str, str]]:
        return [found for unit in units.values() for found in processes_of(machine, unit) if "chromium" in found[1]]

    eventually(lambda: set(renderers()) == set(PEOPLE), within=20)
    for name, unit in units.items():
        found = processes_of(machine, unit)
        assert {user for user, _ in found} == {name}
        assert [args for _, args in found if "@playwright/mcp@0.0.76" in args and f"--port {sessions[name][0]}" in args]
    unsafe = [args for _, args in everybodys_browsers() if "--no-sandbox" in args]
    assert unsafe == []
    machine.run("touch", done)
    out, err = client.communicate(timeout=20)
    assert client.returncode == 0, (out, err)


def test_a_new_session_starts_from_the_state_that_was_fetched_last(machine: Machine) -> None:
    for turn in ("first", "second"):
        for name in PEOPLE:
            refresh(machine, name, f"{turn}-of-{name}")
            assert look(machine, STATE.format(name)) == f"{name}:{name} 600"
        for name in PEOPLE:
            seen = what_a_page_sees(machine, name)
            assert f"login={turn}-of-{name}" in seen, seen
            assert f'\\"login\\":\\"{turn}-of-{name}\\"' in seen, seen


def test_a_server_starts_and_opens_a_page_where_there_is_no_state_yet(machine: Machine) -> None:
    unit = "playwright-mcp@bob.service"
    machine.run("systemctl", "stop", unit)
    machine.run("rm", "-r", "/home/bob/.cache/playwright")
    machine.run("systemctl", "start", unit)
    wait_for_port(machine, port_of(machine, "bob"))
    assert "cookies: none" in what_a_page_sees(machine, "bob")
    assert is_up(machine, unit)
