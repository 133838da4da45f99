"""Cuts by command: they stay while somebody is on the roster, and concern nobody else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.actions import Action, Phase, RecordCut, RecordIdentities, SetCutReason, WriteOutput
from reconciler.core.outputs import Route, parse, render
from reconciler.core.plan import Plan, only
from reconciler.core.plan_cuts import commanded
from reconciler.core.records import Identity
from reconciler.core.site import OutputKind
from tests.unit.facts import Machine, bare, desired, person, told

TTYD, ADMINS, DISPATCH = OutputKind.TTYD_USER_MAP, OutputKind.TTYD_ADMINS, OutputKind.DISPATCH_JSON
ADMIN_GROUPS = ("code-shared", "docker", "sudo")
ALICE, BOB, CAROL = person("alice", "admin"), person("bob"), person("carol")
MAP = "alice.x=alice\nbob.x=bob\ncarol.x=carol\n"


def machine() -> Machine:
    """Return a machine where three people are as they should be, maps included."""
    return (
        bare()
        .person("alice", 1000, 3773, 8931)
        .member("alice", *ADMIN_GROUPS)
        .person("bob", 1001, 3774, 8932)
        .person("carol", 1002, 3775, 8933)
        .output(TTYD, MAP)
        .output(ADMINS, "alice\n")
    )


def cut_bob(*, by_command: bool) -> Machine:
    """Return a machine where bob, whose units are gone, is cut off."""
    return bare().person("alice", 1000, 3773, 8931).account("bob", 1001).cut("bob", by_command=by_command)


def of_bob(plan: Plan) -> list[Action]:
    return [action for action in plan.actions if action.user == "bob"]


def kinds(plan: Plan) -> set[str]:
    return {action.kind for action in plan.actions}


def users(text: str | None, kind: OutputKind = TTYD) -> set[str]:
    return {route.user for route in parse(kind, text)}


def writes(plan: Plan, kind: OutputKind = TTYD) -> list[WriteOutput]:
    return [action for action in plan.actions if isinstance(action, WriteOutput) and action.output is kind]


# --- cut ---


def test_somebody_on_the_roster_is_cut_off_by_command() -> None:
    plan = machine().plan(ALICE, BOB, CAROL, cut=["bob"])
    assert {"record_cut", "lock_account", "halt_unit"} <= {action.kind for action in of_bob(plan)}
    assert plan.cuts == ("bob",)
    assert told(plan, "bob")[0].startswith("- cut off (by command): no → on record")
    assert "warning: cut off by command; to end that: rosterd uncut bob" in told(plan, "bob")
    assert users(writes(plan)[-1].text) == {"alice", "carol"}


def test_a_map_that_is_not_there_is_not_made_by_a_cut() -> None:
    plan = only(bare().account("bob", 1001).plan(cut=["bob"]), "bob")
    assert "lock_account" in kinds(plan)
    assert [action for action in plan.actions if isinstance(action, WriteOutput)] == []


def test_what_they_are_called_elsewhere_is_taken_from_the_roster() -> None:
    old = machine().on_record(identities={"bob": Identity("old", "old")})
    plan = old.plan(ALICE, BOB, CAROL, cut=["bob"])
    assert any("k8s bob, authentik bob.x" in line for line in told(plan, "bob"))
    (record,) = [action.record for action in plan.actions if isinstance(action, RecordCut)]
    assert record.identity == Identity("bob.x", "bob")
    (names,) = [dict(action.identities) for action in plan.actions if isinstance(action, RecordIdentities)]
    assert names["bob"] == Identity("bob.x", "bob")


def test_what_they_were_called_is_known_to_a_command_that_reads_no_roster() -> None:
    plan = only(machine().plan(cut=["bob"]), "bob")
    (record,) = [action.record for action in plan.actions if isinstance(action, RecordCut)]
    assert record.identity == Identity("bob.x", "bob")


def test_a_cut_by_command_stays_while_they_are_on_the_roster() -> None:
    plan = cut_bob(by_command=True).present("bob", crontab=True).plan(ALICE, BOB)
    assert [action.kind for action in of_bob(plan)] == ["hold_jobs"]
    assert plan.cuts == ()
    assert "bob" not in users(writes(plan)[-1].text)
    assert "warning: cut off by command; to end that: rosterd uncut bob" in told(plan, "bob")


def test_a_cut_for_the_roster_ends_when_they_are_on_it_again() -> None:
    plan = cut_bob(by_command=False).plan(ALICE, BOB)
    assert "open_login" in {action.kind for action in of_bob(plan)}
    assert "bob" in users(writes(plan)[-1].text)


def test_a_cut_by_command_stays_when_they_leave_the_roster() -> None:
    assert of_bob(cut_bob(by_command=True).plan(ALICE)) == []


def test_somebody_who_is_cut_off_already_is_also_cut_off_by_command() -> None:
    plan = cut_bob(by_command=False).plan(ALICE, cut=["bob"])
    assert of_bob(plan) == [SetCutReason("bob", by_command=True)]
    assert told(plan, "bob")[0] == "- cut off by command: no → yes"
    assert of_bob(cut_bob(by_command=True).plan(ALICE, cut=["bob"])) == []


def test_an_administrator_is_cut_off_by_command() -> None:
    plan = machine().plan(ALICE, BOB, cut=["alice"])
    assert "record_cut" in {action.kind for action in plan.actions if action.user == "alice"}
    assert "alice" not in users(writes(plan, ADMINS)[-1].text, ADMINS)


def test_an_administrator_who_is_cut_off_stays_cut_off_whether_or_not_they_are_on_the_roster() -> None:
    cut = bare().account("alice", 1000, *ADMIN_GROUPS).cut("alice", by_command=True).present("alice", crontab=True)
    for people in ([BOB], [ALICE, BOB]):
        plan = cut.plan(*people)
        assert [action.kind for action in plan.actions if action.user == "alice"] == ["hold_jobs"]


# --- uncut ---


def test_the_end_of_a_cut_by_command_lets_somebody_on_the_roster_in() -> None:
    plan = cut_bob(by_command=True).plan(ALICE, BOB, uncut=["bob"])
    assert {"set_cut_reason", "open_login", "write_port", "run_unit"} <= {action.kind for action in of_bob(plan)}
    assert told(plan, "bob")[0] == "~ cut off by command: yes → no"
    assert "bob" in users(writes(plan)[-1].text)
    assert not [line for line in told(plan, "bob") if "rosterd uncut" in line]


def test_somebody_off_the_roster_stays_cut_off_for_that_reason() -> None:
    plan = cut_bob(by_command=True).present("bob", crontab=True).plan(ALICE, uncut=["bob"])
    assert [action.kind for action in of_bob(plan)] == ["set_cut_reason", "hold_jobs"]


def test_an_administrator_off_the_roster_stays_cut_off_too() -> None:
    cut = bare().account("alice", 1000, *ADMIN_GROUPS).cut("alice", by_command=True).present("alice", crontab=True)
    plan = cut.plan(BOB, uncut=["alice"])
    assert [action.kind for action in plan.actions if action.user == "alice"] == ["set_cut_reason", "hold_jobs"]
    assert not plan.has_problems


def test_a_cut_that_no_command_asked_for_keeps_its_reason() -> None:
    assert of_bob(cut_bob(by_command=False).plan(ALICE, uncut=["bob"])) == []


@pytest.mark.parametrize(
    ("cut", "uncut", "expected"),
    [
        ([], [], {"bob"}),
        (["alice"], [], {"alice", "bob"}),
        ([], ["bob"], set()),
        (["bob"], ["bob"], set()),
    ],
)
def test_commands_are_the_recorded_and_the_new_ones(cut: list[str], uncut: list[str], expected: set[str]) -> None:
    seen = cut_bob(by_command=True).account("dave", 1003).cut("dave").observed
    assert commanded(desired(ALICE, cut=cut, uncut=uncut), seen) == expected


def test_a_command_about_another_account_of_the_name_says_nothing_of_this_one() -> None:
    found = cut_bob(by_command=True)
    accounts = found.observed.accounts
    other = found.having(accounts={**accounts, "bob": replace(accounts["bob"], uid=1500)})
    assert commanded(desired(ALICE, BOB), other.observed) == frozenset()
    assert commanded(desired(ALICE, BOB, cut=["bob"]), other.observed) == {"bob"}
    gone = found.having(accounts={name: account for name, account in accounts.items() if name != "bob"})
    assert commanded(desired(ALICE, BOB), gone.observed) == frozenset()


# --- only one person ---


def test_a_command_does_nothing_for_anybody_else() -> None:
    busy = machine().account("dave", 1003).env_file("t3", "erin", "3776")
    plan = only(busy.plan(ALICE, person("erin"), cut=["bob"]), "bob")
    assert {action.user for action in plan.actions} == {"bob", None}
    assert kinds(plan) == {"record_cut", "write_output", "lock_account", "halt_unit"}
    assert plan.cuts == ("bob",)
    assert {found.user for found in plan.findings} == {"bob"}


def test_only_the_line_of_the_person_goes_from_a_map() -> None:
    plan = only(machine().plan(cut=["bob"]), "bob")  # a roster with nobody on it, as the command reads it
    (write,) = writes(plan)
    assert write.phase is Phase.UNMAP
    assert write.before == MAP
    assert users(write.text) == {"alice", "carol"}
    assert writes(plan, ADMINS) == []


def test_lines_of_others_stay_in_their_order_and_with_what_they_say() -> None:
    text = '{"b.old": {"os_user": "bob", "port": 1}, "c.old": {"os_user": "carol", "port": 7777}}'
    plan = only(machine().output(DISPATCH, text).plan(cut=["bob"]), "bob")
    (write,) = writes(plan, DISPATCH)
    assert [(route.identity, route.user, route.port) for route in parse(DISPATCH, write.text)] == [
        ("c.old", "carol", 7777)
    ]


def test_a_map_that_does_not_name_the_person_is_not_touched() -> None:
    text = render(TTYD, [Route("alice.old", "alice", 3773), Route("gone.x", "gone", None)])
    plan = only(machine().output(TTYD, text).plan(ALICE, person("erin"), cut=["bob"]), "bob")
    assert writes(plan) == []


def test_the_end_of_a_cut_adds_only_the_line_of_the_person() -> None:
    found = cut_bob(by_command=True).output(TTYD, "alice.old=alice\ngone.x=gone\n")
    plan = only(found.plan(ALICE, BOB, person("erin"), uncut=["bob"]), "bob")
    (write,) = writes(plan)
    assert write.phase is Phase.MAPS
    assert {(route.identity, route.user) for route in parse(TTYD, write.text)} == {
        ("alice.old", "alice"),
        ("gone.x", "gone"),
        ("bob.x", "bob"),
    }


def test_what_stands_in_the_way_for_the_whole_machine_is_told_and_other_peoples_findings_are_not() -> None:
    found = machine().account("erin", 1004, managed=False).output(DISPATCH, "{")
    groups = {name: group for name, group in found.observed.groups.items() if name != "docker"}
    whole = found.having(groups=groups).plan(ALICE, person("erin"), person("new"), cut=["bob"])
    assert any(line.startswith("warning: group docker does not exist") for line in told(whole))
    plan = only(whole, "bob")
    assert [line.partition(" is not")[0] for line in told(plan) if not line.startswith(("+", "-", "~"))] == [
        "conflict: /etc/t3-serve/dispatch.json"
    ]
    assert {found.user for found in plan.findings} == {"bob", None}


def test_actions_of_one_person_stand_in_the_order_of_a_run() -> None:
    phases = [action.phase for action in only(machine().plan(cut=["bob"]), "bob").actions]
    assert phases == sorted(phases)
    assert phases[:2] == [Phase.RECORD, Phase.UNMAP]
