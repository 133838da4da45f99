"""What the commands share: who may run them, what they read, how they speak."""

from __future__ import annotations

import argparse
import json
import os
import sys

import structlog

from reconciler import log
from reconciler.core.desired import Desired, desire
from reconciler.core.observed import Observed
from reconciler.core.outcome import Executor
from reconciler.engine import Host
from reconciler.errors import ScanFailed
from reconciler.host.scan_accounts import system_names
from reconciler.inputs import Files, Inputs

LOCK_SECONDS = 60
DOCTOR_SECONDS = 5


def begin() -> str:
    """See that the caller is root, and give the run an id that each of its log lines bears.

    What changes the machine is in the journal too when it is done by hand.
    """
    if os.geteuid() != 0:
        raise ScanFailed("only root can change this machine; as yourself: rosterd --dry-run")
    log.configure(in_journal=True)
    run_id = os.urandom(16).hex()
    structlog.contextvars.bind_contextvars(run_id=run_id)
    return run_id


def files_of(options: argparse.Namespace, *, trusted: bool) -> Files:
    """Return the files that the options name."""
    return Files(options.roster, options.site, trusted)


def this_machine(files: Files | None = None) -> tuple[Host, Executor]:
    """Return what looks at this machine and what changes it; an edit of `files` puts off what takes long."""
    try:
        from reconciler.host.machine import this_machine  # noqa: PLC0415 (loads D-Bus: half of the program's time)
    except (ImportError, OSError) as error:  # too few open files, a disk that fails
        raise ScanFailed(f"what speaks D-Bus cannot be loaded: {error}") from error

    return this_machine(files.paths if files else ())


def look_around(files: Files, host: Host) -> tuple[Inputs, Desired, Observed]:
    """Load the files and look at the machine once, for a command that asks about one person."""
    inputs = files.load(system_names())
    desired = desire(inputs.roster, inputs.site)
    return inputs, desired, host.observe(desired)


def print_json(document: object) -> None:
    """Write a document to standard output."""
    json.dump(document, sys.stdout, indent=2, sort_keys=True, ensure_ascii=False)
    sys.stdout.write("\n")


def tell(text: str) -> None:
    """Say something to whoever runs the command."""
    sys.stderr.write(f"{text}\n")
