"""Units: brought up, halted, told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.observed import Units, UnitState
from tests.unit.facts import FAILED, RUNNING, Machine, bare, person, told

UNIT = "t3-serve@alice.service"


def with_account(state: UnitState | None = None, *, enabled: bool = False) -> Machine:
    """Return a machine where alice has account and ports, and her other units run."""
    machine = bare().person("alice", 1000, 3773, 8931)
    units = machine.observed.units
    states = {name: value for name, value in (units.states or {}).items() if name != UNIT}
    machine = machine.having(units=replace(units, states=states, enabled=units.enabled - {UNIT}))
    if state is not None:
        machine = machine.unit(UNIT, state)
    if state is None or state.active == "failed":
        machine = machine.having(listeners=())
    return machine.having(
        units=replace(
            machine.observed.units, enabled=(machine.observed.units.enabled - {UNIT}) | ({UNIT} if enabled else set())
        )
    )


def lines(machine: Machine) -> list[str]:
    return [line for line in told(machine.plan(person("alice")), "alice") if UNIT in line or "t3" in line]


@pytest.mark.parametrize(
    ("state", "enabled", "line"),
    [
        pytest.param(None, False, f"+ {UNIT}: disabled, stopped → enabled, running", id="new"),
        pytest.param(None, True, f"+ {UNIT}: stopped → running", id="stopped"),
        pytest.param(UnitState("deactivating", "stop"), True, f"+ {UNIT}: stopped → running", id="stopping"),
        pytest.param(FAILED, True, f"~ {UNIT}: failed → running", id="failed"),
        pytest.param(FAILED, False, f"~ {UNIT}: disabled, failed → enabled, running", id="failed, disabled"),
        pytest.param(RUNNING, False, f"+ {UNIT}: disabled → enabled", id="running, not enabled"),
        pytest.param(
            UnitState("activating", "auto-restart"),
            True,
            f"unhealthy: t3: {UNIT} is activating (auto-restart) and does not come up; see: journalctl -u {UNIT}",
            id="crash loop",
        ),
    ],
)
def test_a_unit_is_brought_up_from(state: UnitState | None, enabled: bool, line: str) -> None:  # noqa: FBT001 (a column of the table)
    assert lines(with_account(state, enabled=enabled)) == [line]


@pytest.mark.parametrize("active", ["active", "reloading", "refreshing"])
def test_a_unit_that_runs_is_left_alone(active: str) -> None:
    assert lines(with_account(UnitState(active, "running"), enabled=True)) == []


def test_a_missing_template_is_named_and_the_other_services_go_on() -> None:
    machine = bare()
    units = replace(machine.observed.units, templates=frozenset({"playwright-mcp@.service"}))
    plan = machine.having(units=units).plan(person("alice"))
    assert f"conflict: t3: template t3-serve@.service is not installed; {UNIT} not started" in told(plan, "alice")
    assert "+ playwright-mcp@alice.service: disabled, stopped → enabled, running" in told(plan, "alice")


def test_a_template_that_cannot_be_enabled_is_started_and_told() -> None:
    machine = with_account()
    machine = machine.having(units=replace(machine.observed.units, not_installable=frozenset({"t3-serve@.service"})))
    started, conflicting = lines(machine)
    assert started == f"+ {UNIT}: stopped → running"
    assert conflicting.startswith("conflict: t3: template t3-serve@.service has no [Install] section")


@pytest.mark.parametrize("masked", [UNIT, "t3-serve@.service"])
def test_a_masked_unit_is_left_alone_and_told(masked: str) -> None:
    machine = with_account()
    machine = machine.having(units=replace(machine.observed.units, masked=frozenset({masked})))
    assert lines(machine) == [f"warning: t3: {UNIT} is masked; left alone (systemctl unmask {UNIT})"]


def test_where_systemd_does_not_answer_that_is_told_once_and_the_rest_is_done() -> None:
    machine = bare().having(units=Units(states=None, why="the system bus does not answer"))
    plan = machine.plan(person("alice"), person("bob"))
    assert "conflict: services are not looked after: the system bus does not answer" in told(plan)
    kinds = {action.kind for action in plan.actions}
    assert kinds == {"create_group", "create_account", "write_port", "write_output", "record_identities"}


def test_where_systemd_does_not_answer_that_is_told_for_somebody_who_leaves_too() -> None:
    machine = bare().person("alice", 1000, 3773, 8931)
    plan = machine.having(units=Units(states=None, why="the system bus does not answer")).plan()
    assert "conflict: services are not looked after: the system bus does not answer" in told(plan)


@pytest.mark.parametrize(
    ("who", "why"),
    [
        (person("alice", parked=True), "parked"),
        (person("alice", services={"t3": False}), "switched off"),
        (person("alice", parked=True, services={"t3": False}), "switched off"),
    ],
)
def test_who_is_parked_or_has_it_switched_off_has_it_stopped_and_disabled(who: object, why: str) -> None:
    machine = bare().person("alice", 1000, 3773, 8931)
    plan = machine.plan(who)  # type: ignore[arg-type]
    assert f"- {UNIT}: enabled, running → disabled, stopped ({why})" in told(plan, "alice")


def test_parking_stops_every_service_and_switching_off_only_that_one() -> None:
    machine = bare().person("alice", 1000, 3773, 8931)
    parked = [line for line in told(machine.plan(person("alice", parked=True)), "alice") if line[0] == "-"]
    assert len(parked) == 3
    switched = machine.plan(person("alice", services={"playwright": False}))
    assert [line.split(":")[0] for line in told(switched, "alice") if line[0] == "-"] == [
        "- playwright-mcp@alice.service",
        "- playwright-snapshot-refresh@alice.timer",
    ]


@pytest.mark.parametrize(
    ("state", "enabled", "line"),
    [
        (RUNNING, False, f"- {UNIT}: running → stopped (parked)"),
        (UnitState("activating", "auto-restart"), False, f"- {UNIT}: running → stopped (parked)"),
        (FAILED, True, f"- {UNIT}: enabled, failed → disabled, stopped (parked)"),
        (FAILED, False, f"- {UNIT}: failed → stopped (parked)"),
        (None, True, f"- {UNIT}: enabled → disabled (parked)"),
    ],
)
def test_only_what_is_there_is_halted(state: UnitState | None, enabled: bool, line: str) -> None:  # noqa: FBT001 (a column of the table)
    plan = with_account(state, enabled=enabled).plan(person("alice", parked=True))
    assert [found for found in told(plan, "alice") if UNIT in found] == [line]


def test_what_is_down_already_is_not_halted_again() -> None:
    plan = with_account(UnitState("inactive", "dead")).plan(person("alice", parked=True))
    assert [found for found in told(plan, "alice") if UNIT in found] == []


def test_somebody_who_is_refused_keeps_what_runs() -> None:
    machine = bare().account("alice", 1000, managed=False).unit(UNIT)
    assert not [action for action in machine.plan(person("alice")).actions if action.user == "alice"]


def test_who_left_the_roster_is_halted_before_anything_else_is_done_for_others() -> None:
    plan = bare().person("alice", 1000, 3773, 8931).plan(person("bob"))
    halted = [line for line in told(plan, "alice") if line[0] == "-"]
    assert f"- {UNIT}: enabled, running → disabled, stopped (cut off)" in halted
    kinds = [action.kind for action in plan.actions]
    assert kinds.count("halt_unit") == 3
    assert max(i for i, kind in enumerate(kinds) if kind == "halt_unit") < kinds.index("create_account")


def test_an_account_that_is_not_managed_and_not_on_the_roster_is_nobodys_business() -> None:
    machine = bare().account("dave", 1000, managed=False).unit("t3-serve@dave.service")
    assert told(machine.plan(person("alice")), "dave") == []
