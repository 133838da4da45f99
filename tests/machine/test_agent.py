"""The browser MCP in the configuration of people's agents: put there by the agent's own command, nothing else touched.

The agent is the real one. What its file says is asked of it, and read as JSON before and after.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.machine.browser import browser_root
from tests.machine.machine import Command, Machine, Result
from tests.machine.workstation import (
    bytes_of,
    eventually,
    look,
    port_in,
    prepare,
    reconcile,
    stop_own_units,
    write_roster,
)

AGENT = "/usr/local/bin/claude"
FILE = "/home/{}/.claude.json"
STEP = "home step playwright-mcp"
LIMIT = 15.0  # seconds that a run may take, whatever the files are

ALICES = {
    "numStartups": 41,
    "installMethod": "global",
    "autoUpdates": False,
    "theme": "light-daltonized",
    "userID": "6f1ed002ab5595859014ebf0951522d9",
    "hasCompletedOnboarding": True,
    "oauthAccount": {"accountUuid": "3b1c", "emailAddress": "alice@example.org", "organizationName": "Ünïcode ✓"},
    "tipsHistory": {"new-user-warmup": 3, "shift-enter": 12},
    "mcpServers": {
        "notes": {"type": "stdio", "command": "/usr/bin/notes", "args": ["--serve"], "env": {"NOTES": "~/notes"}},
        "tickets": {"type": "http", "url": "https://tickets.example.org/mcp", "headers": {"Authorization": "Bearer x"}},
    },
    "projects": {
        "/home/alice/code/api": {
            "allowedTools": ["Bash(make:*)"],
            "mcpServers": {"playwright": {"type": "http", "url": "http://localhost:1/of-this-project"}},
            "history": [{"display": 'fix the "quoting"\n', "pastedContents": {}}],
            "hasTrustDialogAccepted": True,
            "lastCost": 0.25,
        },
        "/home/alice": {"allowedTools": [], "nested": {"deeper": [1, [2, {"three": None}]]}},
    },
    "futureSetting": {"of": ["a", "newer", "version"]},
}
CAROLS = {"mcpServers": {"playwright": {"type": "http", "url": "http://localhost:9999/mine"}}, "numStartups": 2}
TRUNCATED = json.dumps(ALICES)[:200]

# What is in the place of a file of the agent's: what a warning says of it, by whose it is.
UNREADABLE = {
    "dora": "is cut off or no JSON",
    "eve": "is no regular file",
    "frank": "is a link",
    "gina": "is no config",
}
PEOPLE = ("alice", "bob", "carol", *UNREADABLE, "hugh", "ida", "jane")

# Writes a file anew again and again, cut off in the middle for most of the time, as a slow writer does.
BUSY_WRITER = """\
import json, sys, time
while True:
    with open(sys.argv[1], "w") as file:
        file.write('{"numStartups": 1, ')
        file.flush()
        time.sleep(0.4)
        file.write('"theme": "dark"}')
"""


@dataclass
class Agents:
    """A machine on which runs have been made: without an agent, with one of jane's own, and with one for everybody.

    `alices` is what was in alice's file before the last of them, `before` and `after` are what looks at the unreadable
    files saw around it.
    """

    machine: Machine
    without: Result
    only_janes: Result
    alices: dict[str, Any]
    result: Result
    seconds: float
    before: dict[str, tuple[str, bytes]]
    after: dict[str, tuple[str, bytes]]


@pytest.fixture(scope="module")
def agents(deb: Path) -> Iterator[Agents]:
    """Make accounts, put files in place of the agent's, and make the runs."""
    with Machine(browser_root()) as machine:
        machine.install(deb)
        stop_own_units(machine)
        prepare(machine)
        machine.sh('ln -s "$(readlink -f "$1")" /opt/claude; rm "$1"', AGENT)
        write_roster(machine, {name: {"services": {"t3": False}} for name in PEOPLE})
        without = reconcile(machine)
        write_files(machine)
        machine.sh(
            'install -d -o jane -g jane /home/jane/.local /home/jane/.local/bin; ln -s "$1" "$2"',
            "/opt/claude",
            "/home/jane/.local/bin/claude",
        )
        only_janes = reconcile(machine)
        # The agent brings a file up to date whenever it is used, so she uses it before.
        assert "/usr/bin/notes" in as_agents_user(machine, "alice", "/opt/claude mcp get notes")
        alices = document(machine, "alice")
        machine.run("ln", "-s", "/opt/claude", AGENT)
        writer = start_writer(machine, "ida")
        before = {name: unread(machine, name) for name in UNREADABLE}
        started = time.monotonic()
        result = reconcile(machine)
        seconds = time.monotonic() - started
        after = {name: unread(machine, name) for name in UNREADABLE}
        writer.end()
        machine.run("pkill", "--signal=KILL", "--uid=ida", "python3", check=False)  # runuser's child outlives it
        machine.write(FILE.format("ida"), "{}", mode=0o600, owner="ida")
        yield Agents(machine, without, only_janes, alices, result, seconds, before, after)


def write_files(machine: Machine) -> None:
    """Put in place of the agent's files what people have there."""
    texts = {"alice": json.dumps(ALICES, indent=2), "carol": json.dumps(CAROLS), "dora": TRUNCATED}
    for name, text in {**texts, "gina": "[1, 2]\n", "hugh": "{}"}.items():
        machine.write(FILE.format(name), text, mode=0o600, owner=name)
    machine.run("runuser", "-u", "eve", "--", "mkfifo", FILE.format("eve"))
    machine.write("/home/frank/dotfiles/claude.json", json.dumps(CAROLS), mode=0o600, owner="frank")
    machine.run("runuser", "-u", "frank", "--", "ln", "-s", "dotfiles/claude.json", FILE.format("frank"))


def start_writer(machine: Machine, name: str) -> Command:
    """Start what writes a person's file all the time."""
    writer = machine.start("runuser", "-u", name, "--", "python3", "-c", BUSY_WRITER, FILE.format(name))
    eventually(lambda: machine.exists(FILE.format(name)), within=5)
    return writer


def unread(machine: Machine, name: str) -> tuple[str, bytes]:
    """Return inode, type, mode, owner, size and time of a file, and its bytes if it has some."""
    path = FILE.format(name)
    seen = machine.run("stat", "--format=%i %F %a %U %s %y", path).out
    return seen, bytes_of(machine, path) if name != "eve" else b""


def document(machine: Machine, name: str) -> dict[str, Any]:
    """Return what a person's file holds."""
    found: dict[str, Any] = json.loads(machine.read(FILE.format(name)))
    return found


def url_for(machine: Machine, name: str) -> str:
    """Return the address of a person's browser MCP."""
    port = port_in(machine, f"/etc/t3-serve/playwright-{name}.env", "PLAYWRIGHT_PORT")
    return f"http://localhost:{port}/mcp"


def as_agents_user(machine: Machine, name: str, command: str) -> str:
    """Run a command of the agent's as a person; return what it says."""
    run_as = ("runuser", "-u", name, "--", "/bin/sh", "-euc", f"cd; exec {command}")
    return machine.run(*run_as, env={"HOME": f"/home/{name}"}, check=False).out


def starts(machine: Machine) -> int:
    """Return how many times something was run in homes, as the journal has it."""
    entries = machine.journal("--unit=rosterd-home@*.service")
    return sum(entry["MESSAGE"].startswith("Starting ") for entry in entries)


def test_the_agent_knows_the_persons_own_browser(agents: Agents) -> None:
    for name in ("alice", "bob"):
        said = as_agents_user(agents.machine, name, "claude mcp get playwright")
        assert "User config" in said, said
        assert re.search(rf"URL: {re.escape(url_for(agents.machine, name))}$", said, re.MULTILINE), said


def test_what_a_person_had_in_the_file_is_still_there(agents: Agents) -> None:
    entry = {"type": "http", "url": url_for(agents.machine, "alice")}
    servers = agents.alices["mcpServers"]
    assert servers.keys() == {"notes", "tickets"}
    assert document(agents.machine, "alice") == {**agents.alices, "mcpServers": {**servers, "playwright": entry}}
    assert look(agents.machine, FILE.format("alice")) == "alice:alice 600"


def test_without_a_file_the_agent_makes_its_own(agents: Agents) -> None:
    for name in ("bob", "hugh"):
        assert document(agents.machine, name)["mcpServers"]["playwright"]["url"] == url_for(agents.machine, name)
    assert look(agents.machine, FILE.format("bob")).startswith("bob:bob ")
    assert agents.machine.run("find", "/home/bob", "!", "-user", "bob").out == ""


def test_an_entry_of_a_persons_own_is_left_alone(agents: Agents) -> None:
    assert document(agents.machine, "carol") == CAROLS
    assert f"carol: {STEP}" in agents.result.err
    assert "entry of their own; left alone" in agents.result.err


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_no_configuration_is_left_and_told_of(agents: Agents, name: str) -> None:
    assert agents.after[name] == agents.before[name]
    told = [line for line in agents.result.err.splitlines() if re.search(rf" {name}: (.* )?{STEP}", line)]
    assert any(re.search(rf"warning .*~/\.claude\.json {UNREADABLE[name]}", line) for line in told), told


def test_a_file_that_is_being_written_all_the_time_is_left_and_told_of(agents: Agents) -> None:
    # While it changes, each look of the run finds it in another state: it is told of as a step that was left out.
    told = [line for line in agents.result.err.splitlines() if "ida: " in line and STEP in line]
    assert any("warning" in line and "~/.claude.json is cut off" in line for line in told), agents.result.err


def test_no_file_holds_the_run_up(agents: Agents) -> None:
    assert agents.seconds < LIMIT, agents.seconds


def test_without_an_agent_the_step_is_left_out(agents: Agents) -> None:
    assert STEP not in agents.without.out + agents.without.err


def test_an_agent_of_a_persons_own_is_enough(agents: Agents) -> None:
    told = re.findall(rf"(\w+): {STEP}", agents.only_janes.err)
    assert set(told) == {"jane"}
    assert document(agents.machine, "jane")["mcpServers"]["playwright"]["url"] == url_for(agents.machine, "jane")


def test_a_run_after_that_starts_nothing(agents: Agents) -> None:
    # ida's file has changed since, and takes its entry now.
    reconcile(agents.machine)
    before = starts(agents.machine)
    files = {name: document(agents.machine, name) for name in ("alice", "bob", "carol")}
    again = reconcile(agents.machine)
    assert starts(agents.machine) == before > 0, again
    assert {name: document(agents.machine, name) for name in files} == files
