"""What a run leaves behind: its record, its metrics, and in the log how things stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from reconciler import report
from reconciler.cli.exits import Exit
from reconciler.core import metrics
from reconciler.core.last_run import LastRun
from reconciler.core.site import Site
from reconciler.core.text import escaped
from reconciler.engine import Report
from reconciler.errors import StepFailed
from reconciler.host.files import replace_file
from reconciler.host.state import State

# The node exporter runs as a user of its own.
_METRICS_MODE = 0o644
_METRICS_ADVICE = "its folder must exist, and rosterd.service be allowed to write there: a drop-in with ReadWritePaths="


def keep(run: LastRun, done: Report | None, site: Site | None) -> Exit:
    """Put a run over everybody on record, and into the metrics where the site has a file for them.

    `done` is None where the run was stopped before it could do anything, `site` where not even that is known. Returns
    the run's exit code; what cannot be written is a problem of a run that had none.
    """
    state = State()
    before = _before(state)
    wanted = site is not None and site.metrics is not None
    results = report.results_of(done, before) if done and wanted else None
    kept = _completed(run, done, before)
    errors = _write(state, kept, results, site)
    for error in errors:
        structlog.get_logger().error("run_not_kept", message=error)
    if errors and run.exit == Exit.OK:
        run = replace(run, exit=Exit.PROBLEMS)
        _write(state, _completed(run, done, before), results, site)  # what can be written is to tell it
    return Exit(run.exit)


def _before(state: State) -> LastRun | None:
    try:
        return state.last_run()
    except OSError:  # as a record that is damaged
        return None


def _completed(run: LastRun, done: Report | None, before: LastRun | None) -> LastRun:
    """Return a run with what it has from the one before it, where it does not know better."""
    restarts = report.restarts_of(done) if done else None
    if restarts is None:
        restarts = dict(before.restarts) if before else {}
    return replace(
        run,
        good=run.at if run.exit == Exit.OK else before.good if before else None,
        restarts=restarts,
        digest=done.digest if done else before.digest if before else "",
    )


def _write(state: State, run: LastRun, results: metrics.Results | None, site: Site | None) -> list[str]:
    """Write all that is kept of a run; return in words what could not be written."""
    errors = []
    try:
        state.save_last_run(run)
    except StepFailed as error:
        errors.append(f"this run is not on record: {error}")
    if site is not None and site.metrics is not None:
        try:
            replace_file(Path(site.metrics), metrics.render(run, results).encode(), _METRICS_MODE)
        except StepFailed as error:
            errors.append(escaped(f"this run is not in the metrics: {error}; {_METRICS_ADVICE}"))
    return errors


def tell(done: Report, run: LastRun, said: Mapping[str, Sequence[str]]) -> None:
    """Log how things stand after a run; `said` are the last lines of the units that do not come up."""
    report.log_standing(done.plan, done.unmet)
    for unit, user in report.units_in_trouble(done).items():
        report.log_last_lines(user, unit, said.get(unit, ()))
    if done.stopped is not None:
        structlog.get_logger().error("run_stopped", message=f"run stopped halfway: {done.stopped}")
    report.log_summary(done, run.seconds)
