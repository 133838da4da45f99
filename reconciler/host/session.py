"""Whose login session this process runs in."""

from __future__ import annotations

import re
from pathlib import Path

_USER_SLICE = re.compile(r"/user-(\d+)\.slice")


def session_uid(proc: Path = Path("/proc")) -> int | None:
    """Return the uid of whose session it is, None where it is none (cgroups(7); systemd-logind's slices)."""
    found = _USER_SLICE.search((proc / "self/cgroup").read_text())
    return int(found[1]) if found else None
