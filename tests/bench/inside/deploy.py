"""The same people for pyinfra, by its operations server.group, server.user, files.put and systemd.service."""

import json
from io import StringIO
from pathlib import Path

from pyinfra.operations import files, server, systemd

PEOPLE = json.loads(Path("/root/bench/people.json").read_text())["people"]

server.group(group="rosterd", system=True)
for person in PEOPLE:
    name = person["name"]
    server.user(user=name, shell="/bin/bash", groups=["rosterd"], append=True, create_home=True)
    for letter, port in zip("ab", person["ports"], strict=True):
        content = StringIO(f"{letter.upper()}_PORT={port}\n")
        files.put(src=content, dest=f"/etc/t3-serve/{letter}-{name}.env", mode="600")
    for letter in "ab":
        systemd.service(service=f"bench-{letter}@{name}.service", running=True, enabled=True)
