"""The command line: reads the arguments, puts the parts together, gives the exit code.

This is the composition root. Nothing else knows exit codes or ends the process.

Exit codes: 0 done, or nothing to do · 1 could not run, or a tier conflict · 2 with --dry-run
--detailed-exitcode, there are changes · 3 some users failed or have a conflict · 4 a guard held
something · 5 the roster or the site file is missing or refused · 64 wrong usage · 75 another run holds
the lock · 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

import structlog

from reconciler import log, report
from reconciler.core import derive as derivation
from reconciler.core import view
from reconciler.core.adoption import plan_adoption
from reconciler.core.deprovision import deprovision_plan, dropped
from reconciler.core.desired import desire
from reconciler.core.outcome import Executor, Status
from reconciler.core.plan import Plan
from reconciler.core.tiers import compare_tiers, parse_cluster_tiers
from reconciler.engine import Host, Report, Surroundings, look, reconcile
from reconciler.errors import FileRefused, LockBusy, RosterdError, ScanFailed, UnknownName
from reconciler.host import lock
from reconciler.host.scan_accounts import system_names
from reconciler.inputs import ROSTER, SITE, Files, Inputs, check_cluster, warn_without_effect

_LOCK_SECONDS = 60


class Exit(IntEnum):
    """The exit codes, as the module says."""

    OK = 0
    CANNOT_RUN = 1
    CHANGES = 2
    PROBLEMS = 3
    HELD = 4
    REFUSED = 5
    USAGE = 64
    BUSY = 75
    INTERRUPTED = 130


_EXITS: tuple[tuple[type[RosterdError], Exit], ...] = (
    (FileRefused, Exit.REFUSED),
    (UnknownName, Exit.USAGE),
    (LockBusy, Exit.BUSY),
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what is observed need not be valid text
    try:
        options = _parser().parse_args(_with_command(list(sys.argv[1:] if arguments is None else arguments)))
        code = options.command(options)
        sys.stdout.flush()
    except RosterdError as error:
        _tell(str(error) if isinstance(error, FileRefused) else f"rosterd: {error}")
        code = _exit_for(error)
    except KeyboardInterrupt:
        _tell("rosterd: interrupted; the next run finishes what was begun")
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # of a command that only reads; whoever wanted its output has left
        log.discard(sys.stdout)
        code = Exit.OK
    sys.exit(code)


def _exit_for(error: RosterdError) -> Exit:
    return next((code for kind, code in _EXITS if isinstance(error, kind)), Exit.CANNOT_RUN)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    """Ends with 64 on wrong usage (EX_USAGE of sysexits.h); argparse's own 2 means something else here."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(Exit.USAGE, f"{self.prog}: {message}\n")


def _with_command(arguments: list[str]) -> list[str]:
    """Complete `rosterd --dry-run` to `rosterd reconcile --dry-run`."""
    general = ("-h", "--help", "--version")
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in general):
        return ["reconcile", *arguments]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="rosterd", description="Make this machine agree with the roster.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    files = _Parser(add_help=False)
    files.add_argument("--roster", metavar="F", default=ROSTER, help=f"who works here (default: {ROSTER})")
    files.add_argument("--site", metavar="F", help=f"the site's policy (default: {SITE}, if there is one)")

    run = commands.add_parser("reconcile", parents=[files], help="make the machine agree with the roster")
    run.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")
    run.add_argument("--detailed-exitcode", action="store_true", help="with --dry-run: exit 2 if there are changes")
    run.add_argument("--json", action="store_true", help="print the plan, or the run, as JSON")
    run.add_argument("--allow-cuts", metavar="N", type=_number, help="let up to N people be cut off this once")
    run.add_argument("--lock-wait", metavar="S", type=_number, default=_LOCK_SECONDS,
                     help=f"seconds to wait for another run to end (default: {_LOCK_SECONDS})")  # fmt: skip
    run.set_defaults(command=_reconcile)

    check = commands.add_parser("validate", parents=[files], help="check the roster and the site file")
    check.add_argument("--k8s-users-json", metavar="F", help="also compare tiers with this map of k8s_user to tier")
    check.set_defaults(command=_validate)

    show = commands.add_parser("derive", parents=[files], help="print the desired state as JSON")
    show.add_argument("--ports-json", metavar="F", required=True, help="the routed service's ports by os_user")
    show.add_argument("--playwright-ports-json", metavar="F", help="the ports of the service playwright, likewise")
    show.set_defaults(command=_derive)

    leave = commands.add_parser("deprovision", help="say who left between two rosters")
    leave.add_argument("--old", metavar="R", required=True, help="the roster before")
    leave.add_argument("--new", metavar="R", required=True, help="the roster now")
    leave.add_argument("--site", metavar="F", help=f"the site's policy (default: {SITE}, if there is one)")
    leave.add_argument("--plan", action="store_true", help="print the steps for each as JSON")
    leave.add_argument("--destructive", action="store_true", help="with --plan: include deleting the account")
    leave.set_defaults(command=_deprovision)

    take = commands.add_parser("adopt", parents=[files], help="take over accounts that exist")
    take.add_argument("names", metavar="NAME", nargs="+", help="an account that is on the roster")
    take.set_defaults(command=_adopt)
    return parser


class _Version(argparse.Action):
    """Prints the version only when asked: finding it out takes longer than parsing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (as the class says)

        try:
            told = version("rosterd")
        except PackageNotFoundError:
            told = "(from a checkout)"
        sys.stdout.write(f"rosterd {told}\n")
        parser.exit(Exit.OK)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def _files(options: argparse.Namespace, *, trusted: bool) -> Files:
    return Files(options.roster, options.site, trusted)


# --- rosterd reconcile ---


def _reconcile(options: argparse.Namespace) -> Exit:
    if options.detailed_exitcode and not options.dry_run:
        raise UnknownName("--detailed-exitcode goes with --dry-run")
    log.configure()
    return _dry_run(options) if options.dry_run else _run(options)


def _dry_run(options: argparse.Namespace) -> Exit:
    inputs = _files(options, trusted=False).load(system_names())
    warn_without_effect(inputs.site)
    check_cluster(inputs.roster, inputs.site)
    plan = look(_this_machine()[0], inputs, options.allow_cuts)
    if options.json:
        _print_json(view.plan_json(plan))
    else:
        _show_plan(plan)
    changes = bool(plan.actions or plan.held)
    return Exit.CHANGES if options.detailed_exitcode and changes else Exit.OK


def _run(options: argparse.Namespace) -> Exit:
    started = time.monotonic()
    run_id = _begin()
    with lock.exclusive(options.lock_wait):
        try:
            done = reconcile(_surroundings(options, quiet=options.json), options.allow_cuts)
        except RosterdError as error:
            structlog.get_logger().error("run_stopped", message=f"run stopped, nothing was changed: {error}")
            return _exit_for(error)
        except Exception as error:
            structlog.get_logger().error("run_stopped", message=f"run stopped by a fault of rosterd's own: {error!r}")
            raise
    seconds = time.monotonic() - started
    report.log_standing(done.plan, done.unmet)
    if done.stopped is not None:
        structlog.get_logger().error("run_stopped", message=f"run stopped halfway: {done.stopped}")
    report.log_summary(done, seconds)
    code = _exit_of(done)
    if options.json:
        _print_json(report.report_json(done, run_id, code, seconds))
    return code


def _begin() -> str:
    """See that the caller is root, and give the run an id that each of its log lines bears."""
    if os.geteuid() != 0:
        raise ScanFailed("only root can change this machine; as yourself: rosterd --dry-run")
    run_id = os.urandom(16).hex()
    structlog.contextvars.bind_contextvars(run_id=run_id)
    return run_id


def _exit_of(done: Report) -> Exit:
    if done.stopped is not None:
        # 1 and 5 say that nothing was changed.
        return Exit.PROBLEMS if done.outcomes else _exit_for(done.stopped)
    if done.plan.held:
        return Exit.HELD
    return Exit.PROBLEMS if done.has_problems else Exit.OK


def _this_machine() -> tuple[Host, Executor]:
    from reconciler.host.machine import this_machine  # noqa: PLC0415 (loads D-Bus: half of the program's time)

    return this_machine()


def _surroundings(options: argparse.Namespace, *, quiet: bool) -> Surroundings:
    """Put the real machine together."""
    files = _files(options, trusted=True)
    scanner, executor = _this_machine()
    quiet = quiet or log.goes_to_journal(sys.stderr, os.environ)

    def load() -> Inputs:
        inputs = files.load(system_names())
        warn_without_effect(inputs.site)
        check_cluster(inputs.roster, inputs.site)
        return inputs

    return Surroundings(
        load=load,
        digest=files.digest,
        host=scanner,
        executor=executor,
        sleep=time.sleep,
        planned=_no_plan if quiet else _show_plan,
        ended=report.log_outcome,
    )


def _show_plan(plan: Plan) -> None:
    text = view.plan_text(plan, colour=log.wants_colour(sys.stdout, os.environ))
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # a run goes on, whether or not somebody reads along
        log.discard(sys.stdout)


def _no_plan(_plan: Plan) -> None:
    """Show nothing: the log tells each action as it ends."""


# --- the commands that only read ---


def _validate(options: argparse.Namespace) -> Exit:
    inputs = _files(options, trusted=False).load(system_names())
    for setting in inputs.site.without_effect:
        _tell(f"WARN: site file: {setting} is set, but has no effect in this version")
    conflicts = 0
    if options.k8s_users_json is not None:
        cluster = _json_file(options.k8s_users_json, parse_cluster_tiers)
        for found in compare_tiers(inputs.roster, inputs.site, cluster):
            _tell(f"{'ERROR' if found.is_conflict else 'WARN'}: {found.text}")
            conflicts += found.is_conflict
    if conflicts:
        return Exit.CANNOT_RUN
    sys.stdout.write(f"{options.roster}: {len(inputs.roster.users)} on the roster, no errors\n")
    return Exit.OK


def _derive(options: argparse.Namespace) -> Exit:
    inputs = _files(options, trusted=False).load(())
    routed = inputs.site.routed
    given = {routed.name: _json_file(options.ports_json, derivation.parse_ports)} if routed else {}
    if options.playwright_ports_json is not None:
        given[derivation.PLAYWRIGHT] = _json_file(options.playwright_ports_json, derivation.parse_ports)
    try:
        document = derivation.derive(inputs.roster, inputs.site, given)
    except ValueError as error:
        raise ScanFailed(str(error)) from error
    _print_json(document)
    return Exit.OK


def _deprovision(options: argparse.Namespace) -> Exit:
    if options.destructive and not options.plan:
        raise UnknownName("--destructive goes with --plan")
    old, new = (Files(path, options.site, trusted=False).load(()).roster for path in (options.old, options.new))
    if options.plan:
        _print_json(deprovision_plan(old, new, destructive=options.destructive))
    else:
        sys.stdout.writelines(f"{name}\n" for name in dropped(old, new))
    return Exit.OK


def _json_file(path: str, parse: Callable[[str], Mapping[str, Any]]) -> Mapping[str, Any]:
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScanFailed(f"{path}: {getattr(error, 'strerror', None) or error}") from error


# --- rosterd adopt ---


def _adopt(options: argparse.Namespace) -> Exit:
    log.configure()
    _begin()
    surroundings = _surroundings(options, quiet=True)
    with lock.exclusive(_LOCK_SECONDS):
        inputs = surroundings.load()
        desired = desire(inputs.roster, inputs.site)
        actions = plan_adoption(options.names, desired, surroundings.host.observe(desired))
        outcomes = list(surroundings.executor.apply(actions))
    for outcome in outcomes:
        surroundings.ended(outcome)
    if any(outcome.status is Status.FAILED for outcome in outcomes):
        return Exit.PROBLEMS
    sys.stdout.write("managed; the next run completes them (now: rosterd reconcile)\n")
    return Exit.OK


def _print_json(document: object) -> None:
    json.dump(document, sys.stdout, indent=2, sort_keys=True, ensure_ascii=False)
    sys.stdout.write("\n")


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
