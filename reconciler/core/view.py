"""A plan as text for people and as JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from reconciler.core.actions import Action, Sign
from reconciler.core.findings import Finding, FindingKind
from reconciler.core.outcome import Outcome
from reconciler.core.plan import Plan
from reconciler.core.text import counted, escaped

JSON_VERSION = 1
_COLOURS = {Sign.ADD: "32", Sign.CHANGE: "33", Sign.STOP: "31", Sign.CONFLICT: "1;31"}
_WARNING_MARK = "?"
_WORDS = ((Sign.ADD, "to add"), (Sign.CHANGE, "to change"), (Sign.STOP, "to stop"))
_MACHINE = "this machine"


def plan_text(plan: Plan, *, colour: bool = False) -> str:
    """Return the plan for a terminal: a block a person, then the machine, then the counts."""
    lines: list[str] = []
    for user, marked in _by_user(plan):
        lines.append(escaped(user) or _MACHINE)
        lines += [f"  {_painted(sign, colour=colour)} {escaped(text)}" for sign, text in marked]
        lines.append("")
    lines += [f"Could not be seen, so nothing is planned from it: {what}" for what in plan.unseen]
    if plan.held:
        lines += [f"Held: {escaped(', '.join(plan.held))} would be cut off: {plan.why_held}."]
    lines.append(plan_summary(plan))
    return "\n".join(lines) + "\n"


def plan_summary(plan: Plan) -> str:
    """Return the last line of a plan: how much of what."""
    signs = Counter(action.sign for action in plan.actions)
    kinds = Counter(finding.kind for finding in plan.findings)
    told = [f"{signs[sign]} {words}" for sign, words in _WORDS if signs[sign]]
    told += [counted(kinds[FindingKind.CONFLICT], "conflict")] if kinds[FindingKind.CONFLICT] else []
    told += [f"{kinds[FindingKind.UNHEALTHY]} unhealthy"] if kinds[FindingKind.UNHEALTHY] else []
    told += [f"{kinds[FindingKind.PENDING]} pending"] if kinds[FindingKind.PENDING] else []
    told += [counted(kinds[FindingKind.WARNING], "warning")] if kinds[FindingKind.WARNING] else []
    told += [f"{len(plan.held)} held"] if plan.held else []
    if not plan.actions:
        told.insert(0, "nothing to do")
    return f"Plan: {', '.join(told)}."


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return the plan for programs. `version` changes when a key changes its meaning or goes."""
    return {
        "version": JSON_VERSION,
        "changes": bool(plan.actions),
        "actions": [action_json(action) for action in plan.actions],
        "findings": [{"user": found.user, "kind": found.kind.value, "text": found.text} for found in plan.findings],
        "held": {"users": list(plan.held), "why": plan.why_held},
        "unseen": list(plan.unseen),
    }


def action_json(action: Action) -> dict[str, Any]:
    """Return one action for programs."""
    return {
        "user": action.user,
        "action": action.kind,
        "phase": action.phase.name.lower(),
        "sign": action.sign.value,
        "summary": action.describe(),
    }


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return one action with what became of it."""
    return action_json(outcome.action) | {"status": outcome.status.value, "why": outcome.why}


def _by_user(plan: Plan) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield each person with their marked lines, the machine itself last."""
    marked = [(action.user or "", action.sign.value, action.describe()) for action in plan.actions]
    marked += [(found.user or "", finding_mark(found), finding_words(found)) for found in plan.findings]
    people = sorted(marked, key=lambda line: (not line[0], line[0]))
    for user, lines in groupby(people, key=lambda line: line[0]):
        yield user, [(sign, text) for _, sign, text in lines]


def finding_mark(found: Finding) -> str:
    """Return the sign of a finding's line."""
    return Sign.CONFLICT.value if found.kind.is_problem else _WARNING_MARK


def finding_words(found: Finding) -> str:
    """Return the words of a finding's line."""
    return f"pending: {found.text}" if found.kind is FindingKind.PENDING else found.text


def _painted(sign: str, *, colour: bool) -> str:
    code = _COLOURS.get(Sign(sign)) if colour and sign in list(Sign) else None
    return f"\x1b[{code}m{sign}\x1b[0m" if code else sign
