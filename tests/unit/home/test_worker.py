"""The process that takes the steps of one home: what it refuses, in which order it works, when it stops."""

from __future__ import annotations

import base64
import io
import json
import os
import pwd
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from reconciler.core.home_steps import (
    CommandStep,
    DirectoryStep,
    Ending,
    FileStep,
    HomeStep,
    Result,
    StepBody,
    read_result,
    work_order,
)
from reconciler.home import worker
from reconciler.home.place import Home, without_passwords
from reconciler.home.worker import take
from reconciler.host.looks import still
from reconciler.host.process import run

pytestmark = pytest.mark.processes

CHECKOUT = Path(__file__).parents[3]
FAILING = CommandStep(("/bin/false",), creates="never")


def step(name: str, body: StepBody | None = None, timeout: int = 10) -> HomeStep:
    return HomeStep(name, body or DirectoryStep(name.replace("/", "-")), timeout)


def endings(results: Sequence[Result]) -> list[tuple[str, Ending]]:
    return [(result.name, result.ending) for result in results]


# --- the steps ---


def test_steps_are_taken_in_order_and_a_second_time_nothing_changes(home: Home) -> None:
    steps = [step("b"), step("a", FileStep("b/x", "x")), step("c", CommandStep(("touch", "c"), creates="c"))]
    first = list(take(steps, home))
    assert endings(first) == [("b", Ending.DONE), ("a", Ending.DONE), ("c", Ending.DONE)]
    before = {path: path.lstat() for path in home.path.rglob("*")}
    second = list(take(steps, home))
    assert endings(second) == endings(first)
    assert {path: path.lstat().st_ctime_ns for path in home.path.rglob("*")} == {
        path: found.st_ctime_ns for path, found in before.items()
    }
    assert all(still(watch) for result in second for watch in result.watches)


def test_what_is_below_a_step_that_failed_has_no_result(home: Home) -> None:
    steps = [step("a", FAILING), step("a/b"), step("a/b/c"), step("ab"), step("b")]
    assert endings(list(take(steps, home))) == [("a", Ending.FAILED), ("ab", Ending.DONE), ("b", Ending.DONE)]
    assert not (home.path / "a-b").exists()


def test_what_is_below_a_step_that_is_blocked_has_none_either(home: Home) -> None:
    (home.path / "a").write_text("own")
    blocked, other = take([step("a"), step("a/b"), step("c")], home)
    assert endings([blocked, other]) == [("a", Ending.BLOCKED), ("c", Ending.DONE)]
    assert blocked.detail == "~/a is there and is no folder"
    assert still(blocked.watches[0])
    (home.path / "a").unlink()
    assert not still(blocked.watches[0])


def test_an_error_of_the_disk_is_a_failed_step(home: Home) -> None:
    (result,) = take([step("a", DirectoryStep("x" * 300))], home)
    assert result.ending is Ending.FAILED
    assert result.detail.endswith("File name too long")


def test_a_step_that_hangs_ends_with_its_time_and_the_next_is_taken(home: Home) -> None:
    started = time.monotonic()
    steps = [step("a", CommandStep(("/bin/sleep", "60"), creates="x"), timeout=1), step("b")]
    assert endings(list(take(steps, home))) == [("a", Ending.FAILED), ("b", Ending.DONE)]
    assert 1 <= time.monotonic() - started < 5


def test_all_steps_of_a_home_have_a_time_together(home: Home) -> None:
    hanging = [step(name, CommandStep(("/bin/sleep", "60"), creates="x")) for name in ("a", "b", "c")]
    started = time.monotonic()
    assert endings(list(take([*hanging, step("d")], home, seconds=1))) == [("a", Ending.FAILED)]
    assert time.monotonic() - started < 5
    assert not (home.path / "d").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://bob:secret@example.org/x", "https://…@example.org/x"),
        ("a\n  b\tc", "a b c"),
        ("mail bob@example.org", "mail bob@example.org"),
        ("https://a@b/ and http://c:d@e/", "https://…@b/ and http://…@e/"),
    ],
)
def test_a_detail_tells_no_password(text: str, expected: str) -> None:
    assert without_passwords(text) == expected


def test_a_password_that_a_command_tells_stays_out_of_the_result(home: Home) -> None:
    body = CommandStep(("/bin/sh", "-c", "echo https://bob:secret@example.org/x >&2; exit 1"), creates="x")
    (result,) = take([step("a", body)], home)
    assert "secret" not in result.detail
    assert "example.org" in result.detail


# --- the process ---


@pytest.mark.skipif(os.getuid() != 0, reason="only root can see root refused")
def test_root_takes_no_step(home: Home) -> None:
    order = work_order(str(home.path), [step("a")], {})
    program = [sys.executable, "-c", "from reconciler.home.worker import main; main()"]
    done = run(program, timeout=30, folder=str(CHECKOUT), given=order)
    assert (done.code, done.out) == (1, "")
    assert done.err.rstrip() == "steps in a home are taken by its owner, never by root"
    assert not (home.path / "a").exists()


def as_owner(monkeypatch: pytest.MonkeyPatch, order: bytes, owned: Path) -> bytes:
    """Run the worker's `main` in this process as if it were the owner of a home; return what it writes."""
    entry = list(pwd.getpwuid(os.getuid()))
    entry[5] = str(owned)

    class Stream:
        """Bytes on a standard stream."""

        def __init__(self, data: bytes = b"") -> None:
            self.buffer = io.BytesIO(data)

    written = Stream()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd(entry))
    monkeypatch.setattr(sys, "stdin", Stream(order))
    monkeypatch.setattr(sys, "stdout", written)
    worker.main()
    return written.buffer.getvalue()


def test_another_home_than_the_owners_is_refused(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = work_order(str(home.path), [step("a")], {})
    with pytest.raises(SystemExit, match=r"is not the home of who this runs as$"):
        as_owner(monkeypatch, order, tmp_path / "another")
    assert not (home.path / "a").exists()


def test_the_order_is_read_and_a_line_is_written_for_each_step(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [step("key", FileStep("key", source="/etc/key", mode="0600")), step("a", FAILING)]
    order = work_order(str(home.path), steps, {"/etc/key": base64.b64encode(b"\0secret").decode()})
    lines = as_owner(monkeypatch, order, home.path).splitlines()
    assert endings([read_result(line) for line in lines]) == [("key", Ending.DONE), ("a", Ending.FAILED)]
    assert (home.path / "key").read_bytes() == b"\0secret"
    assert all("secret" not in json.dumps(json.loads(line)) for line in lines)
