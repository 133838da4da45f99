"""Units: what is installed, enabled and masked is read from the unit folders, the state over a bus."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from reconciler.core.last_run import LastRun
from reconciler.core.observed import UnitState
from reconciler.errors import ScanFailed, StepFailed
from reconciler.host.bus import Systemd
from reconciler.host.scan_units import scan_units

TEMPLATES = frozenset({"t3-serve@.service", "refresh@.timer"})
STATES = {"t3-serve@alice.service": UnitState("active", "running", restarts=0)}


class Answering(Systemd):
    """A service manager that answers from a table, or not at all."""

    def __init__(self, states: Mapping[str, UnitState] | None, restarts: Mapping[str, int] | None = None) -> None:
        """Answer with `states`, and that these were restarted."""
        super().__init__()
        self.asked: list[list[str]] = []
        self.asked_restarts: list[str] = []
        self._states = states
        self._restarts = restarts or {}

    def states(self, patterns: Sequence[str]) -> Mapping[str, UnitState]:
        """Note the question."""
        self.asked.append(list(patterns))
        if self._states is None:
            raise StepFailed("the system bus does not answer")
        return self._states

    def restarts(self, services: Sequence[str]) -> dict[str, int]:
        """Note the question; what has gone meanwhile is left out."""
        self.asked_restarts = list(services)
        return {name: self._restarts.get(name, 0) for name in services if self._restarts.get(name, 0) >= 0}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a root with the folders of systemd.unit(5)."""
    for folder in ("etc", "run", "usr/lib"):
        (tmp_path / folder / "systemd" / "system").mkdir(parents=True)
    return tmp_path


def link(root: Path, path: str, target: str) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def test_all_states_come_from_one_question(root: Path) -> None:
    systemd = Answering(STATES)
    assert scan_units(systemd, TEMPLATES, root=root).states == STATES
    (asked,) = systemd.asked
    assert sorted(asked) == ["refresh@*.timer", "t3-serve@*.service"]


def test_a_site_without_units_asks_nothing(root: Path) -> None:
    systemd = Answering(None)
    assert scan_units(systemd, frozenset(), root=root).states == {}
    assert systemd.asked == []


def test_where_systemd_does_not_answer_the_states_are_unknown_and_why_is_kept(root: Path) -> None:
    units = scan_units(Answering(None), TEMPLATES, root=root)
    assert units.states is None
    assert units.why == "the system bus does not answer"


def test_enabled_is_what_a_wants_or_requires_folder_links(root: Path) -> None:
    template = "/usr/lib/systemd/system/t3-serve@.service"
    link(root, "etc/systemd/system/multi-user.target.wants/t3-serve@alice.service", template)
    link(root, "run/systemd/system/multi-user.target.wants/t3-serve@bob.service", template)
    link(root, "usr/lib/systemd/system/timers.target.requires/refresh@carol.timer", "../refresh@.timer")
    link(root, "etc/systemd/system/multi-user.target.wants/other@alice.service", "/other@.service")
    link(root, "etc/systemd/system/multi-user.target.wants/ssh.service", "/ssh.service")
    link(root, "etc/systemd/system/multi-user.target.d/t3-serve@dave.service", template)
    assert scan_units(Answering({}), TEMPLATES, root=root).enabled == {
        "t3-serve@alice.service",
        "t3-serve@bob.service",
        "refresh@carol.timer",
    }


def test_masked_is_what_links_to_nowhere(root: Path) -> None:
    link(root, "etc/systemd/system/t3-serve@alice.service", "/dev/null")
    link(root, "run/systemd/system/refresh@.timer", "/dev/null")
    link(root, "etc/systemd/system/t3-serve@bob.service", "/usr/lib/systemd/system/t3-serve@.service")
    assert scan_units(Answering({}), TEMPLATES, root=root).masked == {"t3-serve@alice.service", "refresh@.timer"}


def test_installed_are_the_templates_that_some_folder_holds(root: Path) -> None:
    (root / "usr/lib/systemd/system/t3-serve@.service").write_text("[Service]\n")
    (root / "usr/lib/systemd/system/t3-serve@alice.service").write_text("[Service]\n")
    assert scan_units(Answering({}), TEMPLATES, root=root).templates == {"t3-serve@.service"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[Service]\n[Install]\nWantedBy=multi-user.target\n", set()),
        ("[Service]\n# [Install]\n", {"t3-serve@.service"}),
    ],
)
def test_a_template_without_an_install_section_is_noted(root: Path, text: str, names: set[str]) -> None:
    (root / "usr/lib/systemd/system/t3-serve@.service").write_text(text)
    assert scan_units(Answering({}), TEMPLATES, root=root).not_installable == names


def test_of_two_files_of_one_template_the_administrators_counts(root: Path) -> None:
    (root / "usr/lib/systemd/system/t3-serve@.service").write_text("[Service]\n")
    (root / "etc/systemd/system/t3-serve@.service").write_text("[Install]\n")
    assert scan_units(Answering({}), TEMPLATES, root=root).not_installable == set()


def test_a_masked_template_is_installed_and_masked(root: Path) -> None:
    link(root, "etc/systemd/system/t3-serve@.service", "/dev/null")
    units = scan_units(Answering({}), TEMPLATES, root=root)
    assert units.templates == units.masked == {"t3-serve@.service"}
    assert units.not_installable == set()


# --- since when, and how often restarted ---

T3, MCP, REFRESH = "t3-serve@alice.service", "t3-serve@bob.service", "refresh@alice.timer"
THREE = {
    T3: UnitState("active", "running"),
    MCP: UnitState("active", "running"),
    REFRESH: UnitState("active", "waiting"),
}


def started(root: Path, unit: str, seconds_ago: float) -> None:
    """Make the link that systemd makes at each start of a unit; it leads to what is no path."""
    link(root, f"run/systemd/units/invocation:{unit}", "0123456789abcdef0123456789abcdef")
    when = time.time() - seconds_ago
    os.utime(root / f"run/systemd/units/invocation:{unit}", (when, when), follow_symlinks=False)


def ups(root: Path) -> dict[str, float | None]:
    states = scan_units(Answering(THREE), TEMPLATES, root=root).states or {}
    return {name: state.up for name, state in states.items()}


def test_a_unit_is_up_since_its_link_was_made(root: Path) -> None:
    started(root, T3, 100)
    started(root, REFRESH, 3.5)
    found = ups(root)
    assert found[T3] == pytest.approx(100, abs=2)
    assert found[REFRESH] == pytest.approx(3.5, abs=2)
    assert found[MCP] is None


def test_of_a_start_in_the_future_nothing_is_known(root: Path) -> None:
    started(root, T3, -3600)
    assert ups(root)[T3] is None


def test_other_links_of_systemd_say_nothing_of_a_start(root: Path) -> None:
    link(root, f"run/systemd/units/log-level-max:{T3}", "6")
    assert ups(root)[T3] is None


def test_where_systemd_keeps_no_such_links_nothing_is_known(root: Path) -> None:
    assert ups(root) == {T3: None, MCP: None, REFRESH: None}


def test_a_place_that_is_not_the_folder_of_links_is_an_error(root: Path) -> None:
    (root / "run/systemd/units").write_text("")
    with pytest.raises(ScanFailed, match="run/systemd/units: Not a directory"):
        ups(root)


def last_run(seconds_ago: float, **restarts: int) -> LastRun:
    return LastRun("id", int(time.time() - seconds_ago), 0, 1.0, restarts=restarts)


def asked(root: Path, last: LastRun | None) -> set[str]:
    systemd = Answering(THREE)
    scan_units(systemd, TEMPLATES, last, root)
    assert len(systemd.asked_restarts) == len(set(systemd.asked_restarts)), "each is asked for once"
    return set(systemd.asked_restarts)


def test_without_a_last_run_every_service_is_asked_for_its_restarts_and_no_timer(root: Path) -> None:
    started(root, T3, 100_000)
    assert asked(root, None) == {T3, MCP}


def test_what_was_started_before_the_last_run_is_not_asked_again(root: Path) -> None:
    started(root, T3, 5000)
    started(root, MCP, 5000)
    assert asked(root, last_run(3600)) == set()


def test_what_was_started_since_is_asked(root: Path) -> None:
    started(root, T3, 5000)
    started(root, MCP, 60)
    started(root, REFRESH, 60)
    assert asked(root, last_run(3600)) == {MCP}


def test_what_was_started_in_the_second_in_which_the_run_ended_is_asked(root: Path) -> None:
    started(root, T3, 3600.9)
    started(root, MCP, 5000)
    assert asked(root, last_run(3600)) == {T3}


def test_what_had_restarts_in_the_last_run_is_asked_again_as_they_may_have_been_cleared(root: Path) -> None:
    started(root, T3, 5000)
    started(root, MCP, 5000)
    assert asked(root, last_run(3600, **{T3: 2})) == {T3}


def test_what_has_no_link_is_asked(root: Path) -> None:
    started(root, MCP, 5000)
    assert asked(root, last_run(3600)) == {T3}


def test_restarts_are_what_systemd_says_or_what_is_known_of_one_that_has_gone(root: Path) -> None:
    systemd = Answering(THREE, {T3: 7, MCP: -1})
    found = scan_units(systemd, TEMPLATES, last_run(3600, **{T3: 2, MCP: 4}), root).states or {}
    assert {name: state.restarts for name, state in found.items()} == {T3: 7, MCP: 4, REFRESH: 0}
