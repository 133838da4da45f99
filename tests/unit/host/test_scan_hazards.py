"""What the doctor looks at by itself: a root of files, and a manager that answers from a table."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.observed import Units, UnitState
from reconciler.core.sightings import ServiceLook, Sightings
from reconciler.core.site import Site
from reconciler.errors import StepFailed
from reconciler.host.bus import Property, Systemd, unit_path
from reconciler.host.scan_hazards import HazardScanner
from tests.unit.facts import Machine, bare, desired, person

RUNNING = "t3-serve@alice.service"
NO_CAP = 2**64 - 1
ME = os.geteuid()
TMP = "/tmp"  # noqa: S108 (not opened)


class Answering(Systemd):
    """A service manager that answers from a table, or not at all."""

    def __init__(self, table: Mapping[tuple[str, str], Any] | None) -> None:
        """Answer with `table`: a property by unit and name."""
        super().__init__()
        self.table = table
        self.now: dict[str, UnitState] = {}

    def properties(self, asked: Sequence[Property]) -> list[Any]:
        """Look each one up."""
        if self.table is None:
            raise StepFailed("the bus is gone")
        return [self.table.get((one.unit, one.name)) for one in asked]

    def states(self, patterns: Sequence[str]) -> Mapping[str, UnitState]:
        """Return the states at the second look."""
        assert patterns == ["t3-serve@*.service"]
        return self.now


TABLE = {
    (RUNNING, "PrivateTmp"): False,
    (RUNNING, "MemoryMax"): NO_CAP,
    (RUNNING, "ControlGroup"): "/system.slice/x",
    (RUNNING, "NRestarts"): 3,
    ("user-1000.slice", "MemoryMax"): 4096,
    ("user-1001.slice", "MemoryMax"): NO_CAP,
}


def box() -> Machine:
    """Return alice with a running service, and bob."""
    return bare().account("alice", 1000).account("bob", 1001).unit(RUNNING)


def look(root: Path, machine: Machine | None = None, table: Mapping[tuple[str, str], Any] | None = TABLE) -> Sightings:
    scanner = HazardScanner(Answering(table), root)
    return scanner.look(desired(person("alice"), person("bob")), (machine or box()).observed)


def put(root: Path, path: str, mode: int = 0o600) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    place.chmod(mode)


# --- what runs ---


def test_running_services_and_slices_come_with_their_caps(tmp_path: Path) -> None:
    seen = look(tmp_path)
    assert seen.services == {RUNNING: ServiceLook(private_tmp=False, memory_max=None, cgroup="/system.slice/x")}
    assert seen.slice_caps == {"alice": 4096, "bob": None}
    assert (seen.now, seen.before, seen.restarting) == ({RUNNING: 3}, {}, frozenset())


@pytest.mark.parametrize(
    ("unit", "state"),
    [
        (RUNNING, UnitState("failed", "failed")),
        (RUNNING, UnitState("inactive", "dead")),
        ("playwright-snapshot-refresh@alice.timer", UnitState("active", "waiting")),
    ],
)
def test_what_does_not_run_or_is_no_service_is_not_asked_about(tmp_path: Path, unit: str, state: UnitState) -> None:
    machine = box().having(units=Units(states={unit: state}))
    assert look(tmp_path, machine).services == {}


def test_a_service_that_waits_for_its_restart_is_told(tmp_path: Path) -> None:
    machine = box().unit(RUNNING, UnitState("activating", "auto-restart"))
    assert look(tmp_path, machine).restarting == {RUNNING}


def test_the_second_look_counts_again(tmp_path: Path) -> None:
    systemd = Answering({(RUNNING, "NRestarts"): 5})
    systemd.now = {RUNNING: UnitState("activating", "auto-restart")}
    now, restarting = HazardScanner(systemd, tmp_path).look_again([RUNNING])
    assert (now, restarting) == ({RUNNING: 5}, frozenset({RUNNING}))


def test_a_unit_that_has_gone_meanwhile_is_left_out(tmp_path: Path) -> None:
    table = {key: value for key, value in TABLE.items() if key != (RUNNING, "NRestarts")}
    assert look(tmp_path, table=table).services == {}


def test_a_manager_that_does_not_answer_is_unseen(tmp_path: Path) -> None:
    seen = look(tmp_path, table=None)
    assert (seen.services, seen.slice_caps, seen.now) == ({}, {}, {})
    assert seen.unseen == ("running services and slices (the bus is gone)",)


def test_a_manager_that_did_not_answer_before_is_not_asked_again(tmp_path: Path) -> None:
    machine = box().having(units=Units(states=None, why="no bus"))
    assert look(tmp_path, machine).unseen == ("running services and slices (no bus)",)


@pytest.mark.parametrize(
    ("unit", "path"),
    [
        ("t3-serve@alice.service", "t3_2dserve_40alice_2eservice"),
        ("7z_a.service", "_37z_5fa_2eservice"),
    ],
)
def test_the_object_of_a_unit_is_named_as_systemd_names_it(unit: str, path: str) -> None:
    # As systemd-path --bus, and sd_bus_path_encode(3), have it.
    assert unit_path(unit) == f"/org/freedesktop/systemd1/unit/{path}"


# --- files of root's ---


def modes(seen: Sightings) -> dict[str, int]:
    return {file.path: file.mode for file in seen.secrets}


def test_everything_beside_the_maps_is_a_secret_in_the_folder_of_the_env_files(tmp_path: Path) -> None:
    for name in ("alice.env", "alice.env.bak", "dispatch.json", ".dispatch.json.rosterd-new"):
        put(tmp_path, f"etc/t3-serve/{name}", 0o644)
    (tmp_path / "etc/t3-serve/folder").mkdir()
    assert modes(look(tmp_path)) == {"/etc/t3-serve/alice.env": 0o644, "/etc/t3-serve/alice.env.bak": 0o644}


def test_elsewhere_secrets_are_told_by_their_names(tmp_path: Path) -> None:
    for path in ("rosterd/playwright-token", "rosterd/roster.yaml", "ttyd-user-map", "ttyd-credential", "my-token"):
        put(tmp_path, f"etc/{path}", 0o640)
    seen = look(tmp_path)
    assert modes(seen) == {"/etc/rosterd/playwright-token": 0o640, "/etc/ttyd-credential": 0o640}
    assert len(seen.secrets) == 2, "the token is named by the site too"


def test_the_sites_own_places_are_looked_at(tmp_path: Path) -> None:
    site = Site(
        services={"jupyter": replace_env("/etc/jupyter/{user}.env"), "playwright": Site().services["playwright"]}
    )
    site = replace(site, playwright=replace(site.playwright, token_file="/srv/snap/tok"))  # noqa: S106 (a path)
    for path in ("etc/jupyter/alice.env", "etc/jupyter/config.py", "srv/snap/tok"):
        put(tmp_path, path, 0o604)
    seen = HazardScanner(Answering(TABLE), tmp_path).look(desired(person("alice"), site=site), box().observed)
    assert modes(seen) == {"/etc/jupyter/alice.env": 0o604, "/srv/snap/tok": 0o604}


def replace_env(path: str) -> Any:  # noqa: ANN401 (a Service)
    service = Site().services["t3"]
    assert service.port is not None
    return replace(service, port=replace(service.port, env_file=path))


def test_nothing_in_a_home_is_looked_at(tmp_path: Path) -> None:
    site = replace(Site(), playwright=replace(Site().playwright, token_file="/home/alice/token"))  # noqa: S106 (a path)
    put(tmp_path, "home/alice/token", 0o644)
    seen = HazardScanner(Answering(TABLE), tmp_path).look(desired(person("alice"), site=site), box().observed)
    assert modes(seen) == {}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere", 0o644)
    (tmp_path / "etc/t3-serve").mkdir(parents=True)
    (tmp_path / "etc/t3-serve/alice.env").symlink_to(tmp_path / "elsewhere")
    assert modes(look(tmp_path)) == {}


# --- folders that everybody writes to ---


def listen(path: Path) -> None:
    """Leave a socket."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's address is short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def test_sockets_and_folders_that_bear_a_name_are_looked_at(tmp_path: Path) -> None:
    listen(tmp_path / "tmp/alice.sock")
    listen(tmp_path / "var/tmp/x-1001")
    listen(tmp_path / "tmp/of-alice/inner.sock")
    listen(tmp_path / "tmp/nobodys.sock")
    put(tmp_path, "tmp/alice.txt")
    (tmp_path / "tmp/of-alice").chmod(0o755)
    seen = {place.path.removeprefix(str(tmp_path)): place for place in look(tmp_path).shared}
    assert seen.keys() == {f"{TMP}/alice.sock", f"/var{TMP}/x-1001", f"{TMP}/of-alice"}
    assert {place.uid for place in seen.values()} == {ME}
    assert [place.is_socket for _, place in sorted(seen.items())] == [True, False, True]
    assert seen[f"{TMP}/of-alice"].sockets == ("inner.sock",)


def test_a_folder_that_is_closed_or_the_persons_own_or_a_link_is_not_looked_into(tmp_path: Path) -> None:
    listen(tmp_path / "tmp/of-alice/inner.sock")
    (tmp_path / "tmp/of-alice").chmod(0o700)
    listen(tmp_path / f"tmp/of-{ME}/inner.sock")
    (tmp_path / f"tmp/of-{ME}").chmod(0o755)
    (tmp_path / "tmp/link-alice").symlink_to(tmp_path / f"tmp/of-{ME}")
    machine = box().account("me", ME)
    assert {place.path.rpartition("/")[2]: place.sockets for place in look(tmp_path, machine).shared} == {
        "of-alice": (),
        f"of-{ME}": (),
    }


def test_a_fifo_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    os.mkfifo(tmp_path / "tmp/alice.pipe")
    assert look(tmp_path).shared == ()


# --- links ---


def enable(root: Path, folder: str, unit: str, target: str = "/nonexistent/file") -> None:
    place = root / "etc/systemd/system" / folder / unit
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def test_links_of_instances_tell_whether_there_is_a_template(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/systemd/system/t3-serve@.service")
    put(tmp_path, "run/systemd/generator/made@.service")
    enable(tmp_path, "multi-user.target.wants", "t3-serve@ghost.service")
    enable(tmp_path, "x.target.requires", "made@alice.service")
    enable(tmp_path, "multi-user.target.wants", "gone@alice.service")
    enable(tmp_path, "multi-user.target.wants", "plain.service")
    enable(tmp_path, "multi-user.target.d", "other@alice.service")
    found = {link.path.removeprefix("/etc/systemd/system/"): link.has_template for link in look(tmp_path).links}
    assert found == {
        "multi-user.target.wants/t3-serve@ghost.service": True,
        "x.target.requires/made@alice.service": True,
        "multi-user.target.wants/gone@alice.service": False,
    }


def test_a_link_to_a_file_that_is_there_has_what_it_needs(tmp_path: Path) -> None:
    put(tmp_path, "opt/gone@.service")
    enable(tmp_path, "multi-user.target.wants", "gone@alice.service", str(tmp_path / "opt/gone@.service"))
    assert [link.has_template for link in look(tmp_path).links] == [True]
