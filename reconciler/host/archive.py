"""One compressed tar of everything that a person has: made and unpacked by GNU tar, read back by another reader.

Members bear the paths of the machine without the leading /, so `tar --extract` puts a single file where it was.
`account/shadow` is the person's line of shadow(5), which lies nowhere by itself.

Reading a home as root is allowed here alone (docs/decisions/0008): nothing of the person runs any more, and no link
is followed. A folder is opened below the folder before it, by name, and only if it is one; a file likewise.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import resource
import stat
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from reconciler.core.inventory import Comparison, Contents, Entry, Found, Kind, compare
from reconciler.core.text import escaped
from reconciler.errors import StepFailed
from reconciler.host import files
from reconciler.host.process import Finished, run

SHADOW = "account/shadow"
_KEPT = "etc/"

# A day: a terabyte at 12 MB/s.
_TAR_SECONDS = 86400.0
_CHUNK = 1 << 20
_PATH_MAX = 4096  # of the kernel, for one call
_XATTR = "SCHILY.xattr."
_TAR = (
    "tar",
    "--no-unquote",
    "--gzip",
    "--acls",
    "--xattrs",
    "--xattrs-include=*",
    "--numeric-owner",
)
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.FOLDER,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
}
_TYPES = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.GNUTYPE_SPARSE: Kind.FILE,
    tarfile.DIRTYPE: Kind.FOLDER,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.FIFOTYPE: Kind.FIFO,
    tarfile.CHRTYPE: Kind.CHARACTER,
    tarfile.BLKTYPE: Kind.BLOCK,
}


Stamps = dict[str, tuple[int, ...]]
Progress = Callable[[str, int, int], None]
"""Is told how far a long piece of work has come: what it is, how many bytes are done, of how many."""


def unseen(_what: str, _done: int, _total: int) -> None:
    """Show no progress."""


@dataclass(slots=True)
class _Meter:
    """Adds up the bytes of one piece of work."""

    progress: Progress
    what: str
    total: int
    done: int = 0

    def add(self, size: int) -> None:
        self.done += size
        self.progress(self.what, self.done, self.total)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a tree amounts to: bytes of its files, entries by owner, and the sockets, which no archive holds."""

    size: int = 0
    owners: Mapping[int, int] = field(default_factory=dict)
    sockets: tuple[str, ...] = ()

    @property
    def entries(self) -> int:
        """How many files and folders there are."""
        return sum(self.owners.values())


# --- looking at a tree ---


def allow_deep_trees() -> None:
    """Let this process have as many folders open as the system allows; 1024 are usual, and a tree may be deeper."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def survey(tops: Sequence[Path]) -> Survey:
    """Count what there is in some trees, without reading a file.

    Raises `StepFailed` for a file that is larger than its file system: it is almost all hole, and to read it would
    take longer than anybody waits. And for a path that is too long for tar to make it again, or what cannot be read.
    """
    try:
        return _survey(tops)
    except OSError as error:
        raise StepFailed(f"the files cannot be read: {_where(error)}") from error


def _survey(tops: Sequence[Path]) -> Survey:
    size, sockets = 0, []
    owners: Counter[int] = Counter()
    for top in tops:
        room = _room(top)
        for place in _walk(top):
            owners[place.status.st_uid] += 1
            if len(_bytes(place.path)) >= _PATH_MAX:
                raise StepFailed(f"{escaped(place.path[:60])}... is too long a path ({len(_bytes(place.path))} bytes)")
            if stat.S_ISSOCK(place.status.st_mode):
                sockets.append(f"/{place.path}")
            if not stat.S_ISREG(place.status.st_mode):
                continue
            size += place.status.st_size
            if place.status.st_size > room:
                told = escaped(f"/{place.path}")
                raise StepFailed(f"{told} says it has {place.status.st_size} bytes, more than its file system holds")
    return Survey(size, owners, tuple(sockets))


def stamps(top: Path) -> Stamps:
    """Return what tells whether a tree is still the same, without reading a file. Raises `StepFailed`."""
    try:
        return {place.path: _stamp(place.status) for place in _walk(top)}
    except OSError as error:
        raise StepFailed(f"the files cannot be read: {_where(error)}") from error


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def inventory(top: Path, meter: Callable[[int], None] | None = None) -> Iterator[Found]:
    """Yield every entry of a tree with the hash of its content; sockets are left out. Raises OSError."""
    for place in _walk(top):
        if stat.S_ISSOCK(place.status.st_mode):
            continue
        yield Found(place.path, _entry(place, meter), (place.status.st_dev, place.status.st_ino))


def comparison(top: Path, contents: Contents, progress: Progress = unseen, *, at: str | None = None) -> Comparison:
    """Compare a tree with the archive; `at` is where the archive has it, if that is not where it lies now.

    Raises `StepFailed`.
    """
    where = _member(top) if at is None else at
    total = sum(contents.entries[path].size for path in contents.below(where))
    meter = _Meter(progress, "comparing", total)
    found = inventory(top, meter.add)
    if at is not None:
        prefix = len(_member(top))
        found = (Found(at + one.path[prefix:], one.entry, one.inode) for one in found)
    try:
        return compare(found, contents, where)
    except OSError as error:
        raise StepFailed(f"{top} cannot be read: {_where(error)}") from error


@dataclass(frozen=True, slots=True)
class _Place:
    """An entry that a walk has come to: its name below an open folder."""

    path: str
    name: str
    folder: int
    status: os.stat_result

    @property
    def by_descriptor(self) -> str:
        """A path that starts from the open folder, for calls that take no folder."""
        return f"/proc/self/fd/{self.folder}/{self.name}"


@dataclass(slots=True)
class _Open:
    """A folder that a walk is in. Its descriptor is closed when it is done."""

    descriptor: int
    path: str
    names: list[str] = field(default_factory=list)


def _walk(top: Path) -> Iterator[_Place]:
    """Yield a tree, a folder before what is in it, each entry by name below its open folder. Raises OSError.

    As many folders are open as the tree is deep.
    """
    above = os.open(top.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    way = [_Open(above, _member(top.parent), [top.name])]
    try:
        while way:
            folder = way[-1]
            if not folder.names:
                os.close(way.pop().descriptor)
                continue
            name = folder.names.pop()
            path = f"{folder.path}/{_text(name)}" if folder.path else _text(name)
            status = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
            yield _Place(path, name, folder.descriptor, status)
            if stat.S_ISDIR(status.st_mode):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                below = _Open(os.open(name, flags, dir_fd=folder.descriptor), path)
                way.append(below)
                below.names = sorted(os.listdir(below.descriptor), reverse=True)  # noqa: PTH208 (a Path is no open folder)
    finally:
        for folder in way:
            os.close(folder.descriptor)


def _entry(place: _Place, meter: Callable[[int], None] | None) -> Entry:
    status = place.status
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    size, content = 0, b""
    if kind is Kind.FILE:
        size, content = status.st_size, _hash_of(place, meter)
    elif kind is Kind.SYMLINK:
        content = os.fsencode(os.readlink(place.name, dir_fd=place.folder))
    elif kind in (Kind.CHARACTER, Kind.BLOCK):
        content = _device(os.major(status.st_rdev), os.minor(status.st_rdev))
    mode = stat.S_IMODE(status.st_mode)
    return Entry(kind, mode, status.st_uid, status.st_gid, size, content, _attributes(place))


def _hash_of(place: _Place, meter: Callable[[int], None] | None) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(place.name, flags, dir_fd=place.folder)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(files.NOT_A_FILE, "has just become another kind of file", place.path)
        return _hash(file, meter)


def _hash(file: IO[bytes], meter: Callable[[int], None] | None) -> bytes:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        if meter is not None:
            meter(len(chunk))
    return digest.digest()


def _attributes(place: _Place) -> frozenset[tuple[str, bytes]]:
    path = place.by_descriptor
    names = os.listxattr(path, follow_symlinks=False)
    return frozenset((_text(name), os.getxattr(path, name, follow_symlinks=False)) for name in names)


def _room(top: Path) -> int:
    """Return the size in bytes of the file system that a path is on."""
    system = os.statvfs(top.parent)
    return system.f_blocks * system.f_frsize


def _device(major: int, minor: int) -> bytes:
    return f"{major}:{minor}".encode()


def _member(path: Path) -> str:
    """Return how the archive calls an absolute path."""
    return _text(str(path)).lstrip("/")


def _text(name: str) -> str:
    """Return a name as tarfile returns it, whatever encoding the locale says that file names have."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


# --- making an archive ---


def create(folder: Path, target: Path, sources: Sequence[Path], shadow: bytes, progress: Progress = unseen) -> str:
    """Archive the sources, read the archive back, compare everything, and put it in place; return its SHA-256 in hex.

    `folder` is one of root's alone, on the file system of `target`; it must not be there and is gone at the end. The
    archive appears under its name only when it is whole and on disk. Raises `StepFailed`; then there is none.
    """
    total = survey(sources).size
    draft = folder / "archive.tar.gz"
    files.make_private_folder(folder)
    files.make_private_folder(folder / "account")
    files.replace_file(folder / SHADOW, shadow, 0o600)
    files.make_empty_file(draft)
    members = [f"--add-file={str(source).lstrip('/')}" for source in sources]
    argv = [*_TAR, "--create", "--format=posix", "--sparse", f"--file={draft}", f"--directory={folder}"]
    argv += [f"--add-file={SHADOW}", "--directory=/", *members]
    finished = run(argv, timeout=_TAR_SECONDS, watch=lambda pid: progress("archiving", _written_by(pid), total))
    if finished.code != 0:
        raise StepFailed(_complaint(finished, target.parent))
    files.sync_file(draft)
    contents = read(draft, progress, total)
    _verify(contents, sources, progress)
    files.move(draft, target)
    return contents.digest


def _verify(contents: Contents, sources: Sequence[Path], progress: Progress) -> None:
    """See that the archive holds the sources, whole, and nothing else."""
    left = set(contents.entries) - {SHADOW}
    for source in sources:
        found = comparison(source, contents, progress)
        wrong = [*found.differences, *(f"/{path} is only in the archive" for path in sorted(found.missing))]
        if wrong:
            told = escaped("; ".join(wrong[:3]))
            raise StepFailed(f"the archive is not what it was made of ({len(wrong)} differences): {told}")
        left -= contents.below(_member(source))
    if left or SHADOW not in contents.entries:
        raise StepFailed("the archive is not what it was made of: it holds other members than were asked for")


def _written_by(pid: int) -> int:
    """Return how many bytes a process has written: of tar, those that it has handed to gzip. 0 if it has ended."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
            if line.startswith("wchar: "):
                return int(line.partition(" ")[2])
    return 0


def _complaint(finished: Finished, folder: Path) -> str:
    if "No space left on device" in finished.err:
        return f"no space is left in {folder}; the archive was not made (to put it elsewhere: --archive-dir)"
    return finished.complaint


# --- reading an archive ---


class _Hashing:
    """A file that is hashed while it is read, from its start to its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def rest(self) -> str:
        """Read to the end, and return the SHA-256 of everything."""
        while self.read(_CHUNK):
            pass
        return self._digest.hexdigest()


def read(path: Path, progress: Progress = unseen, total: int = 0) -> Contents:
    """Read an archive through, once, and return what it holds. gzip's own checksum is checked too.

    `total` is about how many bytes its files have, for `progress`; 0 if that is not known. Raises `StepFailed`.
    """
    meter = _Meter(progress, "reading back", total)
    try:
        with path.open("rb") as file:
            hashing = _Hashing(file)
            # Not by tarfile itself: it does not look at the checksum at the end.
            with gzip.GzipFile(fileobj=hashing, mode="rb") as unzipped:  # type: ignore[call-overload]  # needs read alone
                found = _members(unzipped, meter.add)
                while unzipped.read(_CHUNK):
                    pass
            return Contents(hashing.rest(), *found)
    except FileNotFoundError:
        raise StepFailed(f"the archive {path} is not there") from None
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
        raise StepFailed(f"the archive {path} cannot be read: {error}") from error


def _members(
    file: IO[bytes], meter: Callable[[int], None]
) -> tuple[dict[str, Entry], dict[str, str], dict[str, bytes]]:
    """Return the entries by path, which of them are further names of which, and the bytes of small ones."""
    entries: dict[str, Entry] = {}
    twins: dict[str, str] = {}
    kept: dict[str, bytes] = {}
    # A stream is read once, in order, so no name in it can lead to another place.
    with tarfile.open(fileobj=file, mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all, there may be millions
            path = member.name.rstrip("/")
            if path in entries:
                raise tarfile.ReadError(f"has two members {escaped(path)}")
            if member.islnk():
                twins[path] = member.linkname
                entries[path] = entries[member.linkname]
                continue
            content = b""
            if member.isreg() and (path == SHADOW or path.startswith(_KEPT)) and member.size <= files.MAX_READ:
                kept[path] = _content_of(tar, member).read()
                content = hashlib.sha256(kept[path]).digest()
            elif member.isreg():
                content = _hash(_content_of(tar, member), meter)
            entries[path] = _archived(member, content)
    return entries, twins, kept


def _content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    if content is None:
        raise tarfile.ReadError(f"{escaped(member.name)} has no content")
    return content


def _archived(member: tarfile.TarInfo, content: bytes) -> Entry:
    kind = _TYPES.get(member.type)
    if kind is None:
        raise tarfile.ReadError(f"{escaped(member.name)} is of an unknown type")
    if kind is Kind.SYMLINK:
        content = _bytes(member.linkname)
    elif kind in (Kind.CHARACTER, Kind.BLOCK):
        content = _device(member.devmajor, member.devminor)
    size = member.size if kind is Kind.FILE else 0
    return Entry(kind, stat.S_IMODE(member.mode), member.uid, member.gid, size, content, _recorded(member.pax_headers))


def _recorded(headers: Mapping[str, str]) -> frozenset[tuple[str, bytes]]:
    """Return the extended attributes of a member. GNU tar writes % and = in their names as %25 and %3D."""
    return frozenset(
        (key.removeprefix(_XATTR).replace("%3D", "=").replace("%25", "%"), _bytes(value))
        for key, value in headers.items()
        if key.startswith(_XATTR)
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# --- unpacking an archive ---


def extract(archive: Path, member: str, folder: Path, contents: Contents, progress: Progress = unseen) -> Path:
    """Unpack one tree into a folder of root's alone, see that it is on disk and as archived, and return where it is.

    Raises `StepFailed`; what was unpacked is then left in the folder.
    """
    total = sum(contents.entries[path].size for path in contents.below(member))
    options = ("--extract", "--preserve-permissions", "--same-owner", "--delay-directory-restore")
    argv = [*_TAR, *options, f"--file={archive}", f"--directory={folder}", "--no-wildcards", "--", member]
    finished = run(argv, timeout=_TAR_SECONDS, watch=lambda pid: progress("unpacking", _written_by(pid), total))
    if finished.code != 0:
        if "No space left on device" in finished.err:
            raise StepFailed(f"no space is left in {folder.parent}; {member} was not unpacked")
        raise StepFailed(finished.complaint)
    run(("sync", "--file-system", "--", str(folder)), timeout=_TAR_SECONDS).or_fail()
    found = comparison(folder / member, contents, progress, at=member)
    if wrong := [*found.differences, *(f"/{path} is missing" for path in sorted(found.missing))]:
        raise StepFailed(f"what was unpacked is not as archived: {escaped('; '.join(wrong[:3]))}")
    return folder / member


def _where(error: OSError) -> str:
    return escaped(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
