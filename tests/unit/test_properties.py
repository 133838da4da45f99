"""What holds of every run, whatever the roster and whatever the machine.

The oracle is not the planner: a scenario knows how its accounts came to be, and what is checked is
what is on the machine afterwards.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import Observed, SubidRange
from reconciler.core.outputs import parse
from reconciler.core.site import OutputKind
from reconciler.engine import Report
from tests.unit.facts import SITE
from tests.unit.memory_host import MemoryHost
from tests.unit.runs import run, run_killed
from tests.unit.scenarios import PORTS, TIER_GROUPS, Past, Scenario, scenarios

many = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
DISPATCH, TTYD = OutputKind.DISPATCH_JSON, OutputKind.TTYD_USER_MAP


def port_values(seen: Observed) -> dict[tuple[str, str], str]:
    files = seen.env_files or {}
    return {holder: file.value for holder, file in files.items() if file.value is not None}


def lines(seen: Observed) -> list[str]:
    """Return the lines of the terminal map."""
    text = seen.outputs[TTYD] or ""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def mapped(seen: Observed) -> set[str]:
    return {route.user for kind, text in seen.outputs.items() for route in parse(kind, text)}


def served(scenario: Scenario) -> set[str]:
    """Return the people for whom everything is to be done."""
    return set(scenario.roster.users) - scenario.refused


def check_people_have_what_is_theirs(scenario: Scenario, seen: Observed) -> None:
    before = scenario.machine.observed
    for name in served(scenario):
        assert name in seen.accounts
        groups = seen.groups_of(name)
        assert MANAGED_GROUP in groups
        assert groups >= set(TIER_GROUPS[scenario.roster.users[name].tier]) & set(before.groups)
        assert seen.shadow is not None
        assert name in seen.shadow
        assert seen.homes[name].uid == seen.accounts[name].uid
        assert f"{name}.x={name}" in lines(seen)


def check_nothing_is_shared(scenario: Scenario, seen: Observed) -> None:
    assert max(Counter(account.uid for account in seen.accounts.values()).values()) == 1
    assert max(Counter(group.gid for group in seen.groups.values()).values()) == 1
    for ranges in (seen.subuids or (), seen.subgids or ()):
        ordered: list[SubidRange] = sorted(ranges, key=lambda span: span.first)
        assert all(low.first + low.count <= high.first for low, high in pairwise(ordered))
    before, after = port_values(scenario.machine.observed), port_values(seen)
    new = {holder: port for holder, port in after.items() if holder not in before}
    for (service, user), port in new.items():
        assert list(after.values()).count(port) == 1
        assert PORTS[service].start <= int(port)
        own = set(SITE.services[service].instances(user))
        listening = [found for found in scenario.machine.observed.listeners if found.port == int(port)]
        assert {found.unit for found in listening} <= own
    identities = Counter(line.partition("=")[0] for line in lines(seen))
    assert not identities or max(identities.values()) == 1


def check_nobody_lost_anything(scenario: Scenario, seen: Observed, report: Report) -> None:
    before = scenario.machine.observed
    assert port_values(seen).items() >= port_values(before).items()
    for name, account in before.accounts.items():
        assert seen.accounts[name] == account
        assert seen.groups_of(name) >= before.groups_of(name)
    for user in scenario.roster.users.values():
        for service in SITE.services.values():
            wanted = dict(user.services).get(service.name, True) and not user.parked
            for unit in service.instances(user.name) if wanted or user.name in scenario.refused else ():
                state = (before.units.states or {}).get(unit)
                if state is not None and state.active == "active":
                    assert (seen.units.states or {})[unit] == state
    for name in report.plan.held:
        assert {line for line in lines(before) if line.endswith(f"={name}")} - given_away(scenario) <= set(lines(seen))


def given_away(scenario: Scenario) -> set[str]:
    """Return the lines that would send somebody of the roster to another account."""
    before = scenario.machine.observed
    return {line for line in lines(before) if line.partition("=")[0] in {f"{name}.x" for name in served(scenario)}}


def check_unmanaged_accounts_are_untouched(scenario: Scenario, seen: Observed) -> None:
    before = scenario.machine.observed
    hand_made = {name for name, past in scenario.pasts.items() if past is Past.HAND_MADE}
    for name in hand_made - served(scenario):
        assert seen.groups_of(name) == before.groups_of(name)
        assert {h: v for h, v in port_values(seen).items() if h[1] == name} == {
            h: v for h, v in port_values(before).items() if h[1] == name
        }
        if name in scenario.roster.users or name not in mapped(before):
            for unit in [unit for unit in before.units.states or {} if f"@{name}." in unit]:
                assert (seen.units.states or {})[unit] == (before.units.states or {})[unit]
        kept = {line for line in lines(before) if line.endswith(f"={name}")} - given_away(scenario)
        if name in scenario.roster.users:
            assert kept <= set(lines(seen))


def check_requests_go_to_their_own_service(scenario: Scenario, seen: Observed) -> None:
    table = json.loads(seen.outputs[DISPATCH] or "{}")
    after = port_values(seen)
    for identity, entry in table.items():
        user = scenario.roster.users[entry["os_user"]]
        assert identity == user.authentik_user
        assert not user.parked
        assert dict(user.services).get("t3", True)
        assert after["t3", user.name] == str(entry["port"])
        strangers = [
            found
            for found in seen.listeners
            if found.port == entry["port"] and found.uid != seen.accounts[user.name].uid
        ]
        assert strangers == []


def check_leavers(scenario: Scenario, seen: Observed, report: Report) -> None:
    before = scenario.machine.observed
    admins = {name for name in before.accounts if is_admin(before, name)}
    gone = {name for name, past in scenario.pasts.items() if past is Past.MANAGED} - set(scenario.roster.users)
    for name in gone - admins - set(report.plan.held):
        assert not [line for line in lines(seen) if line.endswith(f"={name}")]
        assert not [unit for unit in seen.units.states or {} if f"@{name}." in unit and is_running(seen, unit)]
    for name in gone & admins:
        assert [unit for unit in seen.units.states or {} if f"@{name}." in unit] == [
            unit for unit in before.units.states or {} if f"@{name}." in unit
        ]


def is_admin(seen: Observed, name: str) -> bool:
    present = set(TIER_GROUPS["admin"]) & set(seen.groups)
    return bool(present) and present <= seen.groups_of(name)


def is_running(seen: Observed, unit: str) -> bool:
    return (seen.units.states or {})[unit].active == "active"


def check_all(scenario: Scenario, host: MemoryHost, report: Report) -> None:
    event(f"held: {bool(report.plan.held)}")
    event(f"refused: {bool(scenario.refused)}")
    seen = host.observed
    check_people_have_what_is_theirs(scenario, seen)
    check_nothing_is_shared(scenario, seen)
    check_nobody_lost_anything(scenario, seen, report)
    check_unmanaged_accounts_are_untouched(scenario, seen)
    check_requests_go_to_their_own_service(scenario, seen)
    check_leavers(scenario, seen, report)


@many
@given(scenarios())
def test_a_run_gives_everybody_what_is_theirs_and_takes_nothing(scenario: Scenario) -> None:
    host = MemoryHost(scenario.machine.observed)
    report = run(host, scenario.roster)
    assert report.stopped is None
    assert not report.failed
    assert report.unmet == []
    check_all(scenario, host, report)


@many
@given(scenarios())
def test_a_second_run_does_nothing(scenario: Scenario) -> None:
    host = MemoryHost(scenario.machine.observed)
    first = run(host, scenario.roster)
    before = host.observed
    second = run(host, scenario.roster)
    assert second.outcomes == []
    assert host.observed == before
    assert second.plan.findings == first.plan.findings


@many
@given(scenarios(), st.integers(0, 40))
def test_a_run_that_was_killed_anywhere_is_repaired_by_the_next(scenario: Scenario, actions: int) -> None:
    host = MemoryHost(scenario.machine.observed)
    event(f"killed: {not run_killed(host, scenario.roster, actions)}")
    report = run(host, scenario.roster)
    assert not report.failed
    assert report.unmet == []
    check_all(scenario, host, report)


@given(scenarios())
def test_a_plan_respects_the_phases(scenario: Scenario) -> None:
    phases = [action.phase for action in scenario.machine.plan(*scenario.roster.users.values()).actions]
    assert phases == sorted(phases)
