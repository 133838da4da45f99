"""Accounts and groups: created, completed, adopted, refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.actions import CreateAccount
from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import Account, Group, Home, HomeKind, IdLimits, SubidRange
from reconciler.core.site import Site, Tier
from tests.unit.facts import Machine, bare, person, told

SUBIDS_OFF = Site(subids=False)


def marked() -> Machine:
    """Return a machine on which rosterd has run before."""
    groups = {**bare().observed.groups, MANAGED_GROUP: Group(MANAGED_GROUP, 999, frozenset())}
    return bare().having(groups=groups)


def half_made(**facts: object) -> Machine:
    """Return a machine on which `useradd alice` was killed: the account is marked, and on record."""
    machine = marked().account("alice", 1000).recorded("alice", 1000)
    return machine.having(skel_gaps={"alice": ()}, **facts)


# --- created ---


def test_a_missing_account_is_created_with_the_groups_of_its_tier() -> None:
    assert told(marked().plan(person("alice", "admin")), "alice")[0] == (
        "+ account: none → uid 1000, home /home/alice (0700), shell /bin/zsh,"
        " groups code-shared docker sudo rosterd, password locked"
    )


def test_the_first_run_creates_the_group_that_marks_accounts() -> None:
    assert told(bare().plan(person("alice")))[0] == "+ group rosterd: none → system group"


def test_new_people_get_the_lowest_uids_that_no_account_and_no_group_and_no_record_holds() -> None:
    machine = marked().account("dave", 1000, managed=False).having(intents={"erin": 1002}).member("nobody", "shop")
    groups = {**machine.observed.groups, "shop": Group("shop", 1001, frozenset())}
    plan = machine.having(groups=groups).plan(person("alice"), person("bob"))
    assert "uid 1003" in told(plan, "alice")[0]
    assert "uid 1004" in told(plan, "bob")[0]


def test_a_creation_that_was_killed_before_passwd_goes_on_with_its_uid() -> None:
    machine = marked().recorded("alice", 1005)
    own_group = {**machine.observed.groups, "alice": Group("alice", 1005, frozenset())}
    assert "uid 1005" in told(machine.plan(person("alice")), "alice")[0]
    again = machine.having(groups=own_group).plan(person("alice"))
    (create,) = [action for action in again.actions if isinstance(action, CreateAccount)]
    assert (create.uid, create.existing_gid) == (1005, 1005)


def test_a_recorded_uid_that_an_account_has_taken_meanwhile_is_given_up() -> None:
    machine = marked().account("dave", 1000, managed=False).recorded("alice", 1000)
    assert "uid 1001" in told(machine.plan(person("alice")), "alice")[0]


def test_a_recorded_uid_that_a_group_has_taken_meanwhile_is_given_up() -> None:
    groups = {**marked().observed.groups, "shop": Group("shop", 1000, frozenset())}
    machine = marked().recorded("alice", 1000).having(groups=groups)
    assert "uid 1001" in told(machine.plan(person("alice")), "alice")[0]


def test_when_the_uids_have_run_out_only_those_who_are_left_over_are_refused() -> None:
    machine = marked().having(limits=IdLimits(uid_min=1000, uid_max=1000))
    plan = machine.plan(person("alice"), person("bob"))
    assert "uid 1000" in told(plan, "alice")[0]
    assert told(plan, "bob") == ["conflict: no uid is left between 1000 and 1000 (login.defs)"]


def test_a_group_of_the_same_name_is_not_handed_to_a_new_account() -> None:
    groups = {**marked().observed.groups, "alice": Group("alice", 1500, frozenset({"dave"}))}
    (line,) = told(marked().having(groups=groups).plan(person("alice")), "alice")
    assert line.startswith("conflict: a group alice (gid 1500) exists without an account of that name")


def test_where_the_shell_is_missing_bash_is_taken_and_told() -> None:
    lines = told(marked().having(shell_exists=False).plan(person("alice")), "alice")
    assert "shell /bin/bash" in lines[0]
    assert lines[-1] == "warning: shell /bin/zsh does not exist on this host; created with /bin/bash"


def test_a_group_that_the_host_lacks_is_left_out_and_told_once() -> None:
    machine = marked()
    groups = {name: group for name, group in machine.observed.groups.items() if name != "docker"}
    plan = machine.having(groups=groups).plan(person("alice", "admin"), person("bob", "admin"))
    assert "groups code-shared sudo rosterd" in told(plan, "alice")[0]
    assert [line for line in told(plan) if "docker" in line] == [
        (
            "warning: group docker does not exist on this host; left out for alice, bob."
            " Create it, or set create_groups: true in the site file"
        )
    ]
    assert not plan.has_problems


def test_a_site_may_have_its_groups_created() -> None:
    site = Site(create_groups=True, tiers={"staff": Tier("staff", ("shop", "wheel"))})
    plan = marked().plan(person("alice", "staff"), site=site)
    assert told(plan)[:2] == ["+ group shop: none → system group", "+ group wheel: none → system group"]
    assert "groups shop wheel rosterd" in told(plan, "alice")[0]


# --- complete already ---


def test_a_complete_account_is_left_alone() -> None:
    assert told(marked().person("alice", 1000, 3773, 8931).plan(person("alice")), "alice") == []


def test_shell_home_and_extra_groups_are_the_persons_own() -> None:
    machine = marked().person("alice", 1000, 3773, 8931).member("alice", "video")
    account = Account("alice", 1000, 1000, "/srv/alice", "/usr/bin/fish")
    machine = machine.having(
        accounts={**machine.observed.accounts, "alice": account},
        homes={"alice": Home(HomeKind.FOLDER, 1000, 0o755)},
    )
    assert told(machine.plan(person("alice")), "alice") == []


def test_a_group_of_the_tier_that_is_missing_is_added_and_nothing_is_taken() -> None:
    machine = marked().account("alice", 1000, "video", "sudo")
    assert told(machine.plan(person("alice", "admin")), "alice")[0] == (
        "~ groups: alice rosterd sudo video → + code-shared docker"
    )


def test_the_primary_group_counts_as_membership() -> None:
    machine = marked().account("alice", 1000, "code-shared", "docker")
    account = replace(machine.observed.accounts["alice"], gid=27)  # sudo
    machine = machine.having(accounts={**machine.observed.accounts, "alice": account})
    assert not [line for line in told(machine.plan(person("alice", "admin")), "alice") if "groups:" in line]


# --- half made ---


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        pytest.param({"shadow": {}}, "~ shadow line: missing → password locked", id="shadow"),
        pytest.param(
            {"shadow_groups": frozenset({"root"})},
            "~ gshadow line of the group alice: missing → no password",
            id="gshadow",
        ),
        pytest.param(
            {"groups": marked().member("alice", MANAGED_GROUP).observed.groups},
            "~ primary group 1000: missing → alice",
            id="group",
        ),
        pytest.param(
            {"homes": {"alice": Home(HomeKind.MISSING)}},
            "~ home /home/alice: missing → made from /etc/skel (0700)",
            id="home",
        ),
        pytest.param(
            {"homes": {"alice": Home(HomeKind.FOLDER, 0, 0o755)}},
            "~ home /home/alice: empty, owned by root → made from /etc/skel (0700)",
            id="home of root's",
        ),
        pytest.param(
            {"homes": {"alice": Home(HomeKind.FOLDER, 1000, 0o755)}},
            "~ home /home/alice: mode 0755 → 0700",
            id="home open",
        ),
        pytest.param(
            {"subuids": (), "subgids": ()},
            "~ subordinate ids: missing → uids 100000-165535, gids 100000-165535",
            id="subids",
        ),
        pytest.param({"subgids": ()}, "~ subordinate ids: missing → gids 100000-165535", id="subgids alone"),
    ],
)
def test_what_a_killed_useradd_left_out_is_completed(facts: dict[str, object], line: str) -> None:
    assert line in told(half_made().having(**facts).plan(person("alice")), "alice")


@pytest.mark.parametrize(
    "groups",
    [{"alice": Group("alice", 1234, frozenset())}, {"staff": Group("staff", 1000, frozenset())}],
    ids=["of another id", "of another name"],
)
def test_the_gshadow_line_of_a_group_that_is_not_the_accounts_own_is_left_alone(groups: dict[str, Group]) -> None:
    others = {name: group for name, group in half_made().observed.groups.items() if name != "alice"}
    machine = half_made(groups=others | groups, shadow_groups=frozenset({"root"}))
    assert not [line for line in told(machine.plan(person("alice")), "alice") if "gshadow" in line]


def test_a_home_with_a_part_of_the_skel_is_filled_up() -> None:
    machine = half_made().having(skel_gaps={"alice": (".bashrc", ".profile")})
    line = "~ home /home/alice: 2 entries of /etc/skel missing → .bashrc .profile"
    assert line in told(machine.plan(person("alice")), "alice")


def test_the_record_of_a_creation_is_closed_once_nothing_is_left_to_complete() -> None:
    assert told(half_made().plan(person("alice")), "alice")[-1] == "~ account: being created → complete"


def test_a_creation_on_record_that_was_killed_before_the_mark_is_marked_first() -> None:
    machine = marked().account("alice", 1000, managed=False).recorded("alice", 1000)
    plan = machine.having(homes={"alice": Home(HomeKind.MISSING)}).plan(person("alice"))
    assert told(plan, "alice")[:2] == [
        "~ account: uid 1000 not managed → managed (group rosterd)",
        "~ home /home/alice: missing → made from /etc/skel (0700)",
    ]


def test_an_account_with_a_home_and_no_mark_is_somebody_elses_whatever_the_record_says() -> None:
    """The mark is written before the home: an account made by hand took the uid after the creation failed."""
    machine = marked().account("alice", 1000, managed=False).recorded("alice", 1000)
    plan = machine.plan(person("alice"))
    assert told(plan, "alice")[0].startswith("~ record of a creation with uid 1000: open → forgotten")
    assert told(plan, "alice")[1].startswith("conflict: account exists (uid 1000) and is not managed")


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(marked().recorded("dave", 1000), id="of somebody who is not on the roster"),
        pytest.param(marked().account("dave", 1001).recorded("dave", 1000), id="of another uid"),
    ],
)
def test_a_record_that_no_creation_goes_with_is_forgotten(machine: Machine) -> None:
    line = "~ record of a creation with uid 1000: open → forgotten (no such account of rosterd's)"
    assert line in told(machine.plan(person("alice")), "dave")


def test_an_account_without_group_and_home_is_a_leftover_even_without_a_record() -> None:
    machine = marked().account("alice", 1000, managed=False)
    groups = {name: group for name, group in machine.observed.groups.items() if name != "alice"}
    machine = machine.having(groups=groups, homes={"alice": Home(HomeKind.MISSING)})
    lines = told(machine.plan(person("alice")), "alice")
    assert "~ primary group 1000: missing → alice" in lines
    assert any(MANAGED_GROUP in line for line in lines)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"limits": IdLimits(uid_min=2000)}, id="a system account"),
        pytest.param({"homes": {"alice": Home(HomeKind.FOLDER, 1000, 0o700)}}, id="it has a home"),
    ],
)
def test_what_only_looks_like_a_leftover_is_not_taken(change: dict[str, object]) -> None:
    machine = marked().account("alice", 1000, managed=False)
    groups = {name: group for name, group in machine.observed.groups.items() if name != "alice"}
    missing = machine.having(groups=groups, homes={"alice": Home(HomeKind.MISSING)})
    (line,) = told(missing.having(**change).plan(person("alice")), "alice")
    assert line.startswith("conflict: account exists (uid 1000) and is not managed")


def test_subordinate_ids_go_into_the_lowest_gap_that_is_wide_enough() -> None:
    spans = (SubidRange("x", 100_000, 65536), SubidRange("y", 200_000, 65536), SubidRange("z", 400_000, 1))
    machine = half_made().having(subuids=spans, subgids=None)
    assert "~ subordinate ids: missing → uids 265536-331071" in told(machine.plan(person("alice")), "alice")


@pytest.mark.parametrize(
    ("change", "site"),
    [
        pytest.param({}, SUBIDS_OFF, id="the site wants none"),
        pytest.param({"subuids": None, "subgids": None}, Site(), id="the host keeps none"),
        pytest.param({"limits": IdLimits(subid_count=0)}, Site(), id="login.defs gives out none"),
        pytest.param(
            {"subuids": (SubidRange("1000", 5, 1),), "subgids": (SubidRange("alice", 5, 1),)},
            Site(),
            id="given by uid",
        ),
    ],
)
def test_nobody_is_given_subordinate_ids_where(change: dict[str, object], site: Site) -> None:
    machine = half_made(subuids=(), subgids=()).having(**change)
    assert not [line for line in told(machine.plan(person("alice"), site=site), "alice") if "subord" in line]


def test_what_could_not_be_seen_is_not_completed() -> None:
    machine = half_made(shadow=None, homes={}, subuids=None, subgids=None)
    assert told(machine.plan(person("alice")), "alice")[-1] == "~ account: being created → complete"


# --- refused and adopted ---


def test_an_account_that_is_not_managed_is_refused_and_nothing_else_is_done_for_it() -> None:
    plan = marked().account("alice", 1000, managed=False).plan(person("alice"))
    assert told(plan, "alice") == [
        (
            "conflict: account exists (uid 1000) and is not managed by rosterd; nothing is done for this person."
            " To take it over: `rosterd adopt alice`, or `adopt: true` in the roster"
        )
    ]
    assert plan.has_problems


def test_the_roster_can_adopt_an_account_which_is_then_marked_and_completed() -> None:
    machine = marked().account("alice", 1000, "video", managed=False)
    assert told(machine.plan(person("alice", "admin", adopt=True)), "alice")[:2] == [
        "~ account: uid 1000 not managed → managed (group rosterd)",
        "~ groups: alice video → + code-shared docker sudo",
    ]


def test_an_adopted_account_is_not_adopted_again() -> None:
    machine = marked().person("alice", 1000, 3773, 8931)
    assert told(machine.plan(person("alice", adopt=True)), "alice") == []


@pytest.mark.parametrize(
    ("home", "words"),
    [
        pytest.param(Home(HomeKind.SYMLINK, 1000, 0o777), "home /home/alice is a symbolic link", id="link"),
        pytest.param(Home(HomeKind.OTHER, 1000, 0o644), "home /home/alice is not a folder", id="file"),
        pytest.param(Home(HomeKind.NOWHERE), "is not there and cannot be made there", id="nowhere"),
        pytest.param(Home(HomeKind.UNREADABLE), "home /home/alice cannot be looked at", id="unreadable"),
        pytest.param(Home(HomeKind.FOLDER, 0, 0o755), "belongs to root, not to alice", id="root's"),
        pytest.param(Home(HomeKind.FOLDER, 4711, 0o755), "belongs to 4711, not to alice", id="nobody's"),
    ],
)
def test_a_home_that_is_not_the_users_own_folder_is_refused(home: Home, words: str) -> None:
    machine = marked().account("alice", 1000).having(homes={"alice": home})
    (line,) = told(machine.plan(person("alice")), "alice")
    assert line.startswith("conflict: ")
    assert words in line


@pytest.mark.parametrize(
    ("home", "words"),
    [
        (Home(HomeKind.FOLDER, 0, 0o755), "/home/alice is there already (belongs to root)"),
        (Home(HomeKind.SYMLINK), "/home/alice is there already (symlink)"),
    ],
)
def test_a_new_account_does_not_get_the_files_that_lie_where_its_home_would_be(home: Home, words: str) -> None:
    (line,) = told(marked().having(homes={"alice": home}).plan(person("alice")), "alice")
    assert line.startswith(f"conflict: {words}")


# --- ghosts ---


def test_a_marked_name_without_an_account_loses_the_mark_first() -> None:
    plan = marked().member("ghost", MANAGED_GROUP).plan(person("alice"))
    assert told(plan, "ghost") == ["~ group rosterd: ghost → nobody (no such account)"]
    assert plan.actions[0].user == "ghost"


def test_a_ghost_on_the_roster_loses_the_mark_before_the_account_is_made() -> None:
    plan = marked().member("alice", MANAGED_GROUP).plan(person("alice"))
    kinds = [action.kind for action in plan.actions if action.user == "alice"]
    assert kinds.index("remove_ghost") < kinds.index("create_account")


def test_an_account_whose_primary_group_marks_it_is_managed() -> None:
    machine = marked().account("alice", 1000, managed=False)
    accounts = {**machine.observed.accounts, "alice": Account("alice", 1000, 999, "/home/alice", "/bin/zsh")}
    assert not machine.having(accounts=accounts).plan(person("alice")).has_problems
