"""How a path looks: what is noticed later, and what is not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.core.home_steps import Watch
from reconciler.host.looks import exists, same, still

Change = Callable[[Path], object]


def make_file(path: Path) -> None:
    path.write_text("content")


def make_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def replace_with(make: Change) -> Change:
    def change(path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        make(path)

    return change


MAKE: dict[str, Change] = {"folder": Path.mkdir, "file": make_file, "link": make_link, "other": os.mkfifo}


@pytest.mark.parametrize("kind", MAKE)
def test_what_has_not_changed_looks_the_same(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    MAKE[kind](path)
    assert exists(path).look == (kind,)
    assert still(exists(path))
    assert still(same(path))


def test_nothing_is_a_look_as_well(tmp_path: Path) -> None:
    for path in (tmp_path / "x", tmp_path / "x" / "y"):
        for watch in (exists(path), same(path)):
            assert watch.look == ("absent",)
            assert still(watch)


@pytest.mark.parametrize("after", MAKE)
@pytest.mark.parametrize("before", [*MAKE, "absent"])
@pytest.mark.parametrize("note", [exists, same])
def test_another_type_is_noticed(tmp_path: Path, note: Callable[[Path], Watch], before: str, after: str) -> None:
    path = tmp_path / "x"
    if before != "absent":
        MAKE[before](path)
    watch = note(path)
    replace_with(MAKE[after])(path)
    assert still(watch) is (before == after and (note is exists or after == "folder"))


@pytest.mark.parametrize("note", [exists, same])
@pytest.mark.parametrize("kind", ["file", "folder", "link", "other"])
def test_what_has_gone_is_noticed(tmp_path: Path, note: Callable[[Path], Watch], kind: str) -> None:
    path = tmp_path / "x"
    MAKE[kind](path)
    watch = note(path)
    path.rename(tmp_path / "y")
    assert not still(watch)


def write_in_place(path: Path) -> None:
    """Write as many bytes, and set the time back: only the time of the change is left to tell."""
    before = path.stat()
    path.write_text("CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap(path: Path) -> None:
    """Put another file there with the same content and times."""
    before, other = path.stat(), path.with_name("other")
    other.write_text("content")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize(
    "change",
    [write_in_place, swap, lambda path: path.write_text("more content"), lambda path: path.chmod(0o600), os.utime],
    ids=["in place", "swapped", "longer", "mode", "times"],
)
def test_any_change_of_a_file_is_noticed_where_that_counts(tmp_path: Path, change: Change) -> None:
    path = tmp_path / "x"
    make_file(path)
    path.chmod(0o644)
    there, as_it_is = exists(path), same(path)
    time.sleep(0.02)  # longer than the tick of the clock that times are taken from
    change(path)
    assert still(there)
    assert not still(as_it_is)


def test_what_is_in_a_folder_may_change(tmp_path: Path) -> None:
    watch = same(tmp_path)
    (tmp_path / "x").mkdir()
    tmp_path.chmod(0o755)
    assert still(watch)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    watch = same(link)
    make_file(target)
    assert still(watch)
    link.unlink()
    link.symlink_to("elsewhere")
    assert not still(watch)


def test_a_fifo_is_looked_at_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    started = time.monotonic()
    assert still(same(tmp_path / "x"))
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("path", ["/x\0y", "/x\ud800", "/" + "x" * 10_000, "/proc/self/mem/x"])
def test_a_path_that_cannot_be_is_no_error(path: str) -> None:
    assert not still(Watch(path, "same", ("file", 1)))
