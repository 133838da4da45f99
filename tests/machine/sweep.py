"""Kills a command at one point after the other, lets it be run once more, and looks for what is not as it was to be.

What is to be is what an undisturbed run leaves, seen by the host's own tools: accounts, every file that rosterd writes,
homes, links, units. No part of rosterd has a say in it.

    sweep = Sweep(machine, "rosterd", "reconcile")     # what is there now is where each kill starts from
    for point in sweep.undisturbed():
        sweep.kill(point)
    sweep.tally.judge("killed", "a first run")
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.machine.kill_points import KILLED, Point, traced_messages, traced_points
from tests.machine.machine import Machine
from tests.proof.evidence import note

ACCOUNTS = "/etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/subgid"
# All that a run changes on a disk.
PLACES = (
    f"{ACCOUNTS} /etc/rosterd /etc/t3-serve /etc/ttyd-user-map /etc/ttyd-admins /etc/systemd/system /home /var/mail"
    " /var/spool/cron /var/lib/rosterd"
)
UNITS = "t3-serve@* playwright-mcp@* playwright-snapshot-refresh@*.timer"

# $1 is a name for what is saved.
SAVE = f"""
saved=/run/sweep/$1
rm -rf "$saved" "$saved.units"; mkdir -p "$saved"
for place in {PLACES}; do [ ! -e "$place" ] || cp -a --parents "$place" "$saved"; done
systemctl list-units --plain --no-legend --state=active {UNITS} | cut -d ' ' -f 1 >"$saved.units"
"""
RESTORE = f"""
saved=/run/sweep/$1
systemctl list-units --plain --no-legend --all {UNITS} 'rosterd-home@*' | cut -d ' ' -f 1 |
    grep -vxF -f "$saved.units" | xargs -r systemctl stop
changed=$(diff -rq --no-dereference "$saved/etc/systemd/system" /etc/systemd/system) || :
rm -rf {PLACES} /run/rosterd /etc/*.lock
cp -a "$saved/." /
[ -z "$changed" ] || systemctl daemon-reload
[ ! -s "$saved.units" ] || xargs systemctl start <"$saved.units"
"""

# Says what is there: for each place its mode, owner and content, and for each unit its state. What no two runs have
# alike is left out: the record of a run, times, what git keeps for itself.
LOOK = r"""
import hashlib, json, os, re, stat, subprocess
found = {}
def account_file(path):
    lines = []
    for line in open(path, encoding="utf-8").read().splitlines():
        fields = line.split(":")
        if "group" in path or "gshadow" in path:
            fields[-1] = ",".join(sorted(fields[-1].split(",")))
        lines.append(":".join(fields))
    return "\n".join(sorted(lines))
def tell(path):
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    content = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    if stat.S_ISREG(status.st_mode):
        data = open(path, "rb").read()
        whole = path.startswith(("/etc/", "/var/lib/rosterd/"))
        content = data.decode(errors="replace") if whole and len(data) < 9999 else hashlib.sha256(data).hexdigest()
    if path.startswith(("/var/lib/rosterd/homes/", "/var/lib/rosterd/last-run")):
        content = ""
    content = re.sub(r'"since": \d+', '"since": 0', content)
    found[path] = f"{oct(status.st_mode)} {status.st_uid}:{status.st_gid} {content}"
    if stat.S_ISDIR(status.st_mode) and not path.endswith("/.git"):
        for name in sorted(os.listdir(path)): tell(f"{path}/{name}")
for place in PLACES.split():
    if place in ACCOUNTS.split():
        text = open(place, encoding="utf-8").read()
        found[place] = account_file(place)
        wanted = dict(passwd=6, shadow=8, group=3, gshadow=3, subuid=2, subgid=2)[place[5:]]
        if text and not text.endswith("\n") or any(line.count(":") != wanted for line in text.splitlines()):
            found["torn " + place] = text
    elif place != "/etc/rosterd":
        tell(place)
for folder, _, names in os.walk("/run/rosterd"):
    for name in names:
        if name not in {"lock", "before"}: found[f"{folder}/{name}"] = "left"
names = "Id,ActiveState,UnitFileState,NeedDaemonReload,Job"
shown = subprocess.run(["systemctl", "show", f"--property={names}", *UNITS.split(), "rosterd-home@*"],
    capture_output=True, text=True, check=True).stdout
for block in shown.split("\n\n"):
    unit = dict(line.partition("=")[::2] for line in block.splitlines())
    if unit and unit["ActiveState"] != "inactive": found["unit " + unit.pop("Id")] = str(sorted(unit.items()))
print(json.dumps(found))
"""
LOOK = f"PLACES = {PLACES!r}\nACCOUNTS = {ACCOUNTS!r}\nUNITS = {UNITS!r}\n{LOOK}"

Look = Mapping[str, str]


def save(machine: Machine, name: str) -> None:
    """Keep all that rosterd can change as it is now."""
    machine.sh(SAVE, name)


def restore(machine: Machine, name: str) -> None:
    """Make it as it was then, services included."""
    machine.sh(RESTORE, name)


def look(machine: Machine) -> Look:
    """Return what is there, by place."""
    found: Look = json.loads(machine.run("/usr/bin/python3", "-ISc", LOOK).out)
    return found


def differences(found: Look, wanted: Look) -> list[str]:
    """Return where two looks differ, each with what is there and what was to be."""
    places = sorted(set(found) | set(wanted))
    return [
        f"{place}: {found.get(place)!r}, not {wanted.get(place)!r}"
        for place in places
        if found.get(place) != wanted.get(place)
    ]


def torn_files(found: Look, *whole: Look) -> list[str]:
    """Return which of rosterd's files are neither absent nor as in one of the `whole` looks; records have to parse."""
    torn = [place for place in found if place.startswith("torn ")]
    for place, text in found.items():
        if place.endswith(".rosterd-new") or not text.startswith("0o100"):
            continue
        if place.startswith(("/etc/t3-serve/", "/etc/ttyd-", "/etc/systemd/")):
            torn += [place] if text not in {one.get(place) for one in whole} else []
        elif place.startswith("/var/lib/rosterd/"):
            torn += [] if _is_record(text) else [place]
    return torn


def _is_record(text: str) -> bool:
    content = text.split(" ", 2)[2]
    try:
        return not content or isinstance(json.loads(content), dict)
    except ValueError:
        return False


def lost_lines(found: Look, before: Look) -> list[str]:
    """Return the lines of env files that were there before and are not now."""
    lost = []
    for place, text in before.items():
        if place.startswith("/etc/t3-serve/") and place.endswith(".env"):
            there = found.get(place, "").splitlines()
            lost += [f"{place}: {line}" for line in text.splitlines() if line not in there]
    return lost


@dataclass
class Tally:
    """What came of killing: how many points there were, and what of them was not as it was to be."""

    points: int = 0
    converged: int = 0
    torn_files: int = 0
    lost_lines: int = 0
    not_reached: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, where: object, *, torn: list[str], lost: list[str], wrong: list[str]) -> None:
        """Count one point that was reached."""
        self.points += 1
        self.torn_files += len(torn)
        self.lost_lines += len(lost)
        self.converged += not wrong
        self.wrong += [f"{where}\n    {problem}" for problem in (*(f"torn: {file}" for file in torn), *lost, *wrong)]

    def judge(self, row: str, name: str) -> None:
        """Note the counts in a row, then see that nothing was wrong, and that nearly all points were reached."""
        counts = {key: value for key, value in vars(self).items() if key != "wrong"}
        note(row, **counts)
        sys.stdout.write(f"{name}: {counts}\n")
        assert not self.wrong, f"{name}: {counts}\n" + "\n".join(self.wrong)
        assert self.points
        assert self.not_reached <= 0.02 * self.points + 1


class Sweep:
    """One command that is killed again and again, each time from the same start, and then run once more."""

    def __init__(self, machine: Machine, *argv: str) -> None:
        """Take what is there now as the start."""
        self.machine = machine
        self.argv = argv
        self.tally = Tally()
        save(machine, "start")
        self.before = look(machine)
        self.after: Look = {}

    def undisturbed(self) -> list[Point]:
        """Run the command to its end, and keep what it leaves; return its points, messages to systemd among them."""
        messages = traced_messages(self.machine, *self.argv)
        self.reset()
        points = traced_points(self.machine, *self.argv)
        self.after = look(self.machine)
        return [*points, *messages]

    def reset(self) -> None:
        """Go back to the start."""
        restore(self.machine, "start")

    def kill(self, point: Point) -> None:
        """Kill the command there, and let it be run once more."""

        def killed() -> bool:
            argv = ("strace", "-qq", "-o", "/dev/null", *point.inject, "--", *self.argv)
            return self.machine.run(*argv, check=False).code == KILLED

        self.tally.not_reached += not self.disturb(point, killed, self.argv)

    def disturb(self, where: object, killed: Callable[[], bool], again: tuple[str, ...]) -> bool:
        """Disturb the command in any way that returns whether it was killed; if so, let `again` be run, and look."""
        self.reset()
        if not killed():
            return False
        between = look(self.machine)
        torn, lost = torn_files(between, self.before, self.after), lost_lines(between, self.before)
        done = self.machine.run(*again, check=False)
        found = look(self.machine)
        wrong = differences(found, self.after)
        wrong += [] if done.code == 0 else [str(done)]
        self.tally.add(where, torn=torn, lost=[*lost, *lost_lines(found, self.before)], wrong=wrong)
        return True
