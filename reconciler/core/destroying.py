"""`rosterd destroy`: what stands against deleting a person for good, and the steps that are left to do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.core.observed import Account, Observed
from reconciler.core.plan_accounts import is_managed
from reconciler.core.plan_cuts import is_shut
from reconciler.core.records import Tombstone
from reconciler.core.removal import (
    ArchiveFiles,
    Belongings,
    CompleteTombstone,
    DeleteAccount,
    DeleteEnvFiles,
    DeleteTree,
    DropOrphans,
    DropStaging,
    ForgetCut,
    Part,
    ReleaseSubids,
    Removal,
    WriteTombstone,
)
from reconciler.core.removal_rules import bad_home, refuse, some, subids_of
from reconciler.errors import UnknownName


@dataclass(frozen=True, slots=True)
class Request:
    """What destroying is asked for: whom, where the archive goes, what of the cut a plan still wants, in words."""

    name: str
    archive: str
    open_cut: tuple[str, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)


def check_destroy_name(name: str, on_roster: Collection[str], observed: Observed) -> None:
    """See that the name is one that can be meant. Raises `UnknownName`."""
    account = observed.accounts.get(name)
    if account is not None and account.uid < observed.limits.uid_min:
        raise UnknownName(f"'{name}' is an account of the system (uid {account.uid}) and is never deleted")
    if name in on_roster:
        raise UnknownName(f"'{name}' is on the roster; take the entry out first, and let a run cut them off")
    if name in observed.on_record.tombstones:
        return
    if account is None:
        raise UnknownName(f"'{name}' has no account on this machine, and there is no record of one deleted")
    if not is_managed(observed, name):
        raise UnknownName(f"'{name}' is not managed by rosterd and is left alone")


def destroy_steps(request: Request, observed: Observed, has: Belongings) -> list[Removal]:
    """Return what is left to do. Raises `RemovalRefused` with every reason that stands against it."""
    refuse(f"{request.name} is not deleted", _against_destroying(request, observed, has))
    stone = observed.on_record.tombstones.get(request.name)
    steps: list[Removal] = [DropStaging(request.name, has.staging)] if has.staging else []
    if stone is None:
        stone = _tombstone(request, observed, has)
        sources = [tree.path for tree in has.trees.values() if tree.exists]
        steps.append(ArchiveFiles(request.name, request.archive, (*sources, *has.env_files)))
        steps.append(WriteTombstone(request.name, stone))
    steps += _deletions(stone, observed, has)
    if request.name in observed.on_record.cuts:
        steps.append(ForgetCut(request.name))
    if steps or not stone.complete:
        steps.append(CompleteTombstone(request.name))
    return steps


def _deletions(stone: Tombstone, observed: Observed, has: Belongings) -> Iterator[Removal]:
    name = stone.name
    for part, tree in has.trees.items():
        if tree.exists:
            yield DeleteTree(name, part, tree.path, stone.uid)
    if has.env_files:
        yield DeleteEnvFiles(name, has.env_files)
    if name in observed.accounts:
        uids, gids = subids_of(name, observed)
        if uids or gids:
            yield ReleaseSubids(name, uids, gids)
        yield DeleteAccount(name, stone.uid)
    elif orphans := _orphans(stone, observed, has):
        yield orphans


def _orphans(stone: Tombstone, observed: Observed, has: Belongings) -> DropOrphans | None:
    own = observed.groups.get(stone.name)
    memberships = tuple(sorted(group.name for group in observed.groups.values() if stone.name in group.members))
    gid = own.gid if own is not None and own.gid == stone.gid else None
    stale_line = has.has_gshadow and (own is None or gid is not None)
    gshadow = stale_line or bool(has.in_gshadow)
    if not (memberships or gid is not None or has.has_shadow or gshadow):
        return None
    return DropOrphans(stone.name, memberships, gid, has.has_shadow, gshadow)


def _tombstone(request: Request, observed: Observed, has: Belongings) -> Tombstone:
    account = observed.accounts[request.name]
    uids, gids = subids_of(request.name, observed)
    return Tombstone(
        name=request.name,
        uid=account.uid,
        gid=account.gid,
        home=account.home,
        shell=account.shell,
        gecos=has.gecos,
        groups=tuple(sorted(group.name for group in observed.groups.values() if request.name in group.members)),
        subuids=uids,
        subgids=gids,
        ports=dict(request.ports),
        archive=request.archive,
        digest="",  # not known before it is made
        since=observed.now,
        cut=observed.on_record.cuts[request.name],
    )


def _against_destroying(request: Request, observed: Observed, has: Belongings) -> Iterator[str]:
    stone = observed.on_record.tombstones.get(request.name)
    account = observed.accounts.get(request.name)
    if stone is not None and account is not None and account.uid != stone.uid:
        yield f"the tombstone is of uid {stone.uid}, but the account has uid {account.uid}: it is another one"
        return
    if account is not None:
        yield from _not_cut(request, account, observed, is_begun=stone is not None)
        yield from _shared(account, observed)
    uid = stone.uid if stone is not None else account.uid if account is not None else -1
    yield from _bad_trees(uid, has)
    yield from bad_home(stone.home if stone is not None else account.home if account is not None else "/", has.place)
    if stone is not None and has.is_compared and _is_anything_left(has):
        yield from _not_all_archived(stone, has)


def _not_cut(request: Request, account: Account, observed: Observed, *, is_begun: bool) -> Iterator[str]:
    """Yield what of the cut is missing. Once the deletion has begun, its tombstone has the record."""
    name = account.name
    record = observed.on_record.cuts.get(name)
    if record is None and not is_begun:
        yield f"not cut off. Do that first: rosterd cut {name}"
        return
    if record is not None and record.uid != account.uid:
        yield f"on record as cut off with uid {record.uid}, but the account has uid {account.uid}: it is another one"
        return
    left = list(request.open_cut)
    if not is_shut((observed.shadow or {}).get(name)):
        left.append("the login is open")
    presence = observed.presence.get(name)
    if presence is not None and presence.processes:
        left.append(f"{len(presence.processes)} processes run")
    if left:
        yield f"not fully cut off yet: {'; '.join(dict.fromkeys(left))}. Run: rosterd cut {name}"


def _shared(account: Account, observed: Observed) -> Iterator[str]:
    """Yield what of an account somebody else has too."""
    others = [other for other in observed.accounts.values() if other.name != account.name]
    if same := [other.name for other in others if other.uid == account.uid]:
        yield f"{', '.join(same)} has the same uid {account.uid}"
    own = observed.groups.get(account.name)
    if own is None or own.gid != account.gid:
        yield (
            f"the primary group (gid {account.gid}) is none of the name {account.name}. Make one of their own:"
            f" groupadd {account.name}; usermod --gid {account.name} {account.name}"
        )
    elif own.members - {account.name}:
        told = ", ".join(sorted(own.members - {account.name}))
        yield f"{told} is in the group {account.name}, which would go. Take them out: gpasswd --delete USER {own.name}"
    if same := [other.name for other in others if other.gid == account.gid]:
        yield f"{', '.join(same)} has the same primary group (gid {account.gid})"
    for other in others:
        is_person = other.uid >= observed.limits.uid_min
        if _is_within(other.home, account.home) or (is_person and _is_within(account.home, other.home)):
            yield f"home {account.home} and home {other.home} of {other.name} share files"


def _bad_trees(uid: int, has: Belongings) -> Iterator[str]:
    for part, tree in has.trees.items():
        if tree.exists and not tree.is_sound:
            yield f"{part} {tree.path} is not {'a file' if part is Part.MAIL else 'a folder'}, and no link is followed"
        elif tree.exists and part is not Part.JOBS and tree.uid != uid:
            yield f"{part} {tree.path} belongs to uid {tree.uid}, not to {uid}"


def _is_anything_left(has: Belongings) -> bool:
    return bool(has.env_files) or any(tree.exists for tree in has.trees.values())


def _not_all_archived(stone: Tombstone, has: Belongings) -> Iterator[str]:
    if has.archive_problem:
        yield (
            f"{has.archive_problem}; put it back. Without it, nothing more is deleted. To begin anew with what is"
            f" left: rm /var/lib/rosterd/tombstones/{stone.name}"
        )
        return
    for tree in has.trees.values():
        yield from some(tree.differences)
    for path in has.differing_env:
        yield f"{path} has another text in the archive"
    for path in sorted(set(has.env_files) - set(has.archived_env)):
        yield f"{path} is not in the archive"


def _is_within(path: str, folder: str) -> bool:
    """Say whether a home lies at or below another. / is the home of many accounts that have none."""
    return folder != "/" and (path == folder or path.startswith(folder.rstrip("/") + "/"))
