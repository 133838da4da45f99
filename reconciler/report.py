"""What a run tells the log: each action as it ends, what stands in the way, and one last line."""

from __future__ import annotations

from collections import Counter
from typing import Any

import structlog

from reconciler.core import view
from reconciler.core.actions import Action
from reconciler.core.findings import Finding, FindingKind
from reconciler.core.outcome import Outcome, Status
from reconciler.core.plan import Plan
from reconciler.core.text import escaped
from reconciler.engine import Report


def log_outcome(outcome: Outcome) -> None:
    """Log how one action ended."""
    action = outcome.action
    told = {
        "action": action.kind,
        "status": outcome.status.value,
        "sign": action.sign.value,
        **_who(action.user),
    }
    match outcome.status:
        case Status.DONE:
            text = action.describe() + (f": {outcome.why}" if outcome.why else "")
            _log().info("action_done", message=_line(action.user, text), **told)
        case Status.FAILED:
            text = f"FAILED {action.describe()}: {outcome.why}"
            _log().error("action_failed", message=_line(action.user, text), **told)
        case Status.SKIPPED:
            text = f"skipped {action.describe()}: {outcome.why}"
            _log().warning("action_skipped", message=_line(action.user, text), **told)


def log_standing(plan: Plan, unmet: list[Action]) -> None:
    """Log what the last look found that no action mends."""
    for finding in plan.findings:
        _log_finding(finding)
    for action in unmet:
        text = f"did not take effect: {action.describe()}"
        _log().error("action_unmet", message=_line(action.user, text), action=action.kind, **_who(action.user))
    for user in plan.held:
        text = f"not cut off: {plan.why_held}"
        _log().warning("cut_held", message=_line(user, text), os_user=user)


def log_summary(report: Report, seconds: float) -> None:
    """Log the last line of a run."""
    kinds = Counter(finding.kind for finding in report.plan.findings)
    counts = {status.value: report.count(status) for status in Status} | {
        "unmet": len(report.unmet),
        "problems": sum(number for kind, number in kinds.items() if kind.is_problem),
        "pending": kinds[FindingKind.PENDING],
        "warnings": kinds[FindingKind.WARNING],
        "held": len(report.plan.held),
    }
    told = ", ".join(_counted(number, word) for word, number in counts.items() if number) or "nothing to do"
    people = "" if report.people is None else f"{report.people} on the roster, "
    level = "warning" if report.has_problems or report.plan.held else "info"
    getattr(_log(), level)(
        "run_finished",
        message=f"run finished: {told}; {people}{seconds:.2f} s",
        seconds=f"{seconds:.3f}",
        **counts,
    )


def report_json(report: Report, run_id: str, exit_code: int, seconds: float) -> dict[str, Any]:
    """Return a whole run for programs: the last plan, and every action with what became of it."""
    document = view.plan_json(report.plan)
    return document | {
        "run": {"id": run_id, "exit": exit_code, "seconds": round(seconds, 3)},
        "actions": [view.outcome_json(outcome) for outcome in report.outcomes],
        "unmet": [view.action_json(action) for action in report.unmet],
        "changes": bool(report.outcomes),
    }


def _log_finding(finding: Finding) -> None:
    level = "error" if finding.kind.is_problem else "warning"
    text = finding.text if finding.kind is FindingKind.WARNING else f"{finding.kind.value}: {finding.text}"
    message = _line(finding.user, text)
    getattr(_log(), level)(finding.kind.value, message=message, **_who(finding.user))


def _counted(number: int, word: str) -> str:
    return f"{number} {word.removesuffix('s') if number == 1 else word}"


def _line(user: str | None, text: str) -> str:
    return escaped(f"{user}: {text}" if user else text)


def _who(user: str | None) -> dict[str, str]:
    return {"os_user": user} if user else {}


def _log() -> Any:  # noqa: ANN401 (structlog gives a lazy proxy)
    return structlog.get_logger()
