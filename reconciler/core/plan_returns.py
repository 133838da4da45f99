"""People who come back: what their record says they had before the cut is given back, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from reconciler.core.actions import Action, ForgetCut, OpenLogin, ResumeJobs, RunUnit, SetLinger
from reconciler.core.desired import Desired
from reconciler.core.findings import Finding, warning
from reconciler.core.observed import Account, Login, Observed, Presence
from reconciler.core.plan_cuts import EXPIRED_DAY, reason_of
from reconciler.core.records import CutRecord


def plan_returns(desired: Desired, observed: Observed, staying: Collection[str]) -> list[Action]:
    """Give those of `staying` who are on record as cut off what they had before."""
    records, logins = observed.records, observed.shadow
    if records is None or logins is None:
        return []  # named in `unseen`
    actions: list[Action] = []
    for name in sorted(records.cuts.keys() & set(staying) & observed.accounts.keys()):
        record, login = records.cuts[name], logins.get(name)
        actions += reason_of(name, record, desired, frozenset())
        if login is None:
            continue  # the line is made first
        opening = list(_opening(observed.accounts[name], record, login, observed))
        held = observed.presence.get(name, Presence())
        actions += opening or [ForgetCut(name, record.done, held.late_at_jobs, held.held_crontab)]
        actions += _restarts(name, record, observed)
    return actions


def unrecorded(observed: Observed, staying: Collection[str]) -> Iterator[Finding]:
    """Tell of people whose login is as a cut leaves it, and no record says what to give back."""
    if observed.records is None:
        return
    for name in sorted(set(staying) - observed.records.cuts.keys()):
        login = (observed.shadow or {}).get(name)
        if login is not None and login.expiry == EXPIRED_DAY:
            yield warning(
                name,
                "is on the roster, but the login is expired as a cut leaves it, and there is no record of a cut."
                f" To open it: usermod --expiredate '' {name} (and --unlock, if there was a password)",
            )


def _opening(account: Account, record: CutRecord, login: Login, observed: Observed) -> Iterator[Action]:
    """Yield what is still to be given back."""
    name = account.name
    presence = observed.presence.get(name, Presence())
    unlock = login.locked and not record.locked
    if unlock or login.expiry != record.expiry:
        yield OpenLogin(name, record.expiry, unlock, record.passwordless and unlock)
    crontab = presence.held_crontab and not presence.crontab
    if crontab or presence.held_at_jobs:
        yield ResumeJobs(name, crontab, presence.held_at_jobs)
    if record.lingering and not presence.lingering:
        yield SetLinger(name, account.uid, on=True)


def _restarts(name: str, record: CutRecord, observed: Observed) -> Iterator[RunUnit]:
    """Yield the units to start again; neither one that ends by itself nor one that fails keeps the record open."""
    active = {unit.name for unit in observed.presence.get(name, Presence()).units if unit.active}
    for unit in record.running:
        if unit not in active:
            yield RunUnit(name, "", unit, enable=False, start=True, before="stopped")
