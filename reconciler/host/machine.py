"""What looks at the machine and what changes it, put together over one connection to systemd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.host.bus import Systemd
from reconciler.host.executor import HostExecutor
from reconciler.host.scan import Scanner
from reconciler.host.state import State

if TYPE_CHECKING:
    from reconciler.host.scan_hazards import HazardScanner


def this_machine(watched: Sequence[Path] = ()) -> tuple[Scanner, HostExecutor]:
    """Return the scanner and the executor of this machine; nothing is opened before it is needed.

    `watched` are the files whose edit puts long work off.
    """
    systemd, state = Systemd(), State()
    return Scanner(systemd, state), HostExecutor(systemd, state, watched)


def close_look() -> Scanner:
    """Return a scanner that looks at what no plan needs, too."""
    return Scanner(Systemd(), State(), closely=True)


def for_doctor() -> tuple[Scanner, HazardScanner]:
    """Return what looks at this machine, and what looks at it for hazards."""
    from reconciler.host.scan_hazards import HazardScanner  # noqa: PLC0415 (no run is to wait for what it loads)

    systemd = Systemd()
    return Scanner(systemd, State()), HazardScanner(systemd)
