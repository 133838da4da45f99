"""`rosterd doctor`: the hazards of this machine. It only looks."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.cli.common import files_of, look_around, print_json, tell
from reconciler.cli.exits import Exit
from reconciler.core.hazard_case import HazardKind
from reconciler.core.hazards import find_hazards, hazards_json, hazards_text
from reconciler.core.sightings import Sightings
from reconciler.core.text import printable
from reconciler.errors import StepFailed

if TYPE_CHECKING:
    from reconciler.host.scan_hazards import HazardScanner


def doctor(options: argparse.Namespace) -> Exit:
    """Say what is hazardous here, and what can be done."""
    from reconciler.host.machine import for_doctor  # noqa: PLC0415 (loads D-Bus, as in cli.common)

    scanner, hazard_scanner = for_doctor()
    _, desired, observed = look_around(files_of(options, trusted=False), scanner)
    seen = _twice(hazard_scanner, hazard_scanner.look(desired, observed), options.wait)
    accepted = frozenset(options.accept)
    hazards = find_hazards(desired, observed, seen, accepted)
    unseen = (*observed.unseen, *seen.unseen)
    if options.json:
        print_json(hazards_json(hazards, accepted, unseen))
    else:
        sys.stdout.write(hazards_text(hazards, accepted, unseen))
    if hazards:
        return Exit.PROBLEMS
    return Exit.CANNOT_RUN if unseen and os.geteuid() == 0 else Exit.OK


def _twice(scanner: HazardScanner, seen: Sightings, seconds: int) -> Sightings:
    """Look at the restarts once more a while later; a service that crashes again and again has more of them then."""
    if not seconds or not seen.now:
        return seen
    tell(f"rosterd: waiting {seconds} s to see whether services restart (--wait 0: no second look)")
    time.sleep(seconds)
    try:
        now, restarting = scanner.look_again(sorted(seen.now))
    except StepFailed as error:
        return replace(seen, unseen=(*seen.unseen, f"restarts at the second look ({error})"))
    return replace(seen, before=seen.now, now=now, restarting=restarting)


def accepted_hazard(text: str) -> tuple[HazardKind, str | None]:
    """Read what is accepted: KIND, or KIND:NAME for one person."""
    kind, colon, name = text.partition(":")
    if kind not in list(HazardKind) or (colon and not name):
        raise argparse.ArgumentTypeError(
            f"'{printable(text)}' is no hazard, with :NAME or without: {', '.join(HazardKind)}"
        )
    return HazardKind(kind), name or None
