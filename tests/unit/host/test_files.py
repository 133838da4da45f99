"""Files are replaced whole, and read without following or waiting."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from reconciler.errors import StepFailed
from reconciler.host.files import (
    make_private_folder,
    move,
    read_bytes,
    remove_empty_folder,
    remove_file,
    replace_file,
)

TEMPORARY = ".a.env.rosterd-new"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- replacing ---


@pytest.mark.parametrize("mode", [0o600, 0o644])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_file_gets_its_content_and_exactly_its_mode_whatever_the_umask(tmp_path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        replace_file(tmp_path / "a.env", b"new\n", mode)
    finally:
        os.umask(before)
    assert (tmp_path / "a.env").read_bytes() == b"new\n"
    assert stat.S_IMODE((tmp_path / "a.env").stat().st_mode) == mode
    assert names(tmp_path) == ["a.env"]


def test_an_old_file_is_replaced_and_whoever_has_it_open_still_reads_the_old_text(tmp_path: Path) -> None:
    path = tmp_path / "a.env"
    path.write_bytes(b"old\n")
    path.chmod(0o666)
    with path.open("rb") as reader:
        replace_file(path, b"new\n", 0o600)
        assert reader.read() == b"old\n"
    assert path.read_bytes() == b"new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_folder_is_made_if_only_it_is_missing(tmp_path: Path) -> None:
    replace_file(tmp_path / "t3-serve" / "a.env", b"", 0o600)
    assert stat.S_IMODE((tmp_path / "t3-serve").stat().st_mode) == 0o755
    with pytest.raises(StepFailed, match="No such file or directory"):
        replace_file(tmp_path / "none" / "t3-serve" / "a.env", b"", 0o600)


@pytest.mark.parametrize("left", ["file", "link"])
def test_what_a_killed_run_left_under_the_temporary_name_does_no_harm(tmp_path: Path, left: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    if left == "file":
        (tmp_path / TEMPORARY).write_bytes(b"half a fi")
    else:
        (tmp_path / TEMPORARY).symlink_to(outside)
    replace_file(tmp_path / "a.env", b"new\n", 0o600)
    assert names(tmp_path) == ["a.env", "outside"]
    assert outside.read_bytes() == b"precious"


def test_a_link_at_the_place_is_replaced_and_what_it_points_to_is_untouched(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / "a.env").symlink_to(outside)
    replace_file(tmp_path / "a.env", b"new\n", 0o600)
    assert not (tmp_path / "a.env").is_symlink()
    assert outside.read_bytes() == b"precious"


def test_where_the_file_cannot_be_put_in_place_the_error_names_it_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "a.env").mkdir()
    (tmp_path / "a.env" / "inside").write_bytes(b"")
    with pytest.raises(StepFailed, match=r"a\.env cannot be written: Is a directory"):
        replace_file(tmp_path / "a.env", b"new\n", 0o600)
    assert names(tmp_path) == ["a.env"]


def test_where_the_folder_is_none_the_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "t3-serve").write_bytes(b"")
    with pytest.raises(StepFailed, match=r"t3-serve/a\.env cannot be written: Not a directory"):
        replace_file(tmp_path / "t3-serve" / "a.env", b"new\n", 0o600)


def test_on_a_full_disk_the_old_content_stays_and_no_temporary_is_left(tmp_path: Path) -> None:
    """The limit on the size of files stands in for the disk; the kernel says EFBIG instead of ENOSPC."""
    import resource  # noqa: PLC0415 (for this test alone)
    import signal  # noqa: PLC0415

    path = tmp_path / "a.env"
    path.write_bytes(b"old\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(StepFailed, match=r"a\.env cannot be written: File too large"):
            replace_file(path, b"x" * 100, 0o600)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old\n"
    assert names(tmp_path) == ["a.env"]


# --- reading ---


def test_a_regular_file_is_read_and_a_missing_one_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text\xff\n")
    assert read_bytes(tmp_path / "a") == b"text\xff\n"
    assert read_bytes(tmp_path / "b") is None
    assert read_bytes(tmp_path / "no" / "b") is None


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(OSError, match="is not a regular file"):
        read_bytes(tmp_path / "a")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        read_bytes(tmp_path / "b")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    descriptors = open_descriptors()
    with pytest.raises(OSError, match=r"is not a regular file|Is a directory"):
        read_bytes(tmp_path)
    assert open_descriptors() == descriptors


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", limit=5) == b"12345"
    with pytest.raises(OSError, match="is larger than 4 bytes"):
        read_bytes(tmp_path / "a", limit=4)


# --- removing ---


def test_a_file_is_removed_and_a_missing_one_is_fine(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    remove_file(tmp_path / "a")
    remove_file(tmp_path / "a")
    assert names(tmp_path) == []


def test_what_cannot_be_removed_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"none/a cannot be removed: No such file"):
        remove_file(tmp_path / "none" / "a")


def test_only_an_empty_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").write_bytes(b"")
    with pytest.raises(StepFailed, match="home cannot be removed: Directory not empty"):
        remove_empty_folder(tmp_path / "home")
    (tmp_path / "home" / "file").unlink()
    remove_empty_folder(tmp_path / "home")
    assert names(tmp_path) == []


# --- moving ---


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Make two folders, with a file in the first, and return it and a place for it in the second."""
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    (tmp_path / "from" / "job").write_text("what it does\n")
    (tmp_path / "from" / "job").chmod(0o640)
    return tmp_path / "from" / "job", tmp_path / "to" / "held"


def test_a_file_is_moved_as_it_is(two: tuple[Path, Path]) -> None:
    source, target = two
    inode = source.stat().st_ino
    before = open_descriptors()
    move(source, target)
    assert not source.exists()
    assert (target.stat().st_ino, target.read_text()) == (inode, "what it does\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert open_descriptors() == before


def test_a_link_is_moved_and_not_what_it_leads_to(two: tuple[Path, Path]) -> None:
    source, target = two
    link = source.with_name("link")
    link.symlink_to(source)
    move(link, target)
    assert target.is_symlink()
    assert source.exists()


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_nothing_that_is_there_is_overwritten(two: tuple[Path, Path], kind: str) -> None:
    source, target = two
    match kind:
        case "file":
            target.write_text("other\n")
        case "link":
            target.symlink_to("nowhere")
        case _:
            target.mkdir()
    with pytest.raises(StepFailed, match=r"to/held is there already; .*from/job stays where it is"):
        move(source, target)
    assert source.read_text() == "what it does\n"


def test_a_file_that_has_gone_meanwhile_is_no_error(two: tuple[Path, Path]) -> None:
    source, target = two
    source.unlink()
    move(source, target)
    assert names(target.parent) == []


@pytest.mark.parametrize("missing", [0, 1])
def test_a_folder_that_is_missing_is_an_error_that_names_both(two: tuple[Path, Path], missing: int) -> None:
    source, target = (
        path.parent / "none" / path.name if number == missing else path for number, path in enumerate(two)
    )
    with pytest.raises(StepFailed, match=r"job cannot be moved to .*held: No such file or directory"):
        move(source, target)


# --- private folders ---


def test_a_private_folder_is_made_once_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_private_folder(tmp_path / "held")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "held").stat().st_mode) == 0o700
    (tmp_path / "held" / "job").touch()
    make_private_folder(tmp_path / "held")
    assert names(tmp_path / "held") == ["job"]


@pytest.mark.parametrize("place", ["none/held", "file"])
def test_a_private_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StepFailed, match=f"{place} cannot be made: "):
        make_private_folder(tmp_path / place)
