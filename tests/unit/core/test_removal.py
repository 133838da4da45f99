"""Deleting, restoring, forgetting: who can be meant, what stands against it, and what is left to do."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from reconciler.core.actions import Action
from reconciler.core.destroying import Request, check_destroy_name, destroy_steps
from reconciler.core.observed import Account, Group, Login, SubidRange
from reconciler.core.records import Records, Tombstone
from reconciler.core.removal import (
    ArchiveFiles,
    Belongings,
    CloseAccount,
    CompleteOwnGroup,
    DeleteTree,
    DropOrphans,
    HomePlace,
    Match,
    Part,
    RecreateAccount,
    RecreateGroups,
    RejoinGroups,
    Removal,
    RestoreTree,
    RetireIds,
    ReturnSubids,
    Tree,
    WriteTombstone,
)
from reconciler.core.restoring import forget_steps, lost_groups, restore_steps, taken_subids, tombstone_of
from reconciler.errors import RemovalRefused, UnknownName
from tests.unit.facts import Machine, bare, process

UID = 1001
ARCHIVE = "/var/lib/rosterd/archives/alice.tar.gz"
ENV = "/etc/t3-serve/alice.env"
SPAN = (165536, 65536)


def cut_off() -> Machine:
    """Return a machine on which alice is cut off and bob works."""
    return bare().account("alice", UID, "docker").account("bob", 1002).cut("alice")


def belongings(
    *, home: str = "/home/alice", parts: Collection[Part] = tuple(Part), match: Match | None = None, **facts: object
) -> Belongings:
    """Return what alice has: these parts, an env file, and a home that lies where it says."""
    paths = {Part.HOME: home, Part.MAIL: "/var/mail/alice", Part.JOBS: "/var/spool/cron/rosterd-held/alice"}
    trees = {
        part: Tree(path, exists=part in parts, uid=UID, match=match if part in parts else None, archived=True)
        for part, path in paths.items()
    }
    has = Belongings(
        trees=trees, place=HomePlace(home), gecos="Alice", env_files=(ENV,), has_shadow=True, is_compared=True
    )
    return replace(has, **facts)  # type: ignore[arg-type]


def with_tree(has: Belongings, part: Part, **facts: object) -> Belongings:
    """Return the same with other facts about one part."""
    return replace(has, trees={**has.trees, part: replace(has.trees[part], **facts)})  # type: ignore[arg-type]


GONE = belongings(parts=(), env_files=(), has_shadow=False)


def destroying(of: Machine, has: Belongings, open_cut: tuple[str, ...] = ()) -> list[Removal]:
    return destroy_steps(Request("alice", ARCHIVE, open_cut, {"t3": 3773}), of.observed, has)


def kinds(steps: list[Removal]) -> list[str]:
    return [step.kind for step in steps]


def without_account(of: Machine) -> Machine:
    """Return the machine after userdel, with every trace of the account gone."""
    seen = of.observed
    groups = {
        name: replace(group, members=group.members - {"alice"})
        for name, group in seen.groups.items()
        if name != "alice"
    }
    return of.having(
        accounts={name: account for name, account in seen.accounts.items() if name != "alice"},
        groups=groups,
        shadow={name: login for name, login in (seen.shadow or {}).items() if name != "alice"},
        subuids=tuple(span for span in seen.subuids or () if span.owner != "alice"),
        subgids=tuple(span for span in seen.subgids or () if span.owner != "alice"),
    )


def without_cut(of: Machine) -> Machine:
    """Return the machine without any record of a cut."""
    return of.having(records=replace(of.observed.records or Records(), cuts={}))


def buried(of: Machine, **facts: object) -> Machine:
    """Return the machine with alice's tombstone."""
    old = {"groups": ("docker", "rosterd"), "subuids": (SPAN,), "subgids": (SPAN,), "ports": {"t3": 3773}}
    return of.buried("alice", UID, **{**old, "archive": ARCHIVE, "complete": False, **facts})


def why_not(of: Machine, has: Belongings, open_cut: tuple[str, ...] = ()) -> str:
    with pytest.raises(RemovalRefused) as refused:
        destroying(of, has, open_cut)
    return str(refused.value)


# --- nothing that runs by itself comes here ---


def test_no_action_of_a_run_is_one_that_deletes() -> None:
    assert not set(get_args(Action)) & set(get_args(Removal))
    told = {getattr(action, "kind", "") for action in get_args(Action)}
    assert not [kind for kind in told if re.search(r"delete|destroy|archive|tombstone", str(kind))]


def test_no_unit_and_no_script_of_the_package_destroys() -> None:
    top = Path(__file__).parents[3]
    files = [path for folder in ("units", "packaging") for path in (top / folder).rglob("*") if path.is_file()]
    files = [path for path in files if path.suffix != ".scd"]  # the manual page tells about it
    assert len(files) > 5
    started = r"rosterd (destroy|restore|forget)|userdel"
    assert not [path.name for path in files if re.search(started, path.read_text(errors="replace"))]


# --- destroy: whom ---


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nobody-here", "has no account"),
        ("root", "account of the system"),
        ("daemon", "account of the system"),
        ("stranger", "not managed"),
        ("bob", "is on the roster"),
    ],
)
def test_a_name_that_cannot_be_meant_is_wrong_usage(name: str, told: str) -> None:
    seen = cut_off().account("stranger", 1009, managed=False).observed
    system = {"root": Account("root", 0, 0, "/root", ""), "daemon": Account("daemon", 1, 1, "/usr/sbin", "")}
    seen = replace(seen, accounts={**seen.accounts, **system})
    with pytest.raises(UnknownName, match=told):
        check_destroy_name(name, {"bob"}, seen)


def test_somebody_cut_off_or_half_deleted_can_be_meant() -> None:
    check_destroy_name("alice", {"bob"}, cut_off().observed)
    check_destroy_name("alice", {"bob"}, buried(without_account(cut_off())).observed)


# --- destroy: what stands against it ---


def test_somebody_who_is_not_cut_off_is_refused() -> None:
    of = bare().account("alice", UID)
    assert "not cut off. Do that first: rosterd cut alice" in why_not(of, belongings())


def test_what_a_cut_has_left_open_is_named() -> None:
    of = cut_off().login("alice", Login(locked=True)).present("alice", processes=(process(77, UID),))
    told = why_not(of, belongings(), ("lingering: on → off",))
    assert "lingering: on → off; the login is open; 1 processes run. Run: rosterd cut alice" in told


def test_a_record_of_another_account_is_refused() -> None:
    of = cut_off()
    seen = of.observed.accounts["alice"]
    of = of.having(accounts={**of.observed.accounts, "alice": replace(seen, uid=1005)})
    assert "it is another one" in why_not(of, with_tree(belongings(), Part.HOME, uid=1005))


@pytest.mark.parametrize(
    ("home", "told"),
    [
        ("/", "no path of a person's own"),
        ("", "no path of a person's own"),
        ("home/alice", "no path of a person's own"),
        ("/home", "no path of a person's own"),
        ("/home/", "no path of a person's own"),
        ("/home/../etc", "no path of a person's own"),
        ("/home//alice", "no path of a person's own"),
        ("/usr/local", "folder of the system's"),
        ("/etc/alice", "folder of the system's"),
        ("/root/alice", "folder of the system's"),
    ],
)
def test_a_home_that_is_no_home_is_refused(home: str, told: str) -> None:
    of = cut_off()
    account = replace(of.observed.accounts["alice"], home=home)
    of = of.having(accounts={**of.observed.accounts, "alice": account})
    assert told in why_not(of, belongings(home=home))


def test_a_home_behind_a_link_or_a_mount_is_refused() -> None:
    place = HomePlace("/data/alice", ("/data",), ("/data/alice/mnt",))
    told = why_not(cut_off(), belongings(place=place))
    assert "reached through a link; it is /data/alice" in told
    assert "others than root can change what lies in /data" in told
    assert "umount /data/alice/mnt" in told


@pytest.mark.parametrize("part", [Part.HOME, Part.MAIL])
def test_files_of_somebody_else_are_refused(part: Part) -> None:
    assert "belongs to uid 1002, not to 1001" in why_not(cut_off(), with_tree(belongings(), part, uid=1002))


@pytest.mark.parametrize("part", list(Part))
def test_a_link_or_device_in_place_of_a_part_is_refused(part: Part) -> None:
    assert "no link is followed" in why_not(cut_off(), with_tree(belongings(), part, is_sound=False))


@pytest.mark.parametrize("home", ["/home/alice", "/home/alice/below", "/home"])
def test_a_home_shared_with_another_person_is_refused(home: str) -> None:
    of = cut_off()
    bob = replace(of.observed.accounts["bob"], home=home)
    assert "of bob share files" in why_not(of.having(accounts={**of.observed.accounts, "bob": bob}), belongings())


def test_accounts_of_the_system_without_a_home_share_none() -> None:
    of = cut_off()
    system = {"nobody": Account("nobody", 65534, 65534, "/", ""), "ftp": Account("ftp", 110, 110, "/home", "")}
    assert destroying(of.having(accounts={**of.observed.accounts, **system}), belongings())


def test_a_shared_uid_or_group_is_refused() -> None:
    of = cut_off()
    twin = Account("twin", UID, 1001, "/home/twin", "")
    of = of.having(accounts={**of.observed.accounts, "twin": twin}).member("bob", "alice")
    told = why_not(of, belongings())
    assert "twin has the same uid 1001" in told
    assert "twin has the same primary group (gid 1001)" in told
    assert "bob is in the group alice, which would go" in told


def test_a_primary_group_of_another_name_is_refused() -> None:
    of = cut_off()
    groups = {name: group for name, group in of.observed.groups.items() if name != "alice"}
    told = why_not(of.having(groups={**groups, "users": Group("users", UID, frozenset())}), belongings())
    assert "is none of the name alice" in told


# --- destroy: the steps ---


def test_everything_goes_in_the_order_that_loses_nothing() -> None:
    steps = destroying(cut_off(), belongings())
    assert kinds(steps) == [
        "archive_files",
        "write_tombstone",
        "delete_home",
        "delete_mail",
        "delete_jobs",
        "delete_env_files",
        "release_subids",
        "delete_account",
        "forget_cut",
        "complete_tombstone",
    ]
    archive, stone = steps[0], steps[1]
    assert isinstance(archive, ArchiveFiles)
    assert archive.sources == ("/home/alice", "/var/mail/alice", "/var/spool/cron/rosterd-held/alice", ENV)
    assert isinstance(stone, WriteTombstone)
    assert stone.stone == Tombstone(  # noqa: S604 (`shell` is a field of passwd)
        name="alice",
        uid=UID,
        gid=UID,
        home="/home/alice",
        shell="/bin/zsh",
        gecos="Alice",
        groups=("docker", "rosterd"),
        subuids=(SPAN,),
        subgids=(SPAN,),
        ports={"t3": 3773},
        archive=ARCHIVE,
        digest="",
        since=cut_off().observed.now,
        cut=(cut_off().observed.records or pytest.fail("no records")).cuts["alice"],
    )


def test_somebody_without_any_files_is_archived_too() -> None:
    steps = destroying(cut_off(), belongings(parts=(), env_files=()))
    assert kinds(steps)[:3] == ["archive_files", "write_tombstone", "release_subids"]


@pytest.mark.parametrize("match", [Match.WHOLE, Match.PARTIAL])
def test_a_rerun_deletes_only_what_is_left_and_archives_nothing_again(match: Match) -> None:
    has = belongings(parts=[Part.MAIL], match=match, archived_env=(ENV,))
    assert kinds(destroying(buried(cut_off()), has)) == [
        "delete_mail",
        "delete_env_files",
        "release_subids",
        "delete_account",
        "forget_cut",
        "complete_tombstone",
    ]


def test_a_rerun_deletes_nothing_that_is_not_in_the_archive() -> None:
    has = belongings(match=Match.WHOLE, archived_env=(ENV,))
    has = with_tree(has, Part.HOME, match=Match.OTHER, differences=("/home/alice/new is not in the archive",))
    has = replace(has, differing_env=(ENV,))
    told = why_not(buried(cut_off()), has)
    assert "/home/alice/new is not in the archive" in told
    assert f"{ENV} has another text in the archive" in told


def test_a_rerun_deletes_nothing_without_the_archive() -> None:
    told = why_not(buried(cut_off()), belongings(archive_problem="the archive A is not there"))
    assert "the archive A is not there; put it back. Without it, nothing more is deleted" in told


def test_a_first_look_that_does_not_read_the_archive_refuses_nothing_for_it() -> None:
    assert "delete_home" in kinds(destroying(buried(cut_off()), belongings(is_compared=False)))


def test_once_no_file_is_left_the_archive_is_not_needed_to_go_on() -> None:
    has = belongings(parts=(), env_files=(), archive_problem="the archive A is not there")
    assert kinds(destroying(buried(cut_off()), has))[0] == "release_subids"


def test_an_account_opened_after_the_deletion_had_begun_is_refused() -> None:
    of = buried(cut_off()).login("alice", Login(locked=False))
    assert "the login is open" in why_not(of, belongings(match=Match.WHOLE, archived_env=(ENV,)))


def test_an_account_of_another_uid_is_never_taken_for_the_deleted_one() -> None:
    of = cut_off().buried("alice", 1777)
    assert "it is another one" in why_not(of, belongings())


def test_what_a_killed_userdel_leaves_is_cleaned() -> None:
    of = buried(without_account(cut_off()))
    groups = {**of.observed.groups, "alice": Group("alice", UID, frozenset())}
    half = of.having(groups=groups).member("alice", "docker")
    has = replace(GONE, has_shadow=True, has_gshadow=True, in_gshadow=("docker",))
    (step,) = [step for step in destroying(half, has) if isinstance(step, DropOrphans)]
    assert step == DropOrphans("alice", ("docker",), UID, shadow=True, gshadow=True)


def test_a_group_of_that_name_with_another_gid_is_somebody_elses() -> None:
    of = buried(without_account(cut_off()))
    of = of.having(groups={**of.observed.groups, "alice": Group("alice", 4711, frozenset())})
    assert "drop_orphans" not in kinds(destroying(of, replace(GONE, has_gshadow=True)))


def test_at_the_end_there_is_nothing_to_do() -> None:
    of = without_cut(buried(without_account(cut_off()), complete=True))
    assert destroying(of, GONE) == []
    assert kinds(destroying(buried(of), GONE)) == ["complete_tombstone"]


# --- restore ---


def stone_of(of: Machine) -> Tombstone:
    return tombstone_of("alice", of.observed)


def restoring(of: Machine, has: Belongings) -> list[Removal]:
    return restore_steps(stone_of(of), of.observed, has)


def why_not_restored(of: Machine, has: Belongings) -> str:
    with pytest.raises(RemovalRefused) as refused:
        restoring(of, has)
    return str(refused.value)


def deleted(**facts: object) -> Machine:
    """Return the machine after alice was deleted."""
    return without_cut(buried(without_account(cut_off()), complete=True, **facts))


ARCHIVED = replace(GONE, archived_env=(ENV,))


def test_everything_comes_back_closed_from_the_first_step() -> None:
    steps = restoring(deleted(), ARCHIVED)
    assert kinds(steps) == [
        "reopen_tombstone",
        "record_cut",
        "recreate_groups",
        "recreate_account",
        "return_subids",
        "restore_home",
        "restore_mail",
        "restore_jobs",
        "restore_env_files",
        "restore_password",
        "remove_tombstone",
    ]
    account = next(step for step in steps if isinstance(step, RecreateAccount))
    assert account.groups == ("docker", "rosterd")
    assert ReturnSubids("alice", (SPAN,), (SPAN,)) in steps


def test_what_an_interrupted_command_left_goes_first() -> None:
    left = ("/home/.alice.rosterd-new",)
    assert kinds(restoring(deleted(), replace(ARCHIVED, staging=left)))[0] == "drop_staging"
    assert kinds(destroying(cut_off(), belongings(staging=left)))[0] == "drop_staging"


def test_nobody_can_be_restored_who_was_not_deleted() -> None:
    with pytest.raises(UnknownName, match="not on record as deleted"):
        tombstone_of("bob", cut_off().observed)


def test_without_the_archive_nobody_is_restored() -> None:
    has = replace(ARCHIVED, archive_problem="the archive A is not the one that was made")
    assert "the archive A is not the one that was made" in why_not_restored(deleted(), has)


def test_a_rerun_does_only_what_is_left() -> None:
    of = buried(cut_off())
    has = belongings(match=Match.WHOLE, archived_env=(ENV,))
    assert kinds(restoring(of, has)) == ["remove_tombstone"]
    has = with_tree(replace(has, login_as_archived=False), Part.HOME, match=Match.PARTIAL)
    assert kinds(restoring(of, has)) == ["restore_home", "restore_password", "remove_tombstone"]
    assert RestoreTree("alice", Part.HOME, "/home/alice", UID, replaces=True) in restoring(of, has)


def test_what_a_killed_useradd_leaves_is_closed_and_completed() -> None:
    of = buried(cut_off())
    shadow = {name: login for name, login in (of.observed.shadow or {}).items() if name != "alice"}
    groups = {**of.observed.groups, "docker": Group("docker", 900, frozenset())}
    steps = restoring(of.having(shadow=shadow, groups=groups), belongings(match=Match.WHOLE, archived_env=(ENV,)))
    assert CloseAccount("alice") in steps
    assert RejoinGroups("alice", ("docker",)) in steps


def test_what_lies_there_and_is_something_else_is_not_touched() -> None:
    has = with_tree(ARCHIVED, Part.HOME, exists=True, match=Match.OTHER, differences=("/home/alice/x is not in it",))
    told = why_not_restored(deleted(), replace(has, differing_env=(ENV,)))
    assert "home /home/alice is there already and holds other things than the archive: /home/alice/x" in told
    assert f"{ENV} is there already and has another text" in told


def test_a_part_that_was_not_archived_is_not_restored() -> None:
    has = with_tree(ARCHIVED, Part.MAIL, archived=False)
    assert "restore_mail" not in kinds(restoring(deleted(), has))


def test_ids_and_names_that_are_somebody_elses_by_now_are_refused() -> None:
    of = deleted()
    accounts = {**of.observed.accounts, "carol": Account("carol", UID, 5000, "/home/carol", "")}
    groups = {**of.observed.groups, "crew": Group("crew", UID, frozenset()), "alice": Group("alice", 77, frozenset())}
    told = why_not_restored(of.having(accounts=accounts, groups=groups), ARCHIVED)
    assert "the uid 1001 is carol's now" in told
    assert "the gid 1001 is that of the group crew now" in told
    assert "there is a group alice with gid 77" in told
    accounts = {**of.observed.accounts, "alice": Account("alice", 1500, 1500, "/home/alice", "")}
    assert "the name has an account with uid 1500" in why_not_restored(of.having(accounts=accounts), ARCHIVED)


def test_groups_and_ranges_that_are_no_more_to_be_had_are_told() -> None:
    of = deleted(groups=("docker", "gone", "rosterd"))
    taken = SubidRange("bob", SPAN[0] + 10, 10)
    of = of.having(subuids=(*(of.observed.subuids or ()), taken))
    steps = restoring(of, ARCHIVED)
    assert lost_groups(stone_of(of), of.observed) == ("gone",)
    assert taken_subids(stone_of(of), of.observed) == (SPAN,)
    assert ReturnSubids("alice", (), (SPAN,)) in steps
    account = next(step for step in steps if isinstance(step, RecreateAccount))
    assert account.groups == ("docker", "rosterd")


def test_the_group_of_managed_accounts_is_made_if_it_is_gone() -> None:
    of = deleted()
    of = of.having(groups={name: group for name, group in of.observed.groups.items() if name != "rosterd"})
    assert RecreateGroups("alice", UID, managed=True) in restoring(of, ARCHIVED)


def test_a_group_that_a_killed_groupadd_left_without_its_gshadow_line_gets_it() -> None:
    of = deleted()
    of = of.having(groups={**of.observed.groups, "alice": Group("alice", UID, frozenset())})
    assert CompleteOwnGroup("alice") in restoring(of.having(shadow_groups=frozenset({"root"})), ARCHIVED)
    whole = of.having(shadow_groups=frozenset({"root", "alice"}))
    assert CompleteOwnGroup("alice") not in restoring(whole, ARCHIVED)


# --- forget ---


def test_a_forgotten_name_leaves_its_ids_to_nobody() -> None:
    steps = forget_steps("alice", deleted(gid=1500).observed)
    assert steps[0] == RetireIds("alice", (UID, 1500))
    assert kinds(steps) == ["retire_ids", "remove_tombstone"]


@pytest.mark.parametrize("of", [buried(cut_off()), buried(without_account(cut_off()))])
def test_somebody_half_deleted_is_not_forgotten(of: Machine) -> None:
    with pytest.raises(RemovalRefused, match="half deleted or half restored"):
        forget_steps("alice", of.observed)


def test_a_record_of_a_cut_that_no_account_goes_with_is_forgotten() -> None:
    steps = forget_steps("alice", without_account(cut_off()).observed)
    assert kinds(steps) == ["retire_ids", "forget_cut"]


@pytest.mark.parametrize(("name", "told"), [("alice", "rosterd destroy alice"), ("zoe", "nothing is on record")])
def test_nobody_else_can_be_forgotten(name: str, told: str) -> None:
    with pytest.raises(UnknownName, match=told):
        forget_steps(name, cut_off().observed)


# --- how it reads ---


def test_each_step_says_in_one_line_what_changes() -> None:
    has = replace(belongings(), staging=("/home/.alice.rosterd-new",))
    steps = [*destroying(cut_off(), has), *restoring(deleted(), ARCHIVED), *forget_steps("alice", deleted().observed)]
    steps += [DropOrphans("alice", ("docker",), UID, shadow=True, gshadow=True), CloseAccount("alice")]
    steps += [RejoinGroups("alice", ("docker",)), CompleteOwnGroup("alice")]
    assert {type(step) for step in steps} == set(get_args(Removal))
    for step in steps:
        assert step.user == "alice"
        assert "\n" not in step.describe()
    assert DeleteTree("alice", Part.HOME, "/home/alice", UID).describe() == "home /home/alice → deleted"
