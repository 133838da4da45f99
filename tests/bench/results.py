"""What the benchmark measures, as plain values, and what is worked out from them."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# In the order of the tables.
TOOLS = ("rosterd", "floor", "shell", "pyinfra", "ansible")
PEERS = ("shell", "pyinfra", "ansible")
SCENARIOS = ("converged", "first", "added", "dry-run", "status")


@dataclass(frozen=True)
class Sample:
    """One run of one command: seconds, kilobytes, and the process ids that the machine gave out meanwhile."""

    seconds: float
    cpu: float
    systemd_cpu: float
    bus_cpu: float
    peak_kb: int
    pids: int


@dataclass(frozen=True)
class Counts:
    """What one run of one command did, as strace saw it: counted once, apart from the times."""

    programs: int
    bus_calls: int
    files_changed: int
    bytes_written: int


@dataclass
class Measurement:
    """All rounds of one tool in one situation; `floors` are those of the floor, each right before one of `samples`."""

    tool: str
    scenario: str
    users: int
    samples: list[Sample] = field(default_factory=list)
    floors: list[Sample] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median of the rounds."""
        return self.median("seconds")

    @property
    def times_floor(self) -> float | None:
        """The median of how many times the floor's time it took, round by round."""
        pairs = zip(self.samples, self.floors, strict=False)
        return statistics.median(one.seconds / floor.seconds for one, floor in pairs) if self.floors else None

    def median(self, what: str) -> float:
        """Return the median of one figure over the rounds."""
        values: list[float] = [getattr(sample, what) for sample in self.samples]
        return statistics.median(values)


@dataclass(frozen=True)
class NotRun:
    """What was left out as it would take too long: `seconds` is worked out, not measured."""

    tool: str
    scenario: str
    users: int
    seconds: float


@dataclass
class Results:
    """All of one run of the benchmark.

    `counts` are by tool and situation, at the smallest size. By the number of users, `reloads` are the seconds that
    systemd takes to read its units again, and `answers` those from the edit of the roster to the answer of the new
    person's server.
    """

    about: Mapping[str, Any]
    sizes: Sequence[int]
    measurements: list[Measurement] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    counts: dict[tuple[str, str], Counts] = field(default_factory=dict)
    reloads: dict[int, float] = field(default_factory=dict)
    answers: dict[int, list[float]] = field(default_factory=dict)

    def of(self, tool: str, scenario: str, users: int) -> Measurement | None:
        """Return what was measured of it, if it was."""
        same = (tool, scenario, users)
        return next((one for one in self.measurements if (one.tool, one.scenario, one.users) == same), None)

    def line(self, tool: str, scenario: str) -> list[tuple[int, float]]:
        """Return its seconds by the number of users, where it was measured, in the order of the sizes."""
        found = ((users, self.of(tool, scenario, users)) for users in self.sizes)
        return [(users, one.seconds) for users, one in found if one is not None]

    def as_json(self) -> dict[str, Any]:
        """Return everything, with the figures that the page shows."""
        return {
            "about": self.about,
            "measurements": [
                {"seconds": one.seconds, "times_floor": one.times_floor, **asdict(one)} for one in self.measurements
            ],
            "not_run": [asdict(one) for one in self.not_run],
            "counts": [
                {"tool": tool, "scenario": scenario, "users": self.sizes[0], **asdict(counts)}
                for (tool, scenario), counts in self.counts.items()
            ],
            "reload": self.reloads,
            "edit_to_answer": self.answers,
        }


def predicted(points: Sequence[tuple[int, float]], users: int) -> float | None:
    """Return the seconds that it would take if it goes on as between the last two of `points`; None without any.

    From one point alone, as many times as long as there are times as many users.
    """
    if not points:
        return None
    slope = exponent(points[-2:]) if len(points) > 1 else 1.0
    last_users, last_seconds = points[-1]
    return float(last_seconds * (users / last_users) ** slope)


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """Return k of the power law seconds ~ users^k, by least squares over the logarithms."""
    logarithms = [(math.log(users), math.log(seconds)) for users, seconds in points]
    return statistics.linear_regression(*zip(*logarithms, strict=True)).slope
