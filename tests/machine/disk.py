"""A disk that can be looked at as it is at one moment: what a machine finds that lost its power then.

It is ext4 in a file, below folders of a machine, mounted so that nothing is written out by itself: without
`auto_da_alloc`, which repairs the commonest mistake, and with a journal that is not committed every five seconds. A
copy of the file is mounted elsewhere, which replays the journal; the page cache of the machine is not in it.

Nothing of it outlives the process that made it, however that ends: the file has no name, the machine's mount goes with
the machine, and the loop device with its last mount.
"""

import io
import os
import re
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.machine.machine import Command, Machine

MEMORY = "/dev/shm"  # for what is copied again and again
SIZE = 32 * 1024 * 1024
OPTIONS = "noauto_da_alloc,commit=600"
PLACE = "/run/disk"
BESIDE = "beside"  # a file of nobody's, to be fsynced

# What a change of a file ends in. A copy is made after each of them.
CHANGES = (
    "?rename,?renameat,renameat2,?unlink,unlinkat,?rmdir,?mkdir,mkdirat,?link,linkat,?symlink,symlinkat,write,pwrite64,"
    "fsync,fdatasync,ftruncate,fchmod,fchown,?chmod,fchmodat,?chown,?lchown,fchownat,utimensat"
)
_STOPPED = re.compile(r"(\d+) +--- stopped by SIGSTOP ---")
_TRACED = re.compile(r"(\d+) +(.*)")

# In a mount namespace of its own: the mount of $1 at $2 goes with this process, and its loop device then.
READ = 'mount -t ext4 -o loop -- "$1" "$2"; exec tar --create --file=- --directory="$2" .'
READ_LIVE = 'exec tar --create --file=- --directory="$1" .'
MOUNT = """
[ -e "$1" ] || mknod "$1" b 7 "$2"
mkdir -p "$3"
mount -t ext4 -o "$4" "$1" "$3"
"""
FILL = """
place=$1; shift
for folder; do
    mkdir -p "$folder" "$place$folder"
    cp -a "$folder/." "$place$folder"
done
"""
COVER = """
place=$1; shift
for folder; do mount --bind "$place$folder" "$folder"; done
"""
UNCOVER = """
place=$1; shift
for folder; do umount --lazy "$folder"; done
umount --lazy "$place"
"""


@dataclass
class Disk:
    """The disk below some folders of a machine. `file` is the open file that it is in."""

    machine: Machine
    folders: tuple[str, ...]
    file: int
    device: str
    scratch: Path
    copies: list[Path] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """Where it lies as the machine has it, seen from here."""
        return Path(f"/proc/{self.machine.leader}/root{PLACE}")

    def commit(self) -> None:
        """Have something else written durably: the journal takes along what was renamed, and no content."""
        file = os.open(self.root / BESIDE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, b"x")
            os.fsync(file)
        finally:
            os.close(file)

    def settle(self) -> None:
        """Write everything out: not while something is being watched."""
        self.machine.run("sync", "--file-system", PLACE)

    def written(self) -> str:
        """Return how often the device was written to, and how much is under way."""
        numbers = Path(f"/sys/block/{Path(self.device).name}/stat").read_text().split()
        return f"{numbers[4]} {numbers[8]}"

    def copy(self) -> Path:
        """Copy the disk as it is, and return the copy. The caller removes it."""
        while True:
            before = self.written()
            path = Path(tempfile.mkstemp(dir=self.scratch)[1])
            _copy(self.file, path)
            if before.endswith(" 0") and self.written() == before:
                return path
            path.unlink()

    def live(self) -> dict[str, bytes]:
        """Return all files as the machine sees them, by path."""
        return _tarred(READ_LIVE, str(self.root))

    def found_in(self, copy: Path) -> dict[str, bytes]:
        """Return all files of a copy, by path, after its journal was replayed."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as place:
            return _tarred(READ, str(copy), place)

    @contextmanager
    def after_power_loss(self, copy: Path) -> Iterator[None]:
        """Have the machine go on with a copy, as after it has started again; then as if nothing had been."""
        place = f"{PLACE}.again"
        _mount(self.machine, _attached(str(copy)), place)
        self.machine.sh(COVER, place, *self.folders)
        self.machine.run("systemctl", "daemon-reload")
        try:
            yield
        finally:
            self.machine.sh(UNCOVER, place, *self.folders)
            self.machine.run("systemctl", "daemon-reload")


@contextmanager
def disk_under(machine: Machine, *folders: str) -> Iterator[Disk]:
    """Put a disk under these folders of a machine, with what is in them."""
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="rosterd-disk-") as scratch:
        path = Path(scratch, "disk")
        path.touch(0o600)
        os.truncate(path, SIZE)
        _host("mkfs.ext4", "-q", "-F", "-b", "1024", "-J", "size=1", "-N", "8192", str(path))
        file = os.open(path, os.O_RDONLY)
        try:
            device = _attached(str(path))
            _mount(machine, device, PLACE)
            path.unlink()
            machine.sh(FILL, PLACE, *folders)
            machine.sh(COVER, PLACE, *folders)
            machine.run("systemctl", "daemon-reload")
            yield Disk(machine, folders, file, device, Path(scratch))
        finally:
            os.close(file)


def moments(disk: Disk, *argv: str, every: int = 1) -> Iterator[str]:
    """Run a command in the machine, and yield after each call by which it or a child changed something on the disk.

    What is yielded is the line of the trace; while the caller has it, the process that made the call stands still. Of
    the calls of one name in one process it is the first, and each `every`th after it. The command must end well.
    """
    inject = ("-e", f"trace={CHANGES}", "-e", f"inject={CHANGES}:signal=SIGSTOP:when=1+{every}", "-e", "signal=SIGSTOP")
    quiet = ("/bin/sh", "-c", 'exec "$@" >/run/said 2>&1', "sh")
    strace = ("strace", "-f", "-qq", "-y", "-s", "40", "-o", "/dev/stderr", *inject, "--", *quiet, *argv)
    command = disk.machine.start(*strace)
    assert command.stderr is not None
    last: dict[str, str] = {}
    for line in command.stderr:
        if stopped := _STOPPED.match(line):
            pid = _pid_here(command, stopped[1])
            if pid is None:
                continue  # a thread: all stop, and its process says so too
            if any(folder in last.get(stopped[1], "") for folder in disk.folders):
                yield last[stopped[1]]
            os.kill(pid, signal.SIGCONT)
        elif (traced := _TRACED.match(line)) and not traced[2].startswith("---"):
            last[traced[1]] = traced[2]
    code = command.wait()
    assert code == 0, f"exit code {code}: {disk.machine.read('/run/said')}"


def _pid_here(command: Command, inside: str) -> int | None:
    """Return the pid on this side of a process that the machine knows as `inside`, below a command."""
    below = [command.pid]
    for pid in below:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            if re.search(rf"^NSpid:.*\t{inside}$", status, re.MULTILINE):
                return pid
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                below += map(int, children.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None


def _mount(machine: Machine, device: str, place: str) -> None:
    """Mount a loop device in the machine, which has none and may make none: from here, in its file system."""
    minor = str(os.minor(Path(device).stat().st_rdev))
    try:
        _host(
            *("nsenter", f"--target={machine.leader}", "--mount", "--"),
            *("/bin/sh", "-euc", MOUNT, "sh", device, minor, place, OPTIONS),
        )
    finally:
        _host("losetup", "--detach", device)  # when it is mounted no more


def _attached(path: str) -> str:
    return _host("losetup", "--find", "--show", "--", path).decode().strip()


def _tarred(script: str, *arguments: str) -> dict[str, bytes]:
    """Return the files of a folder, by path; what lies on several file systems is passed over."""
    archive = _host("unshare", "--mount", "--", "/bin/sh", "-euc", script, "sh", *arguments)
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                found[member.name.removeprefix(".")] = content.read()
    return found


def _copy(file: int, path: Path) -> None:
    """Copy a file, holes as holes."""
    with path.open("wb") as target:
        target.truncate(SIZE)
        start = 0
        while True:
            try:
                start = os.lseek(file, start, os.SEEK_DATA)
            except OSError:
                return  # nothing but a hole is left
            end = os.lseek(file, start, os.SEEK_HOLE)
            target.seek(start)
            while start < end:
                start += os.copy_file_range(file, target.fileno(), end - start, start, start)


def _host(*argv: str) -> bytes:
    done = subprocess.run(argv, check=False, capture_output=True)
    assert done.returncode == 0, f"{argv}: {done.stderr.decode(errors='replace')}"
    return done.stdout
