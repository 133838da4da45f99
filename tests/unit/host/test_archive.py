"""An archive holds what it was made of, to the byte and the attribute, or there is none; GNU tar itself makes them."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.core.inventory import Contents, Kind
from reconciler.errors import StepFailed
from reconciler.host import archive
from reconciler.host.archive import SHADOW, comparison, create, extract, inventory, read, survey

pytestmark = pytest.mark.processes

LINE = b"alice:!secret:20000:0:99999:7::1:\n"
LATIN_1 = os.fsdecode(b"caf\xe9\nnext line")
LONG = "long-" + "x" * 200
# An ACL with one more user, as system.posix_acl_access has it (acl(5), linux/posix_acl_xattr.h): tag, rights, id.
NO_ID = 0xFFFFFFFF
ENTRIES = ((0x01, 6, NO_ID), (0x02, 4, 1234), (0x04, 4, NO_ID), (0x10, 4, NO_ID), (0x20, 0, NO_ID))
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ENTRIES)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with everything in it that an archive could lose."""
    home = tmp_path / "people" / "alice"
    (home / "folder" / "below").mkdir(parents=True)
    (home / "empty").mkdir(mode=0o711)
    (home / "folder" / "file").write_bytes(b"text\n")
    (home / "folder" / "second name").hardlink_to(home / "folder" / "file")
    (home / "link").symlink_to("/etc/passwd")
    (home / "dangling").symlink_to("folder/\xfc")
    (home / LATIN_1).write_bytes(b"odd\n")
    (home / LONG).mkdir()
    (home / LONG / LONG).write_bytes(b"deep\n")
    (home / "-rf").write_bytes(b"")
    (home / "back\\slash*").write_bytes(b"not a pattern")
    os.mkfifo(home / "fifo", 0o640)
    (home / "program").write_bytes(os.urandom(100_000))
    (home / "program").chmod(0o4755)
    with (home / "sparse").open("wb") as file:
        file.seek(40_000_000)
        file.write(b"end")
    return home


def attributed(path: Path) -> None:
    """Give a file extended attributes and an ACL, or skip where the file system has none."""
    try:
        os.setxattr(path, "user.odd", b"a=b\n\xff\x00c")
        os.setxattr(path, "user.na=me%", b"1")
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "system.posix_acl_access", ACL)
    except OSError:
        pytest.skip("this file system has no extended attributes")


def made(home: Path, tmp_path: Path) -> Path:
    target = tmp_path / "alice.tar.gz"
    create(tmp_path / "draft", target, [home], LINE)
    return target


def member(path: Path) -> str:
    return str(path).lstrip("/")


def unpacked(target: Path, home: Path, tmp_path: Path) -> Path:
    contents = read(target)
    (tmp_path / "staging").mkdir()
    return extract(target, member(home), tmp_path / "staging", contents)


def replaced(target: Path, change: Callable[[bytes], bytes]) -> Path:
    target.write_bytes(change(target.read_bytes()))
    return target


# --- making and reading back ---


def test_what_is_read_back_is_what_was_there(home: Path, tmp_path: Path) -> None:
    target = made(home, tmp_path)
    contents = read(target)
    found = {one.path: one.entry for one in inventory(home)}
    assert {path: entry for path, entry in contents.entries.items() if path != SHADOW} == found
    assert len(found) == 16
    assert contents.kept == {SHADOW: LINE}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice.tar.gz", "draft", "people"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_hard_links_are_known_as_one_file(home: Path, tmp_path: Path) -> None:
    contents = read(made(home, tmp_path))
    names = {member(home / "folder" / name) for name in ("file", "second name")}
    assert {*contents.twins, *contents.twins.values()} == names


def test_extended_attributes_and_acls_come_back_byte_for_byte(home: Path, tmp_path: Path) -> None:
    attributed(home / "folder" / "file")
    copy = unpacked(made(home, tmp_path), home, tmp_path) / "folder" / "file"
    wanted = {"user.odd": b"a=b\n\xff\x00c", "user.na=me%": b"1", "user.empty": b"", "system.posix_acl_access": ACL}
    assert {name: os.getxattr(copy, name) for name in os.listxattr(copy)} == wanted


def test_what_is_unpacked_is_the_same_again(home: Path, tmp_path: Path) -> None:
    target = made(home, tmp_path)
    copy = unpacked(target, home, tmp_path)
    assert (copy / "folder" / "file").samefile(copy / "folder" / "second name")
    assert (copy / "sparse").stat().st_blocks * 512 < 1_000_000
    for name in (".", "empty", "folder/file", "program", LATIN_1):
        assert (copy / name).stat().st_mtime_ns == (home / name).stat().st_mtime_ns
    assert (copy / "link").readlink() == Path("/etc/passwd")


def test_a_socket_is_left_out_and_told(home: Path, tmp_path: Path) -> None:
    short = tmp_path / "s"  # a socket's path is at most 107 bytes long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(short))
        short.rename(home / "socket")
    assert survey([home]).sockets == (str(home / "socket"),)
    assert member(home / "socket") not in read(made(home, tmp_path)).entries


def test_the_archives_digest_is_that_of_its_file(home: Path, tmp_path: Path) -> None:
    digest = create(tmp_path / "draft", tmp_path / "a.tar.gz", [home], LINE)
    assert digest == read(tmp_path / "a.tar.gz").digest
    replaced(tmp_path / "a.tar.gz", lambda data: data + b"\0" * 512)
    assert digest != read(tmp_path / "a.tar.gz").digest


def test_a_first_archive_is_never_written_over(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "alice.tar.gz"
    target.write_bytes(b"the first")
    with pytest.raises(StepFailed, match="is there already"):
        create(tmp_path / "draft", target, [home], LINE)
    assert target.read_bytes() == b"the first"


def test_progress_is_told_for_every_part_of_the_work(home: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    target = tmp_path / "alice.tar.gz"
    create(tmp_path / "draft", target, [home], LINE, lambda *step: told.append(step))
    assert {what for what, _, _ in told} >= {"reading back", "comparing"}
    assert max(done for what, done, _ in told if what == "comparing") == max(total for _, _, total in told)


# --- what goes wrong ---


def test_a_file_changed_while_it_was_archived_leaves_no_archive(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = archive.read

    def late(path: Path, progress: archive.Progress, total: int) -> Contents:
        (home / "folder" / "file").write_bytes(b"TEXT\n")
        return original(path, progress, total)

    monkeypatch.setattr(archive, "read", late)
    with pytest.raises(StepFailed, match="folder/file has another content in the archive"):
        made(home, tmp_path)
    assert not (tmp_path / "alice.tar.gz").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-6] + bytes(byte ^ 1 for byte in data[-6:-5]) + data[-5:],
        lambda data: data[:2000] + bytes([data[2000] ^ 4]) + data[2001:],
        lambda _: b"",
        lambda _: gzip.compress(b"no tar"),
    ],
    ids=["an end cut off", "half", "checksum", "one bit", "empty", "no tar"],
)
def test_a_damaged_archive_is_refused(home: Path, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(StepFailed, match="cannot be read"):
        read(replaced(made(home, tmp_path), change))


def test_a_missing_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="is not there"):
        read(tmp_path / "alice.tar.gz")


def test_a_file_larger_than_its_file_system_is_refused_by_name(home: Path) -> None:
    try:
        os.truncate(home / "sparse", 1 << 43)
    except OSError:
        pytest.skip("this file system has no files of that size")
    with pytest.raises(StepFailed, match=r"sparse says it has 8796093022208 bytes"):
        survey([home])


def test_a_path_too_long_to_be_made_again_is_refused(home: Path) -> None:
    folder = os.open(home, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=folder)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    with pytest.raises(StepFailed, match="too long a path"):
        survey([home])


def test_a_failing_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(StepFailed, match="cannot be read"):
        create(tmp_path / "draft", tmp_path / "a.tar.gz", [tmp_path / "nothing"], LINE)
    assert not (tmp_path / "a.tar.gz").exists()


# --- comparing ---


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda home: (home / "folder" / "file").write_bytes(b"next\n"), "another content"),
        (lambda home: (home / "folder" / "file").write_bytes(b"longer\n"), "another size, content"),
        (lambda home: (home / "empty").chmod(0o700), "another mode"),
        (lambda home: (home / "new").write_bytes(b""), "is not in the archive"),
        (lambda home: ((home / "link").unlink(), (home / "link").symlink_to("/etc/group")), "another content"),
        (lambda home: ((home / "fifo").unlink(), (home / "fifo").write_bytes(b"")), "another kind"),
        (lambda home: os.setxattr(home / "program", "user.new", b""), "another set of extended attributes"),
    ],
    ids=["content", "size", "mode", "new", "target", "kind", "attribute"],
)
def test_whatever_changed_since_is_found(
    home: Path, tmp_path: Path, change: Callable[[Path], object], told: str
) -> None:
    contents = read(made(home, tmp_path))
    assert comparison(home, contents).differences == ()
    change(home)
    (found, *_) = comparison(home, contents).differences
    assert told in found


def test_what_has_been_deleted_is_missing_and_no_difference(home: Path, tmp_path: Path) -> None:
    contents = read(made(home, tmp_path))
    (home / "folder" / "file").unlink()
    (home / "link").unlink()
    found = comparison(home, contents)
    assert found.differences == ()
    assert found.missing == {member(home / "folder" / "file"), member(home / "link")}


def test_hard_links_that_came_apart_are_found(home: Path, tmp_path: Path) -> None:
    contents = read(made(home, tmp_path))
    (home / "folder" / "second name").unlink()
    (home / "folder" / "second name").write_bytes(b"text\n")
    (found,) = comparison(home, contents).differences
    assert "is a hard link" in found


def test_a_link_in_place_of_the_top_is_not_followed(home: Path, tmp_path: Path) -> None:
    contents = read(made(home, tmp_path))
    home.rename(tmp_path / "moved")
    home.symlink_to(tmp_path / "moved")
    (found,) = comparison(home, contents).differences
    assert "another kind" in found


def test_a_walk_never_waits_on_a_fifo_and_closes_what_it_opened(home: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    signal.setitimer(signal.ITIMER_REAL, 10)
    started = time.monotonic()
    walk = inventory(home)
    next(walk)
    kinds = {found.entry.kind for found in walk}
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert Kind.FIFO in kinds
    assert time.monotonic() - started < 5
    half = inventory(home)
    next(half)
    half.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_unpacking_where_something_is_missing_is_an_error(home: Path, tmp_path: Path) -> None:
    target = made(home, tmp_path)
    contents = read(target)
    more = {**contents.entries, member(home / "more"): contents.entries[member(home / "-rf")]}
    (tmp_path / "staging").mkdir()
    with pytest.raises(StepFailed, match="more is missing"):
        extract(target, member(home), tmp_path / "staging", Contents(contents.digest, more))
