"""A machine to break things in, and what the host itself says of what became of it.

rosterd is put in place from the checkout, as the package would, and no unit of it starts a run. What people run are
stand-ins that only wait, so nobody looks whether they listen.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.machine.machine import Command, Machine
from tests.machine.rootfs import rootfs

ROSTER = "/etc/rosterd/roster.yaml"
SITE = "/etc/rosterd/site.yaml"
ADMIN_GROUPS = ("docker", "code-shared", "sudo", "rosterd")
RUN_LIMIT = 30.0  # seconds that a run may take, whatever is wrong

# Compiled, or every run would read the sources anew.
INSTALL = """
cp -r /src/reconciler /usr/lib/python3/dist-packages/
python3 -m compileall -q /usr/lib/python3/dist-packages/reconciler
install -m 755 /src/packaging/rosterd /usr/sbin/rosterd
cp /src/units/*@.* /etc/systemd/system/
printf '#!/bin/sh\\nexec sleep infinity\\n' >/usr/bin/t3
cp /usr/bin/t3 /usr/bin/npx
chmod 755 /usr/bin/t3 /usr/bin/npx
groupadd --system docker
groupadd --system code-shared
mkdir -p /etc/rosterd
printf 'settle: 0\\nlisten: 0\\n' >/etc/rosterd/site.yaml
systemctl daemon-reload
"""

# Folders, a link, a program, a secret, an empty and a large file: what a copy can be interrupted in.
SKEL = """
cd /etc/skel
mkdir -p .config/editor empty
head -c 20000 /dev/zero | tr '\\0' x >.config/editor/large
echo '#!/bin/sh' >program
chmod 755 program
echo key >secret
chmod 600 secret
: >nothing
ln -s .bashrc link
"""

# Each argument is NAME=GROUP,GROUP…: says what is wrong with an account, by the host's own tools.
ACCOUNT_PROBLEMS = r"""
for wanted in "$@"; do
    name=${wanted%%=*}
    say() { echo "$name: $*"; }
    entry=$(getent passwd "$name") || { say "no account"; continue; }
    gid=$(echo "$entry" | cut -d: -f4)
    for file in passwd shadow group gshadow subuid subgid; do
        count=$(grep -c "^$name:" "/etc/$file" || :)
        [ "$count" = 1 ] || say "$count lines in /etc/$file"
    done
    [ "$(getent group "$name" | cut -d: -f3)" = "$gid" ] || say "primary group $gid is not $name"
    case $(getent shadow "$name" | cut -d: -f2) in '!'* | '*') ;; *) say "password is not locked" ;; esac
    home=$(stat -c '%F %a %U:%G' "/home/$name" 2>&1) || :
    [ "$home" = "directory 700 $name:$name" ] || say "home: $home"
    has=" $(id -nG "$name" 2>&1 || :) "
    for group in $(echo "${wanted#*=}" | tr , ' '); do
        case $has in *" $group "*) ;; *) say "not in the group $group" ;; esac
    done
    diff -rq --no-dereference /etc/skel "/home/$name" 2>&1 | grep -v "^Only in /home/$name" | while read -r line; do
        say "skel: $line"
    done
    find "/home/$name" ! -user "$name" -printf '%p belongs to %U\n' -o ! -group "$name" -printf '%p is of group %G\n' |
        while read -r line; do say "skel: $line"; done
    [ -x "/home/$name/program" ] || [ ! -e /etc/skel/program ] || say "skel: program cannot be executed"
done
"""

# Everything that a run changes, by content, owner and mode; and which units are enabled and run.
FINGERPRINT = """
cd /
files="/etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/subuid /etc/subgid /etc/ttyd-user-map /etc/ttyd-admins"
for path in $files; do [ -e "$path" ] && stat -c '%n %i %a %U %Y' "$path" && sha256sum "$path"; done || :
find /etc/t3-serve /var/lib/rosterd/* /home /srv ! -path /var/lib/rosterd/last-run \\
    -printf '%p %i %m %U:%G %s %T@ %C@ %l\\n' 2>/dev/null | sort
find /etc/systemd/system -type l -printf '%p %l\\n' | sort
systemctl list-units --no-legend --plain --all 't3-serve@*' 'playwright-*@*' | sort
"""


@dataclass(frozen=True)
class Run:
    """One run of rosterd: its exit code, all that it said, and how many seconds it took."""

    code: int
    said: str
    seconds: float

    def __str__(self) -> str:
        """Show everything, for the message of a failed test."""
        return f"exit code {self.code} after {self.seconds:.2f} s, and said:\n{self.said}"


@contextmanager
def breakable(release: str = "bookworm", *, skel: bool = False) -> Iterator[Machine]:
    """Boot a machine with rosterd in place and a quick site; with `skel`, one that is easy to copy by half."""
    with Machine(rootfs(release)) as machine:
        machine.sh(INSTALL)
        if skel:
            machine.sh(SKEL)
        yield machine


def write_roster(machine: Machine, users: Mapping[str, Mapping[str, Any]] | Iterable[str]) -> None:
    """Put a roster in place; who has nothing but a name is an admin."""
    entries = users if isinstance(users, Mapping) else {name: {} for name in users}
    lines = ["users:" if entries else "users: {}"]
    for name, fields in entries.items():
        entry = {"authentik_user": f"{name}.id", "k8s_user": name, "tier": "admin", **fields}
        lines.append(f"  {name}: {json.dumps(entry)}")
    machine.write(ROSTER, "\n".join(lines) + "\n")


def run(machine: Machine, *arguments: str, code: int | None = 0, limit: float = RUN_LIMIT) -> Run:
    """Make a run that has to end with this exit code, within `limit` seconds."""
    started = time.monotonic()
    result = machine.run("rosterd", *(arguments or ("reconcile",)), check=False, timeout=limit)
    done = Run(result.code, result.out + result.err, time.monotonic() - started)
    assert code in {None, done.code}, str(done)
    return done


def account_problems(machine: Machine, names: Iterable[str], groups: Iterable[str] = ADMIN_GROUPS) -> list[str]:
    """Return what is wrong with these accounts, which are to be complete."""
    wanted = [f"{name}={','.join(groups)}" for name in names]
    return machine.sh(ACCOUNT_PROBLEMS, *wanted).out.splitlines()


def service_problems(machine: Machine, names: Iterable[str]) -> list[str]:
    """Return what of people's services does not run, is not enabled, or has no port of its own."""
    problems = []
    units = [unit for name in names for unit in units_of(name)]
    for verb, wanted in (("is-active", "active"), ("is-enabled", "enabled")):
        told = machine.run("systemctl", verb, *units, check=False).out.splitlines()
        problems += [f"{unit} is {state}" for unit, state in zip(units, told, strict=True) if state != wanted]
    lines = machine.sh("cat /etc/t3-serve/*.env").out.split()
    ports = [line.partition("=")[2] for line in lines if "_PORT=" in line]
    if len(ports) != len(set(ports)) or len(ports) < 2 * len(list(names)):
        problems.append(f"ports: {' '.join(lines)}")
    return problems


def map_problems(machine: Machine, names: Iterable[str]) -> list[str]:
    """Return in which of the maps people are missing, or are besides them."""
    expected = sorted(names)
    user_map = machine.sh("sed -n 's/^[^#].*=//p' /etc/ttyd-user-map").out.split()
    table = json.loads(machine.read("/etc/t3-serve/dispatch.json"))
    found = {
        "ttyd-user-map": sorted(user_map),
        "ttyd-admins": machine.read("/etc/ttyd-admins").split(),
        "dispatch.json": sorted(entry["os_user"] for entry in table.values()),
    }
    problems = [f"{name}: {people}" for name, people in found.items() if people != expected]
    for entry in table.values():
        kept = machine.read(f"/etc/t3-serve/{entry['os_user']}.env").splitlines()
        if kept.count(f"T3_PORT={entry['port']}") != 1:
            problems.append(f"dispatch.json: {entry}, but the env file has {kept}")
    return problems


def leftovers(machine: Machine) -> list[str]:
    """Return temporary files of rosterd's, and records of accounts being created."""
    find = "find /etc /var/lib/rosterd /run/rosterd -name '*rosterd-new*' -o -path '*/creating/*'"
    return machine.sh(f"{find} 2>/dev/null || :").out.split()


def everything_wrong(machine: Machine, names: Iterable[str]) -> list[str]:
    """Return all that is wrong where these admins, and nobody else, are to have everything."""
    names = list(names)
    return [
        *account_problems(machine, names),
        *service_problems(machine, names),
        *map_problems(machine, names),
        *leftovers(machine),
    ]


def units_of(name: str) -> list[str]:
    """Return the units that a person runs."""
    services = ("t3-serve@{}.service", "playwright-mcp@{}.service", "playwright-snapshot-refresh@{}.timer")
    return [service.format(name) for service in services]


def fingerprint(machine: Machine) -> str:
    """Return all that a run could have changed, as text: the same text means that nothing was."""
    return machine.sh(FINGERPRINT).out


def start_waiting(machine: Machine, script: str) -> Command:
    """Start a Python program in the machine that then waits; return when it has come that far."""
    program = f"{script}\nprint('ready', flush=True)\nimport time\ntime.sleep(600)\n"
    command = machine.start("python3", "-c", program)
    assert command.stdout is not None
    assert command.stdout.readline() == "ready\n"
    return command
