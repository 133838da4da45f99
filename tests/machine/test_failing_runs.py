"""A run of the service that fails, or that a guard holds, starts the site's notifier; a good one does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.machine import Machine
from tests.machine.workstation import ROSTER, SITE, eventually, is_up, stop_own_units, workstation, write_roster

NOTIFIER = "/etc/rosterd/on-failure"
# It has nowhere of its own to write to, so it tells the journal.
TELL = """\
#!/bin/sh
echo "notified: $MONITOR_SERVICE_RESULT $MONITOR_EXIT_CODE $MONITOR_EXIT_STATUS by $(id -u)"
journalctl --quiet --no-pager --output=cat "_SYSTEMD_INVOCATION_ID=$MONITOR_INVOCATION_ID" | sed 's/^/seen: /'
"""
PEOPLE: dict[str, dict[str, str]] = {"alice": {}, "bob": {}, "carol": {}}


@pytest.fixture(scope="module")
def shared(deb: Path) -> Iterator[Machine]:
    """Boot a workstation with people in place; whoever uses it leaves it with a good roster."""
    with workstation(deb) as machine:
        machine.write(SITE, "settle: 0\n")
        write_roster(machine, PEOPLE)
        machine.run("systemctl", "start", "rosterd.service")
        stop_own_units(machine)
        yield machine


@pytest.fixture
def machine(shared: Machine) -> Iterator[Machine]:
    """Return the workstation with a notifier, and bring it back afterwards."""
    shared.write(NOTIFIER, TELL, mode=0o755)
    yield shared
    shared.sh("rm -rf /etc/systemd/system/t3-serve@alice.service.d; systemctl daemon-reload")
    write_roster(shared, PEOPLE)
    shared.run("systemctl", "reset-failed", "rosterd.service", "rosterd-failed.service", check=False)
    shared.run("systemctl", "start", "rosterd.service")


def run_service(machine: Machine) -> str:
    """Make a run of the service, wait for what it starts, and return what the notifier said."""
    since = machine.run("journalctl", "--lines=0", "--show-cursor", "--quiet").out.strip().removeprefix("-- cursor: ")
    machine.run("systemctl", "start", "rosterd.service", check=False)
    eventually(lambda: not machine.run("systemctl", "list-jobs", "--no-legend").out.strip(), within=20)
    eventually(lambda: state_of(machine, "rosterd-failed.service") != "activating", within=20)
    entries = machine.journal("--unit=rosterd-failed.service", f"--after-cursor={since}")
    return "\n".join(str(entry["MESSAGE"]) for entry in entries)


def state_of(machine: Machine, unit: str) -> str:
    """Return the state of a unit: active, inactive, failed, activating."""
    return machine.run("systemctl", "is-active", unit, check=False).out.strip()


def test_a_run_in_which_somebody_fails_is_told_with_3(machine: Machine) -> None:
    text = "[Service]\nExecStart=\nExecStart=/bin/false\nRestart=no\n"
    machine.write("/etc/systemd/system/t3-serve@alice.service.d/test.conf", text)
    machine.sh("systemctl daemon-reload; systemctl stop t3-serve@alice.service")
    said = run_service(machine)
    assert "notified: exit-code exited 3 by " in said
    uid = int(said.partition(" exited 3 by ")[2].split()[0])
    assert 61184 <= uid <= 65519  # those that systemd gives out for a while (systemd.exec(5), DynamicUser=)
    assert "seen: alice: " in said


def test_a_run_that_a_guard_holds_is_told_with_4(machine: Machine) -> None:
    write_roster(machine, {})
    assert "notified: exit-code exited 4 " in run_service(machine)
    assert is_up(machine, "t3-serve@bob.service")


def test_a_roster_that_is_refused_is_told_with_5(machine: Machine) -> None:
    machine.write(ROSTER, "users: [alice]\n")
    said = run_service(machine)
    assert "notified: exit-code exited 5 " in said
    assert "seen: run stopped, nothing was changed: " in said


def test_every_one_of_several_failing_runs_is_told(machine: Machine) -> None:
    write_roster(machine, {})
    assert ["notified: exit-code exited 4" in run_service(machine) for _ in range(8)] == [True] * 8


def test_a_good_run_tells_nobody(machine: Machine) -> None:
    assert "notified" not in run_service(machine)
    assert state_of(machine, "rosterd.service") == "inactive"
    assert state_of(machine, "rosterd-failed.service") == "inactive"


@pytest.mark.parametrize("how", ["rm $1", "chmod 644 $1"])
def test_without_a_program_nothing_else_fails(machine: Machine, how: str) -> None:
    machine.sh(how, NOTIFIER)
    machine.write(ROSTER, "users: [alice]\n")
    assert "notified" not in run_service(machine)
    assert state_of(machine, "rosterd-failed.service") == "inactive"
    failed = machine.run("systemctl", "--failed", "--no-legend", "--plain").out
    assert [line.split()[0] for line in failed.splitlines()] == ["rosterd.service"]


def test_a_program_that_fails_fails_alone_and_the_next_run_is_made(machine: Machine) -> None:
    machine.write(NOTIFIER, "#!/bin/sh\nexit 7\n", mode=0o755)
    write_roster(machine, {})
    run_service(machine)
    assert state_of(machine, "rosterd-failed.service") == "failed"
    write_roster(machine, PEOPLE)
    run_service(machine)
    assert state_of(machine, "rosterd.service") == "inactive"


def test_the_notifier_can_neither_write_to_the_host_nor_read_peoples_homes(machine: Machine) -> None:
    script = """\
#!/bin/sh
for path in /etc /var/lib/rosterd /home/alice /usr; do
    touch "$path/by-notifier" 2>/dev/null && echo "wrote $path"
done
ls /home/alice /var/lib/rosterd /etc/t3-serve/alice.env 2>/dev/null && echo read
cat /etc/t3-serve/alice.env /etc/shadow 2>/dev/null && echo secret
echo done
"""
    machine.write(NOTIFIER, script, mode=0o755)
    machine.write(ROSTER, "users: [alice]\n")
    said = run_service(machine).splitlines()
    assert "done" in said
    assert [line for line in said if line.startswith(("wrote", "read", "secret"))] == []
