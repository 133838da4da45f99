"""Why everything of one person is as it is: each attribute, and what a run would do of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.core.actions import Action, CreateAccount, WriteOutput
from reconciler.core.desired import Desired
from reconciler.core.explain import check_known, explain
from reconciler.core.explain_view import explanation_json, explanation_text
from reconciler.core.explanation import Attribute, Case, Explanation
from reconciler.core.home_records import StepRecord
from reconciler.core.home_steps import Ending
from reconciler.core.observed import EnvFile, HomeWork, Login, Observed, Source, Units, UnitState
from reconciler.core.outputs import parse
from reconciler.core.plan import Plan
from reconciler.core.provenance import Sources
from reconciler.core.records import Step
from reconciler.core.roster import Roster, parse_roster
from reconciler.core.site import OutputKind, Site, parse_site
from reconciler.core.status import AccountState
from reconciler.engine import Look, look
from reconciler.errors import UnknownName
from reconciler.inputs import Inputs
from tests.unit.facts import CUT, FAILED, NOW, OPEN, SITE, Machine, bare, process, service
from tests.unit.memory_host import MemoryHost
from tests.unit.runs import run
from tests.unit.scenarios import Scenario, Settled, scenarios, settled

ROSTER = """\
users:
  alice:
    authentik_user: alice.x
    k8s_user: alice
    tier: admin
  bob: {authentik_user: bob.x, k8s_user: bob, tier: power-user, services: {playwright: false}}
  carol: {authentik_user: carol.x, k8s_user: carol, tier: namespace-owner,
          namespaces: [shop],
          code_layout: workspace, repos: [api]}
  frances:
    authentik_user: frances.x
    k8s_user: frances
    tier: power-user
    parked: true
"""
POLICY = """\
shell: /bin/zsh
tiers:
  admin: {groups: [docker,
                   sudo], admin: true}
  power-user: {}
  namespace-owner: {namespaces: required}
code: {infra_url: "https://git.example.org/infra.git",
       repo_base: "https://git.example.org"}
homes:
  app: {directory: {path: app}}
hooks:
  revoke_cluster_rbac: {command: [/bin/revoke]}
"""


@dataclass(frozen=True)
class Seen:
    """Looks at the same machine again and again."""

    observed: Observed

    def observe(self, desired: Desired) -> Observed:
        """Return what is there, whatever is wanted."""
        del desired
        return self.observed


def told(machine: Machine, name: str, roster: str = ROSTER, site: str = "") -> Explanation:
    policy = parse_site("site.yaml", site.encode())
    people = parse_roster("roster.yaml", roster.encode(), policy, ())
    sources = Sources.read(("/etc/rosterd/roster.yaml", roster.encode()), ("/etc/rosterd/site.yaml", site.encode()))
    seen = look(Seen(machine.observed), Inputs(people, policy, ""))
    return explain(case_of(name, people, policy, seen, sources))


def case_of(name: str, people: Roster, policy: Site, seen: Look, sources: Sources) -> Case:
    return Case.of(name, people, policy, seen.desired, seen.observed, seen.plan, sources)


def at(found: Explanation, topic: str, name: str) -> Attribute:
    (attribute,) = (one for one in found.attributes if (one.topic, one.name) == (topic, name))
    return attribute


def row(found: Explanation, topic: str, name: str) -> tuple[str, str, str]:
    attribute = at(found, topic, name)
    return attribute.wanted, attribute.why, attribute.there


def changes(found: Explanation, topic: str, name: str) -> list[str]:
    attribute = at(found, topic, name)
    return [action.kind for action in attribute.actions] + [one.kind.value for one in attribute.findings]


def line(text: str, which: str) -> str:
    """Return the place of the only line that holds `which`, as grep -n would."""
    (number,) = (count for count, words in enumerate(text.splitlines(), 1) if which in words)
    return str(number)


# --- how somebody stands ---


def test_who_is_new(machine: Machine) -> None:
    found = told(machine, "alice")
    assert found.state is AccountState.MISSING
    assert found.because == "is on the roster (roster.yaml:2) and has no account yet"
    assert row(found, "account", "account") == ("managed", "roster.yaml:2", "none")
    assert changes(found, "account", "account") == ["create_account"]


def test_who_is_there(machine: Machine) -> None:
    found = told(machine.person("bob", 1000, 3773, 8931), "bob")
    assert (found.state, found.because) == (AccountState.ACTIVE, "is on the roster (roster.yaml:6)")
    assert row(found, "account", "account") == ("managed", "roster.yaml:6", "uid 1000, managed")


def test_who_is_parked(machine: Machine) -> None:
    found = told(machine.person("frances", 1000, 3773, 8931), "frances")
    assert found.state is AccountState.PARKED
    parked = f"roster.yaml:{line(ROSTER, 'parked: true')}"
    assert f"parked ({parked})" in found.because
    assert row(found, "service t3", "switch") == ("off while parked", parked, "")
    assert row(found, "service t3", "t3-serve@frances.service")[:2] == ("disabled, inactive", parked)
    assert changes(found, "service t3", "t3-serve@frances.service") == ["halt_unit"]
    assert row(found, "service t3", "port")[0] == "3773"
    assert row(found, "maps", "/etc/t3-serve/dispatch.json")[:2] == ("no line", f"parked, {parked}")
    assert row(found, "maps", "/etc/ttyd-user-map")[0] == "frances.x = frances"


def test_who_has_an_account_that_is_not_managed(machine: Machine) -> None:
    found = told(machine.account("alice", 1000, managed=False), "alice")
    assert found.state is AccountState.UNMANAGED
    assert found.remedy == "to take it over: rosterd adopt alice, or adopt: true in the roster"
    assert row(found, "account", "account") == ("managed", "roster.yaml:2", "uid 1000, not managed")
    assert changes(found, "account", "account") == ["conflict"]
    assert [action for action in found.actions if action.user] == []
    assert row(found, "maps", "/etc/ttyd-user-map") == ("no line", "nothing is done for them", "no such file")


def test_whose_account_is_being_taken_over(machine: Machine) -> None:
    adopting = ROSTER.replace("    tier: admin\n", "    tier: admin\n    adopt: true\n")
    found = told(machine.account("alice", 1000, managed=False), "alice", adopting)
    assert row(found, "account", "account")[1] == f"roster.yaml:{line(adopting, 'adopt: true')}"
    assert changes(found, "account", "account") == ["adopt_account"]


def test_who_has_left_the_roster(machine: Machine) -> None:
    found = told(machine.account("zed", 1000).login("zed", OPEN), "zed")
    assert found.because == "is not in roster.yaml: a run would cut them off"
    assert row(found, "account", "account") == ("cut off", "not in roster.yaml", "uid 1000, managed")
    assert row(found, "account", "password and expiry") == (
        "locked, expired",
        "not in roster.yaml",
        "open, never expires",
    )
    assert changes(found, "account", "password and expiry") == ["lock_account"]
    assert changes(found, "leaving", "record") == ["record_cut"]


def test_whom_a_guard_holds(machine: Machine) -> None:
    found = told(machine.account("zed", 1000).login("zed", OPEN), "zed", site="guards: {max_cuts: 0}")
    assert found.because == "is not in roster.yaml and would be cut off, but a guard holds that"
    assert "--allow-cuts 1" in found.held
    assert changes(found, "account", "password and expiry") == []
    assert "Held by a guard: 1 of 1 people would be cut off" in explanation_text(found)


def test_an_administrator_who_has_left_the_roster(machine: Machine) -> None:
    found = told(machine.account("root2", 1000, "code-shared", "docker", "sudo"), "root2")
    assert found.because == "is not in roster.yaml, but an administrator, and not cut off by itself"
    assert row(found, "account", "account") == ("left alone", "an administrator", "uid 1000, managed")
    assert row(found, "service t3", "t3-serve@root2.service")[0] == "left alone"
    assert changes(found, "account", "account") == ["conflict"]


def test_who_is_cut_off_since_they_left(machine: Machine) -> None:
    found = told(machine.account("zed", 1000).cut("zed"), "zed")
    assert found.state is AccountState.CUT
    assert found.because == "is cut off since 2027-01-15 07:00 UTC: not in roster.yaml"
    assert "put them on the roster" in found.remedy
    assert row(found, "account", "password and expiry")[2] == "locked, expired"
    assert row(found, "leaving", "record")[2] == "since 2027-01-15 07:00 UTC; before: locked, never expires"
    assert changes(found, "leaving", "remove_from_t3_group") == ["pending"]


@pytest.mark.parametrize(
    ("name", "because", "remedy"),
    [
        ("alice", "by rosterd cut; on the roster (roster.yaml:2)", "rosterd uncut alice"),
        ("zed", "by rosterd cut; not in roster.yaml", "rosterd uncut zed, and put them on the roster"),
    ],
)
def test_who_is_cut_off_by_command(machine: Machine, name: str, because: str, remedy: str) -> None:
    found = told(machine.account(name, 1000).cut(name, by_command=True), name)
    assert found.state is AccountState.CUT
    assert found.because.endswith(because)
    assert found.remedy.endswith(remedy)
    why = "cut off by command" if name == "alice" else "not in roster.yaml"
    assert row(found, "service t3", "switch") == ("off", why, "")


def test_who_comes_back(machine: Machine) -> None:
    found = told(machine.account("bob", 1000).cut("bob", locked=False, expiry=30000, lingering=True), "bob")
    assert "is being let in" in found.because
    assert row(found, "account", "password and expiry") == (
        "open, expires 2052-02-20",
        "as before the cut",
        "locked, expired",
    )
    assert changes(found, "account", "password and expiry") == ["open_login"]
    assert row(found, "leaving", "lingering")[:2] == ("on", "as before the cut")


def test_who_is_deleted(machine: Machine) -> None:
    found = told(machine.buried("dead", 1007, ports={"t3": 3780}), "dead", site=POLICY)
    assert found.state is AccountState.TOMBSTONE
    assert found.remedy == "to have them back: rosterd restore dead; to let the name go: rosterd forget dead"
    assert row(found, "leaving", "archive")[2] == "/var/backups/rosterd/dead.tar"
    assert row(found, "leaving", "reserved")[2] == "uid 1007, t3 3780"
    hook = f"site.yaml:{line(POLICY, 'revoke_cluster_rbac')}"
    assert row(found, "leaving", "revoke_cluster_rbac") == ("taken", hook, "pending")
    assert changes(found, "leaving", "revoke_cluster_rbac") == ["run_hook"]


def test_a_record_that_is_another_accounts(machine: Machine) -> None:
    cut = machine.account("bob", 1000).cut("bob")
    renumbered = cut.having(accounts={"bob": replace(cut.observed.accounts["bob"], uid=1009)})
    found = told(renumbered, "bob")
    assert "is on record as cut off with uid 1000, but the account has uid 1009" in found.because


# --- the account ---


def test_the_roster_and_what_is_on_record(machine: Machine) -> None:
    found = told(machine.account("carol", 1000), "carol")
    assert row(found, "roster", "namespaces") == ("shop", f"roster.yaml:{line(ROSTER, 'namespaces')}", "")
    assert row(found, "roster", "code_layout") == ("workspace", f"roster.yaml:{line(ROSTER, 'code_layout')}", "")
    assert row(found, "roster", "parked") == ("no", "default", "")
    assert row(found, "roster", "k8s_user") == ("carol", f"roster.yaml:{line(ROSTER, 'carol.x')}", "on record: none")
    assert changes(found, "roster", "authentik_user") == ["record_identities"]


def test_an_identity_that_is_on_record_is_no_change_of_theirs(machine: Machine) -> None:
    found = told(machine.account("bob", 1000).known("bob"), "bob")
    assert row(found, "roster", "authentik_user") == ("bob.x", "roster.yaml:6", "on record: bob.x")
    assert changes(found, "roster", "authentik_user") == []


def test_shell_and_password_are_the_persons_own_once_they_are_set(machine: Machine) -> None:
    new = told(machine, "bob", site=POLICY)
    assert row(new, "account", "shell")[:2] == ("/bin/zsh", "site.yaml:1")
    assert row(new, "account", "password and expiry") == ("locked, never expires", "new accounts", "none")
    old = told(machine.account("bob", 1000).login("bob", Login(locked=False, expiry=20833)), "bob", site=POLICY)
    assert row(old, "account", "shell") == ("theirs", "set at creation only", "/bin/zsh")
    assert row(old, "account", "password and expiry") == (
        "theirs",
        "set at creation only",
        "open, expires 2027-01-15",
    )


def test_parts_of_an_account_that_are_missing(machine: Machine) -> None:
    broken = machine.account("bob", 1000).having(homes={}, subuids=(), shadow={})
    alone = "users:\n  bob: {authentik_user: bob.x, k8s_user: bob, tier: power-user}\n"
    found = told(broken, "bob", alone)
    assert row(found, "account", "home") == ("/home/bob", "/etc/passwd", "not seen")
    assert row(found, "account", "subordinate ids")[2] == "uids none, gids 100000-165535"
    assert changes(found, "account", "subordinate ids") == ["add_subids"]
    assert row(found, "account", "password and expiry")[2] == "no shadow line"
    assert changes(found, "account", "password and expiry") == ["complete_shadow"]


def test_groups_come_from_the_tier_and_the_others_are_their_own(machine: Machine) -> None:
    found = told(machine.account("alice", 1000, "video", "docker"), "alice", site=POLICY)
    docker, sudo = (f"tier admin, site.yaml:{line(POLICY, word)}" for word in ("groups: [docker", "sudo], admin"))
    assert row(found, "groups", "docker") == ("member", docker, "member")
    assert row(found, "groups", "sudo") == ("member", sudo, "not a member")
    assert row(found, "groups", "their own") == ("kept", "never taken away", "alice video")
    assert changes(found, "groups", "sudo") == ["add_to_groups"]
    assert changes(found, "groups", "docker") == []
    assert row(told(machine, "alice"), "groups", "sudo")[1] == "tier admin, default"


def test_a_group_that_the_machine_lacks(machine: Machine) -> None:
    others = "  power-user: {}\n  namespace-owner: {namespaces: required}\n"
    policy = f"create_groups: true\ntiers:\n  admin: {{groups: [lab]}}\n{others}"
    found = told(machine.account("alice", 1000), "alice", site=policy)
    assert row(found, "groups", "lab") == ("member", "tier admin, site.yaml:3", "no such group here")
    assert changes(found, "groups", "lab") == ["add_to_groups", "create_group"]


# --- services ---


def test_a_service_is_on_by_default_and_off_where_something_says_so(machine: Machine) -> None:
    found = told(machine.account("bob", 1000), "bob")
    assert row(found, "service t3", "switch") == ("on", "default", "")
    assert row(found, "service playwright", "switch") == ("off", "roster.yaml:6", "")
    assert row(found, "service playwright", "port") == ("none", "roster.yaml:6", "none")
    policy = "services:\n  lab:\n    units: [lab@.service]\n    enabled: false\n"
    roster = ROSTER.replace(", services: {playwright: false}", "")
    found = told(machine.account("bob", 1000), "bob", roster, policy)
    assert row(found, "service lab", "switch") == ("off", "site.yaml:4", "")
    assert row(found, "service lab", "lab@bob.service") == (
        "disabled, inactive",
        "site.yaml:4",
        "no template installed",
    )


def test_a_port_is_kept_given_or_somebody_elses(machine: Machine) -> None:
    kept = machine.account("bob", 1000).env_file("t3", "bob", "3800").listener(3800, 1000, "t3-serve@bob.service", 7)
    assert row(told(kept, "bob"), "service t3", "port") == (
        "3800",
        "kept",
        "3800 in /etc/t3-serve/bob.env, listening (pid 7)",
    )
    new = told(machine.account("bob", 1000).listener(3773, 5), "bob")
    assert row(new, "service t3", "port") == ("3775", "lowest from 3773, default", "none")
    assert changes(new, "service t3", "port") == ["write_port"]
    held = told(kept.having(listeners=()).account("eve", 1005).listener(3800, 1005, "x.service", 9), "bob")
    assert row(held, "service t3", "port")[2].endswith("held by pid 9, user eve, x.service")
    assert changes(held, "service t3", "port") == ["conflict"]


def test_the_rule_of_a_new_port_is_where_the_site_says_it(machine: Machine) -> None:
    policy = (
        "services:\n  lab:\n    units: [lab@.service]\n"
        "    port: {variable: P,\n           base: 9000, env_file: '/etc/lab/{user}.env'}\n"
    )
    roster = ROSTER.replace(", services: {playwright: false}", "")
    found = told(machine.account("bob", 1000), "bob", roster, policy)
    assert row(found, "service lab", "port")[1] == "lowest from 9000, site.yaml:5"


def test_a_port_that_cannot_be_read(machine: Machine) -> None:
    found = told(machine.account("bob", 1000).env_file("t3", "bob", "many"), "bob")
    assert row(found, "service t3", "port") == ("a port", "from 3773, default", "not usable")
    assert changes(found, "service t3", "port") == ["conflict"]
    problem = machine.account("bob", 1000).having(env_files={("t3", "bob"): EnvFile(exists=True, problem="is a FIFO")})
    assert changes(told(problem, "bob"), "service t3", "port") == ["conflict"]


@pytest.mark.parametrize(
    ("state", "enabled", "there", "change"),
    [
        (UnitState("active", "running"), True, "enabled, active (running)", []),
        (FAILED, True, "enabled, failed (failed)", ["run_unit"]),
        (UnitState("active", "running"), False, "disabled, active (running)", ["run_unit"]),
        (UnitState("activating", "auto-restart"), True, "enabled, activating (auto-restart)", ["unhealthy"]),
    ],
)
def test_a_unit(machine: Machine, state: UnitState, there: str, change: list[str], *, enabled: bool) -> None:
    unit = "t3-serve@bob.service"
    found = told(
        machine.person("bob", 1000, 3773, 8931).having(units=machine.observed.units).unit(unit, state, enabled=enabled),
        "bob",
    )
    assert row(found, "service t3", unit) == ("enabled, active", "default", there)
    assert changes(found, "service t3", unit) == change


def test_a_unit_that_is_masked_or_without_template(machine: Machine) -> None:
    unit = "t3-serve@bob.service"
    masked = machine.account("bob", 1000).having(units=replace(machine.observed.units, masked=frozenset([unit])))
    assert row(told(masked, "bob"), "service t3", unit)[2] == "masked, inactive"
    assert changes(told(masked, "bob"), "service t3", unit) == ["warning"]
    bare_units = machine.account("bob", 1000).having(units=Units(states={}))
    assert row(told(bare_units, "bob"), "service t3", unit)[2] == "no template installed"
    assert changes(told(bare_units, "bob"), "service t3", unit) == ["conflict"]


def test_old_units_of_their_own_make_way(machine: Machine) -> None:
    work = HomeWork(legacy_units={("carol", "playwright"): ("playwright-mcp.service",)})
    found = told(machine.account("carol", 1000).having(home_work=work), "carol")
    assert row(found, "service playwright", "units of their own") == ("retired", "default", "playwright-mcp.service")
    assert changes(found, "service playwright", "units of their own") == ["retire_units"]


# --- maps ---


def test_lines_of_the_maps(machine: Machine) -> None:
    has = machine.person("alice", 1000, 3773, 8931).output(OutputKind.TTYD_ADMINS, "alice\n")
    has = has.output(OutputKind.DISPATCH_JSON, '{"alice.x": {"os_user": "alice", "port": 3999}}')
    found = told(has, "alice", site=POLICY)
    admins = f"tier admin, site.yaml:{line(POLICY, 'admin: true')}"
    assert row(found, "maps", "/etc/ttyd-user-map") == ("alice.x = alice", "roster.yaml:3", "no such file")
    assert row(found, "maps", "/etc/ttyd-admins") == ("alice", admins, "alice")
    assert row(found, "maps", "/etc/t3-serve/dispatch.json") == ("alice.x → 3773", "roster.yaml:3", "alice.x → 3999")
    assert changes(found, "maps", "/etc/ttyd-admins") == []
    assert changes(found, "maps", "/etc/t3-serve/dispatch.json") == ["write_output"]


def test_a_change_of_other_peoples_lines_is_no_change_of_theirs(machine: Machine) -> None:
    has = machine.person("bob", 1000, 3773, 8931)
    has = has.output(OutputKind.TTYD_USER_MAP, "bob.x=bob\ngone.x=gone\n")
    assert changes(told(has, "bob"), "maps", "/etc/ttyd-user-map") == []
    assert changes(told(has, "gone"), "maps", "/etc/ttyd-user-map") == ["write_output"]
    assert told(has, "gone").because == "is not in roster.yaml and has no account"


def test_a_map_that_is_not_of_its_format_is_left_alone(machine: Machine) -> None:
    found = told(machine.person("bob", 1000, 3773, 8931).output(OutputKind.DISPATCH_JSON, "{"), "bob")
    assert row(found, "maps", "/etc/t3-serve/dispatch.json") == ("", "nothing is planned", "not of its format")


def test_a_port_of_another_is_routed_to_nobody(machine: Machine) -> None:
    held = machine.account("bob", 1000).env_file("t3", "bob", "3800").listener(3800, 5, "x.service")
    found = told(held, "bob")
    assert row(found, "maps", "/etc/t3-serve/dispatch.json")[:2] == ("no line", "t3 has no port of theirs")


# --- homes ---


def test_home_steps_and_where_they_are_defined(machine: Machine) -> None:
    found = told(machine.account("carol", 1000), "carol", site=POLICY)
    infra, base, app = (f"site.yaml:{line(POLICY, word)}" for word in ("infra_url", "repo_base", "app: {"))
    assert infra != base
    assert row(found, "home steps", "code") == ("~/code, workspace", infra, "not done yet")
    assert row(found, "home steps", "code/infra")[:2] == ("clone ~/code/infra", infra)
    assert row(found, "home steps", "code/api")[1] == f"roster.yaml:{line(ROSTER, 'repos: [api]')}"
    assert row(found, "home steps", "app") == ("folder ~/app", app, "not done yet")
    assert changes(found, "home steps", "code/api") == ["take_home_step"]
    assert row(found, "home steps", "playwright-mcp")[2] == "left out, no agent's command here"
    assert row(found, "home steps", "playwright-token")[2] == "left out, no /etc/rosterd/playwright-token here"


def test_steps_that_went_wrong_and_those_that_wait_for_them(machine: Machine) -> None:
    record = StepRecord("", Ending.FAILED, "the disk is full", NOW - 60, failures=1)
    site = parse_site("site.yaml", POLICY.encode())
    people = parse_roster("roster.yaml", ROSTER.encode(), site, ())
    code = look(Seen(machine.observed), Inputs(people, site, "")).desired.users["carol"].steps[0]
    work = HomeWork(records={"carol": {"code": replace(record, digest=code.digest())}})
    found = told(machine.account("carol", 1000).having(home_work=work), "carol", site=POLICY)
    assert row(found, "home steps", "code")[2] == "failed, 2027-01-15 07:59 UTC"
    assert changes(found, "home steps", "code") == ["unhealthy"]
    assert row(found, "home steps", "code/api")[2] == "waits for code"


def test_steps_rest_while_parked(machine: Machine) -> None:
    found = told(machine.account("frances", 1000), "frances", site=POLICY)
    assert row(found, "home steps", "app")[2] == "not done; rests while parked"


def test_a_source_that_is_no_good_is_told_at_its_step(machine: Machine) -> None:
    work = HomeWork(sources={"/etc/rosterd/playwright-token": Source("", "/etc/rosterd/playwright-token is a link")})
    found = told(machine.account("carol", 1000).having(home_work=work), "carol")
    assert changes(found, "home steps", "playwright-token") == ["conflict"]


# --- what cannot be seen, and whom there is nothing to tell of ---


def test_without_root_it_says_what_it_could_not_see(machine: Machine) -> None:
    seen = machine.person("bob", 1000, 3773, 8931).having(
        shadow=None,
        env_files=None,
        records=None,
        home_work=None,
        outputs={},
        units=Units(states=None, why="no bus"),
        unseen=("shadow lines (/etc/shadow: Permission denied)",),
    )
    found = told(seen, "bob", site=POLICY)
    assert row(found, "account", "password and expiry")[2] == "not seen"
    port = ("a port", "kept, or from 3773, default", "not seen: /etc/t3-serve/bob.env")
    assert row(found, "service t3", "port") == port
    assert row(found, "service t3", "t3-serve@bob.service")[2] == "not seen"
    assert row(found, "maps", "/etc/ttyd-user-map") == ("", "nothing is planned", "not seen")
    assert row(found, "home steps", "app")[2] == "not seen"
    assert row(found, "roster", "k8s_user")[2] == "not seen"
    assert found.unseen == ("shadow lines (/etc/shadow: Permission denied)", "units (no bus)")
    assert explanation_text(found).endswith(
        "Could not be seen: units (no bus)\nAs far as could be seen, a run would change nothing for bob.\n"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("alicia", "'alicia' is neither on the roster, nor managed, nor cut off, nor deleted; did you mean 'alice'?"),
        ("tolld", "; did you mean 'told'?"),
        ("ded", "; did you mean 'dead'?"),
        ("nobody-like-it", "nor deleted"),
        ("root", "'root' has an account that rosterd does not manage, and is neither"),
    ],
)
def test_a_name_that_nobody_has(machine: Machine, name: str, text: str) -> None:
    machine = machine.account("told", 1001).cut("told").buried("dead", 1002)
    with pytest.raises(UnknownName) as caught:
        known(machine, name)
    assert text in str(caught.value)


def test_the_name_that_may_be_meant_does_nothing_to_a_terminal(machine: Machine) -> None:
    with pytest.raises(UnknownName) as caught:
        known(machine.output(OutputKind.TTYD_ADMINS, "mapped\x1b[31m\n"), "mapped")
    assert "did you mean 'mapped\\x1b[31m'?" in str(caught.value)


def test_a_name_that_only_root_could_know(machine: Machine) -> None:
    with pytest.raises(UnknownName, match="only root can see who was deleted"):
        known(machine.having(records=None), "dead")


@pytest.mark.parametrize("name", ["alice", "managed", "told", "dead", "mapped", "begun", "ghost"])
def test_names_that_somebody_has(machine: Machine, name: str) -> None:
    known(
        machine.account("managed", 1000)
        .account("told", 1001)
        .cut("told")
        .buried("dead", 1002)
        .recorded("begun", 1003)
        .member("ghost", "rosterd")
        .output(OutputKind.TTYD_ADMINS, "mapped\n"),
        name,
    )


def known(machine: Machine, name: str) -> None:
    people = parse_roster("roster.yaml", ROSTER.encode(), SITE, ())
    seen = look(Seen(machine.observed), Inputs(people, SITE, ""))
    check_known(name, people, seen.observed, seen.plan)


# --- as text and as JSON ---


def test_the_text_marks_what_a_run_would_change(machine: Machine) -> None:
    has = machine.person("alice", 1000, 3773, 8931).unit("t3-serve@alice.service", FAILED)
    text = explanation_text(told(has, "alice", site=POLICY))
    (failed,) = (one for one in text.splitlines() if one.startswith("  ~ t3-serve@alice.service"))
    assert failed.split()[-2:] == ["failed", "(failed)"]
    assert "\n        ~ t3-serve@alice.service: failed → running\n" in text
    assert text.startswith("alice is on the roster (roster.yaml:2).\n")


def test_columns_line_up_and_what_is_too_wide_goes_on_below(machine: Machine) -> None:
    lines = explanation_text(told(machine.person("bob", 1000, 3773, 8931), "bob")).splitlines()
    head = next(one for one in lines if one.startswith("roster "))
    columns = [head.index(word) for word in ("wanted", "why", "there")]
    place = next(number for number, one in enumerate(lines) if one[4:] == "playwright-snapshot-refresh@bob.timer")
    assert lines[place + 1][: columns[0]].strip() == ""
    assert lines[place + 1][columns[0] :].startswith("disabled, inactive")
    account = next(one for one in lines if one.startswith("    account "))
    assert [account[start - 2 : start + 3] for start in columns] == ["  man", "  ros", "  uid"]


def test_a_last_line_counts(machine: Machine) -> None:
    done = MemoryHost(machine.observed)
    people = parse_roster("roster.yaml", ROSTER.encode(), SITE, ())
    run(done, people)
    found = told(Machine(done.observed), "carol")
    assert explanation_text(found).splitlines()[-1] == "A run would change nothing for carol."
    assert "A run would make 11 changes for alice." in explanation_text(told(machine, "alice"))
    held = machine.account("bob", 1000).env_file("t3", "bob", "many").known(*people.users)
    assert explanation_text(told(held, "bob")).splitlines()[-1].endswith("for bob; 1 conflict.")


def test_a_run_that_would_stop_changes_nothing(machine: Machine) -> None:
    policy, people = SITE, parse_roster("roster.yaml", ROSTER.encode(), SITE, ())
    seen = look(Seen(machine.observed), Inputs(people, policy, ""))
    text = explanation_text(explain(case_of("alice", people, policy, seen, Sources()), "alice: another tier"))
    assert "A run would stop before it changes anything: alice: another tier\n" in text
    assert text.endswith("A run would change nothing for alice.\n")


def test_what_comes_from_elsewhere_is_escaped(machine: Machine) -> None:
    has = machine.account("zed", 1000).present("zed", processes=(process(7, 1000, "\x1b[31mx"),))
    text = explanation_text(told(has, "zed"))
    assert "\x1b" not in text
    assert "\\x1b[31mx 7" in text


def test_the_document_for_programs(machine: Machine) -> None:
    found = explanation_json(told(machine.account("bob", 1000).login("bob", CUT), "bob"))
    assert (found["version"], found["name"], found["state"]) == (1, "bob", "active")
    assert found["changes"] == len([one for row in found["attributes"] for one in row["actions"]])
    account = next(one for one in found["attributes"] if one["name"] == "account")
    assert account | {"findings": []} == {
        "topic": "account",
        "name": "account",
        "wanted": "managed",
        "why": "roster.yaml:6",
        "there": "uid 1000, managed",
        "actions": [],
        "findings": [],
    }
    assert [one["kind"] for one in account["findings"]] == ["warning"]


# --- every action and every finding, once ---

many = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def check_everything_is_told_once(observed: Observed, people: Roster) -> None:
    seen = look(Seen(observed), Inputs(people, SITE, ""))
    names = {one.user for one in (*seen.plan.actions, *seen.plan.findings) if one.user} | people.users.keys()
    for name in sorted(names):
        found = explain(case_of(name, people, SITE, seen, Sources()))
        spots = Counter((one.topic, one.name) for one in found.attributes)
        assert max(spots.values()) == 1
        own = [action for action in seen.plan.actions if action.user == name]
        told_actions = list(found.actions)
        assert [told_actions.count(action) for action in own] == [1] * len(own)
        findings = [one for one in seen.plan.findings if one.user == name]
        assert sorted(one.text for one in found.findings) == sorted(one.text for one in findings)
        check_maps(name, seen.plan, observed, told_actions)
        check_the_account_has_its_own_alone(found)


def check_maps(name: str, plan: Plan, observed: Observed, actions: list[Action]) -> None:
    """See that a change of a map is told to whom it gives or takes a line, and to nobody else."""
    told_maps = [action.output for action in actions if isinstance(action, WriteOutput)]
    written = {action.output: action.text for action in plan.actions if isinstance(action, WriteOutput)}
    before, after = (
        {kind: {route for route in parse(kind, texts[kind]) if route.user == name} for kind in written}
        for texts in (observed.outputs, written)
    )
    assert sorted(told_maps) == sorted(kind for kind in written if before[kind] != after[kind])


def check_the_account_has_its_own_alone(found: Explanation) -> None:
    """See that nothing was put to the account because its own place is missing."""
    kinds = {"create_account", "adopt_account", "complete_group", "complete_group_shadow"}
    kinds |= {"confirm_account", "forget_record", "remove_ghost"}
    account = at(found, "account", "account")
    assert {action.kind for action in account.actions} - {"record_identities"} <= kinds


@many
@given(scenarios())
def test_a_plan_is_told_whole_and_once(scenario: Scenario) -> None:
    check_everything_is_told_once(scenario.machine.observed, scenario.roster)


@many
@given(settled(), st.data())
def test_so_is_one_of_people_who_leave_and_return(found: Settled, data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.sampled_from(found.cuttable)))
    left = found.without(gone)
    check_everything_is_told_once(found.machine.observed, left)
    host = MemoryHost(found.machine.observed)
    run(host, left, allow_cuts=len(gone))
    check_everything_is_told_once(host.observed, left)
    check_everything_is_told_once(host.observed, found.roster)


def test_what_else_runs_as_somebody_who_leaves_is_told_with_it(machine: Machine) -> None:
    has = machine.account("zed", 1000).present("zed", units=(service("zed-bot.service", enabled=True),))
    found = told(has, "zed")
    assert changes(found, "leaving", "other units") == ["halt_unit", "warning"]
    assert row(found, "leaving", "other units")[2] == "zed-bot.service active"
    assert [step.value for step in Step if changes(found, "leaving", step) == ["pending"]] == list(Step)


def test_steps_of_a_run_come_in_its_order(machine: Machine) -> None:
    (action,) = (one for one in told(machine, "alice").actions if isinstance(one, CreateAccount))
    assert action.groups == ("code-shared", "docker", "sudo", "rosterd")
    phases = [[one.phase for one in row.actions] for row in told(machine.account("zed", 1000), "zed").attributes]
    assert all(first <= second for row in phases for first, second in pairwise(row))


@pytest.fixture
def machine() -> Machine:
    """Return a machine with the groups of the default site and its templates, and nobody on it."""
    return bare()
