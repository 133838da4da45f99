"""People who are out to get at root's and others' files by way of the steps in their homes (FAULTS.md 9 to 11)."""

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.machine.homes import (
    HANGING,
    STEPS,
    assert_nothing_left,
    ended,
    forget,
    home_workstation,
    start_hanging,
    unhang,
    unit_of,
    write_site,
)
from tests.machine.machine import Machine, Result
from tests.machine.roots_calls import Roots, run_seen, system_seen
from tests.machine.workstation import eventually, main_pid, reconcile, write_roster
from tests.proof.evidence import note, scaled

SECONDS = scaled(5, 90)
# A step that is taken while links are swapped in the home. Of each kind, of all, in the loop without a run around it.
RACES_OF_EACH, RACES = scaled(5, 300), scaled(100, 10_000)
KINDS = ("directory", "file", "git", "mcp", "command", "layout", "retire")
PROGRAM, OVER = "/usr/local/lib/attack.py", "/usr/local/lib/attack-is-over"
COUNTERS = ("/tmp/swaps-1", "/tmp/swaps-2")
RACER = "/src/tests/machine/home_racer.py"
LEAST_SWAPS = 100  # in a second, or it is no attack

PEOPLE = {"alice": {"tier": "admin", "code_layout": "workspace", "repos": ["api"]}, "bob": {}}
# What is not for bob is changed from run to run. A step that an attack makes hang has soon had its time.
ATTACKED = {name: body.removesuffix("}") + ", timeout: 3}" for name, body in STEPS.items()} | {
    "varied": '{file: {path: .config/app/varied, content: "%s\\n", keep: current}, tiers: [admin], timeout: 3}'
}

FOLDERS = ("notes", ".config", ".config/app", ".config/playwright", ".config/systemd/user", "code", "code/infra")
MORE_FOLDERS = ("code/api", "src", "src/extra", "code/.infra.rosterd-new", "code/.api.rosterd-new")
FILES = (
    ".config/app/seed",
    ".config/app/conf",
    ".config/app/varied",
    ".config/app/secret",
    ".config/app/.seed.rosterd-new",
    ".config/app/.conf.rosterd-new",
    ".config/app/.varied.rosterd-new",
    ".config/app/.secret.rosterd-new",
    ".config/playwright/token",
    ".config/playwright/.token.rosterd-new",
    ".config/systemd/user/playwright-mcp.service",
    ".claude.json",
    "made",
    "asked",
    "src/.extra.rosterd-new",
    "code/infra/.git",
)
TARGETS = (
    "/etc",
    "/etc/rosterd",
    "/etc/rosterd/site.yaml",
    "/etc/shadow",
    "/etc/sudoers.d/new",
    "/home/bob",
    "/home/bob/.profile",
    "/home/bob/new",
    "/srv/canary",
    "/srv/canary/folder",
    "/srv/canary/file",
    "/srv/canary/secret",
    "/srv/canary/new",
)

# It swaps one path after the other: a link to somewhere else, the real thing, or nothing; and counts in a file, which
# others can read at any moment.
ATTACKER = f"""\
import mmap, os, pathlib, random, shutil, struct, sys, time
pathlib.Path(sys.argv[1]).write_bytes(bytes(8))
counter = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 8)
folders, files, targets = {FOLDERS + MORE_FOLDERS!r}, {FILES!r}, {TARGETS!r}
os.chdir("/home/alice")
swaps = 0
started = time.monotonic()
def swap(path):
    if os.path.isdir(path) and not os.path.islink(path):
        os.rename(path, f".attic/{{swaps}}")
    elif os.path.lexists(path):
        os.unlink(path)
    how = random.random()
    if how < 0.4:
        os.symlink(random.choice(targets), path)
    elif how < 0.8 and path in folders:
        os.mkdir(path)
    elif how < 0.8:
        pathlib.Path(path).write_text(random.choice(["", "{{}}", "{{}}", "text"]))
while not os.path.exists({OVER!r}):
    if swaps % 100 == 0:
        shutil.rmtree(".attic", ignore_errors=True)
        os.makedirs(".attic", exist_ok=True)
    try:
        swap(random.choice(folders + files))
        swaps += 1
        counter[:8] = struct.pack("Q", swaps)
    except OSError:
        pass
    time.sleep(0.0005)
print(int(swaps / (time.monotonic() - started)))
"""

CANARY = """
mkdir -p /srv/canary/folder
echo text >/srv/canary/file
echo '{}' >/srv/canary/folder/.claude.json
echo secret >/srv/canary/secret
chmod 600 /srv/canary/secret
"""
# All of it but the site file, which the test itself writes; rosterd keeps nothing else in these folders meanwhile.
SNAPSHOT = """
cd /
find etc home/bob srv/canary root -xdev ! -path etc/rosterd ! -path etc/rosterd/site.yaml \
    -printf '%p %y %m %U:%G %s %i %T@ %C@ %l\\n' | sort
find etc home/bob srv/canary root -xdev -type f ! -path etc/rosterd/site.yaml -exec sha256sum {} + | sort
stat --format='%n %a %U:%G' home home/* srv srv/*
"""


@pytest.fixture(scope="module")
def attacked(deb: Path) -> Iterator[Machine]:
    """Make alice, who attacks, and bob ready."""
    with home_workstation(deb, _varied("0")) as machine:
        write_roster(machine, PEOPLE)
        machine.sh(CANARY)
        reconcile(machine)
        yield machine


def _varied(text: str) -> dict[str, str]:
    return {name: body.replace("%s", text) for name, body in ATTACKED.items()}


def attack_run(machine: Machine, number: int) -> tuple[Result, Roots]:
    """Make a run that has something to do in alice's home, whatever comes of it."""
    make_due(machine, number)
    result, roots = run_seen(machine, "rosterd", "reconcile", "--retry")
    assert result.code in (0, 3), result
    return result, roots


def make_due(machine: Machine, number: int) -> None:
    """Have all of alice's steps taken, or the one that is another each time."""
    if number % 2:
        forget(machine, "alice")
    else:
        write_site(machine, _varied(str(number)))


@contextmanager
def under_attack(machine: Machine) -> Iterator[list[int]]:
    """Let two processes of alice's swap links in her home; see that it was an attack, and that it reached nothing.

    What is given gets how often each swapped in a second, once they have ended.
    """
    write_site(machine, _varied("0"))
    machine.run("rosterd", "reconcile", check=False)  # bob has all of it, whatever a test before has left
    machine.write(PROGRAM, ATTACKER)
    machine.run("rm", "-f", *COUNTERS)
    before = machine.sh(SNAPSHOT).out.splitlines()
    as_alice = ("runuser", "-u", "alice", "--", "python3", "-IS", PROGRAM)
    attackers = [machine.start(*as_alice, counter) for counter in COUNTERS]
    eventually(lambda: all(machine.exists(counter) for counter in COUNTERS), within=5)
    rates: list[int] = []
    try:
        yield rates
    finally:
        machine.run("touch", OVER)
        rates += [int(attacker.communicate(timeout=10)[0]) for attacker in attackers]
        machine.run("rm", OVER, PROGRAM, *COUNTERS)
        won = sorted(set(before) ^ set(machine.sh(SNAPSHOT).out.splitlines()))
        theirs = machine.run("find", "/home/alice", "!", "-user", "alice").out.splitlines()
        note("symlinks", wins=len(won) + len(theirs))
    assert won == []
    assert theirs == []
    assert min(rates) > LEAST_SWAPS
    assert_nothing_left(machine)


def test_an_attack_by_links_reaches_nothing_outside_of_the_home(attacked: Machine) -> None:
    said: list[str] = []
    seen: list[Roots] = []
    with under_attack(attacked) as rates:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            result, roots = attack_run(attacked, len(said))
            said.append(result.err)
            seen.append(roots)
    looks = sum(len(roots.looks) for roots in seen)
    acts = [call for roots in seen for call in roots.acts]
    sys.stdout.write(f"{len(said)} runs, {rates} swaps in a second, {looks} looks of root's\n")
    note("symlinks", runs=len(said), looks_of_root=looks, other_calls_of_root_below_a_home=len(acts))
    # Each run was about her home; root looked at what is in it, and did no more.
    assert all(roots.looks for roots in seen)
    assert acts == []
    log = "\n".join(said)
    for step in (*ATTACKED, "code", "playwright-token", "playwright-mcp"):
        assert re.search(rf"alice: .*home step {step}: ", log), step
    assert "bob: " not in log


def test_nor_does_root_s_part_of_the_unit_that_takes_the_steps(attacked: Machine) -> None:
    seen: list[Roots] = []
    runs = scaled(1, 10)
    with under_attack(attacked):
        for number in range(runs):
            make_due(attacked, number + 1)
            with system_seen(attacked, seen):
                attacked.run("systemctl", "start", "rosterd.service", check=False)
    acts = [call for roots in seen for call in roots.acts]
    note("symlinks", runs_with_systemd_watched=runs, other_calls_of_root_below_a_home=len(acts))
    # All was seen: what root looked at, and what alice's process did there.
    assert all(roots.looks and roots.persons for roots in seen)
    assert acts == []


def test_every_kind_of_step_is_raced_and_none_is_lost(attacked: Machine) -> None:
    racer = ("runuser", "-u", "alice", "--", "python3", RACER)
    attacked.sh("cd /home/alice; ls -A | xargs rm -rf")
    in_peace = json.loads(attacked.run(*racer, "in-peace").out)
    assert [line for line in in_peace if " done: " not in line] == []
    with under_attack(attacked):
        told = json.loads(attacked.run(*racer, str(RACES_OF_EACH), str(RACES), *COUNTERS, timeout=1800).out)
    races, swaps = told["races"], told["swaps"]
    sys.stdout.write(f"{races}, {told['endings']}, {swaps} swaps within steps\n")
    note("symlinks", races=sum(races.values()), swaps_within_them=swaps)
    note("symlinks", **{f"{kind}_races": races[kind] for kind in KINDS})
    assert races.keys() == set(KINDS)
    assert min(races.values()) >= RACES_OF_EACH
    assert sum(races.values()) >= RACES


# --- a process of the person's that lies ---

# As the owner of the process that takes the steps: takes its standard output, writes to it, and ends it.
FORGER = """\
import ctypes, os, sys
process = os.pidfd_open(int(sys.argv[1]))
output = ctypes.CDLL(None, use_errno=True).syscall(438, process, 1, 0)  # pidfd_getfd(2), the same number everywhere
if output < 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.write(output, sys.stdin.buffer.read())
os.kill(int(sys.argv[1]), 9)
"""
LIES = (
    {"name": "code", "watches": [{"path": "/home/alice/\0", "how": "same", "look": ["absent"]}]},
    {"name": "code/infra", "watches": [{"path": "/home/alice/\ud800", "how": "same", "look": ["absent"]}]},
    {"name": "code/api", "watches": [{"path": "", "how": "same", "look": [[1], {"a": None}]}]},
    {"name": "playwright-token", "watches": [{"path": "a/" * 5000, "how": "exists", "look": [10**300]}]},
    {"name": "hangs", "ending": "failed", "detail": "a\nbob: forged\x1b[31m\rforged\ud800"},
    {"name": "bob's"},
    {"name": ["code"], "watches": "text"},
    {"ending": {"a": 1}},
)


def test_a_forged_result_is_believed_of_that_home_alone_and_stops_no_run(attacked: Machine) -> None:
    machine = attacked
    machine.sh("cd /home/alice; ls -A | xargs rm -rf; rm -rf /home/bob/notes")
    forger = "/usr/local/lib/forge.py"
    machine.write(forger, FORGER)
    write_site(machine, {"notes": STEPS["notes"], "hangs": HANGING % 60})
    run = start_hanging(machine, "alice")
    whole = [{"ending": "done", "detail": "forged", "watches": [], **lie} for lie in LIES]
    lines = [*map(json.dumps, whole), "[" * 20000, "[1]", "\udcff\udcfe", "not yet at its e"]
    pid = main_pid(machine, unit_of("alice"))
    machine.run("runuser", "-u", "alice", "--", "python3", forger, str(pid), input="\n".join(lines))
    code, said, _ = ended(run, within=15)
    assert code == 3, said
    assert re.search(r"alice: home step code/infra: .*: forged$", said, re.MULTILINE), said
    assert re.search(r"alice: FAILED home step hangs: .*: a\S*bob: forged", said)
    assert "\x1b" not in said
    assert not re.search("^bob: forged|^forged", said, re.MULTILINE)
    assert machine.exists("/home/bob/notes")
    unhang(machine)
    # What was forged is of no use to anybody for long: a look tells that it is not so.
    again = reconcile(machine, "--retry").err
    assert "alice: home step code/infra: " in again
    assert machine.exists("/home/alice/code/infra/README")
    assert_nothing_left(machine)


# --- the agent's configuration ---

AGENT_STEPS = {"other": STEPS["other"]}


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("mkfifo .claude.json", "is no regular file"),
        ("ln -s /srv/canary/folder/.claude.json .claude.json", "is a link"),
        ('printf \'{"mcpServers": {"a": \' >.claude.json', "is cut off or no JSON"),
        ("printf '{\"mcpServers\": [1]}' >.claude.json", "is no configuration"),
        ("mkdir .claude.json", "is no regular file"),
        ("echo '{}' >.claude.json; chmod 0 .claude.json", "cannot be read"),
    ],
)
def test_a_configuration_that_the_agent_could_not_read_is_left_alone_and_named(
    attacked: Machine, script: str, named: str
) -> None:
    machine = attacked
    machine.sh("rm -rf /home/alice/.claude.json /home/alice/claude.log")
    machine.run("runuser", "-u", "alice", "--", "sh", "-euc", f"cd; {script}")
    look = "cd /home/alice; stat -c '%F %a %U %s %i %Y %Z' .claude.json; [ ! -f .claude.json ] || cat -- .claude.json; \
        sha256sum /srv/canary/folder/.claude.json"
    machine.sh("rm -f /home/bob/.claude.json")
    before = machine.sh(look).out
    forget(machine, "alice", "bob")
    write_site(machine, AGENT_STEPS)
    started = time.monotonic()
    result = machine.run("rosterd", "reconcile", check=False)
    assert time.monotonic() - started < 10
    assert result.code in (0, 3)
    assert re.search(rf"alice: .*home step other: .*~/\.claude\.json {named}", result.err), result.err
    assert machine.sh(look).out == before
    assert not machine.exists("/home/alice/claude.log")
    assert '"other"' in machine.read("/home/bob/.claude.json")


# --- a home that is none ---


@pytest.mark.parametrize(
    ("script", "undo", "named"),
    [
        ("mv $1 /srv/moved; ln -s /srv/moved $1", "rm $1; mv /srv/moved $1", "symbolic link"),
        ("chown bob $1", "chown alice $1", "belongs to bob"),
    ],
)
def test_no_step_is_taken_in_a_home_that_is_not_the_person_s(
    attacked: Machine, script: str, undo: str, named: str
) -> None:
    machine = attacked
    machine.sh("rm -rf /home/alice/notes /home/bob/notes")
    forget(machine, "alice", "bob")
    write_site(machine, {"notes": STEPS["notes"]})
    machine.sh(script, "/home/alice")
    try:
        begun = len(machine.journal(f"UNIT={unit_of('alice')}"))
        log = reconcile(machine, code=3).err
        assert re.search(f"alice: .*/home/alice.*{named}", log), log
        assert len(machine.journal(f"UNIT={unit_of('alice')}")) == begun
        assert not machine.exists("/home/alice/notes")
        assert machine.exists("/home/bob/notes")
    finally:
        machine.sh(undo, "/home/alice")
