"""`rosterd status`: how everybody stands. It looks, and ends with 0 whatever it shows."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from pathlib import Path

from reconciler import engine, log
from reconciler.cli.common import files_of, print_json
from reconciler.cli.exits import Exit
from reconciler.core.standing import standing
from reconciler.core.status import MachineStatus, status_json
from reconciler.core.status_text import status_text
from reconciler.errors import FileRefused, StepFailed
from reconciler.host.files import replace_file
from reconciler.host.scan_accounts import system_names
from reconciler.host.sources import refuse_writable_parents
from reconciler.inputs import Files

# It names everybody and all that runs for them; a group may be given it by the folder that it lies in.
_PAGE_MODE = 0o640


def status(options: argparse.Namespace) -> Exit:
    """Show how everybody stands: as a table, as JSON, or as a page."""
    found, now = _look(files_of(options, trusted=False))
    if options.html is not None:
        _write_page(Path(options.html), found, now)
    if options.json:
        print_json(status_json(found))
    elif options.html is None:
        colour = log.wants_colour(sys.stdout, os.environ)
        sys.stdout.write(status_text(found, now=now, colour=colour))
    return Exit.OK


def _look(files: Files) -> tuple[MachineStatus, int]:
    from reconciler.host.machine import close_look  # noqa: PLC0415 (loads D-Bus: half of the program's time)

    look = engine.look(close_look(), files.load(system_names()))
    return standing(look.desired, look.observed, look.plan), look.observed.now


def _write_page(path: Path, found: MachineStatus, now: int) -> None:
    from reconciler.core.status_page import status_page  # noqa: PLC0415 (a table needs no style sheet)

    if os.geteuid() == 0:
        try:
            refuse_writable_parents(str(path))  # in a person's folder a link could lead anywhere
        except FileRefused as error:
            raise StepFailed(f"the page is not written: {error}") from error
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        # As /dev/stdout, which would be a file from then on, for everybody.
        raise StepFailed(f"the page is not written: {path} is no regular file, and would be replaced by one")
    replace_file(path, status_page(found, os.uname().nodename, now).encode(), _PAGE_MODE)
