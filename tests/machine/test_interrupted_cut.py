"""A cut or a return that is killed in the middle: the next run finishes it, nobody gets in between, nothing is lost."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.machine.busy import differences, let_in, snapshot, uid_of, with_good_keys
from tests.machine.kill_points import KILLED, sample, traced_points
from tests.machine.killed_tools import Kill, make_killable, plan_traces, traced_points_of
from tests.machine.machine import Machine
from tests.machine.sweep import Tally
from tests.machine.workstation import SITE, reconcile, workstation, write_roster

# One for each action of a cut or a return, and some for whom a run ends by itself. Every test brings them back.
LEAVING = [f"a{number:02}" for number in range(1, 13)]
ONE = LEAVING[0]
PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {"tier": "admin"},
    **{name: {"services": {"playwright": False}} for name in LEAVING},
}
HOOK = "#!/bin/sh\necho $1 >>/srv/called\n"
POLICY = "settle: 0\nhooks:\n  revoke_cluster_rbac: {command: [/usr/local/bin/hook, '{user}']}\n"

# All of rosterd as it is, but that it kills itself when so many of its actions have ended, before it tells of the last.
RUN_KILLED = """\
import os, signal, sys
from reconciler.cli import main
from reconciler.host.executor import HostExecutor

left = int(sys.argv.pop(1))
real = HostExecutor.apply

def apply(self, actions):
    global left
    for outcome in real(self, actions):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        yield outcome

HostExecutor.apply = apply
sys.exit(main())
"""

# What each has; $1 is the name, $2 the uid.
AT_WORK = """
echo "5 4 * * * true" | crontab -u "$1" -
runuser -u "$1" -- sh -c 'cd /; echo true | at -M now + 3 days' 2>/dev/null
printf '[Service]\\nUser=%s\\nExecStart=/usr/bin/sleep 80009\\n' "$1" >"/etc/systemd/system/errand-$1.service"
systemctl start "errand-$1.service"
loginctl enable-linger "$1"
runuser -u "$1" -- setsid -f sleep 80005 >/dev/null 2>&1
"""


# Says of each person what is open: what they could come in by, what could begin, what runs.
STILL_OPEN = r"""
for name; do
    open() { echo "$name: $1"; }
    ! grep --quiet --word-regexp "$name" /etc/ttyd-user-map /etc/t3-serve/dispatch.json || open routes
    case $(getent shadow "$name" | cut -d: -f2,8) in '!'*:1) ;; *) open login ;; esac
    jobs=$(find /var/spool/cron/atjobs -type f -user "$name"; ls /var/spool/cron/crontabs | grep -x "$name") || :
    [ -z "$jobs" ] || open jobs
    [ ! -e "/var/lib/systemd/linger/$name" ] || open lingering
    ! systemctl --quiet is-active "errand-$name.service" "t3-serve@$name.service" || open services
    ! pgrep --uid "$name" >/dev/null || open processes
done
"""
EVERYTHING = {"routes", "login", "jobs", "lingering", "services", "processes"}
CLOSED: dict[str, set[str]] = {name: set() for name in LEAVING}


@pytest.fixture(scope="module")
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a machine on which many people are at work."""
    with workstation(deb) as machine:
        machine.write(SITE, POLICY)
        machine.write("/usr/local/bin/hook", HOOK, mode=0o755)
        machine.write("/root/killed.py", RUN_KILLED)
        write_roster(machine, PEOPLE)
        reconcile(machine)
        let_in(machine, *PEOPLE)
        for name in LEAVING:
            machine.sh(AT_WORK, name, str(uid_of(machine, name)))
        yield machine


def killed_after(machine: Machine, actions: int, *arguments: str) -> bool:
    """Make a run that is killed after so many actions; say whether it was, else it must have ended well."""
    result = machine.run("/usr/bin/python3", "/root/killed.py", str(actions), *arguments, check=False)
    assert result.code in {0, KILLED}, result
    return result.code == KILLED


def still_open(machine: Machine, names: Iterable[str]) -> dict[str, set[str]]:
    """Return by person what is open: `routes`, `login`, `jobs`, `lingering`, `services`, `processes`."""
    found: dict[str, set[str]] = {name: set() for name in names}
    for line in machine.sh(STILL_OPEN, *found).out.splitlines():
        name, what = line.split(": ")
        found[name].add(what)
    return found


def everybody(machine: Machine) -> dict[str, str]:
    """Return what people have, their at jobs and services included."""
    units = [f"{kind}{name}.service" for name in LEAVING for kind in ("errand-", "t3-serve@")]
    services = machine.run("systemctl", "show", "--property=Id,ActiveState,UnitFileState", *units).out
    jobs = machine.sh("find /var/spool/cron/atjobs -type f -printf '%f %i %U:%G %m\\n' -exec sha256sum {} + | sort").out
    return snapshot(machine, LEAVING) | {"services": services, "at jobs": jobs}


def test_killed_after_any_action_of_a_cut_and_of_a_return(machine: Machine) -> None:
    before = everybody(machine)
    killed = [name for number, name in enumerate(LEAVING, 1) if killed_after(machine, number, "cut", name)]
    sys.stdout.write(f"{len(killed)} actions of a cut\n")
    assert 9 <= len(killed) < len(LEAVING)
    left = still_open(machine, killed)
    closed = [name for name, what in left.items() if "login" not in what]
    assert len(closed) >= 5
    assert with_good_keys(machine, *closed) == set()
    assert not any({"jobs", "routes"} & left[name] for name in closed)

    reconcile(machine)
    assert still_open(machine, LEAVING) == CLOSED
    assert set(LEAVING) == set(machine.read("/srv/called").split())
    machine.run("rm", "/srv/called")

    killed = [name for number, name in enumerate(LEAVING, 1) if killed_after(machine, number, "uncut", name)]
    sys.stdout.write(f"{len(killed)} actions of a return\n")
    assert 7 <= len(killed) < len(LEAVING)
    left = still_open(machine, killed)
    closed = [name for name, what in left.items() if "login" not in what]
    assert closed
    assert not any(left[name] for name in closed)
    assert with_good_keys(machine, *closed) == set()

    reconcile(machine)
    assert differences(before, everybody(machine)) == ""
    assert "Plan: nothing to do." in reconcile(machine).out


def test_killed_again_and_again_after_every_single_action(machine: Machine) -> None:
    before = everybody(machine)
    write_roster(machine, {name: fields for name, fields in PEOPLE.items() if name != ONE})
    seen = open_after_each_action(machine)
    assert len(seen) >= 8
    # What is closed stays closed, and nobody comes back to life.
    assert all(later <= earlier for earlier, later in pairwise(seen))
    assert seen[0] == EVERYTHING
    assert all(what == EVERYTHING for what in seen if "routes" in what)
    assert seen[-1] == set()
    reconcile(machine)
    assert still_open(machine, [ONE]) == {ONE: set()}

    write_roster(machine, PEOPLE)
    seen = open_after_each_action(machine)
    assert len(seen) >= 5
    assert all(earlier <= later for earlier, later in pairwise(seen))
    assert "login" in seen[0]
    assert differences(before, everybody(machine)) == ""
    assert "Plan: nothing to do." in reconcile(machine).out


def open_after_each_action(machine: Machine) -> list[set[str]]:
    """Make runs that are killed after one action, until one has no more to do; return what was open after each."""
    seen = []
    while killed_after(machine, 1, "reconcile"):
        seen.append(still_open(machine, [ONE])[ONE])
        assert len(seen) < 25
    return seen


def test_killed_anywhere_inside_of_a_cut_and_of_a_return(machine: Machine) -> None:
    before = everybody(machine)
    make_killable(machine, "usermod")
    everywhere = {command: kills_of(machine, command) for command in ("cut", "uncut")}
    points = {command: sample(kills, 5) for command, kills in everywhere.items()}
    tally = Tally()
    most = max(map(len, points.values()))
    for start in range(0, most, len(LEAVING)):
        taking_part = LEAVING[: most - start]
        for command, found in points.items():
            people = dict(zip(LEAVING, found[start:], strict=False))
            killed = {
                name: kill for name, kill in people.items() if at(kill, name).by(machine, "rosterd", command, name)
            }
            tally.not_reached += len(people) - len(killed)
            left = still_open(machine, people)
            closed = [name for name, what in left.items() if "login" not in what]
            got_in = with_good_keys(machine, *closed)
            reconcile(machine)
            # A point that is left over, or was not reached, is no command; nor is one that left no record.
            for name in taking_part:
                if name not in killed or is_unrecorded(killed[name], everywhere[command]):
                    machine.run("rosterd", command, name, check=False)
            wanted = set() if command == "cut" else EVERYTHING
            then = still_open(machine, taking_part)
            for name, kill in killed.items():
                wrong = [] if then[name] == wanted else [f"open is {then[name]}"]
                wrong += [f"got in: {name}"] if name in got_in else []
                # Where usermod alone was killed, the run went on with what needs no login.
                early = left[name] & ({"jobs"} if kill.tool else {"jobs", "routes"})
                wrong += [f"closed, but for {early}"] if name in closed and early else []
                tally.add(f"{command}: {kill}", torn=[], lost=[], wrong=wrong)
    changed = differences(before, everybody(machine))
    tally.judge("cut", "cut and return")
    assert changed == ""


def kills_of(machine: Machine, command: str) -> list[Kill]:
    """Give a command about the last of them, and return where it can be killed, from its first record on."""
    name = LEAVING[-1]
    plan_traces(machine, name, "usermod")
    own = traced_points(machine, "rosterd", command, name)
    own = list(dropwhile(lambda point: "rosterd-new" not in point.shown, own))
    tool = traced_points_of(machine, "usermod", name)
    assert len(own) > 15
    assert len(tool) > 10
    return [*map(Kill, own), *(Kill(point, "usermod", name) for point in tool)]


def at(kill: Kill, name: str) -> Kill:
    """Return the same point of a command about somebody else; files are called like the person."""
    point = replace(kill.point, file=kill.point.file.replace(LEAVING[-1], name))
    return Kill(point, kill.tool, name if kill.tool else "")


def is_unrecorded(kill: Kill, kills: list[Kill]) -> bool:
    """Say whether a command was killed before its first record was in place."""
    first = next(place for place, one in enumerate(kills) if one.point.call == "renameat")
    return kills.index(kill) <= first
