"""Reads the units: their state in one D-Bus call, everything else from the unit files' folders.

systemd lists a template once, whatever its instances, and asking it about each costs milliseconds;
the `.wants` and `.requires` links are what enabling makes (systemd.unit(5)), so they are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from reconciler.core.observed import Units
from reconciler.core.site import template_of
from reconciler.errors import ScanFailed, StepFailed
from reconciler.host.bus import Systemd

# systemd.unit(5), "Unit File Load Path", without those that generators write.
_FOLDERS = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
)


def scan_units(systemd: Systemd, templates: Collection[str], root: Path = Path("/")) -> Units:
    """Return the instances of these templates. Where systemd does not answer, `states` is None."""
    patterns = [template.replace("@.", "@*.") for template in templates]
    names = {path for folder in _FOLDERS for path in _listing(root / folder)}
    enabled, masked = _links(root, templates)
    present = frozenset(path.name for path in names if path.name in templates)
    try:
        states = systemd.states(patterns) if patterns else {}
        why = ""
    except StepFailed as error:
        states, why = None, str(error)
    return Units(states, enabled, masked, present, why)


def _links(root: Path, templates: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return what is enabled, and what is masked, among the instances of these templates."""
    enabled: set[str] = set()
    masked: set[str] = set()
    for folder in _FOLDERS:
        for path in _listing(root / folder):
            if path.name.endswith((".wants", ".requires")):
                enabled |= {link.name for link in _listing(path)}
            elif "@" in path.name and path.is_symlink() and str(path.readlink()) == "/dev/null":
                masked.add(path.name)
    return frozenset(name for name in enabled if template_of(name) in templates), frozenset(masked)


def _listing(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ScanFailed(f"{folder}: {error.strerror}") from error
    yield from entries
