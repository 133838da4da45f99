"""One run at a time, also between processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.errors import LockBusy, ScanFailed
from reconciler.host.lock import exclusive, is_wanted

CHECKOUT = Path(__file__).parents[3]
HOLD = """
import sys
from pathlib import Path
from reconciler.host.lock import exclusive
with exclusive(0, Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_lock_is_held_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "rosterd" / "lock"
    for _ in range(2):
        with exclusive(0, path):
            pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_is_given_back_however_the_run_ends(tmp_path: Path) -> None:
    with pytest.raises(KeyError), exclusive(0, tmp_path / "lock"):
        raise KeyError
    with exclusive(0, tmp_path / "lock"):
        pass


def test_who_comes_second_waits_as_long_as_they_said_and_is_told_how_to_find_the_other(tmp_path: Path) -> None:
    started = time.monotonic()
    with exclusive(0, tmp_path / "lock"):
        with pytest.raises(LockBusy) as caught, exclusive(0.3, tmp_path / "lock"):
            pass
        assert 0.3 <= time.monotonic() - started < 5
    assert f"another run holds {tmp_path}/lock" in str(caught.value)
    assert f"fuser {tmp_path}/lock" in str(caught.value)


@pytest.mark.processes
def test_another_process_is_kept_out_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", HOLD, path], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockBusy), exclusive(0, path):
            pass
        other.kill()
        other.wait()
        with exclusive(0, path):
            pass


@pytest.mark.processes
def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(0, path):
        child = subprocess.Popen(["/bin/sleep", "60"], close_fds=False)
    try:
        with exclusive(2, path):  # the kernel lets a parent go on just before it closes the child's descriptors
            pass
    finally:
        child.kill()
        child.wait()


def test_a_link_at_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ScanFailed, match="lock"), exclusive(0, tmp_path / "lock"):
        pass
    assert names(tmp_path) == ["lock"]


def test_where_it_cannot_be_made_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScanFailed, match=f"{tmp_path}/file cannot be locked"), exclusive(0, tmp_path / "file" / "lock"):
        pass


def test_a_folder_in_its_place_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(ScanFailed, match=r"lock cannot be locked: Is a directory.* remove it"):
        exclusive(0, tmp_path / "lock").__enter__()


def put_a_fifo(path: Path) -> None:
    """Put a FIFO in place of a file."""
    path.unlink()
    os.mkfifo(path)


# What somebody may do to a lock that is held, so that there is another one at its place.
REPLACED: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "written anew": lambda path: path.with_name("new").replace(path),
    "a FIFO": put_a_fifo,
}


@pytest.mark.parametrize("how", REPLACED)
def test_another_file_at_its_place_lets_nobody_in(tmp_path: Path, how: str) -> None:
    path = tmp_path / "lock"
    (tmp_path / "new").touch()
    with exclusive(0, path):
        REPLACED[how](path)
        with pytest.raises(LockBusy), exclusive(0, path):
            pass
    with exclusive(0, path):
        pass


def test_who_waited_for_a_lock_that_was_removed_is_alone_afterwards(tmp_path: Path) -> None:
    """Whoever comes later locks another file, and has to wait all the same."""
    path, inside, most = tmp_path / "lock", list[int](), list[int]()

    def work() -> None:
        with exclusive(10, path):
            inside.append(1)
            time.sleep(0.2)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    with exclusive(0, path):
        for thread in threads[:3]:
            thread.start()
        assert eventually(lambda: is_wanted(path))
        path.unlink()
    for thread in threads[3:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6


def test_who_holds_the_file_itself_keeps_everybody_out(tmp_path: Path) -> None:
    """As an administrator may: `flock /run/rosterd/lock …`."""
    path = tmp_path / "lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockBusy), exclusive(0, path):
            pass


@pytest.mark.parametrize("change", [Path.rmdir, lambda path: path.rename(path.with_name("gone"))])
def test_a_folder_that_is_gone_while_the_lock_is_held_stops_nobody(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "rosterd" / "lock"
    with exclusive(0, path):
        path.unlink()
        change(path.parent)
        assert not is_wanted(path)


# --- who waits can be seen ---


def eventually(holds: Callable[[], bool]) -> bool:
    """Wait a few seconds for something to come true."""
    deadline = time.monotonic() + 5
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_a_lock_that_nobody_waits_for_is_not_wanted(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(1, path):
        assert not is_wanted(path)
        assert not is_wanted(path)


def test_who_has_the_lock_sees_that_others_wait_until_they_have_given_up(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    def wait(seconds: float) -> None:
        with contextlib.suppress(LockBusy), exclusive(seconds, path):
            pass

    with exclusive(0, path):
        waiting = [threading.Thread(target=wait, args=(seconds,)) for seconds in (0.5, 1.5)]
        for thread in waiting:
            thread.start()
        assert eventually(lambda: is_wanted(path))
        waiting[0].join()
        assert eventually(lambda: is_wanted(path))
        waiting[1].join()
        assert not is_wanted(path)


def test_who_waited_and_has_the_lock_now_does_not_want_it_any_more(tmp_path: Path) -> None:
    path, seen = tmp_path / "lock", list[bool]()

    def wait() -> None:
        with exclusive(5, path):
            seen.append(is_wanted(path))

    with exclusive(0, path):
        thread = threading.Thread(target=wait)
        thread.start()
        assert eventually(lambda: is_wanted(path))
    thread.join()
    assert seen == [False]
