"""Tries a reader with damaged files, and counts what comes of it."""

from __future__ import annotations

import re
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType

from reconciler.errors import FileRefused
from tests.unit.mutations import mutated

MOST_SECONDS = 1.0
MOST_SHOWN = 10
HEAD = re.compile(r"file\.yaml:(\d+):(\d+): \S")


class Hung(Exception):
    """A reader has used a second of processor time."""


class Finding(Exception):
    """Something is not as it should be; `kind` is the name under which it is counted."""

    def __init__(self, kind: str, what: str) -> None:
        """Say what it is."""
        super().__init__(what)
        self.kind = kind


@dataclass(frozen=True)
class Target:
    """A reader, the good files that are damaged for it, and the words that mean something in them.

    `read` returns whether the file is accepted, with an error of the documented kind being False. It raises `Finding`
    where the outcome is wrong; what else it raises is a traceback that somebody would have seen.
    """

    name: str
    seeds: Sequence[bytes]
    words: Sequence[bytes]
    read: Callable[[bytes], bool]


@dataclass
class Tally:
    """What has come of the cases so far."""

    counts: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)

    def attempt(self, name: str, read: Callable[[], bool]) -> None:
        """Try one case within its time; `name` is what a person needs to have it again."""
        self.counts["cases"] += 1
        try:
            with in_time():
                self.counts["accepted"] += read()
        except Hung:
            self._show("hangs", name, traceback.format_exc(limit=-3))
        except Finding as found:
            self._show(found.kind, name, str(found))
        except Exception:  # noqa: BLE001 (that none comes is what is tested)
            self._show("tracebacks", name, traceback.format_exc(limit=-4))

    def _show(self, kind: str, name: str, what: str) -> None:
        self.counts[kind] += 1
        if len(self.shown) < MOST_SHOWN:
            self.shown.append(f"{name}: {kind}: {what}")

    def numbers(self, *kinds: str) -> dict[str, int]:
        """Return the counts of these kinds."""
        return {kind: self.counts[kind] for kind in kinds}

    def check(self) -> None:
        """Fail with the first findings, if there are any."""
        assert not self.shown, "\n\n".join(self.shown)


@contextmanager
def in_time() -> Iterator[None]:
    """Raise `Hung` in what uses more than a second of processor time: others share the machine."""
    before = signal.signal(signal.SIGVTALRM, _hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise Hung


def fuzz(target: Target, numbers: range) -> Tally:
    """Try a target with the cases of these numbers."""
    tally = Tally()
    for number in numbers:
        data = mutated(number, target.seeds, target.words)
        tally.attempt(f"{target.name} case {number}, {data[:300]!r}", partial(target.read, data))
    return tally


def places_are_told(refused: FileRefused, data: bytes) -> None:
    """See that each problem has a line and a column, which are in the file, or just behind it."""
    lines = re.split(r"\r\n?|\n", data.decode("utf-8", "replace"))
    heads = [line for line in str(refused).split("\n") if line.startswith("file.yaml:")]
    for head in heads:
        place = HEAD.match(head)
        if place is None and not head.endswith(" more problems"):
            raise Finding("without_place", head)
        if place is not None and not (1 <= int(place[1]) <= len(lines) and int(place[2]) >= 1):
            raise Finding("without_place", head)
    if not heads:
        raise Finding("without_place", str(refused))
