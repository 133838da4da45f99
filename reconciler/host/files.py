"""The one place that writes files: whole, durable, and never through a link.

A file is written under a temporary name beside its place, fsynced, renamed, and the folder is
fsynced; a reader sees the old text or the new one, also after a power cut. Root writes to folders of its own
(/etc, /var/lib/rosterd, /run/rosterd), never to a home; what runs as a person writes to theirs.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from reconciler.errors import StepFailed

MAX_READ = 16 * 1024 * 1024
_PAGE = 4096
NOT_A_FILE = 0
"""The errno of an OSError for what is there and is no regular file; the system has none for it."""
_TEMPORARY = ".rosterd-new"


def read_bytes(path: Path | str, limit: int = MAX_READ, *, follow: bool = False) -> bytes | None:
    """Return the content of a regular file, None where there is none.

    Never waits on a FIFO, and follows a link in the last part of the path only with `follow`, for folders
    that are root's alone. Raises OSError for everything else, a file over `limit` bytes included.
    """
    no_link = 0 if follow else os.O_NOFOLLOW
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | no_link)
    except FileNotFoundError:
        return None
    with closing_descriptor(descriptor):
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(NOT_A_FILE, "is not a regular file", str(path))
        data = _read_all(descriptor, status.st_size, limit)
    if len(data) > limit:
        raise OSError(0, f"is larger than {limit} bytes", str(path))
    return data


def _read_all(descriptor: int, size: int, limit: int) -> bytes:
    """Return what can be read, but little more than `limit` bytes; a file of /proc says that its size is 0."""
    data = b""
    while len(data) <= limit and (more := os.read(descriptor, max(size, _PAGE) + 1)):
        data += more
    return data


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Put `data` at `path`, owned by the caller, with exactly this mode. Makes the folder if needed.

    Raises `StepFailed` naming the file; what was there before is then still there.
    """
    try:
        _make_folder(path.parent)
        with _open_folder(path.parent) as folder:
            temporary = f".{path.name}{_TEMPORARY}"
            _remove(temporary, folder)  # left by a run that was killed here
            try:
                _write_new(temporary, data, mode, folder)
                os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                _remove(temporary, folder)
                raise
            os.fsync(folder)
    except OSError as error:
        raise StepFailed(f"{path} cannot be written: {error.strerror}") from error


def remove_file(path: Path) -> None:
    """Remove a file durably; fine if it is gone already. Raises `StepFailed` naming it."""
    try:
        with _open_folder(path.parent) as folder:
            _remove(path.name, folder)
            os.fsync(folder)
    except OSError as error:
        raise StepFailed(f"{path} cannot be removed: {error.strerror}") from error


def remove_empty_folder(path: Path) -> None:
    """Remove a folder that has nothing in it. Raises `StepFailed` if it has, or is no folder."""
    try:
        path.rmdir()
    except OSError as error:
        raise StepFailed(f"{path} cannot be removed: {error.strerror}") from error


def packed(folder: Path, entries: Sequence[str]) -> bytes:
    """Return a tar archive of entries of a folder of root's own, of folders without what is in them.

    Raises `StepFailed`.
    """
    archive = io.BytesIO()
    try:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for entry in entries:
                tar.add(folder / entry, arcname=entry, recursive=False)
    except OSError as error:
        raise StepFailed(f"{folder} cannot be read: {error.strerror}") from error
    return archive.getvalue()


def make_owned_folder(path: Path, uid: int, gid: int) -> None:
    """Make a folder, 0700, and give it away; the folder above is root's. Raises `StepFailed`."""
    try:
        path.mkdir(mode=0o700)
        os.chown(path, uid, gid, follow_symlinks=False)
        with _open_folder(path.parent) as parent:
            os.fsync(parent)
    except OSError as error:
        raise StepFailed(f"{path} cannot be made: {error.strerror}") from error


def make_private_folder(path: Path) -> None:
    """Make a folder of root's alone, 0700, unless it is there; the folder above must exist. Raises `StepFailed`."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        with _open_folder(path.parent) as parent:
            os.fsync(parent)
    except OSError as error:
        raise StepFailed(f"{path} cannot be made: {error.strerror}") from error


def make_empty_file(path: Path) -> None:
    """Make a new file, 0600, for a program to write to. Raises `StepFailed`, also where there is one already."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StepFailed(f"{path} cannot be made: {error.strerror}") from error


def sync_file(path: Path) -> None:
    """See that a file that a program wrote is on disk. Raises `StepFailed`."""
    try:
        with closing_descriptor(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as descriptor:
            os.fsync(descriptor)
    except OSError as error:
        raise StepFailed(f"{path} cannot be written: {error.strerror}") from error


def sync_folder(path: Path) -> None:
    """See that what was renamed or removed in a folder is so on disk. Raises `StepFailed`."""
    try:
        with _open_folder(path) as folder:
            os.fsync(folder)
    except OSError as error:
        raise StepFailed(f"{path} cannot be written: {error.strerror}") from error


def move(source: Path, target: Path) -> None:
    """Rename a file durably to a place on the same file system that is free; fine if it has gone meanwhile.

    Raises `StepFailed`, also where something is there already.
    """
    try:
        with _open_folder(source.parent) as before, _open_folder(target.parent) as after:
            if _is_in(target.name, after):
                raise StepFailed(f"{target} is there already; {source} stays where it is")
            with contextlib.suppress(FileNotFoundError):
                os.rename(source.name, target.name, src_dir_fd=before, dst_dir_fd=after)
            os.fsync(after)
            os.fsync(before)
    except OSError as error:
        raise StepFailed(f"{source} cannot be moved to {target}: {error.strerror}") from error


def free_name(path: Path) -> Path:
    """Return a path, with .1 or the next number behind it where it is taken: what was there first keeps its name."""
    number, free = 0, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def _is_in(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _make_folder(path: Path) -> None:
    """Make one folder, 0755, and see its name on disk; the folder above must exist."""
    try:
        path.mkdir(mode=0o755)
    except FileExistsError:
        return
    with _open_folder(path.parent) as parent:
        os.fsync(parent)


@contextmanager
def closing_descriptor(descriptor: int) -> Iterator[int]:
    """Close a file descriptor at the end, whatever it turns out to be."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_folder(path: Path) -> AbstractContextManager[int]:
    return closing_descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _write_new(name: str, data: bytes, mode: int, folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(descriptor, mode)  # the mode given to open() is subject to the umask
        os.fsync(descriptor)


def _remove(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
