"""Whose login session a command runs in."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.host.session import session_uid


@pytest.mark.parametrize(
    ("text", "uid"),
    [
        ("0::/user.slice/user-1001.slice/session-3.scope\n", 1001),
        ("0::/user.slice/user-0.slice/session-3.scope\n", 0),
        ("0::/user.slice/user-1001.slice/user@1001.service/app.slice/x.scope\n", 1001),
        ("0::/system.slice/rosterd.service\n", None),
        ("0::/\n", None),
        ("0::/system.slice/user-x.slice\n", None),
    ],
)
def test_a_session_is_known_by_its_slice(tmp_path: Path, text: str, uid: int | None) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(text)
    assert session_uid(tmp_path) == uid
