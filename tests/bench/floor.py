"""The floor: all that a run must read, read once, with nothing made of it.

Runs in the machine. Arguments: the roster, and the templates of the catalogue.
"""

import gc
import os
import socket
import sys
from pathlib import Path

import yaml
from pydbus import SystemBus

from reconciler.host.scan_ports import dump_listening

UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)


def main() -> None:
    """Read."""
    roster, *templates = sys.argv[1:]
    gc.disable()
    document = yaml.compose(Path(roster).read_bytes(), Loader=yaml.CSafeLoader)
    gc.enable()
    for name in ("passwd", "group", "shadow", "subuid", "subgid", "login.defs"):
        Path("/etc", name).read_bytes()
    for file in Path("/etc/t3-serve").iterdir():
        file.read_bytes()
    for file in (Path("/etc/ttyd-user-map"), Path("/etc/ttyd-admins")):
        file.read_bytes()
    assert isinstance(document, yaml.MappingNode)
    for _, people in document.value:
        for name, _ in people.value:
            os.lstat(f"/home/{name.value}")
    for folder in filter(Path.exists, map(Path, UNIT_FOLDERS)):
        for entry in folder.iterdir():
            if entry.name.endswith((".wants", ".requires")):
                list(entry.iterdir())
    for family in (socket.AF_INET, socket.AF_INET6):
        list(dump_listening(family))
    manager = SystemBus().get(".systemd1")
    manager.ListUnitsByPatterns([], [template.replace("@.", "@*.") for template in templates], timeout=10)


main()
