"""Whether what runs is well: it has stayed up, and a process of its own listens on its port."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.findings import FindingKind, unhealthy
from reconciler.core.last_run import LastRun
from reconciler.core.observed import Listener, UnitState
from reconciler.core.plan import Plan, judged, only
from reconciler.core.plan_units import Starting, restarts_since
from reconciler.core.site import PortRule, Service, Site
from tests.unit.facts import NOW, RUNNING, Machine, bare, person, told

T3, MCP, TIMER = (
    "t3-serve@alice.service",
    "playwright-mcp@alice.service",
    "playwright-snapshot-refresh@alice.timer",
)
SITE = Site(settle=5, listen=30)
SETTLED = replace(RUNNING, up=3600.0)


def machine(*, up: float | None = 3600.0, listens: bool = True, restarts: int = 0) -> Machine:
    """Return a machine on which alice's t3 is up for so long; everything else of hers is well."""
    found = bare().person("alice", 1000, 3773, 8931).unit(T3, replace(RUNNING, up=up, restarts=restarts))
    found = found.unit(MCP, SETTLED).unit(TIMER, UnitState("active", "waiting", 3600.0))
    if not listens:
        left = [one for one in found.observed.listeners if one.unit != T3]
        found = found.having(listeners=tuple(left))
    return found


def plan(found: Machine, site: Site = SITE) -> Plan:
    return found.plan(person("alice"), site=site)


def waits(found: Plan) -> list[float]:
    return [one.wait for one in found.starting]


def verdicts(found: Plan) -> list[str]:
    return [one.text for one in found.findings if one.kind is FindingKind.UNHEALTHY]


SILENT = f"t3: {T3} runs, but none of its processes listens on port 3773; see: journalctl -u {T3}"
RESTLESS = f"t3: {T3} does not stay up for 5 s; see: journalctl -u {T3}"


# --- staying up ---


@pytest.mark.parametrize("up", [5.0, 5.1, 3600.0, None])
def test_what_has_stayed_up_and_listens_is_well(up: float | None) -> None:
    found = plan(machine(up=up))
    assert told(found, "alice") == []
    assert found.starting == ()


@pytest.mark.parametrize(("up", "wait"), [(0.0, 5.1), (3.5, 1.6), (4.99, 0.11)])
def test_what_is_younger_than_the_settle_time_cannot_be_judged_yet(up: float, wait: float) -> None:
    found = plan(machine(up=up))
    assert waits(found) == [pytest.approx(wait)]
    assert told(found, "alice") == []
    assert verdicts(judged(found)) == [RESTLESS]


def test_a_timer_that_is_young_holds_the_verdict_of_its_service_back_and_no_other() -> None:
    found = plan(machine(listens=False).unit(TIMER, UnitState("active", "waiting", 1.0)))
    assert [one.otherwise.unit for one in found.starting] == [TIMER]
    assert verdicts(found) == [SILENT]


# --- listening ---


@pytest.mark.parametrize(("up", "wait"), [(5.0, 1.0), (28.0, 1.0), (29.5, 0.6), (29.99, 0.11)])
def test_what_does_not_listen_yet_is_looked_at_again_in_a_second_or_when_its_time_ends(up: float, wait: float) -> None:
    found = plan(machine(up=up, listens=False))
    assert waits(found) == [pytest.approx(wait)]
    assert told(found, "alice") == []
    assert verdicts(judged(found)) == [SILENT]


@pytest.mark.parametrize("up", [30.0, 3600.0, None])
def test_what_had_its_time_and_does_not_listen_is_unhealthy(up: float | None) -> None:
    found = plan(machine(up=up, listens=False))
    assert verdicts(found) == [SILENT]
    assert found.starting == ()
    assert found.has_problems
    (finding,) = [one for one in found.findings if one.kind is FindingKind.UNHEALTHY]
    assert (finding.user, finding.service, finding.unit) == ("alice", "t3", T3)


def test_a_timer_that_is_younger_than_its_service_gives_the_service_no_more_time_to_listen() -> None:
    found = machine(listens=True).unit(TIMER, UnitState("active", "waiting", 10.0))
    left = [one for one in found.observed.listeners if one.unit != MCP]
    found = found.having(listeners=tuple(left))
    assert plan(found).starting == ()
    assert verdicts(plan(found))[0].startswith(f"playwright: {MCP} runs, but none")


def test_of_several_services_of_one_port_the_youngest_counts() -> None:
    rule = PortRule("T3_PORT", 3773, 4772, "/etc/t3-serve/{user}.env")
    two = Service("t3", ("t3@.service", "proxy@.service"), rule, route=True)
    there = bare().account("alice", 1000).env_file("t3", "alice", "3773")
    there = there.having(units=replace(there.observed.units, templates=frozenset(two.units)))
    there = there.unit("t3@alice.service", SETTLED)
    site = replace(SITE, services={"t3": two})
    assert waits(plan(there.unit("proxy@alice.service", replace(RUNNING, up=10.0)), site)) == [1.0]
    assert waits(plan(there.unit("proxy@alice.service", replace(RUNNING, up=40.0)), site)) == []


def test_a_site_that_waits_for_no_listener_judges_by_running_alone() -> None:
    assert told(plan(machine(listens=False), Site(settle=5, listen=0)), "alice") == []


def test_what_listens_on_another_port_waits_for_its_restart_and_is_not_unhealthy() -> None:
    found = plan(machine(listens=False).listener(4000, 1000, T3))
    assert [line.split(":")[2].split(",")[0] for line in told(found, "alice")] == [" restart pending"]
    assert found.starting == ()
    assert not found.has_problems


def test_a_process_of_somebody_else_on_the_port_is_no_listener_of_the_services() -> None:
    found = plan(machine(listens=False).listener(3773, 1001, "stranger.service", 77))
    assert not found.starting
    assert [one.kind for one in found.findings] == [FindingKind.CONFLICT]


def test_whoever_listens_in_the_persons_name_counts_where_no_unit_is_known() -> None:
    found = machine(listens=False)
    found = found.having(listeners=(*found.observed.listeners, Listener(3773, 1000)))
    assert told(plan(found), "alice") == []


@pytest.mark.parametrize("unit", ["t3@alice.socket"])
def test_the_socket_of_a_socket_unit_is_the_service_managers_and_counts(unit: str) -> None:
    rule = PortRule("T3_PORT", 3773, 4772, "/etc/t3-serve/{user}.env")
    site = replace(SITE, services={"t3": Service("t3", ("t3@.socket",), rule, route=True)})
    there = bare().account("alice", 1000).env_file("t3", "alice", "3773")
    there = there.having(units=replace(there.observed.units, templates=frozenset({"t3@.socket"})))
    there = there.unit(unit, UnitState("active", "listening", 3600.0))
    assert not plan(there.listener(3773, 0, "init.scope"), site).has_problems
    (text,) = verdicts(plan(there, site))
    # Its processes, and what they say, are those of the service that it starts.
    assert text.startswith("t3: t3@alice.service runs, but none of its processes listens on port 3773")


def test_without_systemd_nothing_is_judged() -> None:
    found = machine(listens=False)
    units = replace(found.observed.units, states=None, why="no answer")
    assert verdicts(plan(found.having(units=units))) == []


def test_a_service_that_is_not_to_run_or_does_not_run_is_not_judged() -> None:
    silent = machine(listens=False)
    assert not silent.plan(person("alice", parked=True), site=SITE).has_problems
    stopped = silent.unit(T3, UnitState("inactive", "dead"))
    assert verdicts(plan(stopped)) == []
    assert plan(stopped).starting == ()


ups = st.none() | st.floats(0, 100)


@given(ups, st.booleans(), st.integers(0, 60), st.integers(0, 60))
def test_a_running_service_is_well_or_not_or_will_be_known_to_be_after_its_wait(
    up: float | None,
    listens: bool,  # noqa: FBT001 (drawn)
    settle: int,
    listen: int,
) -> None:
    site = Site(settle=settle, listen=listen)
    found = plan(machine(up=up, listens=listens), site)
    own = [one for one in found.starting if one.otherwise.service == "t3"]
    bad = [one for one in found.findings if one.service == "t3" and one.kind is FindingKind.UNHEALTHY]
    is_young = up is not None and up < settle
    is_late = not listens and listen > 0 and not is_young
    waits_for_it = is_late and up is not None and up < listen
    assert bool(own) == (is_young or waits_for_it)
    assert bool(bad) == (is_late and not waits_for_it)
    for one in own:
        assert up is not None
        # A look after the wait finds it older, and never waits for longer than there is to wait.
        assert 0 < one.wait <= max(settle, listen) - up + 0.2
        if is_young:
            later = plan(machine(up=up + one.wait, listens=True), site)
            assert not [again for again in later.starting if again.otherwise.service == "t3"]


# --- restarts ---


@pytest.mark.parametrize(
    ("now", "before", "risen"), [(0, 0, 0), (3, 0, 3), (5, 3, 2), (3, 3, 0), (2, 7, 2), (None, 4, 0)]
)
def test_restarts_are_counted_from_the_last_run_or_from_the_last_start(
    now: int | None, before: int, risen: int
) -> None:
    assert restarts_since(UnitState("active", "running", restarts=now), before) == risen


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_restarts_never_count_less_than_none_nor_more_than_systemd_does(now: int, before: int) -> None:
    assert 0 <= restarts_since(UnitState("active", "running", restarts=now), before) <= now


def with_last(found: Machine, **restarts: int) -> Machine:
    return found.having(last_run=LastRun("id", NOW - 3600, 0, 1.0, restarts={T3: 2} | restarts))


def test_restarts_since_the_last_run_are_a_warning() -> None:
    found = plan(with_last(machine(restarts=5)))
    line = f"warning: t3: systemd restarted {T3} 3 times since the last run; see: journalctl -u {T3}"
    assert told(found, "alice") == [line]
    assert not found.has_problems


def test_restarts_that_the_last_run_knew_of_are_not_told_again() -> None:
    assert told(plan(with_last(machine(restarts=2))), "alice") == []


def test_where_there_was_no_run_restarts_are_told_as_since_the_start() -> None:
    line = f"warning: t3: systemd restarted {T3} 1 time since it was started; see: journalctl -u {T3}"
    assert told(plan(machine(restarts=1)), "alice") == [line]


def test_a_unit_that_is_restarted_and_young_is_told_and_waited_for() -> None:
    found = plan(with_last(machine(up=1.0, restarts=4)))
    assert len(found.starting) == 1
    assert "2 times since the last run" in told(found, "alice")[0]


# --- plans that have something starting ---


def starting(user: str) -> Starting:
    return Starting(1.0, unhealthy(user, "t3", f"t3-serve@{user}.service", "is slow"))


def test_what_is_judged_has_nothing_starting_and_keeps_the_order_of_what_is_told() -> None:
    two = Plan(findings=plan(machine(listens=False)).findings, starting=(starting("bob"), starting("aaron")))
    done = judged(two)
    assert done.starting == ()
    assert [one.user for one in done.findings] == ["aaron", "alice", "bob"]
    assert done.has_problems
    assert judged(done) == done


def test_a_plan_about_one_person_waits_for_that_one_alone() -> None:
    two = Plan(starting=(starting("alice"), starting("bob")))
    assert [one.otherwise.user for one in only(two, "bob").starting] == ["bob"]
    assert [one.user for one in judged(only(two, "bob")).findings] == ["bob"]
