"""`rosterd status`: how everybody stands. It reads, and ends with 0 whatever it shows."""

from __future__ import annotations

import argparse
import os
import sys

from reconciler import engine, log
from reconciler.cli.common import files_of, print_json
from reconciler.cli.exits import Exit
from reconciler.core.standing import standing
from reconciler.core.status import MachineStatus, status_json
from reconciler.core.status_text import status_text
from reconciler.host.scan_accounts import system_names
from reconciler.inputs import Files


def status(options: argparse.Namespace) -> Exit:
    """Show how everybody stands, as a table or as JSON."""
    found, now = _look(files_of(options, trusted=False))
    if options.json:
        print_json(status_json(found))
    else:
        colour = log.wants_colour(sys.stdout, os.environ)
        sys.stdout.write(status_text(found, now=now, colour=colour))
    return Exit.OK


def _look(files: Files) -> tuple[MachineStatus, int]:
    from reconciler.host.machine import close_look  # noqa: PLC0415 (loads D-Bus: half of the program's time)

    look = engine.look(close_look(), files.load(system_names()))
    return standing(look.desired, look.observed, look.plan), look.observed.now
