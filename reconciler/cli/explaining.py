"""`rosterd explain`: why everything of one person is as it is."""

from __future__ import annotations

import argparse
import sys

from reconciler import log
from reconciler.cli.common import files_of, print_json, this_machine
from reconciler.cli.exits import Exit
from reconciler.core.explain import check_known, explain
from reconciler.core.explain_view import explanation_json, explanation_text
from reconciler.core.explanation import Case
from reconciler.engine import look
from reconciler.errors import TierConflict
from reconciler.host.scan_accounts import system_names
from reconciler.inputs import Inputs, check_cluster


def explain_person(options: argparse.Namespace) -> Exit:
    """Show for every attribute of a person what is wanted and why, what is there, and what a run would do."""
    log.configure()
    files = files_of(options, trusted=False)
    inputs = files.load(system_names())
    seen = look(this_machine()[0], inputs)
    check_known(options.name, inputs.roster, seen.observed, seen.plan)
    case = Case.of(
        options.name, inputs.roster, inputs.site, seen.desired, seen.observed, seen.plan, files.sources(inputs)
    )
    told = explain(case, _why_stopped(inputs))
    if options.json:
        print_json(explanation_json(told))
    else:
        sys.stdout.write(explanation_text(told))
    return Exit.OK


def _why_stopped(inputs: Inputs) -> str:
    """Return what would stop a run before it has changed anything."""
    try:
        check_cluster(inputs.roster, inputs.site)
    except TierConflict as error:
        return str(error)
    return ""
