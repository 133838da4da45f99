"""Who left between two rosters."""

from __future__ import annotations

from reconciler.core.deprovision import deprovision_plan, dropped
from tests.unit.facts import person, roster

OLD = roster(person("carol"), person("alice"), person("bob"))
NEW = roster(person("alice"), person("dave"))
REVERSIBLE = ["disable_instance", "unmap_dispatch", "remove_from_t3_group", "lock_login", "revoke_cluster_rbac"]


def test_the_dropped_are_sorted() -> None:
    assert dropped(OLD, NEW) == ["bob", "carol"]
    assert dropped(OLD, OLD) == []


def test_each_has_the_reversible_steps_in_their_order() -> None:
    plan = deprovision_plan(OLD, NEW, destructive=False)
    assert [(step["os_user"], step["kind"]) for step in plan] == [
        (name, kind) for name in ("bob", "carol") for kind in REVERSIBLE
    ]
    assert all(step["reversible"] is True for step in plan)


def test_deleting_comes_last_and_only_when_it_is_asked_for() -> None:
    plan = deprovision_plan(OLD, roster(person("alice"), person("carol")), destructive=True)
    assert [step["kind"] for step in plan] == [*REVERSIBLE, "userdel_archive"]
    assert plan[-1] == {"os_user": "bob", "kind": "userdel_archive", "reversible": False}
