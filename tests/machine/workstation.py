"""A workstation as a site has it before rosterd makes its first run, and ways to see what became of it.

All of it looks with the host's own tools (getent, stat, systemctl, curl, strace), never with the code under test.
"""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.machine.machine import Machine, Result
from tests.machine.rootfs import rootfs

ROSTER = "/etc/rosterd/roster.yaml"
SITE = "/etc/rosterd/site.yaml"
MAPS = ("/etc/ttyd-user-map", "/etc/ttyd-admins", "/etc/t3-serve/dispatch.json")

# Services count as up after one second, so that tests do not wait for five.
QUICK = "settle: 1\n"

# Put in place of /usr/bin/t3 and /usr/bin/npx: neither server can be had for a test.
STAND_IN = """\
#!/usr/bin/python3 -IS
# A stand-in for a person's server: it answers every request with the name of the user that it runs as.
import os, pwd, socket, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
name = pwd.getpwuid(os.getuid()).pw_name
with socket.create_server(("127.0.0.1", port)) as server:
    while True:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(f"HTTP/1.0 200 OK\\r\\n\\r\\n{name}\\n".encode())
"""

# Every system call that changes a file, or opens one (`?`: not on every architecture).
FILE_CALLS = (
    "?open,openat,?openat2,?creat,?rename,?renameat,renameat2,?mkdir,mkdirat,?rmdir,?unlink,unlinkat,?link,linkat,"
    "?symlink,symlinkat,?mknod,mknodat,?chmod,fchmod,fchmodat,?chown,fchown,?lchown,fchownat,truncate,ftruncate,"
    "?utime,?utimes,utimensat,?futimesat,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr"
)

# What every run writes, as strace names it: by path, or by folder and name.
OWN_FILES = re.compile(
    r'</run/rosterd/lock>|</var/lib/rosterd>, "(\.last-run\.rosterd-new|last-run)"|/\.last-run\.rosterd-new>'
)

# A D-Bus message tells the method it calls in the header field 3, a string: `\3\1s\0`, four bytes of length, the name.
BUS_METHOD = re.compile(r"\\3\\1s\\0.{1,4}?\\0\\0\\0(\w+)\\0")


@contextmanager
def workstation(deb: Path, release: str = "bookworm") -> Iterator[Machine]:
    """Boot a machine with the package, the groups, the stand-ins and a quick site; runs come only when asked for."""
    with Machine(rootfs(release)) as machine:
        machine.install(deb)
        stop_own_units(machine)
        # An edit right after a run of the service would start the next one.
        machine.run("systemctl", "--quiet", "mask", "--runtime", "rosterd-recheck.service")
        prepare(machine)
        yield machine


def prepare(machine: Machine) -> None:
    """Make what a site has beside rosterd: the groups of its admins, people's servers, its policy."""
    machine.sh("groupadd --system docker; groupadd --system code-shared")
    for program in ("/usr/bin/t3", "/usr/bin/npx"):
        machine.write(program, STAND_IN, mode=0o755)
    machine.write(SITE, QUICK)


def stop_own_units(machine: Machine) -> None:
    """Let neither the timer nor an edit start a run."""
    machine.run("systemctl", "stop", "rosterd.timer", "rosterd.path")


def roster(users: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a roster; a person's identity is `NAME.id` and the tier power-user, unless their entry says otherwise."""
    lines = ["users:" if users else "users: {}"]
    for name, fields in users.items():
        entry = {"authentik_user": f"{name}.id", "k8s_user": name, "tier": "power-user", **fields}
        lines.append(f"  {name}: {json.dumps(entry)}")
    return "\n".join(lines) + "\n"


def write_roster(machine: Machine, users: Mapping[str, Mapping[str, Any]]) -> None:
    """Put a roster in place."""
    machine.write(ROSTER, roster(users))


def reconcile(machine: Machine, *arguments: str, code: int = 0) -> Result:
    """Make a run by hand, and see that it ends with this exit code."""
    result = machine.run("rosterd", "reconcile", *arguments, check=False)
    assert result.code == code, result
    return result


def eventually(holds: Callable[[], bool], within: float) -> None:
    """Wait until `holds` does; fail after `within` seconds."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not so within {within} s"
        time.sleep(0.05)


@contextmanager
def lock_held(machine: Machine) -> Iterator[None]:
    """Hold the lock of a run, as one that takes its time does."""
    machine.run("mkdir", "-p", "-m", "700", "/run/rosterd")
    holder = machine.start("flock", "--no-fork", "/run/rosterd/lock", "sleep", "600")
    machine.sh("while flock --nonblock /run/rosterd/lock true; do sleep 0.01; done", timeout=5)
    yield
    holder.end()


# --- accounts ---


def entry_of(machine: Machine, database: str, name: str) -> list[str]:
    """Return the fields of one line of passwd, shadow, group or gshadow; none if there is no such line."""
    line = machine.run("getent", database, name, check=False).out.rstrip("\n")
    return line.split(":") if line else []


def groups_of(machine: Machine, name: str) -> set[str]:
    """Return the groups of an account, its primary one included."""
    return set(machine.run("id", "--groups", "--name", name).out.split())


def look(machine: Machine, path: str) -> str:
    """Return owner, group and mode of a file, as in `root:root 600`."""
    return machine.run("stat", "--format=%U:%G %a", path).out.strip()


def bytes_of(machine: Machine, path: str) -> bytes:
    """Return a file as it is, carriage returns and all, which do not come through as text."""
    return base64.b64decode(machine.run("base64", path).out)


def account_lines(machine: Machine, name: str) -> str:
    """Return all that the files of shadow-utils say about a name."""
    files = "/etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/subgid"
    return machine.sh(f'grep --word-regexp -e "$1" {files}', name).out


# --- services ---


def is_up(machine: Machine, unit: str) -> bool:
    """Say whether a unit is active."""
    return machine.run("systemctl", "is-active", unit, check=False).out.strip() == "active"


def is_enabled(machine: Machine, unit: str) -> bool:
    """Say whether a unit is enabled."""
    return machine.run("systemctl", "is-enabled", unit, check=False).out.strip() == "enabled"


def main_pid(machine: Machine, unit: str) -> int:
    """Return the pid of a unit's main process, 0 if it has none."""
    return int(machine.run("systemctl", "show", "--property=MainPID", "--value", unit).out)


def owner_of(machine: Machine, pid: int) -> str:
    """Return the name of the user that a process runs as."""
    return machine.run("ps", "--format", "user:32=", "--pid", str(pid)).out.strip()


def answer_at(machine: Machine, port: int) -> str:
    """Return what the server at a port of the machine answers, which with a stand-in is a user's name."""
    script = 'until curl --silent --fail "http://127.0.0.1:$1/"; do sleep 0.05; done'
    return machine.sh(script, str(port), timeout=10).out.strip()


def port_in(machine: Machine, path: str, variable: str = "T3_PORT") -> int:
    """Return a port as systemd itself reads it from an env file."""
    show = ("systemd-run", "--quiet", "--pipe", "--wait", f"--property=EnvironmentFile={path}", "printenv")
    return int(machine.run(*show, variable).out)


def dispatch(machine: Machine) -> dict[str, Any]:
    """Return what the dispatch map holds."""
    table: dict[str, Any] = json.loads(machine.read("/etc/t3-serve/dispatch.json"))
    return table


def map_lines(machine: Machine, path: str = "/etc/ttyd-user-map") -> list[str]:
    """Return the lines of a map without its comments."""
    return [line for line in machine.read(path).splitlines() if not line.startswith("#")]


# --- what a run does ---


def everything(machine: Machine) -> str:
    """Return all that a run could change: its files and the homes, with inodes and times, and the units with pids.

    The record that every run leaves of itself is left out.
    """
    script = """
        stat -c '%n %i %a %u:%g' /var/lib/rosterd 2>/dev/null || :
        find /etc /home /var/lib/rosterd/* /var/mail -xdev ! -path /var/lib/rosterd/last-run \
            -printf '%p %i %m %U:%G %s %T@ %C@ %l\\n' | sort
        systemctl show --property=Id,ActiveState,UnitFileState,MainPID '*@*.service' '*@*.timer'
    """
    return machine.sh(script).out


@dataclass(frozen=True)
class Trace:
    """What a command did, as strace saw it: one line for each system call of FILE_CALLS, execve and sendmsg."""

    result: Result
    calls: tuple[str, ...]

    @property
    def programs(self) -> list[str]:
        """The programs that it and its children started, without itself."""
        return [call for call in self.calls if call.startswith("execve(") and call.endswith(" = 0")][1:]

    @property
    def changes(self) -> list[str]:
        """The calls that changed a file, or could have through what they opened."""
        return [call for call in self.calls if not _is_only_reading(call) and " = -1 " not in call]

    @property
    def changes_beyond_its_own(self) -> list[str]:
        """The changes without what every run writes: its lock, and the record of how it ended."""
        return [call for call in self.changes if not OWN_FILES.search(call)]

    @property
    def bus_methods(self) -> list[str]:
        """The methods that it called on the bus."""
        return [name for call in self.calls if call.startswith("sendmsg(") for name in BUS_METHOD.findall(call)]


def traced(machine: Machine, *argv: str) -> Trace:
    """Run a command under strace."""
    machine.sh("rm -rf /tmp/trace; mkdir /tmp/trace")
    # One file for each thread, or calls of two would be cut up.
    strace = (
        "strace",
        "-ff",
        "-qq",
        "-y",
        "-s",
        "300",
        "-e",
        f"trace=execve,sendmsg,{FILE_CALLS}",
        "-e",
        "signal=none",
    )
    result = machine.run(*strace, "-o", "/tmp/trace/of", "--", *argv, check=False)
    return Trace(result, tuple(machine.sh("cat /tmp/trace/of.*").out.splitlines()))


def _is_only_reading(call: str) -> bool:
    if call.startswith(("execve(", "sendmsg(")):
        return True
    return call.startswith("open") and not re.search(r"\bO_(WRONLY|RDWR|CREAT|TRUNC|APPEND)\b", call)
