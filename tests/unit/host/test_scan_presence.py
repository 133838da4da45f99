"""What somebody has running or due: jobs by their files, processes by /proc, services by what systemd says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.observed import ForeignUnit, Presence, Process, UnitState
from reconciler.errors import ScanFailed
from reconciler.host import scan_presence as scan
from reconciler.host.bus import BusUnavailable, Systemd
from reconciler.host.scan_presence import Person
from tests.unit.facts import MINUTE, NOW, at_job

ME = os.getuid()
"""Whose the files of these tests are."""
HIS = 2001
BOB = Person("bob", ME, ((HIS, HIS), (100_000, 100_009)))
TEMPLATES = frozenset({"t3-serve@.service"})


@dataclass
class Places:
    """The folders of a machine."""

    crontabs: Path
    at_jobs: Path
    held: Path
    linger: Path
    proc: Path

    def process(self, pid: int | str, uid: Sequence[int], state: str = "S (sleeping)", name: str = "bash") -> None:
        """Put a process there: `uid` is real, effective, saved, and that of the file system."""
        folder = self.proc / str(pid)
        folder.mkdir()
        uids = "\t".join(map(str, uid))
        lines = [f"Name:\t{name}", "Umask:\t0022", f"State:\t{state}", f"Uid:\t{uids}", "Gid:\t7\t7\t7\t7", "odd"]
        (folder / "status").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape") + b"\n")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Make the folders, and let them be looked at."""
    found = Places(*(tmp_path / name for name in ("crontabs", "atjobs", "held", "linger", "proc")))
    for name, path in (
        ("CRONTABS", found.crontabs),
        ("AT_JOBS", found.at_jobs),
        ("HELD_JOBS", found.held),
        ("_LINGER", found.linger),
    ):
        path.mkdir()
        monkeypatch.setattr(scan, name, path)
    found.proc.mkdir()
    processes = scan.scan_processes
    monkeypatch.setattr(scan, "scan_processes", lambda spans: processes(spans, found.proc))
    return found


@dataclass
class Manager(Systemd):
    """A service manager with these units: state, and properties by name."""

    units: dict[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def services(self, patterns: Sequence[str]) -> Mapping[str, tuple[UnitState, str]]:
        """Return all units; the path of one is its name."""
        del patterns
        return {name: (UnitState(state, "x"), name) for name, (state, _) in self.units.items()}

    def property_of(self, path: str, interface: str, name: str) -> Any:  # noqa: ANN401 (as the original)
        """Return a property."""
        self.asked.append(path)
        return self.units[path][1].get(f"{interface}.{name}")


class Dead(Systemd):
    """A service manager that does not answer."""

    def services(self, patterns: Sequence[str]) -> Mapping[str, tuple[UnitState, str]]:
        """Fail."""
        raise BusUnavailable(f"no answer to {patterns}")


def look(systemd: Systemd | None = None) -> Presence:
    """Return bob's presence."""
    found, _ = scan.scan_presence([BOB], systemd or Manager(), TEMPLATES, NOW)
    return found["bob"]


# --- jobs ---


def test_nothing_is_nothing(places: Places) -> None:
    del places
    assert look() == Presence()


def test_a_machine_without_cron_at_or_logind_has_nothing_due(places: Places) -> None:
    for folder in (places.crontabs, places.at_jobs, places.held, places.linger):
        folder.rmdir()
    assert look() == Presence()


def test_a_crontab_is_the_file_of_that_name(places: Places) -> None:
    (places.crontabs / "bobby").touch()
    assert not look().crontab
    (places.crontabs / "bob").touch()
    assert look().crontab


def test_lingering_is_the_file_of_that_name(places: Places) -> None:
    (places.linger / "bobby").touch()
    assert not look().lingering
    (places.linger / "bob").touch()
    assert look().lingering


def test_at_jobs_are_the_files_that_are_named_so_and_belong_to_the_person(places: Places) -> None:
    jobs = [at_job(5, 2), at_job(5, 1), "=0000" + "301c9c380", "b0000401c9c380"]
    for name in (*jobs, ".SEQ", "spool", "a00001", "a0000g01c9c380", at_job(5) + "0"):
        (places.at_jobs / name).touch()
    assert look().at_jobs == tuple(sorted(jobs))
    other, _ = scan.scan_presence([Person("eve", ME + 1, ())], Manager(), TEMPLATES, NOW)
    assert other["eve"].at_jobs == ()


def test_held_jobs_are_to_come_or_came_due(places: Places) -> None:
    folder = places.held / "bob"
    folder.mkdir()
    running = "=00009" + f"{MINUTE + 9:08x}"
    for name in (at_job(1, 1), at_job(0, 2), at_job(-1, 3), running, "crontab", "crontab.1", at_job(5) + ".1"):
        (folder / name).touch()
    found = look()
    assert found.held_crontab
    assert found.held_at_jobs == (at_job(1, 1),)
    assert found.late_at_jobs == tuple(sorted([at_job(0, 2), at_job(-1, 3), running]))


def test_a_folder_in_place_of_none_is_an_error_and_not_passed_over(places: Places) -> None:
    places.linger.rmdir()
    places.linger.write_text("")
    with pytest.raises(ScanFailed, match="linger: Not a directory"):
        look()


# --- processes ---


def processes() -> list[tuple[int, int]]:
    return [(one.pid, one.uid) for one in look().processes]


@pytest.mark.parametrize(
    ("uid", "found"),
    [
        pytest.param((HIS, HIS, HIS, HIS), HIS, id="their own"),
        pytest.param((HIS, 0, 0, 0), HIS, id="of a setuid program"),
        pytest.param((0, 0, HIS, 0), HIS, id="that can become them again"),
        pytest.param((100_000, 100_000, 100_000, 100_000), 100_000, id="under the first subordinate id"),
        pytest.param((100_009, 100_009, 100_009, 100_009), 100_009, id="under the last"),
        pytest.param((99_999, 99_999, 99_999, 99_999), None, id="below"),
        pytest.param((100_010, 100_010, 100_010, 100_010), None, id="above"),
        pytest.param((4711, HIS, 4711, HIS), None, id="that only acts for them"),
    ],
)
def test_a_process_is(places: Places, uid: tuple[int, int, int, int], found: int | None) -> None:
    places.process(42, uid)
    assert processes() == ([] if found is None else [(42, found)])


@pytest.mark.parametrize("state", ["Z (zombie)", "X (dead)"])
def test_a_dead_process_is_none(places: Places, state: str) -> None:
    places.process(42, (HIS, HIS, HIS, HIS), state)
    assert processes() == []


@pytest.mark.parametrize(("other", "dead"), [("S (sleeping)", False), ("Z (zombie)", True)])
def test_a_process_whose_first_thread_has_ended_lives_as_long_as_another(
    places: Places,
    other: str,
    dead: bool,  # noqa: FBT001 (a column of the table)
) -> None:
    places.process(42, (HIS, HIS, HIS, HIS), "Z (zombie)")
    for number, state in ((42, "Z (zombie)"), (43, other)):
        task = places.proc / "42" / "task" / str(number)
        task.mkdir(parents=True)
        (task / "status").write_text(f"Name:\tx\nState:\t{state}\n")
    assert processes() == ([] if dead else [(42, HIS)])


@pytest.mark.parametrize("state", ["R (running)", "D (disk sleep)", "T (stopped)", "t (tracing stop)", "I (idle)"])
def test_a_process_in_any_other_state_is_one(places: Places, state: str) -> None:
    places.process(42, (HIS, HIS, HIS, HIS), state)
    assert processes() == [(42, HIS)]


def test_processes_come_in_the_order_of_their_numbers_with_their_names(places: Places) -> None:
    places.process(100, (HIS, HIS, HIS, HIS), name="b\\n ad\udcff")
    places.process(9, (HIS, HIS, HIS, HIS), name="z: b\tc")
    places.process("self", (HIS, HIS, HIS, HIS))
    (places.proc / "7").mkdir()  # has ended
    assert look().processes == (Process(9, HIS, "z: b\tc"), Process(100, HIS, "b\\n ad\ufffd"))


def test_each_person_has_their_own_processes(places: Places) -> None:
    places.process(1, (HIS, HIS, HIS, HIS))
    places.process(2, (4711, 4711, 4711, 4711))
    eve = Person("eve", 4711, ((4711, 4711),))
    found, _ = scan.scan_presence([BOB, eve], Manager(), TEMPLATES, NOW)
    assert [one.pid for one in found["bob"].processes] == [1]
    assert [one.pid for one in found["eve"].processes] == [2]


# --- services ---


def unit(user: str | None, state: str = "active", **properties: object) -> tuple[str, Mapping[str, Any]]:
    """Return state and properties of a unit that runs as somebody."""
    told = {f"Unit.{name}": value for name, value in properties.items()}
    return state, {"Service.User": user, **told}


@pytest.mark.usefixtures("places")
def test_services_are_those_whose_user_is_the_person_by_name_or_number() -> None:
    units = {
        "by-name.service": unit("bob"),
        "by-number.service": unit(str(ME)),
        "eves.service": unit("eve"),
        "roots.service": unit(""),
        "gone.service": unit(None),
    }
    assert [found.name for found in look(Manager(units)).units] == ["by-name.service", "by-number.service"]


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    "name",
    ["t3-serve@bob.service", "user@1001.service", "user-runtime-dir@1001.service", "docker-1.scope", "bob.timer"],
)
def test_what_is_rosterds_own_or_part_of_a_session_or_no_service_is_not_asked_for(name: str) -> None:
    systemd = Manager({name: unit("bob")})
    assert look(systemd).units == ()
    assert systemd.asked == []


@pytest.mark.usefixtures("places")
def test_an_instance_of_another_template_counts() -> None:
    assert [found.name for found in look(Manager({"backup@bob.service": unit("bob")})).units] == ["backup@bob.service"]


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    ("state", "active"),
    [
        ("active", True),
        ("activating", True),
        ("reloading", True),
        ("refreshing", True),
        ("deactivating", False),
        ("inactive", False),
        ("failed", False),
    ],
)
def test_a_service_is_active_while_it_runs_or_comes_up(state: str, active: bool) -> None:  # noqa: FBT001 (a column of the table)
    (found,) = look(Manager({"x.service": unit("bob", state)})).units
    assert found.active is active


@pytest.mark.usefixtures("places")
def test_of_a_service_it_is_known_whether_it_comes_back_by_itself() -> None:
    units = {
        "a.service": unit("bob", UnitFileState="enabled", TriggeredBy=["b.timer", "a.socket"]),
        "b.service": unit("bob", UnitFileState="static", Transient=True),
        "c.service": unit("bob", UnitFileState="enabled-runtime"),
    }
    assert look(Manager(units)).units == (
        ForeignUnit("a.service", active=True, enabled=True, triggers=("a.socket", "b.timer")),
        ForeignUnit("b.service", active=True, transient=True),
        ForeignUnit("c.service", active=True),
    )


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(("state", "active"), [("active", True), ("inactive", False)])
def test_a_session_is_the_slice_of_the_uid(state: str, active: bool) -> None:  # noqa: FBT001 (a column of the table)
    systemd = Manager({f"user-{ME}.slice": (state, {}), f"user-{ME}1.slice": ("active", {})})
    assert look(systemd).slice_active is active


@pytest.mark.usefixtures("places")
def test_containers_that_run_are_named() -> None:
    units: dict[str, tuple[str, Mapping[str, Any]]] = {
        f"{name}.scope": ("active", {}) for name in ("libpod-0a", "docker-1f", "crio-2", "cri-containerd-3", "docker-x")
    }
    _, containers = scan.scan_presence([BOB], Manager({**units, "docker-9.scope": ("failed", {})}), TEMPLATES, NOW)
    assert containers == ("cri-containerd-3.scope", "crio-2.scope", "docker-1f.scope", "libpod-0a.scope")


def test_where_systemd_does_not_answer_the_rest_is_seen(places: Places) -> None:
    (places.crontabs / "bob").touch()
    places.process(42, (HIS, HIS, HIS, HIS))
    found = look(Dead())
    assert found == Presence(crontab=True, processes=(Process(42, HIS, "bash"),))
