"""What became of an action, and what an executor is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from reconciler.core.actions import Action


class Status(StrEnum):
    """How an action ended."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One action and how it ended; `why` says so where it was not done, and of some what came of it."""

    action: Action
    status: Status = Status.DONE
    why: str = ""


class Executor(Protocol):
    """Carries out actions. The engine knows no other way to change the host."""

    def apply(self, actions: Sequence[Action]) -> Iterable[Outcome]:
        """Carry out the actions of one phase and yield an outcome for each, as soon as it is known."""
        ...
