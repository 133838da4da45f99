"""The text of the metrics; what a real run writes is tested with the node exporter, in a machine."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.actions import Action, AddToGroups, CreateAccount
from reconciler.core.last_run import LastRun, last_run_document, last_run_from
from reconciler.core.metrics import Results, render
from reconciler.core.status import MachineStatus
from reconciler.report import results_of
from tests.unit.facts import bare, person, roster
from tests.unit.memory_host import MemoryHost
from tests.unit.metrics_text import read, values
from tests.unit.runs import run

RUN = LastRun("1a2b", 1_795_618_458, 3, 1.25, good=1_795_614_858, restarts={"t3-serve@bob.service": 2}, digest="d")
NOTHING = Results(
    status=MachineStatus(None, ()),
    drift=0,
    actions={},
    conflicts=0,
    pending=0,
    held=0,
    unmet=0,
    failed_users=0,
    user_problems={},
    restarts={},
)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_a_stopped_run_tells_when_it_was_and_how_it_ended() -> None:
    assert lines(render(RUN, None)) == [
        "rosterd_run_end_timestamp_seconds 1795618458",
        "rosterd_run_success_timestamp_seconds 1795614858",
        "rosterd_run_duration_seconds 1.25",
        "rosterd_run_exit_code 3",
    ]


def test_a_success_that_never_was_is_0() -> None:
    assert "rosterd_run_success_timestamp_seconds 0" in lines(render(LastRun("x", 1, 3, 1), None))


def test_every_state_and_health_has_a_sample() -> None:
    told = lines(render(RUN, NOTHING))
    states = ("active", "parked", "missing", "cut", "unmanaged", "tombstone")
    assert {line for line in told if "{" in line} == {
        *(f'rosterd_users{{state="{state}"}} 0' for state in states),
        *(f'rosterd_services{{health="{health}"}} 0' for health in ("ok", "off", "starting", "unhealthy", "unknown")),
    }


def test_a_label_is_escaped() -> None:
    odd = replace(NOTHING, restarts={("a", 'x"\\\n@a.service'): 1})
    assert lines(render(RUN, odd))[-1] == 'rosterd_unit_restarts_total{os_user="a",unit="x\\"\\\\\\n@a.service"} 1'


def test_drift_is_what_is_due_though_the_files_are_those_of_the_run_before() -> None:
    report = run(MemoryHost(bare().observed), roster(person("alice")))
    assert report.drift > 0
    assert results_of(report, None).drift == 0
    assert results_of(report, replace(RUN, digest="another")).drift == 0
    assert results_of(report, replace(RUN, digest=report.digest)).drift == report.drift


def test_the_problems_are_those_of_each_person_who_has_any() -> None:
    def fails(action: Action) -> str | None:
        return "disk full" if isinstance(action, CreateAccount) and action.user == "bob" else None

    host = MemoryHost(bare().account("alice", 1000).account("carol", 1002, managed=False).observed, fails)
    host.ignores = lambda action: isinstance(action, AddToGroups)
    report = run(host, roster(person("alice", "admin"), person("bob"), person("carol"), person("dora")))
    found = results_of(report, None)
    assert {name: number > 0 for name, number in found.user_problems.items()} == dict.fromkeys(
        ("alice", "bob", "carol"), True
    )
    assert (found.failed_users, found.conflicts, found.unmet) == (1, 1, len(report.unmet))


def test_every_service_has_its_restarts_and_a_timer_has_none() -> None:
    restarts = results_of(run(MemoryHost(bare().observed), roster(person("alice"))), None).restarts
    assert restarts == {("alice", "t3-serve@alice.service"): 0, ("alice", "playwright-mcp@alice.service"): 0}


def test_the_record_of_a_run_comes_back_as_it_was() -> None:
    assert last_run_from(last_run_document(RUN)) == RUN


def test_names_have_their_units_and_only_what_counts_up_ends_in_total() -> None:
    for name, family in read(render(RUN, NOTHING)).items():
        assert name.startswith("rosterd_")
        assert name.endswith("_total") == (family.kind == "counter")
        assert family.text.endswith(".")
        if "timestamp" in name or "duration" in name:
            assert name.endswith("_seconds")


@given(st.dictionaries(st.tuples(st.text(), st.text()), st.integers(0, 10**9), max_size=5))
def test_labels_of_any_text_are_read_back_as_they_were(restarts: dict[tuple[str, str], int]) -> None:
    text = render(RUN, replace(NOTHING, restarts=restarts))
    assert values(read(text), "rosterd_unit_restarts_total") == restarts
