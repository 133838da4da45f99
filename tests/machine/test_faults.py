"""What a run does when the machine fails it: named, bounded, everything else done, and mended by the next run."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.machine.faults import (
    RUN_LIMIT,
    SITE,
    account_problems,
    breakable,
    everything_wrong,
    fingerprint,
    leftovers,
    map_problems,
    run,
    service_problems,
    start_waiting,
    write_roster,
)
from tests.machine.machine import Machine
from tests.proof.evidence import note, scaled

PEOPLE = ["anna", "bob"]


@pytest.fixture
def host() -> Iterator[Machine]:
    """Boot a machine that no run was made on."""
    with breakable() as machine:
        yield machine


@pytest.fixture
def annas(host: Machine) -> Machine:
    """Return a machine on which anna has everything."""
    write_roster(host, ["anna"])
    run(host)
    return host


# --- the bus and systemd ---


def stop_bus(machine: Machine) -> None:
    """Stop the bus and take its socket away; systemctl itself does without."""
    machine.sh("systemctl stop dbus.socket dbus.service && rm -f /run/dbus/system_bus_socket")


def start_bus(machine: Machine) -> None:
    """Start the bus again, and wait until systemd is back on it."""
    machine.run("systemctl", "start", "dbus.socket", "dbus.service")
    machine.sh("until busctl --timeout=1 status org.freedesktop.systemd1 >/dev/null 2>&1; do sleep 0.05; done")


@contextmanager
def frozen_bus(machine: Machine) -> Iterator[None]:
    """Let the bus daemon take connections and answer none."""
    pid = machine.run("systemctl", "show", "--property=MainPID", "--value", "dbus.service").out.strip()
    machine.run("kill", "-STOP", pid)
    yield
    machine.run("kill", "-CONT", pid)


@contextmanager
def frozen_systemd(machine: Machine) -> Iterator[None]:
    """Let systemd answer nothing, while the bus and everything else run."""
    os.kill(machine.leader, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(machine.leader, signal.SIGCONT)


def assert_done_but_the_services(machine: Machine, said: str) -> None:
    """Look for accounts, env files and maps, and for words about what was not done."""
    assert "does not answer" in said
    assert "services are not looked after" in said
    assert not account_problems(machine, PEOPLE)
    assert not map_problems(machine, PEOPLE)
    assert not leftovers(machine)


def test_without_the_bus_all_but_the_services_is_done_and_the_next_run_brings_them_up(host: Machine) -> None:
    write_roster(host, PEOPLE)
    stop_bus(host)
    assert_done_but_the_services(host, run(host, code=3).said)
    again = run(host, code=3)
    assert "+ " not in again.said
    start_bus(host)
    run(host)
    assert not everything_wrong(host, PEOPLE)


def test_a_frozen_bus_holds_up_a_run_for_seconds_only(host: Machine) -> None:
    write_roster(host, PEOPLE)
    with frozen_bus(host):
        assert_done_but_the_services(host, run(host, code=3).said)
    run(host)
    assert not everything_wrong(host, PEOPLE)


def test_a_systemd_that_does_not_answer_holds_up_a_run_for_seconds_only(host: Machine) -> None:
    write_roster(host, PEOPLE)
    with frozen_systemd(host):
        assert_done_but_the_services(host, run(host, code=3).said)
    run(host)
    assert not everything_wrong(host, PEOPLE)


@pytest.mark.parametrize("what", ["dies", "freezes"])
def test_a_bus_that_fails_while_services_start_ends_the_wait_for_them(host: Machine, what: str) -> None:
    """The jobs are queued and their ends will not be told."""
    drop_in = "/etc/systemd/system/t3-serve@.service.d/slow.conf"
    host.write(drop_in, "[Service]\nExecStartPre=/bin/sleep 4\n")
    host.run("systemctl", "daemon-reload")
    write_roster(host, PEOPLE)
    command = host.start("rosterd", "reconcile")
    host.sh("until systemctl is-active t3-serve@anna | grep -q activating; do sleep 0.05; done")
    if what == "dies":
        stop_bus(host)
        out, err = command.communicate(timeout=RUN_LIMIT)
        start_bus(host)
    else:
        with frozen_bus(host):
            out, err = command.communicate(timeout=RUN_LIMIT)
    said = out + err
    assert command.returncode == 3, said
    assert "does not answer" in said
    assert not account_problems(host, PEOPLE)
    assert not map_problems(host, PEOPLE)
    host.run("rm", drop_in)
    host.run("systemctl", "daemon-reload")
    host.sh("while systemctl is-active t3-serve@anna | grep -q activating; do sleep 0.1; done")
    run(host)
    assert not everything_wrong(host, PEOPLE)


# --- locks of shadow-utils ---

# In each state /etc/passwd.lock is there, and nobody is to take it away.
LOCKS = {
    "an empty lock": ": >/etc/passwd.lock",
    "a lock with garbage": "echo garbage >/etc/passwd.lock",
    "a lock of a live process": "setsid sleep 600 >/dev/null 2>&1 & printf '%s' $! >/etc/passwd.lock",
}
NEW = [f"new{number}" for number in range(10)]


def give_work(machine: Machine) -> None:
    """Put ten new people on the roster, and leave things to do for anna that need no account."""
    write_roster(machine, ["anna", *NEW])
    machine.sh("rm /etc/t3-serve/playwright-anna.env /etc/ttyd-admins; systemctl stop t3-serve@anna")


def assert_only_accounts_are_missing(machine: Machine) -> None:
    """See that what needed no account was done, and nobody is in the maps who has none."""
    assert not account_problems(machine, ["anna"])
    assert not service_problems(machine, ["anna"])
    assert not map_problems(machine, ["anna"])


@pytest.mark.parametrize("lock", LOCKS)
def test_a_held_lock_of_passwd_fails_the_accounts_only_and_stays(annas: Machine, lock: str) -> None:
    give_work(annas)
    annas.sh(LOCKS[lock])
    before = annas.sh("stat -c '%i %Y' /etc/passwd.lock; cat /etc/passwd.lock").out
    done = run(annas, code=3, limit=20)
    assert "passwd.lock" in done.said
    assert annas.sh("stat -c '%i %Y' /etc/passwd.lock; cat /etc/passwd.lock").out == before
    assert_only_accounts_are_missing(annas)
    annas.run("rm", "/etc/passwd.lock")
    run(annas)
    assert not everything_wrong(annas, ["anna", *NEW])


def test_the_lock_of_a_dead_process_is_no_hindrance(annas: Machine) -> None:
    give_work(annas)
    annas.sh("sh -c 'printf %s $$ >/etc/passwd.lock'")
    run(annas)
    assert not everything_wrong(annas, ["anna", *NEW])


def test_a_process_that_holds_the_lock_costs_its_wait_once_and_not_for_each_person(annas: Machine) -> None:
    give_work(annas)
    hold = "import fcntl; lock = open('/etc/.pwd.lock', 'w'); fcntl.lockf(lock, fcntl.LOCK_EX)"
    holder = start_waiting(annas, hold)
    done = run(annas, code=3, limit=25)
    assert "lock" in done.said
    assert_only_accounts_are_missing(annas)
    holder.kill()
    holder.wait()
    run(annas)
    assert not everything_wrong(annas, ["anna", *NEW])


# The other files of shadow-utils, each with a lock of its own, and in what state that is left.
OTHER_LOCKS = {
    "subuid": "an empty lock",
    "shadow": "a lock of a live process",
    "group": "a lock with garbage",
    "gshadow": "an empty lock",
    "subgid": "a lock of a live process",
}


def test_a_lock_of_any_other_file_of_accounts_is_named_and_stays(annas: Machine) -> None:
    wrong: list[str] = []
    files = list(OTHER_LOCKS)[: scaled(2, len(OTHER_LOCKS))]
    people = ["anna"]
    for file in files:
        people.append(f"of-{file}")
        write_roster(annas, people)
        annas.sh(LOCKS[OTHER_LOCKS[file]].replace("passwd.lock", f"{file}.lock"))
        look = ("stat", "--format=%i %Y %s", f"/etc/{file}.lock")
        before = annas.run(*look).out
        done = run(annas, code=None, limit=25)
        wrong += [] if done.code == 3 and f"/etc/{file}" in done.said else [f"{file}: {done}"]
        wrong += [] if annas.run(*look, check=False).out == before else [f"{file}: its lock was taken away"]
        wrong += account_problems(annas, people[:-1]) + service_problems(annas, people[:-1])
        annas.run("rm", "-f", f"/etc/{file}.lock")
        run(annas)
        wrong += everything_wrong(annas, people)
    note("account_locks", files=len(files), wrong=len(wrong))
    assert not wrong, "\n".join(wrong)


# --- homes ---


def fingerprint_of(machine: Machine, *words: str) -> list[str]:
    """Return the lines of the fingerprint that have one of the words."""
    return [line for line in fingerprint(machine).splitlines() if any(word in line for word in words)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("mv /home/anna /srv/anna; ln -s /srv/anna /home/anna", "symbolic link"),
        ("chown -R 1234:1234 /home/anna", "belongs to 1234"),
        ("rm -r /home/anna; : >/home/anna", "not a folder"),
    ],
    ids=["a link", "another's", "a file"],
)
def test_a_home_that_is_not_a_folder_of_the_persons_is_refused_and_not_touched(
    annas: Machine, change: str, words: str
) -> None:
    annas.sh(f"{change}; gpasswd -d anna docker; sed -i /^anna:/d /etc/subuid")
    before = fingerprint_of(annas, "anna")
    write_roster(annas, PEOPLE)
    done = run(annas, code=3)
    assert "anna: conflict: home /home/anna" in done.said
    assert words in done.said
    assert fingerprint_of(annas, "anna") == [line for line in before if "anna" in line]
    assert not account_problems(annas, ["bob"])
    assert not service_problems(annas, PEOPLE)
    assert not map_problems(annas, PEOPLE)


@pytest.mark.parametrize(
    "home",
    [
        "mkdir /srv/victim; echo x >/srv/victim/file; chmod 777 /srv/victim; ln -s /srv/victim /home/bob",
        "mkdir /home/bob; chown 1234 /home/bob",
        ": >/home/bob",
    ],
    ids=["a link", "another's", "a file"],
)
def test_nobody_gets_an_account_on_a_home_that_is_there_already(annas: Machine, home: str) -> None:
    annas.sh(home)
    before = fingerprint_of(annas, "/home/bob", "/srv/victim")
    write_roster(annas, PEOPLE)
    done = run(annas, code=3)
    assert re.search("bob: conflict: .*/home/bob", done.said)
    assert fingerprint_of(annas, "/home/bob", "/srv/victim") == before
    assert annas.run("getent", "passwd", "bob", check=False).code == 2
    assert not everything_wrong(annas, ["anna"])


# --- writing fails ---


def test_a_full_disk_keeps_what_was_there_and_harms_nothing_else(annas: Machine) -> None:
    annas.sh("""
        cp -a /etc/t3-serve /run/kept
        mount -t tmpfs -o size=24k,mode=755 none /etc/t3-serve
        cp -a /run/kept/. /etc/t3-serve
        cat /dev/zero >/etc/t3-serve/filler 2>/dev/null || :
    """)
    before = fingerprint_of(annas, "/etc/t3-serve")
    write_roster(annas, PEOPLE)
    done = run(annas, code=3)
    assert "/etc/t3-serve/bob.env cannot be written: No space left on device" in done.said
    assert annas.sh("cd /run/kept && for file in *; do cmp $file /etc/t3-serve/$file; done").out == ""
    assert [line.split()[:5] for line in fingerprint_of(annas, "/etc/t3-serve/")] == [
        line.split()[:5] for line in before if "/etc/t3-serve/" in line
    ]
    assert not account_problems(annas, PEOPLE)
    assert not service_problems(annas, ["anna"])
    annas.run("rm", "/etc/t3-serve/filler")
    run(annas)
    assert not everything_wrong(annas, PEOPLE)


def test_a_read_only_folder_of_env_files_harms_nothing_else(annas: Machine) -> None:
    annas.sh("mount --bind /etc/t3-serve /etc/t3-serve; mount -o remount,bind,ro /etc/t3-serve")
    before = fingerprint_of(annas, "/etc/t3-serve")
    write_roster(annas, PEOPLE)
    done = run(annas, code=3)
    assert "/etc/t3-serve/bob.env cannot be written: Read-only file system" in done.said
    assert fingerprint_of(annas, "/etc/t3-serve") == before
    assert not account_problems(annas, PEOPLE)
    assert not service_problems(annas, ["anna"])
    annas.run("umount", "/etc/t3-serve")
    run(annas)
    assert not everything_wrong(annas, PEOPLE)


def test_a_read_only_etc_is_named_and_changes_nothing(annas: Machine) -> None:
    write_roster(annas, ["anna", *NEW])
    before = fingerprint(annas)
    annas.sh("mount --bind /etc /etc; mount -o remount,bind,ro /etc")
    done = run(annas, code=None, limit=25)
    assert done.code in {1, 3}
    assert "Read-only file system" in done.said or "cannot lock /etc/group" in done.said
    without_state = [line for line in before.splitlines() if "/var/lib/rosterd" not in line]
    assert [line for line in fingerprint(annas).splitlines() if "/var/lib/rosterd" not in line] == without_state
    annas.run("umount", "/etc")
    run(annas)
    assert not everything_wrong(annas, ["anna", *NEW])


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["openat", "write", "fchmod", "fsync", "renameat"])
def test_an_error_of_any_step_of_a_write_keeps_the_old_text(failing: Machine, call: str, error: str) -> None:
    failing.sh("cp -a /run/kept/. /etc/t3-serve; rm -f /etc/t3-serve/bob.env; cp -a /run/maps/. /etc")
    failing.write("/etc/ttyd-admins", "")
    before = fingerprint_of(failing, "/etc/t3-serve/anna.env", "/etc/t3-serve/dispatch.json")
    # Only what concerns these two files fails: their temporary names, and what is open under them.
    paths = [f"/etc/t3-serve/.{name}.rosterd-new" for name in ("anna.env", "dispatch.json")]
    paths += [path.rpartition("/")[2] for path in paths]
    matching = [argument for path in paths for argument in ("-P", path)]
    inject = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}")
    strace = ("strace", "-qq", "-o", "/run/trace", *matching, *inject)
    result = failing.run(*strace, "rosterd", "reconcile", check=False)
    said = result.out + result.err
    assert "(INJECTED)" in failing.read("/run/trace")
    assert result.code == 3, result
    words = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}[error]
    assert f"/etc/t3-serve/anna.env cannot be written: {words}" in said
    assert f"/etc/t3-serve/dispatch.json cannot be written: {words}" in said
    assert fingerprint_of(failing, "/etc/t3-serve/anna.env", "/etc/t3-serve/dispatch.json") == before
    assert not leftovers(failing)
    assert failing.read("/etc/ttyd-admins") == "bob\n", "the others' maps are written, and anna's line waits"
    run(failing)
    assert not everything_wrong(failing, PEOPLE)


@pytest.fixture(scope="module")
def failing() -> Iterator[Machine]:
    """Boot a machine whose anna has lost her port, and whose dispatch map is old."""
    with breakable() as machine:
        write_roster(machine, PEOPLE)
        run(machine)
        machine.sh("""
            sed -i /T3_PORT/d /etc/t3-serve/anna.env
            echo TOKEN=secret >>/etc/t3-serve/anna.env
            echo '{"anna.id": {"os_user": "anna", "port": 3773}}' >/etc/t3-serve/dispatch.json
            cp -a /etc/t3-serve /run/kept
            mkdir /run/maps
            cp -a /etc/ttyd-user-map /run/maps
        """)
        yield machine


# --- ids run out, names that are nobody's ---


def test_without_subordinate_ids_left_only_that_person_fails_and_a_site_can_do_without(host: Machine) -> None:
    host.sh("sed -i '/^SUB_.ID_MAX/d' /etc/login.defs; echo 'SUB_UID_MAX 165535\nSUB_GID_MAX 165535' >>/etc/login.defs")
    write_roster(host, PEOPLE)
    done = run(host, code=3)
    assert "bob: FAILED account" in done.said
    assert "subordinate" in done.said.lower()
    assert not everything_wrong_but_records(host, ["anna"])
    host.write(SITE, "settle: 0\nlisten: 0\nsubids: false\n")
    run(host)
    assert account_problems(host, PEOPLE) == ["bob: 0 lines in /etc/subuid", "bob: 0 lines in /etc/subgid"]
    assert not service_problems(host, PEOPLE)
    assert not map_problems(host, PEOPLE)
    assert not leftovers(host)


def everything_wrong_but_records(machine: Machine, names: list[str]) -> list[str]:
    """Return what is wrong with these people, where somebody else's account is still being created."""
    return [problem for problem in everything_wrong(machine, names) if "/creating/" not in problem]


def test_a_name_without_an_account_leaves_the_group_before_somebody_gets_it(annas: Machine) -> None:
    annas.sh("sed -i 's/^rosterd:.*/&,ghost/' /etc/group /etc/gshadow")
    assert "ghost" in annas.run("getent", "group", "rosterd").out
    run(annas)
    assert annas.run("getent", "group", "rosterd").out.strip().split(":")[3] == "anna"
    assert "ghost" not in annas.run("getent", "gshadow", "rosterd").out

    annas.run("useradd", "--create-home", "ghost")
    before = fingerprint_of(annas, "ghost")
    write_roster(annas, ["anna", "ghost"])
    done = run(annas, code=3)
    assert "ghost: conflict: account exists" in done.said
    assert fingerprint_of(annas, "ghost") == before
    write_roster(annas, ["anna"])
    run(annas)
    assert fingerprint_of(annas, "ghost") == before
