"""Accounts and groups: who is created, completed, adopted or refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from reconciler.core.actions import (
    Action,
    AddSubids,
    AddToGroups,
    Adopt,
    CompleteGroup,
    CompleteGroupShadow,
    CompleteShadow,
    ConfirmAccount,
    CreateAccount,
    CreateGroup,
    FillSkel,
    ForgetRecord,
    MakeHome,
    RemoveGhost,
    SetHomeMode,
)
from reconciler.core.desired import Desired, DesiredUser
from reconciler.core.findings import Finding, conflict, warning
from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import Account, Home, HomeKind, Observed, SubidRange

FALLBACK_SHELL = "/bin/bash"
_HOME_MODE = 0o700


@dataclass(slots=True)
class AccountPlan:
    """What becomes of the accounts. `refused` are the people for whom nothing else is done."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    def refuse(self, user: str, text: str) -> None:
        """Leave this person alone and say why."""
        self.refused.add(user)
        self.findings.append(conflict(user, text))


def is_managed(observed: Observed, name: str) -> bool:
    """Say whether an account is rosterd's.

    It is when it bears the mark, or when it is what an interrupted `useradd` leaves: no home yet, for the
    mark is written before the home, and either the record of its creation names its uid, or its primary group
    does not resolve.
    """
    account = observed.accounts.get(name)
    if account is None:
        return False
    if _is_marked(observed, account):
        return True
    home = observed.homes.get(name)
    if home is None or home.kind is not HomeKind.MISSING:
        return False
    is_recorded = observed.intents.get(name) == account.uid
    return is_recorded or (account.uid >= observed.limits.uid_min and not _gid_resolves(observed, account))


def _is_marked(observed: Observed, account: Account) -> bool:
    return MANAGED_GROUP in observed.groups_of(account.name)


def home_of(name: str) -> str:
    """Return where a new account has its home."""
    return f"/home/{name}"


def managed_accounts(observed: Observed) -> frozenset[str]:
    """Return the names of all accounts that bear the mark or whose creation is on record."""
    marked = observed.groups.get(MANAGED_GROUP)
    names = (marked.members if marked else frozenset()) | set(observed.intents)
    return frozenset(name for name in names if is_managed(observed, name))


def is_admin(desired: Desired, observed: Observed, name: str) -> bool:
    """Say whether an account is in all groups of a tier of administrators, of those that the host has."""
    has = observed.groups_of(name)
    present = (groups & observed.groups.keys() for groups in desired.admin_groups)
    return any(groups and groups <= has for groups in present)


def plan_accounts(desired: Desired, observed: Observed) -> AccountPlan:
    """Compare the people of the roster with the accounts of the host."""
    plan = AccountPlan()
    groups = _plan_groups(desired, observed, plan)
    plan.actions += _stale_records(desired, observed)
    uids = _free_uids(observed)
    spans = _free_subids(observed)
    for user in desired.users.values():
        wanted = tuple(group for group in user.groups if group in groups)
        if why := _why_not_theirs(user.name, observed):
            plan.refuse(user.name, why)
        elif user.name not in observed.accounts:
            _create(user, wanted, desired, observed, uids, plan)
        elif is_managed(observed, user.name) or user.adopt:
            _complete(user, wanted, desired, observed, spans, plan)
        else:
            account = observed.accounts[user.name]
            plan.refuse(
                user.name,
                f"account exists (uid {account.uid}) and is not managed by rosterd; nothing is done for this"
                f" person. To take it over: `rosterd adopt {user.name}`, or `adopt: true` in the roster",
            )
    if any(isinstance(action, CreateAccount) for action in plan.actions):
        # useradd chooses ranges by itself, perhaps one that is free now; a further look sees which.
        plan.actions = [action for action in plan.actions if not isinstance(action, AddSubids)]
    return plan


def _why_not_theirs(name: str, observed: Observed) -> str | None:
    """Say why a name is still that of somebody deleted, or of another account that was cut off."""
    account = observed.accounts.get(name)
    stone, cut = observed.on_record.tombstones.get(name), observed.on_record.cuts.get(name)
    choice = f"To have them back: rosterd restore {name}. To let the name go to somebody new: rosterd forget {name}"
    if stone is not None and account is None:
        return f"was deleted (uid {stone.uid}, archive {stone.archive}) and is not made anew. {choice}"
    if stone is not None:
        return f"is half deleted or half restored; to finish: rosterd destroy {name}, or rosterd restore {name}"
    if cut is not None and (account is None or account.uid != cut.uid):
        now = "there is no such account" if account is None else f"the account has uid {account.uid}"
        return (
            f"is on record as cut off with uid {cut.uid}, but {now} now; nothing is done for this person."
            f" If the record is of no use any more: rosterd forget {name}"
        )
    return None


def _stale_records(desired: Desired, observed: Observed) -> Iterator[Action]:
    """Forget the records that no creation goes with any more: they would claim a later account of that name."""
    for name in sorted(observed.intents):
        if name in observed.accounts:
            stale = observed.intents[name] != observed.accounts[name].uid or not is_managed(observed, name)
        else:
            stale = name not in desired.users
        if stale:
            yield ForgetRecord(name, observed.intents[name])


def _plan_groups(desired: Desired, observed: Observed, plan: AccountPlan) -> set[str]:
    """Plan the groups themselves; return those that will exist."""
    marked = observed.groups.get(MANAGED_GROUP)
    ghosts = sorted(marked.members - set(observed.accounts)) if marked else []
    plan.actions += [RemoveGhost(ghost, MANAGED_GROUP) for ghost in ghosts]
    existing = set(observed.groups)
    if marked is None and desired.users:
        plan.actions.append(CreateGroup(MANAGED_GROUP))
    wanted = sorted({group for user in desired.users.values() for group in user.groups} - existing)
    if desired.create_groups:
        plan.actions += [CreateGroup(group) for group in wanted]
        return existing | set(wanted)
    for group in wanted:
        without = [user.name for user in desired.users.values() if group in user.groups]
        plan.findings.append(
            warning(
                None,
                f"group {group} does not exist on this host; left out for {', '.join(without)}."
                " Create it, or set create_groups: true in the site file",
            )
        )
    return existing


def _create(  # noqa: PLR0913 (the whole of a plan meets here)
    user: DesiredUser,
    groups: tuple[str, ...],
    desired: Desired,
    observed: Observed,
    uids: Iterator[int],
    plan: AccountPlan,
) -> None:
    own = observed.groups.get(user.name)
    uid: int | None = observed.intents.get(user.name)
    home = observed.homes.get(user.name)
    if home is not None and home.kind is not HomeKind.MISSING:
        told = f"belongs to {observed.user_of(home.uid)}" if home.kind is HomeKind.FOLDER else home.kind.value
        plan.refuse(
            user.name,
            f"{home_of(user.name)} is there already ({told}) and there is no account of that name; a new one"
            " would get these files. Move them away, or make their owner's account again and adopt it",
        )
        return
    if own is not None and own.gid not in (uid, observed.intent_gids.get(user.name)):
        plan.refuse(
            user.name,
            f"a group {user.name} (gid {own.gid}) exists without an account of that name; an account made now"
            " would get its rights. Rename or remove the group",
        )
        return
    if uid is None or uid in observed.names_by_uid or (own is None and uid in observed.gids):
        uid = next(uids, None)
    if uid is None:
        limits = observed.limits
        plan.refuse(user.name, f"no uid is left between {limits.uid_min} and {limits.uid_max} (login.defs)")
        return
    shell = desired.shell if observed.shell_exists else FALLBACK_SHELL
    if not observed.shell_exists:
        plan.findings.append(
            warning(user.name, f"shell {desired.shell} does not exist on this host; created with {shell}")
        )
    plan.actions.append(
        CreateAccount(
            user.name,
            uid,
            home_of(user.name),
            shell,
            (*groups, MANAGED_GROUP),
            subids=desired.subids,
            existing_gid=own.gid if own else None,
        )
    )


def _complete(  # noqa: PLR0913 (as above)
    user: DesiredUser,
    groups: tuple[str, ...],
    desired: Desired,
    observed: Observed,
    spans: dict[str, Iterator[int]],
    plan: AccountPlan,
) -> None:
    account = observed.accounts[user.name]
    home = observed.homes.get(user.name)
    being_created = observed.intents.get(user.name) == account.uid
    if why := _home_refusal(account, home, observed, being_created=being_created):
        plan.refuse(user.name, why)
        return
    actions: list[Action] = []
    if not _is_marked(observed, account):
        actions.append(Adopt(user.name, account.uid, MANAGED_GROUP))
    if not _gid_resolves(observed, account):
        actions.append(CompleteGroup(user.name, account.gid))
    elif observed.lacks_group_shadow(user.name) and observed.groups[user.name].gid == account.gid:
        actions.append(CompleteGroupShadow(user.name))
    if observed.shadow is not None and user.name not in observed.shadow:
        actions.append(CompleteShadow(user.name))
    actions += _missing_subids(account, observed, spans) if desired.subids else []
    actions += _home_actions(account, home, observed, being_created=being_created)
    actions += _memberships(user.name, groups, observed)
    if being_created and not actions:
        actions.append(ConfirmAccount(user.name))
    plan.actions += actions


def _home_refusal(account: Account, home: Home | None, observed: Observed, *, being_created: bool) -> str | None:
    """Say why a home is not one that rosterd works with; None where it is."""
    if home is None or home.kind is HomeKind.MISSING:
        return None
    if home.kind is HomeKind.NOWHERE:
        return f"home {account.home} is not there and cannot be made there; give the account another: usermod --home"
    if home.kind is HomeKind.UNREADABLE:
        return f"home {account.home} cannot be looked at, not even by root; is something of the user's mounted there?"
    if home.kind is not HomeKind.FOLDER:
        what = "a symbolic link" if home.kind is HomeKind.SYMLINK else "not a folder"
        return f"home {account.home} is {what}; rosterd does not follow it. Put a folder of the user's there"
    if home.uid == account.uid or (home.uid == 0 and being_created):
        return None
    owner = observed.user_of(home.uid)
    return f"home {account.home} belongs to {owner}, not to {account.name}; check whose files these are"


def _home_actions(account: Account, home: Home | None, observed: Observed, *, being_created: bool) -> Iterator[Action]:
    if home is None:
        return
    if home.kind is HomeKind.MISSING:
        yield MakeHome(account.name, account.home)
    elif being_created and home.uid != account.uid:
        yield MakeHome(account.name, account.home, remove_empty=True)
    elif being_created and home.mode != _HOME_MODE:
        yield SetHomeMode(account.name, account.home, home.mode)
    elif gaps := observed.skel_gaps.get(account.name):
        yield FillSkel(account.name, account.home, gaps)


def _memberships(name: str, groups: tuple[str, ...], observed: Observed) -> Iterator[Action]:
    has = observed.groups_of(name)
    missing = tuple(group for group in groups if group not in has)
    if missing:
        yield AddToGroups(name, missing, tuple(sorted(has)))


def _gid_resolves(observed: Observed, account: Account) -> bool:
    return account.gid in observed.gids


def _free_uids(observed: Observed) -> Iterator[int]:
    """Yield the uids that no account, no group, nobody deleted and no creation on record holds, upwards."""
    taken = observed.gids | set(observed.names_by_uid) | set(observed.intents.values())
    taken |= observed.on_record.reserved_ids
    limits = observed.limits
    return (uid for uid in range(limits.uid_min, limits.uid_max + 1) if uid not in taken)


def _free_subids(observed: Observed) -> dict[str, Iterator[int]]:
    return {
        "uids": _free_spans(observed.subuids or (), observed),
        "gids": _free_spans(observed.subgids or (), observed),
    }


def _free_spans(ranges: tuple[SubidRange, ...], observed: Observed) -> Iterator[int]:
    """Yield the starts of ranges of subordinate ids that overlap no other, upwards."""
    limits = observed.limits
    if limits.subid_count == 0:
        return
    first = limits.subid_min
    for taken in sorted(ranges, key=lambda span: span.first):
        while first + limits.subid_count <= taken.first:
            yield first
            first += limits.subid_count
        first = max(first, taken.first + taken.count)
    while first + limits.subid_count - 1 <= limits.subid_max:
        yield first
        first += limits.subid_count


def _missing_subids(account: Account, observed: Observed, spans: dict[str, Iterator[int]]) -> Iterator[AddSubids]:
    uids = _span_for(account, observed.subuid_owners, spans["uids"], observed.limits.subid_count)
    gids = _span_for(account, observed.subgid_owners, spans["gids"], observed.limits.subid_count)
    if uids or gids:
        yield AddSubids(account.name, uids, gids)


def _span_for(
    account: Account, owners: frozenset[str] | None, free: Iterator[int], count: int
) -> tuple[int, int] | None:
    """Return a range for an account without one; None where it has one, or the host keeps none."""
    if owners is None or account.name in owners or str(account.uid) in owners:
        return None
    first = next(free, None)
    return None if first is None else (first, first + count - 1)
