"""Draws seconds over people for every tool, both axes logarithmic, as an SVG: by hand, without a font of its own."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tests.bench.results import TOOLS, Results
from tests.bench.words import duration, people

PANELS = {"converged": "Nothing to do", "added": "One person more", "first": "First run"}
NAMES = {"rosterd": "rosterd", "floor": "floor", "shell": "shell loop", "pyinfra": "pyinfra", "ansible": "Ansible"}

SMALL_PRINT = "Two services each; both axes logarithmic. Dotted: too long to measure, worked out."
WIDTH, HEIGHT = 1080, 440
MARGIN, GAP = 64, 96
TOP, BOTTOM = 98, 56
# Where the times have lines: what people think in, and about a tenth of each other.
TICKS = {
    0.01: "10 ms",
    0.1: "0.1 s",
    1: "1 s",
    10: "10 s",
    60: "1 min",
    600: "10 min",
    3600: "1 h",
    36000: "10 h",
    360000: "4 days",
}
PANEL = (WIDTH - MARGIN - 3 * GAP + 8) / 3
LABEL_HEIGHT = 15.0

STYLE = """\
svg { --ground: #ffffff; --ink: #1f2328; --faint: #656d76; --grid: #e4e7eb;
  --rosterd: #0969da; --floor: #8c959f; --shell: #9a6700; --pyinfra: #8250df; --ansible: #cf222e; }
@media (prefers-color-scheme: dark) { svg { --ground: #14161a; --ink: #e6edf3; --faint: #9198a1; --grid: #2b3036;
  --rosterd: #58a6ff; --floor: #7d8590; --shell: #d29922; --pyinfra: #bc8cff; --ansible: #ff7b72; } }
text { font: 13px system-ui, sans-serif; fill: var(--faint); }
.title { font-size: 15px; font-weight: 600; fill: var(--ink); }
.name { font-weight: 600; fill: var(--own); }
.grid { stroke: var(--grid); }
.line { fill: none; stroke: var(--own); stroke-width: 2; }
.guess { stroke-dasharray: 2 5; }
.dot { fill: var(--own); }
.hollow { fill: var(--ground); stroke: var(--own); stroke-width: 1.5; }
.rosterd { --own: var(--rosterd); } .floor { --own: var(--floor); } .shell { --own: var(--shell); }
.pyinfra { --own: var(--pyinfra); } .ansible { --own: var(--ansible); }
.rosterd .line { stroke-width: 3; }
"""

Point = tuple[int, float]


@dataclass(frozen=True)
class Scale:
    """Where a number of people and a number of seconds are, in a panel that begins at `left`."""

    left: float
    users: tuple[float, float]
    seconds: tuple[float, float]

    def x(self, users: float) -> float:
        """Return how far to the right a number of people is."""
        low, high = map(math.log10, self.users)
        return self.left + PANEL * (math.log10(users) - low) / (high - low)

    def y(self, seconds: float) -> float:
        """Return how far down a number of seconds is."""
        low, high = map(math.log10, self.seconds)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log10(seconds) - low) / (high - low)


def plot(results: Results) -> str:
    """Return the picture."""
    seconds = [point[1] for tool in TOOLS for panel in PANELS for point in all_points(results, tool, panel)]
    bottom = max(tick for tick in TICKS if tick <= min(seconds))
    top = min(tick for tick in TICKS if tick >= max(seconds))
    sizes = (results.sizes[0], max(results.sizes[-1], 10 * results.sizes[0]))
    parts = [
        f'<text class="title" x="{MARGIN}" y="28">Seconds that a run takes, by the number of people</text>',
        f'<text x="{MARGIN}" y="48">{SMALL_PRINT}</text>',
    ]
    for number, (scenario, title) in enumerate(PANELS.items()):
        scale = Scale(MARGIN + number * (PANEL + GAP), sizes, (bottom, top))
        parts.append(f'<text class="title" x="{scale.left:.0f}" y="{TOP - 12}">{title}</text>')
        parts += axes(results, scale, is_first=number == 0)
        parts += lines(results, scenario, scale)
    label = "Lines of seconds over people for rosterd, its floor, a shell loop, pyinfra and Ansible"
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="var(--ground)"/>'
    return "\n".join([opening, f"<style>\n{STYLE}</style>", ground, *parts, "</svg>", ""])


def all_points(results: Results, tool: str, scenario: str) -> list[Point]:
    """Return what was measured, and what was worked out."""
    return sorted([*results.line(tool, scenario), *guesses(results, tool, scenario)])


def guesses(results: Results, tool: str, scenario: str) -> list[Point]:
    """Return what was worked out instead of measured."""
    return [(one.users, one.seconds) for one in results.not_run if (one.tool, one.scenario) == (tool, scenario)]


def axes(results: Results, scale: Scale, *, is_first: bool) -> Iterator[str]:
    """Yield the grid of a panel, with the numbers of people, and in the first one the times."""
    right = scale.left + PANEL
    low, high = scale.seconds
    for tick, name in ((tick, name) for tick, name in TICKS.items() if low <= tick <= high):
        y = scale.y(tick)
        yield f'<line class="grid" x1="{scale.left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        if is_first:
            yield f'<text x="{scale.left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{name}</text>'
    for users in results.sizes:
        x = scale.x(users)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{people(users)}</text>'


def lines(results: Results, scenario: str, scale: Scale) -> Iterator[str]:
    """Yield the line of each tool, and its name at the end."""
    ends = {tool: points[-1] for tool in TOOLS if (points := all_points(results, tool, scenario))}
    heights = spread({tool: scale.y(seconds) for tool, (_, seconds) in ends.items()})
    # The most important one on top.
    for tool in (tool for tool in reversed(TOOLS) if tool in ends):
        measured, guessed = results.line(tool, scenario), guesses(results, tool, scenario)
        yield f'<g class="{tool}">'
        yield path("line", measured, scale)
        if guessed:
            yield path("line guess", [*measured[-1:], *guessed], scale)
        yield from dots("dot", measured, scale, 3.5)
        yield from dots("hollow", guessed, scale, 3.5)
        x = scale.x(ends[tool][0]) + 9
        yield f'<text class="name" x="{x:.1f}" y="{heights[tool] + 4:.1f}">{escape(NAMES[tool])}</text></g>'


def path(kind: str, points: Sequence[Point], scale: Scale) -> str:
    """Return a line through points."""
    where = " ".join(f"{scale.x(users):.1f},{scale.y(seconds):.1f}" for users, seconds in points)
    return f'<polyline class="{kind}" points="{where}"/>'


def dots(kind: str, points: Sequence[Point], scale: Scale, radius: float) -> Iterator[str]:
    """Yield a dot for each point, which says its value."""
    for users, seconds in points:
        at = f'cx="{scale.x(users):.1f}" cy="{scale.y(seconds):.1f}" r="{radius}"'
        yield f'<circle class="{kind}" {at}><title>{people(users)}: {duration(seconds)}</title></circle>'


def spread(heights: dict[str, float]) -> dict[str, float]:
    """Move names apart that would lie over each other, from the top down, each as little as can be."""
    placed: dict[str, float] = {}
    last = -math.inf
    for tool, height in sorted(heights.items(), key=lambda one: one[1]):
        last = placed[tool] = max(height, last + LABEL_HEIGHT)
    return placed
