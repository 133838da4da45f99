"""How a person stands on this machine, what brought it, and how to get out of it, in words."""

from __future__ import annotations

from reconciler.core.days import shown_time
from reconciler.core.explanation import Case
from reconciler.core.observed import Account
from reconciler.core.plan_accounts import is_managed
from reconciler.core.plan_cuts import misrecorded, other_account
from reconciler.core.records import CutRecord, Tombstone
from reconciler.core.status import AccountState

Standing = tuple[AccountState, str, str]
"""The state, what brought it, and the remedy, "" where there is nothing to mend."""


def standing(case: Case) -> Standing:
    """Say how a person stands. Each sentence goes on from their name."""
    if case.stone is not None:
        return _deleted(case, case.stone)
    if case.name in misrecorded(case.observed):
        return AccountState.UNMANAGED, other_account(case.name, case.observed), ""
    if case.record is not None:
        return _cut(case, case.record)
    if case.account is None:
        return _without_account(case)
    return _present(case, case.account) if case.wanted is not None else _gone(case, case.account)


def _deleted(case: Case, stone: Tombstone) -> Standing:
    name, since = case.name, shown_time(stone.since)
    back = f"to have them back: rosterd restore {name}; to let the name go: rosterd forget {name}"
    if case.account is not None or not stone.complete:
        finish = f"to finish: rosterd destroy {name}; to take it back: rosterd restore {name}"
        return AccountState.TOMBSTONE, f"is half deleted or half restored, begun {since}", finish
    listed = f", though on the roster ({case.here()})" if case.entry is not None else ""
    return AccountState.TOMBSTONE, f"was deleted {since} by rosterd destroy{listed}", back


def _cut(case: Case, record: CutRecord) -> Standing:
    since, roster = shown_time(record.since), case.sources.roster_name
    if case.wanted is not None:
        return AccountState.CUT, f"is on the roster again ({case.here()}), was cut off {since}, and is being let in", ""
    if not record.by_command:
        back = "to let them in: put them on the roster; a run gives back what they had"
        return AccountState.CUT, f"is cut off since {since}: not in {roster}", back
    where = f"on the roster ({case.here()})" if case.entry is not None else f"not in {roster}"
    also = "" if case.entry is not None else ", and put them on the roster"
    back = f"to let them in: rosterd uncut {case.name}{also}"
    return AccountState.CUT, f"is cut off since {since} by rosterd cut; {where}", back


def _without_account(case: Case) -> Standing:
    if case.wanted is None:
        return AccountState.MISSING, f"is not in {case.sources.roster_name} and has no account", ""
    return AccountState.MISSING, f"is on the roster ({case.here()}) and has no account yet", ""


def _present(case: Case, account: Account) -> Standing:
    """Say it of who is on the roster and has an account."""
    here = f"is on the roster ({case.here()})"
    entry = case.entry
    if not is_managed(case.observed, case.name):
        text = f"{here}, but the account (uid {account.uid}) is not managed"
        if entry is not None and entry.adopt:
            return AccountState.UNMANAGED, f"{text} yet; adopt: true ({case.here('adopt')})", ""
        choice = f"to take it over: rosterd adopt {case.name}, or adopt: true in the roster"
        return AccountState.UNMANAGED, f"{text}, so nothing is done for this person", choice
    if entry is not None and entry.parked:
        back = "to have their services run: take parked out of the entry"
        return AccountState.PARKED, f"{here} and parked ({case.here('parked')}): no service runs", back
    return AccountState.ACTIVE, here, ""


def _gone(case: Case, account: Account) -> Standing:
    """Say it of who has an account, is not on the roster, and is not on record as cut off."""
    absent = f"is not in {case.sources.roster_name}"
    if not is_managed(case.observed, case.name):
        text = f"{absent}, and the account (uid {account.uid}) is not managed: left alone"
        return AccountState.UNMANAGED, text, ""
    if case.observed.records is None:
        return AccountState.ACTIVE, f"{absent}; whether they are cut off already is not seen", ""
    if case.left_alone:
        return AccountState.ACTIVE, f"{absent}, but {case.left_alone}, and not cut off by itself", ""
    back = "to keep them: put them on the roster"
    if case.name in case.plan.held:
        return AccountState.ACTIVE, f"{absent} and would be cut off, but a guard holds that", back
    return AccountState.ACTIVE, f"{absent}: a run would cut them off", back
