"""The log: plain lines, coloured ones, and entries of the journal."""

from __future__ import annotations

import gc
import io
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import pytest
import structlog

from reconciler import log


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


# The journal's socket lives as long as the process; nothing closes it.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave no configuration behind."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    gc.collect()


def line(stream: io.StringIO, environment: Mapping[str, str], level: str = "info", message: str = "done") -> str:
    """Log one entry and return its line without the time of day."""
    log.configure(stream, environment)
    getattr(structlog.get_logger(), level)("action_done", message=message, os_user="alice")
    clock, _, rest = stream.getvalue().partition(" ")
    assert len(clock) == len("12:34:56")
    return rest


# --- lines ---


def test_elsewhere_each_entry_is_one_plain_line() -> None:
    assert line(io.StringIO(), {}) == "info    done\n"


def test_further_lines_of_a_message_are_indented() -> None:
    assert line(io.StringIO(), {}, "error", "one\ntwo") == "error   one\n  two\n"


def test_an_entry_without_a_message_shows_its_event() -> None:
    stream = io.StringIO()
    log.configure(stream, {})
    structlog.get_logger().info("run_finished")
    assert stream.getvalue().endswith("info    run_finished\n")


@pytest.mark.parametrize(("level", "code"), [("info", "32"), ("warning", "33"), ("error", "31"), ("critical", "1;31")])
def test_on_a_terminal_the_level_is_coloured(level: str, code: str) -> None:
    assert line(Terminal(), {"TERM": "xterm"}, level) == f"\x1b[{code}m{level:<7}\x1b[0m done\n"


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_refused(environment: dict[str, str]) -> None:
    assert line(Terminal(), environment) == "info    done\n"


def test_an_empty_no_color_refuses_nothing() -> None:
    assert log.wants_colour(Terminal(), {"NO_COLOR": ""})


def test_a_reader_who_leaves_in_the_middle_does_not_end_the_run() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        log.configure(stream, {})
        structlog.get_logger().info("nobody reads this")
        structlog.get_logger().info("nor this")


def test_a_full_disk_does_not_end_the_run() -> None:
    with open("/dev/full", "w") as stream:  # noqa: PTH123 (a device, as a shell opens it)
        log.configure(stream, {})
        structlog.get_logger().info("this cannot be kept")
        structlog.get_logger().info("nor this")


# --- the journal ---


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen where journald would, and log to it as systemd has its services do."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "socket"))
        server.settimeout(5)
        monkeypatch.setattr(log, "_SOCKET", str(tmp_path / "socket"))
        monkeypatch.setattr(log, "_own_unit", lambda: None)
        log.configure(real_stderr(), connected_to_journal())
        yield server


def real_stderr() -> TextIO:
    assert sys.__stderr__ is not None
    return sys.__stderr__


def connected_to_journal() -> dict[str, str]:
    """Return the environment of a service whose standard error systemd connected to the journal."""
    found = os.fstat(real_stderr().fileno())
    return {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


def fields(datagram: bytes) -> dict[str, str]:
    """Take an entry apart, by the native protocol's own rules: KEY=value, or KEY, length, value."""
    found = {}
    while datagram:
        first, _, rest = datagram.partition(b"\n")
        key, equals, value = first.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        found[key.decode()] = value.decode()
        datagram = rest
    return found


def test_an_entry_of_the_journal_has_fields(journal: socket.socket) -> None:
    structlog.contextvars.bind_contextvars(run_id="0123")
    structlog.get_logger().error("action_failed", message="alice: FAILED", os_user="alice", action="create_account")
    assert fields(journal.recv(65536)) == {
        "MESSAGE": "alice: FAILED",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "rosterd",
        "RUN_ID": "0123",
        "OS_USER": "alice",
        "ROSTERD_ACTION": "create_account",
        "ROSTERD_EVENT": "action_failed",
    }


@pytest.mark.parametrize(("level", "priority"), [("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")])
def test_levels_are_priorities_of_syslog(journal: socket.socket, level: str, priority: str) -> None:
    getattr(structlog.get_logger(), level)("event")
    entry = fields(journal.recv(65536))
    assert entry["PRIORITY"] == priority
    assert entry["MESSAGE"] == "event"


def test_a_value_of_several_lines_forges_no_field(journal: socket.socket) -> None:
    structlog.get_logger().info("event", message="one\nPRIORITY=0\nOS_USER=root", why="a=b")
    entry = fields(journal.recv(65536))
    assert entry["MESSAGE"] == "one\nPRIORITY=0\nOS_USER=root"
    assert entry["PRIORITY"] == "6"
    assert entry["ROSTERD_WHY"] == "a=b"
    assert "OS_USER" not in entry


def test_an_entry_too_large_for_a_datagram_comes_as_a_sealed_file(journal: socket.socket) -> None:
    text = "x" * 10_000_000
    structlog.get_logger().info("event", message=text)
    data, descriptors, _, _ = socket.recv_fds(journal, 65536, 1)
    assert data == b""
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)
        assert fields(file.read())["MESSAGE"] == text
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(descriptors[0], 0)


def test_a_small_entry_after_a_large_one_arrives(journal: socket.socket) -> None:
    structlog.get_logger().info("large", message="x" * 10_000_000)
    structlog.get_logger().info("small")
    _, descriptors, _, _ = socket.recv_fds(journal, 65536, 1)
    os.close(descriptors[0])
    assert fields(journal.recv(65536))["MESSAGE"] == "small"


def test_a_journal_that_is_gone_does_not_end_the_run(journal: socket.socket, tmp_path: Path) -> None:
    del journal
    (tmp_path / "socket").unlink()
    structlog.get_logger().info("event", message="nobody hears this")


def test_the_unit_goes_with_each_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "socket"))
        server.settimeout(5)
        monkeypatch.setattr(log, "_SOCKET", str(tmp_path / "socket"))
        monkeypatch.setattr(log, "_own_unit", lambda: "rosterd.service")
        log.configure(real_stderr(), connected_to_journal())
        structlog.get_logger().info("event")
        assert fields(server.recv(65536))["OBJECT_SYSTEMD_UNIT"] == "rosterd.service"


@pytest.mark.parametrize("environment", [{}, {"JOURNAL_STREAM": ""}, {"JOURNAL_STREAM": "1:2"}])
def test_only_the_stream_that_systemd_connected_is_the_journal(environment: dict[str, str]) -> None:
    assert log.goes_to_journal(real_stderr(), connected_to_journal())
    assert not log.goes_to_journal(real_stderr(), environment)
    assert not log.goes_to_journal(io.StringIO(), connected_to_journal())


# --- both ---


@pytest.fixture
def copies(journal: socket.socket) -> tuple[socket.socket, io.StringIO]:
    """Log lines, as a command does that somebody runs by hand, with a copy for the journal."""
    stream = io.StringIO()
    log.configure(stream, {}, in_journal=True)
    return journal, stream


def test_what_is_done_by_hand_is_in_the_journal_too_as_what_the_service_does(
    copies: tuple[socket.socket, io.StringIO],
) -> None:
    journal, stream = copies
    structlog.contextvars.bind_contextvars(run_id="0123")
    structlog.get_logger().warning("cut_held", message="bob: held", os_user="bob")
    assert stream.getvalue().endswith("warning bob: held\n")
    assert fields(journal.recv(65536)) == {
        "MESSAGE": "bob: held",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "rosterd",
        "RUN_ID": "0123",
        "OS_USER": "bob",
        "ROSTERD_EVENT": "cut_held",
        "OBJECT_SYSTEMD_UNIT": "rosterd.service",
    }


def test_an_entry_without_a_message_is_one_in_both(copies: tuple[socket.socket, io.StringIO]) -> None:
    journal, stream = copies
    structlog.get_logger().info("run_finished")
    assert stream.getvalue().endswith("info    run_finished\n")
    assert fields(journal.recv(65536))["MESSAGE"] == "run_finished"


def test_the_service_itself_logs_each_entry_once(journal: socket.socket) -> None:
    log.configure(real_stderr(), connected_to_journal(), in_journal=True)
    structlog.get_logger().info("event")
    journal.recv(65536)
    journal.settimeout(0)
    with pytest.raises(BlockingIOError):
        journal.recv(65536)


def test_without_a_journal_the_lines_come_all_the_same(
    copies: tuple[socket.socket, io.StringIO], tmp_path: Path
) -> None:
    _, stream = copies
    (tmp_path / "socket").unlink()
    structlog.get_logger().info("event", message="done")
    assert stream.getvalue().endswith("info    done\n")
