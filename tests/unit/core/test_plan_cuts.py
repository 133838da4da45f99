"""People who leave: what is recorded, what is closed, in which order, and what a cut does not reach."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.actions import (
    Action,
    EndProcesses,
    HaltUnit,
    HoldJobs,
    LockAccount,
    RecordCut,
    SetLinger,
    WriteOutput,
)
from reconciler.core.observed import Account, ForeignUnit, Login, SubidRange
from reconciler.core.plan import Plan
from reconciler.core.plan_cuts import concerned
from reconciler.core.records import CutRecord, Step
from reconciler.core.roster import User
from reconciler.core.site import Hook, OutputKind, Site
from tests.unit.facts import (
    CUT,
    NOW,
    OPEN,
    Machine,
    at_job,
    bare,
    desired,
    identity,
    person,
    process,
    service,
    told,
)

TTYD = OutputKind.TTYD_USER_MAP
JOBS = (at_job(5, 1), at_job(9, 2))
HOOKED = Site(hooks={Step.REVOKE_CLUSTER_RBAC: Hook(("/bin/revoke", "{k8s_user}"))})
ALICE = person("alice")


def with_bob() -> Machine:
    """Return a machine where alice works, and bob has everything that can be taken from him."""
    return (
        bare()
        .person("alice", 1000, 3773, 8931)
        .person("bob", 1001, 3774, 8932)
        .output(TTYD, "alice.x=alice\nbob.x=bob\n")
        .login("bob", Login(locked=False, expiry=30000))
        .present(
            "bob",
            crontab=True,
            at_jobs=JOBS,
            lingering=True,
            slice_active=True,
            units=(service("backup.service"), service("idle.service", active=False)),
            processes=(process(4242, 1001),),
        )
    )


def cut_bob(**facts: object) -> Machine:
    """Return a machine where bob is cut off, with everything closed."""
    return bare().person("alice", 1000, 3773, 8931).account("bob", 1001).cut("bob", **facts)


def of_bob(plan: Plan) -> list[Action]:
    return [action for action in plan.actions if action.user == "bob"]


def kinds(plan: Plan) -> list[str]:
    return [action.kind for action in of_bob(plan)]


def record(plan: Plan) -> CutRecord:
    (found,) = [action.record for action in plan.actions if isinstance(action, RecordCut)]
    return found


def findings(plan: Plan, kind: str) -> list[str]:
    return [found.text for found in plan.findings if found.user == "bob" and found.kind == kind]


# --- the first time ---


def test_a_cut_reads_like_this() -> None:
    assert told(with_bob().plan(ALICE), "bob") == [
        (
            "- cut off (not on the roster): no → on record for the return"
            " (expires 2052-02-20, password open, lingering, backup.service)"
        ),
        "- crontab and 2 at jobs: due → held",
        "- login: expires 2052-02-20, password open → expired, password locked",
        "- backup.service: running → stopped (its User= is bob, who is cut off)",
        "- playwright-mcp@bob.service: enabled, running → disabled, stopped (cut off)",
        "- playwright-snapshot-refresh@bob.timer: enabled, running → disabled, stopped (cut off)",
        "- t3-serve@bob.service: enabled, running → disabled, stopped (cut off)",
        "- lingering: on → off",
        "- user-1001.slice, 1 process (bash 4242) → ended",
        (
            "pending: remove_from_t3_group (k8s bob, authentik bob.x): no hook is set for it;"
            " take it by hand, then: rosterd done bob remove_from_t3_group"
        ),
        (
            "pending: revoke_cluster_rbac (k8s bob, authentik bob.x): no hook is set for it;"
            " take it by hand, then: rosterd done bob revoke_cluster_rbac"
        ),
    ]


def test_the_parts_of_a_cut_stand_in_this_order() -> None:
    plan = with_bob().plan(ALICE, person("newcomer"), site=HOOKED)
    found = [action.kind for action in plan.actions if action.user == "bob" or action.kind == "write_output"]
    assert list(dict.fromkeys(found)) == [
        "record_cut",
        "write_output",
        "hold_jobs",
        "lock_account",
        "halt_unit",
        "set_linger",
        "end_processes",
        "run_hook",
    ]
    everything = [action.kind for action in plan.actions]
    assert everything[:2] == ["record_cut", "write_output"]
    assert everything.index("end_processes") < everything.index("create_account")


def test_a_cut_of_several_is_sorted() -> None:
    machine = with_bob().account("aaron", 1002).account("zoe", 1003)
    plan = machine.plan(ALICE)
    assert [action.user for action in plan.actions if isinstance(action, RecordCut)] == ["aaron", "bob", "zoe"]
    assert plan.cuts == ("aaron", "bob", "zoe")


def test_home_groups_uid_and_ports_stay() -> None:
    actions = of_bob(with_bob().plan(ALICE))
    assert {action.kind for action in actions} == {
        "record_cut",
        "hold_jobs",
        "lock_account",
        "halt_unit",
        "set_linger",
        "end_processes",
    }


# --- the record ---


def test_what_is_there_before_the_first_change_goes_on_record() -> None:
    assert record(with_bob().plan(ALICE)) == CutRecord(
        uid=1001,
        gid=1001,
        since=NOW,
        by_command=False,
        expiry=30000,
        locked=False,
        passwordless=False,
        lingering=True,
        running=("backup.service",),
        identity=identity("bob"),
        done=(),
    )


@pytest.mark.parametrize(
    "login",
    [
        Login(locked=True),
        Login(locked=False),
        Login(locked=False, passwordless=True),
        Login(locked=True, expiry=1),
        Login(locked=False, expiry=0),
    ],
)
def test_the_shadow_fields_go_on_record_as_they_are(login: Login) -> None:
    found = record(with_bob().login("bob", login).plan(ALICE))
    assert Login(found.locked, found.passwordless, found.expiry) == login


def test_the_gid_of_the_account_goes_on_record() -> None:
    machine = with_bob()
    account = replace(machine.observed.accounts["bob"], gid=27)
    plan = machine.having(accounts={**machine.observed.accounts, "bob": account}).member("bob", "rosterd").plan(ALICE)
    assert record(plan).gid == 27


def test_an_account_without_a_shadow_line_is_recorded_as_locked() -> None:
    machine = with_bob()
    shadow = {name: login for name, login in (machine.observed.shadow or {}).items() if name != "bob"}
    plan = machine.having(shadow=shadow).plan(ALICE)
    assert record(plan).locked
    assert "end_processes" in kinds(plan)


def test_only_units_that_run_and_can_be_started_again_go_on_record() -> None:
    units = (service("a.service"), service("b.service", active=False), service("run-1.service", transient=True))
    assert record(with_bob().present("bob", units=units).plan(ALICE)).running == ("a.service",)


def test_somebody_with_nothing_running_has_that_on_record() -> None:
    found = record(bare().account("bob", 1001).plan(ALICE))
    assert (found.lingering, found.running, found.identity) == (False, (), None)


def test_a_record_is_made_once_however_the_account_is_changed_meanwhile() -> None:
    machine = cut_bob(expiry=30000).login("bob", Login(locked=False, expiry=500)).present("bob", lingering=True)
    assert "record_cut" not in kinds(machine.plan(ALICE))


# --- held there ---


def test_where_all_is_closed_there_is_nothing_to_do() -> None:
    plan = cut_bob().plan(ALICE)
    assert of_bob(plan) == []
    assert plan.cuts == ()
    assert plan.present == ("alice",)


def test_what_is_kept_for_the_return_is_no_reason_to_do_anything() -> None:
    units = (service("backup.service", active=False),)
    machine = cut_bob().present(
        "bob", held_crontab=True, held_at_jobs=(at_job(5),), late_at_jobs=(at_job(-5),), units=units
    )
    assert of_bob(machine.plan(ALICE)) == []


RUNNING_AGAIN = (process(7, 1001),)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({"crontab": True}, [HoldJobs("bob", crontab=True, at_jobs=())], id="a crontab"),
        pytest.param({"at_jobs": JOBS}, [HoldJobs("bob", crontab=False, at_jobs=JOBS)], id="at jobs"),
        pytest.param({"lingering": True}, [SetLinger("bob", 1001, on=False)], id="lingering"),
        pytest.param(
            {"slice_active": True},
            [EndProcesses("bob", 1001, ((1001, 1001),), slice_active=True, processes=())],
            id="a session",
        ),
        pytest.param(
            {"processes": RUNNING_AGAIN},
            [EndProcesses("bob", 1001, ((1001, 1001),), slice_active=False, processes=((7, "bash"),))],
            id="a process",
        ),
        pytest.param(
            {"units": (service("x.service"),)},
            [
                HaltUnit(
                    *("bob", "", "x.service"),
                    disable=False,
                    stop=True,
                    before="running",
                    why="its User= is bob, who is cut off",
                    clear=False,
                    kill=True,
                )
            ],
            id="a service",
        ),
    ],
)
def test_what_was_opened_by_hand_is_closed_again(facts: dict[str, object], expected: list[Action]) -> None:
    machine = cut_bob().having(subuids=(), subgids=()).present("bob", **facts)
    assert of_bob(machine.plan(ALICE)) == expected


@pytest.mark.parametrize(
    ("login", "closed"),
    [
        (CUT, False),
        (Login(locked=False, expiry=1), True),
        (Login(locked=False, passwordless=True, expiry=1), True),
        (Login(locked=True), True),
        (Login(locked=True, expiry=0), True),
        (Login(locked=True, expiry=2), True),
        (OPEN, True),
    ],
)
def test_a_login_that_is_not_wholly_closed_is_closed(login: Login, closed: bool) -> None:  # noqa: FBT001 (a column of the table)
    actions = of_bob(cut_bob().login("bob", login).plan(ALICE))
    assert actions == ([LockAccount("bob", login.expiry, login.locked)] if closed else [])


@pytest.mark.parametrize(("enabled", "running"), [(True, True), (True, False), (False, True)])
def test_an_instance_is_stopped_disabled_and_killed_again(enabled: bool, running: bool) -> None:  # noqa: FBT001 (columns of the table)
    unit = "t3-serve@bob.service"
    machine = cut_bob().unit(unit, enabled=enabled) if running else cut_bob().unit(unit)
    if not running:
        machine = machine.having(units=replace(machine.observed.units, states={}))
    (halt,) = of_bob(machine.plan(ALICE))
    assert isinstance(halt, HaltUnit)
    assert (halt.unit, halt.disable, halt.stop, halt.kill, halt.why) == (unit, enabled, running, True, "cut off")


def test_the_service_of_somebody_else_is_left_alone() -> None:
    machine = cut_bob().present("alice", crontab=True, units=(service("x.service"),), processes=(process(7, 1000),))
    assert not [action for action in machine.plan(ALICE).actions if action.user in ("alice", "bob")]


# --- foreign units ---


def test_a_unit_beside_the_catalogue_is_stopped_but_stays_enabled_which_is_told() -> None:
    unit = service("backup.service", enabled=True)
    plan = cut_bob().present("bob", units=(unit,)).plan(ALICE)
    (halt,) = of_bob(plan)
    assert isinstance(halt, HaltUnit)
    assert (halt.disable, halt.stop, halt.kill) == (False, True, True)
    assert findings(plan, "warning") == [
        (
            "backup.service, whose User= is bob, starts at boot, and only the next run would stop it."
            " If it is not needed: systemctl disable backup.service"
        )
    ]


def test_what_can_start_a_unit_is_told_and_rosterds_own_timers_are_not() -> None:
    own = "playwright-snapshot-refresh@bob.timer"
    unit = ForeignUnit("backup.service", active=False, triggers=("z.timer", "a.socket", own))
    assert findings(cut_bob().present("bob", units=(unit,)).plan(ALICE), "warning") == [
        (
            f"{trigger} can start backup.service, whose User= is bob; only the next run would stop it."
            f" If it is not needed: systemctl disable --now {trigger}"
        )
        for trigger in ("a.socket", "z.timer")
    ]


def test_a_unit_that_nothing_starts_is_not_told() -> None:
    plan = cut_bob().present("bob", units=(service("backup.service", active=False),)).plan(ALICE)
    assert findings(plan, "warning") == []


# --- whose ids they are ---


def spans(machine: Machine) -> tuple[tuple[int, int], ...]:
    (end,) = [action for action in machine.plan(ALICE).actions if isinstance(action, EndProcesses)]
    return end.spans


def with_ranges(*ranges: SubidRange) -> Machine:
    return with_bob().having(subuids=ranges)


def test_processes_under_subordinate_ids_are_theirs_too() -> None:
    ranges = (SubidRange("bob", 200_000, 10), SubidRange("1001", 100_000, 5), SubidRange("alice", 300_000, 10))
    assert spans(with_ranges(*ranges)) == ((1001, 1001), (100_000, 100_004), (200_000, 200_009))
    assert spans(with_bob().having(subuids=None)) == ((1001, 1001),)


@pytest.mark.parametrize(
    ("ranges", "other"),
    [
        pytest.param([SubidRange("bob", 995, 6)], "alice", id="an account's, the last"),
        pytest.param([SubidRange("bob", 1000, 1)], "alice", id="an account's"),
        pytest.param(
            [SubidRange("bob", 200_000, 10), SubidRange("carl", 200_009, 5)], "carl", id="a range's, the last"
        ),
        pytest.param(
            [SubidRange("bob", 200_000, 10), SubidRange("carl", 199_996, 5)], "carl", id="a range's, the first"
        ),
        pytest.param([SubidRange("bob", 200_000, 10), SubidRange("carl", 200_004, 1)], "carl", id="a range's, within"),
    ],
)
def test_ids_that_somebody_else_has_as_well_are_left_alone_and_told(ranges: list[SubidRange], other: str) -> None:
    machine = with_ranges(*ranges)
    assert spans(machine) == ((1001, 1001),)
    first, last = ranges[0].first, ranges[0].first + ranges[0].count - 1
    assert findings(machine.plan(ALICE), "conflict") == [
        f"/etc/subuid gives bob ids of {other} ({first}-{last}); processes there are left alone"
    ]


@pytest.mark.parametrize(
    "ranges",
    [
        [SubidRange("bob", 1002, 10)],
        [SubidRange("bob", 990, 10)],
        [SubidRange("bob", 200_000, 10), SubidRange("carl", 200_010, 5)],
        [SubidRange("bob", 200_000, 10), SubidRange("carl", 199_995, 5)],
        [SubidRange("bob", 200_000, 10), SubidRange("bob", 200_005, 10)],
    ],
)
def test_ids_beside_somebody_elses_are_theirs(ranges: list[SubidRange]) -> None:
    machine = with_ranges(*ranges)
    assert len(spans(machine)) == 1 + len([one for one in ranges if one.owner == "bob"])
    assert findings(machine.plan(ALICE), "conflict") == []


def with_namesake() -> Machine:
    """Return the machine where another account has bob's uid."""
    return with_bob().account("bobby", 1001, managed=False)


def test_what_runs_under_a_uid_of_two_accounts_is_left_alone_and_told() -> None:
    plan = with_namesake().plan(ALICE)
    assert "end_processes" not in kinds(plan)
    (hold,) = [action for action in of_bob(plan) if isinstance(action, HoldJobs)]
    assert (hold.crontab, hold.at_jobs) == (True, ())
    assert "has the uid 1001 of bobby; their sessions, processes and at jobs are left alone" in findings(
        plan, "conflict"
    )
    assert {"record_cut", "lock_account", "halt_unit", "set_linger"} <= set(kinds(plan))


def test_at_jobs_alone_of_a_uid_of_two_accounts_are_no_reason_to_hold_jobs() -> None:
    assert "hold_jobs" not in kinds(with_namesake().present("bob", crontab=False).plan(ALICE))


# --- another account of the name ---


def with_other_bob() -> Machine:
    """Return a machine where the record is of a bob with another uid."""
    machine = with_bob().cut("bob").login("bob", OPEN)
    account = machine.observed.accounts["bob"]
    return machine.having(accounts={**machine.observed.accounts, "bob": replace(account, uid=1500)})


def test_a_record_of_another_account_is_a_conflict_and_the_account_is_left_as_it_is() -> None:
    plan = with_other_bob().plan(ALICE)
    assert findings(plan, "conflict") == [
        (
            "is on record as cut off with uid 1001, but the account has uid 1500 and is another person's."
            " If the record is of no use any more: rosterd forget bob"
        )
    ]
    assert [action for action in plan.actions if action.user == "bob"] == []
    assert plan.cuts == ()
    assert "bob" in plan.present
    texts = [action.text for action in plan.actions if isinstance(action, WriteOutput) and action.output is TTYD]
    assert all("bob.x=bob" in text for text in texts)


@pytest.mark.parametrize("by_command", [True, False])
def test_not_even_a_command_cuts_off_whom_no_record_could_bring_back(by_command: bool) -> None:  # noqa: FBT001 (two cases of one thing)
    machine = with_other_bob()
    machine = machine.on_record(cuts={"bob": CutRecord(1001, 1001, NOW, by_command=by_command)})
    assert of_bob(machine.plan(ALICE, cut=["bob"])) == []


def test_an_administrator_whose_name_is_on_record_for_another_account_is_told_once() -> None:
    plan = with_other_bob().member("bob", "code-shared", "docker", "sudo").plan(ALICE)
    assert len(findings(plan, "conflict")) == 1


def test_an_account_without_a_shadow_line_gets_one_to_be_closed() -> None:
    machine = with_bob()
    shadow = {name: login for name, login in (machine.observed.shadow or {}).items() if name != "bob"}
    plan = machine.having(shadow=shadow).plan(ALICE)
    assert "complete_shadow" in kinds(plan)
    assert "lock_account" not in kinds(plan)


# --- what a cut does not reach ---


CONTAINERS = ("docker-1.scope", "docker-2.scope", "docker-3.scope", "docker-4.scope")


@pytest.mark.parametrize("group", ["docker", "incus", "incus-admin", "libvirt", "lxd", "podman"])
def test_containers_are_named_where_somebody_could_start_them(group: str) -> None:
    machine = cut_bob().member("bob", group).having(containers=CONTAINERS)
    assert findings(machine.plan(ALICE), "warning") == [
        (
            "could start containers, and those run as root, so they are not stopped; 4 on this machine"
            " (docker-1.scope, docker-2.scope, docker-3.scope): see whose they are, with docker ps or podman ps"
        )
    ]


def test_containers_are_not_told_where_there_are_none_or_somebody_could_not_start_them() -> None:
    assert findings(cut_bob().member("bob", "docker").plan(ALICE), "warning") == []
    assert findings(cut_bob().having(containers=CONTAINERS).plan(ALICE), "warning") == []


def test_of_an_administrator_it_is_told_that_not_everything_is_found() -> None:
    machine = cut_bob().member("bob", "code-shared", "docker", "sudo")
    assert findings(machine.plan(ALICE), "warning") == [
        "was an administrator; what they left running or due as root is not found by their uid"
    ]


# --- what could not be seen ---


@pytest.mark.parametrize("unseen", [{"records": None}, {"shadow": None}, {"records": None, "shadow": None}])
def test_where_records_or_shadow_could_not_be_seen_nobody_is_cut_off_but_named(unseen: dict[str, object]) -> None:
    machine = with_bob().having(**unseen, unseen=("shadow lines (x)",))
    plan = machine.plan(ALICE)
    assert plan.cuts == ("bob",)
    assert set(kinds(plan)) == {"halt_unit"}
    assert plan.unseen == ("shadow lines (x)",)


def test_where_records_could_not_be_seen_nobody_is_let_in_and_no_identity_is_kept() -> None:
    machine = cut_bob().present("bob", held_crontab=True).having(records=None)
    plan = machine.plan(ALICE, person("bob", services={"t3": False, "playwright": False}))
    assert of_bob(plan) == []
    assert "record_identities" not in {action.kind for action in plan.actions}


# --- whom a look has to know more of ---


@pytest.mark.parametrize(
    ("people", "cut", "uncut", "asked"),
    [
        pytest.param([ALICE, person("bob"), person("carol")], [], [], {"carol"}, id="who returns"),
        pytest.param([ALICE, person("carol")], [], [], {"bob", "carol"}, id="who leaves"),
        pytest.param([ALICE, person("bob")], [], [], {"carol"}, id="who is cut off"),
        pytest.param([ALICE, person("bob")], ["bob"], [], {"bob", "carol"}, id="who is cut off by command"),
        pytest.param([], [], [], {"alice", "bob", "carol"}, id="everybody"),
    ],
)
def test_a_look_has_to_know_more_of(people: list[User], cut: list[str], uncut: list[str], asked: set[str]) -> None:
    machine = with_bob().account("carol", 1002).cut("carol").account("dave", 1003, managed=False)
    assert concerned(desired(*people, cut=cut, uncut=uncut), machine.observed) == asked


def test_a_record_without_an_account_asks_for_nothing() -> None:
    machine = cut_bob()
    accounts: dict[str, Account] = {name: one for name, one in machine.observed.accounts.items() if name != "bob"}
    assert concerned(desired(ALICE), machine.having(accounts=accounts).observed) == frozenset()
