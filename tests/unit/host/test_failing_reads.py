"""What cannot be read or looked at is an error that names it: never empty, never a fault of rosterd's own."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from reconciler.core.home_steps import FileStep
from reconciler.errors import FileRefused, RosterdError, ScanFailed, StepFailed
from reconciler.host import drop_ins, lock, scan_accounts
from reconciler.host.bus import Systemd
from reconciler.host.scan_home_work import scan_home_work
from reconciler.host.scan_units import scan_units
from reconciler.host.sources import read_source
from reconciler.host.state import State
from tests.unit.host.test_scan_home_work import wanting

WORDS = {errno.EIO: "Input/output error", errno.EACCES: "Permission denied", errno.EMFILE: "Too many open files"}
ERRORS = pytest.mark.parametrize("error", WORDS)


def failing(error: int) -> Callable[..., NoReturn]:
    """Return a call that fails, of the kind that names the file it was given."""

    def fail(path: object, *_: object, **__: object) -> NoReturn:
        raise OSError(error, os.strerror(error), str(path) if isinstance(path, str | Path) else None)

    return fail


def complaint(kind: type[RosterdError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


@ERRORS
@pytest.mark.parametrize("scan", [scan_accounts.scan_passwd, scan_accounts.scan_group, scan_accounts.scan_limits])
def test_account_files_that_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scan: Callable[[Path], object], error: int
) -> None:
    monkeypatch.setattr(os, "open", failing(error))
    assert complaint(ScanFailed, lambda: scan(tmp_path / "file")) == f"{tmp_path}/file: {WORDS[error]}"


def test_only_of_the_passwords_it_is_left_to_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    with pytest.raises(PermissionError):
        scan_accounts.scan_shadow(tmp_path)


@ERRORS
def test_whether_there_are_subordinate_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: int) -> None:
    monkeypatch.setattr(Path, "stat", failing(error))
    assert complaint(ScanFailed, lambda: scan_accounts.scan_subids(tmp_path)) == f"{tmp_path}: {WORDS[error]}"


@ERRORS
@pytest.mark.parametrize("call", ["lstat", "readlink"])
def test_a_unit_file_that_may_be_a_mask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, error: int) -> None:
    path = tmp_path / "etc/systemd/system/t3-serve@bob.service"
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/null")
    monkeypatch.setattr(Path, call, failing(error))
    assert complaint(ScanFailed, lambda: scan_units(Systemd(), [], root=tmp_path)) == f"{path}: {WORDS[error]}"


@ERRORS
def test_whether_systemd_is_to_be_reloaded(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    monkeypatch.setattr(Path, "lstat", failing(error))
    with pytest.raises(OSError, match=WORDS[error]) as caught:
        drop_ins.is_reload_due()
    assert caught.value.filename == "/run/rosterd/reload-due"


@ERRORS
@pytest.mark.parametrize("call", ["fstat", "close"])
def test_a_source_of_which_more_than_the_opening_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, error: int
) -> None:
    roster = tmp_path / "roster.yaml"
    roster.write_text("users: {}\n")
    with monkeypatch.context() as broken:
        broken.setattr(os, call, failing(error))
        text = complaint(FileRefused, lambda: read_source(str(roster), trusted=False))
    assert text == f"{roster}: {WORDS[error]}"


@ERRORS
def test_a_lock_that_cannot_be_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: int) -> None:
    path = tmp_path / "lock"

    def take() -> None:
        with lock.exclusive(0, path):
            pass

    monkeypatch.setattr(fcntl, "flock", failing(error))
    assert complaint(ScanFailed, take) == f"{path}: {WORDS[error]}"
    assert not lock.is_wanted(path)


@ERRORS
def test_a_record_that_cannot_be_read_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: int
) -> None:
    state = State(tmp_path)
    state.save_identities({})
    state.save_home_steps("anna", {})
    (tmp_path / "last-run").write_text("{}")
    opened = os.open
    monkeypatch.setattr(os, "open", failing(error))
    expected = OSError if error == errno.EACCES else ScanFailed  # PermissionError: who is not root is told otherwise
    for read in (state.records, state.home_steps):
        with pytest.raises(expected, match=WORDS[error]):
            read()
    monkeypatch.setattr(os, "open", opened)
    assert state.home_steps() == {"anna": {}}


@ERRORS
def test_a_source_of_a_step_that_cannot_be_looked_at_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: int
) -> None:
    wanted, state = wanting(FileStep("x", source=f"{tmp_path}/token")), State(tmp_path / "state")
    with monkeypatch.context() as broken:
        broken.setattr(os, "lstat", failing(error))
        found = scan_home_work(wanted, {}, state).sources
    assert found[f"{tmp_path}/token"].problem == f"{tmp_path}/token: {WORDS[error]}"


@ERRORS
def test_whether_somebody_is_on_record_already(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: int) -> None:
    monkeypatch.setattr(Path, "stat", failing(error))
    wanted = f"{tmp_path}/homes/bob: {WORDS[error]}"
    assert complaint(StepFailed, lambda: State(tmp_path).remove_home_steps("bob")) == wanted
