"""Limits: whose drop-ins are wanted, which are changed, and which are nobody's business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.actions import Action, CreateAccount, Phase, ReloadSystemd, RunUnit, SetDropIn, Sign
from reconciler.core.drop_ins import limits_text, placement_text
from reconciler.core.observed import UnitState
from reconciler.core.plan import Plan
from reconciler.core.roster import User
from reconciler.core.site import Limits, PortRule, Service, Site, Tier
from tests.unit.facts import RUNNING, SITE, Machine, bare, only, person, told

LIMITS = Limits("4G", "200%", 4096)
CAPPED = Site(tiers={**SITE.tiers, "power-user": Tier("power-user", limits=LIMITS)})
BY_HAND = "# by hand\n"
SERVICES = ("t3-serve", "playwright-mcp", "playwright-snapshot-refresh")


def wanted(name: str, uid: int, limits: Limits = LIMITS) -> dict[str, str]:
    """Return the drop-ins that somebody with the services of the default site is to have."""
    into = placement_text(f"user-{uid}.slice")
    return {f"user-{uid}.slice": limits_text(limits), **{f"{name_of}@{name}.service": into for name_of in SERVICES}}


def alice(drop_ins: Mapping[str, str] | None = None, *, reload_due: bool = False) -> Machine:
    return having(bare().person("alice", 1000, 3773, 8931), drop_ins or {}, reload_due=reload_due)


def having(machine: Machine, drop_ins: Mapping[str, str], *, reload_due: bool = False) -> Machine:
    return machine.having(units=replace(machine.observed.units, drop_ins=drop_ins, reload_due=reload_due))


def changes(plan: Plan) -> dict[str, tuple[str | None, str | None]]:
    """Return what is written where, with whose it is."""
    found = [action for action in plan.actions if isinstance(action, SetDropIn)]
    assert len({action.unit for action in found}) == len(found)
    return {action.unit: (action.user, action.text) for action in found}


def about_limits(plan: Plan) -> list[Action]:
    return [action for action in plan.actions if action.phase is Phase.LIMITS]


# --- what is wanted ---


def test_somebody_with_limits_has_them_on_their_slice_and_their_services_in_it() -> None:
    plan = alice().plan(person("alice"), site=CAPPED)
    assert changes(plan) == {unit: ("alice", text) for unit, text in wanted("alice", 1000).items()}
    assert "+ user-1000.slice: memory_max none → 4G, cpu_quota none → 200%, tasks_max none → 4096" in told(
        plan, "alice"
    )
    assert "+ t3-serve@alice.service: slice none → user-1000.slice" in told(plan, "alice")


def test_what_is_as_it_should_be_is_left_alone() -> None:
    plan = alice(wanted("alice", 1000)).plan(person("alice"), site=CAPPED)
    assert about_limits(plan) == []


def test_a_tier_without_limits_wants_nothing() -> None:
    assert changes(alice().plan(person("alice", "admin"), site=CAPPED)) == {}
    assert about_limits(alice().plan(person("alice"))) == []


def test_a_service_that_somebody_does_not_have_is_not_placed() -> None:
    plan = alice().plan(person("alice", services={"playwright": False}), site=CAPPED)
    assert set(changes(plan)) == {"user-1000.slice", "t3-serve@alice.service"}


def test_a_service_that_is_switched_off_loses_its_drop_in() -> None:
    plan = alice(wanted("alice", 1000)).plan(person("alice", services={"t3": False}), site=CAPPED)
    assert changes(plan) == {"t3-serve@alice.service": ("alice", None)}


def test_somebody_who_is_parked_keeps_their_limits() -> None:
    plan = alice(wanted("alice", 1000)).plan(person("alice", parked=True), site=CAPPED)
    assert changes(plan) == {}


def test_a_socket_has_its_service_placed() -> None:
    rule = PortRule("T3_PORT", 3773, 4772, "/etc/t3-serve/{user}.env")
    site = replace(CAPPED, services={"t3": Service("t3", ("t3@.socket",), rule, route=True)})
    plan = bare().account("alice", 1000).plan(person("alice"), site=site)
    assert set(changes(plan)) == {"user-1000.slice", "t3@alice.service"}


def test_an_account_that_is_only_being_made_has_its_limits_before_anything_of_it_starts() -> None:
    plan = bare().account("bob", 1000).plan(person("alice"), person("bob"), site=CAPPED)
    (made,) = only(plan.actions, CreateAccount)
    assert isinstance(made, CreateAccount)
    assert made.uid == 1001
    assert set(changes(plan)) == {*wanted("alice", 1001), *wanted("bob", 1000)}
    assert Phase.ACCOUNTS < Phase.LIMITS < Phase.UNITS
    order = [type(action) for action in plan.actions]
    assert order.index(CreateAccount) < order.index(SetDropIn) < order.index(RunUnit)


def test_of_two_names_that_begin_alike_each_has_their_own() -> None:
    machine = bare().person("bob", 1000, 3773, 8931).person("bob-smith", 1001, 3774, 8932)
    plan = machine.plan(person("bob"), person("bob-smith"), site=CAPPED)
    expected = {unit: ("bob", text) for unit, text in wanted("bob", 1000).items()}
    expected |= {unit: ("bob-smith", text) for unit, text in wanted("bob-smith", 1001).items()}
    assert changes(plan) == expected
    there = having(machine, wanted("bob", 1000) | wanted("bob-smith", 1001))
    assert changes(there.plan(person("bob"), person("bob-smith", services={"t3": False}), site=CAPPED)) == {
        "t3-serve@bob-smith.service": ("bob-smith", None)
    }


# --- what has changed ---


def test_a_changed_limit_changes_one_file() -> None:
    drop_ins = wanted("alice", 1000, Limits("2G", "200%", 4096))
    plan = alice(drop_ins).plan(person("alice"), site=CAPPED)
    assert changes(plan) == {"user-1000.slice": ("alice", limits_text(LIMITS))}
    assert told(plan, "alice") == ["~ user-1000.slice: memory_max 2G → 4G"]


def test_what_was_edited_by_hand_is_written_again() -> None:
    drop_ins = {**wanted("alice", 1000), "user-1000.slice": limits_text(LIMITS) + "# mine\n"}
    plan = alice(drop_ins).plan(person("alice"), site=CAPPED)
    assert told(plan, "alice") == ["~ user-1000.slice: edited by hand → as it was written"]


def test_a_tier_that_loses_its_limits_loses_the_drop_ins() -> None:
    plan = alice(wanted("alice", 1000)).plan(person("alice"))
    assert changes(plan) == dict.fromkeys(wanted("alice", 1000), ("alice", None))
    assert {action.sign for action in only(plan.actions, SetDropIn)} == {Sign.CHANGE}


# --- whom it is none of ---


@pytest.mark.parametrize(
    ("unit", "owner"),
    [("user-1002.slice", None), ("t3-serve@gone.service", None), ("t3-serve@dave.service", "dave")],
)
def test_what_belongs_to_nobody_is_removed(unit: str, owner: str | None) -> None:
    machine = bare().person("alice", 1000, 3773, 8931).account("dave", 1001, managed=False)
    plan = having(machine, {**wanted("alice", 1000), unit: limits_text(LIMITS)}).plan(person("alice"), site=CAPPED)
    assert changes(plan) == {unit: (owner, None)}


def test_what_a_cut_person_has_stays_for_their_return() -> None:
    machine = bare().person("alice", 1000, 3773, 8931).person("bob", 1001, 3774, 8932)
    there = having(machine, wanted("alice", 1000) | wanted("bob", 1001))
    assert changes(there.plan(person("alice"), site=CAPPED)) == {}
    assert changes(there.plan(person("alice"), person("bob"), site=CAPPED, cut=["bob"])) == {}


def test_an_account_that_is_refused_is_left_alone() -> None:
    machine = bare().account("alice", 1000, managed=False)
    assert changes(machine.plan(person("alice"), site=CAPPED)) == {}
    there = having(machine, {"user-1000.slice": "# theirs\n", "t3-serve@alice.service": "# theirs\n"})
    assert changes(there.plan(person("alice"), site=CAPPED)) == {}


@pytest.mark.parametrize(
    "unit", ["rosterd.service", "nginx.service", "user-.slice", "t3-serve@.service", "user-1002.slice"]
)
def test_what_somebody_else_wrote_under_that_name_is_left_alone(unit: str) -> None:
    machine = bare().person("alice", 1000, 3773, 8931)
    plan = having(machine, {**wanted("alice", 1000), unit: "[Service]\nReadWritePaths=/srv\n"}).plan(
        person("alice"), site=CAPPED
    )
    assert about_limits(plan) == []


def test_where_the_drop_ins_cannot_be_seen_nothing_is_changed() -> None:
    machine = alice()
    unseen = machine.having(units=replace(machine.observed.units, drop_ins=None))
    assert changes(unseen.plan(person("alice"), site=CAPPED)) == {}


# --- what systemd has not read, and what runs outside ---


def test_a_reload_that_is_due_is_made_alone_or_comes_with_the_next_change() -> None:
    plan = alice(wanted("alice", 1000), reload_due=True).plan(person("alice"), site=CAPPED)
    assert about_limits(plan) == [ReloadSystemd()]
    assert "~ systemd: drop-ins changed → read" in told(plan)
    changing = alice({}, reload_due=True).plan(person("alice"), site=CAPPED)
    assert not only(changing.actions, ReloadSystemd)
    assert len(changes(changing)) == 4


def outside(state: UnitState) -> Plan:
    machine = alice(wanted("alice", 1000)).unit("t3-serve@alice.service", state)
    return machine.plan(person("alice"), site=CAPPED)


def test_a_service_that_runs_outside_of_the_slice_is_not_moved_but_told() -> None:
    plan = outside(replace(RUNNING, in_slice=False))
    assert not [action for action in plan.actions if action.user == "alice"]
    (line,) = told(plan, "alice")
    assert line == (
        "warning: t3: restart pending, t3-serve@alice.service runs outside of user-1000.slice, so the limits of"
        " power-user do not hold for it; when it suits the user: systemctl restart t3-serve@alice.service"
    )
    assert not plan.has_problems


def test_one_that_is_active_without_a_process_is_not_told() -> None:
    assert told(outside(replace(RUNNING, sub="exited", in_slice=False)), "alice") == []


@pytest.mark.parametrize("in_slice", [True, None])
def test_one_that_runs_in_it_or_of_which_it_is_not_known_is_not_told(in_slice: bool | None) -> None:  # noqa: FBT001 (a column of the table)
    assert told(outside(replace(RUNNING, in_slice=in_slice)), "alice") == []


def test_of_somebody_without_limits_or_parked_it_is_not_told() -> None:
    machine = alice(wanted("alice", 1000)).unit("t3-serve@alice.service", replace(RUNNING, in_slice=False))
    for plan in (
        having(machine, {}).plan(person("alice")),
        machine.plan(person("alice", parked=True), site=CAPPED),
    ):
        assert not [line for line in told(plan, "alice") if "restart pending" in line]


# --- for everybody ---

NAMES = ("bob", "bob-smith", "carol", "dave")
UIDS = {name: 1000 + number for number, name in enumerate(NAMES)}
people = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(st.sampled_from(["admin", "power-user"]), st.booleans(), st.dictionaries(st.just("t3"), st.booleans())),
)
units = st.sampled_from([*(unit for name in NAMES for unit in wanted(name, UIDS[name])), "user-1999.slice"])
texts = st.sampled_from([BY_HAND, limits_text(LIMITS), placement_text("user-1000.slice")])


@given(people, st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)), st.dictionaries(units, texts))
@settings(max_examples=200)
def test_afterwards_each_has_exactly_what_their_tier_says_and_others_what_they_had(
    on_roster: dict[str, tuple[str, bool, dict[str, bool]]],
    accounts: set[str],
    unmanaged: set[str],
    there: dict[str, str],
) -> None:
    machine = bare()
    for name in accounts:
        machine = machine.account(name, UIDS[name], managed=name not in unmanaged)
    roster: list[User] = [
        person(name, tier, parked=parked, services=services) for name, (tier, parked, services) in on_roster.items()
    ]
    plan = having(machine, there).plan(*roster, site=CAPPED)
    after = dict(there)
    for unit, (_, text) in changes(plan).items():
        after = {name: old for name, old in after.items() if name != unit} | ({} if text is None else {unit: text})
    created = {action.user: action.uid for action in plan.actions if isinstance(action, CreateAccount)}
    expected: dict[str, str] = {}
    for user in roster:
        refused = user.name in accounts & unmanaged
        if user.tier == "power-user" and not refused:
            own = wanted(user.name, created.get(user.name, UIDS[user.name]))
            off = "t3-serve@" if dict(user.services).get("t3") is False else "-"
            expected |= {unit: text for unit, text in own.items() if not unit.startswith(off)}
    left_alone = (accounts - unmanaged - on_roster.keys()) | (accounts & unmanaged & on_roster.keys())
    # What rosterd did not write is somebody else's.
    expected = {unit: text for unit, text in there.items() if text == BY_HAND} | expected
    for name in left_alone:
        expected |= {unit: text for unit, text in there.items() if unit in wanted(name, UIDS[name])}
    assert after == expected
