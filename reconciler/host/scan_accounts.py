"""Reads accounts, groups, subordinate ids and homes from the host's own files.

passwd(5), group(5), shadow(5), gshadow(5), subuid(5), subgid(5), login.defs(5). The files are read themselves, not
through NSS: what `useradd` and `gpasswd` change is in them, and a name service that hangs cannot hold
up a run.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from reconciler.core.observed import Account, Group, Home, HomeKind, IdLimits, Login, SubidRange
from reconciler.core.text import printable
from reconciler.errors import ScanFailed
from reconciler.host import files

_DIGITS = 10  # an id has 32 bits
_EXPIRY = 7  # the eighth field of shadow(5)


def system_names(etc: Path = Path("/etc")) -> frozenset[str]:
    """Return the names that belong to the host: accounts below UID_MIN, and groups below it."""
    accounts = scan_passwd(etc / "passwd").values()
    groups = scan_group(etc / "group").values()
    first = scan_limits(etc / "login.defs").uid_min
    names = {account.name for account in accounts if account.uid < first}
    return frozenset(names | {group.name for group in groups if group.gid < first})


def scan_passwd(path: Path) -> dict[str, Account]:
    """Return the accounts by name."""
    found: dict[str, Account] = {}
    for number, row in _rows(path, columns=7):
        name, _, uid, gid, _, home, shell = row[:7]
        account = Account(name, _number(path, number, uid), _number(path, number, gid), home, shell)
        found.setdefault(name, account)
    if not found:
        raise ScanFailed(f"{path} holds no account; it is not taken for an empty machine")
    return found


def scan_group(path: Path) -> dict[str, Group]:
    """Return the groups by name."""
    found: dict[str, Group] = {}
    for number, row in _rows(path, columns=4):
        name, _, gid, members = row[:4]
        names = frozenset(member for member in members.split(",") if member)
        found.setdefault(name, Group(name, _number(path, number, gid), names))
    if not found:
        raise ScanFailed(f"{path} holds no group; it is not taken for an empty machine")
    return found


def scan_shadow(path: Path) -> dict[str, Login]:
    """Return by name what shadow(5) says of an account; the password itself is not kept.

    Raises `ScanFailed`, or PermissionError where the caller may not read it.
    """
    found: dict[str, Login] = {}
    for _, row in _rows(path, columns=2, private=True):
        expiry = row[_EXPIRY] if len(row) > _EXPIRY else ""
        login = Login(row[1].startswith("!"), not row[1], int(expiry) if _is_number(expiry) else None)
        found.setdefault(row[0], login)
    if not found:
        raise ScanFailed(f"{path} holds no account; it is not taken for an empty machine")
    return found


def scan_shadow_groups(path: Path) -> frozenset[str] | None:
    """Return the names in gshadow(5), None where the host has no such file."""
    return frozenset(row[0] for _, row in _rows(path, columns=1)) if path.exists() else None


def scan_subids(path: Path) -> tuple[SubidRange, ...] | None:
    """Return the ranges of subuid(5) or subgid(5), None where the host has no such file."""
    if not _is_there(path):
        return None
    return tuple(
        SubidRange(row[0], _number(path, number, row[1]), _number(path, number, row[2]))
        for number, row in _rows(path, columns=3)
    )


def scan_limits(path: Path) -> IdLimits:
    """Return the id ranges of login.defs(5); what it does not set has the values of shadow-utils."""
    words = [line.split() for line in _lines(path, missing=())]
    found = {row[0]: row[1] for row in words if len(row) > 1 and not row[0].startswith("#")}
    default = IdLimits()
    return IdLimits(
        uid_min=_setting(found, "UID_MIN", default.uid_min),
        uid_max=_setting(found, "UID_MAX", default.uid_max),
        subid_min=_setting(found, "SUB_UID_MIN", default.subid_min),
        subid_max=_setting(found, "SUB_UID_MAX", default.subid_max),
        subid_count=_setting(found, "SUB_UID_COUNT", default.subid_count),
    )


def scan_homes(homes: Mapping[str, str]) -> dict[str, Home]:
    """Return what lies at each path, by name, as lstat(2) has it. Nothing is opened."""
    return {name: _home(Path(path)) for name, path in homes.items()}


def scan_skel_gaps(skel: Path, accounts: Iterable[Account]) -> dict[str, tuple[str, ...]]:
    """Return by account the entries of the skel that its home lacks or has only in part, by lstat(2) alone.

    An interrupted copy leaves entries that are shorter, still root's, or without their mode. Paths are
    relative to the skel, a folder before what is in it.
    """
    entries = [(path.relative_to(skel), path.lstat()) for path in sorted(skel.rglob("*"))]
    return {
        account.name: tuple(
            str(entry) for entry, wanted in entries if _is_gap(wanted, Path(account.home, entry), account.uid)
        )
        for account in accounts
    }


def _is_gap(wanted: os.stat_result, copy: Path, uid: int) -> bool:
    try:
        found = copy.lstat()
    except OSError:
        return True
    if found.st_uid != uid:
        return True
    is_short = stat.S_ISREG(wanted.st_mode) and found.st_size < wanted.st_size
    return is_short or (not stat.S_ISLNK(wanted.st_mode) and found.st_mode != wanted.st_mode)


def _home(path: Path) -> Home:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        can_be_made = path.is_absolute() and path.parent != Path("/") and path.parent.is_dir()
        return Home(HomeKind.MISSING if can_be_made else HomeKind.NOWHERE)
    except OSError:
        return Home(HomeKind.UNREADABLE)  # one person's mount must not hold up everybody else
    if stat.S_ISLNK(found.st_mode):
        kind = HomeKind.SYMLINK
    else:
        kind = HomeKind.FOLDER if stat.S_ISDIR(found.st_mode) else HomeKind.OTHER
    return Home(kind, found.st_uid, stat.S_IMODE(found.st_mode))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ScanFailed(f"{path}: {error.strerror}") from error


def _rows(path: Path, columns: int, *, private: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a colon-separated file with their numbers; a torn line is an error."""
    for number, line in enumerate(_lines(path, private=private), start=1):
        # Lines with + and - ask for other name services (nsswitch.conf(5), compat) and name no account.
        if not line.strip() or line[0] in "#+-":
            continue
        row = line.split(":")
        if len(row) < columns:
            raise ScanFailed(f"{path}:{number}: has {len(row)} fields instead of {columns}; see pwck(8), grpck(8)")
        yield number, row


def _lines(path: Path, missing: Sequence[str] | None = None, *, private: bool = False) -> Sequence[str]:
    """Return the lines of a file. Only LF ends one: people can put other line ends into their own gecos field.

    `missing` stands in for a file that does not exist; without it that is an error. Raises PermissionError for a
    `private` file, which not everybody may read, and `ScanFailed` for all else.
    """
    try:
        data = files.read_bytes(path, follow=True)
    except OSError as error:
        if private and isinstance(error, PermissionError):
            raise
        raise ScanFailed(f"{path}: {error.strerror}") from error
    if data is None and missing is None:
        raise ScanFailed(f"{path} does not exist")
    return missing or () if data is None else data.decode("utf-8", "surrogateescape").split("\n")


def _number(path: Path, line: int, text: str) -> int:
    if not _is_number(text):
        raise ScanFailed(f"{path}:{line}: '{printable(text)}' is not a number; see pwck(8), grpck(8)")
    return int(text)


def _setting(found: Mapping[str, str], key: str, default: int) -> int:
    text = found.get(key, "")
    return int(text) if _is_number(text) else default


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS
