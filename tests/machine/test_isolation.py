"""One of fifty people hangs, in every kind of step in a home: the others have theirs done as quickly as ever."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machine.homes import (
    RECORDS,
    STEPS,
    assert_nothing_left,
    ended,
    home_workstation,
    unit_of,
    write_site,
)
from tests.machine.machine import Machine
from tests.machine.workstation import eventually, main_pid, reconcile, write_roster
from tests.proof.evidence import note, scaled

SLOW = "aaron"  # the first in every order
CROWD = tuple(f"person{number:02}" for number in range(scaled(7, 49)))
LONGEST = 5.0  # seconds that the others may lose
# In a unit of its own: a port of the machine's that takes no connection and refuses none, as behind a broken network.
HOLE_PORT = 8099
BLACK_HOLE = f"""\
import socket, time
with socket.socket() as hole:
    hole.bind(("127.0.0.1", {HOLE_PORT}))
    hole.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", {HOLE_PORT}))
    time.sleep(86400)
"""

# The agent's command of everybody, and his, which says nothing.
AGENT = """\
#!/bin/sh
[ "$(id -un)" != {slow} ] || exec sleep 86400
exec /usr/local/bin/claude.real "$@"
"""

# His process is held before each system call of a name, for longer than anybody waits: a disk that does not answer.
HELD = """\
[Service]
ExecStart=
ExecStart=/usr/bin/strace -f -qq -o /dev/null -e trace={calls} -e inject={calls}:delay_enter=900s \\
    /usr/lib/rosterd/home-steps
SystemCallFilter=
"""
DROP_IN = f"/etc/systemd/system/{unit_of(SLOW)}.d/held.conf"

LAST = '{command: {run: [/usr/bin/touch, "{home}/last"], creates: last}}'
ADMINS = "tiers: [admin]"


@dataclass(frozen=True)
class Kind:
    """A kind of step, how it hangs for him alone, and what shows that it does."""

    steps: dict[str, str]
    calls: str = ""
    workspace: bool = False


KINDS = {
    "command": Kind({"hangs": f"{{command: {{run: [/usr/bin/sleep, '86400'], creates: never}}, {ADMINS}}}"}),
    "git": Kind({"hangs": f'{{git: {{path: hole, url: "http://127.0.0.1:{HOLE_PORT}/x.git"}}, {ADMINS}}}'}),
    "directory": Kind({"hangs": f"{{directory: {{path: new-folder}}, {ADMINS}}}"}, calls="mkdir,mkdirat"),
    "file": Kind({"hangs": f'{{file: {{path: new-file, content: "x"}}, {ADMINS}}}'}, calls="fsync"),
    "mcp": Kind({"hangs": f'{{mcp: {{server: slow, url: "http://localhost:9/"}}, {ADMINS}}}'}),
    "layout change": Kind({}, calls="rename,renameat,renameat2", workspace=True),
}


@pytest.fixture(scope="module")
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a workstation on which everybody has everything."""
    with home_workstation(deb, STEPS | {"last": LAST}) as machine:
        machine.run("mv", "/usr/local/bin/claude", "/usr/local/bin/claude.real")
        machine.write("/usr/local/bin/claude", AGENT.format(slow="nobody"), mode=0o755)
        machine.run("systemd-run", "--quiet", "--unit=black-hole", "python3", "-c", BLACK_HOLE)
        put_on_roster(machine)
        reconcile(machine)
        yield machine


def put_on_roster(machine: Machine, **fields: object) -> None:
    """Put him and the crowd on the roster."""
    write_roster(machine, {SLOW: {"tier": "admin", **fields}, **{name: {} for name in CROWD}})


def seconds_until_all_are_done(machine: Machine, kind: Kind | None) -> tuple[float, str]:
    """Make a run; return after how many seconds the last of the crowd was done, and what the run said at its end.

    With a kind he hangs in a step of it meanwhile, and is ended when the others are done.
    """
    machine.sh('rm -f /home/*/last "$1"/*', RECORDS)
    started = float(machine.run("date", "+%s.%N").out)
    run = machine.start("rosterd", "reconcile")
    if kind is not None:
        eventually(lambda: main_pid(machine, unit_of(SLOW)) != 0, within=30)
    count = 'set -- /home/person*/last; [ -e "$1" ] && echo $#'
    eventually(lambda: machine.sh(count, check=False).out.strip() == str(len(CROWD)), within=60)
    made = machine.sh("stat --format=%.9Y /home/person*/last").out.split()
    if kind is not None:
        assert run.poll() is None, "nobody hung"
        assert main_pid(machine, unit_of(SLOW)) != 0
        machine.run("systemctl", "kill", "--signal=KILL", unit_of(SLOW))
    code, said, _ = ended(run, within=30)
    assert code == (0 if kind is None else 3), said
    return max(map(float, made)) - started, said


def let_hang(machine: Machine, kind: Kind) -> None:
    """Have him hang from now on, in a step of this kind."""
    write_site(machine, kind.steps | STEPS | {"last": LAST})
    machine.write("/usr/local/bin/claude", AGENT.format(slow=SLOW if kind is KINDS["mcp"] else "nobody"), mode=0o755)
    if kind.calls:
        machine.write(DROP_IN, HELD.format(calls=kind.calls))
        machine.run("systemctl", "daemon-reload")
    if kind.workspace:
        put_on_roster(machine, code_layout="workspace", repos=["api"])


def let_go(machine: Machine) -> None:
    """Have nobody hang any more."""
    machine.sh('rm -rf "$(dirname "$1")"; systemctl daemon-reload', DROP_IN)
    machine.write("/usr/local/bin/claude", AGENT.format(slow="nobody"), mode=0o755)
    write_site(machine, STEPS | {"last": LAST})


def half_made(machine: Machine) -> list[str]:
    """Return what a step that was killed has left at its place and is not whole."""
    script = 'cd "/home/$1"; ls -d hole 2>/dev/null; [ ! -e new-file ] || [ "$(cat new-file)" = x ] || echo new-file'
    return machine.sh(script, SLOW, check=False).out.split()


def test_whoever_hangs_in_whatever_step_holds_nobody_up(machine: Machine) -> None:
    alone, _ = seconds_until_all_are_done(machine, None)
    lost: dict[str, float] = {}
    wrong: list[str] = []
    for name in list(KINDS)[-scaled(2, len(KINDS)) :]:
        let_hang(machine, KINDS[name])
        among, said = seconds_until_all_are_done(machine, KINDS[name])
        lost[name] = among - alone
        failed = [line for line in said.splitlines() if " FAILED " in line]
        named = all(f" {SLOW}: FAILED home step " in line for line in failed)
        wrong += [] if failed and named else [f"{name}: {said}"]
        wrong += [
            f"{name}: {path} is there, half made"
            for path in ("hole", "new-file")
            if machine.exists(f"/home/{SLOW}/{path}")
        ]
        let_go(machine)
        assert_nothing_left(machine)
    note("isolation", people=len(CROWD) + 1, kinds=len(lost), longest_delay_ms=round(max(lost.values()) * 1000))
    assert max(lost.values()) < LONGEST, json.dumps(lost)
    assert not wrong, "\n".join(wrong)
    put_on_roster(machine)
    reconcile(machine, "--retry")
