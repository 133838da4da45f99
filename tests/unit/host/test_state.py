"""The records of accounts being created."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from reconciler.errors import ScanFailed, StepFailed
from reconciler.host.state import State


def test_a_record_lasts_until_it_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "rosterd"
    assert State(folder).intents() == {}
    State(folder).save_intent("alice", 1000, 1000)
    State(folder).save_intent("bob", 1001, 1001)
    State(folder).save_intent("alice", 1002, 1003)
    assert State(folder).intents() == {"alice": (1002, 1003), "bob": (1001, 1001)}
    State(folder).remove_intent("alice")
    State(folder).remove_intent("alice")
    assert State(folder).intents() == {"bob": (1001, 1001)}


def test_the_folder_is_roots_own(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        State(tmp_path / "rosterd").save_intent("alice", 1000, 1000)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "rosterd").stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["", "{", "[]", '{"uid": 1000}', '{"uid": "x", "gid": 1}', "\udcff"])
def test_a_record_that_is_none_is_an_error_and_not_passed_over(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "creating"
    folder.mkdir()
    (folder / "alice").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ScanFailed, match="alice is not a record of rosterd's"):
        State(tmp_path).intents()


def test_files_that_are_no_names_are_no_records(tmp_path: Path) -> None:
    State(tmp_path).save_intent("alice", 1000, 1000)
    (tmp_path / "creating" / ".bob.rosterd-new").write_text("half a rec")
    assert State(tmp_path).intents() == {"alice": (1000, 1000)}


def test_a_record_that_cannot_be_written_fails_the_step_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StepFailed, match="rosterd"):
        State(tmp_path / "file" / "rosterd").save_intent("alice", 1000, 1000)
    with pytest.raises(StepFailed, match="file"):
        State(tmp_path / "file").save_intent("alice", 1000, 1000)
