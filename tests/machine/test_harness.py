"""The machine itself: what every other test in this folder takes for granted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.machine import cgroup
from tests.machine.machine import CHECKOUT, CommandError, Machine, MachineError
from tests.machine.rootfs import RELEASES, RootfsError, host_mirror
from tests.machine.rootfs import rootfs as rootfs_of

# A program that boots a machine on the root file system it is given, says its pid, and waits to be ended.
HOLD_A_MACHINE = """\
import sys, time
from pathlib import Path
from tests.machine.machine import Machine
with Machine(Path(sys.argv[1])) as machine:
    print(machine.leader, machine.name, flush=True)
    time.sleep(60)
"""

DEB822 = """\
Types: deb
Enabled: no
URIs: http://old/
Suites: bookworm
Components: main

# the mirror
Types: deb deb-src
URIs: http://mirror/debian
# both
Suites: bookworm
 bookworm-updates
Components: main contrib
"""


@pytest.mark.parametrize("release", RELEASES)
def test_a_machine_boots_with_systemd_the_bus_logins_and_the_journal(machine: Machine) -> None:
    assert machine.run("ps", "-o", "comm=", "1").out.strip() == "systemd"
    assert machine.run("systemctl", "is-system-running").out.strip() == "running"
    assert "systemd-logind" in machine.run("busctl", "list").out
    assert "No sessions" in machine.run("loginctl", "list-sessions").out
    assert any(entry.get("_PID") == "1" for entry in machine.journal("--boot"))
    assert ":22 " in machine.run("ss", "--listening", "--numeric", "--tcp").out


@pytest.mark.parametrize("release", RELEASES)
def test_a_person_can_log_in(machine: Machine) -> None:
    machine.run("useradd", "--create-home", "zoe")
    assert machine.run("su", "-", "zoe", "-c", "id -un; pwd").out.split() == ["zoe", "/home/zoe"]
    assert "zoe" in machine.run("loginctl", "list-users").out


@pytest.mark.parametrize("release", RELEASES)
def test_what_tests_make_themselves_is_not_there(machine: Machine) -> None:
    for group in ("docker", "code-shared", "rosterd"):
        assert machine.run("getent", "group", group, check=False).code == 2
    assert machine.run("systemctl", "list-timers", "--no-legend").out.count(".timer") == 1  # systemd-tmpfiles-clean


def test_exit_codes_and_both_outputs_come_through(machine: Machine) -> None:
    result = machine.sh('echo "$1"; cat; echo err >&2; exit 7', "out", input="in", check=False)
    assert (result.code, result.out, result.err) == (7, "out\nin", "err\n")
    assert machine.sh("kill -TERM $$", check=False).code == -signal.SIGTERM


def test_a_failed_command_is_an_error_that_shows_all_of_it(machine: Machine) -> None:
    with pytest.raises(CommandError) as raised:
        machine.sh("echo to-out; echo to-err >&2; exit 3")
    for part in ("echo to-out", "exit code: 3", "stdout:\nto-out", "stderr:\nto-err"):
        assert part in str(raised.value)


def test_a_command_that_takes_too_long_is_ended_in_the_machine(machine: Machine) -> None:
    with pytest.raises(CommandError, match=r"longer than 0\.5 s"):
        machine.run("sleep", "1234", timeout=0.5)
    assert machine.run("pgrep", "--full", "[s]leep 1234", check=False).code == 1


def test_a_command_gets_nothing_of_the_hosts_environment(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROSTERD_LEAK", "1")
    names = {line.partition("=")[0] for line in machine.run("env", env={"GIVEN": "1"}).out.splitlines()}
    assert names == {"PATH", "LANG", "HOME", "TERM", "GIVEN"}


def test_files_go_in_and_come_out_as_they_are(machine: Machine, tmp_path: Path) -> None:
    machine.run("useradd", "--create-home", "zoe")
    machine.write("/home/zoe/new/file", "a\nb\0\udcff", mode=0o640, owner="zoe")
    assert machine.read("/home/zoe/new/file") == "a\nb\0\udcff"
    assert machine.run("stat", "--format=%a %U %G", "/home/zoe/new/file").out.split() == ["640", "zoe", "zoe"]

    (tmp_path / "program").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "program").chmod(0o755)
    machine.push(tmp_path / "program", "/usr/local/bin/program")
    assert machine.run("program").out == "ran\n"

    assert machine.exists("/usr/local/bin/program")
    assert not machine.exists("/usr/local/bin/other")


def test_a_background_command_gets_signals_and_passes_on_its_exit_code(machine: Machine) -> None:
    command = machine.start("/bin/sh", "-c", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done")
    assert command.stdout is not None
    assert command.stdout.readline() == "ready\n"
    command.send_signal(signal.SIGUSR1)
    assert command.wait(10) == 5


def test_the_checkout_is_there_and_cannot_be_changed(machine: Machine) -> None:
    assert machine.read("/src/pyproject.toml") == (CHECKOUT / "pyproject.toml").read_text()
    assert "Read-only" in machine.run("touch", "/src/pyproject.toml", check=False).err


def test_nothing_survives_a_machine(rootfs: Path) -> None:
    with Machine(rootfs) as first:
        first.run("useradd", "zoe")
        first.write("/etc/mark", "here")
    assert not (rootfs / "etc/mark").exists()
    with Machine(rootfs) as second:
        assert not second.exists("/etc/mark")
        assert second.run("getent", "passwd", "zoe", check=False).code == 2


def test_two_machines_do_not_see_each_other(rootfs: Path) -> None:
    with Machine(rootfs) as one, Machine(rootfs) as other:
        one.run("systemctl", "stop", "ssh.service")
        assert other.run("systemctl", "is-active", "ssh.service").out == "active\n"
        one.start("sleep", "4321")
        assert other.run("pgrep", "--full", "[s]leep 4321", check=False).code == 1


def test_a_stop_ends_everything_at_once(rootfs: Path) -> None:
    machine = Machine(rootfs)
    machine.boot()
    leader = machine.leader
    background = machine.start("sleep", "1234")
    machine.run("systemd-run", "--property=KillMode=none", "/bin/sh", "-c", "trap '' TERM; sleep 1234; sleep 1234")
    started = time.monotonic()
    machine.stop()
    assert time.monotonic() - started < 5
    assert background.returncode == -signal.SIGKILL
    assert not _is_left(leader, machine.name)
    with pytest.raises(MachineError, match="not up"):
        machine.run("true")
    machine.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_machine_ends_with_the_process_that_booted_it(rootfs: Path, number: signal.Signals) -> None:
    argv = [sys.executable, "-c", HOLD_A_MACHINE, str(rootfs)]
    with subprocess.Popen(argv, cwd=CHECKOUT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert holder.stdout is not None
        leader, name = holder.stdout.readline().split()
        holder.send_signal(number)
        assert holder.wait(10) != 0
    deadline = time.monotonic() + 10
    while Path(f"/proc/{leader}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    if number == signal.SIGKILL:
        _remove_left_groups(name)
    assert not _is_left(int(leader), name)


def test_no_root_file_system_is_made_up_for_an_unknown_release() -> None:
    with pytest.raises(RootfsError, match="buzz"):
        rootfs_of("buzz")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "sources.list",
            "# deb http://old/ bookworm main\ndeb [arch=amd64] http://mirror/debian bookworm main\n",
        ),
        (
            "sources.list.d/debian.sources",
            DEB822,
        ),
    ],
)
def test_the_mirror_is_the_one_of_the_hosts_apt(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/aaa.list").write_text("deb http://others/ cloud-bookworm main\n")
    (tmp_path / file).write_text(text)
    assert host_mirror(tmp_path) == "http://mirror/debian"


def test_a_host_without_a_debian_mirror_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RootfsError, match="no Debian mirror"):
        host_mirror(tmp_path)


def _is_left(leader: int, name: str) -> bool:
    """Say whether a process, a mount or a control group of a machine is left on the host."""
    mounted = name in Path("/proc/self/mountinfo").read_text()
    return Path(f"/proc/{leader}").exists() or mounted or bool(_groups(name))


def _groups(name: str) -> list[Path]:
    return [Path(path) for path, _, _ in os.walk(cgroup.CGROUPS) if Path(path).name == name]


def _remove_left_groups(name: str) -> None:
    """Remove the empty groups that a killed process cannot remove itself."""
    for folder in _groups(name):
        cgroup.remove(folder)
