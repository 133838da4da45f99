"""What `rosterd status` tells, as plain values and as its JSON document. No I/O here.

`status_json` is the documented form; its `version` changes when a key changes its meaning or goes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

JSON_VERSION = 1


class AccountState(StrEnum):
    """How a person stands on this machine.

    `MISSING`: on the roster, no account yet. `UNMANAGED`: an account that is not rosterd's, on the roster or in a
    map. `TOMBSTONE`: deleted, name and ports kept.
    """

    ACTIVE = "active"
    PARKED = "parked"
    MISSING = "missing"
    CUT = "cut"
    UNMANAGED = "unmanaged"
    TOMBSTONE = "tombstone"


class Health(StrEnum):
    """How a service is. `OFF`: it is not to run, and does not; `UNKNOWN`: systemd or the ports could not be asked."""

    OK = "ok"
    OFF = "off"
    STARTING = "starting"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PortHolder:
    """Who listens on a port. `pid` is None where it is not to be seen, `unit` where there is none."""

    pid: int | None
    user: str
    unit: str | None


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """One instance. `restarts` are those since the last run, None where that is not known."""

    name: str
    active: str
    sub: str
    enabled: bool
    restarts: int | None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service of one person. `memory` and `memory_max` are bytes, None where there is none or no cap."""

    name: str
    port: int | None
    listener: PortHolder | None
    units: tuple[UnitStatus, ...]
    memory: int | None
    memory_max: int | None
    health: Health


@dataclass(frozen=True, slots=True)
class UserStatus:
    """One person. `tier` is "" where the roster does not have them, `uid` None without an account.

    `pending` is what is still to be done without somebody having to see to it at once: steps in the home and outside of
    this machine, those that failed too, and restarts. `problems` is what somebody has to see to, `changes` what
    else the next run would do, each in words.
    """

    name: str
    uid: int | None
    tier: str
    state: AccountState
    pending: tuple[str, ...]
    problems: tuple[str, ...]
    changes: tuple[str, ...]
    services: tuple[ServiceStatus, ...]


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The last run over everybody: `at` counts seconds since 1970 at its end, `exit` is its exit code."""

    id: str
    at: int
    exit: int


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """Everybody, the worst first. `problems` concern the machine itself; `unseen` is what could not be read."""

    run: RunStatus | None
    users: tuple[UserStatus, ...]
    problems: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


def status_json(status: MachineStatus) -> dict[str, Any]:
    """Return the document for programs."""
    return {"version": JSON_VERSION, **asdict(status)}
