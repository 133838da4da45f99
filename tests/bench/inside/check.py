"""Checks, with the host's own tools, that everybody of a file has all that they are to have.

    check.py PEOPLE

PEOPLE has a line for each person, `NAME PORT PORT`. Exits 1 and says what is wrong first.
"""

import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Check."""
    people = [line.split() for line in Path(sys.argv[1]).read_text().splitlines()]
    members = set(said("getent", "group", "rosterd").rstrip("\n").split(":")[3].split(","))
    accounts = {line.split(":")[0] for line in said("getent", "passwd").splitlines()}
    active = {line.split()[0] for line in said("systemctl", "list-units", *PLAIN, "--state=active").splitlines()}
    wants = {path.name for path in Path("/etc/systemd/system/multi-user.target.wants").iterdir()}
    for name, *ports in people:
        units = {f"bench-{letter}@{name}.service" for letter in "ab"}
        expect(name in accounts, f"{name} has no account")
        expect(Path("/home", name).owner() == name, f"{name} has no home of their own")
        expect(name in members, f"{name} is not in the group")
        expect(units <= active, f"services of {name} do not run: {units - active}")
        expect(units <= wants, f"services of {name} are not enabled: {units - wants}")
        for letter, port in zip("ab", ports, strict=True):
            file = Path(f"/etc/t3-serve/{letter}-{name}.env")
            expect(file.read_text() == f"{letter.upper()}_PORT={port}\n", f"{file} does not have {port}")
            expect(file.stat().st_mode & 0o777 == 0o600, f"{file} is not 0600")


PLAIN = ("--no-legend", "--plain", "bench-*@*.service")


def said(*argv: str) -> str:
    """Return what a program wrote."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def expect(holds: bool, problem: str) -> None:  # noqa: FBT001 (as assert has it)
    """End with the problem unless it holds."""
    if not holds:
        sys.exit(problem)


main()
