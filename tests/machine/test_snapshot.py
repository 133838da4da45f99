"""The unit that renews a person's storage state, on a real machine: what it leaves, what it says, what nobody sees."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.browser import SNAPSHOT_SITE, give_token, offer_storage_state, start_web_server
from tests.machine.machine import Machine
from tests.machine.rootfs import rootfs
from tests.machine.web_server import FOLDER
from tests.machine.workstation import SITE, bytes_of, eventually, look, stop_own_units

TOKEN = "t0ken-0f-alice-7c1e"  # noqa: S105 (nobody's)
UNIT = "playwright-snapshot-refresh@alice.service"
TIMER = "playwright-snapshot-refresh@alice.timer"
STATE = "/home/alice/.cache/playwright/storage-state.json"
HOLD = f"{FOLDER}/hold"

# An hourly timer, made to fire at once. (The machine's clock is the host's, so it cannot be set.)
SOON = "[Timer]\nOnCalendar=\nOnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=10ms\n"


@pytest.fixture(scope="module")
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a machine with the package, alice, and a server that has a storage state for her."""
    with Machine(rootfs("bookworm")) as machine:
        machine.install(deb)
        stop_own_units(machine)
        machine.run("useradd", "--create-home", "--key", "HOME_MODE=0700", "alice")
        machine.write("/etc/t3-serve/playwright-alice.env", "PLAYWRIGHT_PORT=8931\n", mode=0o600)
        start_web_server(machine)
        yield machine


@pytest.fixture(autouse=True)
def _as_it_begins(machine: Machine) -> None:
    """Let every test begin with a site that has an address, a person that has a token, and no state."""
    machine.write(SITE, SNAPSHOT_SITE)
    give_token(machine, "alice", TOKEN)
    machine.sh('rm -rf /home/alice/.cache "$1"; systemctl reset-failed', HOLD)


def refresh(machine: Machine) -> tuple[bool, str]:
    """Start the unit; return whether it went well and the one line that the program said."""
    said_before = len(machine.journal(f"_SYSTEMD_UNIT={UNIT}"))
    code = machine.run("systemctl", "start", UNIT, check=False).code
    (line,) = [entry["MESSAGE"] for entry in machine.journal(f"_SYSTEMD_UNIT={UNIT}")[said_before:]]
    return code == 0, line


def who_shows(machine: Machine, path: str) -> set[str]:
    """Return where in /proc some process shows the word that is in a file: cmdline, environ, or none of them."""
    grep = "grep --files-with-matches --text --no-messages --fixed-strings --file"
    found = machine.sh(f'{grep} "$1" /proc/[0-9]*/cmdline /proc/[0-9]*/environ || true', path).out.split()
    return {path.rpartition("/")[2] for path in found}


def test_a_state_is_the_persons_alone(machine: Machine) -> None:
    state = offer_storage_state(machine, "alice", TOKEN, "one")
    for _ in range(2):
        assert refresh(machine) == (True, "storage state renewed: 1 cookie, 1 origin")
        assert look(machine, STATE) == "alice:alice 600"
        assert bytes_of(machine, STATE) == state.encode()
    folder = STATE.rpartition("/")[0]
    assert look(machine, folder) == "alice:alice 700"
    assert machine.run("ls", "-A", folder).out == "storage-state.json\n"


def test_a_site_without_an_address_is_no_failure(machine: Machine) -> None:
    machine.write(SITE, "settle: 1\n")
    assert refresh(machine) == (True, "no storage state to fetch: the site names no snapshot_url")
    machine.run("rm", SITE)
    assert refresh(machine) == (True, "no storage state to fetch: the site names no snapshot_url")
    assert not machine.exists("/home/alice/.cache")


def test_the_old_state_stays_where_the_token_is_not_the_right_one(machine: Machine) -> None:
    offer_storage_state(machine, "alice", TOKEN, "one")
    refresh(machine)
    before = machine.run("stat", "--format=%i %Y %Z %s", STATE).out, bytes_of(machine, STATE)
    offer_storage_state(machine, "alice", "another-token", "two")
    went_well, line = refresh(machine)
    date = machine.run("date", "--reference", STATE, "+%Y-%m-%d %H:%M").out.strip()
    assert not went_well
    assert line == f"storage state not renewed, the old one of {date} stays: HTTP 401 (Unauthorized)"
    assert (machine.run("stat", "--format=%i %Y %Z %s", STATE).out, bytes_of(machine, STATE)) == before


def test_a_person_without_a_token_is_told_so(machine: Machine) -> None:
    machine.run("rm", "/home/alice/.config/playwright/token")
    expected = "storage state not renewed, and there is none: there is no token in /home/alice/.config/playwright/token"
    assert refresh(machine) == (False, expected)


def test_a_full_disk_leaves_the_old_state(machine: Machine) -> None:
    offer_storage_state(machine, "alice", TOKEN, "one")
    refresh(machine)
    before = bytes_of(machine, STATE)
    # A file system of one page, in which the old state lies and a second one has no room.
    folder = STATE.rpartition("/")[0]
    machine.sh(
        """
        mv "$1" "$1.kept"; install -d -o alice -g alice -m 700 "$1"
        mount -t tmpfs -o size=4k,uid=alice,gid=alice,mode=700 tmpfs "$1"
        cp -a "$1.kept/storage-state.json" "$1/"
        """,
        folder,
    )
    try:
        offer_storage_state(machine, "alice", TOKEN, "two")
        went_well, line = refresh(machine)
        assert not went_well
        assert line.endswith(f"stays: {STATE} cannot be written: No space left on device")
        assert bytes_of(machine, STATE) == before
        assert machine.run("ls", "-A", folder).out == "storage-state.json\n"
    finally:
        machine.run("umount", folder)


def test_nobody_sees_the_token(machine: Machine) -> None:
    machine.write("/root/word", TOKEN, mode=0o600)
    offer_storage_state(machine, "alice", TOKEN, "one")
    machine.run("touch", HOLD)
    machine.run("systemctl", "start", "--no-block", UNIT)
    connected = ("ss", "--no-header", "--tcp", "state", "established", "dst", "127.0.0.1:8000")
    eventually(lambda: bool(machine.run(*connected).out.strip()), within=10)
    # Meanwhile the program waits for its answer.
    assert who_shows(machine, "/root/word") == set()
    shows_it = machine.start("sh", "-c", "sleep 100; :", TOKEN, env={"WORD": TOKEN})
    eventually(lambda: who_shows(machine, "/root/word") == {"cmdline", "environ"}, within=5)
    shows_it.end()

    machine.run("rm", HOLD)
    eventually(lambda: machine.exists(STATE), within=10)
    offer_storage_state(machine, "alice", "another-token", "two")
    assert not refresh(machine)[0]
    whole_journal = json.dumps(machine.journal())
    assert "storage state renewed" in whole_journal
    assert TOKEN not in whole_journal


def test_the_timer_starts_it(machine: Machine) -> None:
    offer_storage_state(machine, "alice", TOKEN, "one")
    machine.write(f"/etc/systemd/system/{TIMER}.d/soon.conf", SOON)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", TIMER)
    eventually(lambda: machine.exists(STATE), within=10)
    machine.run("systemctl", "stop", TIMER)


def test_the_unit_is_exposed_to_1_5_at_most(machine: Machine) -> None:
    told = machine.run("systemd-analyze", "security", "--no-pager", UNIT).out
    found = re.search(rf"Overall exposure level for {UNIT}: ([0-9.]+)", told)
    assert found
    assert float(found[1]) <= 1.5
