"""The commands that only read: validate, derive, deprovision."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reconciler.cli.common import files_of, print_json, tell
from reconciler.cli.exits import Exit
from reconciler.core import derive as derivation
from reconciler.core.deprovision import deprovision_plan, dropped
from reconciler.core.tiers import compare_tiers, parse_cluster_tiers
from reconciler.errors import ScanFailed, UnknownName
from reconciler.host.scan_accounts import system_names
from reconciler.inputs import Files


def validate(options: argparse.Namespace) -> Exit:
    """Check the roster and the site file, and a map of tiers if one is given."""
    inputs = files_of(options, trusted=False).load(system_names())
    conflicts = 0
    if options.k8s_users_json is not None:
        cluster = _json_file(options.k8s_users_json, parse_cluster_tiers)
        for found in compare_tiers(inputs.roster, inputs.site, cluster):
            tell(f"{'ERROR' if found.is_conflict else 'WARN'}: {found.text}")
            conflicts += found.is_conflict
    if conflicts:
        return Exit.CANNOT_RUN
    sys.stdout.write(f"{options.roster}: {len(inputs.roster.users)} on the roster, no errors\n")
    return Exit.OK


def derive(options: argparse.Namespace) -> Exit:
    """Print the desired state."""
    inputs = files_of(options, trusted=False).load(())
    routed = inputs.site.routed
    given = {routed.name: _json_file(options.ports_json, derivation.parse_ports)} if routed else {}
    if options.playwright_ports_json is not None:
        given[derivation.PLAYWRIGHT] = _json_file(options.playwright_ports_json, derivation.parse_ports)
    try:
        document = derivation.derive(inputs.roster, inputs.site, given)
    except ValueError as error:
        raise ScanFailed(str(error)) from error
    print_json(document)
    return Exit.OK


def deprovision(options: argparse.Namespace) -> Exit:
    """Print who left between two rosters, or what there is to undo for them."""
    if options.destructive and not options.plan:
        raise UnknownName("--destructive goes with --plan")
    old, new = (Files(path, options.site, trusted=False).load(()).roster for path in (options.old, options.new))
    if options.plan:
        print_json(deprovision_plan(old, new, destructive=options.destructive))
    else:
        sys.stdout.writelines(f"{name}\n" for name in dropped(old, new))
    return Exit.OK


def _json_file(path: str, parse: Callable[[str], Mapping[str, Any]]) -> Mapping[str, Any]:
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScanFailed(f"{path}: {getattr(error, 'strerror', None) or error}") from error
