"""What is on record of the steps in people's homes, and when one is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from reconciler.core.home_steps import Ending, Result, Watch, watch_from

_HOUR = 3600
_MOST_WATCHES = 100
_FIRST_PAUSE, _LONGEST_PAUSE = 1 * _HOUR, 24 * _HOUR


@dataclass(frozen=True, slots=True)
class StepRecord:
    """How a step ended the last time. `at` counts seconds since 1970, `failures` the tries since it last went well.

    `digest` is that of the definition which was followed, `watches` are what it relied on.
    """

    digest: str
    ending: Ending
    detail: str
    at: int
    failures: int = 0
    watches: tuple[Watch, ...] = ()

    @property
    def went_well(self) -> bool:
        """Whether the home is as the step wants it, or the person has decided otherwise."""
        return self.ending in (Ending.DONE, Ending.KEPT)

    @property
    def pause(self) -> int:
        """For how many seconds it is not tried again: an hour, then twice as long each time, a day at most."""
        return min(_FIRST_PAUSE << max(0, min(self.failures, 10) - 1), _LONGEST_PAUSE)

    def is_within(self, seconds: int, now: int) -> bool:
        """Say whether this was so many seconds ago at most. A clock that was set back a day at most changes nothing."""
        return -_LONGEST_PAUSE <= now - self.at < seconds


def recorded_step(result: Result, digest: str, now: int, before: StepRecord | None, home: str) -> StepRecord:
    """Return the record of a step that has just been taken.

    What to look at later was named by the person's own process: nothing outside of the home is, nor without end.
    """
    failures = 0 if before is None else before.failures
    watches = tuple(watch for watch in result.watches if _is_inside(watch.path, home))[:_MOST_WATCHES]
    well = result.ending in (Ending.DONE, Ending.KEPT)
    return StepRecord(digest, result.ending, result.detail, now, 0 if well else failures + 1, watches)


def _is_inside(path: str, home: str) -> bool:
    above = [part for part in home.split("/") if part]
    parts = [part for part in path.split("/") if part]
    return path.startswith("/") and parts[: len(above)] == above and len(parts) > len(above) and ".." not in parts


def home_document(steps: Mapping[str, StepRecord]) -> dict[str, Any]:
    """Return the records of one home as a JSON document."""
    return {name: asdict(step) for name, step in steps.items()}


def home_records_from(document: Mapping[str, Any]) -> dict[str, StepRecord]:
    """Read the document of one home. Raises KeyError, TypeError or ValueError for anything else."""
    return {name: _step_record_from(step) for name, step in document.items()}


def _step_record_from(document: Mapping[str, Any]) -> StepRecord:
    record = StepRecord(
        digest=str(document["digest"]),
        ending=Ending(document["ending"]),
        detail=str(document["detail"]),
        at=int(document["at"]),
        failures=int(document["failures"]),
    )
    return replace(record, watches=tuple(watch_from(watch) for watch in document["watches"]))
