"""What is due in whose home, and what is told of what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.actions import Phase, RetireUnits, RunUnit, TakeHomeStep
from reconciler.core.home_records import StepRecord
from reconciler.core.home_steps import (
    CodeLayout,
    CommandStep,
    DirectoryStep,
    Ending,
    FileStep,
    GitStep,
    HomeStep,
    Keep,
    LayoutStep,
    McpStep,
    StepBody,
)
from reconciler.core.observed import Home, HomeKind, HomeWork, Source
from reconciler.core.plan import Plan, make_plan
from reconciler.core.site import Code, Site
from reconciler.core.site_homes import SiteStep
from tests.unit.facts import NOW, Machine, bare, desired, person

HOUR, DAY = 3600, 86_400
BOB = person("bob")
NOTES = HomeStep("notes", DirectoryStep("notes"), 30)
INFRA = "https://example.org/infra.git"
NO_CODE = Code()


def site(*steps: HomeStep, code: Code = NO_CODE) -> Site:
    """Return a site that has these steps and none of its standard ones for the browser."""
    standard: dict[str, SiteStep | None] = {"playwright-token": None, "playwright-mcp": None}
    return Site(code=code, homes=standard | {step.name: SiteStep(step) for step in steps})


def step(name: str, body: StepBody) -> HomeStep:
    return HomeStep(name, body, 60)


def machine(**work: object) -> Machine:
    """Return a machine where bob works, and this is known of his home."""
    return bare().person("bob", 1000, 3773, 8931).having(home_work=HomeWork(**work))  # type: ignore[arg-type]


def record(of: HomeStep = NOTES, ending: Ending = Ending.DONE, *, age: int = 0, failures: int = 0) -> StepRecord:
    """Return what is on record of a step that was taken some seconds ago."""
    return StepRecord(of.digest(), ending, "said so", NOW - age, failures)


def recorded(*records: tuple[str, StepRecord], **work: object) -> Machine:
    return machine(records={"bob": dict(records)}, **work)


def taken(plan: Plan) -> list[TakeHomeStep]:
    return [action for action in plan.actions if isinstance(action, TakeHomeStep)]


def names(plan: Plan) -> list[str]:
    return [action.step.name for action in taken(plan)]


def why(plan: Plan) -> str:
    (action,) = taken(plan)
    return action.why


def findings(plan: Plan) -> list[tuple[str, str]]:
    return [(found.kind, found.text) for found in plan.findings if found.user == "bob"]


# --- due or not ---


def test_a_step_that_was_never_taken_is_due_in_these_words() -> None:
    plan = machine().plan(BOB, site=site(NOTES))
    (action,) = taken(plan)
    assert action.describe() == "home step notes: not done yet → folder ~/notes (0755)"
    assert (action.sign, action.home, action.digest) == ("+", "/home/bob", NOTES.digest())
    assert findings(plan) == []


def test_a_step_that_is_done_is_left_at_that() -> None:
    plan = recorded(("notes", record(age=400 * DAY))).plan(BOB, site=site(NOTES))
    assert (names(plan), findings(plan)) == ([], [])


def test_a_step_that_was_left_to_the_person_says_nothing_more() -> None:
    plan = recorded(("notes", record(ending=Ending.KEPT, age=400 * DAY))).plan(BOB, site=site(NOTES))
    assert (names(plan), findings(plan)) == ([], [])


def test_another_definition_is_a_reason() -> None:
    other = replace(NOTES, body=DirectoryStep("notes", "0700"))
    plan = recorded(("notes", record())).plan(BOB, site=site(other))
    assert why(plan) == "its definition has changed"
    assert taken(plan)[0].sign == "~"
    assert taken(plan)[0].digest == other.digest()


def test_what_it_relied_on_and_what_has_changed_is_a_reason() -> None:
    changed = {("bob", "notes"): "/home/bob/notes"}
    plan = recorded(("notes", record()), changed=changed).plan(BOB, site=site(NOTES))
    assert why(plan) == "/home/bob/notes has changed"


def test_somebody_elses_change_is_none() -> None:
    changed = {("alice", "notes"): "/home/alice/notes", ("bob", "other"): "/home/bob/x"}
    assert names(recorded(("notes", record()), changed=changed).plan(BOB, site=site(NOTES))) == []


def test_where_homes_could_not_be_looked_at_nothing_is_due() -> None:
    assert names(machine().having(home_work=None).plan(BOB, site=site(NOTES))) == []


# --- what did not work ---


@pytest.mark.parametrize(
    ("failures", "pause", "tries"),
    [(1, 1, "once"), (2, 2, "2 times"), (5, 16, "5 times"), (6, 24, "6 times"), (40, 24, "40 times")],
)
def test_what_failed_rests_and_the_next_try_is_named(failures: int, pause: int, tries: str) -> None:
    failed = record(ending=Ending.FAILED, age=0, failures=failures)
    until = f"2027-01-15 {(8 + pause) % 24:02}:00 UTC" if pause < 16 else f"2027-01-16 {(8 + pause) % 24:02}:00 UTC"
    plan = recorded(("notes", failed)).plan(BOB, site=site(NOTES))
    assert names(plan) == []
    assert findings(plan) == [
        ("unhealthy", f"home step notes: said so (tried {tries}, again after {until} or with --retry)")
    ]
    almost = replace(failed, at=NOW - pause * HOUR + 1)
    assert names(recorded(("notes", almost)).plan(BOB, site=site(NOTES))) == []
    due = recorded(("notes", replace(failed, at=NOW - pause * HOUR))).plan(BOB, site=site(NOTES))
    assert why(due) == f"{failures} times without success"
    assert findings(due) == []


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.BLOCKED])
def test_it_is_tried_at_once_where_that_is_asked_for(ending: Ending) -> None:
    seen = recorded(("notes", record(ending=ending, failures=3))).observed
    wanted = desired(BOB, site=site(NOTES))
    assert names(make_plan(wanted, seen)) == []
    assert names(make_plan(replace(wanted, retry=True), seen)) == ["notes"]


def test_who_asks_for_a_retry_does_not_ask_for_what_is_done() -> None:
    seen = recorded(("notes", record())).observed
    assert names(make_plan(replace(desired(BOB, site=site(NOTES)), retry=True), seen)) == []


def test_what_is_in_the_way_is_a_warning_and_no_problem() -> None:
    plan = recorded(("notes", record(ending=Ending.BLOCKED, failures=1))).plan(BOB, site=site(NOTES))
    assert findings(plan) == [("warning", "home step notes: said so")]
    assert not plan.has_problems


def test_another_definition_does_not_wait_for_the_pause() -> None:
    failed = replace(record(ending=Ending.FAILED, failures=4), digest="another")
    assert names(recorded(("notes", failed)).plan(BOB, site=site(NOTES))) == ["notes"]


# --- again after some time, and clocks ---

CLONE = step("tools", GitStep("tools", INFRA, refresh=6))
ASKED = step("tools", CommandStep(("/bin/true",), unless=("/bin/false",), refresh=6))


@pytest.mark.parametrize("one", [CLONE, ASKED])
def test_a_refresh_is_due_after_its_hours(one: HomeStep) -> None:
    for age, expected in ((6 * HOUR - 1, []), (6 * HOUR, ["tools"])):
        plan = recorded(("tools", record(one, age=age))).plan(BOB, site=site(one))
        assert names(plan) == expected
        assert [action.why for action in taken(plan)] == ["looked at last 2027-01-15 02:00 UTC"] * len(expected)


def test_what_is_never_refreshed_is_left_alone() -> None:
    never = step("tools", GitStep("tools", INFRA, refresh=0))
    assert names(recorded(("tools", record(never, age=999 * DAY))).plan(BOB, site=site(never))) == []


@pytest.mark.parametrize("ending", [Ending.DONE, Ending.FAILED])
def test_a_clock_that_was_set_back_a_day_starts_nothing(ending: Ending) -> None:
    back = record(CLONE, ending, age=-DAY, failures=1)
    assert names(recorded(("tools", back)).plan(BOB, site=site(CLONE))) == []


@pytest.mark.parametrize("ending", [Ending.DONE, Ending.FAILED])
def test_a_record_from_a_far_future_holds_nothing_up(ending: Ending) -> None:
    far = record(CLONE, ending, age=-DAY - 1, failures=1)
    assert names(recorded(("tools", far)).plan(BOB, site=site(CLONE))) == ["tools"]


# --- steps that need others ---

BELOW = step("notes/one", DirectoryStep("notes/one"))


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.BLOCKED])
def test_what_is_below_a_step_that_did_not_work_waits(ending: Ending) -> None:
    beside = step("notes2", DirectoryStep("x"))
    plan = recorded(("notes", record(ending=ending, failures=1))).plan(BOB, site=site(NOTES, BELOW, beside))
    assert names(plan) == ["notes2"]
    assert len(findings(plan)) == 1


def test_what_is_below_a_step_that_is_done_or_due_does_not() -> None:
    for work in (recorded(("notes", record())), machine()):
        assert names(work.plan(BOB, site=site(NOTES, BELOW)))[-1] == "notes/one"


def test_steps_are_taken_in_the_order_of_the_site() -> None:
    steps = [step(name, DirectoryStep(name)) for name in ("z", "a", "m")]
    plan = machine().plan(BOB, site=site(*steps))
    assert names(plan) == ["z", "a", "m"]
    assert [action.place for action in taken(plan)] == [0, 1, 2]


# --- for whom ---


def test_a_parked_person_has_no_steps() -> None:
    assert names(machine().plan(person("bob", parked=True), site=site(NOTES))) == []


def test_somebody_who_is_left_alone_has_no_steps() -> None:
    link = machine().having(homes={"bob": Home(HomeKind.SYMLINK)})
    plan = link.plan(BOB, site=site(NOTES))
    assert [kind for kind, _ in findings(plan)] == ["conflict"]
    assert names(plan) == []


def test_steps_come_after_the_account_of_somebody_new() -> None:
    plan = bare().plan(BOB, site=site(NOTES))
    assert names(plan) == ["notes"]
    assert taken(plan)[0].home == "/home/bob"
    assert plan.actions[-1].phase >= Phase.HOMES
    assert taken(plan)[0].key[0] == "bob"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"tiers": ("power-user",)}, ["notes"]),
        ({"tiers": ("admin",)}, []),
        ({"tiers": ("admin", "power-user")}, ["notes"]),
        ({"layouts": (CodeLayout.SINGLE,)}, ["notes"]),
        ({"layouts": (CodeLayout.WORKSPACE,)}, []),
        ({"tiers": ("power-user",), "layouts": (CodeLayout.WORKSPACE,)}, []),
    ],
)
def test_a_step_can_be_for_tiers_and_layouts(limits: dict[str, object], expected: list[str]) -> None:
    limited = replace(site(), homes={**site().homes, "notes": SiteStep(NOTES, **limits)})  # type: ignore[arg-type]
    assert names(machine().plan(BOB, site=limited)) == expected


# --- what is filled in ---


def test_placeholders_are_filled_in() -> None:
    one = step("x", CommandStep(("{user}", "{home}", "{tier}", "{port.t3}", "{{user}}"), creates="x"))
    (action,) = taken(machine().plan(BOB, site=site(one)))
    assert isinstance(action.step.body, CommandStep)
    assert action.step.body.run == ("bob", "/home/bob", "power-user", "3773", "{user}")


def test_the_port_of_somebody_new_is_the_one_they_get_in_this_run() -> None:
    one = step("x", McpStep("web", "http://localhost:{port.t3}/"))
    plan = bare().having(home_work=HomeWork(with_agent=frozenset(["bob"]))).plan(BOB, site=site(one))
    assert isinstance(body := taken(plan)[0].step.body, McpStep)
    assert body.url == "http://localhost:3773/"


def test_a_step_with_the_port_of_a_service_that_somebody_lacks_is_not_for_them() -> None:
    one = step("x", CommandStep(("{port.t3}",), creates="x"))
    without = person("bob", services={"t3": False})
    plan = machine().plan(without, site=site(one, NOTES))
    assert names(plan) == ["notes"]
    assert findings(plan) == []


# --- what a machine may not have ---

SEED = step("key", FileStep("key", source="/etc/keys/{user}"))
CURRENT = step("key", FileStep("key", source="/etc/keys/{user}", keep=Keep.CURRENT))


def test_a_step_without_its_source_is_left_out_silently() -> None:
    plan = machine().plan(BOB, site=site(SEED, NOTES))
    assert (names(plan), findings(plan)) == (["notes"], [])
    assert names(machine(sources={"/etc/keys/bob": Source("1")}).plan(BOB, site=site(SEED))) == ["key"]


def test_a_source_that_is_not_roots_alone_is_a_conflict() -> None:
    plan = machine(sources={"/etc/keys/bob": Source("1", "/etc/keys/bob is not root's")}).plan(BOB, site=site(SEED))
    assert names(plan) == []
    assert findings(plan) == [("conflict", "home step key: /etc/keys/bob is not root's")]


def test_a_new_content_of_the_source_is_a_reason_only_for_a_file_that_is_kept_current() -> None:
    for one, expected in ((SEED, []), (CURRENT, ["key"])):
        first = machine(sources={"/etc/keys/bob": Source("1")})
        (action,) = taken(first.plan(BOB, site=site(one)))
        done = StepRecord(action.digest, Ending.DONE, "", NOW)
        same = recorded(("key", done), sources={"/etc/keys/bob": Source("1")})
        assert names(same.plan(BOB, site=site(one))) == []
        other = recorded(("key", done), sources={"/etc/keys/bob": Source("2")})
        assert names(other.plan(BOB, site=site(one))) == expected


def test_who_has_no_agent_gets_no_entry_in_its_configuration() -> None:
    one = step("x", McpStep("web", "http://localhost/"))
    plan = machine().plan(BOB, site=site(one))
    assert (names(plan), findings(plan)) == ([], [])
    assert names(machine(with_agent=frozenset(["bob"])).plan(BOB, site=site(one))) == ["x"]


# --- the standard steps ---


def code_of(plan: Plan) -> list[tuple[str, StepBody]]:
    return [(action.step.name, action.step.body) for action in taken(plan)]


def test_the_single_layout_is_one_clone() -> None:
    plan = machine().plan(BOB, site=site(code=Code(INFRA, "main", "https://example.org/team")))
    assert code_of(plan) == [
        ("code", LayoutStep(CodeLayout.SINGLE, "code", INFRA, ())),
        ("code/infra", GitStep("code", INFRA, "main", filters=("git-crypt",))),
    ]


def test_the_workspace_layout_is_a_clone_for_each_repository() -> None:
    bob = replace(BOB, code_layout=CodeLayout.WORKSPACE, repos=("web", "api"))
    plan = machine().plan(bob, site=site(code=Code(INFRA, None, "https://example.org/team")))
    assert code_of(plan) == [
        ("code", LayoutStep(CodeLayout.WORKSPACE, "code", INFRA, ("web", "api"))),
        ("code/infra", GitStep("code/infra", INFRA, None, filters=("git-crypt",))),
        ("code/web", GitStep("code/web", "https://example.org/team/web.git", filters=("git-crypt",))),
        ("code/api", GitStep("code/api", "https://example.org/team/api.git", filters=("git-crypt",))),
    ]


def test_without_an_address_a_clone_is_left_out() -> None:
    bob = replace(BOB, code_layout=CodeLayout.WORKSPACE, repos=("web",))
    assert names(machine().plan(bob, site=site(code=Code(None, None, None)))) == []
    assert names(machine().plan(BOB, site=site(code=Code(None, None, "https://example.org/t")))) == []
    without_infra = machine().plan(bob, site=site(code=Code(None, None, "https://example.org/t")))
    assert names(without_infra) == ["code", "code/web"]
    without_repos = machine().plan(bob, site=site(code=Code(INFRA)))
    assert names(without_repos) == ["code", "code/infra"]


def test_the_site_can_leave_the_code_out() -> None:
    given = site(NOTES, code=Code(INFRA))
    assert names(machine().plan(BOB, site=given)) == ["code", "code/infra", "notes"]
    assert names(machine().plan(BOB, site=replace(given, homes={**given.homes, "code": None}))) == ["notes"]


def browser(**homes: SiteStep | None) -> Site:
    return Site(homes=homes)


def test_a_browser_gets_its_token_and_its_entry_in_the_agent() -> None:
    source = "/etc/rosterd/playwright-token"
    seen = machine(sources={source: Source("1")}, with_agent=frozenset(["bob"]))
    expected = [
        ("playwright-token", FileStep(".config/playwright/token", source=source, mode="0600")),
        ("playwright-mcp", McpStep("playwright", "http://localhost:8931/mcp")),
    ]
    assert code_of(seen.plan(BOB, site=browser())) == expected
    assert code_of(seen.plan(BOB, site=browser(**{"playwright-mcp": None}))) == expected[:1]
    assert code_of(seen.plan(person("bob", services={"playwright": False}), site=browser())) == []


def test_the_site_can_put_a_step_of_its_own_in_a_standard_ones_place() -> None:
    own = HomeStep("playwright-mcp", McpStep("web", "http://x/"), 60)
    seen = machine(with_agent=frozenset(["bob"]))
    assert code_of(seen.plan(BOB, site=browser(**{own.name: SiteStep(own)}))) == [(own.name, own.body)]


# --- units that people made for themselves ---

OLD = {("bob", "playwright"): ("playwright-mcp.service",)}


def retired(plan: Plan) -> list[RetireUnits]:
    return [action for action in plan.actions if isinstance(action, RetireUnits)]


def test_old_units_go_before_the_service_starts() -> None:
    seen = bare().account("bob", 1000).having(home_work=HomeWork(legacy_units=OLD))
    plan = seen.plan(BOB, site=site())
    (action,) = retired(plan)
    assert action.describe() == "playwright: own unit playwright-mcp.service → stopped, disabled, renamed"
    starts = [one for one in plan.actions if isinstance(one, RunUnit) and one.service == "playwright"]
    assert starts
    assert all(action.phase < one.phase for one in starts)
    assert all(one.key[: len(action.key)] == action.key for one in starts)


def test_the_old_units_of_a_service_that_somebody_does_not_have_stay() -> None:
    without = person("bob", services={"playwright": False})
    assert retired(machine(legacy_units=OLD).plan(without, site=site())) == []


def test_somebody_who_is_left_alone_keeps_their_units() -> None:
    link = machine(legacy_units=OLD).having(homes={"bob": Home(HomeKind.SYMLINK)})
    assert retired(link.plan(BOB, site=site())) == []


def test_the_old_units_of_a_parked_person_go_as_well() -> None:
    assert len(retired(machine(legacy_units=OLD).plan(person("bob", parked=True), site=site()))) == 1
