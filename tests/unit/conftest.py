"""A guard: no test starts a process, or talks to a service of the machine it runs on, unless it says so.

Tests that need a process are marked `processes`. There is no mark for the system's sockets and its bus;
the processes that tests start find no bus either.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from reconciler.host import bus

settings.register_profile("rosterd", deadline=None, print_blob=True)
settings.load_profile("rosterd")

_NO_BUS = "unix:path=/nonexistent/no-bus-in-unit-tests"

_STARTS = frozenset({"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn"})
_SENDS = frozenset({"socket.connect", "socket.sendto"})
_SYSTEM_SOCKETS = ("/run/", "/var/run/", "/dev/")


class _Guard:
    """Hears of everything through an audit hook (PEP 578), which cannot be taken off, so it is switched."""

    def __init__(self) -> None:
        self.watching = False
        self.processes_allowed = False

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        """Fail the test in which something forbidden happens. Code under test cannot catch this failure."""
        if not self.watching:
            return
        if event in _STARTS and not self.processes_allowed:
            pytest.fail(f"a process is started ({event} {arguments[:2]}); if it has to be: mark `processes`")
        if event in _SENDS and _is_system_socket(arguments[1]):
            pytest.fail(f"a service of this machine is spoken to ({event} {arguments[1]!r})")


def _is_system_socket(address: object) -> bool:
    return isinstance(address, str | bytes) and os.fsdecode(address).startswith(_SYSTEM_SOCKETS)


_guard = _Guard()
sys.addaudithook(_guard.hear)


def _no_bus() -> None:
    pytest.fail("the system bus is opened; a unit test needs none")


@pytest.fixture(autouse=True)
def _no_accidents(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Watch for the time of one test."""
    # GLib connects in C, where no audit hook hears of it.
    monkeypatch.setattr(bus, "_open_system_bus", _no_bus)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", _NO_BUS)
    _guard.processes_allowed = request.node.get_closest_marker("processes") is not None
    _guard.watching = True
    yield
    _guard.watching = False
