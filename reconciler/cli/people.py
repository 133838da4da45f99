"""The commands about one person that take nothing away for good: adopt, cut, uncut, done."""

from __future__ import annotations

import argparse
import sys

import structlog

from reconciler import log, report
from reconciler.cli.common import LOCK_SECONDS, begin, files_of, look_around, this_machine
from reconciler.cli.exits import Exit
from reconciler.cli.run import dry_run, run
from reconciler.core.adoption import plan_adoption
from reconciler.core.naming import check_cut, check_done, check_uncut
from reconciler.core.observed import Observed
from reconciler.core.outcome import Status
from reconciler.core.records import Step
from reconciler.engine import Purpose
from reconciler.host import lock
from reconciler.host.scan_accounts import system_names
from reconciler.host.session import session_uid
from reconciler.host.state import State
from reconciler.inputs import Files


def adopt(options: argparse.Namespace) -> Exit:
    """Take over accounts that exist."""
    log.configure()
    begin()
    scanner, executor = this_machine()
    with lock.exclusive(LOCK_SECONDS):
        _, desired, observed = look_around(files_of(options, trusted=True), scanner)
        actions = plan_adoption(options.names, desired, observed)
        outcomes = list(executor.apply(actions))
    for outcome in outcomes:
        report.log_outcome(outcome)
    if any(outcome.status is Status.FAILED for outcome in outcomes):
        return Exit.PROBLEMS
    sys.stdout.write("managed; the next run completes them (now: rosterd reconcile)\n")
    return Exit.OK


def cut(options: argparse.Namespace) -> Exit:
    """Cut somebody off now, and until `uncut`. Works whatever state the roster is in."""
    log.configure()
    files = Files(None, options.site, trusted=not options.dry_run)
    check_cut(options.name, _observed(files), session_uid())
    return _run(files, Purpose(cut=options.name), options)


def uncut(options: argparse.Namespace) -> Exit:
    """End a cut by command: whoever is on the roster gets back what they had."""
    log.configure()
    files = files_of(options, trusted=not options.dry_run)
    check_uncut(options.name, _observed(files))
    code = _run(files, Purpose(uncut=options.name), options)
    if options.name not in files.load(system_names()).roster.users:
        sys.stdout.write(f"{options.name} is not on the roster, and stays cut off until they are\n")
    return code


def done(options: argparse.Namespace) -> Exit:
    """Record that steps outside of this machine have been taken by hand."""
    log.configure()
    begin()
    with lock.exclusive(LOCK_SECONDS):
        check_done(options.name, _observed(Files(None, options.site, trusted=True)))
        for step in map(Step, options.steps):
            State().mark_done(options.name, step)
            text = f"{options.name}: {step}: pending → done, by hand"
            structlog.get_logger().info("step_done", message=text, os_user=options.name, action="step_done")
    return Exit.OK


def _observed(files: Files) -> Observed:
    return look_around(files, this_machine()[0])[2]


def _run(files: Files, purpose: Purpose, options: argparse.Namespace) -> Exit:
    if not options.dry_run:
        return run(files, purpose, as_json=options.json)
    dry_run(files, purpose, as_json=options.json)
    return Exit.OK
