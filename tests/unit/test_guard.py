"""The guard of conftest.py itself: what it forbids, and what a mark allows."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from reconciler.host.bus import Systemd

CHECKOUT = Path(__file__).parents[2]


def test_a_process_fails_the_test() -> None:
    with pytest.raises(pytest.fail.Exception, match="mark `processes`"):
        subprocess.run(["/bin/true"], check=True)


def test_a_shell_fails_the_test() -> None:
    with pytest.raises(pytest.fail.Exception, match="mark `processes`"):
        os.system("/bin/true")  # noqa: S605 (never gets there)


@pytest.mark.processes
def test_a_marked_test_may_start_a_process() -> None:
    subprocess.run(["/bin/true"], check=True)


@pytest.mark.parametrize("path", ["/run/dbus/system_bus_socket", "/run/systemd/journal/socket"])
def test_a_socket_of_the_system_fails_the_test(path: str) -> None:
    with (
        socket.socket(socket.AF_UNIX) as client,
        pytest.raises(pytest.fail.Exception, match="a service of this machine"),
    ):
        client.connect(path)


def test_the_system_bus_fails_the_test() -> None:
    with pytest.raises(pytest.fail.Exception, match="the system bus is opened"):
        Systemd().states(["t3-serve@*.service"])


@pytest.mark.processes
def test_the_processes_of_tests_find_no_bus() -> None:
    ask = "from reconciler.host.bus import Systemd; Systemd().states([])"
    ended = subprocess.run(["/usr/bin/python3", "-c", ask], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert "Could not connect: No such file or directory" in ended.stderr
