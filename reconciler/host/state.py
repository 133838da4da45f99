"""What the host itself cannot say, kept in /var/lib/rosterd: records of accounts being created.

A record is durable before `useradd` starts and goes when the account has been seen complete, so a
creation that was killed anywhere is known as rosterd's own.
"""

from __future__ import annotations

import json
from pathlib import Path

from reconciler.core import names
from reconciler.errors import ScanFailed, StepFailed
from reconciler.host import files

DEFAULT_FOLDER = Path("/var/lib/rosterd")


class State:
    """The records in one folder."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        """Use `folder`; it is made by the first record."""
        self._folder = folder
        self._intents = folder / "creating"

    def intents(self) -> dict[str, tuple[int, int]]:
        """Return uid and gid of the accounts being created, by name. Raises `ScanFailed` or PermissionError."""
        try:
            found = sorted(path.name for path in self._intents.iterdir() if names.OS_USER.accepts(path.name))
        except FileNotFoundError:
            return {}
        return {name: self._read_intent(self._intents / name) for name in found}

    def save_intent(self, name: str, uid: int, gid: int) -> None:
        """Record, durably, that the account `name` is being created with these ids. Raises `StepFailed`."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StepFailed(f"{self._folder} cannot be made: {error.strerror}") from error
        record = json.dumps({"uid": uid, "gid": gid}).encode() + b"\n"
        files.replace_file(self._intents / name, record, 0o600)

    def remove_intent(self, name: str) -> None:
        """Forget the record: the account is complete, or is none of rosterd's."""
        files.remove_file(self._intents / name)

    def _read_intent(self, path: Path) -> tuple[int, int]:
        try:
            record = json.loads(files.read_bytes(path) or b"")
            return int(record["uid"]), int(record["gid"])
        except PermissionError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ScanFailed(f"{path} is not a record of rosterd's; look at it, then remove it") from error
