"""A random history on a real machine: edits, cuts, returns, kills and breakages by hand, and a look after each run.

The seed is told, so that a history can be had again: `ROSTERD_SEED=N`. All of it looks with the host's own tools.
"""

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.machine.faults import breakable, run, write_roster
from tests.machine.machine import Machine
from tests.machine.test_interrupted_cut import RUN_KILLED
from tests.proof.evidence import note, scaled

STEPS = scaled(12, 150)
NAMES = ("ann", "bea", "cid", "dan", "eve")
ADMIN, STRANGER = "alice", "mallory"
UNITS = {
    "t3": ["t3-serve@{}.service"],
    "playwright": ["playwright-mcp@{}.service", "playwright-snapshot-refresh@{}.timer"],
}
ALL_CUTS = ("reconcile", "--allow-cuts", "9")
CLOSED: dict[str, Any] = {
    "login": "!", "expiry": "1", "way in": "", "processes": [], "crontab": "", "maps": [], "units": [], "enabled": [],
}  # fmt: skip

# Somebody whom rosterd has nothing to do with.
MAKE_STRANGER = r"""
useradd --create-home --shell /bin/bash --groups docker "$1"
echo "$1:secret" | chpasswd
runuser -u "$1" -- sh -c 'echo mine >~/file; mkdir ~/folder; mkfifo ~/pipe'
echo '1 2 3 4 5 true' | crontab -u "$1" -
"""
# What each person has of their own: a password, a file, a job, a process.
SETTLE_IN = r"""
for name; do
    [ ! -e "/home/$name/canary" ] || continue
    echo "$name:secret of $name" | chpasswd
    runuser -u "$name" -- sh -c "head -c 1000 /dev/urandom >~/canary"
    echo "1 2 3 4 5 true $name" | crontab -u "$name" -
    runuser -u "$name" -- setsid -f sleep 80001 >/dev/null 2>&1 </dev/null
done
"""
# Says of each person what there is of them, as JSON. No shell script, which would be slow: it looks after each step.
LOOK = r"""
import collections, hashlib, json, os, stat, subprocess, sys

def rows(path):
    with open(path) as file:
        return [line.split(":") for line in file.read().splitlines()]

def digest(path):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""

def port(path, variable):
    try:
        with open(path) as file:
            return [line.partition("=")[2] for line in file.read().split() if line.startswith(variable + "=")][-1]
    except (OSError, IndexError):
        return ""

def home(name):
    try:
        found = os.stat(f"/home/{name}")
    except OSError:
        return ""
    return f"{found.st_ino} {found.st_uid}:{found.st_gid} {stat.S_IMODE(found.st_mode):o}"

def maps(name):
    found = []
    for path in ("/etc/ttyd-user-map", "/etc/t3-serve/dispatch.json"):
        with open(path) as file:
            found += [path] if name + ".id" in file.read() else []
    return found

pids = collections.defaultdict(list)
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        pids[str(os.stat(f"/proc/{pid}").st_uid)].append(pid)
    except OSError:
        pass
names = sys.argv[1:]
units = [f"{kind}{name}.{end}" for name in names for kind, end in
         (("t3-serve@", "service"), ("playwright-mcp@", "service"), ("playwright-snapshot-refresh@", "timer"))]
show = ["systemctl", "show", "--property=Id,ActiveState,UnitFileState,MainPID", *units]
told = subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip().split("\n\n")
states = {one["Id"]: one for one in (dict(line.split("=", 1) for line in block.splitlines()) for block in told)}
shadow = {row[0]: row for row in rows("/etc/shadow")}
groups = rows("/etc/group")
looks = {}
for entry in rows("/etc/passwd"):
    name, uid = entry[0], entry[2]
    if name not in names:
        continue
    own = {unit: state for unit, state in states.items() if f"@{name}." in unit}
    login = shadow.get(name, [name, "none"] + [""] * 7)
    entered = ""
    if login[7] == "1":
        entered = subprocess.run(["su", name, "-c", "echo in"], capture_output=True, text=True).stdout
    looks[name] = {
        "entry": ":".join(entry), "uid": uid, "login": login[1], "expiry": login[7], "way in": entered,
        "groups": [row[0] for row in groups if name in row[3].split(",") or row[2] == entry[3]],
        "home": home(name), "canary": digest(f"/home/{name}/canary"),
        "crontab": digest(f"/var/spool/cron/crontabs/{name}"),
        "t3": port(f"/etc/t3-serve/{name}.env", "T3_PORT"),
        "playwright": port(f"/etc/t3-serve/playwright-{name}.env", "PLAYWRIGHT_PORT"),
        "processes": pids[uid], "maps": maps(name),
        "units": sorted(unit for unit, state in own.items() if state["ActiveState"] not in ("inactive", "failed")),
        "enabled": sorted(unit for unit, state in own.items() if state["UnitFileState"] == "enabled"),
        "t3 pid": own[f"t3-serve@{name}.service"]["MainPID"],
    }
print(json.dumps(looks))
"""
# All that there is of the stranger, byte for byte.
OF_STRANGER = r"""
grep -h "^$1:" /etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/subgid
id "$1"
find "/home/$1" -printf '%p %i %m %U:%G %s %T@ %C@ %l\n' | sort
find "/home/$1" -type f -exec sha256sum {} +
stat -c '%i %U:%G %a %Y' "/var/spool/cron/crontabs/$1"
sha256sum "/var/spool/cron/crontabs/$1"
"""
DOUBLED = r"""
cut -d: -f3 /etc/passwd | sort | uniq -d
cut -d: -f3 /etc/group | sort | uniq -d
cat /etc/t3-serve/*.env | sed -n 's/.*_PORT=//p' | sort | uniq -d
cut -d= -f1 /etc/ttyd-user-map | grep -v '^#' | sort | uniq -d
cut -d: -f2 /etc/subuid | sort | uniq -d
find /etc /var/lib/rosterd -name '*rosterd-new*'
"""
LOSE = {
    "shadow": 'sed -i "/^$1:/d" /etc/shadow',
    "group": 'sed -i "/^$1:/d" /etc/group',
    "gshadow": 'sed -i "/^$1:/d" /etc/gshadow',
    "subids": 'sed -i "/^$1:/d" /etc/subuid /etc/subgid',
    "home": 'rm -rf --one-file-system "/home/$1"',
}
BREAK = {
    "stop": 'systemctl stop "t3-serve@$1.service"',
    "disable": 'systemctl --quiet disable "t3-serve@$1.service"',
    "env": 'rm -f "/etc/t3-serve/playwright-$1.env"',
    "line": 'printf "SECRET=%s\\n" "$1" >>"/etc/t3-serve/$1.env"',
    "maps": "rm -f /etc/ttyd-user-map /etc/t3-serve/dispatch.json",
}
OPEN = {
    "unlock": 'usermod --expiredate "" --unlock "$1"',
    "process": 'setpriv --reuid "$1" --regid "$1" --clear-groups setsid -f sleep 80002 >/dev/null 2>&1 </dev/null',
    "crontab": 'echo "* * * * * true" | crontab -u "$1" -',
    "service": 'systemctl start "t3-serve@$1.service"',
    "map": 'echo "$1.id=$1" >>/etc/ttyd-user-map',
}

Look = dict[str, dict[str, Any]]


@dataclass
class History:
    """What has happened so far. `commanded` are those cut off by command, `first` how the login was before a cut."""

    machine: Machine
    chance: random.Random
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    commanded: set[str] = field(default_factory=set)
    first: dict[str, tuple[str, str]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    now: Look = field(default_factory=dict)

    def sh(self, script: str, *arguments: str) -> None:
        """Do something by hand."""
        self.machine.sh(script, *arguments)

    def write(self) -> None:
        """Put the roster in place."""
        write_roster(self.machine, {ADMIN: {}, **self.users})

    def look(self) -> Look:
        """Return what there is of everybody."""
        found: Look = json.loads(self.machine.run("python3", "-c", LOOK, ADMIN, *NAMES).out)
        return found

    # --- steps: each returns whose lines of the next look may be others than before, and says what it did ---

    def edit(self, name: str) -> set[str]:
        """Put somebody on the roster, or change their entry."""
        tier = self.chance.choice(["power-user", "namespace-owner"])
        services = self.chance.choice([{}, {"playwright": False}, {"t3": False}])
        entry: dict[str, Any] = {"tier": tier, "parked": self.chance.random() < 0.3, "services": services}
        self.users[name] = entry | ({"namespaces": ["shop"]} if tier == "namespace-owner" else {})
        self.write()
        return {name}

    def leave(self, name: str) -> set[str]:
        """Take somebody off the roster."""
        self.users.pop(name, None)
        self.write()
        return {name}

    def cut(self, name: str) -> set[str]:
        """Cut somebody off by command; the command may be killed before it is given again."""
        if name in self.now:
            if self.chance.random() < 0.5:
                self.be_killed(name, "cut", name)
            run(self.machine, "cut", name)
            self.commanded.add(name)
            self.seen["cuts"] += 1
        return {name}

    def uncut(self, name: str) -> set[str]:
        """Let somebody in again."""
        if name in self.commanded & self.users.keys():
            run(self.machine, "uncut", name)
            self.commanded.discard(name)
            self.seen["returns"] += 1
        return {name}

    def be_killed(self, _name: str, *arguments: str) -> set[str]:
        """Make a run that is killed at some moment, or after some actions."""
        arguments = arguments or ALL_CUTS
        if self.chance.random() < 0.5:
            actions = str(self.chance.randint(1, 12))
            killed = self.machine.run("/usr/bin/python3", "/root/killed.py", actions, *arguments, check=False).code < 0
        else:
            command = self.machine.start("rosterd", *arguments)
            time.sleep(self.chance.uniform(0.1, 0.6))
            killed = command.poll() is None
            command.kill()
            command.end()
        self.seen["killed"] += killed
        return set()

    def lose(self, name: str) -> set[str]:
        """Delete a part of an account of somebody who is at work."""
        if name in self.at_work():
            what = self.chance.choice(sorted(LOSE))
            self.told.append(what)
            self.sh(LOSE[what], name)
            self.seen["broken_by_hand"] += 1
        return {name}

    def break_something(self, name: str) -> set[str]:
        """Break something of somebody who is at work, or all maps."""
        if name in self.at_work():
            what = self.chance.choice(sorted(BREAK))
            self.told.append(what)
            self.sh(BREAK[what], name)
            self.seen["broken_by_hand"] += 1
        return {name}

    def open(self, name: str) -> set[str]:
        """Open something by hand for somebody who is cut off."""
        closed = sorted(name for name, found in self.now.items() if found["expiry"] == "1")
        if closed:
            name, what = self.chance.choice(closed), self.chance.choice(sorted(OPEN))
            self.told.append(f"{what} for {name}")
            self.sh(OPEN[what], name)
            self.seen["opened_by_hand"] += 1
        return {name}

    def at_work(self) -> set[str]:
        """Return those of the roster who have an account and are not cut off."""
        return {name for name, found in self.now.items() if name in self.users and found["expiry"] != "1"}

    def step(self) -> None:
        """Take a step, make a run, and see what is so."""
        kinds: list[Callable[[str], set[str]]] = [
            self.edit, self.edit, self.edit, self.leave, self.cut, self.uncut, self.be_killed, self.be_killed,
            self.lose, self.break_something, self.open,
        ]  # fmt: skip
        kind, name = self.chance.choice(kinds), self.chance.choice(NAMES)
        self.told.append(f"{kind.__name__} {name}")
        before = self.now
        for one, found in before.items():
            if found["expiry"] != "1":
                self.first[one] = (found["login"], found["expiry"])
        touched = kind(name)
        run(self.machine, *ALL_CUTS)
        self.sh(SETTLE_IN, *sorted(self.users.keys() - self.commanded))
        run(self.machine, "reconcile", "--dry-run", "--detailed-exitcode")
        self.seen["steps"] += 1
        self.now = self.look()
        self.check(before, self.now, touched)

    # --- what is so ---

    def check(self, before: Look, after: Look, touched: set[str]) -> None:
        """See that nothing is shared, nobody has lost anything, and nobody cut off has a way in."""
        assert self.machine.sh(DOUBLED).out == ""
        here = {*self.users, ADMIN} - self.commanded
        for name, found in before.items():
            assert after[name]["entry"] == found["entry"]
            assert set(after[name]["groups"]) >= set(found["groups"])
        for name in here:
            self.check_at_work(name, after[name])
            if name in before and name not in touched and before[name]["expiry"] != "1":
                self.check_nothing_is_taken(before[name], after[name])
        for name in after.keys() - here:
            closed = {**after[name], "login": after[name]["login"][:1]}
            assert {what: closed.get(what, "") for what in CLOSED} == CLOSED, name
            self.seen["seen_closed"] += 1
        for name in before.keys() & here:
            if before[name]["expiry"] == "1":
                assert (after[name]["login"], after[name]["expiry"]) == self.first[name], name

    def check_at_work(self, name: str, found: dict[str, Any]) -> None:
        """See that somebody has what the roster says: login, home, group, ports, services, map."""
        entry = self.users.get(name, {})
        switched = {"t3": True, "playwright": True} | entry.get("services", {})
        running = [] if entry.get("parked") else [one for one, is_on in switched.items() if is_on]
        assert found["expiry"] == ""
        assert found["home"].endswith(f" {found['uid']}:{found['uid']} 700"), found["home"]
        assert {"rosterd", name} <= set(found["groups"])
        wanted = sorted(unit.format(name) for service in running for unit in UNITS[service])
        assert found["units"] == found["enabled"] == wanted
        assert found["maps"] == ["/etc/ttyd-user-map", "/etc/t3-serve/dispatch.json"][: 1 + ("t3" in running)]
        assert all(found[service].isdigit() for service in running)

    def check_nothing_is_taken(self, had: dict[str, Any], has: dict[str, Any]) -> None:
        """See that somebody of whom nobody spoke is as they were, to the process."""
        kept = ("entry", "login", "expiry", "home", "canary", "t3", "playwright", "crontab", "t3 pid")
        assert {what: has[what] for what in kept} == {what: had[what] for what in kept}
        assert set(has["processes"]) >= set(had["processes"])


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Boot a machine with somebody on it who is not managed."""
    with breakable() as machine:
        machine.write("/root/killed.py", RUN_KILLED)
        machine.sh(MAKE_STRANGER, STRANGER)
        yield machine


def test_whatever_happens_the_next_run_sets_it_right(machine: Machine) -> None:
    seed = int(os.environ.get("ROSTERD_SEED") or random.SystemRandom().randrange(10**6))
    sys.stdout.write(f"ROSTERD_SEED={seed}\n")
    history = History(machine, random.Random(seed))  # noqa: S311 (no secret)
    stranger = machine.sh(OF_STRANGER, STRANGER).out
    history.users = {name: {"tier": "power-user"} for name in NAMES[:3]}
    history.write()
    run(machine)
    machine.sh(SETTLE_IN, ADMIN, *history.users)
    history.now = history.look()
    try:
        for _ in range(STEPS):
            history.step()
            assert machine.sh(OF_STRANGER, STRANGER).out == stranger
    finally:
        sys.stdout.write("\n".join(history.told) + "\n")
        note("histories_machine", histories=1, **history.seen)
