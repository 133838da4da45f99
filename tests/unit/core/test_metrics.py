"""The metrics: read back by a small reader of the text format of its own, and held against what the run was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.last_run import LastRun
from reconciler.core.metrics import Results, render
from reconciler.core.status import AccountState, Health, MachineStatus, ServiceStatus, UserStatus

RAN = LastRun("0123", 1_800_000_000, 0, 1.234, good=1_800_000_000)
NOBODY = Results(MachineStatus(None, ()), 0, {}, 0, 0, 0, 0)
Labels = frozenset[tuple[str, str]]


@dataclass
class Family:
    """One metric: what it is, and its samples by their labels."""

    kind: str
    text: str
    samples: dict[Labels, float] = field(default_factory=dict)


_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def read(text: str) -> dict[str, Family]:
    """Read the text format (prometheus.io/docs/instrumenting/exposition_formats), and fail on what is not of it."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    helps: dict[str, str] = {}
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            name, _, words = line.removeprefix("# HELP ").partition(" ")
            assert name not in helps
            helps[name] = words
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert name not in families
            assert kind in ("gauge", "counter")
            families[name] = Family(kind, helps[name])
        else:
            found = _SAMPLE.fullmatch(line)
            assert found, line
            family = families[found[1]]
            assert found[1] == list(families)[-1], "the samples of a metric stand together"
            labels = _labels(found[2] or "")
            assert labels not in family.samples
            family.samples[labels] = float(found[3])
    assert helps.keys() == families.keys()
    return families


def _labels(text: str) -> Labels:
    found, position = {}, 0
    while position < len(text):
        label = _LABEL.match(text, position)
        assert label, text[position:]
        assert label[1] not in found
        found[label[1]] = re.sub(r"\\(.)", lambda one: {"n": "\n"}.get(one[1], one[1]), label[2])
        position = label.end()
    return frozenset(found.items())


def values(families: Mapping[str, Family], name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one metric by the values of their labels, in the order of the labels."""
    return {tuple(value for _, value in sorted(labels)): one for labels, one in families[name].samples.items()}


def person(name: str, state: AccountState, *health: Health) -> UserStatus:
    services = tuple(ServiceStatus(f"s{number}", None, None, (), None, None, one) for number, one in enumerate(health))
    return UserStatus(name, 1000, "power-user", state, (), (), (), services)


def test_a_run_that_was_stopped_tells_when_how_long_and_how_and_nothing_else() -> None:
    families = read(render(replace(RAN, exit=5, good=1_700_000_000), None))
    assert {name: family.samples for name, family in families.items()} == {
        "rosterd_run_end_timestamp_seconds": {frozenset(): 1_800_000_000},
        "rosterd_run_success_timestamp_seconds": {frozenset(): 1_700_000_000},
        "rosterd_run_duration_seconds": {frozenset(): 1.234},
        "rosterd_run_exit_code": {frozenset(): 5},
    }


def test_where_no_run_ever_went_well_there_is_no_time_of_it() -> None:
    assert "rosterd_run_success_timestamp_seconds" not in read(render(replace(RAN, exit=3, good=None), NOBODY))


def test_people_and_services_are_counted_by_how_they_are_and_nothing_is_missing_at_0() -> None:
    users = (
        person("a", AccountState.ACTIVE, Health.OK, Health.UNHEALTHY),
        person("b", AccountState.ACTIVE, Health.OK),
        person("c", AccountState.CUT, Health.OFF),
    )
    families = read(render(RAN, replace(NOBODY, status=MachineStatus(None, users))))
    none = dict.fromkeys(((str(state),) for state in AccountState), 0)
    assert values(families, "rosterd_users") == none | {("active",): 2, ("cut",): 1}
    none = dict.fromkeys(((str(health),) for health in Health), 0)
    assert values(families, "rosterd_services") == none | {("ok",): 2, ("unhealthy",): 1, ("off",): 1}


def test_what_the_run_found_and_did_is_told_by_number() -> None:
    results = Results(
        MachineStatus(None, ()),
        drift=7,
        actions={("run_unit", "done"): 3, ("run_unit", "failed"): 1, ("write_port", "skipped"): 2},
        conflicts=1,
        pending=4,
        held=2,
        failed_users=5,
        restarts={("bob", "t3@bob.service"): 6},
    )
    families = read(render(RAN, results))
    assert values(families, "rosterd_run_actions") == {
        ("run_unit", "done"): 3,
        ("run_unit", "failed"): 1,
        ("write_port", "skipped"): 2,
    }
    assert {
        name: values(families, f"rosterd_run_{name}")[()] for name in ("drift_actions", "conflicts", "held_cuts")
    } == {
        "drift_actions": 7,
        "conflicts": 1,
        "held_cuts": 2,
    }
    assert values(families, "rosterd_run_pending_steps") == {(): 4}
    assert values(families, "rosterd_run_failed_users") == {(): 5}
    assert families["rosterd_unit_restarts_total"].samples == {
        frozenset({("os_user", "bob"), ("unit", "t3@bob.service")}): 6
    }


def test_names_have_their_units_and_only_what_counts_up_ends_in_total() -> None:
    for name, family in read(render(RAN, NOBODY)).items():
        assert name.startswith("rosterd_")
        assert name.endswith("_total") == (family.kind == "counter")
        assert family.text.endswith(".")
        if "timestamp" in name or "duration" in name:
            assert name.endswith("_seconds")


@pytest.mark.parametrize("at", [0, 1_800_000_000, 2**40])
def test_times_keep_every_second(at: int) -> None:
    assert values(read(render(replace(RAN, at=at), None)), "rosterd_run_end_timestamp_seconds") == {(): at}


@given(st.dictionaries(st.tuples(st.text(), st.text()), st.integers(0, 10**9), max_size=5))
def test_labels_of_any_text_are_read_back_as_they_were(restarts: dict[tuple[str, str], int]) -> None:
    text = render(RAN, replace(NOBODY, restarts=restarts))
    assert values(read(text), "rosterd_unit_restarts_total") == {
        (user, unit): number for (user, unit), number in restarts.items()
    }


def test_the_same_run_has_the_same_text_whatever_the_order_of_its_parts() -> None:
    actions = {("b", "done"): 1, ("a", "failed"): 2, ("a", "done"): 3}
    backwards = dict(reversed(actions.items()))
    assert render(RAN, replace(NOBODY, actions=actions)) == render(RAN, replace(NOBODY, actions=backwards))
