"""Looks at what of certain people runs on the machine or is due to: jobs, lingering, sessions, services, processes.

Asked only for people whom a cut concerns; for everybody together, not one by one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.core.observed import ForeignUnit, Presence, Process
from reconciler.core.site import template_of
from reconciler.errors import ScanFailed, StepFailed
from reconciler.host.bus import Systemd

CRONTABS = Path("/var/spool/cron/crontabs")
AT_JOBS = Path("/var/spool/cron/atjobs")
HELD_JOBS = Path("/var/spool/cron/rosterd-held")
"""Each person's held jobs, in a folder of their name: below the spool, so that moving them there is a rename."""
CRONTAB = "crontab"
_LINGER = Path("/var/lib/systemd/linger")
_PROC = Path("/proc")

# A job's file name is its queue (= once it runs), five hexadecimal digits of its number, and eight of the minute it
# is due, counted from 1970 (at, posixtm and atd.c).
_AT_JOB = re.compile(r"[A-Za-z=][0-9a-f]{5}([0-9a-f]{8})")
_MINUTE = 60
_ACTIVE = ("active", "activating", "reloading", "refreshing")
_CONTAINER = re.compile(r"(docker|libpod|crio|cri-containerd)-[0-9a-f]+\.scope")
_PATTERNS = ("*.service", "user-*.slice", "docker-*.scope", "libpod-*.scope", "crio-*.scope", "cri-containerd-*.scope")
# Parts of a login session, which end with its slice.
_SESSION_TEMPLATES = frozenset(["user@.service", "user-runtime-dir@.service"])


@dataclass(frozen=True, slots=True)
class Person:
    """Whose presence is looked for: the (first, last) user ids in `spans` are theirs, `uid` among them."""

    name: str
    uid: int
    spans: tuple[tuple[int, int], ...]


def scan_presence(
    people: Collection[Person], systemd: Systemd, templates: Collection[str], now: int
) -> tuple[dict[str, Presence], tuple[str, ...]]:
    """Return the presence of each person by name, and the containers on this machine.

    Units of `templates` are rosterd's own and not looked at. Where systemd does not answer, there are no units; the
    scan of units tells that. Raises `ScanFailed` or PermissionError.
    """
    lingering = _listing(_LINGER)
    at_jobs = _owners(AT_JOBS)
    processes = scan_processes([span for person in people for span in person.spans])
    try:
        loaded = systemd.services(_PATTERNS)
        units = _foreign_units(people, systemd, templates, {name: path for name, (_, path) in loaded.items()})
        active = frozenset(name for name, (state, _) in loaded.items() if state.active in _ACTIVE)
    except StepFailed:
        units, active = {}, frozenset()
    found = {
        person.name: replace(
            _held(HELD_JOBS / person.name, now),
            crontab=_is_there(CRONTABS / person.name),
            at_jobs=tuple(sorted(name for name, uid in at_jobs.items() if uid == person.uid)),
            lingering=person.name in lingering,
            slice_active=f"user-{person.uid}.slice" in active,
            units=tuple(_unit(systemd, name, path, name in active) for name, path in units.get(person.name, ())),
            processes=tuple(one for one in processes if any(first <= one.uid <= last for first, last in person.spans)),
        )
        for person in people
    }
    return found, tuple(sorted(name for name in active if _CONTAINER.fullmatch(name)))


def scan_processes(spans: Collection[tuple[int, int]], proc: Path = _PROC) -> tuple[Process, ...]:
    """Return the processes whose real or saved user id lies in one of `spans`, dead ones aside, by pid.

    Read from /proc/pid/status (proc_pid_status(5)): the owner of /proc/pid is root where a process may not be traced.
    """
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = _status(entry)
            real, _, saved, _ = map(int, fields[b"Uid"].split())
            if not any(f <= real <= t or f <= saved <= t for f, t in spans) or not _is_alive(entry, fields):
                continue
        except OSError:
            continue  # it has ended
        uid = real if any(first <= real <= last for first, last in spans) else saved
        found.append(Process(int(entry.name), uid, fields[b"Name"].decode("utf-8", "replace")))
    return tuple(sorted(found, key=lambda process: process.pid))


def _status(folder: Path) -> dict[bytes, bytes]:
    lines = (folder / "status").read_bytes().splitlines()
    return dict(line.split(b":\t", 1) for line in lines if b":\t" in line)


def _is_alive(process: Path, fields: Mapping[bytes, bytes]) -> bool:
    """Say whether a process still does anything. One whose first thread has ended looks dead while others run."""
    if fields[b"State"][:1] not in b"ZX":
        return True
    return any(_status(task)[b"State"][:1] not in b"ZX" for task in (process / "task").iterdir())


def _foreign_units(
    people: Collection[Person], systemd: Systemd, templates: Collection[str], loaded: Mapping[str, str]
) -> dict[str, list[tuple[str, str]]]:
    """Return by person the services whose `User=` they are, with their object paths.

    systemd gives the property of one unit at a time; those that cannot be meant are left out.
    """
    by_user = {text: person.name for person in people for text in (person.name, str(person.uid))}
    found: dict[str, list[tuple[str, str]]] = {}
    for name, path in sorted(loaded.items()):
        template = template_of(name) if "@" in name else ""
        if not name.endswith(".service") or template in templates or template in _SESSION_TEMPLATES:
            continue
        owner = by_user.get(systemd.property_of(path, "Service", "User") or "")
        if owner is not None:
            found.setdefault(owner, []).append((name, path))
    return found


def _unit(systemd: Systemd, name: str, path: str, active: bool) -> ForeignUnit:  # noqa: FBT001 (a fact of four)
    return ForeignUnit(
        name,
        active,
        enabled=systemd.property_of(path, "Unit", "UnitFileState") == "enabled",
        transient=bool(systemd.property_of(path, "Unit", "Transient")),
        triggers=tuple(sorted(systemd.property_of(path, "Unit", "TriggeredBy") or ())),
    )


def _held(folder: Path, now: int) -> Presence:
    """Return what is held for a person."""
    names = _listing(folder)
    due = {name: int(match[1], 16) * _MINUTE for name in names if (match := _AT_JOB.fullmatch(name))}
    coming = {name for name, when in due.items() if when > now and not name.startswith("=")}
    return Presence(
        held_crontab=CRONTAB in names,
        held_at_jobs=tuple(sorted(coming)),
        late_at_jobs=tuple(sorted(due.keys() - coming)),
    )


def _owners(folder: Path) -> dict[str, int]:
    """Return the owners of the at jobs in a folder."""
    owners = {}
    for name in _listing(folder):
        if _AT_JOB.fullmatch(name):
            try:
                owners[name] = (folder / name).lstat().st_uid
            except FileNotFoundError:
                continue  # it has run
    return owners


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _listing(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return frozenset()
    except PermissionError:
        raise
    except OSError as error:
        raise ScanFailed(f"{folder}: {error.strerror}") from error
