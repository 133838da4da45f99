"""rosterd's drop-ins on this machine: /etc/systemd/system/UNIT.d/50-rosterd.conf.

systemd reads them when it is reloaded. That one is due is marked in /run, before the first file is changed: a run that
is killed between the two leaves the mark, and the next one sees it. A boot clears it, for systemd starts anew.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from reconciler.core.drop_ins import FILE_NAME, FOLDER, path_of
from reconciler.errors import ScanFailed, StepFailed
from reconciler.host import files

_MODE = 0o644
_MARK = Path("/run/rosterd/reload-due")


def scan(root: Path = Path("/")) -> dict[str, str]:
    """Return the texts of those that there are, by unit, "" for what is no file.

    Raises `ScanFailed` or PermissionError.
    """
    folder = root / FOLDER.lstrip("/")
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith((".slice.d", ".service.d"))]
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise
    except OSError as error:
        raise ScanFailed(f"{folder}: {error.strerror}") from error
    texts = {name.removesuffix(".d"): _text(folder / name / FILE_NAME) for name in sorted(names)}
    return {unit: text for unit, text in texts.items() if text is not None}


def write(unit: str, text: str | None) -> None:
    """Put a unit's drop-in in place, or remove it and the folder that it was alone in. Raises `StepFailed`."""
    path = Path(path_of(unit))
    if text is not None:
        files.replace_file(path, text.encode(), _MODE)
        return
    files.remove_file(path)
    with contextlib.suppress(StepFailed):  # somebody else has a drop-in there too
        files.remove_empty_folder(path.parent)


def is_reload_due(root: Path = Path("/")) -> bool:
    """Say whether systemd is still to read what was changed. Raises OSError where that cannot be seen."""
    try:
        (root / str(_MARK).lstrip("/")).lstat()
    except FileNotFoundError:
        return False
    return True


def mark_reload_due() -> None:
    """Note that systemd is to read what is being changed. Raises `StepFailed`."""
    files.replace_file(_MARK, b"", 0o600)


def clear_reload_due() -> None:
    """Note that it has. Raises `StepFailed`."""
    files.remove_file(_MARK)


def _text(path: Path) -> str | None:
    try:
        data = files.read_bytes(path, follow=True)
    except PermissionError:
        raise
    except NotADirectoryError:
        return None  # a file where systemd would have the folder, which it passes over
    except OSError as error:
        if error.errno == files.NOT_A_FILE:
            return ""  # as a link to /dev/null, which masks it
        raise ScanFailed(f"{path}: {error.strerror}") from error
    return None if data is None else data.decode("utf-8", "replace")
