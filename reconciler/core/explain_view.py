"""An explanation as text for people and as JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from reconciler.core.explanation import Attribute, Explanation
from reconciler.core.findings import FindingKind
from reconciler.core.text import counted, escaped
from reconciler.core.view import action_json, finding_mark, finding_words

JSON_VERSION = 1
_HEAD: tuple[str, ...] = ("wanted", "why", "there")
# A column is as wide as what is in it, up to this.
_WIDEST = (28, 26, 30)
_MARK, _GAP = 4, 2


def explanation_text(told: Explanation) -> str:
    """Return it for a terminal: how the person stands, a line for each attribute, and below it what a run would do."""
    lines = [f"{told.name} {told.because}."]
    lines += [f"{told.remedy[0].upper()}{told.remedy[1:]}."] if told.remedy else []
    lines += [f"Held by a guard: {told.held}."] if told.held else []
    lines += [f"A run would stop before it changes anything: {why}" for why in told.stopped.splitlines()]
    lines += ["", *_table(told.attributes), ""]
    lines += [f"Could not be seen: {what}" for what in told.unseen]
    lines.append(_summary(told))
    return "\n".join(map(escaped, lines)) + "\n"


def _table(attributes: tuple[Attribute, ...]) -> Iterator[str]:
    rows = [_cells(attribute) for attribute in attributes]
    widths = [
        max((len(row[column]) for row in rows if len(row[column]) <= widest), default=0)
        for column, widest in enumerate(_WIDEST)
    ]
    head = _HEAD
    for topic, group in groupby(attributes, key=lambda attribute: attribute.topic):
        yield from _aligned((topic, *head), [widths[0] + _MARK, *widths[1:]])
        head = ()
        for attribute in group:
            first, *below = _aligned(_cells(attribute), widths)
            yield f"  {_mark(attribute)} {first}"
            yield from (" " * _MARK + line for line in below)
            yield from (f"        {mark} {text}" for mark, text in _told(attribute))


def _aligned(cells: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    """Yield cells in their columns; after one that is wider than its column the others go on in the next line."""
    line, column = "", 0
    for cell, width in zip(cells, (*widths, 0), strict=False):
        if len(line) > max(0, column - _GAP):
            yield line
            line = ""
        line = line.ljust(column) + cell
        column += width + _GAP
    yield line


def _cells(attribute: Attribute) -> tuple[str, str, str, str]:
    return attribute.name, attribute.wanted or "-", attribute.why, attribute.there or "-"


def _told(attribute: Attribute) -> Iterator[tuple[str, str]]:
    for found in attribute.findings:
        yield finding_mark(found), finding_words(found)
    for action in attribute.actions:
        yield action.sign.value, action.describe()


def _mark(attribute: Attribute) -> str:
    """Return the sign of the worst that is told of an attribute; nothing where all is as it should be."""
    signs = {mark for mark, _ in _told(attribute)}
    return next((mark for mark in "!-~+?" if mark in signs), " ")


def _summary(told: Explanation) -> str:
    actions = list(told.actions)
    kinds = Counter(finding.kind for finding in told.findings)
    change = f"make {counted(len(actions), 'change')}" if actions and not told.stopped else "change nothing"
    others = "".join(f"; {_counted(number, kind)}" for kind, number in kinds.items())
    start = "As far as could be seen, a run" if told.unseen else "A run"
    return f"{start} would {change} for {told.name}{others}."


def _counted(number: int, kind: FindingKind) -> str:
    return f"{number} {kind}" if kind in (FindingKind.UNHEALTHY, FindingKind.PENDING) else counted(number, kind)


def explanation_json(told: Explanation) -> dict[str, Any]:
    """Return the document for programs. `version` changes when a key changes its meaning or goes."""
    return {
        "version": JSON_VERSION,
        "name": told.name,
        "state": told.state.value,
        "because": told.because,
        "remedy": told.remedy,
        "held": told.held,
        "stopped": told.stopped,
        "changes": len(list(told.actions)),
        "attributes": [_attribute_json(attribute) for attribute in told.attributes],
        "unseen": list(told.unseen),
    }


def _attribute_json(attribute: Attribute) -> dict[str, Any]:
    return {
        "topic": attribute.topic,
        "name": attribute.name,
        "wanted": attribute.wanted,
        "why": attribute.why,
        "there": attribute.there,
        "actions": [action_json(action) for action in attribute.actions],
        "findings": [{"kind": found.kind.value, "text": found.text} for found in attribute.findings],
    }
