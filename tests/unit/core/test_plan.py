"""The plan as a whole: its order, its sameness, who is leaving, what could not be seen."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from reconciler.core.actions import WriteOutput
from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import Observed
from reconciler.core.plan import make_plan
from reconciler.core.site import OutputKind
from reconciler.core.view import plan_json, plan_text
from tests.unit.facts import Machine, bare, desired, person, told

ADMIN_GROUPS = ("code-shared", "docker", "sudo")


def busy() -> Machine:
    """Return a machine with something of everything."""
    return (
        bare()
        .person("alice", 1000, 3773, 8931)
        .person("bob", 1001, 3774, 8932)
        .account("carol", 1002, managed=False)
        .env_file("t3", "dave", "3774")
        .member("ghost", MANAGED_GROUP)
        .output(OutputKind.TTYD_USER_MAP, "bob.x=bob\nalice.x=alice\n")
    )


PEOPLE = (person("alice", "admin"), person("carol"), person("dave"), person("erin", parked=True))


def shuffled(seen: Observed, seed: int) -> Observed:
    """Return the same facts in another order, as another scan could have found them."""
    dice = random.Random(seed)  # noqa: S311 (no secret)
    mixed: dict[str, Any] = {
        name: dict(dice.sample(list(table.items()), len(table)))
        for name in ("accounts", "groups", "homes", "outputs", "env_files")
        if (table := getattr(seen, name)) is not None
    }
    listeners = tuple(dice.sample(seen.listeners, len(seen.listeners)))
    return replace(seen, listeners=listeners, **mixed)


def test_the_same_facts_give_the_same_plan_byte_for_byte_in_whatever_order_they_are_found() -> None:
    wanted = desired(*PEOPLE)
    plan = make_plan(wanted, busy().observed)
    for seed in range(20):
        again = make_plan(desired(*reversed(PEOPLE)), shuffled(busy().observed, seed))
        assert plan_text(again) == plan_text(plan)
        assert plan_json(again) == plan_json(plan)


def test_actions_stand_in_the_order_of_a_run() -> None:
    phases = [action.phase for action in busy().plan(*PEOPLE).actions]
    assert phases == sorted(phases)


def test_every_action_names_its_user_and_describes_itself_on_one_line() -> None:
    for action in busy().plan(*PEOPLE).actions:
        assert "\n" not in action.describe()
        assert action.key[0] == (action.user or "")


def test_who_left_is_cut_off_which_is_no_problem() -> None:
    plan = bare().account("alice", 1000).plan()
    assert told(plan, "alice")[:2] == [
        "- cut off (not on the roster): no → on record for the return (expires never, password locked)",
        "- login: expires never, password locked → expired, password locked",
    ]
    assert plan.cuts == plan.present == ("alice",)
    assert not plan.has_problems


def test_an_administrator_is_never_cut_off_by_itself() -> None:
    machine = bare().person("alice", 1000, 3773, 8931).member("alice", *ADMIN_GROUPS)
    machine = machine.output(OutputKind.TTYD_USER_MAP, "alice.x=alice\n").output(OutputKind.TTYD_ADMINS, "alice\n")
    plan = machine.plan(person("bob"))
    assert plan.cuts == ()
    assert told(plan, "alice") == [
        (
            "conflict: is an administrator and not on the roster; rosterd does not cut an administrator off by itself."
            " Put them back, or take them out of the groups of that tier"
        )
    ]
    maps = {action.output: action.text for action in plan.actions if isinstance(action, WriteOutput)}
    assert "alice.x=alice\n" in maps[OutputKind.TTYD_USER_MAP]
    assert OutputKind.TTYD_ADMINS not in maps


def test_who_is_in_some_of_the_groups_of_an_admin_tier_is_no_administrator() -> None:
    machine = bare().person("alice", 1000, 3773, 8931).member("alice", "docker", "sudo")
    assert machine.plan(person("bob")).cuts == ("alice",)


def test_groups_that_the_host_lacks_do_not_make_an_administrator_less_of_one() -> None:
    machine = bare()
    groups = {name: group for name, group in machine.observed.groups.items() if name != "code-shared"}
    machine = machine.having(groups=groups).person("alice", 1000, 3773, 8931).member("alice", "docker", "sudo")
    assert machine.plan(person("bob")).cuts == ()


def test_nobody_is_an_administrator_on_a_host_that_has_none_of_the_groups() -> None:
    machine = bare()
    groups = {name: group for name, group in machine.observed.groups.items() if name not in ADMIN_GROUPS}
    assert machine.having(groups=groups).person("alice", 1000, 3773, 8931).plan(person("bob")).cuts == ("alice",)


def test_what_could_not_be_seen_is_named_in_the_plan() -> None:
    assert bare().having(unseen=("shadow lines",)).plan().unseen == ("shadow lines",)
