"""A workstation whose kernel enforces limits, servers that can be made to use too much, and what the host says."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.machine.machine import Machine
from tests.machine.workstation import SITE, workstation

DROP_INS = "/etc/systemd/system"
FILE_NAME = "50-rosterd.conf"
RELOAD_DUE = "/run/rosterd/reload-due"
CAP = 96 << 20

# On cgroup v1 a container gets the controllers read-only; systemd has to learn that it may use them.
ENFORCE = """
[ ! -d /sys/fs/cgroup/memory ] || {
    for name in memory pids cpu cpuacct cpu,cpuacct; do
        [ ! -d "/sys/fs/cgroup/$name" ] || mount -o remount,bind,rw "/sys/fs/cgroup/$name"
    done
    systemctl daemon-reexec
}
"""

# In place of a person's server: it answers with its user's name, at /eat it has a child take 400 MiB and tells how that
# ended, at /hold it has one take 50 MiB and keep them, and tells its pid.
HUNGRY = """\
#!/usr/bin/python3 -IS
import os, pwd, signal, socket, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
name = pwd.getpwuid(os.getuid()).pw_name
with socket.create_server(("127.0.0.1", port)) as server:
    while True:
        connection, _ = server.accept()
        with connection:
            said, asked = name, connection.recv(65536)
            if asked.startswith(b"GET /hold"):
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
                done, ready = os.pipe()
                child = os.fork()
                if not child:
                    connection.close()
                    server.close()
                    held = b"x" * (50 << 20)
                    os.write(ready, b"held")
                    time.sleep(600)
                    os._exit(0)
                os.close(ready)
                os.read(done, 4)
                os.close(done)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                said = str(child)
            if asked.startswith(b"GET /eat"):
                child = os.fork()
                if not child:
                    b"x" * (400 << 20)
                    os._exit(0)
                said = f"child ended by {os.waitpid(child, 0)[1] & 127}"
            connection.sendall(f"HTTP/1.0 200 OK\\r\\n\\r\\n{said}\\n".encode())
"""


@contextmanager
def limited_workstation(deb: Path, release: str = "bookworm") -> Iterator[Machine]:
    """Boot a workstation where limits hold and people's servers can be hungry."""
    with workstation(deb, release) as machine:
        machine.sh(ENFORCE)
        for program in ("/usr/bin/t3", "/usr/bin/npx"):
            machine.write(program, HUNGRY, mode=0o755)
        yield machine


def site(power_user: str = "{memory_max: 96M, cpu_quota: 150%, tasks_max: 200}", guest: str = "null") -> str:
    """Return a policy with these limits."""
    return f"""\
settle: 1
tiers:
  admin: {{groups: [code-shared, docker, sudo], admin: true, cluster: exempt}}
  guest: {{limits: {guest}}}
  power-user: {{limits: {power_user}}}
  namespace-owner: {{namespaces: required}}
"""


def write_limits(machine: Machine, power_user: str, guest: str = "null") -> None:
    """Put a policy with these limits in place."""
    machine.write(SITE, site(power_user, guest))


def properties(machine: Machine, unit: str, *names: str) -> dict[str, str]:
    """Return what systemd says of a unit."""
    shown = machine.run("systemctl", "show", f"--property={','.join(names)}", unit).out
    return dict(line.split("=", 1) for line in shown.splitlines())


def control_group(machine: Machine, unit: str) -> str:
    """Return the control group of a unit's processes."""
    return properties(machine, unit, "ControlGroup")["ControlGroup"]


def enforced(machine: Machine, slice_name: str) -> Mapping[str, str]:
    """Return what the kernel holds a slice to: bytes, tasks, microseconds of processor time in 100,000."""
    files = {
        "memory": ("memory/{}/memory.limit_in_bytes", "{}/memory.max"),
        "tasks": ("pids/{}/pids.max", "{}/pids.max"),
        "cpu": ("cpu/{}/cpu.cfs_quota_us", "{}/cpu.max"),
    }
    group = f"user.slice/{slice_name}"
    script = 'for path; do [ ! -e "$path" ] || { cat "$path"; break; }; done'
    return {
        what: machine.sh(script, *(f"/sys/fs/cgroup/{path.format(group)}" for path in paths)).out.strip()
        for what, paths in files.items()
    }


def drop_ins(machine: Machine) -> list[str]:
    """Return the units that have a drop-in of rosterd's."""
    found = machine.run("find", DROP_INS, "-name", FILE_NAME).out.splitlines()
    return sorted(re.sub(rf"{DROP_INS}/(.*)\.d/{FILE_NAME}", r"\1", path) for path in found)


def drop_in(unit: str) -> str:
    """Return where a unit's drop-in lies."""
    return f"{DROP_INS}/{unit}.d/{FILE_NAME}"


def services_of(name: str) -> list[str]:
    """Return the services that a person has, with the one that their timer starts, in order of name."""
    return [f"{kind}@{name}.service" for kind in ("playwright-mcp", "playwright-snapshot-refresh", "t3-serve")]


def undisturbed(machine: Machine, *names: str) -> dict[str, dict[str, str]]:
    """Return which processes people's servers are, and how often they were started again."""
    units = [unit for name in names for unit in (f"t3-serve@{name}.service", f"playwright-mcp@{name}.service")]
    return {unit: properties(machine, unit, "MainPID", "NRestarts", "ActiveState") for unit in units}
