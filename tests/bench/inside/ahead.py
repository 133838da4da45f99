"""Puts people in place as rosterd would have, one after the other, only in seconds: accounts, ports, enabled services.

    ahead.py PEOPLE

PEOPLE has a line for each person, `NAME PORT PORT`. What starts a service then need not start a process: the link that
systemd makes for each, with the id of the start, is there (unit_export_invocation_id() in systemd's unit.c).
"""

import os
import shutil
import sys
import time
import uuid
from pathlib import Path

ENABLED = Path("/etc/systemd/system/multi-user.target.wants")
STARTED = Path("/run/systemd/units")
FIRST_UID = 1000
FIRST_SUBID, SUBIDS = 100000, 65536


def main() -> None:
    """Write the files of shadow-utils, the homes, the env files, the links of enabled services."""
    people = [line.split() for line in Path(sys.argv[1]).read_text().splitlines()]
    today = int(time.time()) // 86400
    names = [name for name, _, _ in people]
    numbered = list(enumerate(names, FIRST_UID))
    append("passwd", [f"{name}:x:{uid}:{uid}::/home/{name}:/bin/bash" for uid, name in numbered])
    append("shadow", [f"{name}:!:{today}:0:99999:7:::" for name in names])
    append("group", [f"{name}:x:{uid}:" for uid, name in numbered])
    append("gshadow", [f"{name}:!::" for name in names])
    for name in ("group", "gshadow"):
        put_in_group(name, names)
    spans = [f"{name}:{FIRST_SUBID + number * SUBIDS}:{SUBIDS}" for number, name in enumerate(names)]
    append("subuid", spans)
    append("subgid", spans)
    for uid, name in numbered:
        home = Path("/home", name)
        shutil.copytree("/etc/skel", home)
        home.chmod(0o700)
        for path in (home, *home.iterdir()):
            os.chown(path, uid, uid)
    for name, *ports in people:
        for letter, port in zip("ab", ports, strict=True):
            file = Path(f"/etc/t3-serve/{letter}-{name}.env")
            file.write_text(f"{letter.upper()}_PORT={port}\n")
            file.chmod(0o600)
            (STARTED / f"invocation:bench-{letter}@{name}.service").symlink_to(uuid.uuid4().hex)
            (ENABLED / f"bench-{letter}@{name}.service").symlink_to(f"/etc/systemd/system/bench-{letter}@.service")


def append(name: str, lines: list[str]) -> None:
    """Add lines to a file in /etc."""
    with Path("/etc", name).open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def put_in_group(name: str, members: list[str]) -> None:
    """Give the group rosterd its members, who are in the last field; the package has made it."""
    lines = Path("/etc", name).read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines) if line.startswith("rosterd:"))
    lines[number] = f"{lines[number].rpartition(':')[0]}:{','.join(members)}"
    Path("/etc", name).write_text("\n".join([*lines, ""]))


main()
