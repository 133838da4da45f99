"""Which roster and site files are trusted."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.document import MAX_BYTES
from reconciler.errors import FileRefused
from reconciler.host.sources import read_source, refuse_writable_parents

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can own files as root, or give them to others")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder that root alone can write, below /tmp, which is sticky; pytest's own lies deeper."""
    made = Path(tempfile.mkdtemp(prefix="rosterd-test-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def roster(folder: Path) -> Path:
    """Make a roster in it."""
    path = folder / "roster.yaml"
    path.write_bytes(b"users: {}\n")
    path.chmod(0o644)
    return path


def refusal(path: Path, *, trusted: bool = True) -> str:
    with pytest.raises(FileRefused) as caught:
        read_source(str(path), trusted=trusted)
    return str(caught.value)


@needs_root
def test_a_file_that_root_alone_can_write_is_read(roster: Path) -> None:
    assert read_source(str(roster), trusted=True) == b"users: {}\n"


@needs_root
@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o622])
def test_a_file_that_others_can_write_is_refused_with_the_command_that_mends_it(roster: Path, mode: int) -> None:
    roster.chmod(mode)
    assert refusal(roster) == f"{roster}: mode {mode:04o} lets others than root write it; chmod go-w {roster}"


@needs_root
def test_a_file_of_somebody_elses_is_refused(roster: Path) -> None:
    os.chown(roster, 1234, 0)
    assert refusal(roster) == f"{roster}: belongs to uid 1234, not to root; chown root {roster}"


@needs_root
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_folder_that_others_can_write_is_refused(roster: Path, mode: int) -> None:
    roster.parent.chmod(mode)
    assert refusal(roster) == (
        f"{roster}: others than root can write in the folder {roster.parent}; chmod go-w {roster.parent}"
    )


@needs_root
def test_a_sticky_folder_may_be_writable(roster: Path) -> None:
    roster.parent.chmod(0o1777)
    assert read_source(str(roster), trusted=True) is not None


@needs_root
def test_a_folder_of_somebody_elses_is_refused_however_far_up(folder: Path) -> None:
    roster = folder / "theirs" / "deeper" / "roster.yaml"
    roster.parent.mkdir(parents=True)
    roster.write_bytes(b"users: {}\n")
    os.chown(folder / "theirs", 1234, 0)
    assert refusal(roster) == f"{roster}: the folder {folder / 'theirs'} belongs to uid 1234, not to root"


@needs_root
def test_a_folder_that_is_a_link_is_refused(roster: Path) -> None:
    link = roster.parent / "link"
    link.symlink_to(roster.parent)
    assert "is a symbolic link; name the file by its real path" in refusal(link / "roster.yaml")


def test_a_link_is_refused_where_the_file_must_be_trusted_and_followed_elsewhere(roster: Path) -> None:
    link = roster.parent / "link.yaml"
    link.symlink_to(roster)
    assert refusal(link) == f"{link}: is a symbolic link; put the file itself there"
    assert read_source(str(link), trusted=False) == b"users: {}\n"


@pytest.mark.parametrize("trusted", [True, False])
def test_a_fifo_is_refused_and_not_waited_for(folder: Path, trusted: bool) -> None:  # noqa: FBT001 (a column)
    os.mkfifo(folder / "roster.yaml")
    assert refusal(folder / "roster.yaml", trusted=trusted).endswith("is not a regular file")


@pytest.mark.parametrize("trusted", [True, False])
def test_a_folder_at_the_place_of_the_file_is_refused(folder: Path, trusted: bool) -> None:  # noqa: FBT001 (a column)
    descriptors = open_descriptors()
    assert refusal(folder, trusted=trusted).endswith("is not a regular file")
    assert open_descriptors() == descriptors


def test_a_missing_file_is_refused_unless_it_is_optional(folder: Path) -> None:
    missing = folder / "roster.yaml"
    assert refusal(missing).startswith(f"{missing}: there is no such file")
    assert read_source(str(missing), trusted=True, optional=True) is None


def test_a_file_below_a_file_is_refused_in_words(roster: Path) -> None:
    assert refusal(roster / "roster.yaml").endswith("Not a directory")


def test_no_more_than_the_limit_and_one_byte_is_read(roster: Path) -> None:
    with roster.open("wb") as file:
        file.truncate(MAX_BYTES * 2)
    data = read_source(str(roster), trusted=False)
    assert data is not None
    assert len(data) == MAX_BYTES + 1


# --- where files are written ---


@needs_root
def test_with_links_a_folder_of_roots_may_be_one_and_need_not_be_there(roster: Path) -> None:
    (roster.parent / "real").mkdir()
    (roster.parent / "link").symlink_to("real")
    (roster.parent / "further").symlink_to(roster.parent / "link")
    for folder in ("real", "link", "further", "further/not-there-yet"):
        refuse_writable_parents(str(roster.parent / folder / "file"), links=True)


@needs_root
@pytest.mark.parametrize("wrong", ["its folder", "the link's folder", "a link of theirs between"])
def test_with_links_nobody_else_may_change_where_they_lead(folder: Path, wrong: str) -> None:
    theirs = folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, 1234, 0)
    (folder / "real").mkdir()
    (theirs / "link").symlink_to(folder / "real")
    (folder / "to-folder").symlink_to(theirs)
    (folder / "to-link").symlink_to(theirs / "link")
    path = {
        "its folder": folder / "to-folder" / "file",
        "the link's folder": theirs / "link" / "file",
        "a link of theirs between": folder / "to-link" / "file",
    }[wrong]
    with pytest.raises(FileRefused, match=f"the folder {theirs} belongs to uid 1234"):
        refuse_writable_parents(str(path), links=True)


@needs_root
def test_links_that_lead_around_in_a_circle_are_refused(folder: Path) -> None:
    (folder / "one").symlink_to("other")
    (folder / "other").symlink_to("one")
    with pytest.raises(FileRefused, match="symbolic links"):
        refuse_writable_parents(str(folder / "one" / "file"), links=True)
