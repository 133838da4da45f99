"""The comparison of tiers with the cluster."""

from __future__ import annotations

import pytest

from reconciler.core.tiers import TierDifference, compare_tiers, parse_cluster_tiers
from tests.unit.facts import SITE, person, roster


def test_another_tier_is_a_conflict_an_absent_one_a_warning_and_exempt_tiers_are_not_compared() -> None:
    people = roster(person("alice", "admin"), person("bob"), person("carol"), person("dave"))
    cluster = {"alice": "power-user", "bob": "power-user", "carol": "namespace-owner", "zoe": "admin"}
    assert compare_tiers(people, SITE, cluster) == [
        TierDifference(
            "carol",
            is_conflict=True,
            text="user 'carol': tier is power-user in the roster but namespace-owner in the cluster"
            " (k8s_user 'carol'); make them agree",
        ),
        TierDifference("dave", is_conflict=False, text="user 'dave': the cluster has no grant for 'dave' yet"),
    ]


def test_what_the_cluster_says_cannot_forge_a_line() -> None:
    (found,) = compare_tiers(roster(person("bob")), SITE, {"bob": "x\nERROR: \x1b[31m"})
    assert found.text.isprintable()


@pytest.mark.parametrize("text", ["", "{", "[]", '"a"', '{"a": 1}', '{"a": null}', "[" * 100_000])
def test_a_map_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not valid JSON|must be a JSON object of k8s_user to tier"):
        parse_cluster_tiers(text)


def test_a_map_of_tiers_is_read() -> None:
    assert parse_cluster_tiers('{"alice": "admin"}') == {"alice": "admin"}
