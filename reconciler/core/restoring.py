"""`rosterd restore` and `rosterd forget`: a deleted person comes back, or their name is let go."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import Observed
from reconciler.core.plan_cuts import is_shut
from reconciler.core.records import Tombstone
from reconciler.core.removal import (
    Belongings,
    CloseAccount,
    CompleteOwnGroup,
    DropStaging,
    ForgetCut,
    Match,
    RecordCut,
    RecreateAccount,
    RecreateGroups,
    RejoinGroups,
    Removal,
    RemoveTombstone,
    ReopenTombstone,
    RestoreEnvFiles,
    RestorePassword,
    RestoreTree,
    RetireIds,
    ReturnSubids,
    Spans,
)
from reconciler.core.removal_rules import bad_home, refuse, some, subids_of
from reconciler.errors import RemovalRefused, UnknownName


def tombstone_of(name: str, observed: Observed) -> Tombstone:
    """Return what a deleted person had. Raises `UnknownName`."""
    stone = observed.on_record.tombstones.get(name)
    if stone is None:
        raise UnknownName(f"'{name}' is not on record as deleted")
    return stone


def restore_steps(stone: Tombstone, observed: Observed, has: Belongings) -> list[Removal]:
    """Return what is left to do. Raises `RemovalRefused` with every reason that stands against it."""
    refuse(f"{stone.name} is not restored", _against_restoring(stone, observed, has))
    name = stone.name
    steps: list[Removal] = [DropStaging(name, has.staging)] if has.staging else []
    if stone.complete:
        steps.append(ReopenTombstone(name))
    if name not in observed.on_record.cuts:
        steps.append(RecordCut(name, stone.cut))
    steps += _account(stone, observed)
    for part, tree in has.trees.items():
        if tree.archived and tree.match is not Match.WHOLE:
            steps.append(RestoreTree(name, part, tree.path, stone.uid, replaces=tree.exists))
    if env_files := tuple(path for path in has.archived_env if path not in has.env_files):
        steps.append(RestoreEnvFiles(name, env_files))
    if name not in observed.accounts or not has.login_as_archived:
        steps.append(RestorePassword(name))
    steps.append(RemoveTombstone(name, stone.archive))
    return steps


def lost_groups(stone: Tombstone, observed: Observed) -> tuple[str, ...]:
    """Return the groups that the person was in and the host has no more."""
    return tuple(group for group in stone.groups if group not in observed.groups and group != MANAGED_GROUP)


def taken_subids(stone: Tombstone, observed: Observed) -> tuple[tuple[int, int], ...]:
    """Return the ranges of subordinate ids, (first, count), that somebody else has by now."""
    uids, gids = _free_again(stone, observed)
    return tuple(sorted((set(stone.subuids) - set(uids)) | (set(stone.subgids) - set(gids))))


def _account(stone: Tombstone, observed: Observed) -> Iterator[Removal]:
    name = stone.name
    groups = tuple(group for group in stone.groups if group in observed.groups or group == MANAGED_GROUP)
    own = observed.groups.get(name)
    if own is None or MANAGED_GROUP not in observed.groups:
        yield RecreateGroups(name, stone.gid if own is None else None, MANAGED_GROUP not in observed.groups)
    if observed.lacks_group_shadow(name):
        yield CompleteOwnGroup(name)
    if name not in observed.accounts:
        yield RecreateAccount(name, stone, groups)
    else:
        if not is_shut((observed.shadow or {}).get(name)):
            yield CloseAccount(name)
        if missing := tuple(group for group in groups if group not in observed.groups_of(name)):
            yield RejoinGroups(name, missing)
    has_uids, has_gids = subids_of(name, observed)
    uids, gids = _free_again(stone, observed)
    if (uids and not has_uids) or (gids and not has_gids):
        yield ReturnSubids(name, () if has_uids else uids, () if has_gids else gids)


def _against_restoring(stone: Tombstone, observed: Observed, has: Belongings) -> Iterator[str]:
    yield from _taken(stone, observed)
    yield from bad_home(stone.home, has.place)
    if has.archive_problem:
        yield has.archive_problem
        return
    for part, tree in has.trees.items():
        if tree.match is Match.OTHER:
            told = "; ".join(some(tree.differences))
            yield f"{part} {tree.path} is there already and holds other things than the archive: {told}"
    for path in has.differing_env:
        yield f"{path} is there already and has another text than the archive"


def _taken(stone: Tombstone, observed: Observed) -> Iterator[str]:
    """Yield what of name, uid and gid is somebody else's by now."""
    account, holder = observed.accounts.get(stone.name), observed.names_by_uid.get(stone.uid)
    if account is not None and account.uid != stone.uid:
        yield f"the name has an account with uid {account.uid}; theirs was {stone.uid}"
    if holder is not None and holder != stone.name:
        yield f"the uid {stone.uid} is {holder}'s now"
    for group in observed.groups.values():
        if group.name == stone.name and group.gid != stone.gid:
            yield f"there is a group {group.name} with gid {group.gid}; theirs was {stone.gid}"
        if group.gid == stone.gid and group.name != stone.name:
            yield f"the gid {stone.gid} is that of the group {group.name} now"
    cut = observed.on_record.cuts.get(stone.name)
    if cut is not None and cut.uid != stone.uid:
        yield f"somebody else, with uid {cut.uid}, is on record as cut off under this name"


def _free_again(stone: Tombstone, observed: Observed) -> tuple[Spans, Spans]:
    """Return the old subordinate ids that nobody else has by now."""
    uids, gids = (
        tuple(
            (first, count)
            for first, count in old
            if not any(
                span.owner != stone.name and span.first < first + count and first < span.first + span.count
                for span in now or ()
            )
        )
        for old, now in ((stone.subuids, observed.subuids), (stone.subgids, observed.subgids))
    )
    return uids, gids


def forget_steps(name: str, observed: Observed) -> list[Removal]:
    """Return the steps that let a name go. Raises `UnknownName` or `RemovalRefused`."""
    records, account = observed.on_record, observed.accounts.get(name)
    stone, cut = records.tombstones.get(name), records.cuts.get(name)
    if stone is not None:
        if account is not None or not stone.complete:
            text = f"half deleted or half restored. First finish: rosterd destroy {name}, or rosterd restore {name}"
            raise RemovalRefused(f"{name} is not forgotten: {text}")
        return [_retire(name, stone.uid, stone.gid), RemoveTombstone(name, stone.archive)]
    if cut is None:
        raise UnknownName(f"nothing is on record of '{name}'")
    if account is not None and account.uid == cut.uid:
        raise UnknownName(f"'{name}' is cut off and has an account. To delete it: rosterd destroy {name}")
    return [_retire(name, cut.uid, cut.gid), ForgetCut(name)]


def _retire(name: str, *ids: int) -> RetireIds:
    return RetireIds(name, tuple(sorted(set(ids))))
