"""What rosterd is to hold, and whether it did in one run of the benchmark."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.results import SCENARIOS, Measurement, Results, exponent
from tests.bench.words import duration, people, ratio


@dataclass(frozen=True)
class Goal:
    """A goal, what was measured, and whether that holds it; None where it was not measured."""

    goal: str
    measured: str
    held: bool | None


def goals(results: Results) -> Iterator[Goal]:
    """Yield each goal."""
    for tool, name in (("ansible", "Ansible"), ("pyinfra", "pyinfra")):
        yield faster(results, tool, name)
    converged = [one for users in results.sizes if (one := results.of("rosterd", "converged", users))]
    yield within(2.5, "Nothing to do", converged)
    yield within(1.3, "A first run", [one for users in results.sizes if (one := results.of("rosterd", "first", users))])
    yield largest(results)
    yield answered(results)
    for scenario in SCENARIOS:
        points = results.line("rosterd", scenario)
        if len(points) > 1:
            steepest = max(exponent(points), exponent(points[-2:]))
            name = f"Time grows no faster than the number of people: exponent at most 1.1 ({scenario})"
            yield Goal(name, f"{steepest:.2f}", steepest <= 1.1)


def faster(results: Results, tool: str, name: str) -> Goal:
    """Compare with another tool at 100 people."""
    goal = f"With nothing to do, 100 people: at least 300 times as fast as {name}"
    own, other = results.of("rosterd", "converged", 100), results.of(tool, "converged", 100)
    if own is None or other is None:
        return Goal(goal, "not measured", None)
    times = other.seconds / own.seconds
    return Goal(goal, ratio(times), times >= 300)


def within(most: float, what: str, found: list[Measurement]) -> Goal:
    """Compare with the floor at every size."""
    ratios = {one.users: one.times_floor for one in found if one.times_floor is not None}
    text = ", ".join(f"{ratio(times)} ({people(users)})" for users, times in ratios.items())
    goal = f"{what}: within {most} times the floor at every size"
    return Goal(goal, text or "not measured", max(ratios.values()) <= most if ratios else None)


def largest(results: Results) -> Goal:
    """Look at 10,000 people."""
    goal = "With nothing to do, 10,000 people: under 5 s and 200 MB"
    one = results.of("rosterd", "converged", 10_000)
    if one is None:
        return Goal(goal, "not measured", None)
    megabytes = one.median("peak_kb") / 1000
    return Goal(goal, f"{duration(one.seconds)}, {megabytes:.0f} MB", one.seconds < 5 and megabytes < 200)


def answered(results: Results) -> Goal:
    """Look at the edit of a roster of 1,000."""
    goal = "One person added to 1,000, from the edit of the roster to their server's answer: under 2 s"
    found = results.answers.get(1_000)
    return Goal(goal, duration(max(found)), max(found) < 2) if found else Goal(goal, "not measured", None)
