"""The whole look: what may not be read is named and left unknown without root, and stops a run with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.errors import ScanFailed
from reconciler.host import drop_ins
from reconciler.host.scan import Scanner
from reconciler.host.state import State
from tests.unit.facts import desired
from tests.unit.host.test_scan_units import Answering


def looking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uid: int) -> Scanner:
    """Return a scanner of this machine, run by somebody, to whom drop-ins are closed."""

    def refuse() -> dict[str, str]:
        raise PermissionError(13, "Permission denied", "/etc/systemd/system/user-1000.slice.d")

    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(drop_ins, "scan", refuse)
    return Scanner(Answering(None), State(tmp_path))


def test_drop_ins_that_may_not_be_read_are_unknown_to_who_is_not_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = looking(monkeypatch, tmp_path, 1000).observe(desired())
    assert seen.units.drop_ins is None
    (told,) = [what for what in seen.unseen if "drop-ins" in what]
    assert told == "the drop-ins of limits (/etc/systemd/system/user-1000.slice.d: Permission denied)"


def test_as_root_a_drop_in_that_may_not_be_read_stops_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ScanFailed, match=r"user-1000\.slice\.d: Permission denied"):
        looking(monkeypatch, tmp_path, 0).observe(desired())


def test_what_there_is_and_whether_a_reload_is_due_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(drop_ins, "scan", lambda: {"user-1000.slice": "x"})
    monkeypatch.setattr(drop_ins, "is_reload_due", lambda: True)
    seen = Scanner(Answering({}), State(tmp_path)).observe(desired())
    assert seen.units.drop_ins == {"user-1000.slice": "x"}
    assert seen.units.reload_due
