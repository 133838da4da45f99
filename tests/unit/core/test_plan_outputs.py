"""The generated maps: whose lines they hold."""

from __future__ import annotations

import json

from reconciler.core import outputs
from reconciler.core.actions import Phase, ReloadProxy, WriteOutput
from reconciler.core.observed import ProxyState
from reconciler.core.outputs import Route
from reconciler.core.plan import Plan, only
from reconciler.core.site import OutputKind, Site
from tests.unit.facts import SITE, bare, person, told

DISPATCH, TTYD, ADMINS = OutputKind.DISPATCH_JSON, OutputKind.TTYD_USER_MAP, OutputKind.TTYD_ADMINS


def writes(plan: Plan, kind: OutputKind) -> list[WriteOutput]:
    return [action for action in plan.actions if isinstance(action, WriteOutput) and action.output is kind]


def lines(plan: Plan, kind: OutputKind) -> list[str]:
    """Return the lines of a map as the plan leaves it, without comments."""
    return [line for line in writes(plan, kind)[-1].text.splitlines() if not line.startswith("#")]


def dispatch(plan: Plan) -> dict[str, object]:
    table: dict[str, object] = json.loads(writes(plan, DISPATCH)[-1].text)
    return table


def test_everybody_with_a_running_routed_service_is_dispatched_to_their_port() -> None:
    plan = bare().plan(
        person("alice"),
        person("bob", parked=True),
        person("carol", services={"t3": False}),
        person("dave", services={"playwright": False}),
    )
    assert dispatch(plan) == {
        "alice.x": {"os_user": "alice", "port": 3773},
        "dave.x": {"os_user": "dave", "port": 3775},
    }


def test_everybody_has_a_terminal_in_the_order_of_the_ports_those_without_one_last() -> None:
    machine = bare().env_file("t3", "bob", "3000").env_file("t3", "carol", "3001")
    plan = machine.plan(
        person("alice"), person("bob", parked=True), person("carol"), person("eve", services={"t3": False})
    )
    assert lines(plan, TTYD) == ["bob.x=bob", "carol.x=carol", "alice.x=alice", "eve.x=eve"]


def test_admins_are_those_of_an_admin_tier() -> None:
    plan = bare().plan(person("bob", "admin"), person("alice", "admin"), person("carol"))
    assert lines(plan, ADMINS) == ["alice", "bob"]


def test_a_map_that_is_right_already_is_not_written() -> None:
    first = bare().plan(person("alice"))
    machine = bare().person("alice", 1000, 3773, 8931)
    for kind in SITE.outputs:
        machine = machine.output(kind, writes(first, kind)[0].text)
    assert machine.plan(person("alice")).actions == ()


def test_a_map_that_was_edited_by_hand_is_put_right() -> None:
    plan = bare().output(ADMINS, "mallory\n").plan(person("alice", "admin"))
    assert lines(plan, ADMINS) == ["alice"]


def test_only_the_outputs_of_the_site_are_written() -> None:
    plan = bare().plan(person("alice", "admin"), site=Site(outputs=(ADMINS,)))
    assert {action.output for action in plan.actions if isinstance(action, WriteOutput)} == {ADMINS}


def test_a_map_that_could_not_be_read_is_not_written() -> None:
    machine = bare().having(outputs={ADMINS: None})
    plan = machine.plan(person("alice", "admin"))
    assert {action.output for action in plan.actions if isinstance(action, WriteOutput)} == {ADMINS}


def test_a_map_that_is_not_of_its_format_is_left_alone_and_told() -> None:
    plan = bare().output(DISPATCH, "{").plan(person("alice"))
    assert writes(plan, DISPATCH) == []
    assert told(plan)[-1] == (
        "conflict: /etc/t3-serve/dispatch.json is not of its format, so nobody's line in it is touched;"
        " mend or remove the file"
    )


def test_who_is_refused_keeps_exactly_the_lines_they_have() -> None:
    machine = (
        bare()
        .account("alice", 1000, managed=False)
        .output(TTYD, "old.name=alice\ngone.x=gone\n")
        .output(DISPATCH, '{"old.name": {"os_user": "alice", "port": 3999}}')
    )
    plan = machine.plan(person("alice"), person("bob"))
    assert lines(plan, TTYD) == ["bob.x=bob", "old.name=alice"]
    assert dispatch(plan) == {
        "bob.x": {"os_user": "bob", "port": 3773},
        "old.name": {"os_user": "alice", "port": 3999},
    }
    assert writes(bare().account("alice", 1000, managed=False).plan(person("alice")), DISPATCH)[0].text == "{}\n"


def test_a_kept_line_does_not_take_the_route_of_whom_the_roster_gives_it_to() -> None:
    """Robert was bob until the roster renamed him; bob's line is kept, but the identity is robert's now."""
    machine = (
        bare()
        .account("bob", 1000, managed=False)
        .output(DISPATCH, '{"robert.x": {"os_user": "bob", "port": 3999}}')
        .output(TTYD, "robert.x=bob\n")
    )
    plan = machine.plan(person("bob"), person("robert"))
    assert dispatch(plan) == {"robert.x": {"os_user": "robert", "port": 3773}}
    assert lines(plan, TTYD) == ["robert.x=robert"]


def test_who_leaves_is_unmapped_in_the_first_phase_and_newcomers_are_mapped_in_the_last() -> None:
    machine = bare().person("alice", 1000, 3773, 8931).person("bob", 1001, 3774, 8932)
    machine = machine.output(TTYD, "alice.x=alice\nbob.x=bob\n")
    plan = machine.plan(person("bob"), person("carol"))
    first, last = writes(plan, TTYD)
    assert [action.phase for action in plan.actions[:2]] == [Phase.RECORD, Phase.UNMAP]
    assert (first.phase, last.phase) == (Phase.UNMAP, Phase.MAPS)
    assert [route.user for route in first.routes] == ["bob"]
    assert lines(plan, TTYD) == ["bob.x=bob", "carol.x=carol"]


def test_who_is_demoted_loses_the_admins_line_and_is_no_cut() -> None:
    machine = bare().person("alice", 1000, 3773, 8931).output(ADMINS, "alice\n")
    plan = machine.plan(person("alice"))
    assert lines(plan, ADMINS) == []
    assert plan.cuts == ()


# --- proxies ---

NGINX = OutputKind.NGINX_MAP
PROXY = SITE.proxies[NGINX]
WITH_NGINX = Site(outputs=(*SITE.outputs, NGINX))


def test_the_maps_of_proxies_are_not_written_unless_the_site_asks_for_them() -> None:
    assert {action.output for action in bare().plan(person("alice")).actions if isinstance(action, WriteOutput)} == {
        DISPATCH,
        TTYD,
        ADMINS,
    }


def test_a_proxy_has_the_people_of_the_dispatch_map() -> None:
    people = [person("alice"), person("bob", parked=True), person("carol", services={"t3": False}), person("dave")]
    plan = bare().listener(3773, 0).account("eve", 1009, managed=False).plan(*people, person("eve"), site=WITH_NGINX)
    (action,) = writes(plan, NGINX)
    assert {route.identity: {"os_user": route.user, "port": route.port} for route in action.routes} == dispatch(plan)
    assert [route.user for route in action.routes] == ["alice", "dave"]
    assert action.proxy == PROXY


def test_who_leaves_is_unmapped_for_a_proxy_too_and_counts_as_mapped() -> None:
    machine = bare().person("alice", 1000, 3773, 8931).account("bob", 1001, managed=False)
    machine = machine.output(NGINX, "~^alice[.]x$ 3773; # alice\n~^bob[.]x$ 3774; # bob\n")
    plan = machine.plan(person("alice"), site=WITH_NGINX)
    first = writes(plan, NGINX)[0]
    assert (first.phase, [route.user for route in first.routes], first.proxy) == (Phase.UNMAP, ["alice"], PROXY)
    assert plan.cuts == ("bob",)


def test_no_other_map_waits_for_the_check_of_a_proxy() -> None:
    plan = bare().plan(person("alice"), site=WITH_NGINX)
    assert [action.output for action in plan.actions if isinstance(action, WriteOutput)][-1] is NGINX


def test_a_reload_that_is_due_is_among_the_first_things_of_a_run() -> None:
    machine = bare().person("alice", 1000, 3773, 8931).having(proxies={NGINX: ProxyState(reload_due=True)})
    plan = machine.plan(person("alice"), site=WITH_NGINX)
    assert plan.actions[0] == ReloadProxy(NGINX, PROXY)
    assert plan.actions[0].phase is Phase.UNMAP
    assert told(plan)[0] == "~ nginx.service: not reloaded since /etc/t3-serve/nginx-map.conf changed → reloaded"
    assert ReloadProxy(NGINX, PROXY) in only(plan, "alice").actions
    assert ReloadProxy(NGINX, PROXY) not in machine.plan(person("alice")).actions


def test_what_is_to_check_and_reload_a_proxy_and_is_not_there_is_named_in_one_warning() -> None:
    machine = bare().having(proxies={NGINX: ProxyState(has_check=False, has_unit=False)})
    (line,) = [line for line in told(machine.plan(person("alice"), site=WITH_NGINX)) if line.startswith("warning")]
    assert "/usr/sbin/nginx" in line
    assert "nginx.service" in line


def test_what_a_failed_check_leaves_has_nobody_new_and_nobody_who_was_to_go() -> None:
    before = "~^a$ 1; # a\n~^b$ 2; # b\n~^c$ 3; # c\n"
    routes = (Route("a", "a", 1), Route("b", "b", 9), Route("d", "d", 4))
    left = WriteOutput(NGINX, routes, before).taking_out()
    assert left is not None
    assert left.routes == (Route("a", "a", 1),)
    assert WriteOutput(NGINX, (*outputs.parse(NGINX, before), Route("d", "d", 4)), before).taking_out() is None
    assert WriteOutput(NGINX, routes, None).taking_out() is None
