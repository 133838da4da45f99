"""Measures runs of rosterd in one machine: 100 users, two services each.

    python -m tests.bench [USERS]

Prints a table, and writes dist/bench.json. Ratios first: the machine is shared, its seconds are not.
"""

import json
import statistics
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.machine.machine import CHECKOUT, Machine
from tests.machine.rootfs import rootfs

ROUNDS = 7
TEMPLATES = ("bench-a@.service", "bench-b@.service")
# Costs nothing to keep: the benchmark is about rosterd and systemd, not about the services.
UNIT = """[Service]
User=%i
EnvironmentFile=/etc/t3-serve/{prefix}%i.env
ExecStart=/usr/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""
SITE = """settle: 0
listen: 0
shell: /bin/bash
services:
  a:
    units: [bench-a@.service]
    port: {variable: A_PORT, base: 20000, env_file: "/etc/t3-serve/{user}.env"}
    route: true
  b:
    units: [bench-b@.service]
    port: {variable: B_PORT, base: 30000, env_file: "/etc/t3-serve/b-{user}.env"}
"""
CALLS = "/run/bench.calls"
ROSTERD = ("/usr/bin/python3", "-m", "reconciler", "reconcile")
WRITING = "openat,open,creat,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,link,linkat,symlink"


@dataclass(frozen=True)
class Row:
    """One line of the table; `seconds` is the median of the rounds, `times_floor` its ratio to the floor."""

    what: str
    seconds: float
    times_floor: float | None = None


def prepare(machine: Machine, users: int) -> None:
    """Put the roster, the site and the two templates in place."""
    names = [f"user{number:05}" for number in range(users)]
    entries = [f"  {name}: {{authentik_user: {name}.x, k8s_user: {name}, tier: power-user}}" for name in names]
    machine.write("/etc/rosterd/roster.yaml", "\n".join(["users:", *entries, ""]))
    machine.write("/etc/rosterd/site.yaml", SITE)
    for template, prefix in zip(TEMPLATES, ("", "b-"), strict=True):
        machine.write(f"/etc/systemd/system/{template}", UNIT.format(prefix=prefix))
    machine.run("systemctl", "daemon-reload")


def timed(machine: Machine, *argv: str) -> float:
    """Return how many seconds a command took; it must succeed."""
    started = time.perf_counter()
    machine.run("env", "--chdir=/src", "PYTHONPATH=/src", *argv, timeout=600)
    return time.perf_counter() - started


def median(machine: Machine, *argv: str) -> float:
    """Return the median of several rounds, in seconds."""
    return statistics.median(timed(machine, *argv) for _ in range(ROUNDS))


def bus_calls(machine: Machine, *argv: str) -> Counter[str]:
    """Run a command and return how often it called each method of systemd's manager.

    The bus tells a monitor about every call there is, so nothing else may call meanwhile.
    """
    # Into a file, by lines: a pipe that nobody reads would stop it, and what it has not written is lost at its end.
    listen = 'exec stdbuf --output=L busctl monitor --json=short org.freedesktop.systemd1 >"$1"'
    monitor = machine.start("/bin/sh", "-c", listen, "sh", CALLS)
    time.sleep(1)  # until it listens; it tells nobody
    timed(machine, *argv)
    time.sleep(1)  # until it has written all
    monitor.terminate()
    monitor.wait()
    messages = (json.loads(line) for line in machine.read(CALLS).split("\n") if line.startswith("{"))
    return Counter(
        message["member"]
        for message in messages
        if message.get("type") == "method_call" and message.get("destination") == "org.freedesktop.systemd1"
    )


def footprint(machine: Machine) -> tuple[int, list[str]]:
    """Return how many programs a run started beside itself, and the calls that opened or made a file for writing."""
    trace = "/run/bench.trace"
    options = ("--follow-forks", "--quiet=all", f"--output={trace}", "--trace", f"execve,{WRITING}")
    timed(machine, "strace", *options, *ROSTERD)
    lines = [line for line in machine.read(trace).splitlines() if " = -1 " not in line]
    programs = sum("execve(" in line for line in lines) - 1
    reading = ("O_RDONLY", "/dev/null")
    written = [line for line in lines if "execve(" not in line and not any(word in line for word in reading)]
    return programs, written


def main() -> int:
    """Measure, print, keep."""
    users = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with Machine(rootfs("bookworm")) as machine:
        prepare(machine, users)
        sys.stdout.write(f"{users} users, 2 services each; medians of {ROUNDS} rounds\n")
        machine.run("systemctl", "start", "dbus.service")
        first_calls = bus_calls(machine, *ROSTERD)
        calls = bus_calls(machine, *ROSTERD)
        programs, written = footprint(machine)
        floor = median(machine, "/usr/bin/python3", "/src/tests/bench/floor.py", "/etc/rosterd/roster.yaml", *TEMPLATES)
        converged = median(machine, *ROSTERD)
        dry_run = median(machine, *ROSTERD, "--dry-run")
        status = median(machine, *ROSTERD[:-1], "status")
        units = [f"bench-{service}@user{number:05}.service" for number in range(users) for service in "ab"]
        loop = "for unit; do systemctl enable --quiet --now -- $unit; done"
        shell = timed(machine, "sh", "-euc", loop, "sh", *units)
    rows = [
        Row("the floor: the same reads, nothing made of them", floor, 1.0),
        Row("a converged run", converged, converged / floor),
        Row("a dry run", dry_run, dry_run / floor),
        Row("status", status, status / floor),
        Row("a loop of systemctl enable --now, nothing to do", shell, shell / floor),
    ]
    for row in rows:
        sys.stdout.write(f"{row.times_floor:9.1f} times the floor, {row.seconds:9.3f} s: {row.what}\n")
    sys.stdout.write(f"converged: {programs} programs started, {len(written)} files opened for writing\n")
    sys.stdout.writelines(f"    {line}\n" for line in written)
    sys.stdout.write(f"converged: calls to systemd {dict(calls)}\nfirst run: calls to systemd {dict(first_calls)}\n")
    document = {
        "users": users,
        "rows": [asdict(row) for row in rows],
        "programs": programs,
        "written": written,
        "calls": calls,
        "first_calls": first_calls,
    }
    (CHECKOUT / "dist").mkdir(exist_ok=True)
    Path(CHECKOUT / "dist/bench.json").write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
