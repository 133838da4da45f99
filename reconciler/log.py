"""The log: one constant event name and key/values, through structlog.

Under systemd the entries go to the journal's native socket with fields of their own, on a terminal
each is one coloured line, elsewhere one plain line, always on standard error.

Journal fields: MESSAGE, PRIORITY, SYSLOG_IDENTIFIER=rosterd, RUN_ID, OS_USER (the person concerned),
ROSTERD_ACTION (the kind of action), ROSTERD_EVENT (the event name), ROSTERD_<KEY> for the rest.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import socket
import sys
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, TextIO, cast

import structlog

_SERVICE = "rosterd.service"
_SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_OWN_NAMES = {"message": "MESSAGE", "os_user": "OS_USER", "run_id": "RUN_ID"}
_COLOURS = {"info": "32", "warning": "33", "error": "31", "critical": "1;31"}
_UNIT = re.compile(r"[^/]+\.service")


def configure(
    stream: TextIO = sys.stderr, environment: Mapping[str, str] = os.environ, *, in_journal: bool = False
) -> None:
    """Send the log where it belongs: to the journal, to a terminal, or as plain lines to `stream`.

    `in_journal`: whatever `stream` is, the journal has the entries too, as those of rosterd.service.
    """
    first: list[Any] = [structlog.contextvars.merge_contextvars]
    if goes_to_journal(stream, environment):
        factory: Any = _Journal().itself  # one socket for all entries
        last: Any = _journal_fields
    else:
        factory = structlog.PrintLoggerFactory(cast("TextIO", _Unbroken(stream)))
        last = _Lines(colour=wants_colour(stream, environment))
        first += [_Copy(_Journal(_SERVICE))] if in_journal else []
    structlog.configure(
        processors=[*first, last],
        wrapper_class=structlog.BoundLogger,
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )


def goes_to_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Say whether systemd connected the stream to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Say whether to colour: on a terminal, unless NO_COLOR is set to anything."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def discard(stream: TextIO) -> None:
    """Let what is still written to a stream go nowhere: its reader has left, or it takes no more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class _Unbroken(io.TextIOBase):
    """A stream whose reader may leave, or whose disk be full, in the middle of a run without ending it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            discard(self._stream)
        return len(text)


class _Lines:
    """Renders an entry as one line of text."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, _logger: Any, level: str, entry: MutableMapping[str, Any]) -> str:  # noqa: ANN401
        text = str(entry.get("message", entry["event"])).replace("\n", "\n  ")
        clock = time.strftime("%H:%M:%S")
        code = _COLOURS.get(level) if self._colour else None
        shown = f"\x1b[{code}m{level:<7}\x1b[0m" if code else f"{level:<7}"
        return f"{clock} {shown} {text}"


def _journal_fields(
    _logger: Any,  # noqa: ANN401 (structlog's processors take any logger)
    level: str,
    entry: MutableMapping[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Turn an entry into journal fields, as the argument of `_Journal`."""
    fields = {"MESSAGE": entry["event"], "ROSTERD_EVENT": entry.pop("event")}
    fields |= {_OWN_NAMES.get(key, f"ROSTERD_{key.upper()}"): value for key, value in entry.items()}
    fields |= {"PRIORITY": _PRIORITIES.get(level, 6), "SYSLOG_IDENTIFIER": "rosterd"}
    return (fields,), {}


class _Copy:
    """Sends each entry to the journal on its way to somewhere else."""

    def __init__(self, journal: _Journal) -> None:
        self._journal = journal

    def __call__(self, logger: Any, level: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401
        (fields,), _ = _journal_fields(logger, level, dict(entry))
        self._journal.msg(fields)
        return entry


class _Journal:
    """Writes entries to the journal (systemd's Native Journal Protocol), as those of `unit` or of its own."""

    def __init__(self, unit: str | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        unit = unit or _own_unit()
        # A process that has ended before journald looks at it has lost its unit; this field has not.
        self._unit = {"OBJECT_SYSTEMD_UNIT": unit} if unit else {}

    def itself(self, *_: object) -> _Journal:
        """Return this logger: a factory of loggers that makes no further one."""
        return self

    def msg(self, fields: Mapping[str, object]) -> None:
        """Send one entry."""
        datagram = b"".join(_encoded(key, str(value)) for key, value in {**fields, **self._unit}.items())
        try:
            self._socket.sendto(datagram, _SOCKET)
        except OSError as error:
            # Any other error: the journal is gone. A run is not ended for the lack of a listener.
            if error.errno == errno.EMSGSIZE:
                with contextlib.suppress(OSError):
                    self._send_large(datagram)

    debug = info = warning = error = critical = msg

    def _send_large(self, datagram: bytes) -> None:
        """Hand an entry too large for a datagram over in a sealed memory file."""
        descriptor = os.memfd_create("rosterd-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with os.fdopen(descriptor, "wb") as file:
            file.write(datagram)
            file.flush()
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            self._socket.connect(_SOCKET)
            socket.send_fds(self._socket, [], [descriptor])


def _encoded(key: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" not in data:
        return key.encode() + b"=" + data + b"\n"
    return key.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def _own_unit() -> str | None:
    """Return the service that this process runs in (cgroups(7), /proc/pid/cgroup)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    units = [part for line in lines for part in line.split("/") if _UNIT.fullmatch(part)]
    return units[-1] if units else None
