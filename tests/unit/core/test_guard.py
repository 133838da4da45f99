"""The guards: how many people one run may cut off by itself."""

from __future__ import annotations

import pytest

from reconciler.core.actions import HaltUnit, Phase, WriteOutput
from reconciler.core.guard import guard
from reconciler.core.outputs import parse
from reconciler.core.plan import Plan
from reconciler.core.site import Guards, OutputKind
from tests.unit.facts import Machine, bare, person

PEOPLE = [f"p{number:02}" for number in range(20)]
TTYD, DISPATCH = OutputKind.TTYD_USER_MAP, OutputKind.DISPATCH_JSON


def machine(people: int) -> Machine:
    """Return a machine where this many people are as they should be."""
    found = bare()
    for number, name in enumerate(PEOPLE[:people]):
        found = found.person(name, 1000 + number, 3773 + number, 8931 + number)
    ttyd = "".join(f"{name}.x={name}\n" for name in PEOPLE[:people])
    return found.output(TTYD, ttyd)


def leaving(count: int, *, people: int = 20, extra: tuple[str, ...] = ()) -> Plan:
    """Return the plan for a roster that the last `count` of the people have left."""
    staying = [*PEOPLE[: people - count], *extra]
    return machine(people).plan(*(person(name) for name in staying))


def mapped(plan: Plan) -> set[str]:
    """Return who is in the terminal map after the plan."""
    texts = [action.text for action in plan.actions if isinstance(action, WriteOutput) and action.output is TTYD]
    text = texts[-1] if texts else machine(20).observed.outputs[TTYD]
    return {route.user for route in parse(TTYD, text)}


@pytest.mark.parametrize(
    ("people", "count", "guards", "held"),
    [
        pytest.param(20, 0, Guards(), False, id="nobody leaves"),
        pytest.param(20, 1, Guards(), False, id="one may"),
        pytest.param(2, 1, Guards(), False, id="one may, whatever the share"),
        pytest.param(20, 2, Guards(), False, id="two of twenty are ten per cent"),
        pytest.param(20, 3, Guards(), True, id="three of twenty are more"),
        pytest.param(19, 2, Guards(), True, id="two of nineteen are more"),
        pytest.param(20, 3, Guards(max_cuts=3), False, id="the site lets three"),
        pytest.param(20, 10, Guards(max_cut_percent=50), False, id="the site lets half"),
        pytest.param(20, 1, Guards(max_cuts=0, max_cut_percent=0), True, id="the site lets nobody"),
        pytest.param(3, 3, Guards(max_cuts=100, max_cut_percent=100), True, id="an empty roster always"),
    ],
)
def test_more_cuts_than_the_guards_allow_are_held(
    people: int,
    count: int,
    guards: Guards,
    held: bool,  # noqa: FBT001 (a column of the table)
) -> None:
    plan = guard(leaving(count, people=people), guards)
    assert bool(plan.held) is held
    assert any(isinstance(action, HaltUnit) for action in plan.actions) is (count > 0 and not held)


@pytest.mark.parametrize(("allowed", "held"), [(0, True), (4, True), (5, False), (6, False)])
def test_an_administrator_can_let_a_number_through(
    allowed: int,
    held: bool,  # noqa: FBT001 (a column of the table)
) -> None:
    assert bool(guard(leaving(5), Guards(), allowed).held) is held


def test_fewer_can_be_allowed_than_the_guards_would() -> None:
    assert guard(leaving(1), Guards(), 0).held == ("p19",)


def test_an_empty_roster_can_be_meant() -> None:
    assert not guard(leaving(3, people=3), Guards(), 3).held


def test_a_held_run_says_who_and_why_and_how_to_let_it_through() -> None:
    plan = guard(leaving(5), Guards())
    assert plan.held == ("p15", "p16", "p17", "p18", "p19")
    assert plan.why_held == (
        "5 of 20 people would be cut off, more than max_cuts 1 and 10 %;"
        " if it is meant: rosterd reconcile --allow-cuts 5"
    )


def test_a_held_run_leaves_map_lines_and_units_and_does_the_additive_work() -> None:
    plan = guard(leaving(5, extra=("new",)), Guards())
    assert mapped(plan) == {*PEOPLE, "new"}
    assert not [action for action in plan.actions if action.phase is Phase.UNMAP]
    assert {action.user for action in plan.actions if action.user} == {"new"}


def test_a_held_run_keeps_the_order_of_the_ports_in_the_map() -> None:
    plan = guard(leaving(5, extra=("new",)), Guards())
    (write,) = [action for action in plan.actions if isinstance(action, WriteOutput) and action.output is TTYD]
    users = [line.partition("=")[2] for line in write.text.splitlines() if not line.startswith("#")]
    assert users == [*PEOPLE, "new"]


def test_a_held_run_with_nothing_to_add_does_nothing_to_the_map() -> None:
    plan = guard(leaving(5), Guards())
    assert not [action for action in plan.actions if isinstance(action, WriteOutput) and action.output is TTYD]


def test_parking_and_switching_off_are_no_cuts() -> None:
    people = [person(name, parked=True) for name in PEOPLE]
    plan = guard(machine(20).plan(*people), Guards())
    assert plan.cuts == ()
    assert any(isinstance(action, HaltUnit) for action in plan.actions)


def test_an_empty_roster_is_held_even_where_nobody_would_lose_anything_now() -> None:
    plan = guard(bare().account("alice", 1000).plan(), Guards())
    assert plan.held == ("alice",)
    assert plan.why_held.startswith("the roster has nobody in it, 1 are managed and 0 would be cut off now")


def test_an_empty_roster_on_a_machine_with_nobody_is_fine() -> None:
    assert not guard(bare().plan(), Guards()).held


def test_who_has_nothing_to_lose_here_is_no_cut() -> None:
    found = bare()
    for number, name in enumerate(PEOPLE):
        found = found.account(name, 1000 + number)
    plan = guard(found.plan(person("p00")), Guards())
    assert plan.cuts == ()
    assert not plan.held
    assert len(plan.present) == 20


def test_people_who_are_only_in_a_map_count() -> None:
    found = bare().output(DISPATCH, '{"a.x": {"os_user": "a", "port": 1}, "b.x": {"os_user": "b", "port": 2}}')
    plan = guard(found.plan(person("carol")), Guards())
    assert plan.held == ("a", "b")
    assert plan.present == ("a", "b")
