"""What a run tells the log: each action as it ends, what stands in the way, and one last line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from reconciler.core import view
from reconciler.core.actions import Action, RunUnit
from reconciler.core.findings import Finding, FindingKind
from reconciler.core.last_run import LastRun
from reconciler.core.metrics import Results
from reconciler.core.outcome import Outcome, Status
from reconciler.core.plan import Plan
from reconciler.core.site import instance_of
from reconciler.core.standing import standing
from reconciler.core.status import MachineStatus
from reconciler.core.text import escaped
from reconciler.engine import Report

_MOST_UNITS = 10
_MOST_LETTERS = 500


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


def units_in_trouble(report: Report) -> dict[str, str]:
    """Return the units that the run started and that are not well, with whose they are; not too many of them."""
    started = {
        outcome.action.unit: outcome.action.user
        for outcome in report.outcomes
        if isinstance(outcome.action, RunUnit) and outcome.action.start and outcome.status is not Status.SKIPPED
    }
    bad = {finding.unit for finding in report.plan.findings if finding.kind is FindingKind.UNHEALTHY}
    bad |= {action.unit for action in (*report.unmet, *report.failed.values()) if isinstance(action, RunUnit)}
    return {unit: started[unit] for unit in sorted(bad & started.keys())[:_MOST_UNITS]}


def log_last_lines(user: str, unit: str, lines: Sequence[str]) -> None:
    """Log what a unit that does not come up said last."""
    for line in lines:
        _log().error("unit_said", message=_line(user, f"{unit} said: {line[:_MOST_LETTERS]}"), **_who(user))


def restarts_of(report: Report) -> dict[str, int] | None:
    """Return how often systemd has restarted the units that it has; None where it could not be asked."""
    states = report.last.observed.units.states
    return None if states is None else {name: state.restarts for name, state in states.items() if state.restarts}


def results_of(report: Report, before: LastRun | None) -> Results:
    """Return what the metrics tell of a run; `before` is the one before it."""
    kinds = Counter(finding.kind for finding in report.plan.findings)
    failed = {action.user for action in report.failed.values() if action.user}
    status = standing(report.last.desired, report.last.observed, report.plan)
    edited = before is None or before.digest != report.digest
    return Results(
        status=status,
        drift=0 if edited else report.drift,
        actions=Counter((outcome.action.kind, outcome.status.value) for outcome in report.outcomes),
        conflicts=kinds[FindingKind.CONFLICT],
        pending=kinds[FindingKind.PENDING],
        held=len(report.plan.held),
        unmet=len(report.unmet),
        failed_users=len(failed),
        user_problems=_problems_of_users(report),
        restarts=_restarts_of_all(status, restarts_of(report)),
    )


def _problems_of_users(report: Report) -> Counter[str]:
    found = [finding.user for finding in report.plan.findings if finding.kind.is_problem]
    found += [action.user for action in (*report.failed.values(), *report.unmet)]
    return Counter(user for user in found if user is not None)


def _restarts_of_all(status: MachineStatus, known: Mapping[str, int] | None) -> dict[tuple[str, str], int]:
    """Return the restarts of everybody's services, 0 too: what has not been there before has not increased."""
    if known is None:
        return {}
    units = [unit.name for user in status.users for service in user.services for unit in service.units]
    return {(instance_of(name), name): known.get(name, 0) for name in units if name.endswith(".service")}


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


def report_json(report: Report, last_run: LastRun, said: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return a whole run for programs: the last plan, and every action with what became of it.

    `said` are the last lines of the units that do not come up.
    """
    document = view.plan_json(report.plan)
    return document | {
        "run": {"id": last_run.id, "exit": last_run.exit, "seconds": last_run.seconds},
        "actions": [view.outcome_json(outcome) for outcome in report.outcomes],
        "unmet": [view.action_json(action) for action in report.unmet],
        "changes": bool(report.outcomes),
        "journal": {unit: list(lines) for unit, lines in said.items()},
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
