"""What people who are cut off or deleted had goes to nobody else."""

from __future__ import annotations

import pytest

from reconciler.core.actions import CreateAccount, WritePort
from reconciler.core.observed import IdLimits
from reconciler.core.plan import Plan
from reconciler.core.records import CutRecord, Records
from tests.unit.facts import NOW, Machine, bare, person, told

NEW = person("new")


def uid(plan: Plan) -> int | None:
    made = [action.uid for action in plan.actions if isinstance(action, CreateAccount)]
    return made[0] if made else None


def port(plan: Plan, service: str) -> int:
    (found,) = [a.port for a in plan.actions if isinstance(a, WritePort) and a.service == service]
    return found


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(Records(cuts={"gone": CutRecord(1000, 1001, NOW)}), id="cut off, and the account is lost"),
        pytest.param(bare().buried("gone", 1000, gid=1001).observed.records, id="deleted"),
        pytest.param(bare().buried("gone", 1000, gid=1001, complete=False).observed.records, id="half deleted"),
        pytest.param(Records(retired=frozenset({1000, 1001})), id="deleted and let go"),
    ],
)
def test_a_new_account_gets_neither_uid_nor_gid_of(records: Records) -> None:
    assert uid(bare().having(records=records).plan(NEW)) == 1002


def test_where_only_reserved_ids_are_left_nobody_is_made() -> None:
    plan = bare().having(limits=IdLimits(uid_min=1000, uid_max=1000)).buried("gone", 1000).plan(NEW)
    assert uid(plan) is None
    assert "conflict: no uid is left between 1000 and 1000 (login.defs)" in told(plan, "new")


def test_where_the_records_could_not_be_seen_a_uid_is_planned_all_the_same() -> None:
    assert uid(bare().having(records=None).plan(NEW)) == 1000


def test_a_new_person_gets_no_port_of_somebody_deleted() -> None:
    plan = bare().buried("gone", 1000, ports={"t3": 3773, "playwright": 8932}).plan(NEW, person("zoe"))
    ports = [(a.user, a.service, a.port) for a in plan.actions if isinstance(a, WritePort)]
    assert sorted(ports) == [
        ("new", "playwright", 8931),
        ("new", "t3", 3774),
        ("zoe", "playwright", 8933),
        ("zoe", "t3", 3775),
    ]


def test_a_port_of_somebody_deleted_is_nobodys_in_whatever_service_it_was() -> None:
    assert port(bare().buried("gone", 1000, ports={"playwright": 3773}).plan(NEW), "t3") == 3774


# --- names ---


def gone() -> Machine:
    return bare().buried("gone", 1000)


def test_the_name_of_somebody_deleted_is_refused_with_both_ways_out() -> None:
    assert told(gone().plan(person("gone")), "gone")[0] == (
        "conflict: was deleted (uid 1000, archive /var/backups/rosterd/gone.tar) and is not made anew."
        " To have them back: rosterd restore gone. To let the name go to somebody new: rosterd forget gone"
    )


def test_for_somebody_deleted_nothing_is_done_and_the_others_go_on() -> None:
    plan = gone().plan(person("gone"), NEW)
    assert not [action for action in plan.actions if action.user == "gone"]
    assert uid(plan) == 1001


def test_an_account_of_a_name_that_is_half_deleted_is_refused() -> None:
    plan = bare().account("gone", 1000).buried("gone", 1000, complete=False).plan(person("gone"))
    assert [line for line in told(plan, "gone") if not line.startswith("pending")] == [
        "conflict: is half deleted or half restored; to finish: rosterd destroy gone, or rosterd restore gone"
    ]
    assert not [action for action in plan.actions if action.user == "gone"]


def test_somebody_half_deleted_and_off_the_roster_is_told() -> None:
    plan = bare().buried("gone", 1000, complete=False).plan(NEW)
    warning = "warning: is half deleted; to finish: rosterd destroy gone; to take it back: rosterd restore gone"
    assert warning in told(plan, "gone")
    assert warning not in told(gone().plan(NEW), "gone")


def test_a_tombstone_speaks_before_a_record_of_a_cut() -> None:
    both = gone().on_record(cuts={"gone": CutRecord(1000, 1000, NOW)})
    assert told(both.plan(person("gone")), "gone")[0].startswith("conflict: was deleted (uid 1000")


def test_a_name_that_was_let_go_can_be_somebody_new() -> None:
    assert uid(bare().having(records=Records(retired=frozenset({1000}))).plan(person("gone"))) == 1001
