"""How everybody stands: each person once, the worst first, and of each service who really listens and what it uses."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from reconciler.core.guard import guard
from reconciler.core.home_steps import DirectoryStep, HomeStep
from reconciler.core.last_run import LastRun
from reconciler.core.observed import Memory, Units, UnitState
from reconciler.core.plan import make_plan
from reconciler.core.records import CutRecord, Step
from reconciler.core.roster import User
from reconciler.core.site import Guards, Hook, OutputKind, Service, Site
from reconciler.core.site_homes import SiteStep
from reconciler.core.standing import standing
from reconciler.core.status import (
    AccountState,
    Health,
    MachineStatus,
    PortHolder,
    ServiceStatus,
    UserStatus,
    status_json,
)
from reconciler.core.status_text import status_text
from tests.unit.facts import FAILED, NOW, RUNNING, Machine, bare, desired, person
from tests.unit.scenarios import Scenario, scenarios

T3, MCP, TIMER = (
    "t3-serve@alice.service",
    "playwright-mcp@alice.service",
    "playwright-snapshot-refresh@alice.timer",
)
SITE = Site(settle=5, listen=30)


def status(machine: Machine, *people: User, site: Site = SITE, guards: Guards | None = None) -> MachineStatus:
    wanted = desired(*people, site=site)
    plan = make_plan(wanted, machine.observed)
    return standing(wanted, machine.observed, guard(plan, guards, None) if guards else plan)


def user(found: MachineStatus, name: str = "alice") -> UserStatus:
    (one,) = [one for one in found.users if one.name == name]
    return one


def service(found: MachineStatus, name: str = "t3", of: str = "alice") -> ServiceStatus:
    (one,) = [one for one in user(found, of).services if one.name == name]
    return one


def alice() -> Machine:
    return bare().person("alice", 1000, 3773, 8931)


# --- people ---


def test_steps_in_the_home_and_outside_that_are_due_are_pending_and_no_other_change_is() -> None:
    homes = {"notes": SiteStep(HomeStep("notes", DirectoryStep("notes"), 30))}
    hooks = {Step.REVOKE_CLUSTER_RBAC: Hook(("/bin/revoke",))}
    machine = alice().account("gone", 1001).known("gone")
    found = status(machine, person("alice"), site=replace(SITE, homes=homes, hooks=hooks))
    assert [text.partition(":")[0] for text in user(found).pending] == ["home step notes"]
    assert user(found).changes == ()
    gone = user(found, "gone")
    assert "revoke_cluster_rbac: pending → done by /bin/revoke" in gone.pending
    assert any(text.startswith("remove_from_t3_group") for text in gone.pending)
    assert any(text.startswith("login: ") for text in gone.changes)
    assert not any("revoke_cluster_rbac" in text for text in gone.changes)


def test_somebody_of_whom_everything_is_as_it_should_be_is_active_and_has_nothing_to_tell() -> None:
    one = user(status(alice(), person("alice")))
    assert (one.name, one.uid, one.tier, one.state) == ("alice", 1000, "power-user", AccountState.ACTIVE)
    assert (one.pending, one.problems, one.changes) == ((), (), ())
    assert [found.health for found in one.services] == [Health.OK, Health.OK]


@pytest.mark.parametrize(
    ("machine", "people", "state", "uid", "tier"),
    [
        (alice(), [person("alice")], AccountState.ACTIVE, 1000, "power-user"),
        (alice(), [person("alice", "admin", parked=True)], AccountState.PARKED, 1000, "admin"),
        (bare(), [person("alice")], AccountState.MISSING, None, "power-user"),
        (alice().cut("alice"), [], AccountState.CUT, 1000, ""),
        (alice(), [], AccountState.ACTIVE, 1000, ""),
        (bare().account("alice", 1000, managed=False), [person("alice")], AccountState.UNMANAGED, 1000, "power-user"),
        (
            bare().account("alice", 1000, managed=False),
            [person("alice", adopt=True)],
            AccountState.ACTIVE,
            1000,
            "power-user",
        ),
        (bare().output(OutputKind.TTYD_USER_MAP, "a=alice\n"), [], AccountState.UNMANAGED, None, ""),
        (bare().buried("alice", 1000), [], AccountState.TOMBSTONE, 1000, ""),
        (bare().buried("alice", 1000), [person("alice")], AccountState.TOMBSTONE, 1000, "power-user"),
    ],
)
def test_everybody_has_a_state(
    machine: Machine, people: list[User], state: AccountState, uid: int | None, tier: str
) -> None:
    one = user(status(machine, *people))
    assert (one.state, one.uid, one.tier) == (state, uid, tier)


def test_an_account_that_is_none_of_rosterds_and_in_no_map_is_not_told() -> None:
    assert status(bare().account("dave", 1000, managed=False)).users == ()


def test_what_a_run_would_do_stands_with_whom_it_is_for() -> None:
    found = status(bare(), person("alice"))
    assert any(line.startswith("account: none → uid 1000") for line in user(found).changes)
    assert "group rosterd: none → system group" in found.changes
    assert not set(found.changes) & set(user(found).changes)


def test_the_worst_are_first_and_of_those_alike_the_first_by_name() -> None:
    machine = alice().person("bob", 1001, 3774, 8932).person("carol", 1002, 3775, 8933).person("dave", 1003, 3776, 8934)
    machine = machine.account("erin", 1004, managed=False)
    machine = machine.buried("zoe", 1010, cut=CutRecord(1010, 1010, NOW, done=tuple(Step)))
    machine = machine.person("frank", 1005, 3777, 8935).person("gina", 1006, 3778, 8936)
    machine = machine.unit("t3-serve@dave.service", FAILED)
    machine = machine.unit("t3-serve@carol.service", replace(RUNNING, restarts=2))
    machine = machine.unit("t3-serve@frank.service", replace(RUNNING, up=1.0))
    machine = machine.unit("t3-serve@gina.service", enabled=False)
    units = machine.observed.units
    machine = machine.having(units=replace(units, enabled=units.enabled - {"t3-serve@gina.service"}))
    people = [person(name) for name in ("alice", "bob", "carol", "dave", "erin", "frank", "gina")]
    found = status(machine, *people)
    assert [one.name for one in found.users] == ["dave", "erin", "carol", "frank", "gina", "alice", "bob", "zoe"]


def test_what_is_held_and_what_concerns_the_machine_is_told_of_the_machine() -> None:
    machine = alice().person("bob", 1001, 3774, 8932).output(OutputKind.DISPATCH_JSON, "no json")
    found = status(machine, guards=Guards())
    assert any(
        text.startswith("held: alice, bob would be cut off: the roster has nobody in it") for text in found.problems
    )
    assert any("dispatch.json is not of its format" in text for text in found.problems)


def test_what_could_not_be_seen_is_told() -> None:
    assert status(alice().having(unseen=("shadow lines",)), person("alice")).unseen == ("shadow lines",)


def test_the_last_run_is_told_where_there_is_one() -> None:
    assert status(alice()).run is None
    found = status(alice().having(last_run=LastRun("id", NOW - 60, 3, 1.5))).run
    assert found is not None
    assert (found.id, found.at, found.exit) == ("id", NOW - 60, 3)


# --- services ---


def test_a_service_has_its_port_and_its_units_and_who_really_listens() -> None:
    machine = alice().having(listeners=()).listener(3773, 1000, T3, 4711)
    found = service(status(machine, person("alice")))
    assert (found.port, found.listener) == (3773, PortHolder(4711, "alice", T3))
    assert [(one.name, one.active, one.sub, one.enabled, one.restarts) for one in found.units] == [
        (T3, "active", "running", True, 0)
    ]


def test_the_listener_may_be_a_stranger_or_nobody_or_one_without_a_unit_or_an_account() -> None:
    empty = alice().having(listeners=())
    assert service(status(empty, person("alice"))).listener is None
    held = service(status(empty.listener(3773, 4711, "stranger.service", 77), person("alice")))
    assert held.listener == PortHolder(77, "4711", "stranger.service")
    assert held.health is Health.UNHEALTHY
    assert service(status(empty.listener(3773, 0), person("alice"))).listener == PortHolder(None, "root", None)


def test_a_unit_that_systemd_does_not_know_is_inactive() -> None:
    machine = bare().account("alice", 1000).env_file("t3", "alice", "3773")
    (unit,) = service(status(machine, person("alice"))).units
    assert (unit.active, unit.sub, unit.enabled) == ("inactive", "dead", False)


def test_restarts_are_those_since_the_last_run_and_a_timer_has_none() -> None:
    machine = alice().unit(T3, replace(RUNNING, restarts=5))
    assert service(status(machine, person("alice"))).units[0].restarts == 5
    machine = machine.having(last_run=LastRun("id", NOW, 0, 1.0, restarts={T3: 3}))
    found = status(machine, person("alice"))
    assert service(found).units[0].restarts == 2
    assert [unit.restarts for unit in service(found, "playwright").units] == [0, None]


def test_memory_is_the_sum_of_the_units_and_the_cap_the_lowest_of_them() -> None:
    machine = alice().having(memory={MCP: Memory(1000, 9000), TIMER: Memory(24, 8000), T3: Memory(5)})
    found = status(machine, person("alice"))
    assert (service(found, "playwright").memory, service(found, "playwright").memory_max) == (1024, 8000)
    assert (service(found).memory, service(found).memory_max) == (5, None)
    assert service(status(alice(), person("alice"))).memory is None


def test_a_cap_of_nothing_is_a_cap() -> None:
    assert service(status(alice().having(memory={T3: Memory(0, 0)}), person("alice"))).memory_max == 0
    assert service(status(alice().having(memory={T3: Memory(0, 0)}), person("alice"))).memory == 0


def test_somebody_who_is_deleted_keeps_their_ports_and_has_no_units() -> None:
    found = service(status(bare().buried("alice", 1000, ports={"t3": 3790})))
    assert (found.port, found.units, found.health) == (3790, (), Health.OFF)


def test_who_has_no_service_and_nothing_left_of_one_has_no_row_of_it() -> None:
    found = status(bare().account("alice", 1000), person("alice", services={"t3": False, "playwright": False}))
    assert user(found).services == ()


@pytest.mark.parametrize(
    ("machine", "who", "health"),
    [
        (alice(), person("alice"), Health.OK),
        (alice().unit(T3, replace(RUNNING, up=1.0)), person("alice"), Health.STARTING),
        (alice().unit(T3, FAILED), person("alice"), Health.UNHEALTHY),
        (alice().unit(T3, UnitState("inactive", "dead")), person("alice"), Health.UNHEALTHY),
        (alice().unit(T3, UnitState("activating", "auto-restart")), person("alice"), Health.UNHEALTHY),
        (alice().having(listeners=()), person("alice"), Health.UNHEALTHY),
        (alice(), person("alice", parked=True), Health.UNHEALTHY),
        (alice(), person("alice", services={"t3": False}), Health.UNHEALTHY),
        (alice().unit(T3, UnitState("inactive", "dead")), person("alice", parked=True), Health.OFF),
        (alice().unit(T3, FAILED), person("alice", parked=True), Health.OFF),
        (alice().having(units=Units(states=None, why="x")), person("alice"), Health.UNKNOWN),
        (alice().having(env_files=None), person("alice"), Health.UNKNOWN),
        (alice().having(env_files=None).unit(T3, FAILED), person("alice"), Health.UNHEALTHY),
    ],
)
def test_a_service_is_as_its_units_and_its_port_are(machine: Machine, who: User, health: Health) -> None:
    assert service(status(machine, who)).health is health


def test_without_an_answer_of_systemd_a_unit_is_neither_up_nor_down() -> None:
    (unit,) = service(status(alice().having(units=Units(states=None, why="x")), person("alice"))).units
    assert (unit.active, unit.sub, unit.restarts) == ("unknown", "unknown", None)


def test_a_service_without_a_port_is_known_without_the_env_files() -> None:
    site = replace(SITE, services={"job": Service("job", ("job@.service",), None, route=False)})
    machine = bare().account("alice", 1000).having(env_files=None).unit("job@alice.service")
    machine = machine.having(units=replace(machine.observed.units, templates=frozenset({"job@.service"})))
    assert service(status(machine, person("alice"), site=site), "job").health is Health.OK


def test_one_service_that_is_not_well_says_nothing_of_another() -> None:
    found = status(alice().unit(T3, UnitState("activating", "auto-restart")), person("alice"))
    assert (service(found).health, service(found, "playwright").health) == (Health.UNHEALTHY, Health.OK)
    assert len(user(found).problems) == 1


def test_who_is_cut_off_and_has_something_running_still_is_not_well() -> None:
    machine = alice().cut("alice")
    assert service(status(machine)).health is Health.UNHEALTHY
    quiet = machine.having(units=replace(machine.observed.units, states={}))
    assert service(status(quiet)).health is Health.OFF


# --- for every machine ---

many = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@many
@given(scenarios())
def test_every_person_appears_once_and_nothing_is_told_of_anybody_else(scenario: Scenario) -> None:
    wanted = desired(*scenario.roster.users.values())
    seen = scenario.machine.observed
    plan = make_plan(wanted, seen)
    found = standing(wanted, seen, plan)
    names = [one.name for one in found.users]
    assert len(names) == len(set(names))
    assert set(scenario.roster.users) <= set(names)
    told = [text for one in found.users for text in (*one.pending, *one.problems)]
    told += found.problems
    assert sorted(told) == sorted(one.text for one in plan.findings if one.user is None or one.user in names)
    changes = [text for one in found.users for text in one.changes] + list(found.changes)
    of_nobody = [one for one in plan.actions if one.user is not None and one.user not in names]
    assert len(changes) + len(of_nobody) == len(plan.actions)
    for one in found.users:
        assert len({service.name for service in one.services}) == len(one.services)


@many
@given(scenarios())
def test_nobody_with_a_problem_stands_below_somebody_without_one(scenario: Scenario) -> None:
    found = status(scenario.machine, *scenario.roster.users.values(), site=Site())
    bad = [
        bool(one.problems) or any(service.health is Health.UNHEALTHY for service in one.services) for one in found.users
    ]
    assert bad == sorted(bad, reverse=True)


# --- the time it takes ---


def crowd(number: int) -> tuple[Machine, list[User]]:
    """Return a machine with so many people on it who have two services each, and something to tell of some."""
    names = [f"user{one:05}" for one in range(number)]
    states, listeners, enabled, files, memory = {}, [], set(), {}, {}
    small = bare().person("alice", 1000, 3773, 8931).observed
    accounts, groups, shadow, homes = (
        dict(small.accounts),
        dict(small.groups),
        dict(small.shadow or {}),
        dict(small.homes),
    )
    for place, name in enumerate(names):
        uid = 2000 + place
        accounts[name] = replace(small.accounts["alice"], name=name, uid=uid, gid=uid, home=f"/home/{name}")
        groups[name] = replace(small.groups["alice"], name=name, gid=uid)
        shadow[name], homes[name] = (small.shadow or {})["alice"], replace(small.homes["alice"], uid=uid)
        for unit, state in (small.units.states or {}).items():
            own = unit.replace("@alice.", f"@{name}.")
            states[own] = replace(state, restarts=place % 3)
            enabled.add(own)
            memory[own] = Memory(place, 1 << 30)
        for (kind, _), file in (small.env_files or {}).items():
            port = (10_000 if kind == "t3" else 30_000) + place
            files[kind, name] = replace(file, value=str(port))
            unit = f"{'t3-serve' if kind == 't3' else 'playwright-mcp'}@{name}.service"
            listeners.append(replace(small.listeners[0], port=port, uid=uid, unit=unit, pid=place + 1))
    groups["rosterd"] = replace(groups["rosterd"], members=frozenset(names))
    del accounts["alice"]
    machine = bare().having(
        accounts=accounts,
        groups=groups,
        shadow=shadow,
        homes=homes,
        env_files=files,
        listeners=tuple(listeners),
        memory=memory,
        units=replace(small.units, states=states, enabled=frozenset(enabled)),
    )
    return machine, [person(name) for name in names]


def seconds_for(number: int) -> float:
    """Return the shortest of some times that it takes to work out and show how so many people stand."""
    machine, people = crowd(number)
    wanted = desired(*people, site=SITE)
    plan = make_plan(wanted, machine.observed)
    took = []
    for _ in range(3):
        began = time.process_time()
        found = standing(wanted, machine.observed, plan)
        text = status_text(found, now=NOW)
        document = status_json(found)
        took.append(time.process_time() - began)
        assert text.count("t3") >= number
        assert len(document["users"]) == number
    return min(took)


def test_a_thousand_people_are_worked_out_and_shown_at_once() -> None:
    assert seconds_for(1000) < 0.2


def test_four_times_the_people_take_little_more_than_four_times_as_long() -> None:
    assert seconds_for(2000) < 8 * seconds_for(500)
