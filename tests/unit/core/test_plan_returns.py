"""People who come back: they get what their record says they had, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.actions import Action, ForgetCut, OpenLogin, ResumeJobs, RunUnit, SetLinger
from reconciler.core.observed import Login
from reconciler.core.plan import Plan
from reconciler.core.records import Step
from tests.unit.facts import CUT, Machine, at_job, bare, person, service, told

BOB = person("bob", services={"t3": False, "playwright": False})
LATER, SOON = at_job(60, 1), at_job(1, 2)
FORGET = ForgetCut("bob")


def cut_bob(**facts: object) -> Machine:
    """Return a machine where bob is cut off, with everything closed; he had a locked password and no services."""
    return bare().account("bob", 1001).cut("bob", **facts)


def of_bob(plan: Plan) -> list[Action]:
    return [action for action in plan.actions if action.user == "bob"]


def returning(machine: Machine) -> list[Action]:
    """Return what is done for bob, who is on the roster again."""
    return of_bob(machine.plan(BOB))


def test_a_return_reads_like_this() -> None:
    machine = cut_bob(locked=False, expiry=30000, lingering=True, running=("backup.service",))
    machine = machine.present("bob", held_crontab=True, held_at_jobs=(SOON,), units=(service("backup.service"),))
    machine = machine.present("bob", units=(service("backup.service", active=False),))
    assert told(machine.plan(BOB), "bob") == [
        "~ login: expired → expires 2052-02-20, password open, as before the cut",
        "~ crontab and 1 at job: held → due",
        "~ lingering: off → on",
        "+ backup.service: stopped → running",
    ]


# --- the login ---


@pytest.mark.parametrize(
    ("before", "opening"),
    [
        pytest.param(Login(locked=True), OpenLogin("bob", None, unlock=False, passwordless=False), id="locked"),
        pytest.param(Login(locked=False), OpenLogin("bob", None, unlock=True, passwordless=False), id="open"),
        pytest.param(
            Login(locked=False, passwordless=True),
            OpenLogin("bob", None, unlock=True, passwordless=True),
            id="no password",
        ),
        pytest.param(
            Login(locked=True, expiry=30000), OpenLogin("bob", 30000, unlock=False, passwordless=False), id="a date"
        ),
        pytest.param(
            Login(locked=False, expiry=0), OpenLogin("bob", 0, unlock=True, passwordless=False), id="day 0 and open"
        ),
        pytest.param(
            Login(locked=False, expiry=1), OpenLogin("bob", 1, unlock=True, passwordless=False), id="expired, but open"
        ),
        pytest.param(Login(locked=True, expiry=1), None, id="as closed as a cut leaves it"),
    ],
)
def test_the_login_is_as_it_was(before: Login, opening: OpenLogin | None) -> None:
    machine = cut_bob(locked=before.locked, passwordless=before.passwordless, expiry=before.expiry)
    assert returning(machine) == ([FORGET] if opening is None else [opening])


def test_a_password_that_was_set_meanwhile_stays() -> None:
    machine = cut_bob(locked=False, passwordless=True).login("bob", Login(locked=False, expiry=1))
    assert returning(machine) == [OpenLogin("bob", None, unlock=False, passwordless=False)]


def test_a_password_that_was_unlocked_meanwhile_is_not_locked_again() -> None:
    machine = cut_bob(locked=True).login("bob", Login(locked=False, expiry=1))
    assert returning(machine) == [OpenLogin("bob", None, unlock=False, passwordless=False)]
    assert returning(machine.login("bob", Login(locked=False))) == [FORGET]


# --- jobs, lingering, services ---


def opened(**facts: object) -> Machine:
    """Return a machine where bob's login is open again already, as it was."""
    return cut_bob(**facts).login("bob", Login(locked=True))


def test_a_held_crontab_comes_back() -> None:
    machine = opened().present("bob", held_crontab=True)
    assert returning(machine) == [ResumeJobs("bob", crontab=True, at_jobs=())]


def test_a_held_crontab_is_set_aside_where_there_is_a_new_one_and_that_is_told() -> None:
    machine = opened().present("bob", held_crontab=True, crontab=True)
    assert returning(machine) == [replace(FORGET, crontab=True)]
    assert told(machine.plan(BOB), "bob") == [
        "~ cut off: yes → no (the held crontab is set aside, there is a newer one)"
    ]
    jobs = machine.present("bob", held_at_jobs=(SOON,))
    assert returning(jobs) == [ResumeJobs("bob", crontab=False, at_jobs=(SOON,))]


def test_at_jobs_that_are_still_to_come_are_due_again_and_those_that_came_due_are_told() -> None:
    late = at_job(-1, 3)
    machine = opened().present("bob", held_at_jobs=(LATER, SOON), late_at_jobs=(late,))
    assert returning(machine) == [ResumeJobs("bob", crontab=False, at_jobs=(LATER, SOON))]
    assert returning(machine.present("bob", held_at_jobs=())) == [ForgetCut("bob", late_at_jobs=(late,))]
    (line,) = told(machine.present("bob", held_at_jobs=()).plan(BOB), "bob")
    assert line == "~ cut off: yes → no (1 at job came due meanwhile and did not run)"


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (True, False, [SetLinger("bob", 1001, on=True)]),
        (True, True, [FORGET]),
        (False, False, [FORGET]),
        (False, True, [FORGET]),
    ],
)
def test_who_lingered_lingers_again(before: bool, now: bool, expected: list[Action]) -> None:  # noqa: FBT001 (columns of the table)
    assert returning(opened(lingering=before).present("bob", lingering=now)) == expected


def test_units_that_ran_are_started_again_and_others_are_not() -> None:
    units = (service("a.service", active=False), service("b.service"), service("c.service", active=False))
    machine = opened(running=("a.service", "b.service", "unloaded.service")).present("bob", units=units)
    assert [action for action in returning(machine) if isinstance(action, RunUnit)] == [
        RunUnit("bob", "", name, enable=False, start=True, before="stopped")
        for name in ("a.service", "unloaded.service")
    ]


def test_units_are_started_before_the_record_is_closed_which_does_not_wait_for_them() -> None:
    actions = returning(opened(running=("a.service",)))
    assert [action.kind for action in actions] == ["run_unit", "forget_cut"]


def test_the_catalogues_services_come_back_as_the_roster_has_them() -> None:
    machine = opened().env_file("t3", "bob", "3773").having(listeners=())
    units = [action for action in of_bob(machine.plan(person("bob", services={"playwright": False}))) if
             isinstance(action, RunUnit)]  # fmt: skip
    assert [unit.unit for unit in units] == ["t3-serve@bob.service"]


# --- the record ---


def test_a_record_is_closed_when_nothing_is_left_to_give_back() -> None:
    assert returning(opened()) == [FORGET]


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(cut_bob(), id="the login"),
        pytest.param(opened().present("bob", held_crontab=True), id="the crontab"),
        pytest.param(opened().present("bob", held_at_jobs=(SOON,)), id="an at job"),
        pytest.param(opened(lingering=True), id="lingering"),
    ],
)
def test_a_record_stays_while_something_is_left(machine: Machine) -> None:
    actions = returning(machine)
    assert len(actions) == 1
    assert not isinstance(actions[0], ForgetCut)


def test_steps_that_were_taken_elsewhere_are_told_at_the_end() -> None:
    machine = opened(done=(Step.REMOVE_FROM_T3_GROUP, Step.REVOKE_CLUSTER_RBAC))
    assert told(machine.plan(BOB), "bob") == [
        ("~ cut off: yes → no (to be given back outside of this machine: remove_from_t3_group, revoke_cluster_rbac)")
    ]


def test_no_further_step_is_pending_for_somebody_who_is_back() -> None:
    assert not [found for found in opened().plan(BOB).findings if found.user == "bob"]


def test_the_login_opens_before_jobs_and_units_and_the_record_goes_last() -> None:
    machine = cut_bob(lingering=True, running=("a.service",)).present("bob", held_crontab=True)
    plan = machine.plan(person("bob", "admin"), person("new"))
    kinds = [action.kind for action in plan.actions if action.user in ("bob", "new")]
    order = ["create_account", "add_to_groups", "open_login", "resume_jobs", "run_unit"]
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    assert [action.kind for action in opened().plan(BOB).actions][-1] == "forget_cut"


# --- who does not come back ---


def test_who_was_never_cut_off_is_given_nothing() -> None:
    machine = bare().account("bob", 1001).login("bob", CUT).present("bob", held_crontab=True)
    assert returning(machine) == []


def test_who_is_refused_stays_as_they_are() -> None:
    machine = cut_bob()
    homes = {"bob": replace(machine.observed.homes["bob"], uid=4711)}
    plan = machine.having(homes=homes).plan(BOB)
    assert of_bob(plan) == []
    assert plan.has_problems


def test_the_record_of_another_account_lets_nobody_in() -> None:
    machine = cut_bob()
    accounts = {**machine.observed.accounts, "bob": replace(machine.observed.accounts["bob"], uid=1500)}
    plan = machine.having(accounts=accounts).plan(BOB)
    assert told(plan, "bob") == [
        (
            "conflict: is on record as cut off with uid 1001, but the account has uid 1500 now; nothing is done for"
            " this person. If the record is of no use any more: rosterd forget bob"
        )
    ]


def test_a_record_without_an_account_lets_no_new_one_be_made() -> None:
    machine = cut_bob()
    seen = machine.observed
    accounts = {name: account for name, account in seen.accounts.items() if name != "bob"}
    plan = machine.having(accounts=accounts).plan(BOB)
    assert told(plan, "bob")[-1] == (
        "conflict: is on record as cut off with uid 1001, but there is no such account now; nothing is done for"
        " this person. If the record is of no use any more: rosterd forget bob"
    )


@pytest.mark.parametrize("unseen", ["records", "shadow"])
def test_what_could_not_be_seen_lets_nobody_in(unseen: str) -> None:
    machine = cut_bob(lingering=True).present("bob", held_crontab=True)
    assert returning(machine.having(**{unseen: None})) == []


def test_an_account_without_a_shadow_line_gets_one_and_is_opened_later() -> None:
    machine = cut_bob(locked=False, expiry=30000)
    shadow = {name: login for name, login in (machine.observed.shadow or {}).items() if name != "bob"}
    assert [action.kind for action in returning(machine.having(shadow=shadow))] == ["complete_shadow"]


# --- without a record ---


@pytest.mark.parametrize(
    ("login", "warned"),
    [(CUT, True), (Login(locked=False, expiry=1), True), (Login(locked=True), False), (Login(expiry=2), False)],
)
def test_a_login_that_looks_cut_off_without_a_record_is_told_and_left_alone(login: Login, warned: bool) -> None:  # noqa: FBT001 (a column of the table)
    plan = bare().account("bob", 1001).login("bob", login).plan(BOB)
    assert told(plan, "bob") == (
        [
            (
                "warning: is on the roster, but the login is expired as a cut leaves it, and there is no record of a"
                " cut. To open it: usermod --expiredate '' bob (and --unlock, if there was a password)"
            )
        ]
        if warned
        else []
    )


def test_with_a_record_that_is_not_told() -> None:
    assert not [line for line in told(cut_bob(expiry=1).plan(BOB), "bob") if "no record of a cut" in line]
