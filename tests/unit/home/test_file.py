"""Files that are put into a home once, or kept current until their owner changes them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from reconciler.core.home_steps import Ending, FileStep, Keep
from reconciler.errors import StepFailed
from reconciler.home.file import is_unchanged, marked, take_file
from reconciler.home.place import Ended, Home, InTheWay
from reconciler.host.looks import still
from reconciler.host.process import run

SEED = FileStep(".config/app/key", "one\n", mode="0600")
CURRENT = FileStep(".config/app/rules", "one\n", mode="0640", keep=Keep.CURRENT)


def path_of(step: FileStep, home: Home) -> Path:
    return home.path / step.path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def state(path: Path) -> tuple[bytes, int, int, int]:
    """Return content, identity, mode and time of a file."""
    found = path.stat()
    return path.read_bytes(), found.st_ino, found.st_mode, found.st_mtime_ns


def put(step: FileStep, home: Home, data: bytes) -> Path:
    path = path_of(step, home)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def with_content(content: str, mode: str = CURRENT.mode, comment: str = "#") -> FileStep:
    return FileStep(CURRENT.path, content, mode=mode, keep=Keep.CURRENT, comment=comment)


def is_watched(ended: Ended) -> bool:
    return bool(ended.watches) and all(map(still, ended.watches))


# --- put there once ---


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_a_seed_is_written_once_with_its_mode(home: Home, umask: int) -> None:
    before = os.umask(umask)
    try:
        first = take_file(SEED, home)
    finally:
        os.umask(before)
    path = path_of(SEED, home)
    assert (first.ending, first.detail, path.read_bytes(), mode(path)) == (Ending.DONE, "written", b"one\n", 0o600)
    written = state(path)
    second = take_file(SEED, home)
    assert (second.ending, second.detail) == (Ending.DONE, "already there")
    assert state(path) == written
    assert is_watched(first)
    assert is_watched(second)
    assert [found.name for found in path.parent.iterdir()] == ["key"]


def test_a_file_that_is_there_is_the_persons(home: Home) -> None:
    path = put(SEED, home, b"own")
    before = state(path)
    assert take_file(SEED, home).detail == "already there"
    assert state(path) == before


def test_a_link_in_the_place_of_a_seed_is_the_persons_too(home: Home, tmp_path: Path) -> None:
    path = put(SEED, home, b"")
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert take_file(SEED, home).detail == "already there"
    assert not (tmp_path / "nowhere").exists()
    assert path.is_symlink()


def test_the_content_of_roots_file_is_what_was_handed_over(home: Home) -> None:
    step = FileStep("key", source="/etc/key", mode="0400")
    with pytest.raises(StepFailed, match=r"^the content of /etc/key was not handed over$"):
        take_file(step, home)
    given = Home(home.path, {"/etc/key": b"\xff\x00secret"})
    take_file(step, given)
    assert (home.path / "key").read_bytes() == b"\xff\x00secret"
    assert mode(home.path / "key") == 0o400


@pytest.mark.parametrize("step", [SEED, CURRENT])
@pytest.mark.parametrize("kind", ["FIFO", "folder"])
def test_what_is_no_file_is_in_the_way_and_stays(home: Home, step: FileStep, kind: str) -> None:
    path = put(step, home, b"")
    path.unlink()
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()
    before = path.lstat().st_ino
    with pytest.raises(InTheWay, match=f"^~/{step.path} is a {kind}$"):
        take_file(step, home)
    assert path.lstat().st_ino == before


@pytest.mark.parametrize("step", [SEED, CURRENT])
def test_a_file_in_a_folders_place_is_in_the_way(home: Home, step: FileStep) -> None:
    (home.path / ".config").write_text("own")
    with pytest.raises(InTheWay, match=r"^~/\.config is there and is no folder$"):
        take_file(step, home)
    assert (home.path / ".config").read_text() == "own"


# --- kept current ---


def test_a_current_file_is_written_with_the_mark_and_then_left_alone(home: Home) -> None:
    first = take_file(CURRENT, home)
    path = path_of(CURRENT, home)
    line, content = path.read_bytes().split(b"\n", 1)
    assert line.startswith(b"# kept current by rosterd until you change it (")
    assert (first.detail, content, mode(path)) == ("written", b"one\n", 0o640)
    written = state(path)
    second = take_file(CURRENT, home)
    assert (second.ending, second.detail) == (Ending.DONE, "already so")
    assert state(path) == written
    assert is_watched(first)
    assert is_watched(second)


def test_a_new_content_is_written_while_nobody_has_changed_the_file(home: Home) -> None:
    take_file(CURRENT, home)
    path = path_of(CURRENT, home)
    for content in ("two\n", "", "three, without an end of line", "é\n"):
        ended = take_file(with_content(content), home)
        assert ended.detail == "brought up to date"
        assert path.read_bytes().split(b"\n", 1)[1] == content.encode()
        assert take_file(with_content(content), home).detail == "already so"


def test_a_new_mode_is_given(home: Home) -> None:
    take_file(CURRENT, home)
    assert take_file(with_content("one\n", "0600"), home).detail == "brought up to date"
    assert mode(path_of(CURRENT, home)) == 0o600
    path_of(CURRENT, home).chmod(0o666)
    take_file(with_content("one\n", "0600"), home)
    assert mode(path_of(CURRENT, home)) == 0o600


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"mine\n",
        lambda data: data.replace(b"one", b"own"),
        lambda data: data.split(b"\n", 1)[1],
        lambda data: b"\n" + data,
        lambda data: data.replace(b"kept current", b"was current"),
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda _: b"",
        lambda _: b"#!/bin/sh",
    ],
    ids=["added", "changed", "mark removed", "line before", "mark changed", "windows", "emptied", "only a shebang"],
)
def test_a_file_that_its_owner_has_changed_is_theirs(home: Home, change: object) -> None:
    assert callable(change)
    take_file(CURRENT, home)
    path = path_of(CURRENT, home)
    path.write_bytes(change(path.read_bytes()))
    before = state(path)
    for step in (CURRENT, with_content("two\n", "0600")):
        ended = take_file(step, home)
        assert ended.ending is Ending.KEPT
        assert ended.detail == "~/.config/app/rules has been changed and is theirs; left alone"
        assert state(path) == before
        assert is_watched(ended)


def test_a_file_that_was_there_before_is_theirs(home: Home) -> None:
    path = put(CURRENT, home, b"one\n")
    assert take_file(CURRENT, home).ending is Ending.KEPT
    assert path.read_bytes() == b"one\n"


def test_a_link_of_their_own_is_left_alone_with_what_it_leads_to(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles"
    target.write_bytes(marked(b"old\n", "#"))
    path = put(CURRENT, home, b"")
    path.unlink()
    path.symlink_to(target)
    ended = take_file(CURRENT, home)
    assert (ended.ending, ended.detail) == (Ending.KEPT, "~/.config/app/rules is a link of their own; left alone")
    assert target.read_bytes() == marked(b"old\n", "#")
    assert is_watched(ended)


def test_a_file_that_was_removed_comes_again(home: Home) -> None:
    take_file(CURRENT, home)
    path_of(CURRENT, home).unlink()
    assert take_file(CURRENT, home).detail == "written"


@pytest.mark.processes
def test_a_script_still_runs(home: Home) -> None:
    script = with_content("#!/bin/sh\necho hello\n", "0755")
    take_file(script, home)
    path = path_of(script, home)
    assert path.read_bytes().startswith(b"#!/bin/sh\n# kept current by rosterd")
    assert run([str(path)], timeout=10).out == "hello\n"
    assert take_file(script, home).detail == "already so"
    path.write_bytes(path.read_bytes().replace(b"#!/bin/sh", b"#!/bin/bash"))
    assert take_file(script, home).ending is Ending.KEPT


@pytest.mark.parametrize("comment", ["#", "//", ";", "--", '"', "%", "'", "!"])
@pytest.mark.parametrize(
    "content", [b"", b"x", b"x\ny\n", b"#!/bin/sh\nx\n", b"#!/bin/sh", b"# kept current\n", b"\xff"]
)
def test_a_mark_is_known_again_in_any_comment(comment: str, content: bytes) -> None:
    assert is_unchanged(marked(content, comment))
    assert not is_unchanged(marked(content, comment) + b"x")
    assert not is_unchanged(content)
