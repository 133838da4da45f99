"""The steps outside of this machine, and the names that they are taken by."""

from __future__ import annotations

import pytest

from reconciler.core.actions import RecordIdentities, RunHook
from reconciler.core.plan import Plan
from reconciler.core.records import CutRecord, Identity, Records, Step
from reconciler.core.roster import User
from reconciler.core.site import Hook, Site
from tests.unit.facts import NOW, Machine, bare, identity, person, told

T3, RBAC = Step.REMOVE_FROM_T3_GROUP, Step.REVOKE_CLUSTER_RBAC
ALICE, BOB = person("alice"), person("bob")
ADMIN_GROUPS = ("code-shared", "docker", "sudo")


def machine() -> Machine:
    """Return a machine where alice works and bob has an account; it is on record what they are called elsewhere."""
    return bare().person("alice", 1000, 3773, 8931).account("bob", 1001).known("bob")


def hooked(*command: str, step: Step = RBAC, timeout: int = 30) -> Site:
    return Site(hooks={step: Hook(command, timeout)})


def hooks(plan: Plan) -> list[RunHook]:
    return [action for action in plan.actions if isinstance(action, RunHook)]


def pending(plan: Plan, user: str = "bob") -> list[str]:
    return [found.text for found in plan.findings if found.kind == "pending" and found.user == user]


# --- pending ---


def test_a_step_without_a_hook_is_pending_in_these_words() -> None:
    assert pending(machine().plan(ALICE)) == [
        (
            "remove_from_t3_group (k8s bob, authentik bob.x): no hook is set for it;"
            " take it by hand, then: rosterd done bob remove_from_t3_group"
        ),
        (
            "revoke_cluster_rbac (k8s bob, authentik bob.x): no hook is set for it;"
            " take it by hand, then: rosterd done bob revoke_cluster_rbac"
        ),
    ]


def test_somebody_whose_names_are_not_known_is_told_without_them() -> None:
    plan = machine().having(records=Records()).plan(ALICE)
    assert pending(plan)[0].startswith("remove_from_t3_group: no hook is set for it; take it by hand")


def test_what_is_pending_is_no_problem() -> None:
    assert not machine().plan(ALICE).has_problems


def test_a_step_that_has_been_taken_is_not_told_any_more() -> None:
    assert [text.split(" ")[0] for text in pending(machine().cut("bob", done=(T3,)).plan(ALICE))] == [RBAC]
    assert pending(machine().cut("bob", done=(RBAC, T3)).plan(ALICE)) == []


def test_nothing_is_pending_for_somebody_on_the_roster() -> None:
    assert pending(machine().plan(ALICE, BOB)) == []


def test_for_somebody_deleted_steps_stay_pending_until_they_are_taken() -> None:
    buried = bare().person("alice", 1000, 3773, 8931).buried("bob", 1001)
    assert len(pending(buried.plan(ALICE))) == 2
    record = CutRecord(1001, 1001, NOW, identity=identity("bob"), done=(T3,))
    assert [text.split(" ")[0] for text in pending(buried.buried("bob", 1001, cut=record).plan(ALICE))] == [RBAC]
    assert [hook.user for hook in hooks(buried.plan(ALICE, site=hooked("/bin/x")))] == ["bob"]


def test_of_somebody_half_deleted_the_record_of_the_cut_says_what_is_done() -> None:
    both = machine().cut("bob", done=(T3, RBAC)).buried("bob", 1001, complete=False)
    assert pending(both.plan(ALICE)) == []


def test_for_somebody_whom_only_a_map_names_nothing_is_pending() -> None:
    plan = bare().person("alice", 1000, 3773, 8931).account("bob", 1001, managed=False).plan(ALICE)
    assert pending(plan) == []


# --- hooks ---


def test_a_hook_takes_a_step_with_its_own_time_and_the_other_stays_pending() -> None:
    plan = machine().plan(ALICE, site=hooked("/bin/revoke", "{k8s_user}", timeout=7))
    assert hooks(plan) == [RunHook("bob", RBAC, ("/bin/revoke", "bob"), 7)]
    assert [text.split(" ")[0] for text in pending(plan)] == [T3]
    assert "- revoke_cluster_rbac: pending → done by /bin/revoke" in told(plan, "bob")


def test_the_names_are_put_in_wherever_they_stand() -> None:
    site = hooked("/opt/{user}/x", "--who={authentik_user},{k8s_user}", "{user}{user}", "plain")
    names = {"bob": Identity("b.auth", "b-k8s")}
    (hook,) = hooks(machine().on_record(identities=names).plan(ALICE, site=site))
    assert hook.command == ("/opt/bob/x", "--who=b.auth,b-k8s", "bobbob", "plain")


@pytest.mark.parametrize("word", ["{authentik_user}", "{k8s_user}"])
def test_a_hook_that_needs_a_name_that_is_not_known_is_not_run_and_the_step_is_pending(word: str) -> None:
    unknown = bare().person("alice", 1000, 3773, 8931).account("bob", 1001)
    plan = unknown.plan(ALICE, site=hooked("/bin/revoke", "--who=" + word))
    assert hooks(plan) == []
    assert pending(plan)[1] == (
        "revoke_cluster_rbac: its hook needs an identity that is not on record;"
        " take it by hand, then: rosterd done bob revoke_cluster_rbac"
    )


def test_a_hook_that_needs_only_the_user_is_run_without_an_identity() -> None:
    unknown = bare().person("alice", 1000, 3773, 8931).account("bob", 1001)
    (hook,) = hooks(unknown.plan(ALICE, site=hooked("/bin/revoke", "{user}")))
    assert hook.command == ("/bin/revoke", "bob")


def test_a_step_that_has_been_taken_is_not_taken_again() -> None:
    assert hooks(machine().cut("bob", done=(RBAC,)).plan(ALICE, site=hooked("/bin/revoke"))) == []


def test_the_names_on_record_of_the_cut_are_those_that_count() -> None:
    found = machine().cut("bob", identity=Identity("old", "old-k8s")).known("bob")
    (hook,) = hooks(found.plan(ALICE, site=hooked("/bin/revoke", "{k8s_user}")))
    assert hook.command == ("/bin/revoke", "old-k8s")


def test_hooks_come_after_everything_on_this_machine() -> None:
    kinds = [action.kind for action in machine().plan(ALICE, person("new"), site=hooked("/bin/x")).actions]
    assert kinds[-2:] == ["run_hook", "record_identities"]


def test_nothing_is_planned_where_the_records_could_not_be_seen() -> None:
    plan = machine().having(records=None).plan(ALICE, site=hooked("/bin/x"))
    assert hooks(plan) == []
    assert pending(plan) == []


# --- identities ---


def kept(found: Machine, *people: User, cut: tuple[str, ...] = ()) -> dict[str, Identity] | None:
    """Return the identities that a run would keep, None where it changes nothing."""
    actions = [action for action in found.plan(*people, cut=cut).actions if isinstance(action, RecordIdentities)]
    return dict(actions[0].identities) if actions else None


def test_the_names_of_the_roster_go_on_record_once() -> None:
    assert kept(bare(), ALICE, BOB) == {"alice": identity("alice"), "bob": identity("bob")}
    assert kept(bare().known("alice", "bob"), ALICE, BOB) is None
    (line,) = [line for line in told(bare().plan(ALICE, BOB)) if "identities" in line]
    assert line == "+ identities on record: 0 → 2"
    (line,) = [line for line in told(bare().known("alice").plan(ALICE, BOB)) if "identities" in line]
    assert line == "~ identities on record: 1 → 2"


def test_a_name_that_the_roster_changes_is_changed() -> None:
    old = bare().on_record(identities={"alice": Identity("alice.old", "alice")})
    assert kept(old, ALICE) == {"alice": identity("alice")}


def test_the_names_of_somebody_who_leaves_are_kept_until_their_cut_is_on_record() -> None:
    assert kept(machine(), ALICE) is None
    assert kept(machine(), ALICE, person("new")) == {
        "alice": identity("alice"),
        "bob": identity("bob"),
        "new": identity("new"),
    }
    assert kept(machine().cut("bob"), ALICE) == {"alice": identity("alice")}


def test_the_names_of_somebody_who_is_cut_off_by_command_are_kept_while_they_are_on_the_roster() -> None:
    assert kept(machine().cut("bob", by_command=True), ALICE, BOB) is None


def test_the_names_of_an_administrator_who_is_not_cut_off_are_kept() -> None:
    assert kept(machine().member("bob", *ADMIN_GROUPS), ALICE) is None


def test_the_names_of_somebody_who_was_never_here_are_forgotten() -> None:
    assert kept(machine().known("gone"), ALICE, BOB) == {"alice": identity("alice"), "bob": identity("bob")}


def test_the_names_are_sorted() -> None:
    found = machine().account("aaron", 1002).known("aaron")
    (record,) = [action for action in found.plan(person("zoe"), ALICE).actions if isinstance(action, RecordIdentities)]
    assert [name for name, _ in record.identities] == ["aaron", "alice", "bob", "zoe"]
