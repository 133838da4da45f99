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
from reconciler.host.files import NOT_A_FILE, read_bytes

# systemd.unit(5), "Unit File Load Path", without those that generators write.
_FOLDERS = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
)


def scan_units(systemd: Systemd, templates: Collection[str], root: Path = Path("/")) -> Units:
    """Return the instances of these templates. Where systemd does not answer, `states` is None."""
    patterns = [template.replace("@.", "@*.") for template in sorted(templates)]
    enabled, masked = _links(root, templates)
    present = _template_files(root, templates)
    try:
        states = systemd.states(patterns) if patterns else {}
        why = ""
    except StepFailed as error:
        states, why = None, str(error)
    return Units(
        states=states,
        enabled=enabled,
        masked=masked,
        templates=frozenset(present),
        not_installable=frozenset(name for name, path in present.items() if not _has_install(path)),
        why=why,
    )


def _template_files(root: Path, templates: Collection[str]) -> dict[str, Path]:
    """Return the file of each template, the one that systemd takes: the first of its load path."""
    found: dict[str, Path] = {}
    for folder in _FOLDERS:
        for path in _listing(root / folder):
            if path.name in templates:
                found.setdefault(path.name, path)
    return found


def _has_install(template: Path) -> bool:
    """Say whether a unit file has the section that enabling goes by (systemd.unit(5), "[INSTALL] SECTION OPTIONS")."""
    try:
        data = read_bytes(template, follow=True)
    except OSError as error:
        if error.errno == NOT_A_FILE:
            return True  # masked: a link to /dev/null
        raise ScanFailed(f"{template}: {error.strerror}") from error
    return data is not None and any(line.strip() == b"[Install]" for line in data.splitlines())


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
