"""Ports: kept, given out, shared by mistake, held by strangers."""

from __future__ import annotations

import pytest

from reconciler.core.actions import RunUnit, WriteOutput, WritePort
from reconciler.core.observed import EnvFile, Units
from reconciler.core.outputs import parse
from reconciler.core.plan import Plan
from reconciler.core.plan_ports import PortPlan, plan_ports
from reconciler.core.site import OutputKind, PortRule, Service, Site
from tests.unit.facts import Machine, bare, desired, person, told

T3_OF_ALICE = "t3-serve@alice.service"


def written(plan: Plan) -> dict[tuple[str, str], int]:
    return {(action.user, action.service): action.port for action in plan.actions if isinstance(action, WritePort)}


def started(plan: Plan) -> set[str]:
    return {action.unit for action in plan.actions if isinstance(action, RunUnit)}


def dispatched(plan: Plan) -> set[str]:
    """Return whose line dispatch.json will have after the plan."""
    for action in plan.actions:
        if isinstance(action, WriteOutput) and action.output is OutputKind.DISPATCH_JSON:
            return {route.user for route in parse(OutputKind.DISPATCH_JSON, action.text)}
    return set()


def two_with_one_port() -> Machine:
    return (
        bare().account("alice", 1000).account("bob", 1001).env_file("t3", "alice", "3773").env_file("t3", "bob", "3773")
    )


# --- kept and given out ---


def test_new_people_get_the_lowest_ports_in_the_order_of_their_names() -> None:
    plan = bare().plan(person("carol"), person("alice"), person("bob"))
    assert written(plan) == {
        ("alice", "t3"): 3773,
        ("bob", "t3"): 3774,
        ("carol", "t3"): 3775,
        ("alice", "playwright"): 8931,
        ("bob", "playwright"): 8932,
        ("carol", "playwright"): 8933,
    }


def test_whoever_has_a_port_keeps_it() -> None:
    plan = bare().env_file("t3", "bob", "3773").plan(person("alice"), person("bob"))
    assert written(plan)["alice", "t3"] == 3774
    assert ("bob", "t3") not in written(plan)


def test_a_port_outside_the_range_is_kept_too() -> None:
    assert ("alice", "t3") not in written(bare().env_file("t3", "alice", "22222").plan(person("alice")))


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(bare().env_file("t3", "somebody-gone", "3773"), id="the env file of whomever"),
        pytest.param(bare().env_file("playwright", "bob", "3773"), id="another service"),
        pytest.param(bare().listener(3773, 0), id="a listening socket"),
        pytest.param(bare().account("dave", 1000, managed=False).env_file("t3", "dave", "3773"), id="a refused person"),
    ],
)
def test_a_port_that_is_held_by_anything_is_not_given_out(machine: Machine) -> None:
    assert written(machine.plan(person("alice"), person("dave")))["alice", "t3"] == 3774


def test_an_env_file_without_the_variable_gets_one_line_more() -> None:
    plan = bare().env_file("t3", "alice", None).plan(person("alice"))
    assert "+ t3 port: none → 3773 (T3_PORT in /etc/t3-serve/alice.env)" in told(plan, "alice")


def test_a_parked_person_has_a_port_and_a_switched_off_service_has_none() -> None:
    plan = bare().plan(person("alice", parked=True), person("bob", services={"t3": False}))
    assert written(plan) == {("alice", "t3"): 3773, ("alice", "playwright"): 8931, ("bob", "playwright"): 8932}


def test_where_the_env_file_is_lost_the_running_service_tells_its_port() -> None:
    machine = bare().account("alice", 1000).unit(T3_OF_ALICE).listener(3780, 1000, T3_OF_ALICE)
    assert written(machine.plan(person("aaron"), person("alice"))) == {
        ("aaron", "t3"): 3773,
        ("alice", "t3"): 3780,
        ("aaron", "playwright"): 8931,
        ("alice", "playwright"): 8932,
    }


def test_a_running_service_does_not_get_a_port_that_is_kept_for_somebody_else() -> None:
    machine = bare().account("alice", 1000).unit(T3_OF_ALICE).listener(3780, 1000, T3_OF_ALICE)
    assert written(machine.env_file("t3", "bob", "3780").plan(person("alice")))["alice", "t3"] == 3773


def test_where_a_service_listens_on_several_ports_nobody_guesses() -> None:
    machine = bare().account("alice", 1000).unit(T3_OF_ALICE)
    plan = machine.listener(3780, 1000, T3_OF_ALICE).listener(3781, 1000, T3_OF_ALICE).plan(person("alice"))
    assert (
        "conflict: t3: /etc/t3-serve/alice.env has no T3_PORT, and the service listens on 3780, 3781;"
        " write the right one there" in told(plan, "alice")
    )
    assert ("alice", "t3") not in written(plan)


def test_when_the_range_has_run_out_only_those_who_are_left_over_have_a_conflict() -> None:
    rule = PortRule("T3_PORT", 3773, 3774, "/etc/t3-serve/{user}.env")
    site = Site(services={"t3": Service("t3", ("t3-serve@.service",), rule, route=True)})
    plan = bare().plan(person("alice"), person("bob"), person("carol"), site=site)
    assert written(plan) == {("alice", "t3"): 3773, ("bob", "t3"): 3774}
    assert told(plan, "carol")[-1] == "conflict: t3: no port is left between 3773 and 3774"
    assert started(plan) == {T3_OF_ALICE, "t3-serve@bob.service"}
    assert dispatched(plan) == {"alice", "bob"}


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        pytest.param(
            bare().env_file("t3", "alice", "37733773"),
            "T3_PORT in /etc/t3-serve/alice.env is not a port from 1 to 65535; correct or remove that line",
            id="not a port",
        ),
        pytest.param(
            bare().having(env_files={("t3", "alice"): EnvFile(exists=True, problem="it is not a regular file")}),
            "it is not a regular file",
            id="no file",
        ),
        pytest.param(
            bare().env_file("t3", "alice", ""),
            "T3_PORT in /etc/t3-serve/alice.env is not a port from 1 to 65535; correct or remove that line",
            id="empty",
        ),
        pytest.param(
            bare().env_file("t3", "alice", None, open_ended=True),
            "/etc/t3-serve/alice.env ends in an open quote, or holds a continued comment; no line can be added safely",
            id="open quote",
        ),
    ],
)
def test_an_env_file_that_cannot_be_used_blocks_the_service_and_nothing_else(machine: Machine, words: str) -> None:
    plan = machine.plan(person("alice"))
    assert f"conflict: t3: {words}" in told(plan, "alice")
    assert written(plan) == {("alice", "playwright"): 8931}
    assert T3_OF_ALICE not in started(plan)
    assert "playwright-mcp@alice.service" in started(plan)
    assert dispatched(plan) == set()


def test_an_open_quote_does_no_harm_where_the_port_is_there() -> None:
    plan = bare().env_file("t3", "alice", "3773", open_ended=True).plan(person("alice"))
    assert not plan.has_problems
    assert dispatched(plan) == {"alice"}


def test_nothing_is_planned_from_env_files_that_could_not_be_read() -> None:
    plan = bare().having(env_files=None).plan(person("alice"))
    assert {action.kind for action in plan.actions} == {"create_group", "create_account", "record_identities"}


# --- two on one port ---


def test_two_people_on_one_port_are_both_named_and_neither_is_started() -> None:
    plan = two_with_one_port().plan(person("alice"), person("bob"))
    words = "conflict: t3: port 3773 is also the port of {} (t3); change one of the env files"
    assert words.format("bob") in told(plan, "alice")
    assert words.format("alice") in told(plan, "bob")
    assert not {T3_OF_ALICE, "t3-serve@bob.service"} & started(plan)
    assert dispatched(plan) == set()
    assert ("alice", "t3") not in written(plan)


def test_of_two_people_on_one_port_the_one_whose_own_unit_listens_keeps_it() -> None:
    machine = two_with_one_port().unit(T3_OF_ALICE).listener(3773, 1000, T3_OF_ALICE)
    plan = machine.plan(person("alice"), person("bob"))
    assert not [line for line in told(plan, "alice") if line.startswith("conflict")]
    assert [line for line in told(plan, "bob") if line.startswith("conflict")] == [
        "conflict: t3: port 3773 is also the port of alice (t3); change one of the env files"
    ]
    assert dispatched(plan) == {"alice"}


def test_a_port_that_somebody_who_left_has_too_is_a_conflict() -> None:
    plan = two_with_one_port().plan(person("alice"))
    assert [line for line in told(plan, "alice") if line.startswith("conflict")] == [
        "conflict: t3: port 3773 is also the port of bob (t3); change one of the env files"
    ]


def test_one_person_with_two_services_on_one_port_is_a_conflict() -> None:
    plan = bare().env_file("t3", "alice", "4000").env_file("playwright", "alice", "4000").plan(person("alice"))
    assert len([line for line in told(plan, "alice") if line.startswith("conflict")]) == 2


# --- strangers ---


def test_a_stranger_on_the_port_is_named_with_pid_and_user_and_unit() -> None:
    machine = bare().account("alice", 1000).account("mallory", 1666, managed=False).env_file("t3", "alice", "3773")
    plan = machine.listener(3773, 1666, "python.service", 4242).plan(person("alice"))
    assert (
        "conflict: t3: port 3773 is held by another process (pid 4242, user mallory, unit python.service);"
        " nothing is moved" in told(plan, "alice")
    )
    assert T3_OF_ALICE not in started(plan)
    assert dispatched(plan) == set()
    assert ("alice", "t3") not in written(plan)


def test_the_users_own_legacy_unit_on_the_port_is_a_stranger_too() -> None:
    machine = bare().account("alice", 1000).env_file("playwright", "alice", "8931")
    plan = machine.listener(8931, 1000, "playwright-mcp.service", 4242).plan(person("alice"))
    assert [line for line in told(plan, "alice") if line.startswith("conflict")] == [
        (
            "conflict: playwright: port 8931 is held by another process"
            " (pid 4242, user alice, unit playwright-mcp.service); nothing is moved"
        )
    ]
    assert "playwright-mcp@alice.service" not in started(plan)
    assert T3_OF_ALICE in started(plan)


def test_requests_still_go_to_a_port_that_the_persons_own_program_holds() -> None:
    machine = bare().account("alice", 1000).env_file("t3", "alice", "3773")
    plan = machine.listener(3773, 1000, "t3.service", 4242).plan(person("alice"))
    assert T3_OF_ALICE not in started(plan)
    assert dispatched(plan) == {"alice"}


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(bare().account("alice", 1000).listener(3773, 1000, T3_OF_ALICE), id="their unit"),
        pytest.param(bare().account("alice", 1000).listener(3773, 1000), id="a unit that cannot be seen"),
    ],
)
def test_the_persons_own_service_is_no_stranger(machine: Machine) -> None:
    assert not machine.env_file("t3", "alice", "3773").plan(person("alice")).has_problems


def test_a_socket_unit_listens_as_root() -> None:
    rule = PortRule("WEB_PORT", 8000, 8010, "/etc/web/{user}.env")
    site = Site(services={"web": Service("web", ("web@.socket", "web@.service"), rule)})
    machine = bare().account("alice", 1000).env_file("web", "alice", "8000").listener(8000, 0)
    machine = machine.having(units=Units(states={}, templates=frozenset({"web@.socket", "web@.service"})))
    assert not machine.plan(person("alice"), site=site).has_problems


def test_a_stranger_on_the_port_of_a_switched_off_service_is_nobodys_business() -> None:
    machine = bare().account("alice", 1000).env_file("t3", "alice", "3773").listener(3773, 0, "x.service", 1)
    assert not machine.plan(person("alice", services={"t3": False})).has_problems


def test_a_service_whose_port_was_changed_under_it_is_told_and_not_restarted() -> None:
    machine = bare().person("alice", 1000, 3773, 8931).env_file("t3", "alice", "3800")
    plan = machine.plan(person("alice"))
    assert (
        f"warning: t3: restart pending, {T3_OF_ALICE} listens on 3773 but its env file says 3800;"
        f" when it suits the user: systemctl restart {T3_OF_ALICE}" in told(plan, "alice")
    )
    assert T3_OF_ALICE not in started(plan)
    assert not plan.has_problems


# --- who listens where ---


def port_plan(machine: Machine) -> PortPlan:
    return plan_ports(desired(person("alice"), person("bob")), machine.observed, ())


def two_people() -> Machine:
    return bare().person("alice", 1000, 3773, 8931).person("bob", 1001, 3774, 8932)


def test_a_service_whose_own_unit_listens_on_its_port_is_listening() -> None:
    plan = port_plan(two_people())
    everybody = {(name, service) for name in ("alice", "bob") for service in ("t3", "playwright")}
    assert (plan.listening, plan.elsewhere, plan.blocked) == (everybody, set(), set())


def test_one_that_listens_nowhere_is_neither_listening_nor_elsewhere() -> None:
    machine = two_people()
    kept = [found for found in machine.observed.listeners if found.unit != T3_OF_ALICE]
    plan = port_plan(machine.having(listeners=tuple(kept)))
    assert ("alice", "t3") not in plan.listening | plan.elsewhere | plan.blocked


def test_one_that_listens_on_another_port_is_elsewhere() -> None:
    machine = two_people()
    kept = [found for found in machine.observed.listeners if found.unit != T3_OF_ALICE]
    plan = port_plan(machine.having(listeners=tuple(kept)).listener(4000, 1000, T3_OF_ALICE))
    assert plan.elsewhere == {("alice", "t3")}
    assert ("alice", "t3") not in plan.listening


def test_one_that_listens_on_its_port_and_on_another_is_listening() -> None:
    plan = port_plan(two_people().listener(4000, 1000, T3_OF_ALICE))
    assert ("alice", "t3") in plan.listening
    assert plan.elsewhere == set()


def test_beside_a_stranger_on_its_port_a_service_is_blocked_and_not_listening() -> None:
    plan = port_plan(two_people().listener(3773, 1001, "stranger.service", 77))
    assert ("alice", "t3") in plan.blocked
    assert ("alice", "t3") not in plan.listening | plan.elsewhere
