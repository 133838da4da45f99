"""Drop-ins on the disk: read by unit, written, removed, and the mark that systemd has not read them yet."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.errors import ScanFailed, StepFailed
from reconciler.host import drop_ins, files

FOLDER = "etc/systemd/system"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a root that drop-ins are written below, too."""
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(drop_ins, "path_of", lambda unit: str(tmp_path / FOLDER / f"{unit}.d" / "50-rosterd.conf"))
    monkeypatch.setattr(drop_ins, "_MARK", tmp_path / "run/rosterd/reload-due")
    return tmp_path


def put(root: Path, unit: str, text: str, name: str = "50-rosterd.conf") -> Path:
    path = root / FOLDER / f"{unit}.d" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_the_texts_are_those_of_services_and_slices_that_are_rosterds(root: Path) -> None:
    put(root, "user-1000.slice", "one")
    put(root, "t3-serve@alice.service", "two")
    put(root, "t3-serve@bob.service", "theirs", "override.conf")
    put(root, "foo.timer", "other")
    assert drop_ins.scan(root) == {"user-1000.slice": "one", "t3-serve@alice.service": "two"}


def test_without_the_folder_there_are_none(tmp_path: Path) -> None:
    assert drop_ins.scan(tmp_path) == {}


def test_what_is_no_file_is_read_as_one_that_says_something_else(root: Path) -> None:
    path = put(root, "user-1000.slice", "x")
    path.unlink()
    path.symlink_to("/dev/null")
    put(root, "user-1001.slice", "x").unlink()
    (root / FOLDER / "user-1001.slice.d/50-rosterd.conf").mkdir()
    assert drop_ins.scan(root) == {"user-1000.slice": "", "user-1001.slice": ""}


def test_a_file_in_place_of_a_folder_and_a_link_to_nowhere_are_none(root: Path) -> None:
    (root / FOLDER / "foo.service.d").write_text("")
    path = put(root, "user-1000.slice", "x")
    path.unlink()
    path.symlink_to(root / "nowhere")
    assert drop_ins.scan(root) == {}


def test_bytes_that_are_no_text_are_only_another_text(root: Path) -> None:
    put(root, "user-1000.slice", "").write_bytes(b"\xff[Slice]\n")
    assert drop_ins.scan(root) == {"user-1000.slice": "\ufffd[Slice]\n"}


def refusing(error: OSError) -> Callable[..., bytes]:
    def refuse(*_arguments: object, **_options: object) -> bytes:
        raise error

    return refuse


def test_what_may_not_be_read_is_left_to_the_scanner_and_what_cannot_be_is_an_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, "user-1000.slice", "x")
    monkeypatch.setattr(files, "read_bytes", refusing(PermissionError(13, "Permission denied")))
    with pytest.raises(PermissionError):
        drop_ins.scan(root)
    monkeypatch.setattr(files, "read_bytes", refusing(OSError(5, "Input/output error")))
    with pytest.raises(ScanFailed, match=r"user-1000\.slice\.d/50-rosterd\.conf: Input/output error"):
        drop_ins.scan(root)


def test_what_is_written_is_what_is_read_and_everybody_may_read_it(root: Path) -> None:
    before = os.umask(0o077)
    try:
        drop_ins.write("user-1000.slice", "[Slice]\nMemoryMax=4G\n")
    finally:
        os.umask(before)
    assert drop_ins.scan(root) == {"user-1000.slice": "[Slice]\nMemoryMax=4G\n"}
    path = root / FOLDER / "user-1000.slice.d/50-rosterd.conf"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_link_in_its_place_is_replaced_and_what_it_links_to_is_not(root: Path) -> None:
    target = root / "precious"
    target.write_text("kept")
    path = put(root, "user-1000.slice", "x")
    path.unlink()
    path.symlink_to(target)
    drop_ins.write("user-1000.slice", "new")
    assert not path.is_symlink()
    assert (path.read_text(), target.read_text()) == ("new", "kept")


def test_what_is_removed_takes_its_empty_folder_along(root: Path) -> None:
    drop_ins.write("user-1000.slice", "x")
    drop_ins.write("user-1000.slice", None)
    assert list((root / FOLDER).iterdir()) == []


def test_somebody_elses_drop_in_stays_with_its_folder(root: Path) -> None:
    other = put(root, "user-1000.slice", "theirs", "override.conf")
    drop_ins.write("user-1000.slice", "x")
    drop_ins.write("user-1000.slice", None)
    assert list(other.parent.iterdir()) == [other]


@pytest.mark.usefixtures("root")
def test_the_mark_is_there_from_when_it_is_made_until_it_is_cleared() -> None:
    assert not drop_ins.is_reload_due()
    drop_ins.mark_reload_due()
    drop_ins.mark_reload_due()
    assert drop_ins.is_reload_due()
    drop_ins.clear_reload_due()
    drop_ins.clear_reload_due()
    assert not drop_ins.is_reload_due()


def test_a_place_that_cannot_be_written_is_named(root: Path) -> None:
    (root / FOLDER / "user-1000.slice.d").write_text("in the way")
    with pytest.raises(StepFailed, match=r"user-1000\.slice\.d/50-rosterd\.conf cannot be written"):
        drop_ins.write("user-1000.slice", "x")
