"""Units: what is installed, enabled and masked is read from the unit folders, the state over a bus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from reconciler.core.observed import UnitState
from reconciler.errors import StepFailed
from reconciler.host.bus import Systemd
from reconciler.host.scan_units import scan_units

TEMPLATES = frozenset({"t3-serve@.service", "refresh@.timer"})
STATES = {"t3-serve@alice.service": UnitState("active", "running", restarts=0)}


class Answering(Systemd):
    """A service manager that answers from a table, or not at all."""

    def __init__(self, states: Mapping[str, UnitState] | None) -> None:
        """Answer with `states`."""
        super().__init__()
        self.asked: list[list[str]] = []
        self._states = states

    def services(self, patterns: Sequence[str]) -> Mapping[str, tuple[UnitState, str]]:
        """Note the question."""
        self.asked.append(list(patterns))
        if self._states is None:
            raise StepFailed("the system bus does not answer")
        return {name: (state, f"/unit/{name}") for name, state in self._states.items()}

    def restarts(self, services: Mapping[str, str]) -> dict[str, int]:
        """Answer that nothing was restarted."""
        return dict.fromkeys(services, 0)


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
