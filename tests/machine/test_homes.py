"""The steps in people's homes: done as the person and once, bounded, and never in anybody else's way."""

import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.machine.homes import (
    HANGING,
    HEAD,
    NAP,
    RECORDS,
    SECRET_FILE,
    STEPS,
    TOKEN_FILE,
    assert_nothing_left,
    ended,
    forget,
    hang,
    home_workstation,
    napping,
    records,
    start_hanging,
    unhang,
    unit_of,
    write_site,
)
from tests.machine.machine import Machine, Result
from tests.machine.workstation import (
    Trace,
    entry_of,
    eventually,
    look,
    main_pid,
    map_lines,
    reconcile,
    traced,
    write_roster,
)

PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {"tier": "admin", "code_layout": "workspace", "repos": ["api"]},
    "bob": {},
}
LIMITED = {
    "for-admins": "{directory: {path: for-admins}, tiers: [admin]}",
    "for-workspaces": "{directory: {path: for-workspaces}, layouts: [workspace]}",
    "for-nobody": "{directory: {path: for-nobody}, tiers: [admin], layouts: [single]}",
}

# What a dry run and the log say of each step of alice's, and what it leaves: path below her home, what it is, mode.
TOLD = {
    "code": r"not done yet → ~/code a folder for infra, api",
    "code/infra": r"not done yet → clone ~/code/infra of file:///srv/git/infra\.git, branch main",
    "code/api": r"not done yet → clone ~/code/api of file:///srv/git/api\.git",
    "playwright-token": rf"not done yet → file ~/\.config/playwright/token \(0600\) from {TOKEN_FILE}, if absent",
    "playwright-mcp": r"not done yet → MCP server playwright at http://localhost:\d+/mcp",
    "notes": r"not done yet → folder ~/notes \(0700\)",
    "seed": r"not done yet → file ~/\.config/app/seed \(0640\), if absent",
    "conf": r"not done yet → file ~/\.config/app/conf \(0644\), kept current",
    "secret": rf"not done yet → file ~/\.config/app/secret \(0600\) from {SECRET_FILE}, if absent",
    "made": r"not done yet → /bin/sh -c id -un >/home/alice/made, unless ~/made exists",
    "asked": r"not done yet → /usr/bin/touch /home/alice/asked, unless /usr/bin/test -e /home/alice/asked succeeds",
    "extra": r"not done yet → clone ~/src/extra of file:///srv/git/extra\.git",
    "other": r"not done yet → MCP server other at http://localhost:9/alice",
}
LEFT = {
    "code": "directory 755",
    "code/infra/README": "regular file 644",
    "code/api/README": "regular file 644",
    ".config": "directory 755",
    ".config/playwright/token": "regular file 600",
    "notes": "directory 700",
    ".config/app": "directory 755",
    ".config/app/seed": "regular file 640",
    ".config/app/conf": "regular file 644",
    ".config/app/secret": "regular file 600",
    "made": "regular file 644",
    "asked": "regular empty file 644",
    "src/extra/README": "regular file 644",
    "claude.log": "regular file 644",
}


# --- every kind, twice ---


@dataclass
class Done:
    """A machine on which a run has made alice and bob ready, and what was said before and meanwhile."""

    machine: Machine
    planned: str
    first: Result


@pytest.fixture(scope="module")
def done(deb: Path) -> Iterator[Done]:
    """Make two people ready; the tests that use it only read."""
    with home_workstation(deb, STEPS | LIMITED) as machine:
        write_roster(machine, PEOPLE)
        planned = machine.run("rosterd", "reconcile", "--dry-run").out
        assert not machine.exists("/home/alice")
        yield Done(machine, planned, reconcile(machine))


@pytest.mark.parametrize("step", TOLD)
def test_each_step_has_a_line_in_the_plan_and_in_the_log(done: Done, step: str) -> None:
    block = re.search(r"^alice\n((?:  .*\n)+)", done.planned, re.MULTILINE)
    assert block is not None, done.planned
    assert re.search(rf"^  \+ home step {step}: {TOLD[step]}$", block[1], re.MULTILINE), block[1]
    assert re.search(rf"alice: home step {step}: {TOLD[step]}: \w+", done.first.err), done.first.err


@pytest.mark.parametrize("path", LEFT)
def test_each_step_is_done_as_the_person(done: Done, path: str) -> None:
    for name in ("alice", "bob"):
        found = done.machine.run("stat", "--format=%U:%G %F %a", f"/home/{name}/{_path_for(name, path)}").out.strip()
        assert found == f"{name}:{name} {LEFT[path]}"


def _path_for(name: str, path: str) -> str:
    """Return where a single layout has what a workspace has at `path`; it has no api."""
    return path if name == "alice" else re.sub("^code/(infra|api)/", "code/", path)


def test_what_is_there_is_what_the_site_says(done: Done) -> None:
    machine = done.machine
    for name, tier in (("alice", "admin"), ("bob", "power-user")):
        home = f"/home/{name}"
        assert machine.read(f"{home}/.config/app/seed") == "seeded\n"
        assert machine.read(f"{home}/.config/app/secret") == machine.read(SECRET_FILE)
        assert machine.read(f"{home}/.config/playwright/token") == machine.read(TOKEN_FILE)
        assert machine.read(f"{home}/made") == f"{name}\n"
        port = machine.sh("sed -n s/^T3_PORT=//p $1", f"/etc/t3-serve/{name}.env").out.strip()
        assert machine.read(f"{home}/.config/app/conf").splitlines()[1:] == [f"user={name} t3={port} {tier}"]
        servers = json.loads(machine.read(f"{home}/.claude.json"))["mcpServers"]
        browser = machine.sh("sed -n s/^PLAYWRIGHT_PORT=//p $1", f"/etc/t3-serve/playwright-{name}.env").out.strip()
        assert servers["playwright"]["url"] == f"http://localhost:{browser}/mcp"
        assert servers["other"]["url"] == f"http://localhost:9/{name}"
        assert machine.read(f"{home}/claude.log").splitlines()[1] == (
            f"mcp add --scope user --transport http other http://localhost:9/{name}"
        )
    for clone in ("alice/code/infra", "alice/code/api", "alice/src/extra", "bob/code", "bob/src/extra"):
        owner = clone.partition("/")[0]
        in_clone = ("runuser", "-u", owner, "--", "git", "-C", f"/home/{clone}")
        assert machine.run(*in_clone, "status", "--porcelain", "--branch").out == "## main...origin/main\n"
        machine.run(*in_clone, "fsck", "--strict")


def test_tiers_and_layouts_say_for_whom_a_step_is(done: Done) -> None:
    made = done.machine.sh("cd /home; ls -d */for-*").out.split()
    assert made == ["alice/for-admins", "alice/for-workspaces"]


def test_nothing_else_than_the_person_s_lies_in_a_home(done: Done) -> None:
    for name in ("alice", "bob"):
        assert done.machine.run("find", f"/home/{name}", "!", "-user", name, "-o", "!", "-group", name).out == ""
    assert done.machine.sh("find /home /etc /var/lib/rosterd /run/rosterd -name '*rosterd-new*'").out == ""
    assert_nothing_left(done.machine)


def test_a_second_run_starts_no_process_opens_nothing_below_home_and_writes_nothing(done: Done) -> None:
    machine = done.machine
    before = _homes(machine) + _units(machine)
    trace = traced(machine, "rosterd", "reconcile")
    assert trace.result.code == 0, trace.result
    assert "nothing to do" in trace.result.out
    assert_at_rest(trace)
    assert _homes(machine) + _units(machine) == before


def assert_at_rest(trace: Trace) -> None:
    """See that a run started nothing, opened nothing below /home, and changed nothing but that it held the lock."""
    assert trace.programs == []
    assert [call for call in trace.calls if "/home/" in call and not call.startswith("sendmsg")] == []
    assert trace.changes_beyond_its_own == []


def _homes(machine: Machine) -> str:
    return machine.sh(f"find /home {RECORDS} -printf '%p %i %m %U:%G %s %T@ %C@ %l\\n' | sort").out


def _units(machine: Machine) -> str:
    started = machine.journal("--unit=rosterd-home@alice.service", "--unit=rosterd-home@bob.service")
    ids = sorted({entry["INVOCATION_ID"] for entry in started if "INVOCATION_ID" in entry})
    show = "--property=ExecMainStartTimestamp,InvocationID,ActiveState"
    return machine.run("systemctl", "show", show, unit_of("alice"), unit_of("bob")).out + " ".join(ids)


# --- what a person has changed ---


@pytest.fixture(scope="module")
def shared(deb: Path) -> Iterator[Machine]:
    """Boot a machine for two people."""
    with home_workstation(deb) as machine:
        write_roster(machine, PEOPLE)
        yield machine


@pytest.fixture
def changed(shared: Machine) -> Machine:
    """Make the two ready, whatever a test before has left."""
    write_site(shared, STEPS)
    shared.write(SECRET_FILE, "secret-of-the-site\n", mode=0o600)
    shared.sh("rm -rf /home/*/.config/app")
    reconcile(shared)
    return shared


def as_user(machine: Machine, name: str, script: str) -> str:
    """Run a shell script as a person, in their home."""
    return machine.run("runuser", "-u", name, "--", "sh", "-euc", f"cd; {script}").out


def test_a_seed_that_the_person_edited_stays_and_one_they_deleted_is_written_again(changed: Machine) -> None:
    as_user(changed, "alice", "echo mine >.config/app/seed; chmod 600 .config/app/seed")
    as_user(changed, "bob", "rm -r .config/app/seed notes")
    log = reconcile(changed).err
    assert changed.read("/home/alice/.config/app/seed") == "mine\n"
    assert look(changed, "/home/alice/.config/app/seed") == "alice:alice 600"
    assert changed.read("/home/bob/.config/app/seed") == "seeded\n"
    assert look(changed, "/home/bob/notes") == "bob:bob 700"
    assert "alice: home step seed" not in log
    assert "bob: home step seed: /home/bob/.config/app/seed has changed → " in log
    write_site(changed, STEPS | {"seed": '{file: {path: .config/app/seed, content: "newer\\n", mode: "0640"}}'})
    reconcile(changed)
    assert changed.read("/home/alice/.config/app/seed") == "mine\n"
    assert changed.read("/home/bob/.config/app/seed") == "seeded\n"


def test_a_kept_file_follows_the_site_until_the_person_edits_it_which_is_said(changed: Machine) -> None:
    as_user(changed, "alice", "echo mine >>.config/app/conf")
    log = reconcile(changed).err
    assert re.search(r"alice: home step conf: .*: ~/\.config/app/conf has been changed and is theirs; left alone", log)
    write_site(changed, STEPS | {"conf": '{file: {path: .config/app/conf, content: "newer\\n", keep: current}}'})
    mine = changed.read("/home/alice/.config/app/conf")
    log = reconcile(changed).err
    assert changed.read("/home/alice/.config/app/conf") == mine
    assert mine.endswith("\nmine\n")
    assert re.search(r"alice: home step conf: .* theirs; left alone", log)
    assert changed.read("/home/bob/.config/app/conf").splitlines()[1:] == ["newer"]
    assert re.search(r"bob: home step conf: its definition has changed → .*: brought up to date", log)
    # Who gives up their own gets the site's again.
    as_user(changed, "alice", "rm .config/app/conf")
    reconcile(changed)
    assert changed.read("/home/alice/.config/app/conf") == changed.read("/home/bob/.config/app/conf")
    assert_at_rest(traced(changed, "rosterd", "reconcile"))


def test_a_kept_file_from_a_source_follows_the_source(changed: Machine) -> None:
    kept = f'{{file: {{path: .netrc, source: {SECRET_FILE}, mode: "0600", keep: current}}}}'
    write_site(changed, STEPS | {"kept": kept})
    reconcile(changed)
    changed.write(SECRET_FILE, "another-secret-of-the-site\n", mode=0o600)
    reconcile(changed)
    for name in ("alice", "bob"):
        assert changed.read(f"/home/{name}/.netrc").splitlines()[1:] == ["another-secret-of-the-site"]
        assert look(changed, f"/home/{name}/.netrc") == f"{name}:{name} 600"
        assert changed.read(f"/home/{name}/.config/app/secret") == "secret-of-the-site\n"
    assert_at_rest(traced(changed, "rosterd", "reconcile"))


@pytest.mark.parametrize(
    ("step", "word"),
    [
        ('{directory: {path: "{homes}/x"}}', "homes"),
        ('{command: {run: [/bin/true, "{port.none}"], creates: x}}', "port.none"),
        ('{file: {path: x, content: "{password}"}}', "password"),
    ],
)
def test_an_unknown_placeholder_is_refused_with_its_line(changed: Machine, step: str, word: str) -> None:
    before = _homes(changed)
    write_site(changed, STEPS | {"wrong": step})
    line, column = len(HEAD.splitlines()) + len(STEPS) + 1, len("  wrong: ") + step.index('"') + 1
    result = reconcile(changed, code=5)
    assert re.search(rf"site\.yaml:{line}:{column}: home step 'wrong'.*\{{{word}}} is none of ", result.err), result.err
    assert "{home}, {port.playwright}, {port.t3}, {tier}, {user}" in result.err
    assert _homes(changed) == before


# --- secrets ---


def test_a_secret_is_seen_in_no_argument_environment_journal_or_record(changed: Machine) -> None:
    secret = "h4nd3d-0ver-by-p1pe"  # noqa: S105 (of this test alone)
    changed.write("/etc/rosterd/handed", f"{secret}\n", mode=0o600)
    handed = {"handed": '{file: {path: handed, source: /etc/rosterd/handed, mode: "0600"}}'}
    write_site(changed, handed | {"hangs": HANGING % 60})
    run = start_hanging(changed, "alice")
    # The order has been read, and the file is written: alice's process has both its word and the content.
    assert changed.read("/home/alice/handed") == f"{secret}\n"
    seen = changed.sh("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' || :").out
    assert NAP in seen
    assert secret not in seen
    changed.run("kill", *napping(changed))
    unhang(changed)
    code, said, _ = ended(run, within=15)
    assert code == 3  # the step was killed
    assert secret not in said
    assert look(changed, "/home/alice/handed") == "alice:alice 600"
    assert look(changed, "/home/bob/handed") == "bob:bob 600"
    reconcile(changed, "--retry")
    dump = "journalctl --output=export --all; find /var/lib/rosterd /run/rosterd /run/systemd -type f -exec cat {} +"
    told = changed.sh(dump).out
    assert "home step handed" in told
    assert secret not in told
    # Nor has it left a file that others could read.
    search = "find /tmp /var /run /home /etc -type f -exec grep -lFx -f /etc/rosterd/handed {} + || :"
    assert sorted(changed.sh(search).out.split()) == ["/etc/rosterd/handed", "/home/alice/handed", "/home/bob/handed"]


@pytest.mark.parametrize("wrong", ["chmod 664 $1", "chown bob $1"])
def test_a_source_that_is_not_root_s_alone_is_named_and_the_others_go_on(changed: Machine, wrong: str) -> None:
    path = "/etc/rosterd/open"
    changed.write(path, "text\n", mode=0o600)
    changed.sh(wrong, path)
    changed.sh("rm -f /home/*/open /home/*/made")
    write_site(changed, {"open": f"{{file: {{path: open, source: {path}}}}}", "made": STEPS["made"]})
    log = reconcile(changed, code=3).err
    for name in ("alice", "bob"):
        assert f"{name}: conflict: home step open: {path}: " in log
        assert not changed.exists(f"/home/{name}/open")
        assert changed.exists(f"/home/{name}/made")


def test_a_source_that_is_not_there_leaves_its_step_out(changed: Machine) -> None:
    write_site(changed, {"none": "{file: {path: none, source: /etc/rosterd/none}}", "made": STEPS["made"]})
    changed.sh("rm -f /home/*/made")
    result = reconcile(changed)
    assert "home step none" not in result.out + result.err
    assert changed.exists("/home/bob/made")
    assert not changed.exists("/home/bob/none")
    changed.write("/etc/rosterd/none", "there now\n", mode=0o600)
    reconcile(changed)
    assert changed.read("/home/bob/none") == "there now\n"


# --- one who hangs among others ---

SLOW = "aaron"  # the first in every order
CROWD = ("bert", "cleo", "dina", "emil", "fred")
LIMIT = 3  # seconds that each of his two steps may take

CROWDED = {
    "made": '{command: {run: [/usr/bin/touch, "{home}/made"], creates: made}}',
    "hangs": HANGING % LIMIT,
    "also": HANGING % LIMIT,
    "fails": "{command: {run: [/bin/false], creates: never}, tiers: [admin]}",
    "last": '{command: {run: [/usr/bin/touch, "{home}/last"], creates: last}}',
}


def seconds_until_all_made(machine: Machine, *arguments: str, code: int) -> tuple[float, Result, float]:
    """Make a run; return after how many seconds the last of the crowd had what it makes, the result, and its end."""
    machine.sh("rm -f /home/*/made /home/*/last")
    started = float(machine.run("date", "+%s.%N").out)
    result = reconcile(machine, *arguments, code=code)
    end = float(machine.run("date", "+%s.%N").out)
    made = machine.run("stat", "--format=%.9Y", *(f"/home/{name}/last" for name in CROWD)).out.split()
    return max(float(time) for time in made) - started, result, end - started


def test_one_who_hangs_delays_nobody_and_is_tried_again_with_growing_pauses(deb: Path) -> None:
    with home_workstation(deb, CROWDED) as machine:
        write_roster(machine, {**{name: {} for name in CROWD}, SLOW: {"tier": "admin"}})
        reconcile(machine, code=3)  # what fails for him fails from the beginning
        alone, *_ = seconds_until_all_made(machine, code=3)

        hang(machine, SLOW)
        forget(machine, SLOW)
        among, result, whole = seconds_until_all_made(machine, code=3)
        assert among < alone + 5, (among, alone)
        assert 2 * LIMIT <= whole < 2 * LIMIT + 5
        for step in ("hangs", "also"):
            told = f"{SLOW}: FAILED home step {step}: .*: sleep did not end within {LIMIT} s and was killed"
            assert re.search(told, result.err), result.err
        # What comes after has its turn, and nothing is left of what was killed.
        assert machine.exists(f"/home/{SLOW}/last")
        assert_nothing_left(machine)
        _test_pauses(machine)


def _test_pauses(machine: Machine) -> None:
    """See when what failed is tried again: not now, unless asked for, and then after 1, 2, 4 hours, a day at most."""
    for step in ("hangs", "also", "fails"):
        assert records(machine, SLOW)[step]["failures"] == 1
    before = time.monotonic()
    log = reconcile(machine, code=3).err
    assert time.monotonic() - before < LIMIT
    assert "FAILED" not in log
    for step in ("hangs", "also", "fails"):
        assert pause_told(machine, log, step) == 1
    unhang(machine)
    assert f"{SLOW}: FAILED home step fails: " in reconcile(machine, "--retry", code=3).err
    log = reconcile(machine, code=3).err
    assert pause_told(machine, log, "fails") == 2
    assert [step for step in records(machine, SLOW) if records(machine, SLOW)[step]["failures"]] == ["fails"]
    let_pass(machine, pause_told(machine, log, "fails") - 0.1)
    assert "FAILED" not in reconcile(machine, code=3).err
    for failures, hours in ((3, 4), (4, 8), (6, 24)):
        let_pass(machine, 24, failures=failures - 1)
        log = reconcile(machine, code=3).err
        assert f"{SLOW}: FAILED home step fails: " in log
        assert records(machine, SLOW)["fails"]["failures"] == failures
        assert pause_told(machine, log, "fails") == hours


def pause_told(machine: Machine, log: str, step: str) -> float:
    """Return how many hours after the last try a log says that a step is tried again."""
    told = re.search(rf"{SLOW}: unhealthy: home step {step}: .* again after (\S+ \S+) UTC or with --retry", log)
    assert told is not None, log
    again = datetime.strptime(told[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp()
    return float(round((again - records(machine, SLOW)[step]["at"]) / 3600, 1))


def let_pass(machine: Machine, hours: float, failures: int = 2) -> None:
    """Move the last tries of the slow one's steps into the past; what fails has failed so many times."""
    document = records(machine, SLOW)
    for record in document.values():
        record["at"] -= int(hours * 3600)
    document["fails"]["failures"] = failures
    machine.write(f"{RECORDS}/{SLOW}", json.dumps(document), mode=0o600)


# --- a run that is ended, and what will not wait ---

HASTE = 15.0  # seconds that an urgent command may take
SITE_OF_HANGING = {"early": STEPS["notes"], "hangs": HANGING % 300, "made": STEPS["made"]}


@pytest.fixture(scope="module")
def hurried(deb: Path) -> Iterator[Machine]:
    """Boot a machine for people one of whom hangs."""
    with home_workstation(deb, SITE_OF_HANGING) as machine:
        write_roster(machine, PEOPLE)
        reconcile(machine)
        yield machine


@pytest.fixture
def hanging(hurried: Machine) -> Iterator[Machine]:
    """Bring back whom a test before has removed; end what it has left."""
    machine = hurried
    write_roster(machine, PEOPLE)
    machine.sh("rm -f /home/*/made")
    yield machine
    unhang(machine)
    machine.run("systemctl", "stop", "rosterd.path", "rosterd.service", "rosterd-home@*.service")
    machine.run("rosterd", "uncut", "bob", check=False)


def assert_next_run_does_the_rest(machine: Machine) -> None:
    """See that what was not done is done by the next run."""
    unhang(machine)
    assert not machine.exists("/home/alice/made")
    reconcile(machine)
    assert machine.read("/home/alice/made") == "alice\n"
    assert {"early", "hangs", "made"} <= records(machine, "alice").keys()
    assert_nothing_left(machine)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_told_to_end_ends_what_it_has_started(hanging: Machine, sent: signal.Signals, code: int) -> None:
    run = start_hanging(hanging, "alice")
    run.send_signal(sent)
    got, said, seconds = ended(run, within=8)
    assert got == code, said
    assert_nothing_left(hanging)
    assert seconds < 8
    assert_next_run_does_the_rest(hanging)


def test_a_service_that_is_stopped_ends_what_it_has_started(hanging: Machine) -> None:
    start_hanging(hanging, "alice", "systemctl", "start", "--no-block", "rosterd.service")
    hanging.run("systemctl", "stop", "rosterd.service", timeout=8)
    assert_nothing_left(hanging)
    assert_next_run_does_the_rest(hanging)


def test_what_a_killed_run_has_left_is_ended_by_the_next(hanging: Machine) -> None:
    run = start_hanging(hanging, "alice")
    run.kill()
    run.wait()
    assert napping(hanging)
    assert_next_run_does_the_rest(hanging)


def test_a_cut_by_a_command_does_not_wait_for_who_hangs(hanging: Machine) -> None:
    run = start_hanging(hanging, "alice")
    hanging.run("rosterd", "cut", "bob", timeout=HASTE)
    assert hanging.run("chage", "--list", "bob", env={"LC_ALL": "C"}).out.count("Jan 02, 1970")
    code, said, _ = ended(run, within=HASTE)
    assert code == 0, said
    assert re.search(r"alice: skipped home step hangs: .*: put off", said, re.IGNORECASE), said
    assert "bob.id=bob" not in map_lines(hanging)
    assert_next_run_does_the_rest(hanging)


@pytest.mark.parametrize("by", ["hand", "path"])
def test_an_edit_of_the_roster_does_not_wait_for_who_hangs(hanging: Machine, by: str) -> None:
    name = f"new-{by}"
    run = start_hanging(hanging, "alice")
    if by == "path":
        hanging.run("systemctl", "start", "rosterd.path")
    write_roster(hanging, {**PEOPLE, name: {}})
    eventually(lambda: bool(entry_of(hanging, "passwd", name)), within=10)
    eventually(lambda: hanging.exists(f"/home/{name}/made"), within=15)
    eventually(lambda: bool(napping(hanging)), within=10)
    unhang(hanging)
    # The step had been put off, and hangs again in the pass for the edit.
    for pid in napping(hanging):
        hanging.run("kill", pid, check=False)
    ended(run, within=HASTE)
    if by == "path":
        hanging.run("systemctl", "stop", "rosterd.path", "rosterd.service")
    reconcile(hanging, "--retry")
    assert hanging.read("/home/alice/made") == "alice\n"
    assert_nothing_left(hanging)


# --- a broken process of the person's ---


def test_a_worker_that_is_killed_is_a_named_failure_of_that_person_s_alone(hanging: Machine) -> None:
    run = start_hanging(hanging, "alice")
    as_user(hanging, "alice", f"kill -KILL {main_pid(hanging, unit_of('alice'))}")
    code, said, _ = ended(run, within=15)
    assert code == 3, said
    assert "alice: FAILED home step hangs: " in said
    assert "journalctl -u rosterd-home@alice.service" in said
    assert hanging.read("/home/bob/made") == "bob\n"
    assert napping(hanging) == []
    unhang(hanging)
    assert "alice: unhealthy: home step hangs: " in reconcile(hanging, code=3).err
    reconcile(hanging, "--retry")
    assert hanging.read("/home/alice/made") == "alice\n"


def test_a_worker_that_is_stopped_holds_up_nobody_and_can_be_ended(hanging: Machine) -> None:
    run = start_hanging(hanging, "alice")
    as_user(hanging, "alice", f"kill -STOP {main_pid(hanging, unit_of('alice'))}")
    eventually(lambda: hanging.exists("/home/bob/made"), within=5)
    run.send_signal(signal.SIGTERM)
    code, said, seconds = ended(run, within=15)
    assert code == 143, said
    assert seconds < 8
    assert_nothing_left(hanging)
    assert_next_run_does_the_rest(hanging)


# --- without the bus ---


def test_without_the_bus_accounts_are_made_and_the_steps_are_named_as_not_done(deb: Path) -> None:
    with home_workstation(deb) as machine:
        write_roster(machine, PEOPLE)
        machine.sh("systemctl stop dbus.socket dbus.service && rm -f /run/dbus/system_bus_socket")
        before = time.monotonic()
        log = reconcile(machine, code=3).err
        assert time.monotonic() - before < 30
        for name in PEOPLE:
            assert look(machine, f"/home/{name}") == f"{name}:{name} 700"
            assert re.search(rf"{name}: FAILED home step notes: .*: .*does not answer", log), log
            assert not machine.exists(f"/home/{name}/notes")
            assert not machine.exists(f"{RECORDS}/{name}")
        machine.run("systemctl", "start", "dbus.socket", "dbus.service")
        machine.sh("until busctl --timeout=1 status org.freedesktop.systemd1 >/dev/null 2>&1; do sleep 0.05; done")
        reconcile(machine)
        assert look(machine, "/home/alice/notes") == "alice:alice 700"
