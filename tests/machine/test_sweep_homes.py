"""Steps in homes that are killed, in rosterd, in the child that takes them, or in git: the next run finishes them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.homes import HEAD, STEPS, home_workstation, write_site
from tests.machine.kill_points import sample
from tests.machine.killed_tools import kills, make_killable, plan_kills, plan_traces, traced_points_of
from tests.machine.machine import Machine
from tests.machine.sweep import Sweep, Tally, differences, look, restore, save
from tests.machine.workstation import SITE, reconcile, write_roster
from tests.proof.evidence import scaled

WORKER = "home-steps"
SINGLE: dict[str, Any] = {}
WORKSPACE: dict[str, Any] = {"code_layout": "workspace", "repos": ["api"]}
# One for each of so many points at once.
PEOPLE = {f"h{number:02}": WORKSPACE if number % 2 else SINGLE for number in range(scaled(4, 12))}
ONE = min(PEOPLE)
# The child is started by systemd, and strace is none of what its sandbox allows.
ALLOW_STRACE = "[Service]\nSystemCallFilter=@debug\nReadWritePaths=/run/sweep\n"
# Says what is wrong with a clone, by git itself, as its owner.
CLONE_PROBLEMS = """
for clone; do
    owner=$(stat -c %U "$clone" 2>/dev/null) || { echo "$clone: not there"; continue; }
    runuser -u "$owner" -- git -C "$clone" fsck --no-progress 2>&1 | sed "s|^|$clone: |"
    runuser -u "$owner" -- git -C "$clone" status --porcelain 2>&1 | sed "s|^|$clone: |"
    [ "$(git -C "$clone" rev-parse HEAD origin/main | uniq | wc -l)" = 1 ] || echo "$clone: not at main"
done
"""
NOTHING_ELSE = "services: {}\n"
# As in STEPS, without a port.
CONF = '{file: {path: .config/app/conf, content: "user={user} {tier}\\n", keep: current}}'


@pytest.fixture(scope="module")
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a machine whose people, two or all, have accounts and homes in which no step was taken."""
    with home_workstation(deb) as machine:
        machine.run("rm", "/usr/local/bin/claude")
        make_killable(machine, f"/usr/lib/rosterd/{WORKER}", "/usr/local/bin/git")
        machine.write("/etc/systemd/system/rosterd-home@.service.d/strace.conf", ALLOW_STRACE)
        machine.run("systemctl", "daemon-reload")
        for start, people in (("two", dict(list(PEOPLE.items())[:2])), ("all", PEOPLE)):
            machine.write(SITE, NOTHING_ELSE)
            write_roster(machine, people)
            reconcile(machine)
            write_site(machine, {**STEPS, "conf": CONF}, head=NOTHING_ELSE + HEAD)
            save(machine, start)
        yield machine


def clone_problems(machine: Machine, names: Iterable[str]) -> list[str]:
    """Return what is wrong with people's clones; a workspace has two in its folder of code."""
    clones = []
    for name in names:
        below = ["code/infra", "code/api"] if PEOPLE[name] is WORKSPACE else ["code"]
        clones += [f"/home/{name}/{clone}" for clone in (*below, "src/extra")]
    return machine.sh(CLONE_PROBLEMS, *clones).out.splitlines()


def test_rosterd_killed_at_any_change_while_steps_are_taken(machine: Machine) -> None:
    restore(machine, "two")
    sweep = Sweep(machine, "rosterd", "reconcile")
    points = sweep.undisturbed()
    assert not clone_problems(machine, list(PEOPLE)[:2])
    assert len(points) >= 10
    for point in sample(points, 3):
        sweep.kill(point)
    sweep.tally.judge("homes", "rosterd, while steps are taken")


@pytest.mark.parametrize(("tool", "word", "size"), [(WORKER, "any", 4), ("git", "clone", 4)])
def test_a_child_in_a_home_killed_at_any_change(machine: Machine, tool: str, word: str, size: int) -> None:
    restore(machine, "all")
    plan_traces(machine, f"{ONE}:{word}", tool)
    reconcile(machine)
    points = traced_points_of(machine, tool, f"{ONE}:{word}")
    assert len(points) > 50
    wanted = look(machine)
    assert not clone_problems(machine, PEOPLE)
    tally = Tally()
    chosen = sample(points, size)
    for start in range(0, len(chosen), len(PEOPLE)):
        restore(machine, "all")
        people = dict(zip(PEOPLE, chosen[start:], strict=False))
        plan_kills(machine, tool, {f"{name}:{word}": point for name, point in people.items()})
        reconcile(machine, code=3)
        ends = kills(machine)
        # Who failed has a pause; this is after it.
        reconcile(machine, "--retry")
        wrong = [*differences(look(machine), wanted), *clone_problems(machine, PEOPLE)]
        for name, point in people.items():
            if ends.get(f"{name}:{word}") != "137":
                tally.not_reached += 1
                continue
            own = [problem for problem in wrong if f"/{name}" in problem.partition(":")[0]]
            wrong = [problem for problem in wrong if problem not in own]
            tally.add(f"{tool} {point}", torn=[], lost=[], wrong=own)
        assert not wrong
    tally.judge("homes", tool)
