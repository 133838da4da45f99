"""A throwaway Debian machine with systemd as PID 1, in which a test may do whatever root can do.

It runs on a root file system of tests.machine.rootfs under an overlay in memory: what happens in it is gone
when it stops. The checkout is at /src, read-only. Its network is a loopback of its own. It takes root on the
host.

    with Machine(rootfs("bookworm")) as machine:
        machine.run("useradd", "alice")

No machine outlives the process that booted it: the end of `with` stops it, so do a normal exit and SIGTERM,
and when that process is killed, the kernel ends the machine.

    python3 -m tests.machine.machine bookworm [--deb FILE]

boots one and opens a root shell in it.

    MachineError           a machine does not boot, or is not up
    └── CommandError       a command in it failed or took too long; the text shows all that is known of it
"""

import argparse
import atexit
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Self

from tests.machine import cgroup
from tests.machine.rootfs import RELEASES, RootfsError, rootfs

CHECKOUT = Path(__file__).resolve().parents[2]

# All that a command in the machine gets of an environment.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "TERM": "dumb",
}

# Seconds. A boot takes less than one, a stop a tenth of one; the rest is for a busy host.
BOOT_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0
COMMAND_TIMEOUT = 60.0
POLL_INTERVAL = 0.02

# Joins the groups whose cgroup.procs are named before `--`, then becomes the command after it.
JOIN_AND_EXEC = 'while [ "$1" != -- ]; do echo $$ >"$1"; shift; done; shift; exec "$@"'

# A file appears under its name when it is whole, with owner and mode, as an editor would save it.
WRITE_FILE = """\
path=$1 mode=$2 owner=$3
mkdir -p -- "$(dirname -- "$path")"
install -m "$mode" /dev/stdin "$path.new"
chown -- "$owner:" "$path.new"
mv -fT -- "$path.new" "$path"
"""

_numbers = itertools.count(1)


class MachineError(Exception):
    """The machine does not boot, or is not up."""


@dataclass(frozen=True)
class Result:
    """What came of a command. An exit code below zero is the signal that ended it."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    def __str__(self) -> str:
        """Show everything, for the message of a failed test."""
        return f"$ {shlex.join(self.argv)}\nexit code: {self.code}\nstdout:\n{self.out}\nstderr:\n{self.err}"


class CommandError(MachineError):
    """A command failed, or took longer than it may; `result` is what is known of it."""

    def __init__(self, problem: str, result: Result) -> None:
        """Say what the problem was, and all of the result."""
        super().__init__(f"{problem}\n{result}")
        self.result = result


class Command(subprocess.Popen[str]):
    """A command that runs in a machine.

    Its process on the host is nsenter, which waits for the command and passes on its exit code. Signals go to
    the command: were nsenter killed instead, the command would stay behind and, dead or alive, hold up the
    machine's end.
    """

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command, if it has not ended; `kill` and `terminate` come here too."""
        while self.poll() is None:
            for child in _children(self.pid):
                with suppress(ProcessLookupError):
                    os.kill(child, sig)
                return
            time.sleep(POLL_INTERVAL)  # nsenter has not started the command yet

    def end(self) -> None:
        """Kill the command, wait for it, and close its pipes, which others may still hold open."""
        while self.poll() is None:
            self.kill()
            super().send_signal(signal.SIGCONT)  # to nsenter, which stops when the command is stopped
            with suppress(subprocess.TimeoutExpired):
                self.wait(POLL_INTERVAL)
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()


class Machine:
    """A machine; use it as a context manager, or call `boot` and `stop`.

    `root` is a root file system of tests.machine.rootfs; it is only read. `also` are folders of the host that are at
    the same place in the machine, read-only. All timeouts are in seconds.
    """

    def __init__(self, root: Path, also: Sequence[Path] = ()) -> None:
        """Prepare a machine that is not up yet."""
        self.root = root
        self.also = tuple(also)
        self.name = f"rosterd-{os.getpid()}-{next(_numbers)}"
        self._console: IO[bytes] | None = None
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader: int | None = None
        self._cgroups: list[Path] = []
        self._started: list[Command] = []

    def __enter__(self) -> Self:
        """Boot it."""
        self.boot()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    @property
    def leader(self) -> int:
        """The pid on the host of the machine's PID 1. Raises MachineError if it is not up."""
        if self._leader is None:
            raise MachineError(f"machine {self.name} is not up")
        return self._leader

    def boot(self) -> None:
        """Boot and return when every unit of the boot is up. Raises MachineError if that fails."""
        if os.geteuid() != 0:
            raise MachineError("booting a machine takes root")
        _exit_on_sigterm()
        atexit.register(self.stop)
        deadline = time.monotonic() + BOOT_TIMEOUT
        try:
            self._start_nspawn()
            self._leader = self._wait_for_leader(deadline)
            self._wait_until_running(deadline)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the machine and all that runs in it; returns when it is gone. Does nothing if it is not up."""
        atexit.unregister(self.stop)
        for command in self._started:
            command.end()
        if self._nspawn is not None:
            _power_off(self._nspawn)
        for folder in self._cgroups:
            cgroup.remove(folder)
        if self._console is not None:
            self._console.close()
        self._nspawn, self._leader, self._console = None, None, None
        self._started, self._cgroups = [], []

    def run(
        self,
        *argv: str,
        check: bool = True,
        timeout: float = COMMAND_TIMEOUT,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a command as root and return what came of it.

        Its stdin is `input` or empty, and `env` is added to ENVIRONMENT. Bytes that are no UTF-8 pass both
        ways as surrogate escapes. What the command leaves running must not hold its stdout or stderr: the end
        of both is waited for. Raises CommandError if the exit code is not 0, unless `check` is false, and
        when the time is up; then the command is killed.
        """
        command = self._command(argv, env, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE)
        try:
            out, err = command.communicate(input, timeout)
        except subprocess.TimeoutExpired as expired:
            command.end()
            partial = Result(argv, command.returncode, _text(expired.stdout), _text(expired.stderr))
            raise CommandError(f"command took longer than {timeout} s", partial) from None
        finally:
            command.end()
        result = Result(argv, command.returncode, out, err)
        if check and result.code != 0:
            raise CommandError("command failed", result)
        return result

    def sh(
        self,
        script: str,
        *arguments: str,
        check: bool = True,
        timeout: float = COMMAND_TIMEOUT,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a shell script that ends at the first error; `arguments` are its $1, $2 and so on.

        All else is as in `run`.
        """
        command = ("/bin/sh", "-euc", script, "sh", *arguments)
        return self.run(*command, check=check, timeout=timeout, input=input, env=env)

    def start(self, *argv: str, env: Mapping[str, str] | None = None) -> Command:
        """Start a command as root and return at once; its stdout and stderr are pipes, its stdin is empty.

        What still runs when the machine stops is killed before.
        """
        command = self._command(argv, env, stdin=subprocess.DEVNULL)
        self._started.append(command)
        return command

    def write(self, path: str, text: str, mode: int = 0o644, owner: str = "root") -> None:
        """Put a whole file in place in one step, with the owner's group; make the folders it lacks."""
        self.sh(WRITE_FILE, path, f"{mode:o}", owner, input=text)

    def read(self, path: str) -> str:
        """Return what is in a file. Raises CommandError if it cannot be read."""
        return self.run("cat", "--", path).out

    def exists(self, path: str) -> bool:
        """Say whether there is anything at `path`; a link counts by itself, wherever it points."""
        return self.sh('[ -e "$1" ] || [ -L "$1" ]', path, check=False).code == 0

    def push(self, host_path: Path, machine_path: str) -> None:
        """Copy a file of the host into the machine, with its mode; it belongs to root there."""
        content = host_path.read_bytes().decode(errors="surrogateescape")
        self.write(machine_path, content, mode=host_path.stat().st_mode & 0o7777)

    def install(self, deb: Path) -> None:
        """Install a Debian package of the host; what it depends on must be in the root file system."""
        target = f"/var/cache/apt/archives/{deb.name}"
        self.push(deb, target)
        self.run("dpkg", "--install", target, timeout=120, env={"DEBIAN_FRONTEND": "noninteractive"})

    def journal(self, *arguments: str) -> list[dict[str, Any]]:
        """Return all fields of the journal's entries that `arguments` of journalctl select, oldest first."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "--output=json", "--no-pager", *arguments).out.splitlines()
        return [json.loads(line) for line in lines]

    def shell(self) -> int:
        """Open a root shell on the terminal of this process, on a pseudo-terminal of the machine's own."""
        terminal = {"TERM": os.environ.get("TERM", "dumb")}
        script = ("script", "--quiet", "--return", "--command", "exec bash -l", "/dev/null")
        return subprocess.call(self._enter(script), env={**ENVIRONMENT, **terminal})

    def _command(self, argv: Sequence[str], env: Mapping[str, str] | None, stdin: int) -> Command:
        return Command(
            self._enter(argv),
            env={**ENVIRONMENT, **(env or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="surrogateescape",
        )

    def _enter(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--target={self.leader}", "--all", "--", *argv]

    def _start_nspawn(self) -> None:
        # Where the host has a systemd, nspawn asks it for a scope.
        if not Path("/run/systemd/system").is_dir():
            self._cgroups = cgroup.create(self.name)
        members = [str(folder / "cgroup.procs") for folder in self._cgroups]
        join = ["/bin/sh", "-euc", JOIN_AND_EXEC, "sh", *members, "--"]
        self._console = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self._nspawn = subprocess.Popen(
            [*join, "setpriv", "--pdeathsig=TERM", "--", *self._nspawn_command()],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # else Ctrl-C on the terminal would end it before the test knows
        )

    def _nspawn_command(self) -> list[str]:
        return [
            "systemd-nspawn",
            "--quiet",
            f"--machine={self.name}",
            f"--directory={self.root}",
            "--volatile=overlay",
            "--boot",
            # What PID 1 gets when nspawn is asked to end. There is nothing in the machine to save.
            "--kill-signal=SIGKILL",
            "--private-network",
            "--resolv-conf=off",
            "--timezone=off",
            "--register=no",
            *(["--keep-unit"] if self._cgroups else []),
            "--console=pipe",
            f"--bind-ro={CHECKOUT}:/src",
            *(f"--bind-ro={folder}" for folder in self.also),
        ]

    def _wait_for_leader(self, deadline: float) -> int:
        """Return the pid of the machine's PID 1: the child of nspawn that has become systemd.

        Before that, the child is still on the host's file system, and entering it would be to run on the
        host.
        """
        while True:
            for child in _children(self._running_nspawn(deadline).pid):
                if _command_name(child) == "systemd":
                    return child
            time.sleep(POLL_INTERVAL)

    def _wait_until_running(self, deadline: float) -> None:
        while True:
            self._running_nspawn(deadline)
            wait = ("systemctl", "is-system-running", "--wait")
            state = self.run(*wait, check=False, timeout=BOOT_TIMEOUT).out.strip()
            if state == "running":
                return
            if state == "degraded":
                failed = self.run("systemctl", "--failed", "--no-legend", "--plain").out
                raise MachineError(f"machine {self.name} booted with failed units:\n{failed}")
            # systemd does not listen yet.
            time.sleep(POLL_INTERVAL)

    def _running_nspawn(self, deadline: float) -> subprocess.Popen[bytes]:
        """Return the nspawn process. Raises MachineError if it has ended or the time to boot is up."""
        if self._nspawn is None or self._nspawn.poll() is not None:
            raise MachineError(f"systemd-nspawn ended while {self.name} booted:\n{self._console_text()}")
        if time.monotonic() > deadline:
            raise MachineError(f"machine {self.name} did not boot in time:\n{self._console_text()}")
        return self._nspawn

    def _console_text(self) -> str:
        if self._console is None:
            return ""
        self._console.seek(0)
        return self._console.read().decode(errors="replace")


def _exit_on_sigterm() -> None:
    """Make SIGTERM an ordinary exit, on which machines are stopped, unless the program handles it itself."""
    with suppress(ValueError):  # raised in another thread than the main one
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _exit_on_signal)


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _power_off(nspawn: subprocess.Popen[bytes]) -> None:
    """End a machine at once, by way of nspawn or, if that does not listen, without it."""
    nspawn.terminate()
    try:
        nspawn.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        for child in _children(nspawn.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        nspawn.kill()
        nspawn.wait()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _command_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _text(output: str | bytes | None) -> str:
    """Return what a command had written when its time was up; Python hands that over as bytes."""
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def main(arguments: Sequence[str]) -> int:
    """Boot a machine, open a root shell in it, and return that shell's exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.machine.machine", description=main.__doc__)
    parser.add_argument("release", choices=RELEASES)
    parser.add_argument("--deb", type=Path, metavar="FILE", help="a package to install in it first")
    options = parser.parse_args(arguments)
    try:
        with Machine(rootfs(options.release)) as machine:
            if options.deb:
                machine.install(options.deb)
            sys.stderr.write("A throwaway machine; the checkout is at /src. It is gone when you leave this shell.\n")
            return machine.shell()
    except (MachineError, RootfsError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
