"""Writes docs/reliability.md from what came out."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

from tests.proof.rows import GROUPS, ROWS, Row

TEMPLATE = Path(__file__).parent / "reliability.md.in"
HEAD = ("| row | fault or attack | what must come of it | what came of it |", "|---|---|---|---|")

Found = Mapping[str, Any]


def page(known: Mapping[str, Found]) -> str:
    """Return the page; `known` is what came out, by row."""
    text = Template(TEMPLATE.read_text())
    return text.substitute(
        groups="\n".join(_groups(known)),
        uncovered="\n".join(f"- `{row.key}`: {row.uncovered}" for row in ROWS if row.uncovered),
        tests="\n".join(f"- `{row.key}`: {_tests(row)}" for row in ROWS),
        runs="\n".join(_runs(known)),
    )


def _groups(known: Mapping[str, Found]) -> Iterator[str]:
    for heading, rows in GROUPS.items():
        yield from (f"## {heading}", "", *HEAD)
        for row in rows:
            yield f"| `{row.key}` | {row.fault} | {row.outcome} | {_came_out(known.get(row.key))} |"
        yield ""


def _came_out(found: Found | None) -> str:
    if found is None:
        return "not run"
    told = [f"{count:,} {name.replace('_', ' ')}" for name, count in found["counts"].items()]
    told.append(f"{found['passed']} of {found['passed'] + found['failed']} tests pass")
    if found["skipped"]:
        told.append(f"{found['skipped']} not run")
    return ("" if not found["failed"] else "**FAILED**: ") + "; ".join(told)


def _tests(row: Row) -> str:
    """Return the tests of a row, those of one file together."""
    by_file: dict[str, list[str]] = {}
    for test in row.tests:
        file, _, function = test.removeprefix("tests/").partition("::")
        by_file.setdefault(file, []).extend([function] if function else [])
    return "; ".join(
        f"`{file}`" + (f" ({', '.join(functions)})" if functions else "") for file, functions in by_file.items()
    )


def _runs(known: Mapping[str, Found]) -> Iterator[str]:
    runs: dict[tuple[str, ...], list[str]] = {}
    for key, found in known.items():
        about = tuple(str(found[name]) for name in ("date", "commit", "systemd", "kernel"))
        runs.setdefault(about, []).append(f"{key} ({found['seconds']:,.0f} s)")
    for (date, commit, systemd, kernel), rows in runs.items():
        yield f"- {date}, at {commit}, systemd {systemd}, Linux {kernel}: {', '.join(rows)}"
