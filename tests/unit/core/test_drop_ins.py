"""rosterd's drop-ins: what they say, which units they are for, how a change of one is told."""

from __future__ import annotations

from configparser import ConfigParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.drop_ins import described, limits_text, path_of, placement_text, services_of, slice_of
from reconciler.core.site import Limits

ALL = Limits("8G", "200%", 4096)


def settings_of(text: str) -> dict[str, dict[str, str]]:
    """Read a unit file as another program would: sections of settings, comments behind a #."""
    parser = ConfigParser(interpolation=None, delimiters=["="], comment_prefixes=["#"], strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def test_the_drop_in_of_a_slice_has_the_limits_of_the_tier() -> None:
    expected = {"Slice": {"MemoryMax": "8G", "CPUQuota": "200%", "TasksMax": "4096"}}
    assert settings_of(limits_text(ALL)) == expected


@pytest.mark.parametrize(
    ("limits", "settings"),
    [
        (Limits(memory_max="25%"), {"MemoryMax": "25%"}),
        (Limits(cpu_quota="50%"), {"CPUQuota": "50%"}),
        (Limits(tasks_max=64), {"TasksMax": "64"}),
        (Limits(), {}),
    ],
)
def test_what_is_not_limited_is_not_set(limits: Limits, settings: dict[str, str]) -> None:
    assert settings_of(limits_text(limits)) == {"Slice": settings}
    assert limits.settings == settings


def test_the_drop_in_of_a_service_puts_it_into_the_slice_where_logind_puts_sessions() -> None:
    assert settings_of(placement_text(slice_of(1000))) == {"Service": {"Slice": "user-1000.slice"}}


def test_each_drop_in_says_whose_it_is_and_that_edits_are_lost() -> None:
    for text in (limits_text(ALL), placement_text("user-1000.slice")):
        assert text.startswith("# Written by rosterd ")
        assert "overwritten" in text.splitlines()[0]
        assert text.endswith("\n")


def test_a_drop_in_lies_in_the_folder_of_its_unit() -> None:
    assert path_of("user-1000.slice") == "/etc/systemd/system/user-1000.slice.d/50-rosterd.conf"
    assert path_of("t3-serve@bob.service") == "/etc/systemd/system/t3-serve@bob.service.d/50-rosterd.conf"


@pytest.mark.parametrize(
    ("instances", "services"),
    [
        (["t3@bob.service"], ("t3@bob.service",)),
        (["t3@bob.socket"], ("t3@bob.service",)),
        (["pull@bob.path", "push@bob.timer"], ("pull@bob.service", "push@bob.service")),
        (["t3@bob.socket", "t3@bob.service", "t3@bob.timer"], ("t3@bob.service",)),
        ([], ()),
    ],
)
def test_processes_are_those_of_services_whatever_starts_them(instances: list[str], services: tuple[str, ...]) -> None:
    assert services_of(instances) == services


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, limits_text(Limits("4G")), "memory_max none → 4G"),
        (limits_text(Limits("4G")), limits_text(Limits("8G")), "memory_max 4G → 8G"),
        (limits_text(Limits("4G")), None, "memory_max 4G → none"),
        (limits_text(Limits("4G")), limits_text(Limits(None, "200%")), "memory_max 4G → none, cpu_quota none → 200%"),
        (limits_text(ALL), limits_text(Limits("8G", "200%", 64)), "tasks_max 4096 → 64"),
        (None, placement_text("user-1000.slice"), "slice none → user-1000.slice"),
        ("[Service]\nSlice=a.slice\nCPUWeight = 10\n", placement_text("a.slice"), "CPUWeight 10 → none"),
        ("[Slice]\nMemoryMax=4G\n", limits_text(Limits("4G")), "edited by hand → as it was written"),
        ("# nothing\n", None, "nothing set → removed"),
        ("", None, "nothing set → removed"),
    ],
)
def test_a_change_is_told_setting_by_setting(before: str | None, after: str | None, told: str) -> None:
    assert described(before, after) == told


limits = st.builds(
    Limits,
    st.none() | st.sampled_from(["4G", "8G", "25%"]),
    st.none() | st.sampled_from(["100%", "200%"]),
    st.none() | st.sampled_from([64, 4096]),
)


@given(limits, limits)
def test_every_change_of_limits_is_told_with_old_and_new_value(before: Limits, after: Limits) -> None:
    told = described(limits_text(before), limits_text(after))
    for name in ("memory_max", "cpu_quota", "tasks_max"):
        old, new = getattr(before, name), getattr(after, name)
        words = f"{name} {'none' if old is None else old} → {'none' if new is None else new}"
        assert (words in told) == (old != new)


@given(limits)
def test_different_limits_never_have_one_text(one: Limits) -> None:
    assert settings_of(limits_text(one)) == {"Slice": one.settings}
