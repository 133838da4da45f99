"""The power goes while rosterd writes: each file is as it was or as it is to be, and nobody is deleted unarchived.

Everything that rosterd writes lies on a disk of tests.machine.disk, of which a copy is made after each change: once as
it is, and once after somebody else had something of theirs written durably, which is when a rename that was not
fsynced shows.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.machine.disk import Disk, disk_under, moments
from tests.machine.faults import SITE, breakable, everything_wrong, run, write_roster
from tests.machine.machine import Machine
from tests.proof.evidence import note, scaled

FOLDERS = ("/etc", "/var/lib/rosterd", "/home")
# Of the changes that a command makes, every so many of each kind is looked at; of the copies, every so many is run on.
EVERY, AGAIN = scaled(30, 1), scaled(25, 12)

POLICY = """\
settle: 0
listen: 0
tiers:
  admin: {groups: [code-shared, docker, sudo], admin: true, cluster: exempt, limits: {tasks_max: 4096}}
homes:
  notes: {directory: {path: notes}}
  conf: {file: {path: .config/site/conf, content: "port {port.t3}\\n", keep: current}}
"""
SETUP = """
install -D -m 755 /src/packaging/home-steps /usr/lib/rosterd/home-steps
mkdir -p /etc/t3-serve /var/lib/rosterd
"""
BESIDE_HER_PORT = 'TOKEN="two\nlines"\n'

# What this is about, among all that lies on the disk: what rosterd writes whole.
OWN = re.compile(
    r"/etc/(t3-serve/[^.].*|ttyd-user-map|ttyd-admins|systemd/system/.*/50-rosterd\.conf)"
    r"|/var/lib/rosterd/(creating|cuts|tombstones|homes|retired)/[^.].*|/var/lib/rosterd/(last-run|identities)"
    r"|/var/lib/rosterd/archives/[^.][^/]*|/home/[^/]+/\.config/site/[^.].*"
)
RECORDS = re.compile(r"/var/lib/rosterd/(?!archives/)")
ACCOUNTS = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid")
ARCHIVES, TOMBSTONES = "/var/lib/rosterd/archives", "/var/lib/rosterd/tombstones"

Files = Mapping[str, bytes]


@dataclass
class Seen:
    """What was seen in copies, to be noted, and what was wrong, to be told. `leaver` is who comes and goes."""

    leaver: str
    count: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def judge(self, when: str, found: Files, before: Files, after: Files) -> None:
        """Look at one copy: `before` and `after` the command is what its files may be."""
        self.count["snapshots"] += 1
        for kind, path in [*torn(found, before, after), *lost_lines(found, before, self.leaver)]:
            self.count[kind] += 1
            self.wrong.append(f"{kind}: {path} {when}")
        if is_deleted_unarchived(self.leaver, found, before, after):
            self.count["deleted_unarchived"] += 1
            self.wrong.append(f"deleted before the archive is there: {when}")


def torn(found: Files, before: Files, after: Files) -> Iterator[tuple[str, str]]:
    """Yield what is neither old nor new: files that are empty, mixed, or missing where they had been."""
    for path in sorted(filter(OWN.fullmatch, {*found, *before, *after})):
        content = found.get(path)
        if content in (before.get(path), after.get(path)):
            continue
        if content is None:
            yield "missing", path
        elif not content:
            yield "empty", path
        elif not (RECORDS.match(path) and is_whole_record(content)):  # one may be written twice in a command
            yield "mixed", path


def is_whole_record(content: bytes) -> bool:
    """Say whether a record is all there: an object, and the line end behind it."""
    try:
        return content.endswith(b"\n") and isinstance(json.loads(content), dict)
    except ValueError:
        return False


def lost_lines(found: Files, before: Files, leaver: str) -> Iterator[tuple[str, str]]:
    """Yield the account files that have lost somebody whom the command has nothing to do with."""
    for path in ACCOUNTS:
        kept = {line.split(b":")[0] for line in found.get(path, b"").split(b"\n")}
        names = {line.split(b":")[0] for line in before[path].split(b"\n")} - {leaver.encode()}
        if not names <= kept:
            yield "lost", path


def is_deleted_unarchived(leaver: str, found: Files, before: Files, after: Files) -> bool:
    """Say whether something is gone of the one who is being deleted, and archive and tombstone are not there."""
    archives = [path for path in after if path.startswith(f"{ARCHIVES}/{leaver}-") and path not in before]
    belongings = [path for path in before if path.startswith(f"/home/{leaver}/") or f"{leaver}.env" in path]
    line = f"\n{leaver}:".encode()
    gone = any(path not in found for path in belongings)
    gone = gone or any(line in before[path] and line not in found.get(path, b"") for path in ACCOUNTS)
    if not archives or not gone:
        return False
    is_archived = found.get(archives[0]) == after[archives[0]]
    return not is_archived or not is_whole_record(found.get(f"{TOMBSTONES}/{leaver}", b""))


@pytest.fixture(scope="module")
def disk() -> Iterator[Disk]:
    """Boot a machine whose anna has everything, with a secret beside her port, and a disk under it."""
    with breakable() as machine:
        machine.sh(SETUP)
        machine.write(SITE, POLICY)
        write_roster(machine, ["anna"])
        run(machine)
        machine.sh('printf "%s" "$1" >>/etc/t3-serve/anna.env', BESIDE_HER_PORT)
        with disk_under(machine, *FOLDERS) as disk:
            yield disk


def watch(disk: Disk, seen: Seen, *argv: str, beside: bool) -> list[tuple[str, Path]]:
    """Run a command of rosterd and look at the disk after its changes; return some of the copies, and when it was."""
    disk.settle()
    before, last = disk.live(), disk.written()
    copies: list[tuple[str, Path]] = []
    for line in moments(disk, "rosterd", *argv, every=EVERY):
        seen.count["changes"] += 1
        if beside:
            disk.commit()
        if disk.written() != last:
            copies.append((f"after {line} of {' '.join(argv)}", disk.copy()))
            last = disk.written()
    copies.append((f"at the end of {' '.join(argv)}", disk.copy()))
    after = disk.live()
    for when, copy in copies:
        seen.judge(when, disk.found_in(copy), before, after)
    seen.wrong += not_durable(disk, copies[-1][1], after)
    kept = copies[::AGAIN]
    for one in copies:
        if one not in kept:
            one[1].unlink()
    return kept


def not_durable(disk: Disk, copy: Path, after: Files) -> list[str]:
    """Return what a command has said to be done, and is not on the disk when it has ended."""
    found = disk.found_in(copy)
    paths = filter(OWN.fullmatch, {*found, *after})
    return [f"not durable: {path}" for path in sorted(paths) if found.get(path) != after.get(path)]


COUNTED = ("changes", "snapshots", "empty", "mixed", "missing", "lost", "deleted_unarchived", "runs_on_copies")


@pytest.mark.parametrize(
    ("leaver", "beside"),
    [("carol", False), ("dora", True)],
    ids=["as it is", "after an fsync of somebody else's"],
)
def test_what_a_power_cut_leaves_is_old_or_new(disk: Disk, leaver: str, beside: bool) -> None:  # noqa: FBT001 (a parameter)
    seen, machine = Seen(leaver), disk.machine
    without, everybody = ["anna"], ["anna", leaver]
    write_roster(machine, everybody)
    for when, copy in watch(disk, seen, "reconcile", beside=beside):
        with disk.after_power_loss(copy):
            seen.count["runs_on_copies"] += 1
            done = run(machine, code=None)
            problems = [str(done)] if done.code else everything_wrong(machine, everybody)
            seen.wrong += [f"{problem}; {when}" for problem in problems]
    watch(disk, seen, "cut", leaver, beside=beside)
    write_roster(machine, without)
    for when, copy in watch(disk, seen, "destroy", leaver, "--yes", leaver, beside=beside):
        with disk.after_power_loss(copy):
            seen.count["runs_on_copies"] += 1
            seen.wrong += [f"{problem}; {when}" for problem in not_destroyed(machine, leaver)]
    watch(disk, seen, "restore", leaver, beside=beside)
    write_roster(machine, everybody)
    watch(disk, seen, "uncut", leaver, beside=beside)
    note("power", **{kind: seen.count[kind] for kind in COUNTED})
    seen.wrong += everything_wrong(machine, everybody)
    # For the next, in whose roster they are not: an administrator leaves by command alone.
    run(machine, "cut", leaver)
    write_roster(machine, without)
    assert not seen.wrong, "\n".join(seen.wrong[:20])
    assert BESIDE_HER_PORT in machine.read("/etc/t3-serve/anna.env")


def not_destroyed(machine: Machine, name: str) -> list[str]:
    """Destroy somebody once more, or for the first time; return what is left of them, or is missing."""
    done = run(machine, "destroy", name, "--yes", name, code=None)
    if done.code:
        return [str(done)]
    script = """
        ! getent passwd "$1" || echo account
        ls -d "/home/$1" "/etc/t3-serve/$1.env" 2>/dev/null || :
        [ -s "/var/lib/rosterd/tombstones/$1" ] || echo no tombstone
        gzip --test /var/lib/rosterd/archives/"$1"-*.tar.gz 2>&1 || :
    """
    return machine.sh(script, name).out.splitlines()


# As somebody writes a file who does not know better, over one that is there.
NAIVE = {
    "by rename": "open('/etc/t3-serve/new','w').write('new'); os.rename('/etc/t3-serve/new','/etc/t3-serve/anna.env')",
    "in place": "open('/etc/t3-serve/anna.env','w').write('new')",
}


@pytest.mark.parametrize("how", NAIVE)
def test_a_writer_that_does_not_fsync_is_caught(disk: Disk, how: str) -> None:
    seen = Seen("nobody")
    disk.settle()
    before = disk.live()
    after = {**before, "/etc/t3-serve/anna.env": b"new"}
    for line in moments(disk, "python3", "-c", f"import os; {NAIVE[how]}"):
        disk.commit()
        copy = disk.copy()
        seen.judge(line, disk.found_in(copy), before, after)
        copy.unlink()
    disk.machine.sh('printf "%s" "$1" >/etc/t3-serve/anna.env', before["/etc/t3-serve/anna.env"].decode())
    note("power", caught_without_fsync=seen.count["empty"])
    assert seen.count["empty"] > 0
