"""The arguments of every command."""

from __future__ import annotations

import argparse
import sys
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from reconciler.cli import people, reading, run
from reconciler.cli.common import DOCTOR_SECONDS, LOCK_SECONDS
from reconciler.cli.exits import Exit
from reconciler.core.records import Step
from reconciler.inputs import ROSTER, SITE


class _Parser(argparse.ArgumentParser):
    """Ends with 64 on wrong usage (EX_USAGE of sysexits.h); argparse's own 2 means something else here."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(Exit.USAGE, f"{self.prog}: {message}\n")


if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[_Parser]  # noqa: SLF001 (argparse has no public name for it)


def with_command(arguments: list[str]) -> list[str]:
    """Complete `rosterd --dry-run` to `rosterd reconcile --dry-run`."""
    general = ("-h", "--help", "--version")
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in general):
        return ["reconcile", *arguments]
    return arguments


def parser_of_all() -> argparse.ArgumentParser:
    """Return the parser; what it returns has the command's function as `command`."""
    parser = _Parser(prog="rosterd", description="Make this machine agree with the roster.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    files = _Parser(add_help=False)
    files.add_argument("--roster", metavar="F", default=ROSTER, help=f"who works here (default: {ROSTER})")
    files.add_argument("--site", metavar="F", help=f"the site's policy (default: {SITE}, if there is one)")
    _add_reconcile(commands, files)
    _add_looking(commands, files)
    _add_reading(commands, files)
    _add_people(commands, files)
    _add_removal(commands, files)
    return parser


def _add_reconcile(commands: _Commands, files: _Parser) -> None:
    go = commands.add_parser("reconcile", parents=[files], help="make the machine agree with the roster")
    go.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")
    go.add_argument("--detailed-exitcode", action="store_true", help="with --dry-run: exit 2 if there are changes")
    go.add_argument("--json", action="store_true", help="print the plan, or the run, as JSON")
    go.add_argument("--allow-cuts", metavar="N", type=_number, help="let up to N people be cut off this once")
    go.add_argument("--retry", action="store_true", help="try what failed in homes now, and not when its pause is over")
    go.add_argument("--lock-wait", metavar="S", type=_number, default=LOCK_SECONDS,
                    help=f"seconds to wait for another run to end (default: {LOCK_SECONDS})")  # fmt: skip
    go.set_defaults(command=run.reconcile)


def _add_looking(commands: _Commands, files: _Parser) -> None:
    stand = commands.add_parser("status", parents=[files], help="show how everybody and their services stand")
    stand.add_argument("--json", action="store_true", help="print it as JSON")
    stand.add_argument("--html", metavar="FILE", help="write it as a page of its own")
    stand.set_defaults(command=_status)

    why = commands.add_parser("explain", parents=[files, _person()], help="say why all of a person is as it is")
    why.add_argument("--json", action="store_true", help="print it as JSON")
    why.set_defaults(command=_explain)

    look = commands.add_parser("doctor", parents=[files], help="say what is hazardous on this machine")
    look.add_argument("--accept", metavar="KIND[:NAME]", type=_accepted, action="append", default=[],
                      help="leave out a kind of hazard, or where it concerns a person; can be repeated")  # fmt: skip
    waiting = f"seconds between two looks at restarts, 0 for one look (default: {DOCTOR_SECONDS})"
    look.add_argument("--wait", metavar="S", type=_number, default=DOCTOR_SECONDS, help=waiting)
    look.add_argument("--json", action="store_true", help="print the hazards as JSON")
    look.set_defaults(command=_doctor)


# What these tell takes a while to load, which a run is not to wait for.
def _status(options: argparse.Namespace) -> Exit:
    from reconciler.cli.status import status  # noqa: PLC0415 (as said)

    return status(options)


def _explain(options: argparse.Namespace) -> Exit:
    from reconciler.cli.explaining import explain_person  # noqa: PLC0415 (as said)

    return explain_person(options)


def _doctor(options: argparse.Namespace) -> Exit:
    from reconciler.cli.doctor import doctor  # noqa: PLC0415 (as said)

    return doctor(options)


def _accepted(text: str) -> object:
    from reconciler.cli.doctor import accepted_hazard  # noqa: PLC0415 (as said)

    return accepted_hazard(text)


def _add_reading(commands: _Commands, files: _Parser) -> None:
    check = commands.add_parser("validate", parents=[files], help="check the roster and the site file")
    check.add_argument("--k8s-users-json", metavar="F", help="also compare tiers with this map of k8s_user to tier")
    check.set_defaults(command=reading.validate)

    show = commands.add_parser("derive", parents=[files], help="print the desired state as JSON")
    show.add_argument("--ports-json", metavar="F", required=True, help="the routed service's ports by os_user")
    show.add_argument("--playwright-ports-json", metavar="F", help="the ports of the service playwright, likewise")
    show.set_defaults(command=reading.derive)

    leave = commands.add_parser("deprovision", help="say who left between two rosters")
    leave.add_argument("--old", metavar="R", required=True, help="the roster before")
    leave.add_argument("--new", metavar="R", required=True, help="the roster now")
    leave.add_argument("--site", metavar="F", help=f"the site's policy (default: {SITE}, if there is one)")
    leave.add_argument("--plan", action="store_true", help="print the steps for each as JSON")
    leave.add_argument("--destructive", action="store_true", help="with --plan: include deleting the account")
    leave.set_defaults(command=reading.deprovision)


def _add_people(commands: _Commands, files: _Parser) -> None:
    take = commands.add_parser("adopt", parents=[files], help="take over accounts that exist")
    take.add_argument("names", metavar="NAME", nargs="+", help="an account that is on the roster")
    take.set_defaults(command=people.adopt)

    one = [files, _person(), _dry_run()]
    for name, function, words in (
        ("cut", people.cut, "cut a person off at once, and until uncut"),
        ("uncut", people.uncut, "end a cut by command"),
    ):
        command = commands.add_parser(name, parents=one, help=words)
        command.add_argument("--json", action="store_true", help="print the plan, or the run, as JSON")
        command.set_defaults(command=function)

    step = commands.add_parser("done", parents=[files, _person()], help="say that an external step has been taken")
    names = [one.value for one in Step]  # argparse shows members of an enumeration by their repr
    step.add_argument("steps", metavar="STEP", nargs="+", choices=names, help="one of " + ", ".join(names))
    step.set_defaults(command=people.done)


def _add_removal(commands: _Commands, files: _Parser) -> None:
    one = [files, _person(), _dry_run()]
    delete = commands.add_parser("destroy", parents=[*one, _yes()], help="archive a person's files and delete them")
    delete.add_argument("--archive-dir", metavar="F", help="where the archive goes")
    delete.set_defaults(command=lambda options: _removal().destroy(options))
    back = commands.add_parser("restore", parents=one, help="bring a deleted person back")
    back.set_defaults(command=lambda options: _removal().restore(options))
    forget = commands.add_parser("forget", parents=[*one, _yes()], help="let a deleted person's name and ports go")
    forget.set_defaults(command=lambda options: _removal().forget(options))


def _removal() -> ModuleType:
    """Return the commands that destroy, which load D-Bus: nobody else is to wait for that."""
    from reconciler.cli import removal  # noqa: PLC0415 (as said)

    return removal


def _person() -> _Parser:
    parser = _Parser(add_help=False)
    parser.add_argument("name", metavar="NAME", help="whom it is about")
    return parser


def _dry_run() -> _Parser:
    parser = _Parser(add_help=False)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and change nothing")
    return parser


def _yes() -> _Parser:
    parser = _Parser(add_help=False)
    parser.add_argument("--yes", metavar="NAME", help="the name once more, instead of being asked for it")
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
