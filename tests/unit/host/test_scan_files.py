"""Env files and generated maps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.core.observed import EnvFile
from reconciler.core.site import OutputKind
from reconciler.errors import ScanFailed
from reconciler.host.scan_files import scan_env_files, scan_outputs
from tests.unit.facts import SITE

SERVICES = SITE.services.values()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return /etc/t3-serve below a temporary root."""
    made = tmp_path / "etc" / "t3-serve"
    made.mkdir(parents=True)
    return made


def test_every_env_file_is_read_whoever_its_user_is(tmp_path: Path, folder: Path) -> None:
    (folder / "alice.env").write_text("TOKEN=secret\nT3_PORT=3773\nT3_PORT=3774\n")
    (folder / "playwright-alice.env").write_text("PLAYWRIGHT_PORT='8931'")
    (folder / "gone.env").write_text('TOKEN="open')
    (folder / ".alice.env.rosterd-new").write_text("T3_PORT=1\n")
    (folder / "alice.env.bak").write_text("T3_PORT=1\n")
    (folder / "dispatch.json").write_text("{}")
    assert scan_env_files(SERVICES, tmp_path) == {
        ("t3", "alice"): EnvFile(exists=True, value="3774"),
        ("t3", "gone"): EnvFile(exists=True, value=None, open_ended=True),
        ("t3", "playwright-alice"): EnvFile(exists=True, value=None),
        ("playwright", "alice"): EnvFile(exists=True, value="8931"),
    }


def test_no_secret_is_kept(tmp_path: Path, folder: Path) -> None:
    (folder / "alice.env").write_text("TOKEN=secret\nT3_PORT=3773\n")
    assert "secret" not in repr(scan_env_files(SERVICES, tmp_path))


def test_a_missing_folder_holds_no_env_files(tmp_path: Path) -> None:
    assert scan_env_files(SERVICES, tmp_path) == {}


def test_what_is_no_file_in_place_of_an_env_file_is_that_users_problem(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(folder / "alice.env")
    (folder / "bob.env").write_text("T3_PORT=3773\n")
    found = scan_env_files(SERVICES, tmp_path)
    assert found["t3", "alice"].problem == f"{folder}/alice.env is not a regular file; put one there, or remove it"
    assert found["t3", "bob"] == EnvFile(exists=True, value="3773")


def test_maps_are_read_and_missing_ones_are_none(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "ttyd-admins").write_bytes(b"alice\n\xff")
    assert scan_outputs([OutputKind.TTYD_USER_MAP, OutputKind.TTYD_ADMINS, OutputKind.DISPATCH_JSON], tmp_path) == {
        OutputKind.TTYD_USER_MAP: None,
        OutputKind.TTYD_ADMINS: "alice\n\N{REPLACEMENT CHARACTER}",
        OutputKind.DISPATCH_JSON: None,
    }


def test_a_map_that_cannot_be_read_is_an_error(tmp_path: Path, folder: Path) -> None:
    (folder / "dispatch.json").mkdir()
    with pytest.raises(ScanFailed, match=r"dispatch\.json is not a regular file"):
        scan_outputs([OutputKind.DISPATCH_JSON], tmp_path)
