"""What a run leaves in the journal, and what it says on a terminal."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.machine.machine import Machine
from tests.machine.workstation import account_lines, reconcile, workstation, write_roster

PEOPLE: dict[str, dict[str, Any]] = {"alice": {"tier": "admin"}, "bob": {}, "carol": {}, "mia": {}, "una": {}}
SECRET = "hush-4711"  # noqa: S105 - a stand-in for one
ESCAPE = "\x1b"
ERR, WARNING, INFO = "3", "4", "6"

Entry = dict[str, Any]


@dataclass(frozen=True)
class Logged:
    """A machine after two runs of the service, in which una is refused and carol's server does not start.

    Tests make further ones by hand.
    """

    machine: Machine
    una_before: str

    def entries(self, *matches: str) -> list[Entry]:
        """Return the entries that rosterd itself wrote and that have these fields."""
        return self.machine.journal("SYSLOG_IDENTIFIER=rosterd", *matches)

    def runs(self) -> list[list[Entry]]:
        """Return the entries of the first two runs, those of the service."""
        found: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries():
            found[entry["RUN_ID"]].append(entry)
        return list(found.values())[:2]


@pytest.fixture(scope="module")
def logged(deb: Path) -> Iterator[Logged]:
    """Make two runs; whoever uses it leaves the machine as it is."""
    with workstation(deb) as machine:
        machine.run("useradd", "--create-home", "--uid", "1500", "una")
        una = account_lines(machine, "una")
        machine.run("systemctl", "mask", "t3-serve@mia.service")
        machine.write("/etc/t3-serve/alice.env", f"API_TOKEN={SECRET}\n", mode=0o600)
        no_program = "[Service]\nExecStart=\nExecStart=/usr/bin/no-such-program\nRestart=no\n"
        machine.write("/etc/systemd/system/t3-serve@carol.service.d/test.conf", no_program)
        machine.run("systemctl", "daemon-reload")
        write_roster(machine, PEOPLE)
        for _ in range(2):
            assert machine.run("systemctl", "start", "rosterd.service", check=False).code != 0
        yield Logged(machine, una)


def message_of(entry: Entry) -> str:
    """Return what a person reads; journalctl gives a list of bytes where it is not plain text."""
    message = entry["MESSAGE"]
    assert isinstance(message, str), bytes(message)
    return message


# --- the journal ---


def test_the_units_log_reads_well(logged: Logged) -> None:
    text = logged.machine.run("journalctl", "--unit=rosterd", "--no-pager", "--output=cat").out
    for line in (
        r"alice: account: none → uid 1000, home /home/alice \(0700\), shell /bin/zsh, groups .*",
        r"bob: t3 port: none → 3774 \(T3_PORT in /etc/t3-serve/bob.env\)",
        r"bob: t3-serve@bob.service: disabled, stopped → enabled, running",
        r"una: conflict: account exists \(uid 1500\) and is not managed by rosterd; .*",
        r"run finished: .*",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), f"{line} in\n{text}"


def test_all_that_was_done_for_a_person_is_found_by_their_name(logged: Logged) -> None:
    entries = logged.machine.journal("OS_USER=alice")
    assert {entry["ROSTERD_ACTION"] for entry in entries} >= {"create_account", "write_port", "run_unit"}
    assert all(message_of(entry).startswith("alice: ") for entry in entries)
    assert all("alice" not in message_of(entry) for entry in logged.machine.journal("OS_USER=bob"))


def test_all_accounts_ever_made_are_found_by_the_action(logged: Logged) -> None:
    entries = logged.machine.journal("ROSTERD_ACTION=create_account")
    assert [entry["OS_USER"] for entry in entries] == ["alice", "bob", "carol", "mia"]
    assert all(entry["ROSTERD_STATUS"] == "done" for entry in entries)


def test_every_entry_is_of_the_unit_and_has_an_event_and_a_run(logged: Logged) -> None:
    entries = logged.entries()
    assert logged.entries("--unit=rosterd.service") == entries
    for entry in entries:
        assert re.fullmatch(r"[a-z_]+", entry["ROSTERD_EVENT"]), entry
        assert entry["RUN_ID"], entry


def test_each_run_has_one_id_and_ends_in_a_summary(logged: Logged) -> None:
    runs = logged.runs()
    assert len(runs) == 2
    for entries in runs:
        assert [entry["ROSTERD_EVENT"] for entry in entries].count("run_finished") == 1
        last = entries[-1]
        assert last["ROSTERD_EVENT"] == "run_finished"
        assert re.fullmatch(r"run finished: .*; 5 on the roster, \d+\.\d\d s", message_of(last)), message_of(last)
        assert 0 < float(last["ROSTERD_SECONDS"]) < 60


def test_a_summary_counts_what_the_run_did(logged: Logged) -> None:
    first, second = logged.runs()
    for entries in (first, second):
        ended = [entry["ROSTERD_STATUS"] for entry in entries if "ROSTERD_STATUS" in entry]
        for word in ("done", "failed", "skipped"):
            assert int(entries[-1][f"ROSTERD_{word.upper()}"]) == ended.count(word)
        assert int(entries[-1]["ROSTERD_WARNINGS"]) == 1
        assert int(entries[-1]["ROSTERD_PROBLEMS"]) >= 1
    assert "done" in message_of(first[-1])
    assert "failed" in message_of(first[-1])
    assert int(second[-1]["ROSTERD_DONE"]) == 0


def test_what_failed_is_an_error_and_what_was_done_is_not(logged: Logged) -> None:
    priorities = {(entry["ROSTERD_EVENT"], entry["PRIORITY"]) for entry in logged.entries()}
    assert priorities == {
        ("action_done", INFO),
        ("action_failed", ERR),
        ("unit_said", ERR),
        ("conflict", ERR),
        ("warning", WARNING),
        ("run_finished", WARNING),
    }
    told = {entry.get("OS_USER") for entry in logged.entries("--priority=err")}
    assert told == {"carol", "una"}


def test_the_journal_has_no_colour_codes_and_no_secret(logged: Logged) -> None:
    for entry in logged.entries():
        assert ESCAPE not in message_of(entry)
    assert SECRET not in logged.machine.run("journalctl", "--output=export", "--no-pager", "--all").out


def test_an_account_that_was_refused_is_as_it_was(logged: Logged) -> None:
    assert account_lines(logged.machine, "una") == logged.una_before


# --- by hand ---


def on_a_terminal(logged: Logged, command: str, **env: str) -> str:
    """Return what a command shows on a terminal of its own."""
    script = ("script", "--quiet", "--return", "--command", command, "/dev/null")
    return logged.machine.run(*script, check=False, env={"TERM": "xterm", **env}).out


@pytest.mark.parametrize("command", ["rosterd", "rosterd --dry-run"])
def test_on_a_terminal_there_is_colour_unless_no_color_is_set(logged: Logged, command: str) -> None:
    assert ESCAPE in on_a_terminal(logged, command)
    plain = on_a_terminal(logged, command, NO_COLOR="1")
    assert ESCAPE not in plain
    assert "una" in plain


def test_in_a_pipe_there_is_no_colour_and_one_line_for_each_entry(logged: Logged) -> None:
    result = reconcile(logged.machine, code=3)
    assert ESCAPE not in result.out + result.err
    for line in result.err.splitlines():
        assert re.match(r"\d\d:\d\d:\d\d (info|warning|error) +\S", line), line


def test_a_run_by_hand_is_in_the_journal_as_well(logged: Logged) -> None:
    run = json.loads(reconcile(logged.machine, "--json", code=3).out)["run"]["id"]
    entries = logged.entries(f"RUN_ID={run}")
    assert logged.entries("--unit=rosterd.service", f"RUN_ID={run}") == entries
    assert {"action_failed", "conflict", "run_finished"} <= {entry["ROSTERD_EVENT"] for entry in entries}
    assert logged.entries("OS_USER=una", f"RUN_ID={run}") != []


def test_a_run_as_json_tells_all_of_it_and_nothing_else_on_stdout(logged: Logged) -> None:
    report = json.loads(reconcile(logged.machine, "--json", code=3).out)
    assert report["run"]["exit"] == 3
    assert report["run"]["id"]
    assert {("carol", "run_unit", "failed")} == {
        (action["user"], action["action"], action["status"]) for action in report["actions"]
    }
    assert ("una", "conflict") in {(found["user"], found["kind"]) for found in report["findings"]}
