"""Reads the roster and the site file, and sees to it that nobody but root could have written them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.core.document import MAX_BYTES
from reconciler.errors import FileRefused
from reconciler.host.files import closing_descriptor

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def read_source(path: str, *, trusted: bool, optional: bool = False) -> bytes | None:
    """Return a file's bytes, at most one over the size limit; None where an optional one is missing.

    With `trusted`, what is checked is the opened file itself: a regular one, reached through no link
    in its last part, owned by root and writable by root alone, and every folder above it likewise
    (a sticky one may be writable). Raises `FileRefused` saying what is wrong and what to do.
    """
    with _opened(path, trusted=trusted, optional=optional) as descriptor:
        if descriptor is None:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)


def check_source(path: str) -> None:
    """See that a file can be read as a trusted source, without reading it. Raises `FileRefused` as `read_source`."""
    with _opened(path, trusted=True, optional=False):
        pass


@contextmanager
def _opened(path: str, *, trusted: bool, optional: bool) -> Iterator[int | None]:
    # Without O_NONBLOCK, opening a FIFO would wait for its writer.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if trusted else 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        if not optional:
            raise FileRefused(f"{path}: there is no such file; `man rosterd-roster` shows how to write one") from None
        descriptor = None
    except OSError as error:
        why = "is a symbolic link; put the file itself there" if Path(path).is_symlink() else error.strerror
        raise FileRefused(f"{path}: {why}") from error
    if descriptor is None:
        yield None
        return
    try:
        with closing_descriptor(descriptor):
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise FileRefused(f"{path}: is not a regular file")
            if trusted:
                _refuse_writable(path, found)
                refuse_writable_parents(path)
            yield descriptor
    except OSError as error:  # also of reading it, which names no file
        raise FileRefused(f"{path}: {error.strerror}") from error


def _refuse_writable(path: str, found: os.stat_result) -> None:
    if found.st_uid != 0:
        raise FileRefused(f"{path}: belongs to uid {found.st_uid}, not to root; chown root {path}")
    if found.st_mode & _OTHERS_WRITE:
        mode = stat.S_IMODE(found.st_mode)
        raise FileRefused(f"{path}: mode {mode:04o} lets others than root write it; chmod go-w {path}")


def refuse_writable_parents(path: str, *, links: bool = False) -> None:
    """See that nobody but root (or whoever this runs as) can put another file at a path. Raises `FileRefused`.

    With `links` a folder may be a link, if nobody else can change that either, nor what it leads to. A folder that is
    not there yet is made by whoever writes.
    """
    _refuse_parents(path, Path(path).absolute(), links=links)


def _refuse_parents(path: str, place: Path, *, links: bool) -> None:
    """See to the folders above a place, which is `path` or what a link on the way to it leads to."""
    for parent in place.parents:
        try:
            found = parent.lstat()
            if links and stat.S_ISLNK(found.st_mode):
                parent.stat()  # a loop ends here
                _refuse_parents(path, parent.parent / parent.readlink() / place.name, links=True)
                continue
        except OSError as error:
            if links and error.errno == errno.ENOENT:
                continue
            raise FileRefused(f"{path}: the folder {parent}: {error.strerror}") from error
        _refuse_folder(path, parent, found)


def _refuse_folder(path: str, folder: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise FileRefused(f"{path}: the folder {folder} is a symbolic link; name the file by its real path")
    if found.st_uid not in {0, os.geteuid()}:
        raise FileRefused(f"{path}: the folder {folder} belongs to uid {found.st_uid}, not to root")
    if found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
        raise FileRefused(f"{path}: others than root can write in the folder {folder}; chmod go-w {folder}")
