"""What a run leaves behind: its record, its metrics, and in the log how things stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    state = State()
    before = state.last_run()
    restarts = report.restarts_of(done) if done else None
    good = before.good if before else None
    kept = replace(
        run,
        good=run.at if run.exit == Exit.OK else good,
        restarts=restarts if restarts is not None else before.restarts if before else {},
    )
    file = site.metrics if site is not None else None
    if file is not None:
        text = metrics.render(kept, report.results_of(done) if done else None)
        if not _is_written(lambda: replace_file(Path(file), text.encode(), _METRICS_MODE)) and run.exit == Exit.OK:
            kept = replace(kept, exit=int(Exit.PROBLEMS), good=good)  # the record tells how the run really ended
    if not _is_written(lambda: state.save_last_run(kept)) and run.exit == Exit.OK:
        return Exit.PROBLEMS
    return Exit(kept.exit)


def _is_written(write: Callable[[], None]) -> bool:
    try:
        write()
    except StepFailed as error:
        structlog.get_logger().error("run_not_kept", message=f"what is to be kept of this run is not: {error}")
        return False
    return True


def tell(done: Report, run: LastRun, said: Mapping[str, Sequence[str]]) -> None:
    """Log how things stand after a run; `said` are the last lines of the units that do not come up."""
    report.log_standing(done.plan, done.unmet)
    for unit, user in report.units_in_trouble(done).items():
        report.log_last_lines(user, unit, said.get(unit, ()))
    if done.stopped is not None:
        structlog.get_logger().error("run_stopped", message=f"run stopped halfway: {done.stopped}")
    report.log_summary(done, run.seconds)
