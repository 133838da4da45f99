"""`rosterd cut`, `uncut` and `done`, and the site's hooks for what there is to take back outside of the machine."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.busy import commands_of, differences, snapshot
from tests.machine.machine import Machine, Result
from tests.machine.workstation import (
    ROSTER,
    SITE,
    entry_of,
    eventually,
    everything,
    is_up,
    reconcile,
    workstation,
    write_roster,
)

PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {"tier": "admin"},
    "bob": {"authentik_user": "b.b@example.org", "k8s_user": "bob-k8s"},
    "carol": {},
    "dora": {},
}
NO_WAITING = "settle: 0\n"
STEPS = ("remove_from_t3_group", "revoke_cluster_rbac")

# Says what it was given and whether it can do what the sandbox of rosterd.service forbids, then does as it is told.
HOOK = """\
#!/usr/bin/python3
import pathlib, socket, sys, time
with socket.create_connection(("127.0.0.1", 22), timeout=5):
    pathlib.Path("/srv/called").open("a").write(" ".join(sys.argv[1:]) + "\\n")
order = pathlib.Path("/srv/order").read_text()
print("as ordered:", order)
exec(order)
"""
OBSTINATE = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(70001)"


@pytest.fixture(scope="module")
def shared(deb: Path) -> Iterator[Machine]:
    """Boot a machine with four people, and two who are none of rosterd's."""
    with workstation(deb) as machine:
        machine.write("/usr/local/bin/hook", HOOK, mode=0o755)
        machine.run("useradd", "--create-home", "--uid", "1500", "una")
        yield machine


@pytest.fixture
def machine(shared: Machine) -> Machine:
    """Bring everybody back whom a test before has cut off, and take the hooks away."""
    shared.write(SITE, NO_WAITING)
    write_roster(shared, PEOPLE)
    for name in shared.sh("ls /var/lib/rosterd/cuts 2>/dev/null || :").out.split():
        shared.run("rosterd", "uncut", name, check=False)
    reconcile(shared)
    shared.sh("rm -f /srv/called")
    return shared


def rosterd(machine: Machine, *arguments: str, code: int = 0) -> Result:
    """Run a command that has to end with this exit code."""
    result = machine.run("rosterd", *arguments, check=False)
    assert result.code == code, result
    return result


def is_cut(machine: Machine, name: str) -> bool:
    """Say whether somebody is expired, locked, and has nothing running."""
    fields = entry_of(machine, "shadow", name)
    closed = fields[1].startswith("!") and fields[7] == "1"
    return closed and commands_of(machine, name) == ""


# --- cut and uncut ---


def test_a_cut_by_command_lasts_over_later_runs_until_it_is_taken_back(machine: Machine) -> None:
    before = snapshot(machine, PEOPLE)
    rosterd(machine, "cut", "bob")
    assert is_cut(machine, "bob")
    for run in (("rosterd",), ("systemctl", "start", "rosterd.service"), ("rosterd", "cut", "bob")):
        machine.run(*run)
        assert is_cut(machine, "bob")
    write_roster(machine, {name: fields for name, fields in PEOPLE.items() if name != "bob"})
    reconcile(machine)
    write_roster(machine, PEOPLE)
    assert "cut off by command; to end that: rosterd uncut bob" in reconcile(machine).err
    assert is_cut(machine, "bob")

    planned = rosterd(machine, "uncut", "bob", "--dry-run").out
    assert "login: expired → expires never, password locked, as before the cut" in planned
    assert is_cut(machine, "bob")
    rosterd(machine, "uncut", "bob")
    assert differences(before, snapshot(machine, PEOPLE)) == ""
    assert is_up(machine, "t3-serve@bob.service")
    assert "Plan: nothing to do." in reconcile(machine).out


def test_what_the_return_needs_is_on_disk_before_anything_is_changed(machine: Machine) -> None:
    calls = "trace=fsync,rename,renameat,renameat2,unlink,unlinkat,execve,sendmsg"
    machine.run("strace", "-f", "-qq", "-y", "-e", calls, "-o", "/run/trace", "rosterd", "cut", "bob")
    trace = machine.read("/run/trace").splitlines()
    steps = [
        r"fsync\(\d+</var/lib/rosterd/cuts/\.bob\.rosterd-new>\) += 0",
        r'renameat\(.*"\.bob\.rosterd-new".*"bob"\) += 0',
        r"fsync\(\d+</var/lib/rosterd/cuts>\) += 0",
        # The first things that are taken from bob: his lines in the maps, in the order of a run, and then the login.
        r'renameat\(.*"(ttyd-user-map|dispatch\.json)"\) += 0',
        r'execve\("[^"]*/usermod"',
    ]
    found = [next(number for number, call in enumerate(trace) if re.search(step, call)) for step in steps]
    assert found == sorted(found), list(zip(steps, found, strict=True))
    renamed = [call for call in trace[: found[2]] if re.search(r"(rename|unlink)\w*\(.* = 0", call)]
    assert len(renamed) == 1, "the record is the first that is put in place"
    assert [call for call in trace[: found[2]] if "execve" in call and "= 0" in call][1:] == []


@pytest.mark.parametrize("roster", ["users:\n\t- x", None], ids=["refused", "missing"])
def test_a_cut_works_with_a_roster_that_is_refused_or_missing(machine: Machine, roster: str | None) -> None:
    if roster is None:
        machine.run("rm", ROSTER)
    else:
        machine.write(ROSTER, roster)
    reconcile(machine, code=5)
    rosterd(machine, "cut", "carol")
    assert is_cut(machine, "carol")
    assert is_up(machine, "t3-serve@dora.service")


def test_somebody_who_left_and_was_then_cut_by_command_needs_both_to_return(machine: Machine) -> None:
    write_roster(machine, {name: fields for name, fields in PEOPLE.items() if name != "dora"})
    reconcile(machine)
    assert "once they are on the roster" in rosterd(machine, "uncut", "dora", code=64).err
    rosterd(machine, "cut", "dora")
    write_roster(machine, PEOPLE)
    reconcile(machine)
    assert is_cut(machine, "dora")
    write_roster(machine, {name: fields for name, fields in PEOPLE.items() if name != "dora"})
    assert "stays cut off until they are" in rosterd(machine, "uncut", "dora").out
    reconcile(machine)
    assert is_cut(machine, "dora")
    write_roster(machine, PEOPLE)
    reconcile(machine)
    assert is_up(machine, "t3-serve@dora.service")


# Started by cron, it is in no session; it kills whatever else runs as its user, and so whoever comes as them to end it.
SHOOTER = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


def test_a_process_that_kills_all_others_of_its_user_does_not_outlive_a_cut(machine: Machine) -> None:
    machine.write("/srv/shooter", SHOOTER)
    machine.run("runuser", "--user", "carol", "--", "sh", "-c", "setsid -f python3 /srv/shooter >/dev/null 2>&1")
    eventually(lambda: "/srv/shooter" in commands_of(machine, "carol"), within=5)
    try:
        rosterd(machine, "cut", "carol")
        assert is_cut(machine, "carol")
    finally:
        machine.run("pkill", "--signal", "KILL", "--full", "/srv/shooter", check=False)


# What is refused, and what is said of it.
REFUSED = {
    ("cut", "nobody-such"): "has no account",
    ("cut", "root"): "account of the system",
    ("cut", "sshd"): "account of the system",
    ("cut", "una"): "not managed",
    ("cut", "una", "--dry-run"): "not managed",
    ("uncut", "bob"): "not cut off",
    ("uncut", "una"): "not cut off",
    ("uncut", "nobody-such"): "not cut off",
    ("done", "bob", STEPS[0]): "neither cut off nor deleted",
    ("done", "bob", "another_step"): "invalid choice",
    ("cut",): "NAME",
}


def test_whoever_cannot_be_meant_is_refused(machine: Machine) -> None:
    before = everything(machine)
    for arguments, told in REFUSED.items():
        assert told in rosterd(machine, *arguments, code=64).err
    assert everything(machine) == before


# --- steps outside of the machine ---


def test_without_a_hook_a_step_is_pending_in_every_run_until_somebody_says_that_it_is_done(machine: Machine) -> None:
    write_roster(machine, {name: fields for name, fields in PEOPLE.items() if name != "bob"})
    assert "2 pending" in reconcile(machine).err
    for _ in range(2):
        run = reconcile(machine)
        for step in STEPS:
            line = f"pending: {step} (k8s bob-k8s, authentik b.b@example.org): no hook is set for it"
            assert f"bob: {line}" in run.err
            assert line in run.out
        assert "run finished: 2 pending" in run.err
        assert "nothing to do, 2 pending" in run.out
        assert steps_in_status(machine, "bob") == list(STEPS)
    rosterd(machine, "done", "bob", STEPS[0])
    run = reconcile(machine)
    assert STEPS[0] not in run.out
    assert "1 pending" in run.err
    assert steps_in_status(machine, "bob") == [STEPS[1]]
    # Deleting somebody takes no step for them, elsewhere.
    rosterd(machine, "destroy", "bob", "--yes", "bob")
    assert "1 pending" in reconcile(machine).err
    assert steps_in_status(machine, "bob") == [STEPS[1]]
    rosterd(machine, "restore", "bob")
    assert steps_in_status(machine, "bob") == [STEPS[1]]
    rosterd(machine, "done", "bob", *STEPS)
    assert "pending" not in reconcile(machine).err
    assert steps_in_status(machine, "bob") == []
    told = machine.run("journalctl", "OS_USER=bob", "ROSTERD_EVENT=step_done", "--output=cat").out
    assert f"bob: {STEPS[1]}: pending → done, by hand" in told


def steps_in_status(machine: Machine, name: str) -> list[str]:
    """Return the steps that `rosterd status` lists for somebody, which its table and its document have alike."""
    (person,) = (user for user in json.loads(rosterd(machine, "status", "--json").out)["users"] if user["name"] == name)
    told = [text for text in person["pending"] if f"rosterd done {name} " in text]
    shown = rosterd(machine, "status").out
    assert all(f"? {text}" in shown for text in told)
    assert shown.count(f"rosterd done {name} ") == len(told)
    return [re.split("[ :]", text)[0] for text in told]


def leave_with_hook(machine: Machine, order: str, *, timeout: int = 30) -> int:
    """Have bob leave while a hook is set; make a run of the service, and return its exit code."""
    machine.write("/srv/order", order)
    machine.write(
        SITE,
        f"{NO_WAITING}hooks:\n  revoke_cluster_rbac: {{command: [/usr/local/bin/hook, revoke, '{{k8s_user}}', "
        f"'as {{authentik_user}}', '{{user}}'], timeout: {timeout}}}\n",
    )
    write_roster(machine, {name: fields for name, fields in PEOPLE.items() if name != "bob"})
    return service(machine)


def service(machine: Machine) -> int:
    """Make a run of the service and return its exit code."""
    machine.run("systemctl", "start", "rosterd.service", check=False)
    return int(machine.run("systemctl", "show", "--property=ExecMainStatus", "--value", "rosterd.service").out)


def last_log(machine: Machine) -> str:
    """Return the messages of the last run of the service."""
    invocation = machine.run("systemctl", "show", "--property=InvocationID", "--value", "rosterd.service").out.strip()
    return machine.run("journalctl", f"_SYSTEMD_INVOCATION_ID={invocation}", "--output=cat").out


def test_a_hook_gets_who_has_left_runs_outside_of_the_sandbox_and_once(machine: Machine) -> None:
    assert leave_with_hook(machine, "pass") == 0
    assert machine.read("/srv/called") == "revoke bob-k8s as b.b@example.org bob\n"
    log = last_log(machine)
    assert "bob: revoke_cluster_rbac: pending → done by /usr/local/bin/hook" in log
    assert "bob: pending: remove_from_t3_group" in log
    assert is_cut(machine, "bob")
    assert service(machine) == 0
    assert machine.read("/srv/called").count("\n") == 1
    # Whoever returns is told of it, and when they leave again, it is called again.
    write_roster(machine, PEOPLE)
    given_back = "bob: cut off: yes → no (to be given back outside of this machine: revoke_cluster_rbac)"
    assert given_back in reconcile(machine).err
    assert leave_with_hook(machine, "pass") == 0
    assert machine.read("/srv/called").count("\n") == 2


def test_a_hook_that_fails_is_told_and_called_again_by_the_next_run(machine: Machine) -> None:
    assert leave_with_hook(machine, "sys.exit('the cluster is away')") == 3
    assert is_cut(machine, "bob")
    assert "bob: FAILED revoke_cluster_rbac: pending → done by /usr/local/bin/hook: hook exited 1" in last_log(machine)
    assert "the cluster is away" in last_log(machine)
    assert service(machine) == 3
    (bob,) = (user for user in json.loads(rosterd(machine, "status", "--json").out)["users"] if user["name"] == "bob")
    assert "revoke_cluster_rbac: pending → done by /usr/local/bin/hook" in bob["pending"]
    machine.write("/srv/order", "pass")
    assert service(machine) == 0
    assert service(machine) == 0
    assert machine.read("/srv/called").count("\n") == 3


@pytest.mark.parametrize("order", ["time.sleep(70001)", OBSTINATE], ids=["willing", "obstinate"])
def test_a_hook_that_hangs_is_ended_when_its_time_is_up(machine: Machine, order: str) -> None:
    started = time.monotonic()
    assert leave_with_hook(machine, order, timeout=1) == 3
    assert time.monotonic() - started < 25
    assert is_cut(machine, "bob")
    assert machine.run("pgrep", "--full", "bin/hook", check=False).out == ""
