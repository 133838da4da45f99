"""Rosters and site files made by chance, good and with one thing broken: a hundred thousand of them for `make proof`.

A good one is read as it was meant. Of a broken one, rosterd accepts nothing that the strict checker refuses.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.core.roster import Roster, parse_roster
from reconciler.core.site import Site, parse_site
from reconciler.errors import FileRefused
from tests.proof.evidence import note, scaled
from tests.unit import made_files
from tests.unit.fuzzing import Finding, Tally, places_are_told
from tests.unit.strict_checker import roster_faults, site_faults

# A run of hypothesis remembers its examples; so many of them are as fast as few.
EXAMPLES, RUNS = 1250, scaled(1, 50)
# One of so many files is shown to the strict checker whatever rosterd says of it: it takes its time.
ASKED = 10
WRONG = ("tracebacks", "hangs", "wrongly_accepted", "wrongly_refused", "wrongly_read", "without_place")

chance = st.randoms(use_true_random=True)
many = settings(
    max_examples=scaled(200, EXAMPLES),
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def site_of(data: bytes, *, good: bool, asked: bool) -> Site | None:
    """Read a site file, None where it is rightly refused."""
    try:
        site = parse_site("file.yaml", data)
    except FileRefused as refused:
        judge_refusal(refused, data, good=good)
        return None
    if (asked or not good) and (faults := site_faults(data)[0]):
        raise Finding("wrongly_accepted", "; ".join(faults))
    return site


def roster_of(data: bytes, site: Site, site_data: bytes, *, good: bool, asked: bool) -> Roster | None:
    """Read a roster, likewise."""
    try:
        roster = parse_roster("file.yaml", data, site, ())
    except FileRefused as refused:
        judge_refusal(refused, data, good=good)
        return None
    if (asked or not good) and (faults := roster_faults(data, site_faults(site_data)[1])):
        raise Finding("wrongly_accepted", "; ".join(faults))
    return roster


def judge_refusal(refused: FileRefused, data: bytes, *, good: bool) -> None:
    if good:
        raise Finding("wrongly_refused", str(refused))
    places_are_told(refused, data)


def check_meaning(document: Any, policy: Any, roster: Roster, site: Site) -> None:  # noqa: ANN401 (documents)
    """See that what was written is what was read."""
    users = document["users"]
    read = {
        user.name: (user.authentik_user, user.k8s_user, user.tier, list(user.namespaces), list(user.repos), user.parked,
                    user.adopt, dict(user.services), user.code_layout)
        for user in roster.users.values()
    }  # fmt: skip
    meant = {
        name: (one["authentik_user"], one["k8s_user"], one["tier"], one.get("namespaces", []), one.get("repos", []),
               one.get("parked", False), one.get("adopt", False), one.get("services") or {},
               one.get("code_layout", "single"))
        for name, one in users.items()
    }  # fmt: skip
    services = {name: list(service.units) for name, service in site.services.items()}
    expected = {name: one["units"] for name, one in policy.get("services", {}).items()}
    limits = {name: tier.limits.settings for name, tier in site.tiers.items()}
    wanted = {name: limits_meant(tier.get("limits") or {}) for name, tier in policy.get("tiers", {}).items()}
    if read != meant:
        raise Finding("wrongly_read", f"{read}\nis not\n{meant}")
    if "services" in policy and services != expected:
        raise Finding("wrongly_read", f"{services}\nis not\n{expected}")
    if "tiers" in policy and limits != wanted:
        raise Finding("wrongly_read", f"{limits}\nis not\n{wanted}")
    if list(site.homes) != list(policy.get("homes", {})) or len(site.hooks) != len(policy.get("hooks", {})):
        raise Finding("wrongly_read", "steps in homes, or hooks")


def limits_meant(limits: dict[str, Any]) -> dict[str, str]:
    names = {"memory_max": "MemoryMax", "cpu_quota": "CPUQuota", "tasks_max": "TasksMax"}
    return {names[key]: str(value) for key, value in limits.items() if value is not None}


class Pair:
    """A site file and a roster for it, of one draw: both good, or one of them with one thing broken."""

    def __init__(self, random: Random) -> None:
        """Make them."""
        self.policy = made_files.site(random)
        self.document = made_files.roster(random, self.policy)
        self.broken = random.choice(["", "", "site", "roster", "roster"])
        policy = made_files.broken(random, self.policy) if self.broken == "site" else self.policy
        document = made_files.broken(random, self.document) if self.broken == "roster" else self.document
        self.site_data, self.roster_data = made_files.as_yaml(random, policy), made_files.as_yaml(random, document)
        self.asked = not random.randrange(ASKED)

    def read_site(self) -> Site | None:
        """Read the site file alone."""
        return site_of(self.site_data, good=self.broken != "site", asked=self.asked)

    def read_roster(self, site: Site) -> bool:
        """Read the roster for it; say whether it was accepted."""
        is_good = self.broken != "roster"
        roster = roster_of(self.roster_data, site, self.site_data, good=is_good and not self.broken, asked=self.asked)
        if roster is not None and not self.broken:
            check_meaning(self.document, self.policy, roster, site)
        return roster is not None


def test_made_files_are_read_as_they_are_meant_and_broken_ones_as_the_strict_checker_says() -> None:
    tally = Tally()

    @many
    @given(chance)
    def one(random: Random) -> None:
        pair = Pair(random)
        read: list[Site] = []

        def site() -> bool:
            found = pair.read_site()
            read.extend([] if found is None else [found])
            return found is not None

        tally.counts["valid_cases"] += (pair.broken != "site") + (pair.broken == "")
        tally.attempt(f"{pair.site_data.decode()!r}", site)
        for policy in read:
            tally.attempt(
                f"{pair.roster_data.decode()!r} for {pair.site_data.decode()!r}",
                partial(pair.read_roster, policy),
            )

    for _ in range(RUNS):
        one()
    note("made", **tally.numbers("cases", "valid_cases", "accepted", *WRONG))
    tally.check()
    assert tally.counts["cases"] > tally.counts["accepted"] > tally.counts["valid_cases"]
