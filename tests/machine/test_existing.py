"""A machine with a past: env files, accounts, units and listeners that were there before rosterd."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.machine.machine import Machine, Result
from tests.machine.workstation import (
    MAPS,
    account_lines,
    answer_at,
    bytes_of,
    dispatch,
    entry_of,
    everything,
    groups_of,
    is_enabled,
    is_up,
    look,
    main_pid,
    map_lines,
    owner_of,
    port_in,
    reconcile,
    workstation,
    write_roster,
)

PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {"tier": "admin"},
    "bella": {},
    "bob": {},
    "ada": {"adopt": True, "tier": "admin"},
    "leo": {"adopt": True},
    "mia": {},
    "pia": {},
    "tim": {},
    "tom": {},
    "una": {"tier": "admin"},
}

# What people's env files hold before. The port in alice's is part of another value; of bob's two, the last counts.
ALICE_ENV = """\
# Tokens of alice; do not commit.
export_me=no
API_TOKEN="tok-3.14$%\\"x"
DEPLOY_KEY="-----BEGIN KEY-----
T3_PORT=9999
bm90IGEga2V5
-----END KEY-----"
  LAST = 'no newline after this'"""
BELLA_ENV = "# caf\udce9, not UTF-8\r\nTOKEN=a\\\n  b\n"
BOB_ENV = "T3_PORT=4001\nTOKEN=x\nT3_PORT='4100'\n"

PASSWORD = "$6$saltsalt$notreallyahash"  # noqa: S105 - nobody's


@dataclass(frozen=True)
class Past:
    """A machine after the one run over its past; `lines` is what the account files said before."""

    machine: Machine
    run: Result
    lines: dict[str, str]
    pids: dict[str, int] = field(default_factory=dict)

    def told_of(self, name: str, level: str) -> str:
        """Return the one line of the run's log about somebody that has this level."""
        lines = [line for line in self.run.err.splitlines() if f" {level} " in line and f" {name}: " in line]
        assert len(lines) == 1, self.run
        return lines[0]


@pytest.fixture(scope="module")
def past(deb: Path) -> Iterator[Past]:
    """Make the past and one run over it; whoever uses it leaves the machine as it is."""
    with workstation(deb) as machine:
        for name, text in (("alice", ALICE_ENV), ("bella", BELLA_ENV), ("bob", BOB_ENV)):
            machine.write(f"/etc/t3-serve/{name}.env", text, mode=0o640)
        machine.sh("useradd --create-home --uid 1500 --shell /bin/sh --groups video,cdrom ada; chmod 755 /home/ada")
        machine.run("usermod", "--password", PASSWORD, "ada")
        machine.run("useradd", "--create-home", "--uid", "1501", "leo")
        machine.run("useradd", "--create-home", "--uid", "1502", "--groups", "audio", "una")
        machine.run("useradd", "--create-home", "--uid", "1503", "zoe")
        lines = {name: account_lines(machine, name) for name in ("ada", "una", "zoe")}

        machine.run("systemctl", "mask", "t3-serve@mia.service")
        pids = {"zoe": _start_a_stranger(machine, 4300), "leo": _start_a_legacy_unit(machine, 4400)}
        _start_a_stranger(machine, 3773)
        ports = {"pia": 4300, "leo": 4400, "tim": 4500, "tom": 4500}
        for name, port in ports.items():
            machine.write(f"/etc/t3-serve/{name}.env", f"T3_PORT={port}\n", mode=0o600)

        write_roster(machine, PEOPLE)
        yield Past(machine, reconcile(machine, code=3), lines, pids)


@pytest.fixture
def machine(past: Past) -> Machine:
    """Return the machine after the run, which a test only looks at."""
    return past.machine


def _start_a_stranger(machine: Machine, port: int) -> int:
    """Let zoe listen on a port, in a unit of the system; return the pid."""
    unit = f"stranger-{port}.service"
    start = ("systemd-run", "--quiet", f"--unit={unit}", "--uid=zoe", "/usr/bin/t3", "--port", str(port))
    machine.run(*start)
    assert answer_at(machine, port) == "zoe"
    return main_pid(machine, unit)


def _start_a_legacy_unit(machine: Machine, port: int) -> int:
    """Let leo's own lingering systemd run the server, as before there was rosterd; return the pid."""
    folder = "/home/leo/.config/systemd/user"
    unit = f"[Service]\nExecStart=/usr/bin/t3 --port {port}\n"
    machine.write(f"{folder}/t3-legacy.service", unit)
    machine.sh(f"mkdir {folder}/default.target.wants; ln -s ../t3-legacy.service {folder}/default.target.wants/")
    machine.sh("chown -R leo: /home/leo; loginctl enable-linger leo")
    assert answer_at(machine, port) == "leo"
    return int(machine.run("pgrep", "--uid", "leo", "--full", "/usr/bin/t3").out)


# --- env files ---


@pytest.mark.parametrize(("name", "before"), [("alice", ALICE_ENV + "\n"), ("bella", BELLA_ENV)])
def test_an_env_file_without_a_port_gets_one_line_and_keeps_every_byte(
    machine: Machine, name: str, before: str
) -> None:
    path = f"/etc/t3-serve/{name}.env"
    old, new = before.encode(errors="surrogateescape"), bytes_of(machine, path)
    assert new.startswith(old)
    assert re.fullmatch(rb"T3_PORT=[0-9]+\n", new.removeprefix(old))
    assert look(machine, path) == "root:root 600"


def test_systemd_reads_the_secrets_and_the_port_of_such_a_file(machine: Machine) -> None:
    pid = main_pid(machine, "t3-serve@alice.service")
    words = machine.read(f"/proc/{pid}/environ").split("\0")
    assert 'API_TOKEN=tok-3.14$%"x' in words
    assert "DEPLOY_KEY=-----BEGIN KEY-----\nT3_PORT=9999\nbm90IGEga2V5\n-----END KEY-----" in words
    assert "LAST=no newline after this" in words
    assert answer_at(machine, port_in(machine, "/etc/t3-serve/alice.env")) == "alice"


def test_a_port_that_an_env_file_has_is_kept_and_the_file_with_it(machine: Machine) -> None:
    assert machine.read("/etc/t3-serve/bob.env") == BOB_ENV
    assert answer_at(machine, 4100) == "bob"
    assert dispatch(machine)["bob.id"] == {"os_user": "bob", "port": 4100}


def test_a_port_on_which_somebody_listens_is_given_to_nobody(machine: Machine) -> None:
    given = [port_in(machine, f"/etc/t3-serve/{name}.env") for name in ("ada", "alice", "bella", "mia")]
    assert given == [3774, 3775, 3776, 3777]


# --- accounts ---


def test_an_adopted_account_keeps_what_it_has_and_gets_what_it_lacks(past: Past) -> None:
    machine = past.machine
    assert entry_of(machine, "passwd", "ada") == ["ada", "x", "1500", "1500", "", "/home/ada", "/bin/sh"]
    assert entry_of(machine, "shadow", "ada")[1] == PASSWORD
    assert groups_of(machine, "ada") == {
        *("ada", "video", "cdrom"),
        *("rosterd", "sudo", "docker", "code-shared"),
    }
    assert look(machine, "/home/ada") == "ada:ada 755"
    for file in ("/etc/passwd", "/etc/shadow", "/etc/subuid", "/etc/subgid"):
        before = [line for line in past.lines["ada"].splitlines() if line.startswith(f"{file}:")]
        assert [line for line in account_lines(machine, "ada").splitlines() if line.startswith(f"{file}:")] == before
    assert owner_of(machine, main_pid(machine, "t3-serve@ada.service")) == "ada"


def test_an_account_that_nobody_said_to_adopt_is_refused_by_name(past: Past) -> None:
    told = past.told_of("una", "error")
    assert "1502" in told
    assert "adopt" in told


def test_a_refused_person_gets_no_port_no_service_and_no_line_in_a_map(machine: Machine) -> None:
    for path in ("/etc/t3-serve/una.env", "/etc/t3-serve/playwright-una.env"):
        assert not machine.exists(path)
    for unit in ("t3-serve@una.service", "playwright-mcp@una.service"):
        assert not is_up(machine, unit)
        assert not is_enabled(machine, unit)
    for path in MAPS:
        assert "una" not in machine.read(path)


@pytest.mark.parametrize("name", ["una", "zoe"])
def test_the_account_lines_of_who_is_not_managed_stay_byte_for_byte(past: Past, name: str) -> None:
    assert account_lines(past.machine, name) == past.lines[name]


def test_the_others_are_done_all_the_same(machine: Machine) -> None:
    for name in ("ada", "alice", "bella", "bob"):
        assert owner_of(machine, main_pid(machine, f"t3-serve@{name}.service")) == name
        assert owner_of(machine, main_pid(machine, f"playwright-mcp@{name}.service")) == name
    assert "alice.id=alice" in map_lines(machine)
    assert sorted(dispatch(machine)) == ["ada.id", "alice.id", "bella.id", "bob.id", "leo.id", "mia.id"]


# --- units and ports ---


def test_a_masked_instance_is_left_alone_with_a_warning(past: Past) -> None:
    assert "t3-serve@mia.service is masked" in past.told_of("mia", "warning")
    state = past.machine.run("systemctl", "is-enabled", "t3-serve@mia.service", check=False).out.strip()
    assert state == "masked"
    assert not is_up(past.machine, "t3-serve@mia.service")
    assert is_up(past.machine, "playwright-mcp@mia.service")


def test_a_stranger_on_a_persons_port_is_named_with_pid_user_and_unit(past: Past) -> None:
    told = past.told_of("pia", "error")
    for part in ("4300", f"pid {past.pids['zoe']}", "user zoe", "stranger-4300.service"):
        assert part in told


def test_an_own_legacy_unit_on_the_port_is_named_with_pid_user_and_unit(past: Past) -> None:
    told = past.told_of("leo", "error")
    for part in ("4400", f"pid {past.pids['leo']}", "user leo", "t3-legacy.service"):
        assert part in told


@pytest.mark.parametrize(("name", "other"), [("tim", "tom"), ("tom", "tim")])
def test_two_people_with_one_port_are_both_told_of_the_other(past: Past, name: str, other: str) -> None:
    told = past.told_of(name, "error")
    assert "4500" in told
    assert other in told


@pytest.mark.parametrize("name", ["pia", "leo", "tim", "tom"])
def test_a_service_whose_port_is_in_conflict_is_not_started_but_the_others_are(machine: Machine, name: str) -> None:
    assert not is_up(machine, f"t3-serve@{name}.service")
    assert f"{name}.id={name}" in map_lines(machine)
    assert is_up(machine, f"playwright-mcp@{name}.service")


def test_requests_are_not_sent_to_a_port_that_somebody_else_holds_or_claims(machine: Machine) -> None:
    for name in ("pia", "tim", "tom"):
        assert f"{name}.id" not in dispatch(machine)


def test_requests_are_still_sent_to_a_legacy_unit_of_the_persons_own(machine: Machine) -> None:
    assert dispatch(machine)["leo.id"] == {"os_user": "leo", "port": 4400}
    assert answer_at(machine, 4400) == "leo"


def test_who_holds_the_ports_is_left_running(past: Past) -> None:
    assert main_pid(past.machine, "stranger-4300.service") == past.pids["zoe"]
    assert answer_at(past.machine, 4300) == "zoe"
    assert past.machine.run("pgrep", "--uid", "leo", "--full", "[t]3 --port 4400").out.strip() == str(past.pids["leo"])


def test_another_run_finds_the_same_and_changes_nothing(past: Past) -> None:
    before = everything(past.machine)
    again = reconcile(past.machine, code=3)
    problems = [line[9:] for line in past.run.err.splitlines() if " conflict: " in line]
    assert [line[9:] for line in again.err.splitlines() if " conflict: " in line] == problems
    assert everything(past.machine) == before
