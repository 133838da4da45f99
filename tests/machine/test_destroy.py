"""People are deleted for good, and come back: nothing is lost, no id is given twice, nobody gets in meanwhile."""

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.machine.departed import (
    ENV_FILES,
    LIFE,
    PEOPLE,
    PLACES,
    SNAPSHOT,
    TOMBSTONE,
    WITHOUT_ALICE,
    alice_cut_off,
    destroy,
    has_sound_archive,
    is_closed,
    is_gone,
    leftovers,
    refused,
    restore,
    snapshot,
    tombstone,
)
from tests.machine.faults import SITE, breakable, run, write_roster
from tests.machine.machine import Machine, Result
from tests.machine.workstation import entry_of, port_in
from tests.proof.evidence import note, scaled

CYCLES = scaled(20, 1000)
NO_SERVICES = {"t3": False, "playwright": False}

# Deeper than the folders that a process may have open by itself.
DEEP = r"""
runuser -u alice -- python3 -c '
import os
os.chdir("/home/alice/work/deep")
for _ in range(1500): os.mkdir("d"), os.chdir("d")
open("bottom", "w").write("deep\n")'
"""


@pytest.fixture
def host() -> Iterator[Machine]:
    """Boot a machine on which alice has a life of her own, and is cut off."""
    with alice_cut_off() as machine:
        yield machine


# --- there and back ---


def test_everything_of_a_person_goes_and_comes_back_as_it_was(host: Machine) -> None:
    host.sh(DEEP)
    before = snapshot(host)
    ports = [port_in(host, ENV_FILES[0]), port_in(host, ENV_FILES[1], "PLAYWRIGHT_PORT")]
    uid = int(entry_of(host, "passwd", "alice")[2])
    assert len(before) > 1520

    shown = run(host, "destroy", "alice", "--dry-run").said
    assert snapshot(host) == before
    assert "home /home/alice → deleted" in shown
    assert "2 files of theirs elsewhere stay" in shown
    assert "/srv/shared/left" in shown
    assert "1 sockets are not archived: /home/alice/socket" in shown

    said = host.sh("ulimit -Sn 256; rosterd destroy alice --yes alice 2>&1").out
    assert is_gone(host)
    stone = tombstone(host)
    assert stone["archive"] in said
    assert (stone["name"], stone["uid"], stone["gid"], stone["complete"]) == ("alice", uid, uid, True)
    assert sorted(stone["ports"].values()) == sorted(ports)
    assert has_sound_archive(host)
    assert host.run("stat", "--format=%U:%G %a", stone["archive"]).out == "root:root 600\n"
    assert "deleted already" in destroy(host)
    told = host.journal("OS_USER=alice", "ROSTERD_ACTION=delete_home")
    assert [entry["MESSAGE"] for entry in told] == ["alice: home /home/alice → deleted"]

    write_roster(host, {**WITHOUT_ALICE, "carol": {"tier": "power-user"}})
    run(host)
    assert int(entry_of(host, "passwd", "carol")[2]) != uid
    assert port_in(host, "/etc/t3-serve/carol.env") not in ports

    # useradd gave her subordinate ids to carol; the next run has others for her.
    assert "subordinate ids 165536-231071 are somebody else's now" in restore(host)
    assert snapshot(host) == [line for line in before if not line.startswith("alice:165536")]
    assert is_closed(host)
    assert not host.exists(TOMBSTONE)
    assert host.exists(stone["archive"])
    assert not leftovers(host)

    write_roster(host, PEOPLE)
    run(host, "uncut", "alice")
    run(host)
    assert host.run("crontab", "-u", "alice", "-l").out == "0 5 * * * echo hello\n"
    assert not entry_of(host, "shadow", "alice")[1].startswith("!")
    assert port_in(host, ENV_FILES[0]) == ports[0]


@pytest.mark.parametrize("release", ["trixie"])
def test_on_the_next_debian_too(release: str) -> None:
    with breakable(release) as machine:
        write_roster(machine, PEOPLE)
        run(machine)
        machine.sh(LIFE)
        run(machine, "cut", "alice")
        write_roster(machine, WITHOUT_ALICE)
        before = snapshot(machine)
        destroy(machine)
        assert is_gone(machine)
        restore(machine)
        assert snapshot(machine) == before


# --- the archive ---


def test_the_archive_holds_all_of_it_for_tar_alone(host: Machine) -> None:
    before = snapshot(host)
    shadow = host.run("getent", "shadow", "alice").out
    destroy(host)
    host.run("mkdir", "-m", "700", "/root/alice")
    # As docs/operations.md has it.
    options = ("--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*", "-C", "/root/alice")
    host.run("tar", "-xpzf", tombstone(host)["archive"], *options)
    found = host.run("python3", "-c", SNAPSHOT, *(f"/root/alice{path}" for path in (*PLACES, *ENV_FILES)))
    there = [line.replace("/root/alice/", "/", 1) for line in found.out.splitlines()]
    # The time of an env file is left out of a snapshot by its place.
    there = [re.sub(r"^(\('/etc/.*, )\d{19}(, '[0-9a-f]{64}')", r"\1''\2", line) for line in there]
    assert there == [line for line in before if line.startswith("(")]
    assert sum("posix_acl_access" in line for line in there) == 2  # one file of two names
    assert sum("trusted.note" in line for line in there) == 2
    assert host.read("/root/alice/account/shadow") == shadow


# In place of tar: it makes a sound archive, of something else.
SPOILED = {
    "another content": """
import gzip
with gzip.open(archive) as file: data = file.read()
with gzip.open(archive, "wb") as file: file.write(data.replace(b"From bob", b"From Bob"))""",
    "is only in the archive": "tar(*given, '--absolute-names', '/etc/hostname')",
    "is not in the archive": "tar('--exclude=random', *given)",
    "another set of extended attributes": "tar(*(word for word in given if 'xattrs' not in word))",
    "another owner": "tar(*given, '--owner=0')",
}
BAD_TAR = """\
#!/usr/bin/python3
import subprocess, sys
given = sys.argv[1:]
archive = next(word.partition("=")[2] for word in given if word.startswith("--file="))
def tar(*words): subprocess.run(("/usr/bin/tar", *words), check=True)
tar(*given)
"""


def test_an_archive_that_is_not_what_it_was_made_of_deletes_nothing(host: Machine) -> None:
    before = snapshot(host)
    for told, spoil in SPOILED.items():
        host.write("/usr/sbin/tar", BAD_TAR + spoil + "\n", mode=0o755)
        said = destroy(host, code=3)
        assert "the archive is not what it was made of" in said, told
        assert told in said or "other members than were asked for" in said
        assert snapshot(host) == before
        assert not host.exists(TOMBSTONE)
        assert host.sh("ls -A /var/lib/rosterd/archives").out == ""
    host.run("rm", "/usr/sbin/tar")
    destroy(host)
    assert is_gone(host)


def test_nothing_is_deleted_before_archive_and_tombstone_are_on_disk(host: Machine) -> None:
    calls = "trace=fsync,rename,renameat,renameat2,unlink,unlinkat,rmdir,execve"
    command = ("rosterd", "destroy", "alice", "--yes", "alice")
    host.run("strace", "-f", "-qq", "-y", "-s", "200", "-e", calls, "-e", "signal=none", "-o", "/run/trace", *command)
    trace = host.read("/run/trace").splitlines()

    def first(pattern: str, after: int = -1) -> int:
        return next(number for number, call in enumerate(trace) if number > after and re.search(pattern, call))

    archived = first(r"fsync\(\d+</var/lib/rosterd/archives/[^>]*/archive\.tar\.gz>\) += 0")
    named = first(r'renameat\(.*"archive\.tar\.gz".*"alice-\d+-[-0-9]+\.tar\.gz"\) += 0', archived)
    kept = first(r"fsync\(\d+</var/lib/rosterd/archives>\) += 0", named)
    written = first(r"fsync\(\d+</var/lib/rosterd/tombstones/\.alice\.rosterd-new>\) += 0", kept)
    recorded = first(r'renameat\(.*"alice"\) += 0', written)
    on_disk = first(r"fsync\(\d+</var/lib/rosterd/tombstones>\) += 0", recorded)
    assert on_disk < first(r'execve\("[^"]*/rm".*"/home/alice"')
    assert on_disk < first(r'execve\("[^"]*/rm".*"/var/mail/alice"')
    assert on_disk < first(r'unlink(at)?\(.*"(/etc/t3-serve/)?alice\.env"')
    (deleting,) = (call for call in trace if re.search(r'execve\("[^"]*/userdel".*= 0', call))
    assert '["userdel", "--", "alice"]' in deleting
    assert trace.index(deleting) > on_disk


def test_a_long_archive_shows_its_progress_on_a_terminal_and_nowhere_else(host: Machine) -> None:
    large = 'runuser -u alice -- sh -c "head -c 60000000 /dev/urandom >/home/alice/large"'
    host.sh(large)
    command = shlex.join(
        ["script", "--quiet", "--return", "--command", "rosterd destroy alice --yes alice", "/dev/null"]
    )
    # Each carriage return is read as an end of a line.
    shown = host.sh(command).out
    bars = re.findall(r"\n\x1b\[K([a-z ]+) \[(#*)(-*)\] (\d+)% of 6[23] MiB", shown)
    assert {what for what, *_ in bars} == {"archiving", "reading back", "comparing"}
    for what, done, left, percent in bars:
        assert len(done) + len(left) == 30
        assert len(done) in {int(percent) * 30 // 100, int(percent) * 30 // 100 + 1}, f"{what} {percent} %"
    archiving = [int(percent) for what, *_, percent in bars if what == "archiving"]
    assert archiving == sorted(archiving)
    assert re.search(r"\n\x1b\[K\d\d:\d\d:\d\d info +alice: archive: none", shown), "the bar goes before that is said"
    assert "\x1b[Kunpacking [" in host.sh(command.replace("destroy alice --yes alice", "restore alice")).out
    assert "\x1b" not in destroy(host)


# --- a name that returns ---


def test_the_name_of_somebody_deleted_is_not_made_anew_but_restored_or_let_go(host: Machine) -> None:
    before = snapshot(host)
    destroy(host)
    stone = tombstone(host)
    write_roster(host, PEOPLE)
    bob = entry_of(host, "passwd", "bob")
    told = (
        f"was deleted (uid {stone['uid']}, archive {stone['archive']}) and is not made anew."
        " To have them back: rosterd restore alice. To let the name go to somebody new: rosterd forget alice"
    )
    shown = run(host, "reconcile", "--dry-run").said
    assert f"alice\n  ! {told}\n" in shown
    for _ in range(2):
        assert f"alice: conflict: {told}" in run(host, code=3).said
        assert is_gone(host)
        assert "alice" not in host.sh("cat /etc/ttyd-user-map /etc/t3-serve/dispatch.json").out
        assert entry_of(host, "passwd", "bob") == bob
    assert told in [entry["MESSAGE"].partition("conflict: ")[2] for entry in host.journal("OS_USER=alice")]

    # The entry that waits lets her in when she is restored, as far as no command has cut her off.
    restore(host)
    assert snapshot(host) == before
    run(host, "uncut", "alice")
    assert host.run("su", "alice", "-c", "true").code == 0
    assert int(entry_of(host, "passwd", "alice")[2]) == stone["uid"]

    run(host, "cut", "alice")
    write_roster(host, WITHOUT_ALICE)
    destroy(host)
    left = tombstone(host)["archive"]
    shown = run(host, "forget", "alice", "--dry-run").said
    assert f"alice: ids {stone['uid']}: alice's → nobody's, ever" in shown
    assert host.exists(TOMBSTONE)
    run(host, "forget", "alice", "--yes", "alice")
    write_roster(host, PEOPLE)
    run(host)
    assert int(entry_of(host, "passwd", "alice")[2]) not in {stone["uid"], int(bob[2])}
    assert host.run("stat", "--format=%U", "/home/alice").out == "alice\n"
    assert not host.exists("/home/alice/work")
    assert host.exists(left)


def test_a_dry_run_and_the_journal_tell_each_step_under_the_name(host: Machine) -> None:
    yes = ("--yes", "alice")
    for command, confirmed in (("destroy", yes), ("restore", ()), ("destroy", yes), ("forget", yes)):
        found = snapshot(host), host.sh("find /var/lib/rosterd ! -name last-run -printf '%p %i %T@\\n'").out
        planned = run(host, command, "alice", "--dry-run").said
        assert (snapshot(host), host.sh("find /var/lib/rosterd ! -name last-run -printf '%p %i %T@\\n'").out) == found
        steps = re.findall(r"^  (alice: .* → .*|alice: groups: \+ .*)$", planned, re.MULTILINE)
        assert len(steps) >= 2
        run(host, command, "alice", *confirmed)
        told = [entry["MESSAGE"] for entry in host.journal("OS_USER=alice", "ROSTERD_EVENT=removal_done")]
        # An archive is named by the second in which it is made.
        assert [without_time(line) for line in told[-len(steps) :]] == [without_time(line) for line in steps]


def without_time(line: str) -> str:
    return re.sub(r"\d{8}-\d{6}(\.\d+)?", "TIME", line)


def test_the_limits_of_a_person_go_with_them_and_come_back(host: Machine) -> None:
    write_roster(host, PEOPLE)
    run(host, "uncut", "alice")
    host.write(SITE, host.read(SITE) + "tiers: {power-user: {groups: [], limits: {memory_max: 1G}}}\n")
    run(host)
    slice_name = f"user-{entry_of(host, 'passwd', 'alice')[2]}.slice"

    def ceiling() -> str:
        drop_ins = host.sh(
            f"ls -d /etc/systemd/system/*alice*.d /etc/systemd/system/{slice_name}.d 2>/dev/null || :"
        ).out
        return drop_ins + host.run("systemctl", "show", "--property=MemoryMax", slice_name).out

    before = ceiling()
    assert "MemoryMax=1073741824\n" in before
    run(host, "cut", "alice")
    assert ceiling() == before
    write_roster(host, WITHOUT_ALICE)
    destroy(host)
    run(host)
    assert ceiling() == "MemoryMax=infinity\n"
    restore(host)
    write_roster(host, PEOPLE)
    run(host, "uncut", "alice")
    run(host)
    assert ceiling() == before
    assert host.run("systemctl", "show", "--property=Slice", "t3-serve@alice.service").out == f"Slice={slice_name}\n"


# --- what is refused ---


def test_who_cannot_be_meant_or_may_not_be_deleted_is_refused_with_nothing_changed(host: Machine) -> None:
    before = snapshot(host)
    for name, told in (
        ("nobody-here", "has no account"),
        ("root", "account of the system"),
        ("stranger", "not managed"),
        ("bob", "is on the roster"),
    ):
        refused(host, 64, told, "destroy", name, "--yes", name)
    refused(host, 64, "no terminal to ask on", "destroy", "alice")
    refused(host, 64, "--yes names 'bob'", "destroy", "alice", "--yes", "bob")
    for name in ("alice", "root", "stranger", "nobody-here"):
        refused(host, 64, "not on record as deleted", "restore", name)
    for name in ("root", "stranger", "nobody-here"):
        refused(host, 64, "nothing is on record", "forget", name, "--yes", name)
    write_roster(host, {"carol": {"tier": "power-user"}})
    refused(host, 3, "not cut off. Do that first: rosterd cut bob", "destroy", "bob", "--yes", "bob")
    write_roster(host, WITHOUT_ALICE)
    refused(host, 64, "rosterd destroy alice", "forget", "alice", "--yes", "alice")
    refused(host, 3, "others than root can write", "destroy", "alice", "--yes", "alice", "--archive-dir", "/tmp")
    for spoil, mend, told in (
        ("usermod --expiredate '' alice", "usermod --expiredate 1 alice", "Run: rosterd cut alice"),
        ("usermod --home / alice", "usermod --home /home/alice alice", "home / is no path of a person's own"),
        ("usermod --home /home alice", "usermod --home /home/alice alice", "home /home is no path of a person's own"),
        ("usermod --home /etc/x alice", "usermod --home /home/alice alice", "lies in a folder of the system's"),
        ("mv /home/alice /home/a; ln -s a /home/alice", "rm /home/alice; mv /home/a /home/alice", "through a link"),
        ("chown bob /home/alice", "chown alice /home/alice", "belongs to uid"),
        ("chmod g+w /home; chgrp users /home", "chmod g-w /home; chgrp root /home", "others than root can change"),
        ("usermod --home /home/alice/x stranger", "usermod --home /home/stranger stranger", "of stranger share files"),
        ("gpasswd --add bob alice", "gpasswd --delete bob alice", "bob is in the group alice"),
        ("mount -t tmpfs none /home/alice/empty", "umount /home/alice/empty", "umount /home/alice/empty"),
        ("truncate -s 4E /home/alice/-rf", "truncate -s 0 /home/alice/-rf", "more than its file system holds"),
    ):
        host.sh(f"{spoil} >/dev/null")
        result = host.run("rosterd", "destroy", "alice", "--yes", "alice", check=False)
        host.sh(f"{mend} >/dev/null")
        assert result.code == 3, result
        assert told in result.err, result
    host.sh("touch --date=2001-02-03T04:05:06.789 /home/alice")
    after = snapshot(host)
    assert [line for line in after if "-rf'" not in line] == [line for line in before if "-rf'" not in line]
    assert not host.exists(TOMBSTONE)


def test_a_full_disk_loses_nothing(host: Machine) -> None:
    before = snapshot(host)
    host.sh("mkdir -m 700 /mnt/small && mount -t tmpfs -o size=100k,mode=700 none /mnt/small")
    assert "no space is left in /mnt/small" in destroy(host, "--archive-dir", "/mnt/small", code=3)
    assert host.sh("ls -A /mnt/small").out == ""
    assert snapshot(host) == before
    assert not host.exists(TOMBSTONE)
    host.sh("mount -o remount,size=10m /mnt/small")
    destroy(host, "--archive-dir", "/mnt/small")
    assert tombstone(host)["archive"].startswith("/mnt/small/alice-")


def test_nobody_is_restored_from_another_archive_than_was_made(host: Machine) -> None:
    before = snapshot(host)
    destroy(host)
    archive = tombstone(host)["archive"]
    # gzip takes no notice of zeros at the end.
    host.sh('cp -p "$1" /root/kept; head -c 512 /dev/zero >>"$1"', archive)
    assert "is not the one that was made" in restore(host, code=3)
    host.sh('printf x >>"$1"', archive)
    assert f"the archive {archive} cannot be read" in restore(host, code=3)
    host.run("rm", archive)
    assert f"the archive {archive} is not there" in restore(host, code=3)
    assert is_gone(host)
    host.run("mv", "/root/kept", archive)
    host.sh("useradd --uid $1 thief", str(tombstone(host)["uid"]))
    assert "is thief's now" in restore(host, code=3)
    host.run("userdel", "thief")
    restore(host)
    assert snapshot(host) == before


def test_the_name_is_asked_for_on_a_terminal(host: Machine) -> None:
    def typing(name: str) -> Result:
        command = shlex.join(["script", "--quiet", "--return", "--command", "rosterd destroy alice", "/dev/null"])
        return host.sh(f"(sleep 0.5; echo {name}; sleep 1) | {command}", check=False)

    assert "the name was not typed; nothing was done" in typing("alicia").out
    assert host.exists("/home/alice")
    result = typing("alice")
    assert "To go on, type the name:" in result.out
    assert is_gone(host), result


# --- ids ---


def test_no_uid_is_ever_given_twice(host: Machine) -> None:
    destroy(host)
    run(host, "forget", "alice", "--yes", "alice")
    assert not host.exists(TOMBSTONE)
    given = [int(name) for name in host.sh("ls /var/lib/rosterd/retired").out.split()]
    for number in range(CYCLES):
        # Each run makes the next and cuts off the one before. Two names take turns, and become somebody new each time.
        name, last = f"new{number % 2}", f"new{(number + 1) % 2}"
        write_roster(host, {**WITHOUT_ALICE, name: {"tier": "power-user", "services": NO_SERVICES}})
        run(host)
        given.append(int(entry_of(host, "passwd", name)[2]))
        if number:
            run(host, "destroy", last, "--yes", last)
            run(host, "forget", last, "--yes", last)
    note("ids", people=len(given), given_twice=len(given) - len(set(given)))
    assert len(given) == CYCLES + 1
    assert len(set(given)) == len(given)
