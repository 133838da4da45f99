"""One run at a time, also between processes."""

from __future__ import annotations

import contextlib
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
    with pytest.raises(ScanFailed, match="only root can change this machine"), exclusive(0, tmp_path / "file" / "lock"):
        pass


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
