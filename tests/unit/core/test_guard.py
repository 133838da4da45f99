"""The guards: how many people one run may cut off by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.actions import HaltUnit, Phase, RecordIdentities, WriteOutput
from reconciler.core.findings import FindingKind
from reconciler.core.guard import guard
from reconciler.core.observed import Login
from reconciler.core.outputs import parse
from reconciler.core.plan import Plan, only
from reconciler.core.records import Step
from reconciler.core.site import Guards, Hook, OutputKind, Site
from tests.unit.facts import CUT, NOW, OPEN, Machine, at_job, bare, person, process, service, told

ADMIN_GROUPS = ("code-shared", "docker", "sudo")
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


def test_an_empty_roster_is_held_even_where_one_may_be_cut_off() -> None:
    plan = guard(bare().account("alice", 1000).plan(), Guards())
    assert plan.held == ("alice",)
    assert plan.why_held == (
        "the roster has nobody in it, 1 are managed and 1 would be cut off now;"
        " if it is meant: rosterd reconcile --allow-cuts 1"
    )


def test_an_empty_roster_is_held_even_where_nobody_would_be_cut_off_by_it() -> None:
    machine = bare().account("root2", 1000, "code-shared", "docker", "sudo")
    plan = guard(machine.plan(), Guards())
    assert plan.cuts == ()
    assert plan.held == ("root2",)


def test_an_empty_roster_on_a_machine_with_nobody_is_fine() -> None:
    assert not guard(bare().plan(), Guards()).held


def test_who_has_nothing_but_an_account_is_cut_off_and_counts() -> None:
    found = bare()
    for number, name in enumerate(PEOPLE):
        found = found.account(name, 1000 + number)
    plan = guard(found.plan(person("p00")), Guards())
    assert plan.cuts == plan.held == tuple(PEOPLE[1:])
    assert len(plan.present) == 20


def already_cut(count: int) -> Machine:
    """Return a machine from which the last people of twenty are cut off already."""
    found = machine(20)
    for name in PEOPLE[-count:]:
        found = found.cut(name)
    return found


def test_who_is_cut_off_already_counts_neither_as_a_cut_nor_as_one_of_the_people() -> None:
    plan = already_cut(5).plan(*(person(name) for name in PEOPLE[:14]))
    assert plan.cuts == ("p14",)
    assert len(plan.present) == 15
    assert not guard(plan, Guards()).held
    assert guard(plan, Guards(max_cuts=0, max_cut_percent=6)).held == ("p14",)
    assert not guard(plan, Guards(max_cuts=0, max_cut_percent=7)).held


def test_what_somebody_who_is_cut_off_already_has_opened_is_closed_whoever_else_is_held() -> None:
    found = already_cut(1).present("p19", crontab=True, processes=(process(1, 1019),)).login("p19", OPEN)
    plan = guard(found.plan(*(person(name) for name in PEOPLE[:10])), Guards())
    assert plan.held == tuple(PEOPLE[10:19])
    assert {action.user for action in plan.actions if action.user} == {"p19"}
    assert {"hold_jobs", "lock_account", "end_processes", "halt_unit"} <= {action.kind for action in plan.actions}


def test_the_map_line_of_somebody_who_is_cut_off_already_goes_whoever_else_is_held() -> None:
    plan = guard(already_cut(1).plan(*(person(name) for name in PEOPLE[:10])), Guards())
    assert plan.held == tuple(PEOPLE[10:19])
    assert mapped(plan) == set(PEOPLE[:19])
    (write,) = [action for action in plan.actions if isinstance(action, WriteOutput) and action.output is TTYD]
    assert write.phase is Phase.UNMAP


def test_where_some_are_held_others_unmapped_and_others_new_a_map_is_written_twice_and_rightly() -> None:
    plan = guard(already_cut(1).plan(*(person(name) for name in [*PEOPLE[:10], "new"])), Guards())
    first, last = (action for action in plan.actions if isinstance(action, WriteOutput) and action.output is TTYD)
    assert (first.phase, last.phase) == (Phase.UNMAP, Phase.MAPS)
    assert {route.user for route in parse(TTYD, first.text)} == set(PEOPLE[:19])
    assert {route.user for route in parse(TTYD, last.text)} == {*PEOPLE[:19], "new"}
    assert last.before == first.text


HOOKED = Site(hooks={Step.REVOKE_CLUSTER_RBAC: Hook(("/bin/revoke", "{k8s_user}"))})


def much_to_lose() -> Machine:
    """Return a machine on which two of three have everything that a cut takes."""
    found = machine(3)
    for name, uid in (("p01", 1001), ("p02", 1002)):
        found = found.login(name, OPEN).present(
            name,
            crontab=True,
            at_jobs=(at_job(5),),
            lingering=True,
            slice_active=True,
            units=(service("a.service"),),
            processes=(process(uid, uid),),
        )
    return found


def test_people_who_are_held_lose_nothing_at_all() -> None:
    staying = person("p00")
    free = much_to_lose().plan(staying, site=HOOKED)
    lost = {"record_cut", "hold_jobs", "lock_account", "halt_unit", "set_linger", "end_processes", "run_hook"}
    assert {action.kind for action in free.actions if action.user == "p01"} == lost
    held = guard(free, Guards())
    assert held.held == ("p01", "p02")
    assert not [action for action in held.actions if action.user]
    assert not [action for action in held.actions if isinstance(action, WriteOutput) and action.output is TTYD]


def test_people_who_are_held_are_not_even_given_a_shadow_line_to_be_locked() -> None:
    found = machine(3)
    shadow = {name: login for name, login in (found.observed.shadow or {}).items() if name != "p01"}
    free = found.having(shadow=shadow).plan(person("p00"))
    assert "complete_shadow" in {action.kind for action in free.actions}
    assert not [action for action in guard(free, Guards()).actions if action.user == "p01"]


def test_of_people_who_are_held_nothing_is_told_as_pending_but_of_others_it_is() -> None:
    found = machine(4).cut("p03").buried("q", 1500)
    plan = found.plan(person("p00"))
    pending = [found.user for found in plan.findings if found.kind is FindingKind.PENDING]
    assert set(pending) == {"p01", "p02", "p03", "q"}
    held = guard(plan, Guards())
    assert {found.user for found in held.findings if found.kind is FindingKind.PENDING} == {"p03", "q"}
    assert told(held, "p01") == []


def test_what_stands_in_the_way_for_people_who_are_held_is_told_and_what_their_cut_would_leave_is_not() -> None:
    found = machine(3).account("same", 1001, managed=False).present("p01", units=(service("a.service", enabled=True),))
    free = found.plan(person("p00"))
    assert [line for line in told(free, "p01") if line.startswith("warning: a.service")]
    lines = told(guard(free, Guards()), "p01")
    assert any(line.startswith("conflict: has the uid 1001 of same") for line in lines)
    assert {line.partition(":")[0] for line in lines} == {"conflict"}


def test_identities_of_people_who_are_held_stay_on_record() -> None:
    plan = guard(machine(3).plan(person("new")), Guards())
    (record,) = [action for action in plan.actions if isinstance(action, RecordIdentities)]
    assert [name for name, _ in record.identities] == ["new", "p00", "p01", "p02"]


# --- the last administrator ---


def with_admins(*able: str) -> Machine:
    """Return a machine where boss, and these, are administrators."""
    found = bare().account("user", 1000).account("boss", 1001, *ADMIN_GROUPS)
    for number, name in enumerate(able):
        found = found.account(name, 1002 + number, *ADMIN_GROUPS, managed=False)
    return found


def held_as_last(found: Machine) -> bool:
    plan = guard(only(found.plan(cut=["boss"]), "boss"), Guards(), 1)
    assert (plan.held == ("boss",)) is bool(plan.why_held)
    assert ("record_cut" in {action.kind for action in plan.actions}) is not bool(plan.held)
    return bool(plan.held)


def test_the_last_administrator_who_can_log_in_is_not_even_cut_off_by_command() -> None:
    plan = guard(only(with_admins().plan(cut=["boss"]), "boss"), Guards(), 1)
    assert plan.why_held == "no administrator could log in any more without boss; let somebody else be one first"
    assert held_as_last(with_admins())
    assert not held_as_last(with_admins("other"))


@pytest.mark.parametrize(
    ("change", "held"),
    [
        pytest.param({"shell": "/usr/sbin/nologin"}, True, id="no shell"),
        pytest.param({"shell": "/bin/false"}, True, id="a shell that ends at once"),
        pytest.param({"shell": "/bin/sh"}, False, id="a shell"),
        pytest.param({"uid": 0}, True, id="another name of root"),
        pytest.param({"expiry": NOW // 86400}, True, id="expires today"),
        pytest.param({"expiry": NOW // 86400 + 1}, False, id="expires tomorrow"),
        pytest.param({"locked": True}, False, id="a locked password, as keys may do"),
    ],
)
def test_another_administrator_counts_only_if_nothing_is_known_that_keeps_them_out(
    change: dict[str, Any],
    held: bool,  # noqa: FBT001 (a column of the table)
) -> None:
    found = with_admins("other")
    login = Login(locked=change.get("locked", False), expiry=change.get("expiry"))
    account = replace(
        found.observed.accounts["other"],
        **{key: value for key, value in change.items() if key in ("shell", "uid")},
    )
    found = found.having(accounts={**found.observed.accounts, "other": account}).login("other", login)
    assert held_as_last(found) is held


def test_where_no_administrator_can_log_in_as_it_is_a_cut_is_not_held_for_that() -> None:
    found = with_admins().login("boss", CUT)
    assert not held_as_last(found)


def test_the_last_administrator_is_held_also_where_nobody_else_works() -> None:
    plan = guard(bare().account("boss", 1001, *ADMIN_GROUPS).plan(cut=["boss"]), Guards(), 1)
    assert plan.held == ("boss",)


@pytest.mark.parametrize("login", [CUT, OPEN])
def test_an_administrator_who_is_cut_off_already_is_not_the_last(login: Login) -> None:
    plan = with_admins().cut("boss", by_command=True).login("boss", login).plan(person("user"))
    assert plan.last_admins == ()
    assert not guard(plan, Guards()).held


def test_people_who_are_only_in_a_map_count() -> None:
    found = bare().output(DISPATCH, '{"a.x": {"os_user": "a", "port": 1}, "b.x": {"os_user": "b", "port": 2}}')
    plan = guard(found.plan(person("carol")), Guards())
    assert plan.held == ("a", "b")
    assert plan.present == ("a", "b")
