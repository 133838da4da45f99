"""Listening sockets, asked of the kernel; the oracle is the socket that the test has opened."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.observed import Listener
from reconciler.host import scan_ports
from reconciler.host.scan_ports import dump_listening, scan_listeners, units_of

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture(params=[pytest.param(V4, id="IPv4"), pytest.param(V6, id="IPv6")])
def listening(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Listen on some free port of the loopback."""
    with socket.socket(request.param) as server:
        server.bind(("127.0.0.1" if request.param == V4 else "::1", 0))
        server.listen()
        yield server


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def none_of_ours(_unit: str) -> bool:
    return False


def test_a_listening_socket_is_found_with_its_owner_and_inode(listening: socket.socket) -> None:
    found = [entry for entry in dump_listening(listening.family) if entry.port == port_of(listening)]
    assert [(entry.uid, entry.inode) for entry in found] == [(os.geteuid(), os.fstat(listening.fileno()).st_ino)]


def test_where_somebody_may_ask_who_it_is_the_process_is_found(listening: socket.socket) -> None:
    port = port_of(listening)
    found = [entry for entry in scan_listeners(lambda other: other == port, none_of_ours) if entry.port == port]
    assert [(entry.uid, entry.pid) for entry in found] == [(os.geteuid(), os.getpid())]


def test_elsewhere_nobody_is_looked_for(listening: socket.socket) -> None:
    port = port_of(listening)
    found = [entry for entry in scan_listeners(lambda _: False, none_of_ours) if entry.port == port]
    assert found == [Listener(port, os.geteuid())]


def test_a_socket_that_does_not_listen_is_not_found() -> None:
    with socket.socket(V4) as server:
        server.bind(("127.0.0.1", 0))
        assert port_of(server) not in {entry.port for entry in dump_listening(V4)}


def test_the_same_sockets_come_in_the_same_order(listening: socket.socket) -> None:
    del listening
    found = [(entry.port, entry.uid) for entry in scan_listeners(lambda _: False, none_of_ours)]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("folder", "units"),
    [
        ("/system.slice/t3-serve@alice.service", ("t3-serve@alice.service", None)),
        ("/system.slice/system-t3.slice/t3-serve@alice.service/worker.service", ("t3-serve@alice.service", None)),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/playwright-mcp.service",
            ("user@1000.service", "playwright-mcp.service"),
        ),
        ("/user.slice/user-1000.slice/session-2.scope/t3-serve@alice.service", ("session-2.scope", None)),
        ("/init.scope", ("init.scope", None)),
        ("/user.slice", (None, None)),
        ("", (None, None)),
        ("/docker/0123456789ab/t3-serve@alice.service", (None, None)),
    ],
)
def test_a_cgroup_belongs_to_the_outermost_unit_for_below_it_people_name_folders(
    folder: str, units: tuple[str | None, str | None]
) -> None:
    assert units_of(folder) == units


@pytest.mark.parametrize(
    ("family", "address", "loopback"),
    [
        (V4, "127.0.0.1", True),
        (V4, "127.8.9.1", True),
        (V4, "0.0.0.0", False),  # noqa: S104 (what is to be found)
        (V6, "::1", True),
        (V6, "::", False),
        (V6, "::ffff:127.0.0.1", True),
        (V6, "::ffff:0.0.0.0", False),
    ],
)
def test_a_socket_that_only_this_machine_reaches_is_told_from_an_open_one(
    family: int, address: str, *, loopback: bool
) -> None:
    with socket.socket(family) as server:
        if family == V6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((address, 0))
        server.listen()
        port = port_of(server)
        found = {entry.loopback for entry in scan_listeners(lambda _: False, none_of_ours) if entry.port == port}
    assert found == {loopback}


# --- a machine made of files: /proc and the cgroup folders ---


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Make a /proc where the cgroup hierarchy is a folder beside it."""
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "proc" / "self").mkdir(parents=True)
    mounted = f"30 23 0:26 / {tmp_path}/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
    (tmp_path / "proc" / "self" / "mountinfo").write_text(f"22 1 0:21 / / rw - ext4 /dev/sda rw\n{mounted}")
    return tmp_path / "proc"


def one_socket(monkeypatch: pytest.MonkeyPatch, inode: int, cgroup: int | None) -> None:
    """Let the kernel know of one socket alone; real cgroups cannot be made without a machine."""
    found = scan_ports.Socket(3773, 1000, inode, cgroup)
    monkeypatch.setattr(scan_ports, "dump_listening", lambda family: iter([found] if family == V4 else []))


def add_process(proc: Path, pid: int, inode: int) -> None:
    (proc / str(pid) / "fd").mkdir(parents=True)
    (proc / str(pid) / "fd" / "3").symlink_to(f"socket:[{inode}]")


def test_the_unit_is_the_folder_whose_number_the_kernel_gives(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = proc.parent / "cgroup" / "system.slice" / "t3-serve@alice.service"
    folder.mkdir(parents=True)
    one_socket(monkeypatch, 77, folder.stat().st_ino)
    unit = "t3-serve@alice.service"
    assert scan_listeners(lambda _: True, unit.__eq__, proc) == (Listener(3773, 1000, unit),)


def test_the_pid_is_that_of_the_process_in_the_cgroup_that_holds_the_socket(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = proc.parent / "cgroup" / "stranger.service"
    folder.mkdir()
    (folder / "cgroup.procs").write_text("41\n42\n")
    add_process(proc, 41, 76)
    add_process(proc, 42, 77)
    one_socket(monkeypatch, 77, folder.stat().st_ino)
    assert scan_listeners(lambda _: True, none_of_ours, proc) == (Listener(3773, 1000, "stranger.service", 42),)


def test_without_a_cgroup_every_process_is_looked_at(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_process(proc, 42, 77)
    one_socket(monkeypatch, 77, None)
    assert scan_listeners(lambda _: True, none_of_ours, proc) == (Listener(3773, 1000, None, 42),)


def test_a_cgroup_that_is_gone_meanwhile_leaves_the_unit_unknown(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (proc.parent / "cgroup").rmdir()
    one_socket(monkeypatch, 77, 4711)
    assert scan_listeners(lambda _: True, none_of_ours, proc) == (Listener(3773, 1000),)


# --- the kernel's message ---


def test_a_message_of_the_kernel_is_taken_apart() -> None:
    """Laid out by hand after linux/inet_diag.h: inet_diag_msg, then attributes of four bytes' alignment."""
    identity = struct.pack(">HH", 3773, 0) + bytes(16) + bytes(16) + struct.pack("=I2I", 0, 1, 2)
    message = struct.pack("=BBBB", V4, 10, 0, 0) + identity + struct.pack("=5I", 0, 0, 128, 1000, 77)
    odd_length = struct.pack("=HH", 5, 8) + b"\x01" + bytes(3)
    cgroup = struct.pack("=HHQ", 12, 21, 0x1_0000_0001)
    found = scan_ports._socket(message + odd_length + cgroup)  # noqa: SLF001 (no kernel sends this)
    assert found == scan_ports.Socket(3773, 1000, 77, 0x1_0000_0001, loopback=False)
    assert scan_ports._socket(message).cgroup is None  # noqa: SLF001 (as above)
