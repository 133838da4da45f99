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
from reconciler.engine import Report
from reconciler.errors import StepFailed
from reconciler.host.files import replace_file
from reconciler.host.state import State

# The node exporter runs as a user of its own.
_METRICS_MODE = 0o644


def keep(run: LastRun, done: Report | None, site: Site | None) -> Exit:
    """Put a run over everybody on record, and into the metrics where the site has a file for them.

    `done` is None where the run was stopped before it could do anything, `site` where not even that is known. Returns
    the run's exit code; what cannot be written is a problem of a run that had none.
    """
    state, code = State(), Exit(run.exit)
    try:
        before = state.last_run()
        restarts = report.restarts_of(done) if done else None
        run = replace(
            run,
            good=run.at if code is Exit.OK else before.good if before else None,
            restarts=restarts if restarts is not None else before.restarts if before else {},
        )
        state.save_last_run(run)
        if site is not None and site.metrics is not None:
            text = metrics.render(run, report.results_of(done) if done else None)
            replace_file(Path(site.metrics), text.encode(), _METRICS_MODE)
    except StepFailed as error:
        structlog.get_logger().error("run_not_kept", message=f"what is to be kept of this run is not: {error}")
        return Exit.PROBLEMS if code is Exit.OK else code
    return code


def tell(done: Report, run: LastRun, said: Mapping[str, Sequence[str]]) -> None:
    """Log how things stand after a run; `said` are the last lines of the units that do not come up."""
    report.log_standing(done.plan, done.unmet)
    for unit, user in report.units_in_trouble(done).items():
        report.log_last_lines(user, unit, said.get(unit, ()))
    if done.stopped is not None:
        structlog.get_logger().error("run_stopped", message=f"run stopped halfway: {done.stopped}")
    report.log_summary(done, run.seconds)
