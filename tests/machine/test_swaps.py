"""The files that rosterd reads are swapped while runs go: each run goes by one of them, whole, never by a bad one."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import pytest

from tests.machine.faults import (
    ROSTER,
    SITE,
    account_problems,
    breakable,
    everything_wrong,
    fingerprint,
    map_problems,
    run,
    service_problems,
    write_roster,
)
from tests.machine.machine import Command, Machine
from tests.proof.evidence import note, scaled

RUNS = scaled(8, 150)
STRANGER = "mallory"  # stands in what is not to be trusted alone

# The two files as they may be: everything that the one says is otherwise in the other.
ROSTERS = {
    version: "users:\n"
    + "".join(
        f"  {name}: {{authentik_user: {name}.{version}, k8s_user: {name}, tier: {tier}{more}}}\n"
        for name, tier, more in (
            ("anna", "admin", ""),
            ("emma", "power-user", f", services: {{playwright: {json.dumps(version == 'a')}}}"),
            ("fred", "power-user", f", parked: {json.dumps(version != 'a')}"),
            ("gina", "admin" if version == "a" else "power-user", ""),
            *((STRANGER, "admin", "") for _ in range(version == "bad")),
        )
    )
    for version in ("a", "b", "bad")
}
TASKS = {"a": 601, "b": 602, "bad": 666}
SITES = {
    version: "settle: 0\nlisten: 0\ntiers:\n  admin: {groups: [code-shared, docker, sudo], admin: true}\n"
    f"  power-user: {{limits: {{tasks_max: {tasks}}}}}\n"
    for version, tasks in TASKS.items()
}

# Swaps both files as fast as it can: good ones, links, and what others could have written; each by a rename. It ends
# when it is told to, with how often it did.
SWAPPER = """\
import os, random, signal, sys, time
files = sys.argv[1:]
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
def text_of(file, version):
    with open(f"/root/versions/{version}.{os.path.basename(file)}") as source:
        return source.read()
def put(file, version, mode=0o644, owner=0, cut=None):
    with open(file + ".new", "w") as new:
        new.write(text_of(file, version)[:cut])
        os.fchmod(new.fileno(), mode)
        os.fchown(new.fileno(), owner, 0)
    os.rename(file + ".new", file)
def link(file):
    os.symlink(f"/root/versions/bad.{os.path.basename(file)}", file + ".new")
    os.rename(file + ".new", file)
def fifo(file):
    os.mkfifo(file + ".new")
    os.rename(file + ".new", file)
bad = [
    link, fifo,
    lambda file: put(file, "bad", mode=0o666),
    lambda file: put(file, "bad", mode=0o664),
    lambda file: put(file, "bad", owner=1234),
    lambda file: put(file, "b", cut=-9),
]
swaps = 0
print("ready", flush=True)
while not ended:
    file = random.choice(files)
    if random.random() < 0.8:
        random.choice(bad)(file)
        swaps += 1
        time.sleep(random.random() / 200)
    put(file, random.choice("ab"))
    swaps += 1
    time.sleep(random.random() / 200)
print(swaps, flush=True)
"""

# What the machine shows of the version it was brought to, and of whom there must not be.
SHOWN = r"""
sed -n 's/^[a-z]*\.\([a-z]*\)=.*/identity \1/p' /etc/ttyd-user-map
grep -o '"[a-z]*\.[a-z]*"' /etc/t3-serve/dispatch.json | sed 's/.*\.\(.*\)"/route \1/'
for unit in playwright-mcp@emma t3-serve@fred; do
    systemctl is-active "$unit" >/dev/null && echo "unit a" || echo "unit b"
    systemctl is-enabled "$unit" >/dev/null 2>&1 && echo "link a" || echo "link b"
done
grep -qx gina /etc/ttyd-admins && echo "admin a" || echo "admin b"
grep -q '"fred\.' /etc/t3-serve/dispatch.json && echo "fred a" || echo "fred b"
for name in emma fred; do
    echo "tasks $(systemctl show --property=TasksMax --value "user-$(id -u $name).slice")"
done
getent passwd mallory || :
"""

# In place of useradd: takes as long as there is a file.
HELD_TOOL = """\
#!/bin/sh
touch /run/at-work
while [ -e /run/hold ]; do sleep 0.02; done
exec "$0.real" "$@"
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Boot a machine on which each test makes its own roster."""
    with breakable() as machine:
        machine.run("mv", "/usr/sbin/useradd", "/usr/sbin/useradd.real")
        machine.write("/usr/sbin/useradd", HELD_TOOL, mode=0o755)
        for version, roster in ROSTERS.items():
            machine.write(f"/root/versions/{version}.roster.yaml", roster)
            machine.write(f"/root/versions/{version}.site.yaml", SITES[version])
        yield machine


@pytest.fixture
def host(machine: Machine) -> Machine:
    """Take away what a test before has left of people, of the files, and of their folders."""
    machine.sh("""
        rm -rf /etc/rosterd /etc/t3-serve /root/real /srv/one /root/kept /run/hold /run/at-work
        for name in $(getent group rosterd | cut -d: -f4 | tr , ' '); do
            systemctl disable --now --quiet "t3-serve@$name.service" "playwright-mcp@$name.service" \
                "playwright-snapshot-refresh@$name.timer" 2>/dev/null || :
            userdel -rf "$name" 2>/dev/null || :
        done
        rm -rf /var/lib/rosterd /etc/ttyd-* /etc/systemd/system/user-*.slice.d /etc/systemd/system/*@*.service.d
        systemctl daemon-reload
    """)
    machine.write(SITE, "settle: 0\nlisten: 0\n")
    return machine


def versions_shown(machine: Machine) -> tuple[set[str], set[str], list[str]]:
    """Return by which rosters and by which policies the machine is, and what must not be there."""
    lines = machine.sh(SHOWN).out.splitlines()
    tasks = {line.partition(" ")[2] for line in lines if line.startswith("tasks ")}
    strange = [line for line in lines if line.startswith(STRANGER)]
    rosters = {line.partition(" ")[2] for line in lines if not line.startswith(("tasks ", STRANGER))}
    return rosters, tasks, strange


@dataclass
class Seen:
    """What came of the runs so far."""

    codes: Counter[int]
    by: Counter[str]
    mixed: int
    untrusted: int
    wrong: list[str]


def test_each_run_goes_by_one_version_of_the_files_and_by_no_untrusted_one(host: Machine) -> None:
    host.write(ROSTER, ROSTERS["a"])
    host.write(SITE, SITES["a"])
    run(host)
    assert versions_shown(host) == ({"a"}, {"601"}, [])
    swapper = host.start("python3", "-c", SWAPPER, ROSTER, SITE)
    assert swapper.stdout is not None
    assert swapper.stdout.readline() == "ready\n"
    seen = Seen(Counter(), Counter(), 0, 0, [])
    for _ in range(RUNS):
        done = run(host, code=None)
        seen.codes[done.code] += 1
        rosters, tasks, strange = versions_shown(host)
        seen.by.update(rosters)
        seen.mixed += len(rosters) != 1 or len(tasks) != 1
        seen.untrusted += bool(strange) or "bad" in rosters or "666" in tasks
        good = len(rosters) == 1 and rosters <= {"a", "b"} and tasks in ({"601"}, {"602"}) and not strange
        fine = done.code in {0, 3, 5} and "Traceback" not in done.said
        seen.wrong += [] if good and fine else [f"{rosters} {tasks} {strange}: {done}"]
    swapper.terminate()
    swaps = int(swapper.communicate(timeout=10)[0])
    ends = {"applied": seen.codes[0], "refused": seen.codes[5], "refused_halfway": seen.codes[3]}
    note("swaps", runs=RUNS, swaps=swaps, **ends, mixed=seen.mixed, untrusted_applied=seen.untrusted)
    assert not seen.wrong, "\n".join(seen.wrong)
    assert swaps > 20 * RUNS
    host.write(ROSTER, ROSTERS["b"])
    host.write(SITE, SITES["b"])
    run(host)
    assert versions_shown(host) == ({"b"}, {"602"}, [])


# --- the folder ---

# What is done to /etc/rosterd while a run is at work, and what of it is said. $1 is another roster.
CHANGED = {
    "a link": (
        'mv /etc/rosterd /root/real; mkdir -p /root/other; cp "$1" /root/other; ln -s /root/other /etc/rosterd',
        "link",
    ),
    "open to a group": ('cp -r /etc/rosterd /root/real; chmod 775 /etc/rosterd; cp "$1" /etc/rosterd/', "can write"),
    "open to everybody": ('cp -r /etc/rosterd /root/real; chmod 757 /etc/rosterd; cp "$1" /etc/rosterd/', "can write"),
    "somebody's": ('cp -r /etc/rosterd /root/real; chown nobody /etc/rosterd; cp "$1" /etc/rosterd/', "belongs to"),
    "gone": ("mv /etc/rosterd /root/real", "no such file"),
}


Entry = TypeVar("Entry")


def some(entries: Mapping[str, Entry], sample: int) -> dict[str, Entry]:
    """Return so many entries, from the beginning; all of them for `make proof`."""
    return dict(islice(entries.items(), scaled(sample, len(entries))))


def start_held(machine: Machine) -> Command:
    """Start a run that is held while it makes an account; return once it does."""
    machine.sh("rm -f /run/at-work; touch /run/hold")
    started = machine.start("rosterd", "reconcile")
    machine.sh("until [ -e /run/at-work ]; do sleep 0.02; done", timeout=20)
    return started


def test_a_folder_that_is_changed_during_a_run_is_seen_and_the_run_goes_by_what_it_had_read(host: Machine) -> None:
    people = ["anna"]
    write_roster(host, people)
    run(host)
    host.write("/root/evil/roster.yaml", ROSTERS["bad"])
    wrong: list[str] = []
    changes = some(CHANGED, 2)
    for number, (change, (script, words)) in enumerate(changes.items()):
        people.append(f"new{number}")
        write_roster(host, people)
        going = start_held(host)
        host.sh(script, "/root/evil/roster.yaml")
        host.run("rm", "/run/hold")
        out, err = going.communicate(timeout=30)
        said = out + err
        fine = going.returncode == 3 and words in said and "/etc/rosterd" in said and STRANGER not in said
        problems = [] if fine else [f"exit code {going.returncode}: {said}"]
        problems += account_problems(host, people) + service_problems(host, people) + map_problems(host, people)
        host.sh("rm -rf /etc/rosterd; mv /root/real /etc/rosterd")
        problems += [str(again)] if (again := run(host, code=None)).code else []
        wrong += [f"{change}: {problem}" for problem in [*problems, *everything_wrong(host, people)]]
    note("folders", changed_in_a_run=len(changes), wrong=len(wrong))
    assert not wrong, "\n".join(wrong)


def test_a_roster_is_trusted_no_more_than_any_folder_above_it(host: Machine) -> None:
    """One below several that are not rosterd's."""
    write_roster(host, ["anna"])
    run(host)
    wrong: list[str] = []
    folders = ["/srv/one", "/srv/one/two", "/srv/one/two/three"]
    faults = {
        "chmod 775 {}": "chmod 755 {}",
        "chown 1234 {}": "chown root {}",
        "mv {0} {0}.real; ln -s {0}.real {0}": "",
    }
    host.sh('mkdir -p "$1"; cp /root/versions/bad.roster.yaml "$1/roster.yaml"', folders[-1])
    before = [line for line in fingerprint(host).splitlines() if not line.startswith("/srv")]
    for folder in folders[: scaled(1, len(folders))]:
        for fault, cure in faults.items():
            host.sh(fault.format(folder))
            done = run(host, "reconcile", "--roster", f"{folders[-1]}/roster.yaml", code=None)
            wrong += [] if done.code == 5 and folder in done.said else [f"{fault.format(folder)}: {done}"]
            host.sh(cure.format(folder) if cure else f"rm {folder}; mv {folder}.real {folder}")
    note("folders", untrusted_folders=scaled(1, len(folders)) * len(faults), wrong=len(wrong))
    assert not wrong, "\n".join(wrong)
    assert [line for line in fingerprint(host).splitlines() if not line.startswith("/srv")] == before


# --- what is written ---

KEEP = "rm -rf /root/kept; cp -a /etc/t3-serve /root/kept; mkdir -p /home/bob/theirs; chown bob /home/bob/theirs; "
# What is done to the folder of env files and maps, the exit code of a run with somebody new, and what it says.
WRITTEN = {
    "a link to somebody's folder": (
        "mv /etc/t3-serve/* /home/bob/theirs; rmdir /etc/t3-serve; ln -s /home/bob/theirs /etc/t3-serve",
        3,
        "/etc/t3-serve/new0.env: the folder /home/bob/theirs belongs to uid",
    ),
    "open to a group": ("chmod 775 /etc/t3-serve", 3, "others than root can write in the folder /etc/t3-serve"),
    "somebody's": ("chown bob /etc/t3-serve", 3, "the folder /etc/t3-serve belongs to uid"),
    "a link to root's folder": ("mv /etc/t3-serve /srv/t3-serve; ln -s ../srv/t3-serve /etc/t3-serve", 0, ""),
    "a map that is a link": (
        "cp /etc/ttyd-user-map /home/bob/theirs/map; ln -sf /home/bob/theirs/map /etc/ttyd-user-map",
        0,
        "",
    ),
    "an env file that is a link": (
        "echo A=1 >/home/bob/theirs/env; ln -sf /home/bob/theirs/env /etc/t3-serve/bob.env",
        3,
        "bob: FAILED t3 port",
    ),
    "a map's place is a folder": ("rm /etc/ttyd-admins; mkdir /etc/ttyd-admins", 1, "/etc/ttyd-admins"),
}


def test_nothing_is_written_where_somebody_else_could_change_it_nor_through_a_link(host: Machine) -> None:
    people = ["anna", "bob"]
    write_roster(host, people)
    run(host)
    look = "cd /home/bob; find theirs -printf '%p %i %m %U %s %T@\\n' | sort; cat theirs/* 2>/dev/null || :"
    wrong: list[str] = []
    faults = some(WRITTEN, 3)
    for number, (fault, (script, code, words)) in enumerate(faults.items()):
        host.sh(KEEP + script)
        theirs = host.sh(look).out
        people.append(f"new{number}")
        write_roster(host, people)
        done = run(host, code=None)
        problems = [] if done.code == code and words in done.said else [str(done)]
        problems += [] if host.sh(look).out == theirs else ["what is bob's has changed"]
        problems += [] if "Traceback" not in done.said else ["a traceback"]
        host.sh("rm -rf /etc/t3-serve /srv/t3-serve /home/bob/theirs; cp -a /root/kept /etc/t3-serve")
        host.sh("[ ! -d /etc/ttyd-admins ] || rmdir /etc/ttyd-admins")
        again = run(host, code=None)
        problems += [] if again.code == 0 else [f"afterwards: {again}"]
        wrong += [f"{fault}: {problem}" for problem in [*problems, *everything_wrong(host, people)]]
    note("folders", written_to=len(faults), wrong=len(wrong))
    assert not wrong, "\n".join(wrong)
