"""What a hazard is, and all that the functions which find them judge by. No I/O here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from reconciler.core.desired import Desired
from reconciler.core.observed import Observed
from reconciler.core.plan_accounts import managed_accounts
from reconciler.core.plan_ports import taken_ports
from reconciler.core.ports import Holder, allocate
from reconciler.core.sightings import ServiceLook, Sightings
from reconciler.core.site import instance_of, template_of
from reconciler.core.text import counted


class HazardKind(StrEnum):
    """The hazards, the worst first."""

    PORT_HELD = "port-held"
    PORT_SHARED = "port-shared"
    WRONG_PORT = "wrong-port"
    READABLE_SECRET = "readable-secret"  # noqa: S105 (the name of a hazard)
    FOREIGN_SOCKET = "foreign-socket"
    OPEN_LISTENER = "open-listener"
    READABLE_HOME = "readable-home"
    CRASH_LOOP = "crash-loop"
    NO_MEMORY_CAP = "no-memory-cap"
    NO_PRIVATE_TMP = "no-private-tmp"
    STRAY_LINK = "stray-link"
    STRAY_ENV_FILE = "stray-env-file"

    @property
    def headline(self) -> str:
        """What is wrong, in words."""
        return _HEADLINES[self]


_HEADLINES = {
    HazardKind.PORT_HELD: "somebody else listens on the port of a person's service",
    HazardKind.PORT_SHARED: "two services have one port",
    HazardKind.WRONG_PORT: "a service listens on another port than its env file says",
    HazardKind.READABLE_SECRET: "a file that may hold secrets is not root's alone",
    HazardKind.FOREIGN_SOCKET: "a socket that bears a person's name is somebody else's",
    HazardKind.OPEN_LISTENER: "a person's server can be reached from the network",
    HazardKind.READABLE_HOME: "a home is open to everybody on this machine",
    HazardKind.CRASH_LOOP: "a service crashes again and again",
    HazardKind.NO_MEMORY_CAP: "one person can take all of the memory",
    HazardKind.NO_PRIVATE_TMP: "a service shares /tmp with everybody",
    HazardKind.STRAY_LINK: "an enabled unit is nobody's",
    HazardKind.STRAY_ENV_FILE: "an env file is nobody's, and keeps its port",
}


@dataclass(frozen=True, slots=True)
class Hazard:
    """One hazard. `users` are the people whom it concerns, sorted; none where it is the machine's.

    `evidence` is what was seen, `remedy` a command or an edit, or several with when and why.
    """

    kind: HazardKind
    users: tuple[str, ...]
    evidence: str
    remedy: str


@dataclass(frozen=True)
class Case:
    """All there is to judge by. `people` are those whom a function is to tell of: they have an account."""

    desired: Desired
    observed: Observed
    seen: Sightings
    people: frozenset[str]

    @cached_property
    def uids(self) -> Mapping[str, int]:
        """The uids of the people."""
        return {name: self.observed.accounts[name].uid for name in sorted(self.people)}

    @cached_property
    def holders(self) -> Mapping[int, list[Holder]]:
        """Who keeps each port that an env file keeps."""
        found = defaultdict(list)
        for holder, port in sorted(self.observed.sticky_ports.items()):
            found[port].append(holder)
        return found

    @cached_property
    def running(self) -> Mapping[str, Mapping[str, ServiceLook]]:
        """The running services of the people, by template and person."""
        found: dict[str, dict[str, ServiceLook]] = defaultdict(dict)
        for unit, look in sorted(self.seen.services.items()):
            if (owner := instance_of(unit)) in self.people:
                found[template_of(unit)][owner] = look
        return found

    def env_path(self, holder: Holder) -> str:
        """Return the env file of a person's service."""
        user, service = holder
        rule = self.desired.services[service].port
        return rule.path_for(user) if rule else ""

    def port_line(self, service: str) -> str:
        """Return the assignment of a port that is free, for an env file."""
        rule = self.desired.services[service].port
        free = allocate(rule, [""], taken_ports(self.observed))[""] if rule else None
        return f"{rule.variable}={free or '(one that is free)'}" if rule else ""


def people_of(desired: Desired, observed: Observed) -> frozenset[str]:
    """Return who works here: everybody managed, and everybody on the roster who has an account."""
    return (managed_accounts(observed) | desired.users.keys()) & observed.accounts.keys()


def have(things: Collection[object], word: str) -> str:
    """Return as in 1 home has, 2 homes have."""
    return f"{counted(len(things), word)} {'has' if len(things) == 1 else 'have'}"
