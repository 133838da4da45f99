"""What is kept of the last run over everybody, and its form as a JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class LastRun:
    """`at` counts seconds since 1970 at its end, `exit` is its exit code, `seconds` how long it took.

    `good` is when the last one ended that everything went well in, None where there was none. `restarts` is how often
    systemd had restarted a unit by itself, of those where it had. `digest` is that of the roster and the site file that
    it went by, or, where they were refused, the run before.
    """

    id: str
    at: int
    exit: int
    seconds: float
    good: int | None = None
    restarts: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""


def last_run_document(run: LastRun) -> dict[str, Any]:
    """Return the document of a run."""
    return asdict(run)


def last_run_from(document: Mapping[str, Any]) -> LastRun:
    """Read the document of a run. Raises ValueError, KeyError, TypeError or AttributeError where it is none."""
    good = document["good"]
    return LastRun(
        id=str(document["id"]),
        at=int(document["at"]),
        exit=int(document["exit"]),
        seconds=float(document["seconds"]),
        good=None if good is None else int(good),
        restarts={str(unit): int(number) for unit, number in document["restarts"].items()},
        digest=str(document["digest"]),
    )
