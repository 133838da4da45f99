"""The desired state for scripts. The whole document is a golden file of the command's test."""

from __future__ import annotations

import pytest

from reconciler.core.derive import derive, parse_ports
from reconciler.core.site import PortRule, Service, Site
from tests.unit.facts import SITE, person, roster


def test_given_ports_are_kept_and_new_ones_are_the_lowest_that_nobody_on_the_roster_was_given() -> None:
    people = roster(person("alice"), person("bob"), person("carol"))
    document = derive(people, SITE, {"t3": {"bob": 3773, "gone": 3774}, "playwright": {"carol": 3775}})
    assert document["ports"] == {"alice": 3774, "bob": 3773, "carol": 3776}
    assert document["playwright_ports"] == {"alice": 8931, "bob": 8932, "carol": 3775}


def test_one_port_given_to_two_people_is_refused() -> None:
    people = roster(person("alice"), person("bob"))
    with pytest.raises(ValueError, match="port 3773 is given to alice and to bob"):
        derive(people, SITE, {"t3": {"alice": 3773}, "playwright": {"bob": 3773}})


def test_a_range_that_has_run_out_is_refused() -> None:
    rule = PortRule("T3_PORT", 3773, 3773, "/etc/t3-serve/{user}.env")
    site = Site(services={"t3": Service("t3", ("t3-serve@.service",), rule, route=True)})
    with pytest.raises(ValueError, match="no port is left between 3773 and 3773 for bob"):
        derive(roster(person("alice"), person("bob")), site, {})


def test_a_given_port_stays_with_a_service_that_is_switched_off() -> None:
    people = roster(person("alice", services={"t3": False}), person("bob", services={"t3": False}))
    assert derive(people, SITE, {"t3": {"alice": 3780}})["ports"] == {"alice": 3780}


def test_parked_and_switched_off_people_are_not_dispatched_but_have_a_terminal() -> None:
    people = roster(person("alice", parked=True), person("bob", services={"t3": False}), person("carol"))
    document = derive(people, SITE, {})
    assert document["dispatch"] == {"carol.x": {"os_user": "carol", "port": 3774}}
    lines = [line for line in document["ttyd_user_map"].splitlines() if not line.startswith("#")]
    assert lines == ["alice.x=alice", "carol.x=carol", "bob.x=bob"]


def test_a_site_without_services_has_accounts_and_terminals() -> None:
    document = derive(roster(person("alice")), Site(services={}), {})
    assert document["ports"] == {}
    assert document["dispatch"] == {}
    assert list(document["accounts"]) == ["alice"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a": "1"}', '{"a": true}', '{"a": 0}', '{"a": 65536}', '{"a": 1.0}', "[" * 100_000]
)
def test_ports_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not valid JSON|must be a JSON object of os_user to port"):
        parse_ports(text)


def test_ports_are_read() -> None:
    assert parse_ports('{"alice": 3773, "bob": 65535}') == {"alice": 3773, "bob": 65535}
