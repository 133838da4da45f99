"""The roster: each bad one is a file of cases/roster with what is told about it beside it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from reconciler.core.home_steps import CodeLayout
from reconciler.core.roster import User, parse_roster
from reconciler.core.site import parse_site
from reconciler.errors import FileRefused
from tests.unit.facts import SITE

CASES = Path(__file__).parent.parent / "cases" / "roster"
SYSTEM_ACCOUNTS = {"postgres"}
GOOD = b"""\
users:
  bob:
    authentik_user: bob.b@example.org
    k8s_user: bob
    tier: namespace-owner
    namespaces: [shop, shop-2]
    code_layout: workspace
    repos: [web, api.v2]
    parked: no
    services: {playwright: off, t3: true}
    adopt: yes
  alice: {authentik_user: alice.a, k8s_user: "0x10", tier: admin}
  "no": {authentik_user: 'null', k8s_user: n, tier: power-user, services: null}
"""


@pytest.mark.parametrize("case", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_bad_roster_is_refused_in_these_words_within_a_second(case: Path) -> None:
    started = time.monotonic()
    with pytest.raises(FileRefused) as caught:
        parse_roster("roster.yaml", case.read_bytes(), SITE, SYSTEM_ACCOUNTS)
    assert time.monotonic() - started < 1.0
    assert str(caught.value) + "\n" == case.with_suffix(".txt").read_text(encoding="utf-8")


def test_each_case_has_a_roster_and_its_words() -> None:
    assert {path.stem for path in CASES.glob("*.yaml")} == {path.stem for path in CASES.glob("*.txt")}


def test_a_good_roster_becomes_its_people_sorted_by_name() -> None:
    users = parse_roster("roster.yaml", GOOD, SITE, SYSTEM_ACCOUNTS).users
    assert list(users.values()) == [
        User("alice", "alice.a", "0x10", "admin", line=12),
        User(
            "bob",
            "bob.b@example.org",
            "bob",
            "namespace-owner",
            namespaces=("shop", "shop-2"),
            code_layout=CodeLayout.WORKSPACE,
            repos=("web", "api.v2"),
            services=(("t3", True), ("playwright", False)),
            adopt=True,
            line=2,
        ),
        User("no", "null", "n", "power-user", line=13),
    ]


def test_a_roster_with_nobody_in_it_is_one() -> None:
    assert parse_roster("roster.yaml", b"users: {}\n", SITE, ()).users == {}


def test_the_example_roster_of_the_project_is_accepted() -> None:
    example = Path(__file__).parents[3] / "roster.yaml"
    assert len(parse_roster("roster.yaml", example.read_bytes(), SITE, ()).users) > 2


def test_the_longest_name_has_31_letters() -> None:
    name = "a" * 31
    data = f"users:\n  {name}: {{authentik_user: a, k8s_user: a, tier: admin}}\n".encode()
    assert list(parse_roster("roster.yaml", data, SITE, ()).users) == [name]


@pytest.mark.parametrize("name", ["nogroup", "shadow", "_apt", "systemd-network"])
def test_the_names_of_every_debian_are_refused_on_any_host(name: str) -> None:
    data = f"users:\n  {name}: {{authentik_user: a, k8s_user: a, tier: admin}}\n".encode()
    with pytest.raises(FileRefused, match="belongs to the system"):
        parse_roster("roster.yaml", data, SITE, ())


def test_tiers_and_services_are_those_of_the_site() -> None:
    site = parse_site("site.yaml", b"tiers: {staff: {}}\nservices: {web: {units: [web@.service]}}\n")
    data = b"users:\n  bob: {authentik_user: b, k8s_user: b, tier: staff, services: {web: false}}\n"
    assert parse_roster("roster.yaml", data, site, ()).users["bob"].services == (("web", False),)
    with pytest.raises(FileRefused, match=r"tier is 'staff'; allowed: admin, power-user, namespace-owner"):
        parse_roster("roster.yaml", data, SITE, ())


def test_two_people_with_one_env_file_are_refused_whatever_the_names_of_the_files() -> None:
    site = parse_site(
        "site.yaml",
        b"""services:
  a: {units: [a@.service], port: {variable: A, base: 8000, env_file: "/etc/x/{user}-b"}}
  b: {units: [b@.service], port: {variable: B, base: 9000, env_file: "/etc/x/{user}"}}
""",
    )
    data = b"""users:
  bob: {authentik_user: b, k8s_user: b, tier: admin}
  bob-b: {authentik_user: c, k8s_user: c, tier: admin}
"""
    with pytest.raises(FileRefused, match="3:3: user 'bob-b': /etc/x/bob-b would be an env file of 'bob' too"):
        parse_roster("roster.yaml", data, site, ())


def test_a_thousand_people_are_read_within_a_second() -> None:
    entry = "  user{0}: {{authentik_user: user{0}.x, k8s_user: user{0}, tier: power-user}}\n"
    data = ("users:\n" + "".join(entry.format(number) for number in range(1000))).encode()
    started = time.monotonic()
    assert len(parse_roster("roster.yaml", data, SITE, ()).users) == 1000
    assert time.monotonic() - started < 1.0
