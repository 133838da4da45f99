"""Writes docs/reliability.md from what came out."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

from tests.proof.rows import ROWS, Row

TEMPLATE = Path(__file__).parent / "reliability.md.in"


def page(known: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page; `known` is what came out, by row."""
    text = Template(TEMPLATE.read_text())
    return text.substitute(
        rows="\n".join(_row(row, known.get(row.key)) for row in ROWS),
        uncovered="\n".join(_uncovered()),
        runs="\n".join(_runs(known)),
    )


def _row(row: Row, found: Mapping[str, Any] | None) -> str:
    tests = ", ".join(f"`{test.removeprefix('tests/')}`" for test in row.tests)
    return f"| {row.fault} | {row.outcome} | {_came_out(found)} | {tests} |"


def _came_out(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not run"
    told = [f"{count:,} {name.replace('_', ' ')}" for name, count in found["counts"].items()]
    told.append(f"{found['passed']} of {found['passed'] + found['failed']} tests pass")
    if found["skipped"]:
        told.append(f"{found['skipped']} not run")
    return ("" if not found["failed"] else "**FAILED**: ") + "; ".join(told)


def _uncovered() -> Iterator[str]:
    for row in ROWS:
        if row.uncovered:
            yield f"- {row.fault}: {row.uncovered}"


def _runs(known: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    runs: dict[tuple[str, ...], list[str]] = {}
    for key, found in known.items():
        about = tuple(str(found[name]) for name in ("date", "commit", "systemd", "kernel"))
        runs.setdefault(about, []).append(f"{key} ({found['seconds']:,.0f} s)")
    for (date, commit, systemd, kernel), rows in runs.items():
        yield f"- {date}, at {commit}, systemd {systemd}, Linux {kernel}: {', '.join(rows)}"
