"""A workstation whose people have real browsers: Debian's Chromium, and the browser MCP as its unit starts it."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.machine.machine import Command, Machine
from tests.machine.rootfs import BROWSER, RootfsError, rootfs
from tests.machine.web_server import FOLDER, PORT
from tests.machine.workstation import QUICK, SITE, STAND_IN, stop_own_units

WEB = f"http://127.0.0.1:{PORT}"
CHROMIUM = ("python3", "-I", "/src/tests/machine/chromium.py")
CLIENT = ("python3", "-I", "/src/tests/machine/mcp_client.py")

# The site fetches storage states, and its people's browser is Debian's.
SNAPSHOT_SITE = f'{QUICK}playwright: {{snapshot_url: "{WEB}/snapshot/{{user}}"}}\n'
DROP_IN = "[Service]\nEnvironment=PLAYWRIGHT_MCP_EXECUTABLE_PATH=/usr/bin/chromium\n"

# What a session is asked to do: the tools' names and arguments.
Calls = list[tuple[str, dict[str, Any]]]


def browser_root() -> Path:
    """Return the root file system with the browser's parts; skip the test where they cannot be had, but not in CI."""
    try:
        return rootfs(BROWSER)
    except RootfsError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no {BROWSER}: {error}")


@contextmanager
def browser_workstation(deb: Path) -> Iterator[Machine]:
    """Boot a machine with the package, real browsers and a web server; runs come only when asked for."""
    with Machine(browser_root()) as machine:
        machine.install(deb)
        stop_own_units(machine)
        machine.sh("groupadd --system docker; groupadd --system code-shared")
        machine.write("/usr/bin/t3", STAND_IN, mode=0o755)
        machine.write(SITE, SNAPSHOT_SITE)
        machine.write("/etc/systemd/system/playwright-mcp@.service.d/browser.conf", DROP_IN)
        machine.run("systemctl", "daemon-reload")
        start_web_server(machine)
        yield machine


def start_web_server(machine: Machine) -> None:
    """Start tests.machine.web_server in a machine, and wait for it."""
    machine.start("python3", "-I", "/src/tests/machine/web_server.py")
    wait_for_port(machine, PORT)


def wait_for_port(machine: Machine, port: int) -> None:
    """Wait until a server on the loopback answers, with whatever."""
    script = 'until curl --silent --output /dev/null "http://localhost:$1/"; do sleep 0.05; done'
    machine.sh(script, str(port), timeout=30)


def talks(machine: Machine, sessions: Mapping[str, tuple[int, Calls]]) -> dict[str, list[str]]:
    """Hold sessions, each a port and calls, all at once; return the texts that each one got."""
    out = machine.run(*CLIENT, _plan(sessions)).out
    return {name: came["texts"] for name, came in json.loads(out).items()}


def held_talks(machine: Machine, sessions: Mapping[str, tuple[int, Calls]], until: str) -> Command:
    """Start to do so; when the calls are made, the sessions stay open until there is a file `until`."""
    return machine.start(*CLIENT, "--until", until, _plan(sessions))


def seen_by_chromium(machine: Machine, name: str, url: str, views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Have a person look at a page; returns what tests.machine.chromium tells of each view."""
    out = machine.run("runuser", "-u", name, "--", *CHROMIUM, url, json.dumps(views)).out
    seen: list[dict[str, Any]] = json.loads(out)
    return seen


def opened(path: str) -> Calls:
    """Return the calls that open a page of the web server and read what it says."""
    text = {"function": "() => document.body.innerText"}
    return [("browser_navigate", {"url": f"{WEB}{path}"}), ("browser_evaluate", text)]


def offer_storage_state(machine: Machine, name: str, token: str, mark: str) -> str:
    """Have the web server hand out a storage state for who has the token; `mark` is in both of its parts.

    Returns the file's text.
    """
    cookie = {"name": "login", "value": mark, "domain": "127.0.0.1", "path": "/", "expires": -1}
    flags = {"httpOnly": False, "secure": False, "sameSite": "Lax"}
    origin = {"origin": WEB, "localStorage": [{"name": "login", "value": mark}]}
    state = json.dumps({"cookies": [{**cookie, **flags}], "origins": [origin]})
    machine.write(f"{FOLDER}/{name}.token", f"{token}\n")
    machine.write(f"{FOLDER}/{name}.json", state)
    return state


def give_token(machine: Machine, name: str, token: str) -> None:
    """Put a token where a person has it."""
    script = "umask 077; mkdir -p ~/.config/playwright; cat >~/.config/playwright/token"
    machine.run("runuser", "-u", name, "--", "/bin/sh", "-euc", f"HOME=/home/{name}; {script}", input=f"{token}\n")


def _plan(sessions: Mapping[str, tuple[int, Calls]]) -> str:
    return json.dumps({name: {"port": port, "calls": calls} for name, (port, calls) in sessions.items()})
