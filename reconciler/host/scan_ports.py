"""Reads the listening TCP sockets: one sock_diag(7) dump for each of IPv4 and IPv6.

The kernel tells address, port, owner and cgroup of each socket at once. The unit is the first part of the
cgroup's path that is not a slice: below it people name folders as they like. A pid is looked for only
where somebody will ask who it is: for a socket in the range of a service that none of the service's
instances holds.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from reconciler.core.observed import Listener
from reconciler.errors import ScanFailed
from reconciler.host import scan_cgroups

# linux/sock_diag.h, linux/inet_diag.h, linux/netlink.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_DONE, _ERROR = 3, 2
_LISTEN = 1 << 10  # TCP_LISTEN as a bit of idiag_states
_CGROUP_ID = 21  # INET_DIAG_CGROUP_ID, since Linux 5.9
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI48s")
_MESSAGE = struct.Struct("=4BHH16s16sI2I5I")
_PORT = struct.Struct(">H")
_ADDRESS = 8  # where idiag_src begins
_SECONDS = 10.0
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(service|scope|socket)")
_USER_MANAGER = re.compile(r"user@\d+\.service")


@dataclass(frozen=True, slots=True)
class Socket:
    """One listening socket as the kernel reports it."""

    port: int
    uid: int
    inode: int
    cgroup: int | None
    loopback: bool = True


def scan_listeners(
    concerns: Callable[[int], bool], is_instance: Callable[[str], bool], proc: Path = Path("/proc")
) -> tuple[Listener, ...]:
    """Return all listening TCP ports, each once a process.

    Ports that `concerns` is true of are given their unit, and their pid too where `is_instance` is
    false of that unit. Raises `ScanFailed`.
    """
    sockets = {found for family in (socket.AF_INET, socket.AF_INET6) for found in dump_listening(family)}
    wanted = {found.cgroup for found in sockets if found.cgroup and concerns(found.port)}
    mount = scan_cgroups.mount(proc) if wanted else None
    folders = _cgroup_folders(wanted, mount) if mount else {}
    listeners = set()
    for found in sockets:
        if not concerns(found.port):
            listeners.add(Listener(found.port, found.uid, loopback=found.loopback))
            continue
        folder = folders.get(found.cgroup)
        unit, user_unit = units_of(folder.removeprefix(mount)) if folder and mount else (None, None)
        pid = None if unit and is_instance(unit) else _pid_of(found, folder, proc)
        listeners.add(Listener(found.port, found.uid, unit, pid, user_unit, found.loopback))
    return tuple(sorted(listeners, key=_order))


def _order(found: Listener) -> tuple[int, int, str, int, bool]:
    return (found.port, found.uid, found.unit or "", found.pid or 0, found.loopback)


def dump_listening(family: int) -> Iterator[Socket]:
    """Yield the listening TCP sockets of one address family."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(_SECONDS)
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _LISTEN, bytes(48))
        header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _DUMP, 1, 0)
        try:
            link.send(header + body)
            while True:
                answer = link.recv(1 << 18)
                for kind, message in _messages(answer):
                    if kind == _DONE:
                        return
                    if kind == _ERROR:
                        raise ScanFailed(f"listening sockets: {os.strerror(-_errno(message))}")
                    yield _socket(message)
        except OSError as error:
            raise ScanFailed(f"listening sockets: {error.strerror or error}") from error
        except struct.error as error:
            raise ScanFailed(f"listening sockets: the answer is cut off: {error}") from error


def units_of(folder: str) -> tuple[str | None, str | None]:
    """Return the system's unit that a cgroup belongs to, and the unit of a person's own manager below it.

    `folder` is relative to the mount. Only root can make units of the system's manager, so the first name can be
    trusted (as in systemd's cg_path_get_unit()); the second is what its owner calls it.
    """
    parts = [part for part in folder.strip("/").split("/") if not part.endswith(".slice")]
    if not parts or not _UNIT.fullmatch(parts[0]):
        return None, None
    own = [part for part in parts[1:] if _UNIT.fullmatch(part)] if _USER_MANAGER.fullmatch(parts[0]) else []
    return parts[0], own[-1] if own else None


def _messages(answer: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + _HEADER.size <= len(answer):
        length, kind, *_ = _HEADER.unpack_from(answer, position)
        yield kind, answer[position + _HEADER.size : position + length]
        position += (length + 3) & ~3


def _errno(message: bytes) -> int:
    number: int = struct.unpack_from("=i", message)[0]
    return number


def _socket(message: bytes) -> Socket:
    fields = _MESSAGE.unpack_from(message)
    return Socket(
        port=_PORT.unpack_from(message, 4)[0],
        uid=fields[-2],
        inode=fields[-1],
        cgroup=_cgroup_id(message),
        loopback=_is_loopback(message[0], message[_ADDRESS : _ADDRESS + 16]),
    )


def _is_loopback(family: int, address: bytes) -> bool:
    """Say whether only this machine reaches a bound address; IPv4 may be written as IPv6, ::ffff:127.0.0.1."""
    if family == socket.AF_INET:
        return IPv4Address(address[:4]).is_loopback
    whole = IPv6Address(address)
    return (whole.ipv4_mapped or whole).is_loopback


def _cgroup_id(message: bytes) -> int | None:
    position = _MESSAGE.size
    while position + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, position)
        if kind == _CGROUP_ID:
            number: int = struct.unpack_from("=Q", message, position + 4)[0]
            return number
        position += max(4, (length + 3) & ~3)
    return None


def _cgroup_folders(wanted: set[int], mount: str) -> dict[int | None, str]:
    """Find the cgroups with these ids. A cgroup's id is the inode number of its folder (cgroups(7)).

    Cgroups come and go while this looks; one that has gone held no socket any more.
    """
    found: dict[int | None, str] = {}
    waiting = [mount]
    while waiting and len(found) < len(wanted):
        for path, inode in _folders_in(waiting.pop()):
            waiting.append(path)
            if inode in wanted:
                found[inode] = path
    return found


def _folders_in(folder: str) -> list[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            return [(entry.path, entry.inode()) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _pid_of(found: Socket, folder: str | None, proc: Path) -> int | None:
    """Return who holds a socket: by its file descriptors, else the first of its cgroup with its owner.

    The second way serves where the descriptors of others may not be read (no CAP_SYS_PTRACE).
    """
    pids = _pids(folder, proc)
    target = f"socket:[{found.inode}]"
    for pid in pids:
        if _holds(proc / str(pid) / "fd", target):
            return pid
    return next((pid for pid in pids if _owner(proc / str(pid)) == found.uid), None) if folder else None


def _pids(folder: str | None, proc: Path) -> list[int]:
    if folder is None:
        return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()]
    try:
        return [int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _holds(descriptors: Path, target: str) -> bool:
    try:
        return any(str(entry.readlink()) == target for entry in descriptors.iterdir())
    except OSError:
        return False  # it ended meanwhile, or may not be looked at


def _owner(process: Path) -> int | None:
    try:
        return process.stat().st_uid
    except OSError:
        return None
