"""Looks at what a run does not look at, for the doctor: running services, folders that everybody writes to, modes.

Of files nothing but names and what lstat(2) tells is read, and nothing below a home. In /tmp nothing is followed
or opened but folders that everybody may list, that bear a person's name and that are not that person's; what
somebody mounted there is left alone, for a file system of theirs can let whoever looks wait.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from reconciler.core.desired import Desired
from reconciler.core.drop_ins import slice_of
from reconciler.core.hazard_case import people_of
from reconciler.core.home_steps import FileStep
from reconciler.core.observed import Observed
from reconciler.core.sightings import FileLook, ServiceLook, SharedPlace, Sightings, UnitLink, named_after, words_for
from reconciler.core.site import OutputKind, instance_of, template_of
from reconciler.errors import StepFailed
from reconciler.host.bus import Property, Systemd
from reconciler.host.files import closing_descriptor
from reconciler.host.mounts import mounts

_UP = ("active", "reloading", "refreshing", "activating")
_RESTARTING = "auto-restart"
_NO_CAP = 2**64 - 1  # "infinity"
_SHARED = ("tmp", "var/tmp")
# Whoever fills /tmp does not keep the doctor busy for long.
_MOST_SHARED, _MOST_IN_ONE = 20_000, 1000
_LISTED_BY_ALL = 0o005
_OWN_FOLDER = "etc/t3-serve"
_SECRET_FOLDERS = (("etc/rosterd", ""), ("etc", "ttyd-"))
_SECRET_WORDS = ("token", "secret", "key", "password", "passwd", "credential")
_SECRET_MODE = "0600"  # noqa: S105 (a mode)
_LINKS = "etc/systemd/system"
_UNIT_FOLDERS = (
    "etc/systemd/system",
    "etc/systemd/system.control",
    "run/systemd/system",
    "run/systemd/generator",
    "run/systemd/generator.early",
    "run/systemd/generator.late",
    "run/systemd/transient",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)


@dataclass(slots=True)
class HazardScanner:
    """Looks at this machine for hazards. `root` is where it has its files."""

    systemd: Systemd
    root: Path = Path("/")
    _unseen: list[str] = field(default_factory=list)

    def look(self, desired: Desired, observed: Observed) -> Sightings:
        """Return all that is to be seen at once; `now` has the restarts."""
        self._unseen = []
        uids = {name: observed.accounts[name].uid for name in people_of(desired, observed)}
        running = _running(observed)
        services, caps, now = self._manager(running, uids, observed.units.why)
        homes = {observed.accounts[name].home for name in uids}
        return Sightings(
            services=services,
            slice_caps=caps,
            now=now,
            restarting=frozenset(unit for unit in running if (observed.units.states or {})[unit].sub == _RESTARTING),
            secrets=tuple(self._secrets(desired, homes)),
            shared=tuple(self._shared(uids)),
            links=tuple(self._links()),
            unseen=tuple(self._unseen),
        )

    def look_again(self, units: Sequence[str]) -> tuple[Mapping[str, int], frozenset[str]]:
        """Return the restarts of units, and which of them wait for one. Raises `StepFailed`."""
        counts = self.systemd.restarts(units)
        patterns = {template_of(unit).replace("@.", "@*.") for unit in units}
        states = self.systemd.states(sorted(patterns)) if patterns else {}
        waiting = frozenset(unit for unit in units if unit in states and states[unit].sub == _RESTARTING)
        return counts, waiting

    # --- what runs ---

    def _manager(
        self, running: Sequence[str], uids: Mapping[str, int], why_not: str
    ) -> tuple[dict[str, ServiceLook], dict[str, int | None], dict[str, int]]:
        """Ask the manager for services, caps of slices and restarts, all of it in flight at once.

        `why_not` says why it did not answer a moment ago, "" if it did.
        """
        names = ("PrivateTmp", "MemoryMax", "ControlGroup", "NRestarts")
        asked = [Property(unit, "Service", name) for unit in running for name in names]
        slices = [Property(slice_of(uid), "Slice", "MemoryMax") for uid in uids.values()]
        answers: list[Any] = []
        try:
            answers = [] if why_not else self.systemd.properties([*asked, *slices])
        except StepFailed as error:
            why_not = str(error)
        if why_not:
            self._unseen.append(f"running services and slices ({why_not})")
            return {}, {}, {}
        rows: list[Sequence[Any]] = [answers[at : at + len(names)] for at in range(0, len(asked), len(names))]
        seen = {unit: row for unit, row in zip(running, rows, strict=True) if None not in row}
        services = {unit: ServiceLook(tmp, _cap(limit), cgroup) for unit, (tmp, limit, cgroup, _) in seen.items()}
        limits = zip(uids, answers[len(asked) :], strict=True)
        return (
            services,
            {name: _cap(limit) for name, limit in limits if limit is not None},
            {unit: count for unit, (_, _, _, count) in seen.items()},
        )

    # --- files of root's ---

    def _secrets(self, desired: Desired, homes: Collection[str]) -> Iterator[FileLook]:
        """Look at the files that are to be root's alone, wherever the site has them; at none in a home."""
        for path in sorted(set(self._secret_paths(desired))):
            shown = self._shown(path)
            if any(str(folder) in homes for folder in shown.parents):
                continue
            with suppress(OSError):  # it has gone, or is in a folder that is closed
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield FileLook(str(shown), found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))

    def _secret_paths(self, desired: Desired) -> Iterator[Path]:
        public = {kind.path for kind in OutputKind}
        for name in self._names(_OWN_FOLDER):
            if f"/{_OWN_FOLDER}/{name}" not in public and not name.startswith("."):
                yield self.root / _OWN_FOLDER / name
        for rule in [service.port for service in desired.services.values() if service.port]:
            folder = rule.folder.lstrip("/")
            if folder != _OWN_FOLDER:
                yield from (self.root / folder / name for name in self._names(folder) if rule.owner_of(name))
        for folder, prefix in _SECRET_FOLDERS:
            for name in self._names(folder):
                if name.startswith(prefix) and any(word in name.lower() for word in _SECRET_WORDS):
                    yield self.root / folder / name
        yield from {self.root / source.lstrip("/") for source in _secret_sources(desired)}

    # --- folders that everybody writes to ---

    def _shared(self, uids: Mapping[str, int]) -> Iterator[SharedPlace]:
        words = words_for(uids)
        mounted = {mount.where for mount in mounts()}
        for folder in _SHARED:
            top = self.root / folder
            names = self._names(folder, _MOST_SHARED)
            if len(names) == _MOST_SHARED:
                self._unseen.append(f"{top}: more than {_MOST_SHARED} entries")
            for name in names:
                path = top / name
                if str(path) not in mounted and (meant := named_after(name, words)):
                    with suppress(OSError):  # it has gone meanwhile
                        yield from _shared_place(path, {uids[person] for person in meant})

    # --- links that enable ---

    def _links(self) -> Iterator[UnitLink]:
        templates = {name for folder in _UNIT_FOLDERS for name in self._names(folder) if "@" in name}
        for folder in self._names(_LINKS):
            if folder.endswith((".wants", ".requires")):
                for unit in self._names(f"{_LINKS}/{folder}"):
                    if instance_of(unit):
                        path = self.root / _LINKS / folder / unit
                        known = unit in templates or template_of(unit) in templates or path.exists()
                        yield UnitLink(str(self._shown(path)), unit, known)

    def _shown(self, path: Path) -> Path:
        """Return a path as it is on the machine that is looked at."""
        return Path("/") / path.relative_to(self.root)

    def _names(self, folder: str, most: int | None = None) -> list[str]:
        """Return the names in a folder, sorted; none where there is none, and what may not be listed is noted."""
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(entry.name for entry in islice(entries, most))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._unseen.append(f"{error.filename}: {error.strerror}")
            return []


def _running(observed: Observed) -> list[str]:
    states = observed.units.states or {}
    return sorted(unit for unit, state in states.items() if unit.endswith(".service") and state.active in _UP)


def _cap(limit: int) -> int | None:
    return None if limit == _NO_CAP else limit


def _secret_sources(desired: Desired) -> set[str]:
    """Return the files of root's whose content the site puts into homes for their owners alone."""
    bodies = (step.body for user in desired.users.values() for step in user.steps)
    return {body.source for body in bodies if isinstance(body, FileStep) and body.source and body.mode == _SECRET_MODE}


def _shared_place(path: Path, meant: Collection[int]) -> Iterator[SharedPlace]:
    """Look at one entry by lstat(2), and into it if it is a folder of others'. Raises OSError."""
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISSOCK(found.st_mode):
        yield SharedPlace(str(path), found.st_uid, mode, is_socket=True)
    elif stat.S_ISDIR(found.st_mode):
        may_look = found.st_uid not in meant and mode & _LISTED_BY_ALL == _LISTED_BY_ALL
        sockets = tuple(_sockets_in(path, found)) if may_look else ()
        yield SharedPlace(str(path), found.st_uid, mode, is_socket=False, sockets=sockets)


def _sockets_in(path: Path, expected: os.stat_result) -> Iterator[str]:
    """Yield the names of the sockets in a folder, if it is still the one that was looked at."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with closing_descriptor(descriptor):
        if not os.path.samestat(os.fstat(descriptor), expected):
            return
        with os.scandir(descriptor) as entries:
            for entry in islice(entries, _MOST_IN_ONE):
                with suppress(OSError):
                    if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                        yield entry.name
