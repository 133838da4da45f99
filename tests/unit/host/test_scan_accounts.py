"""The account files: read as they are, and never taken for empty."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.core.observed import Account, Group, Home, HomeKind, IdLimits, Login, SubidRange
from reconciler.errors import ScanFailed
from reconciler.host import scan_accounts as scan


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes a file and returns its path."""

    def write(text: str) -> Path:
        (tmp_path / "file").write_bytes(text.encode("utf-8", "surrogateescape"))
        return tmp_path / "file"

    return write


Write = Callable[[str], Path]


def test_accounts_are_read_by_name(file: Write) -> None:
    path = file("root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1001:Alice,,,:/home/alice:\n")
    assert scan.scan_passwd(path) == {
        "root": Account("root", 0, 0, "/root", "/bin/bash"),
        "alice": Account("alice", 1000, 1001, "/home/alice", ""),
    }


def test_of_two_lines_with_one_name_the_first_counts_as_it_does_for_the_system(file: Write) -> None:
    assert scan.scan_passwd(file("a:x:1:1::/:/a\na:x:2:2::/:/b\n"))["a"].uid == 1


@pytest.mark.parametrize("line", ["+::::::", "+@staff::::::", "-mallory::::::", "+", "# comment", "", "   "])
def test_lines_for_other_name_services_and_empty_ones_name_no_account(file: Write, line: str) -> None:
    assert list(scan.scan_passwd(file(f"{line}\nroot:x:0:0::/root:/bin/bash\n{line}\n"))) == ["root"]


@pytest.mark.parametrize("name", ["Zoë", "\udcff", "a\x0bb", "a\x85b", "a\u2028b"])
def test_a_real_name_may_hold_any_byte_but_colon_and_newline(file: Write, name: str) -> None:
    assert list(scan.scan_passwd(file(f"alice:x:1000:1000:{name}:/home/alice:/bin/zsh\n"))) == ["alice"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("root:x:0:0:root:/root:/bin/bash\nalice:x:10", r":2: has 3 fields instead of 7; see pwck\(8\)"),
        ("alice:x:one:1000::/home/alice:/bin/zsh\n", r":1: 'one' is not a number"),
        ("alice:x::1000::/home/alice:/bin/zsh\n", r":1: '' is not a number"),
        ("alice:x:-1:1000::/home/alice:/bin/zsh\n", r":1: '-1' is not a number"),
        (f"alice:x:{'9' * 5000}:1000::/home/alice:/bin/zsh\n", r"is not a number"),
        ("", "holds no account; it is not taken for an empty machine"),
        ("# nothing\n", "holds no account; it is not taken for an empty machine"),
    ],
)
def test_a_torn_or_empty_passwd_is_an_error(file: Write, text: str, why: str) -> None:
    with pytest.raises(ScanFailed, match=why):
        scan.scan_passwd(file(text))


def test_a_missing_passwd_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScanFailed, match="does not exist"):
        scan.scan_passwd(tmp_path / "passwd")


def test_a_passwd_that_is_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    assert "root" in scan.scan_passwd(tmp_path / "passwd")


@pytest.mark.parametrize("what", ["fifo", "folder"])
def test_a_passwd_that_is_no_regular_file_is_an_error(tmp_path: Path, what: str) -> None:
    path = tmp_path / "passwd"
    if what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(ScanFailed, match="passwd"):
        scan.scan_passwd(path)


def test_groups_are_read_with_their_members(file: Write) -> None:
    assert scan.scan_group(file("sudo:x:27:alice,bob\nempty:x:100:\nodd:x:101:,alice,\n+:::\n")) == {
        "sudo": Group("sudo", 27, frozenset({"alice", "bob"})),
        "empty": Group("empty", 100, frozenset()),
        "odd": Group("odd", 101, frozenset({"alice"})),
    }


@pytest.mark.parametrize("text", ["", "sudo:x:27", "sudo:x:a:\n"])
def test_a_torn_or_empty_group_is_an_error(file: Write, text: str) -> None:
    with pytest.raises(ScanFailed):
        scan.scan_group(file(text))


@pytest.mark.parametrize(
    ("line", "login"),
    [
        pytest.param("x:$y$secret:1:0:99999:7:::", Login(locked=False), id="open"),
        pytest.param("x:!$y$secret:1:0:99999:7:::", Login(locked=True), id="locked"),
        pytest.param("x:!:1::::::", Login(locked=True), id="never had one"),
        pytest.param("x:*:1::::::", Login(locked=False), id="no password fits, which is no lock of usermod's"),
        pytest.param("x::1::::::", Login(locked=False, passwordless=True), id="empty"),
        pytest.param("x:$y$secret:1:0:99999:7::20000:", Login(locked=False, expiry=20000), id="with an end"),
        pytest.param("x:!:1:0:99999:7::0:", Login(locked=True, expiry=0), id="day 0"),
        pytest.param("x:!:1:0:99999:7::-1:", Login(locked=True), id="what is no day is none"),
        pytest.param("x:!", Login(locked=True), id="short"),
    ],
)
def test_of_shadow_it_is_kept_how_far_an_account_is_open(file: Write, line: str, login: Login) -> None:
    found = scan.scan_shadow(file(f"root:$y$secret:1:0:99999:7:::\n{line}\n"))
    assert found == {"root": Login(locked=False), "x": login}
    assert "secret" not in repr(found)


def test_of_two_lines_the_first_counts(file: Write) -> None:
    assert scan.scan_shadow(file("x:!:1::::::\nx::1::::::\n")) == {"x": Login(locked=True)}


def test_an_empty_shadow_is_an_error(file: Write) -> None:
    """Read as empty it would have every managed account's password locked."""
    with pytest.raises(ScanFailed):
        scan.scan_shadow(file(""))


def test_the_names_in_gshadow_are_read_where_there_is_such_a_file(file: Write, tmp_path: Path) -> None:
    assert scan.scan_shadow_groups(file("root:*::\nalice:!::\n")) == frozenset({"root", "alice"})
    assert scan.scan_shadow_groups(tmp_path / "gshadow") is None


def test_subordinate_ids_are_read_and_a_host_may_have_none(file: Write, tmp_path: Path) -> None:
    assert scan.scan_subids(file("alice:100000:65536\n1001:165536:65536\n")) == (
        SubidRange("alice", 100_000, 65536),
        SubidRange("1001", 165_536, 65536),
    )
    assert scan.scan_subids(file("")) == ()
    assert scan.scan_subids(tmp_path / "subuid") is None
    with pytest.raises(ScanFailed):
        scan.scan_subids(file("alice:100000\n"))


def test_limits_are_those_of_login_defs_and_else_those_of_shadow_utils(file: Write, tmp_path: Path) -> None:
    text = "# UID_MIN 5\nUID_MIN\t\t 2000\nUID_MAX 3000 # to here\nSUB_UID_MIN x\n\nSUB_UID_COUNT 0\nMAIL_DIR\n"
    assert scan.scan_limits(file(text)) == IdLimits(uid_min=2000, uid_max=3000, subid_count=0)
    assert scan.scan_limits(tmp_path / "login.defs") == IdLimits()


def test_a_number_of_more_digits_than_any_is_none(file: Write) -> None:
    many = "9" * 5000
    assert scan.scan_limits(file(f"UID_MIN {many}\n")) == IdLimits()
    assert scan.scan_shadow(file(f"x:!:1:::::{many}:\n")) == {"x": Login(locked=True)}


def test_the_names_of_the_system_are_accounts_and_groups_below_uid_min(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0::/:/\npostfix:x:999:999::/:/\nalice:x:1000:1000::/:/\n")
    (tmp_path / "group").write_text("root:x:0:\ndocker:x:998:\nalice:x:1000:\n")
    assert scan.system_names(tmp_path) == {"root", "postfix", "docker"}


# --- homes ---


def test_a_home_is_looked_at_without_following_or_opening_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo")
    names = ["folder", "link", "file", "fifo", "missing", "file/below", "missing/below"]
    homes = scan.scan_homes({name: str(tmp_path / name) for name in names})
    assert {name: home.kind for name, home in homes.items()} == {
        "folder": HomeKind.FOLDER,
        "link": HomeKind.SYMLINK,
        "file": HomeKind.OTHER,
        "fifo": HomeKind.OTHER,
        "missing": HomeKind.MISSING,
        "file/below": HomeKind.NOWHERE,
        "missing/below": HomeKind.NOWHERE,
    }
    assert homes["folder"] == Home(HomeKind.FOLDER, os.geteuid(), 0o700)


def test_a_home_that_nobody_may_look_at_is_one_persons_trouble_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file system of the person's own does, mounted there with FUSE: EACCES, and ENOTCONN when it has died."""
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path == tmp_path / "mounted":
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", str(path))
        return real(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    homes = scan.scan_homes({name: str(tmp_path / name) for name in ("mounted", "missing")})
    assert {name: home.kind for name, home in homes.items()} == {
        "mounted": HomeKind.UNREADABLE,
        "missing": HomeKind.MISSING,
    }


def gaps(skel: Path, home: Path, uid: int) -> tuple[str, ...]:
    return scan.scan_skel_gaps(skel, [Account("anna", uid, uid, str(home), "/bin/sh")])["anna"]


def test_gaps_are_the_entries_of_the_skel_that_a_home_lacks_or_has_shorter(tmp_path: Path) -> None:
    skel, home = tmp_path / "skel", tmp_path / "home"
    (skel / ".config").mkdir(parents=True)
    for name in (".bashrc", ".profile", ".config/app", ".longer"):
        (skel / name).write_text("1234")
    home.mkdir()
    (home / ".bashrc").write_text("1234")
    (home / ".profile").write_text("12")
    (home / ".longer").write_text("123456")
    assert gaps(skel, home, os.geteuid()) == (".config", ".config/app", ".profile")
    assert gaps(tmp_path / "none", home, os.geteuid()) == ()


def test_an_entry_that_is_still_anothers_or_without_its_mode_is_a_gap(tmp_path: Path) -> None:
    skel, home = tmp_path / "skel", tmp_path / "home"
    for folder in (skel, home):
        folder.mkdir()
        (folder / "program").write_text("1234")
    (skel / "program").chmod(0o755)
    (home / "program").chmod(0o600)
    assert gaps(skel, home, os.geteuid()) == ("program",)
    (home / "program").chmod(0o755)
    assert gaps(skel, home, os.geteuid()) == ()
    assert gaps(skel, home, os.geteuid() + 1) == ("program",)
