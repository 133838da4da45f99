"""Whom a command about one person can mean."""

from __future__ import annotations

from reconciler.core.observed import Observed
from reconciler.core.plan_accounts import is_managed
from reconciler.core.plan_cuts import other_account, recorded
from reconciler.core.records import Records
from reconciler.errors import ScanFailed, UnknownName


def check_cut(name: str, observed: Observed, session_uid: int | None) -> None:
    """See that somebody can be cut off by a command in a session of `session_uid`. Raises `UnknownName`."""
    account = observed.accounts.get(name)
    if account is None:
        raise UnknownName(f"'{name}' has no account on this machine")
    if account.uid < observed.limits.uid_min:
        raise UnknownName(f"'{name}' is an account of the system (uid {account.uid}) and is never cut off")
    if not is_managed(observed, name):
        raise UnknownName(
            f"'{name}' is not managed by rosterd and is left alone;"
            f" to lock the account yourself: usermod --lock --expiredate 1 {name}"
        )
    if account.uid == session_uid:
        raise UnknownName(
            f"this command runs in a session of {name}'s, which the cut ends, and it with it;"
            f" from here: systemd-run --pipe --wait rosterd cut {name}"
        )


def check_uncut(name: str, observed: Observed) -> None:
    """See that a command has cut somebody off. Raises `UnknownName`."""
    record = _records(observed).cuts.get(name)
    if record is None:
        raise UnknownName(f"'{name}' is not cut off")
    if name not in recorded(observed):
        raise UnknownName(f"'{name}' {other_account(name, observed)}")
    if not record.by_command:
        raise UnknownName(
            f"'{name}' is not cut off by a command; once they are on the roster, the next run lets them in"
        )


def check_done(name: str, observed: Observed) -> None:
    """See that there are steps to take for somebody outside of this machine. Raises `UnknownName`."""
    records = _records(observed)
    if name not in records.cuts and name not in records.tombstones:
        raise UnknownName(f"'{name}' is neither cut off nor deleted, so nothing is pending for them")


def _records(observed: Observed) -> Records:
    if observed.records is None:
        raise ScanFailed("only root can see who is cut off")
    return observed.records
