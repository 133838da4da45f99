"""The floor: all that a run must read, read once, and all that must be called for who is new, with no logic.

    floor.py PEOPLE ROSTER TEMPLATE...

PEOPLE is a file with a line for each person, `NAME PORT PORT`; who has no account yet gets one, in the order of the
lines, as rosterd gives it: with the same calls of groupadd and useradd, and of systemd.
"""

import gc
import grp
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from gi.repository import Gio, GLib
from pydbus import SystemBus

from reconciler.host.scan_ports import dump_listening

UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
MAPS = ("/etc/ttyd-user-map", "/etc/ttyd-admins")
SYSTEMD = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
# As dbus-daemon allows; see reconciler/host/bus.py.
UNDER_WAY = 256


def main() -> None:
    """Read, then make what is missing."""
    gc.disable()
    people_file, roster, *templates = sys.argv[1:]
    manager = read(roster, templates)
    people = [line.split() for line in Path(people_file).read_text().splitlines()]
    known = {entry.pw_name for entry in pwd.getpwall()}
    if missing := [person for person in people if person[0] not in known]:
        make(manager, missing, templates)


def read(roster: str, templates: Sequence[str]) -> Any:  # noqa: ANN401 (pydbus has no types)
    """Read everything once; return the proxy of systemd's manager."""
    document = yaml.compose(Path(roster).read_bytes(), Loader=yaml.CSafeLoader)
    for name in ("passwd", "group", "shadow", "subuid", "subgid", "login.defs"):
        Path("/etc", name).read_bytes()
    for file in os.scandir("/etc/t3-serve"):  # the maps are there too, but for two
        Path(file.path).read_bytes()
    for path in filter(os.path.exists, MAPS):
        Path(path).read_bytes()
    assert isinstance(document, yaml.MappingNode)
    ((_, people),) = document.value
    for name, _ in people.value:
        os.path.lexists(f"/home/{name.value}")
    read_units()
    for family in (socket.AF_INET, socket.AF_INET6):
        list(dump_listening(family))
    manager = SystemBus().get(".systemd1")
    manager.ListUnitsByPatterns([], [template.replace("@.", "@*.") for template in templates], timeout=60)
    return manager


def read_units() -> None:
    """Read the folders that tell which units are enabled, and when each was started."""
    for folder in filter(os.path.isdir, UNIT_FOLDERS):
        for entry in os.scandir(folder):
            if entry.name.endswith((".wants", ".requires")):
                list(os.scandir(entry.path))
    for link in os.scandir("/run/systemd/units"):
        link.stat(follow_symlinks=False)


def make(manager: Any, people: Sequence[Sequence[str]], templates: Sequence[str]) -> None:  # noqa: ANN401 (as above)
    """Make accounts, env files and enabled, running services."""
    if "rosterd" not in {entry.gr_name for entry in grp.getgrall()}:
        run("groupadd", "--system", "--", "rosterd")
    uid = 1 + max(entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid < 60000)
    for number, (name, first, second) in enumerate(people, max(uid, 1000)):
        run("groupadd", "--gid", str(number), "--", name)
        run(
            *("useradd", "--uid", str(number), "--gid", name, "--home-dir", f"/home/{name}", "--create-home"),
            *("--shell", "/bin/bash", "--key", "HOME_MODE=0700", "--groups", "rosterd", "--", name),
        )
        for variable, port, file in (("A_PORT", first, f"a-{name}.env"), ("B_PORT", second, f"b-{name}.env")):
            path = Path("/etc/t3-serve", file)
            path.write_text(f"{variable}={port}\n")
            path.chmod(0o600)
    units = [template.replace("@", f"@{name}") for name, _, _ in people for template in templates]
    manager.EnableUnitFiles(units, False, False, timeout=600)  # noqa: FBT003 (as D-Bus has it)
    manager.Reload(timeout=600)
    start(manager, units)


def start(manager: Any, units: Sequence[str]) -> None:  # noqa: ANN401 (as above)
    """Start units, as many at once as the bus allows, and wait for the end of each."""
    manager.Subscribe(timeout=60)
    left = set(units)
    manager.JobRemoved.connect(lambda _number, _path, unit, _result: left.discard(unit))
    connection, context = SystemBus().con, GLib.MainContext.default()
    for number, unit in enumerate(units, 1):
        arguments = GLib.Variant("(ss)", (unit, "replace"))
        connection.call(*SYSTEMD, "StartUnit", arguments, None, Gio.DBusCallFlags.NONE, 60_000, None, None)
        while number - (len(units) - len(left)) >= UNDER_WAY:
            context.iteration(True)  # noqa: FBT003 (as GLib has it)
    while left:
        context.iteration(True)  # noqa: FBT003 (as GLib has it)


def run(*argv: str) -> None:
    """Run a program of shadow-utils."""
    subprocess.run(argv, check=True)


if __name__ == "__main__":
    main()
