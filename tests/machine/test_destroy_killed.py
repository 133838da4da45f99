"""`destroy` or `restore` is killed: the same command finishes, either way is open, nothing is lost, nobody gets in."""

import itertools
import json
import re
from collections.abc import Iterator
from itertools import dropwhile, zip_longest

import pytest

from tests.machine.departed import (
    TOMBSTONE,
    WITHOUT_ALICE,
    alice_cut_off,
    assert_nothing_lost,
    destroy,
    has_sound_archive,
    is_closed,
    is_gone,
    leftovers,
    refused,
    restore,
    snapshot,
    tombstone,
)
from tests.machine.faults import run, write_roster
from tests.machine.kill_points import sample, traced_points
from tests.machine.killed_tools import Kill, make_killable, plan_traces, traced_points_of
from tests.machine.machine import Machine
from tests.machine.sweep import Tally, save
from tests.machine.sweep import restore as restore_all
from tests.machine.workstation import eventually

# Runs a command whose process ends, as by SIGKILL, before its step number $1.
DRIVER = """
import os, signal, sys
from reconciler.cli import main
from reconciler.host.remover import Remover
left = int(sys.argv[1])
original = Remover.carry_out
def counting(self, step):
    global left
    if left == 0: os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    original(self, step)
Remover.carry_out = counting
main(sys.argv[2:])
"""


@pytest.fixture
def host() -> Iterator[Machine]:
    """Boot a machine on which alice has a life of her own, and is cut off."""
    with alice_cut_off() as machine:
        yield machine


def killed_before(machine: Machine, step: int, *arguments: str) -> bool:
    """Give a command that is killed before this step; say whether it was, else it must have ended well."""
    result = machine.run("python3", "/root/driver.py", str(step), *arguments, check=False)
    assert result.code in {0, -9, 137}, result
    return result.code != 0


def assert_a_run_has_no_part_in_it(machine: Machine, before: list[str]) -> None:
    """See that a run deletes nothing, brings nothing back, and lets nobody in."""
    found, stone = snapshot(machine), machine.sh('cat "$1" 2>/dev/null || :', TOMBSTONE).out
    run(machine)
    assert snapshot(machine) == found
    assert machine.sh('cat "$1" 2>/dev/null || :', TOMBSTONE).out == stone
    assert_nothing_lost(machine, before)
    assert machine.run("su", "alice", "-c", "true", check=False).code != 0


def test_killed_before_any_step_the_next_command_finishes_and_nobody_gets_in(host: Machine) -> None:
    before = snapshot(host)
    host.write("/root/driver.py", DRIVER)
    for step in itertools.count():
        if not killed_before(host, step, "destroy", "alice", "--yes", "alice"):
            break
        assert_a_run_has_no_part_in_it(host, before)
        destroy(host)
        assert is_gone(host)
        restore(host)
        assert snapshot(host) == before
    assert step == 10
    assert is_gone(host)
    for step in itertools.count():
        if not killed_before(host, step, "restore", "alice"):
            break
        assert_a_run_has_no_part_in_it(host, before)
        restore(host)
        assert snapshot(host) == before
        assert not leftovers(host)
        destroy(host)
        assert is_gone(host)
    assert step == 11
    assert snapshot(host) == before


OWN_UNITS = ("rosterd.service", "rosterd-recheck.service", "rosterd-failed.service")
SOON = "[Timer]\nOnCalendar=\nOnBootSec=\nPersistent=no\nRandomizedDelaySec=0\nOnActiveSec=1\nAccuracySec=100ms\n"


def runs_by_themselves(machine: Machine) -> None:
    """Let the timer start a run, and then the path unit."""

    def ended() -> int:
        return len(machine.journal("_SYSTEMD_UNIT=rosterd.service", "ROSTERD_EVENT=run_finished"))

    for unit in ("rosterd.timer", "rosterd.path"):
        before = ended()
        machine.run("systemctl", "start", unit)
        if unit == "rosterd.path":
            write_roster(machine, WITHOUT_ALICE)
        eventually(lambda before=before: ended() > before, within=20)  # type: ignore[misc]  # bound at once
        machine.run("systemctl", "stop", unit)


def test_neither_timer_nor_path_deletes_anybody_or_goes_on_with_it(host: Machine) -> None:
    host.write("/root/driver.py", DRIVER)
    host.sh("cp /src/units/rosterd* /etc/systemd/system/")
    host.write("/etc/systemd/system/rosterd.timer.d/soon.conf", SOON)
    host.run("systemctl", "daemon-reload")
    # However long ago that was.
    host.sh('sed -i \'s/"since": [0-9]*/"since": 1/\' /var/lib/rosterd/cuts/alice')
    assert json.loads(host.read("/var/lib/rosterd/cuts/alice"))["since"] == 1
    before = snapshot(host)
    runs_by_themselves(host)
    assert snapshot(host) == before
    assert not host.exists("/var/lib/rosterd/archives")

    assert killed_before(host, 3, "destroy", "alice", "--yes", "alice")
    assert not host.exists("/home/alice")
    half, stone = snapshot(host), tombstone(host)
    runs_by_themselves(host)
    assert (snapshot(host), tombstone(host)) == (half, stone)
    assert not stone["complete"]
    units = host.run(
        "systemctl", "show", "--property=Id,ExecStart,ExecStartPre,ExecStartPost,ExecStopPost", *OWN_UNITS
    ).out
    assert units.count("path=/usr/sbin/rosterd") >= 1
    assert not re.search("destroy|restore|forget", units)
    restore(host)
    assert snapshot(host) == before


def test_half_deleted_either_way_is_open(host: Machine) -> None:
    before = snapshot(host)
    # The rm of the home deletes some of it, and then rosterd is killed.
    half = "/usr/bin/find /home/alice/work -delete; kill -9 $PPID"
    rm = f'#!/bin/sh\ncase "$*" in *" /home/alice") {half};; *) exec /usr/bin/rm "$@";; esac\n'
    host.write("/usr/sbin/rm", rm, mode=0o755)
    host.run("rosterd", "destroy", "alice", "--yes", "alice", check=False)
    host.run("/usr/bin/rm", "/usr/sbin/rm")
    assert not host.exists("/home/alice/work")
    assert_nothing_lost(host, before)

    host.sh("echo new >/home/alice/new")
    assert "/home/alice/new is not in the archive" in destroy(host, code=3)
    assert "/home/alice/new is not in the archive" in restore(host, code=3)
    assert host.read("/home/alice/new") == "new\n"
    host.run("rm", "/home/alice/new")
    refused(host, 3, "half deleted", "forget", "alice", "--yes", "alice")

    restore(host)
    assert snapshot(host) == before
    destroy(host)
    assert is_gone(host)


def test_killed_while_tar_works_leaves_nothing_beside_the_place(host: Machine) -> None:
    before = snapshot(host)

    def killed(*command: str) -> None:
        host.write("/usr/sbin/tar", '#!/bin/sh\n/usr/bin/tar "$@"\nkill -9 $PPID\n', mode=0o755)
        host.run("rosterd", *command, check=False)
        host.run("rm", "/usr/sbin/tar")
        assert leftovers(host)
        assert_nothing_lost(host, before)

    killed("destroy", "alice", "--yes", "alice")
    assert snapshot(host) == before
    destroy(host)
    assert is_gone(host)
    killed("restore", "alice")
    destroy(host)
    assert is_gone(host)
    killed("restore", "alice")
    restore(host)
    assert snapshot(host) == before
    assert not leftovers(host)


# The tools that each starts, and by what word of theirs they are known.
TOOLS = {
    "destroy": (("gzip", "any"), ("rm", "alice"), ("usermod", "alice"), ("userdel", "alice")),
    "restore": (
        *(("groupadd", "alice"), ("useradd", "alice"), ("usermod", "alice"), ("tar", "alice")),
        *(("chpasswd", "any"), ("chage", "alice")),
    ),
}
COMMANDS = {"destroy": ("rosterd", "destroy", "alice", "--yes", "alice"), "restore": ("rosterd", "restore", "alice")}


def kills_of(machine: Machine, command: str, size: int) -> list[Kill]:
    """Give the command undisturbed, and return where it can be killed, from its first record on.

    Of the tools it is every other point: each costs a deletion and a return.
    """
    for tool, key in TOOLS[command]:
        plan_traces(machine, key, tool)
    own = traced_points(machine, *COMMANDS[command])
    own = list(dropwhile(lambda point: "rosterd-new" not in point.shown, own))
    found = [Kill(point) for point in own]
    for tool, key in TOOLS[command]:
        points = traced_points_of(machine, tool, key)
        assert points, tool
        found += [Kill(point, tool, key) for point in points[::2]]
    return sample(found, size)


def lost(machine: Machine, before: list[str]) -> list[str]:
    """Return what is wrong in between: somebody could get in, or something is gone that no sound archive holds."""
    wrong = [] if is_closed(machine) else ["the account is open"]
    gone = sorted(set(before) - set(snapshot(machine)))
    if gone and not (machine.exists(TOMBSTONE) and has_sound_archive(machine)):
        wrong += [f"gone, and in no archive on record: {gone}"]
    return wrong


def test_killed_at_any_change_of_their_own_or_of_a_tool_nothing_is_lost(host: Machine) -> None:
    make_killable(host, *{tool for tools in TOOLS.values() for tool, _ in tools})
    before = snapshot(host)
    save(host, "cut off")
    destroying, restoring = kills_of(host, "destroy", 4), kills_of(host, "restore", 4)
    assert snapshot(host) == before
    tally = Tally()

    def check(kill: Kill | None, command: str, codes: set[int]) -> bool:
        """Kill the command where there is a point left, give it again, and return whether it was all as it is to be."""
        reached = kill is not None and kill.by(host, *COMMANDS[command])
        tally.not_reached += kill is not None and not reached
        wrong = lost(host, before)
        done = host.run(*COMMANDS[command], check=False)
        wrong += [] if done.code in codes else [str(done)]
        if command == "destroy":
            wrong += [] if is_gone(host) else ["not all of hers is gone"]
            wrong += [] if host.exists(TOMBSTONE) and has_sound_archive(host) else ["the archive is not sound"]
        else:
            wrong += [f"not as before: {line}" for line in set(before) ^ set(snapshot(host))] + leftovers(host)
        if reached or wrong:
            tally.add(f"{command}: {kill}", torn=[], lost=[], wrong=wrong)
        return not wrong

    for first, second in zip_longest(destroying, restoring):
        # A command that was killed at its end has nothing more to do, and a restore then says so.
        if not check(first, "destroy", {0}) or not check(second, "restore", {0, 64}):
            restore_all(host, "cut off")
        host.sh("rm -rf /var/lib/rosterd/archives/*")
    tally.judge("destroyed", "destroy and restore")
