"""Writes docs/performance.md: the figures of one run of the benchmark in the text of performance.md.in."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import Template

from tests.bench.goals import goals
from tests.bench.results import SCENARIOS, TOOLS, Measurement, Results, exponent
from tests.bench.words import duration, people, ratio

TEMPLATE = Path(__file__).parent / "performance.md.in"
TITLES = {
    "converged": "Nothing to do",
    "first": "First run",
    "added": "One person more",
    "dry-run": "Dry run",
    "status": "`rosterd status`",
}
NAMES = {
    "rosterd": "rosterd",
    "floor": "floor",
    "shell": "shell loop",
    "pyinfra": "pyinfra",
    "ansible": "Ansible",
}
KB_IN_MB, HOUR = 1000, 3600


def page(results: Results) -> str:
    """Return the whole page."""
    text = Template(TEMPLATE.read_text())
    return text.substitute(
        **{name: str(value) for name, value in results.about.items()},
        short="\n".join(short(results)),
        beside_tools="\n".join(beside_tools(results)),
        beside_floor="\n".join(beside_floor(results)),
        use="\n".join(use(results)),
        counts="\n".join(counts(results)),
        counted=people(results.sizes[0]),
        growth="\n".join(growth(results)),
        answers="\n".join(answers(results)),
        goals="\n".join(goal_rows(results)),
        rounds="\n".join(rounds(results)),
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, the first column to the left, the others to the right."""
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'---:|' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def sized(results: Results, first: str) -> list[str]:
    """Return a head with a column for each size."""
    return [first, *(f"{people(users)} people" for users in results.sizes)]


def short(results: Results) -> Iterator[str]:
    """Yield a table with what somebody asks first."""
    found = [results.of("rosterd", "converged", users) for users in results.sizes]
    converged = [one for one in found if one is not None]
    answered = [results.answers.get(users) for users in results.sizes]
    rows = [
        ["time", *(duration(one.seconds) for one in converged)],
        ["processor time", *(duration(one.median("cpu")) for one in converged)],
        ["the same, of one processor over an hour", *(f"{one.median('cpu') / HOUR:.3%}" for one in converged)],
        ["peak memory", *(megabytes(one) for one in converged)],
        [
            "one person more, from the edit of the roster until their server answers",
            *(duration(statistics.median(times)) if times else "-" for times in answered),
        ],
    ]
    return table(sized(results, ""), rows)


def beside_tools(results: Results) -> Iterator[str]:
    """Yield a table for each situation in which another tool was measured: how many times rosterd's time it took."""
    for scenario in SCENARIOS:
        others = [tool for tool in TOOLS if tool not in ("rosterd", "floor") and results.line(tool, scenario)]
        if others:
            rows = [
                [NAMES[tool], *(cell(results, tool, scenario, users) for users in results.sizes)] for tool in others
            ]
            own = ["rosterd", *(own_cell(results, scenario, users) for users in results.sizes)]
            yield from ("", f"**{TITLES[scenario]}**", "")
            yield from table(sized(results, ""), [own, *rows])


def own_cell(results: Results, scenario: str, users: int) -> str:
    """Return what rosterd took."""
    one = results.of("rosterd", scenario, users)
    return duration(one.seconds) if one else not_run(results, "rosterd", scenario, users)


def cell(results: Results, tool: str, scenario: str, users: int) -> str:
    """Return how many times rosterd's time a tool took, or what is known without."""
    own, one = results.of("rosterd", scenario, users), results.of(tool, scenario, users)
    if one is not None:
        return f"**{ratio(one.seconds / own.seconds)}** ({duration(one.seconds)})" if own else duration(one.seconds)
    return not_run(results, tool, scenario, users)


def not_run(results: Results, tool: str, scenario: str, users: int) -> str:
    """Return what was worked out instead of measured, if it was."""
    same = (tool, scenario, users)
    guess = next((no for no in results.not_run if (no.tool, no.scenario, no.users) == same), None)
    return f"*not run, some {duration(guess.seconds)}*" if guess else "-"


def beside_floor(results: Results) -> Iterator[str]:
    """Yield a table of how many times the floor's time rosterd took."""

    def shown(scenario: str, users: int) -> str:
        one = results.of("rosterd", scenario, users)
        if one is None:
            return not_run(results, "rosterd", scenario, users)
        return f"**{ratio(one.times_floor)}** ({duration(one.seconds)})" if one.times_floor else duration(one.seconds)

    rows = [[TITLES[scenario], *(shown(scenario, users) for users in results.sizes)] for scenario in SCENARIOS]
    return table(sized(results, ""), rows)


def use(results: Results) -> Iterator[str]:
    """Yield what rosterd uses at every size, and below it each other tool at the largest size it was measured at."""
    head = ("", "people", "processor time", "systemd's", "the bus's", "peak memory", "processes and threads")
    rows = []
    for scenario in ("converged", "first", "added"):
        for tool in TOOLS:
            found = [results.of(tool, scenario, users) for users in results.sizes]
            measured = [one for one in found if one is not None and one.samples]
            rows += [used(one) for one in (measured if tool == "rosterd" else measured[-1:])]
    return table(head, rows)


def used(one: Measurement) -> list[str]:
    """Return what one command used, as a row."""
    times = [duration(one.median(what)) for what in ("cpu", "systemd_cpu", "bus_cpu")]
    return [phrase(one.tool, one.scenario), people(one.users), *times, megabytes(one), f"{round(one.median('pids')):,}"]


def megabytes(one: Measurement) -> str:
    """Return the peak of its memory."""
    return f"{round(one.median('peak_kb') / KB_IN_MB)} MB"


def counts(results: Results) -> Iterator[str]:
    """Yield what each tool did in each situation."""
    rows = [
        [
            phrase(tool, scenario),
            *(f"{value:,}" for value in (one.programs, one.bus_calls, one.files_changed, one.bytes_written)),
        ]
        for scenario in ("converged", "first", "added")
        for tool in TOOLS
        if (one := results.counts.get((tool, scenario))) is not None
    ]
    return table(("", "programs started", "D-Bus calls", "files written", "bytes written"), rows)


def growth(results: Results) -> Iterator[str]:
    """Yield the exponents, over all sizes and over the last step."""
    rows = [
        [phrase(tool, scenario), spanned(points), spanned(points[-2:])]
        for scenario in SCENARIOS
        for tool in (TOOLS if scenario == "converged" else ("rosterd",))
        if len(points := results.line(tool, scenario)) > 1
    ]
    return table(("", "over all sizes", "over the last step"), rows)


def spanned(points: Sequence[tuple[int, float]]) -> str:
    """Return an exponent, and from where to where."""
    return f"{exponent(points):.2f} ({people(points[0][0])} to {people(points[-1][0])})"


def answers(results: Results) -> Iterator[str]:
    """Yield how long it takes from the edit to the answer."""
    rows = []
    for users, reload in results.reloads.items():
        found = results.answers.get(users)
        times = [duration(statistics.median(found)), duration(max(found)), str(len(found))] if found else ["-"] * 3
        rows.append([people(users), *times, duration(reload)])
    return table(("people", "median", "longest", "rounds", "a reload of systemd alone"), rows)


def goal_rows(results: Results) -> Iterator[str]:
    """Yield each goal and whether it was held."""
    yield "| goal | measured | |"
    yield "|---|---|---|"
    for one in goals(results):
        held = "-" if one.held is None else "held" if one.held else "**missed**"
        yield f"| {one.goal} | {one.measured} | {held} |"


def rounds(results: Results) -> Iterator[str]:
    """Yield how many rounds there were of each."""
    found = {
        (tool, scenario): [
            str(len(one.samples)) if (one := results.of(tool, scenario, users)) else "-" for users in results.sizes
        ]
        for scenario in SCENARIOS
        for tool in TOOLS
        if tool != "floor" and any(results.of(tool, scenario, users) for users in results.sizes)
    }
    rows = [[phrase(tool, scenario), *numbers] for (tool, scenario), numbers in found.items()]
    return table(sized(results, ""), rows)


def phrase(tool: str, scenario: str) -> str:
    """Return the name of a tool and a situation, for the first column."""
    title = TITLES[scenario]
    return f"{NAMES[tool]}, {title[0].lower()}{title[1:]}"
