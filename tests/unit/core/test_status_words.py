"""How the values of a status read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.cli.exits import Exit
from reconciler.core.status import Health, MachineStatus, PortHolder, RunStatus
from reconciler.core.status_words import (
    exit_words,
    listener_words,
    memory_use,
    needs_somebody,
    restarts_of,
    run_ended,
    summary,
)
from reconciler.core.text import size_words
from tests.unit.statuses import GIB, MIB, NOW, browser, large, person, t3, unit


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (410 * MIB, "410 MiB"),
        (1023 * MIB, "1023 MiB"),
        (GIB - 1, "1 GiB"),
        (1536 * MIB, "1.5 GiB"),
        (10 * GIB + MIB, "10 GiB"),
        (2**63, "8388608 TiB"),
    ],
)
def test_bytes_read_like_this(count: int, words: str) -> None:
    assert size_words(count) == words


@pytest.mark.parametrize(
    ("used", "cap", "words"),
    [
        (410 * MIB, 2 * GIB, "410 MiB of 2 GiB"),
        (410 * MIB, None, "410 MiB, no cap"),
        (None, 2 * GIB, "cap 2 GiB"),
        (None, None, "-"),
    ],
)
def test_memory_reads_like_this(used: int | None, cap: int | None, words: str) -> None:
    assert memory_use(replace(t3("alice", 0), memory=used, memory_max=cap)) == words


@pytest.mark.parametrize(
    ("listener", "words"),
    [
        (PortHolder(812, "alice", "t3-serve@alice.service"), "pid 812 of alice"),
        (PortHolder(812, "bob", "x.service"), "pid 812 of bob, in x.service"),
        (PortHolder(812, "bob", None), "pid 812 of bob, in no unit"),
        (PortHolder(None, "bob\n", None), "bob\\x0a, in no unit"),
        (None, "nobody listens"),
    ],
)
def test_who_listens_reads_like_this(listener: PortHolder | None, words: str) -> None:
    assert listener_words(replace(t3("alice", 0), listener=listener)) == words


def test_a_service_without_a_port_has_no_listener() -> None:
    assert listener_words(replace(t3("alice", 0), port=None, listener=None)) == "-"


def test_restarts_are_those_of_all_units_as_far_as_they_are_known() -> None:
    known = replace(browser("alice", 0), units=(unit("a.service", restarts=2), unit("b.service", restarts=3)))
    assert restarts_of(known) == 5
    assert restarts_of(replace(known, units=(unit("a.timer", restarts=None), *known.units))) == 5
    assert restarts_of(replace(known, units=(unit("a.timer", restarts=None),))) is None


@pytest.mark.parametrize("code", sorted(set(Exit) - {Exit.CHANGES, Exit.USAGE}))
def test_every_exit_code_of_a_run_has_words(code: int) -> None:
    assert "journal" not in exit_words(code)
    assert exit_words(code).endswith(f"(exit {code})")


def test_another_exit_code_leads_to_the_journal() -> None:
    assert exit_words(77) == "see the journal of rosterd.service (exit 77)"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "less than a minute"),
        (59, "less than a minute"),
        (60, "1 minute"),
        (7200, "2 hours"),
        (3 * 86400, "3 days"),
    ],
)
def test_the_end_of_a_run_is_told_with_its_age(seconds: int, words: str) -> None:
    assert run_ended(RunStatus("run", NOW - seconds, 0), NOW).endswith(f" UTC, {words} before this look")


def test_a_run_that_is_still_to_come_tells_of_the_clock() -> None:
    assert run_ended(RunStatus("run", NOW + 3600, 0), NOW).endswith(": the clock was set back")


@pytest.mark.parametrize("health", list(Health))
def test_somebody_has_to_see_to_what_is_unhealthy_and_to_a_problem(health: Health) -> None:
    alice = person("alice", 0)
    sick = replace(alice, services=(alice.services[0], replace(alice.services[1], health=health)))
    assert needs_somebody(sick) == (health is Health.UNHEALTHY)
    assert needs_somebody(replace(alice, problems=("a port",)))


def test_a_summary_counts_people_and_names_those_in_need() -> None:
    unknown = person("zoe", 30)
    unknown = replace(unknown, services=tuple(replace(found, health=Health.UNKNOWN) for found in unknown.services))
    status = MachineStatus(None, (*large(11).users, unknown), problems=("a",), unseen=("b", "c"))
    assert summary(status) == (
        "2 of 12 need attention: user0000, user0010.",
        "This machine has 1 problem.",
        "2 things could not be read.",
        "How services are is not known for 1.",
        "Something is pending for 2.",
        "The next run would change something for 2.",
    )


def test_a_summary_of_a_machine_where_all_is_well_is_one_sentence() -> None:
    assert summary(MachineStatus(None, (person("alice", 0),))) == ("Nobody needs attention.",)


def test_a_name_in_a_summary_is_fit_for_a_terminal() -> None:
    hostile = replace(person("a\x1b[31m", 0), problems=("x",))
    assert summary(MachineStatus(None, (hostile,))) == ("1 of 1 needs attention: a\\x1b[31m.",)
