"""Folders that are to be there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from reconciler.core.home_steps import DirectoryStep, Ending
from reconciler.home.directory import kind_of, take_directory
from reconciler.home.place import Home, InTheWay
from reconciler.host.looks import still


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_a_folder_is_made_once_with_its_mode(home: Home, umask: int) -> None:
    step = DirectoryStep("a/b/c", "0750")
    before = os.umask(umask)
    try:
        first = take_directory(step, home)
    finally:
        os.umask(before)
    assert (first.ending, first.detail) == (Ending.DONE, "made")
    assert mode(home.path / "a/b/c") == 0o750
    inode = (home.path / "a/b/c").stat().st_ino
    second = take_directory(step, home)
    assert (second.ending, second.detail) == (Ending.DONE, "already there")
    assert (home.path / "a/b/c").stat().st_ino == inode
    for ended in (first, second):
        (watch,) = ended.watches
        assert watch.path == str(home.path / "a/b/c")
        assert still(watch)


def test_a_folder_is_never_wider_than_it_is_to_be(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a kill after it was made: nobody looks at the mode of a folder that is there."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "chmod", killed)
    with pytest.raises(KeyboardInterrupt):
        take_directory(DirectoryStep("a", "0700"), home)
    assert mode(home.path / "a") == 0o700


def test_what_is_there_keeps_its_mode_and_its_content(home: Home) -> None:
    (home.path / "a").mkdir(mode=0o711)
    (home.path / "a/own").write_text("own")
    take_directory(DirectoryStep("a", "0700"), home)
    assert mode(home.path / "a") == 0o711
    assert (home.path / "a/own").read_text() == "own"


def test_a_link_to_a_folder_will_do(home: Home, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (home.path / "a").symlink_to(tmp_path / "disk")
    assert take_directory(DirectoryStep("a"), home).detail == "already there"
    take_directory(DirectoryStep("a/b"), home)
    assert (tmp_path / "disk/b").is_dir()


@pytest.mark.parametrize("path", ["a", "a/b"])
@pytest.mark.parametrize("kind", ["file", "FIFO", "link to nothing"])
def test_what_is_no_folder_is_in_the_way_and_stays(home: Home, path: str, kind: str) -> None:
    there = home.path / "a"
    if kind == "file":
        there.write_text("own")
    elif kind == "FIFO":
        os.mkfifo(there)
    else:
        there.symlink_to("nowhere")
    before = there.lstat()
    with pytest.raises(InTheWay, match=r"^~/a is there and is no folder$"):
        take_directory(DirectoryStep(path), home)
    assert there.lstat().st_ino == before.st_ino
    assert sorted(path.name for path in home.path.iterdir()) == [".gitconfig", "a"]


def test_a_kind_is_told_without_following_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "fifo")
    assert kind_of(tmp_path) == "folder"
    assert kind_of(tmp_path / "link") == "link"
    assert kind_of(tmp_path / "file") == "file"
    assert kind_of(tmp_path / "fifo") == "FIFO"
    assert kind_of(Path("/dev/null")) == "device or socket"
    assert kind_of(tmp_path / "absent") == ""
    assert kind_of(tmp_path / "file/below") == ""
