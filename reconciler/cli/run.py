"""`rosterd reconcile`, and how every command makes a run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import replace

import structlog

from reconciler import engine, log, report
from reconciler.cli import ending
from reconciler.cli.common import LOCK_SECONDS, begin, files_of, print_json, this_machine
from reconciler.cli.exits import Exit, exit_for, exit_of
from reconciler.core import view
from reconciler.core.last_run import LastRun
from reconciler.core.plan import Plan
from reconciler.engine import EVERYBODY, Purpose, Report, Surroundings, look
from reconciler.errors import RosterdError, UnknownName
from reconciler.host import lock
from reconciler.host.journal import last_lines
from reconciler.host.scan_accounts import system_names
from reconciler.inputs import Files, Inputs, check_cluster

# As a shell counts a process that SIGTERM has ended (signal(7): 15).
_TERMINATED = 128 + 15


def reconcile(options: argparse.Namespace) -> Exit:
    """Make one pass over everybody, or show what it would do."""
    if options.detailed_exitcode and not options.dry_run:
        raise UnknownName("--detailed-exitcode goes with --dry-run")
    log.configure()
    purpose = Purpose(allow_cuts=options.allow_cuts, retry=options.retry)
    if not options.dry_run:
        return run(files_of(options, trusted=True), purpose, as_json=options.json, lock_wait=options.lock_wait)
    plan = dry_run(files_of(options, trusted=False), purpose, as_json=options.json)
    changes = bool(plan.actions or plan.held)
    return Exit.CHANGES if options.detailed_exitcode and changes else Exit.OK


def dry_run(files: Files, purpose: Purpose = EVERYBODY, *, as_json: bool = False) -> Plan:
    """Print what a run would do, and return it."""
    plan = look(this_machine()[0], _load(files), purpose).plan
    if as_json:
        print_json(view.plan_json(plan))
    else:
        _show_plan(plan)
    return plan


def run(files: Files, purpose: Purpose = EVERYBODY, *, as_json: bool = False, lock_wait: float = LOCK_SECONDS) -> Exit:
    """Make one run under the lock, log all of it, and return its exit code."""
    run_id = begin()
    # As an exception, so that what was started is ended and nothing is left half written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    with lock.exclusive(lock_wait):
        began, started = int(time.time()), time.monotonic()
        done, code = _reconcile(files, purpose, quiet=as_json)
        last = LastRun(run_id, int(time.time()), code, round(time.monotonic() - started, 3))
        if purpose.about_everybody:
            code = ending.keep(last, done, done.site if done else files.site_if_good())
    if done is None:
        return code
    said = {unit: last_lines(unit, began) for unit in report.units_in_trouble(done)}
    ending.tell(done, last, said)
    if as_json:
        print_json(report.report_json(done, replace(last, exit=code), said))
    return code


def _reconcile(files: Files, purpose: Purpose, *, quiet: bool) -> tuple[Report | None, Exit]:
    """Make the run; return what it did, None where nothing could be begun, and the exit code."""
    try:
        done = engine.reconcile(surroundings_of(files, quiet=quiet), purpose)
    except RosterdError as error:
        structlog.get_logger().error("run_stopped", message=f"run stopped, nothing was changed: {error}")
        return None, exit_for(error)
    except Exception as error:
        structlog.get_logger().error("run_stopped", message=f"run stopped by a fault of rosterd's own: {error!r}")
        raise
    return done, exit_of(done)


def surroundings_of(files: Files, *, quiet: bool) -> Surroundings:
    """Put the real machine together."""
    scanner, executor = this_machine(files)
    quiet = quiet or log.goes_to_journal(sys.stderr, os.environ)
    return Surroundings(
        load=lambda: _load(files),
        digest=files.digest,
        host=scanner,
        executor=executor,
        sleep=time.sleep,
        is_wanted=lock.is_wanted,
        planned=_no_plan if quiet else _show_plan,
        ended=report.log_outcome,
    )


def _load(files: Files) -> Inputs:
    """Read and check the roster and the site file, and compare them with the cluster where there is one to ask."""
    inputs = files.load(system_names())
    if files.roster is not None:
        check_cluster(inputs.roster, inputs.site)
    return inputs


def _show_plan(plan: Plan) -> None:
    text = view.plan_text(plan, colour=log.wants_colour(sys.stdout, os.environ))
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:  # a run goes on, whether or not somebody reads along, or a full disk takes it
        log.discard(sys.stdout)


def _no_plan(_plan: Plan) -> None:
    """Show nothing: the log tells each action as it ends."""
