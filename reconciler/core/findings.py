"""What a plan has to tell beside its actions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FindingKind(StrEnum):
    """How bad it is. Conflicts and what is unhealthy let a run end with exit code 3.

    `PENDING` is what is still to be done outside of this machine for somebody who left.
    """

    CONFLICT = "conflict"
    UNHEALTHY = "unhealthy"
    PENDING = "pending"
    WARNING = "warning"

    @property
    def is_problem(self) -> bool:
        """Whether somebody has to act."""
        return self in (FindingKind.CONFLICT, FindingKind.UNHEALTHY)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a run cannot or will not change, in words; `user` is None for the machine itself.

    `service` and `unit` are those of the user that it is about, "" for none.
    """

    user: str | None
    kind: FindingKind
    text: str
    service: str = ""
    unit: str = ""


def conflict(user: str | None, text: str, service: str = "") -> Finding:
    """Return a finding that keeps the run from its aim."""
    return Finding(user, FindingKind.CONFLICT, text, service)


def warning(user: str | None, text: str, service: str = "") -> Finding:
    """Return a finding that is told and nothing more."""
    return Finding(user, FindingKind.WARNING, text, service)


def unhealthy(user: str, service: str, unit: str, text: str) -> Finding:
    """Return a finding of a unit that is not well; `text` goes on after the unit's name."""
    return Finding(user, FindingKind.UNHEALTHY, f"{service}: {unit} {text}", service, unit)
