"""A workstation whose people have steps in their homes, and ways to see what became of them.

A step that hangs does so only while there is a file of the person's name in HANG, and shows as `sleep NAP`.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.machine.machine import Command, Machine
from tests.machine.workstation import SITE, eventually, main_pid, workstation

HANG = "/srv/hang"
NAP = "86421"
SECRET_FILE = "/etc/rosterd/secret"  # noqa: S105 (a path)
TOKEN_FILE = "/etc/rosterd/playwright-token"  # noqa: S105 (a path)
RECORDS = "/var/lib/rosterd/homes"

HEAD = """\
settle: 0
playwright: {snapshot_url: "http://localhost:9/nothing"}
code: {infra_url: "file:///srv/git/infra.git", branch: main, repo_base: "file:///srv/git"}
homes:
"""

# One line for each, so that a test can add to them.
STEPS: dict[str, str] = {
    "notes": '{directory: {path: notes, mode: "0700"}}',
    "seed": '{file: {path: .config/app/seed, content: "seeded\\n", mode: "0640"}}',
    "conf": '{file: {path: .config/app/conf, content: "user={user} t3={port.t3} {tier}\\n", keep: current}}',
    "secret": f'{{file: {{path: .config/app/secret, source: {SECRET_FILE}, mode: "0600"}}}}',
    "made": '{command: {run: [/bin/sh, -c, "id -un >{home}/made"], creates: made}}',
    "asked": '{command: {run: [/usr/bin/touch, "{home}/asked"], unless: [/usr/bin/test, -e, "{home}/asked"]}}',
    "extra": '{git: {path: src/extra, url: "file:///srv/git/extra.git"}}',
    "other": '{mcp: {server: other, url: "http://localhost:9/{user}"}}',
}

# It hangs while there is a file for the person, and is asked for again at each look after an hour.
HANGING = (
    f"{{command: {{run: [/usr/bin/sleep, '{NAP}'], unless: [/usr/bin/test, '!', -e, '{HANG}/{{user}}']}}, timeout: %d}}"
)

GIT = """
mkdir -p /srv/git /srv/hang; chmod 755 /srv/hang; cd /srv/git
for name in infra api extra; do
    git init --quiet --bare --initial-branch=main $name.git
    git clone --quiet $name.git work 2>/dev/null
    cd work
    git checkout --quiet -b main
    echo $name >README
    git add README
    git -c user.name=root -c user.email=root@localhost commit --quiet --message=first
    git push --quiet origin main
    cd ..
    rm -rf work
done
git config --system safe.directory '*'
"""

# As the agent's command adds a server, so far as a step looks at it.
AGENT = """\
#!/usr/bin/python3 -IS
# A stand-in for the agent's command: it adds a server to the configuration, and notes what it was called with.
import json, os, pathlib, sys
home = pathlib.Path(os.environ["HOME"])
with open(home / "claude.log", "a") as log:
    print(*sys.argv[1:], file=log)
path = home / ".claude.json"
document = json.loads(path.read_text()) if path.exists() else {}
document.setdefault("mcpServers", {})[sys.argv[-2]] = {"type": "http", "url": sys.argv[-1]}
path.write_text(json.dumps(document))
"""


@contextmanager
def home_workstation(deb: Path, steps: Mapping[str, str] = STEPS) -> Iterator[Machine]:
    """Boot a workstation with repositories, an agent, secrets and a site that has these steps."""
    with workstation(deb) as machine:
        machine.sh(GIT)
        machine.write("/usr/local/bin/claude", AGENT, mode=0o755)
        machine.write(TOKEN_FILE, "token-of-the-site\n", mode=0o600)
        machine.write(SECRET_FILE, "secret-of-the-site\n", mode=0o600)
        write_site(machine, steps)
        yield machine


def write_site(machine: Machine, steps: Mapping[str, str], head: str = HEAD) -> None:
    """Put a site in place that has these steps."""
    machine.write(SITE, head + "".join(f"  {name}: {body}\n" for name, body in steps.items()))


def records(machine: Machine, name: str) -> dict[str, Any]:
    """Return what is on record of the steps in a home."""
    document: dict[str, Any] = json.loads(machine.read(f"{RECORDS}/{name}"))
    return document


def forget(machine: Machine, *names: str) -> None:
    """Have all steps of these people taken again."""
    machine.run("rm", "-f", *(f"{RECORDS}/{name}" for name in names))


# --- steps that hang ---


def hang(machine: Machine, name: str) -> None:
    """Let a person's hanging step hang from now on."""
    machine.run("touch", f"{HANG}/{name}")


def unhang(machine: Machine) -> None:
    """Let no step hang any more; one that does goes on hanging."""
    machine.sh('rm -f "$1"/*', HANG)


def napping(machine: Machine) -> list[str]:
    """Return the pids of the steps that hang."""
    return machine.run("pgrep", "--full", "--exact", f"/usr/bin/sleep {NAP}", check=False).out.split()


def unit_of(name: str) -> str:
    """Return the unit that takes a person's steps."""
    return f"rosterd-home@{name}.service"


def start_hanging(machine: Machine, name: str, *command: str) -> Command:
    """Start a run in which a person's step hangs, and return once it does."""
    forget(machine, name)
    hang(machine, name)
    started = machine.start(*(command or ("rosterd", "reconcile")))
    eventually(lambda: bool(napping(machine)), within=15)
    assert main_pid(machine, unit_of(name)) != 0
    return started


def ended(command: Command, within: float) -> tuple[int, str, float]:
    """Wait for a run's end: its exit code, what it logged, and how many seconds that took."""
    before = time.monotonic()
    _, said = command.communicate(timeout=within)
    return command.returncode, said, time.monotonic() - before


def assert_nothing_left(machine: Machine) -> None:
    """See that no step, no unit and no pipe is left of a run."""
    assert napping(machine) == []
    units = machine.run("systemctl", "list-units", "--no-legend", "--plain", "--all", "rosterd-home@*").out
    assert units == ""
    assert machine.sh("find /run/rosterd/homes -mindepth 1").out == ""
