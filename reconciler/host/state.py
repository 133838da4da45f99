"""What the host itself cannot say, kept in /var/lib/rosterd: one small file a record, written durably.

creating/NAME    an account is being created: durable before `useradd` starts, gone when it was seen complete
cuts/NAME        somebody is cut off: how they were before
tombstones/NAME  somebody is deleted: what they had, and where it is archived
retired/UID      a deleted person's ids whose name was let go; nobody gets them again
homes/NAME       the steps in a home: how each ended, and how what it relied on looked then
last-run         how the last run over everybody ended, and how often each unit had been restarted then
identities       what the people of the last run are called elsewhere, for when they have left the roster
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from reconciler.core.home_records import StepRecord, home_document, home_records_from
from reconciler.core.last_run import LastRun, last_run_document, last_run_from
from reconciler.core.records import (
    CutRecord,
    Identity,
    Records,
    Step,
    Tombstone,
    as_document,
    cut_record_from,
    identity_from,
    tombstone_from,
    whole,
)
from reconciler.errors import ScanFailed, StepFailed
from reconciler.host import files

DEFAULT_FOLDER = Path("/var/lib/rosterd")
_MODE = 0o600
_T = TypeVar("_T")


class State:
    """The records in one folder."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        """Use `folder`; it is made by the first record."""
        self._folder = folder
        self._intents = folder / "creating"
        self._cuts = folder / "cuts"
        self._tombstones = folder / "tombstones"
        self._retired = folder / "retired"
        self._homes = folder / "homes"
        self._identities = folder / "identities"
        self._last_run = folder / "last-run"

    # --- accounts being created ---

    def intents(self) -> dict[str, tuple[int, int]]:
        """Return uid and gid of the accounts being created, by name. Raises `ScanFailed` or PermissionError."""
        return _each(self._intents, lambda record: (whole(record["uid"]), whole(record["gid"])))

    def save_intent(self, name: str, uid: int, gid: int) -> None:
        """Record, durably, that the account `name` is being created with these ids. Raises `StepFailed`."""
        self._save(self._intents / name, {"uid": uid, "gid": gid})

    def remove_intent(self, name: str) -> None:
        """Forget the record: the account is complete, or is none of rosterd's."""
        files.remove_file(self._intents / name)

    # --- people who are cut off, deleted, or merely known ---

    def records(self) -> Records:
        """Return everything on record of people. Raises `ScanFailed` or PermissionError."""
        return Records(
            cuts=_each(self._cuts, cut_record_from),
            tombstones={name: _named(name, stone) for name, stone in _each(self._tombstones, tombstone_from).items()},
            identities=_one(self._identities, {}, _identities_from),
            retired=frozenset(int(name) for name in _names(self._retired) if name.isascii() and name.isdigit()),
        )

    def save_cut(self, name: str, record: CutRecord) -> None:
        """Record, durably, how somebody was before a cut. Raises `StepFailed`, also where there is a record already."""
        path = self._cuts / name
        if _is_there(path):
            raise StepFailed(f"{path} is there already, and what it says of the time before the cut is not overwritten")
        self._save(path, as_document(record))

    def set_cut_reason(self, name: str, *, by_command: bool) -> None:
        """Change nothing of a cut record but who asks for the cut."""
        self._save(self._cuts / name, as_document(replace(self._cut(name), by_command=by_command)))

    def mark_done(self, name: str, step: Step) -> None:
        """Record that an external step has been taken for somebody who is cut off or deleted."""
        stone = self._tombstones / name
        if _is_there(stone):
            found = _one(stone, None, tombstone_from)
            self.save_tombstone(replace(found, cut=_with_done(found.cut, step)))
        if _is_there(self._cuts / name):
            self._save(self._cuts / name, as_document(_with_done(self._cut(name), step)))

    def remove_cut(self, name: str) -> None:
        """Forget a cut: it has been undone, or its tombstone says the same."""
        files.remove_file(self._cuts / name)

    def save_tombstone(self, stone: Tombstone) -> None:
        """Record, durably, what a deleted person had."""
        self._save(self._tombstones / stone.name, as_document(stone))

    def remove_tombstone(self, name: str) -> None:
        """Forget a tombstone: the person has been restored, or their name is let go."""
        files.remove_file(self._tombstones / name)

    def retire(self, uid: int) -> None:
        """Record, durably, that nobody gets this id again."""
        self._save(self._retired / str(uid), {})

    def save_identities(self, identities: Mapping[str, Identity]) -> None:
        """Record what people are called elsewhere."""
        self._save(self._identities, {name: as_document(one) for name, one in identities.items()})

    # --- steps in homes ---

    def home_steps(self) -> dict[str, dict[str, StepRecord]]:
        """Return how the steps in homes ended, by person and name. Raises PermissionError.

        A record that is damaged is as none: everything in that home is looked at again. One that cannot be read may be
        whole: raises `ScanFailed`.
        """
        return {name: self._home(name) for name in _names(self._homes)}

    def _home(self, name: str) -> dict[str, StepRecord]:
        try:
            return _one(self._homes / name, None, home_records_from)
        except _Damaged:
            return {}

    def save_home_steps(self, name: str, steps: Mapping[str, StepRecord]) -> None:
        """Record how the steps in somebody's home ended."""
        self._save(self._homes / name, home_document(steps))

    def remove_home_steps(self, name: str) -> None:
        """Forget a home: it is not there any more."""
        if _is_there(self._homes / name):
            files.remove_file(self._homes / name)

    # --- the last run ---

    def last_run(self) -> LastRun | None:
        """Return how the last run over everybody ended, None where there was none. Raises PermissionError.

        A record that is damaged or cannot be read is as none: nothing is decided by it.
        """
        try:
            return _one(self._last_run, None, last_run_from)
        except ScanFailed:
            return None

    def save_last_run(self, run: LastRun) -> None:
        """Record how a run ended. Raises `StepFailed`."""
        self._save(self._last_run, last_run_document(run))

    def _cut(self, name: str) -> CutRecord:
        return _one(self._cuts / name, None, cut_record_from)

    def _save(self, path: Path, document: Mapping[str, Any]) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StepFailed(f"{self._folder} cannot be made: {error.strerror}") from error
        files.replace_file(path, json.dumps(document, sort_keys=True).encode() + b"\n", _MODE)


class _Damaged(ScanFailed):
    """What a record says is none of rosterd's."""


def _is_there(path: Path) -> bool:
    """Say whether there is a record. Raises `StepFailed` where that cannot be seen."""
    try:
        return path.exists()
    except OSError as error:
        raise StepFailed(f"{path}: {error.strerror}") from error


def _named(name: str, stone: Tombstone) -> Tombstone:
    if stone.name != name:
        raise ScanFailed(f"the tombstone of {name} is of {stone.name}; look at it, then mend or remove it")
    return stone


def _with_done(record: CutRecord, step: Step) -> CutRecord:
    return replace(record, done=tuple(sorted({*record.done, step})))


def _identities_from(document: Mapping[str, Any]) -> dict[str, Identity]:
    return {name: identity_from(one) for name, one in document.items()}


def _each(folder: Path, read: Callable[[Mapping[str, Any]], _T]) -> dict[str, _T]:
    """Return the records of a folder by the name of the person."""
    return {name: _one(folder / name, None, read) for name in _names(folder)}


def _names(folder: Path) -> list[str]:
    """Return the names of the records in a folder; those of temporary files begin with a dot."""
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []


def _one(path: Path, missing: Mapping[str, Any] | None, read: Callable[[Mapping[str, Any]], _T]) -> _T:
    """Read one record. One that is damaged is an error: it is never taken for none."""
    try:
        data = files.read_bytes(path)
        if data is None and missing is not None:
            return read(missing)
        return read(json.loads(data or b""))
    except PermissionError:
        raise
    except OSError as error:
        raise ScanFailed(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _Damaged(f"{path} is not a record of rosterd's; look at it, then mend or remove it") from error
