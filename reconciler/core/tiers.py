"""The tier check: a tier in the roster that the cluster does not know, or knows otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.core.roster import Roster
from reconciler.core.site import ClusterCheck, Site
from reconciler.core.text import printable


@dataclass(frozen=True, slots=True)
class TierDifference:
    """One person whose tiers differ. An absent grant is a warning, another tier a conflict."""

    user: str
    is_conflict: bool
    text: str


def parse_cluster_tiers(text: str) -> Mapping[str, str]:
    """Read the cluster's map of k8s_user to tier; raises ValueError saying what is wrong with it."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from error
    if not isinstance(table, dict) or not all(isinstance(tier, str) for tier in table.values()):
        raise ValueError('must be a JSON object of k8s_user to tier, as in {"alice": "power-user"}')
    return table


def compare_tiers(roster: Roster, site: Site, cluster: Mapping[str, str]) -> list[TierDifference]:
    """Return the differences, sorted by user; tiers that the site exempts are not compared."""
    found = []
    for user in roster.users.values():
        if site.tiers[user.tier].cluster is ClusterCheck.EXEMPT:
            continue
        there = cluster.get(user.k8s_user)
        if there is None:
            text = f"user '{user.name}': the cluster has no grant for '{user.k8s_user}' yet"
            found.append(TierDifference(user.name, is_conflict=False, text=text))
        elif there != user.tier:
            text = (
                f"user '{user.name}': tier is {user.tier} in the roster but {printable(there)} in the cluster"
                f" (k8s_user '{user.k8s_user}'); make them agree"
            )
            found.append(TierDifference(user.name, is_conflict=True, text=text))
    return found
