"""Processes: no shell, a fixed environment, and an end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from reconciler.errors import StepFailed
from reconciler.host.process import RunAs, run

pytestmark = pytest.mark.processes
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def ends(pid: int) -> bool:
    """Say whether a process is gone within two seconds, or waits for its parent to collect it."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_what_it_wrote_and_how_it_ended_is_returned() -> None:
    finished = run(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], timeout=10)
    assert (finished.code, finished.out, finished.err) == (3, "out\n", "err\n")
    assert finished.complaint == "sh exited 3: err"


def test_a_complaint_is_one_line_of_bounded_length() -> None:
    finished = run(["/bin/sh", "-c", "echo one; echo two; yes x | head -1000; false"], timeout=10)
    assert finished.complaint.startswith("sh exited 1: one two x x")
    assert len(finished.complaint) < 600
    assert run(["/bin/false"], timeout=10).complaint == "false exited 1: and said nothing"


def test_arguments_are_passed_as_they_are() -> None:
    arguments = ["two words", "$(id)", "; rm -rf /", "'", "*", ""]
    assert run(["/usr/bin/printf", "%s\\n", *arguments], timeout=10).out == "".join(f"{text}\n" for text in arguments)


def test_the_environment_is_fixed_and_the_caller_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/evil.so")
    monkeypatch.setenv("TOKEN", "secret")
    assert sorted(run(["env"], timeout=10).out.splitlines()) == [
        "LC_ALL=C",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ]


def test_it_reads_nothing_and_starts_at_the_root_of_the_file_system() -> None:
    finished = run(["/bin/sh", "-c", "cat; pwd; umask; readlink /proc/$$/fd/0"], timeout=10)
    assert finished.out == "/\n0022\n/dev/null\n"


def test_text_that_is_not_utf_8_is_no_error() -> None:
    assert run(["/usr/bin/printf", "\\377"], timeout=10).out == "\N{REPLACEMENT CHARACTER}"


def test_a_program_that_does_not_exist_fails_the_step() -> None:
    with pytest.raises(StepFailed, match=r"no-such-program cannot be started: No such file or directory"):
        run(["no-such-program"], timeout=10)


def test_after_its_time_it_is_killed_together_with_what_it_started(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/self; wait"
    started = time.monotonic()
    with pytest.raises(StepFailed, match=r"sh did not end within .* s and was killed"):
        run(["/bin/sh", "-c", script], timeout=0.5)
    assert time.monotonic() - started < 5
    assert ends(int((tmp_path / "self").read_text()))
    assert ends(int((tmp_path / "child").read_text()))


def test_what_a_program_leaves_behind_with_its_output_is_killed_and_the_program_has_ended_well(tmp_path: Path) -> None:
    started = time.monotonic()
    finished = run(["/bin/sh", "-c", f"sleep 60 & echo $! > {tmp_path}/child; echo done"], timeout=0.5)
    assert time.monotonic() - started < 5
    assert (finished.code, finished.out) == (0, "done\n")
    assert ends(int((tmp_path / "child").read_text()))


def test_a_child_in_a_session_of_its_own_cannot_hold_up_the_run(tmp_path: Path) -> None:
    script = f"setsid sh -c 'echo $$ > {tmp_path}/child; exec sleep 15' & wait"
    started = time.monotonic()
    try:
        with pytest.raises(StepFailed, match="did not end within"):
            run(["/bin/sh", "-c", script], timeout=0.5)
        assert time.monotonic() - started < 5
    finally:
        os.kill(int((tmp_path / "child").read_text()), 9)


@needs_root
def test_as_a_user_it_has_that_users_ids_and_home_and_no_other_groups() -> None:
    script = "id -u; id -g; id -G; echo $HOME; umask"
    finished = run(["/bin/sh", "-c", script], timeout=10, run_as=RunAs(4711, 4712, "/home/x"))
    assert finished.out == "4711\n4712\n4712\n/home/x\n0077\n"


def test_it_reads_what_it_is_given() -> None:
    assert run(["cat"], timeout=10, given=b"to be read").out == "to be read"
