"""Alice, who has a life of her own and is cut off, to be deleted and restored; and ways to see what became of hers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.machine.faults import breakable, run, write_roster
from tests.machine.machine import Machine
from tests.machine.workstation import entry_of, groups_of

PEOPLE: dict[str, dict[str, Any]] = {"alice": {"tier": "power-user"}, "bob": {"tier": "power-user"}}
WITHOUT_ALICE = {"bob": PEOPLE["bob"]}
PLACES = ("/home/alice", "/var/mail/alice", "/var/spool/cron/rosterd-held/alice")
ENV_FILES = ("/etc/t3-serve/alice.env", "/etc/t3-serve/playwright-alice.env")
TOMBSTONE = "/var/lib/rosterd/tombstones/alice"

# What alice has: odd names, every kind of file, attributes, an ACL, a container's files.
LIFE = r"""
gpasswd --add alice docker >/dev/null
usermod --comment 'Alice, Room 7' alice
echo 'alice:correct-horse-47' | chpasswd
chage --lastday 20000 --maxdays 9365 alice
echo 'TOKEN="two
lines"' >>/etc/t3-serve/alice.env
install -o alice -g mail -m 660 /dev/null /var/mail/alice
echo 'From bob' >/var/mail/alice
echo '0 5 * * * echo hello' | crontab -u alice -
install -d -o alice -g alice /srv/shared
install -o alice /dev/null /srv/shared/left
runuser -u alice -- python3 -c '
import os, socket, struct
os.chdir("/home/alice")
os.makedirs("work/deep"), os.mkdir("private", 0o700), os.mkdir("empty", 0o2755)
open("work/file", "w").write("text\n")
os.link("work/file", "work/second name")
os.symlink("/etc/passwd", "link"), os.symlink("nowhere\xff", "dangling")
open(b"caf\xe9\nnext line", "w").write("odd\n")
open("-rf", "w").close(), open("star*back\\slash", "w").write("x")
os.mkfifo("fifo")
open("random", "wb").write(os.urandom(300000))
os.chmod("random", 0o4750)
with open("sparse", "wb") as file: file.truncate(5000000), file.seek(0, 2), file.write(b"end")
os.setxattr("work/file", "user.note", b"a=b\n\xff\0")
rights = ((1, 6, -1), (2, 4, 1234), (4, 4, -1), (16, 4, -1), (32, 0, -1))
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *one) for one in rights)
os.setxattr("work/file", "system.posix_acl_access", acl), os.setxattr("work", "system.posix_acl_default", acl)
socket.socket(socket.AF_UNIX).bind("socket")'
install -o 100007 -g 100007 /dev/null /home/alice/work/of-a-container
python3 -c 'import os; os.setxattr("/home/alice/work/file", "trusted.note", b"of root")'
touch --date=2001-02-03T04:05:06.789 /home/alice/work/file /home/alice/work /home/alice
"""

# Everything about each file that a listing, a hash or an attribute can tell.
SNAPSHOT = r"""
import hashlib, os, stat, sys
def tell(path):
    found = os.lstat(path)
    if stat.S_ISSOCK(found.st_mode): return
    content = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""
    if stat.S_ISREG(found.st_mode): content = hashlib.sha256(open(path, "rb").read()).hexdigest()
    names = [name for name in os.listxattr(path, follow_symlinks=False) if "overlay" not in name]
    attributes = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names)]
    links = found.st_nlink if stat.S_ISREG(found.st_mode) else ""
    size = found.st_size if stat.S_ISREG(found.st_mode) else ""
    # rosterd writes env files itself, and has nothing to do with when that was.
    when = "" if path.startswith("/etc/") else found.st_mtime_ns
    print(ascii((path, oct(found.st_mode), found.st_uid, found.st_gid, size, links, when, content, attributes)))
    if stat.S_ISDIR(found.st_mode):
        for name in sorted(os.listdir(path)): tell(f"{path}/{name}")
sys.setrecursionlimit(5000)
for path in sys.argv[1:]:
    if os.path.lexists(path): tell(path)
"""


@contextmanager
def alice_cut_off() -> Iterator[Machine]:
    """Boot a machine on which alice has a life of her own, and is cut off."""
    with breakable() as machine:
        machine.sh("useradd --create-home stranger")
        write_roster(machine, PEOPLE)
        run(machine)
        machine.sh(LIFE)
        run(machine, "cut", "alice")
        write_roster(machine, WITHOUT_ALICE)
        yield machine


def snapshot(machine: Machine) -> list[str]:
    """Return all that is of alice's: files, account, groups."""
    files = machine.run("python3", "-c", SNAPSHOT, *PLACES, *ENV_FILES).out.splitlines()
    lines = [" ".join(entry_of(machine, database, "alice")) for database in ("passwd", "shadow", "group", "gshadow")]
    ids = machine.sh("grep --no-filename ^alice: /etc/subuid /etc/subgid || :").out.splitlines()
    member = sorted(groups_of(machine, "alice")) if lines[0] else []
    return [*files, *lines, *ids, *member]


def destroy(machine: Machine, *arguments: str, code: int = 0) -> str:
    return run(machine, "destroy", "alice", "--yes", "alice", *arguments, code=code).said


def restore(machine: Machine, *, code: int = 0) -> str:
    return run(machine, "restore", "alice", code=code).said


def tombstone(machine: Machine) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(machine.read(TOMBSTONE))
    return document


def is_gone(machine: Machine) -> bool:
    """Say whether nothing of alice is left but her tombstone and her archive."""
    lines = "grep --word-regexp alice /etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/subgid"
    left = machine.sh(f'ls -d "$@" 2>/dev/null || :; {lines} || :', *PLACES, *ENV_FILES).out
    return not left and not leftovers(machine)


def leftovers(machine: Machine) -> list[str]:
    find = "find /home /etc /var -xdev -name '*rosterd-new*' 2>/dev/null || :"
    return machine.sh(find).out.split()


def is_closed(machine: Machine) -> bool:
    """Say whether nobody can get in as alice: there is no shadow line, or it is expired and locked."""
    shadow = entry_of(machine, "shadow", "alice")
    return not shadow or (shadow[1].startswith("!") and shadow[7] == "1")


def has_sound_archive(machine: Machine) -> bool:
    """Say whether the archive on record is the one that was made, by sha256sum and tar themselves."""
    stone = tombstone(machine)
    digest = machine.run("sha256sum", stone["archive"]).out.split()[0]
    machine.run("tar", "--list", "--gzip", f"--file={stone['archive']}")
    return bool(digest == stone["digest"])


def assert_nothing_lost(machine: Machine, before: list[str]) -> None:
    """See that whatever is no longer there is in a sound archive on record, and nobody got in."""
    assert is_closed(machine)
    if not set(before) <= set(snapshot(machine)):
        assert has_sound_archive(machine)


def refused(machine: Machine, code: int, told: str, *arguments: str) -> None:
    """See that a command ends so, and that it says why."""
    result = machine.run("rosterd", *arguments, check=False)
    assert result.code == code, result
    assert told in result.err, result
