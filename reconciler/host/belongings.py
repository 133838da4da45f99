"""Looks at what there is of one person who is deleted or restored. It reads, and cannot change anything."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from reconciler.core.inventory import Contents
from reconciler.core.observed import Observed
from reconciler.core.ports import port_number
from reconciler.core.records import Tombstone
from reconciler.core.removal import Belongings, HomePlace, Match, Part, Spans, Tree
from reconciler.core.site import Service
from reconciler.errors import ScanFailed, StepFailed
from reconciler.host import archive, files
from reconciler.host.archive import Progress, unseen
from reconciler.host.mounts import mounts
from reconciler.host.process import run
from reconciler.host.scan_presence import HELD_JOBS

_ETC = Path("/etc")
_MAIL = Path("/var/mail")
_FIND_SECONDS = 600.0
_OTHERS_WRITE = 0o022
# The columns of passwd(5), shadow(5) and gshadow(5); of shadow, those before and after the expiry.
_GECOS = 4
_PASSWORD, _EXPIRY = 1, 7
_MEMBERS = 3

# The fields of mountinfo (proc_pid_mountinfo(5)): device, root within it, where; after a `-`, the type.
_NO_FILES = frozenset([
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
    "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs",
    "tracefs",
])  # fmt: skip
_ELSEWHERE = ("9p", "afs", "ceph", "cifs", "fuse", "glusterfs", "nfs", "smb")


class Look:
    """What there is of one person, and their archive if one is on record. Needs root."""

    def __init__(
        self, name: str, services: Collection[Service], observed: Observed, progress: Progress = unseen
    ) -> None:
        """Look for this person; `services` say where env files may be."""
        self._name = name
        self._rules = {service.name: service.port for service in services if service.port}
        self._observed = observed
        self._progress = progress

    def ports(self) -> dict[str, int]:
        """Return the ports that the env files give, by service."""
        files_of = {service: (self._observed.env_files or {}).get((service, self._name)) for service in self._rules}
        values = {service: file.value for service, file in files_of.items() if file is not None}
        ports = {service: port_number(value) for service, value in values.items() if value is not None}
        return {service: port for service, port in ports.items() if port is not None}

    def belongings(self, *, read_archive: bool) -> tuple[Belongings, Contents | None]:
        """Return what there is, and what the archive holds if there is one and it may be read.

        Without `read_archive` nothing is known of how far the two agree. Raises `ScanFailed` or `StepFailed`.
        """
        stone = self._observed.on_record.tombstones.get(self._name)
        has = self._without_archive(stone)
        if stone is None or not read_archive:
            return has, None
        return self._with_archive(has, stone)

    def _without_archive(self, stone: Tombstone | None) -> Belongings:
        account = self._observed.accounts.get(self._name)
        home = stone.home if stone else account.home if account else "/"
        gshadow = [line for line in _lines(_ETC / "gshadow") if len(line) > _MEMBERS]
        paths = {
            Part.HOME: Path(home),
            Part.MAIL: _MAIL / self._name,
            Part.JOBS: HELD_JOBS / self._name,
        }
        return Belongings(
            trees={part: tree_at(part, path) for part, path in paths.items()},
            place=_place(home),
            gecos=_gecos(self._name),
            env_files=tuple(sorted(self._env_files())),
            has_shadow=bool(shadow_line(self._name)),
            has_gshadow=any(line[0] == self._name for line in gshadow),
            in_gshadow=tuple(line[0] for line in gshadow if self._name in line[_MEMBERS].split(",")),
            staging=tuple(
                str(path) for path in (staging_beside(path) for path in paths.values()) if os.path.lexists(path)
            ),
        )

    def _with_archive(self, has: Belongings, stone: Tombstone) -> tuple[Belongings, Contents | None]:
        path = Path(stone.archive)
        has = replace(has, is_compared=True)
        try:
            contents = archive.read(path, self._progress)
        except StepFailed as error:
            return replace(has, archive_problem=str(error)), None
        if contents.digest != stone.digest:
            text = f"the archive {path} is not the one that was made: its SHA-256 is not {stone.digest}"
            return replace(has, archive_problem=text), None
        env = {f"/{path}": data for path, data in contents.kept.items() if path != archive.SHADOW}
        now = self._env_files() | {path: data for path in env if (data := _read(Path(path))) is not None}
        compared = replace(
            has,
            trees={part: self._compared(tree, contents) for part, tree in has.trees.items()},
            env_files=tuple(sorted(now)),
            archived_env=tuple(sorted(env)),
            differing_env=tuple(sorted(path for path, data in now.items() if path in env and env[path] != data)),
            login_as_archived=_is_same_login(shadow_line(self._name), contents.kept.get(archive.SHADOW, b"")),
        )
        return compared, contents

    def _compared(self, tree: Tree, contents: Contents) -> Tree:
        tree = replace(tree, archived=tree.path.lstrip("/") in contents.entries)
        if not tree.exists:
            return tree
        found = archive.comparison(Path(tree.path), contents, self._progress)
        if found.differences:
            return replace(tree, match=Match.OTHER, differences=found.differences)
        return replace(tree, match=Match.PARTIAL if found.missing else Match.WHOLE)

    def _env_files(self) -> dict[str, bytes]:
        paths = [rule.path_for(self._name) for rule in self._rules.values()]
        return {path: data for path in paths if (data := _read(Path(path))) is not None}


def files_elsewhere(spans: Spans, known: Collection[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the files of some (first, last) user ids on this machine, and the file systems that were not searched.

    What lies at or below `known` is left out, and so are network file systems. Raises `StepFailed`.
    """
    tops, left_out = _file_systems()
    owners: list[str] = []
    for first, last in spans:
        owners += ["-o", "-uid", f"+{first - 1}", "-uid", f"-{last + 1}"]
    skipped = [word for path in known for word in ("-path", _literal(path), "-prune", "-o")]
    argv = ["find", *tops, "-xdev", *skipped, "(", *owners[1:], ")", "-print0"]
    finished = run(argv, timeout=_FIND_SECONDS)
    if finished.code != 0 and not finished.out and finished.err:
        raise StepFailed(finished.complaint)
    return sorted(set(finished.out.split("\0")) - {""}), left_out


def tree_at(part: Part, path: Path) -> Tree:
    """Return what lies at the path of a part, without following a link. Raises `ScanFailed`."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Tree(str(path))
    except OSError as error:
        raise ScanFailed(f"{path}: {error.strerror}") from error
    is_sound = stat.S_ISREG(found.st_mode) if part is Part.MAIL else stat.S_ISDIR(found.st_mode)
    return Tree(str(path), exists=True, is_sound=is_sound, uid=found.st_uid)


def _place(home: str) -> HomePlace:
    real = Path(os.path.realpath(home))
    points = [mount.where for mount in mounts()]
    below = tuple(point for point in points if point == str(real) or point.startswith(f"{real}/"))
    return HomePlace(str(real), tuple(writable_by_others(real.parents)), below if str(real) != "/" else ())


def writable_by_others(folders: Iterable[Path]) -> list[str]:
    """Return those folders in which others than root can make, rename or remove entries."""
    bad = []
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            found = folder.lstat()
            if found.st_uid != 0 or found.st_mode & _OTHERS_WRITE:
                bad.append(str(folder))
    return bad


def _file_systems() -> tuple[list[str], tuple[str, ...]]:
    """Return a mount point of each local file system, and those of the ones elsewhere."""
    tops: dict[tuple[str, str], str] = {}
    left_out = []
    for mount in mounts():
        if mount.kind.startswith(_ELSEWHERE):
            left_out.append(mount.where)
        elif mount.kind not in _NO_FILES:
            tops.setdefault((mount.device, mount.root), mount.where)
    whole = {device for device, root in tops if root == "/"}
    return [top for (device, root), top in tops.items() if root == "/" or device not in whole], tuple(left_out)


def _literal(path: str) -> str:
    """Return a pattern of find(1) that matches this path alone."""
    return "".join(f"\\{char}" if char in "*?[\\" else char for char in path)


def _lines(path: Path) -> list[list[str]]:
    data = _read(path) or b""
    return [line.split(":") for line in data.decode("utf-8", "surrogateescape").split("\n") if line]


def _read(path: Path) -> bytes | None:
    try:
        return files.read_bytes(path, follow=path.parent == _ETC)
    except OSError as error:
        raise ScanFailed(f"{path}: {error.strerror or error}") from error


def _gecos(name: str) -> str:
    return next((line[_GECOS] for line in _lines(_ETC / "passwd") if line[0] == name and len(line) > _GECOS), "")


def shadow_line(name: str) -> bytes:
    """Return the line of shadow(5), without its end; empty where there is none. It holds a secret."""
    start = name.encode() + b":"
    return next((line for line in (_read(_ETC / "shadow") or b"").split(b"\n") if line.startswith(start)), b"")


def _is_same_login(now: bytes, archived: bytes) -> bool:
    """Say whether password and dates are the same; the expiry is not looked at, a cut sets it."""
    before, after = archived.rstrip(b"\n").split(b":"), now.split(b":")
    return bool(now) and [*before[_PASSWORD:_EXPIRY], *before[_EXPIRY + 1 :]] == [
        *after[_PASSWORD:_EXPIRY],
        *after[_EXPIRY + 1 :],
    ]


def staging_beside(path: Path) -> Path:
    """Return the folder of root's alone, on the same file system, where something is made before it is renamed."""
    return path.parent / f".{path.name}.rosterd-new"
