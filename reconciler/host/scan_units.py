"""Reads the units: their state in one D-Bus call, everything else from the unit files' folders.

systemd lists a template once, whatever its instances, and asking it about each costs milliseconds;
the `.wants` and `.requires` links are what enabling makes (systemd.unit(5)), so they are read.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reconciler.core.last_run import LastRun
from reconciler.core.observed import Units, UnitState
from reconciler.core.site import template_of
from reconciler.errors import ScanFailed, StepFailed
from reconciler.host.bus import Systemd
from reconciler.host.files import NOT_A_FILE, read_bytes

_INVOCATION = "invocation:"
# systemd.unit(5), "Unit File Load Path", without those that generators write.
_FOLDERS = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
)


def scan_units(
    systemd: Systemd, templates: Collection[str], last_run: LastRun | None = None, root: Path = Path("/")
) -> Units:
    """Return the instances of these templates. Where systemd does not answer, `states` is None.

    How often a unit was restarted is asked of those that may have been since `last_run`.
    """
    patterns = [template.replace("@.", "@*.") for template in sorted(templates)]
    enabled, masked = _links(root, templates)
    present = _template_files(root, templates)
    try:
        states = _states(systemd, patterns, last_run, root) if patterns else {}
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


def _states(systemd: Systemd, patterns: Sequence[str], last_run: LastRun | None, root: Path) -> Mapping[str, UnitState]:
    """Return the loaded instances, with what their links in /run/systemd/units tell at once.

    systemd makes the link invocation:UNIT anew at each start of a unit, for journald to read: so its time is that of
    the start (unit_export_state_files() in systemd's unit.c, since 235).
    """
    found = systemd.states(patterns)
    now = time.time()
    started = _starts(root / "run/systemd/units")
    counted = systemd.restarts([name for name in found if _is_new(name, started, last_run)])
    restarts = {**({} if last_run is None else last_run.restarts), **counted}
    return {
        name: replace(state, up=_seconds_since(started.get(name), now), restarts=restarts.get(name, 0))
        for name, state in found.items()
    }


def _seconds_since(start: float | None, now: float) -> float | None:
    """Return None where a clock was set back: a unit that is in doubt counts as one that stays up."""
    return now - start if start is not None and start <= now else None


def _is_new(name: str, started: Mapping[str, float], last_run: LastRun | None) -> bool:
    """Say whether systemd may have restarted a service since the last run, or has ever before it."""
    if not name.endswith(".service"):
        return False
    # A second more, as the record counts whole ones.
    return last_run is None or name in last_run.restarts or started.get(name, last_run.at) >= last_run.at - 1


def _starts(folder: Path) -> dict[str, float]:
    """Return when each unit was last started, in seconds since 1970."""
    found = {}
    try:
        with os.scandir(folder) as links:
            for link in links:
                if link.name.startswith(_INVOCATION):
                    with contextlib.suppress(FileNotFoundError):
                        found[link.name.removeprefix(_INVOCATION)] = link.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ScanFailed(f"{folder}: {error.strerror}") from error
    return found


def has_unit_file(unit: str, root: Path = Path("/")) -> bool:
    """Say whether there is a file of this name where systemd looks for units, those that generators write included."""
    generated = ("run/systemd/generator", "run/systemd/generator.late")
    return any((root / folder / unit).exists() for folder in (*_FOLDERS, *generated))


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
                enabled.update(_names(path))
            elif "@" in path.name and _is_mask(path):
                masked.add(path.name)
    return frozenset(name for name in enabled if template_of(name) in templates), frozenset(masked)


def _is_mask(path: Path) -> bool:
    try:
        return path.is_symlink() and str(path.readlink()) == "/dev/null"
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ScanFailed(f"{path}: {error.strerror}") from error


def _listing(folder: Path) -> Iterator[Path]:
    return (folder / name for name in sorted(_names(folder)))


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (a path for each takes longer than the listing)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ScanFailed(f"{folder}: {error.strerror}") from error
