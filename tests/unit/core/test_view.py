"""A plan as people read it. The golden file shows one of everything."""

from __future__ import annotations

import json
from pathlib import Path

from reconciler.core.findings import conflict
from reconciler.core.guard import guard
from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import UnitState
from reconciler.core.plan import Plan
from reconciler.core.records import Step
from reconciler.core.site import Guards, OutputKind
from reconciler.core.view import plan_json, plan_summary, plan_text
from tests.unit.facts import FAILED, at_job, bare, person, service

CASES = Path(__file__).parent.parent / "cases" / "plan"


def one_of_everything() -> Plan:
    """Return the plan of a busy day: newcomers, an unmanaged account, a stranger on a port, two who leave.

    Beside them one who is cut off already, and one who comes back.
    """
    machine = (
        bare()
        .person("alice", 1000, 3773, 8931)
        .unit("t3-serve@alice.service", FAILED)
        .person("bob", 1001, 3774, 8932)
        .person("erin", 1004, 3777, 8935)
        .person("frank", 1005, 3778, 8936)
        .account("carol", 1002, managed=False)
        .account("dave", 1003)
        .account("heidi", 1007)
        .cut("heidi")
        .present("heidi", crontab=True, units=(service("backup.service", active=False, enabled=True),))
        .account("ivan", 1008)
        .cut("ivan", locked=False, expiry=30000, done=(Step.REVOKE_CLUSTER_RBAC,))
        .present("ivan", held_crontab=True, held_at_jobs=(at_job(5),))
        .env_file("t3", "dave", "3776")
        .listener(3776, 1002, "run-u42.service", 4242)
        .unit("playwright-mcp@dave.service", UnitState("activating", "auto-restart"))
        .member("ghost", MANAGED_GROUP)
        .output(OutputKind.TTYD_USER_MAP, "alice.x=alice\nbob.x=bob\nerin.x=erin\nfrank.x=frank\n")
        .having(unseen=("shadow lines (/etc/shadow: Permission denied)",))
    )
    plan = machine.plan(
        person("alice", "admin"),
        person("bob", parked=True),
        person("carol"),
        person("dave"),
        person("grace", "namespace-owner"),
        person("ivan", services={"t3": False, "playwright": False}),
    )
    return guard(plan, Guards(max_cuts=1, max_cut_percent=10))


def test_a_plan_reads_like_this() -> None:
    assert plan_text(one_of_everything()) == (CASES / "one-of-everything.txt").read_text(encoding="utf-8")


def test_a_plan_for_programs_looks_like_this() -> None:
    golden = json.loads((CASES / "one-of-everything.json").read_text(encoding="utf-8"))
    assert plan_json(one_of_everything()) == golden


def test_colour_changes_nothing_but_the_signs() -> None:
    plan = one_of_everything()
    coloured = plan_text(plan, colour=True)
    assert "\x1b[32m+\x1b[0m" in coloured
    plain = coloured
    for code in ("32", "33", "31", "1;31", "0"):
        plain = plain.replace(f"\x1b[{code}m", "")
    assert plain == plan_text(plan)


def test_what_the_host_says_cannot_steer_the_terminal() -> None:
    text = plan_text(Plan(findings=(conflict("a\x1b[31m", "one\ntwo\udcff"),)))
    assert text == "a\\x1b[31m\n  ! one\\x0atwo\\xdcff\n\nPlan: nothing to do, 1 conflict.\n"


def test_a_plan_with_nothing_in_it_says_so() -> None:
    assert plan_text(Plan()) == "Plan: nothing to do.\n"
    assert plan_json(Plan())["changes"] is False


def test_the_summary_counts_what_there_is() -> None:
    assert plan_summary(one_of_everything()) == plan_text(one_of_everything()).splitlines()[-1]


def test_one_is_counted_in_the_singular() -> None:
    conflicting = bare().account("alice", 1000, managed=False).having(outputs={}).member("x", MANAGED_GROUP)
    conflicting = conflicting.known("alice")
    plan = conflicting.plan(person("alice"))
    assert plan_summary(plan) == "Plan: 1 to change, 1 conflict."


def test_what_is_pending_is_marked_as_nobodys_fault_and_counted() -> None:
    plan = (
        bare()
        .person("alice", 1000, 3773, 8931)
        .account("bob", 1001)
        .cut("bob")
        .having(outputs={})
        .plan(person("alice"))
    )
    lines = plan_text(plan).splitlines()
    assert [" ".join(line.split()[:3]) for line in lines if line.startswith("  ")] == [
        "? pending: remove_from_t3_group",
        "? pending: revoke_cluster_rbac",
    ]
    assert lines[-1].endswith(", 2 pending.")
    assert plan_json(plan)["findings"][0]["kind"] == "pending"


def test_who_is_held_is_named_with_the_reason() -> None:
    plan = Plan(held=("a", "b"), why_held="because")
    assert plan_text(plan) == "Held: a, b would be cut off: because.\nPlan: nothing to do, 2 held.\n"
    assert plan_json(plan)["held"] == {"users": ["a", "b"], "why": "because"}
