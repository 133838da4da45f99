"""The roster's entry, the account and the groups of one person, as attributes."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.core.days import shown_day
from reconciler.core.drop_ins import limits_text, shown, slice_of
from reconciler.core.explanation import ACCOUNT, CREATION, GROUPS, LEFT_ALONE, ROSTER, THEIRS, UNSEEN, Attribute, Case
from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import Home, HomeKind, SubidRange
from reconciler.core.plan_accounts import home_of, is_managed
from reconciler.core.plan_cuts import is_shut
from reconciler.core.roster import User

_SHUT = "locked, expired"
_NEW = "new accounts"
LOGIN, SUBIDS, LIMITS = "password and expiry", "subordinate ids", "limits"


def roster_attributes(case: Case) -> Iterator[Attribute]:
    """Yield what the entry says that is seen in nothing on this machine by itself."""
    entry = case.entry
    if entry is None:
        return
    known = case.observed.on_record.identities.get(case.name)
    seen = case.observed.records is not None
    for name, wanted, there in (
        ("authentik_user", entry.authentik_user, known.authentik_user if known else ""),
        ("k8s_user", entry.k8s_user, known.k8s_user if known else ""),
    ):
        recorded = f"on record: {there or 'none'}" if seen else UNSEEN
        yield Attribute(ROSTER, name, wanted, case.here(name), recorded)
    yield Attribute(ROSTER, "tier", entry.tier, case.here("tier"), "")
    for name, wanted in _said_only(entry):
        yield Attribute(ROSTER, name, wanted, case.here(name), "")


def _said_only(entry: User) -> Iterator[tuple[str, str]]:
    if entry.namespaces:
        yield "namespaces", " ".join(entry.namespaces)
    yield "parked", "yes" if entry.parked else "no"
    yield "code_layout", entry.code_layout
    if entry.repos:
        yield "repos", " ".join(entry.repos)


def account_attributes(case: Case) -> Iterator[Attribute]:
    """Yield the account and what belongs to it."""
    yield _account(case)
    if case.wanted is None and case.account is None:
        return
    yield _home(case)
    yield _shell(case)
    yield _login(case)
    yield _subids(case)
    yield _limits(case)


def _account(case: Case) -> Attribute:
    account = case.account
    if account is None:
        there = "none"
    else:
        there = f"uid {account.uid}, {'managed' if is_managed(case.observed, case.name) else 'not managed'}"
    if case.wanted is None:
        return Attribute(ACCOUNT, "account", _fate(case), case.why_out, there)
    adopt = case.here("adopt") if case.wanted.adopt else case.here()
    return Attribute(ACCOUNT, "account", "managed", adopt, there)


def _fate(case: Case) -> str:
    """Say what becomes of an account that nobody is to have."""
    if case.left_alone:
        return LEFT_ALONE
    if case.stone is not None:
        return "deleted"
    return "none" if case.account is None else "cut off"


def _home(case: Case) -> Attribute:
    account = case.account
    home = case.observed.homes.get(case.name)
    if account is None:
        return Attribute(ACCOUNT, "home", home_of(case.name), _NEW, _home_words(case, home))
    return Attribute(ACCOUNT, "home", account.home, "/etc/passwd", _home_words(case, home))


def _home_words(case: Case, home: Home | None) -> str:
    if home is None:
        return UNSEEN
    if home.kind is not HomeKind.FOLDER:
        return home.kind.value
    return f"{case.observed.user_of(home.uid)}'s, {home.mode:04o}"


def _shell(case: Case) -> Attribute:
    if case.account is None:
        return Attribute(ACCOUNT, "shell", case.site.shell, case.sources.of_site("shell"), "none")
    return Attribute(ACCOUNT, "shell", THEIRS, CREATION, case.account.shell)


def _login(case: Case) -> Attribute:
    wanted, why = _login_wanted(case)
    if case.account is None:
        return Attribute(ACCOUNT, LOGIN, wanted, why, "none")
    if case.observed.shadow is None:
        return Attribute(ACCOUNT, LOGIN, wanted, why, UNSEEN)
    login = case.observed.shadow.get(case.name)
    if login is None:
        return Attribute(ACCOUNT, LOGIN, wanted, why, "no shadow line")
    words = login_words(locked=login.locked, passwordless=login.passwordless, expiry=login.expiry)
    return Attribute(ACCOUNT, LOGIN, wanted, why, _SHUT if is_shut(login) else words)


def _login_wanted(case: Case) -> tuple[str, str]:
    record = case.record
    if case.left_alone:
        return THEIRS, case.left_alone
    if case.wanted is None:
        return _SHUT, case.why_out
    if case.account is None:
        return login_words(locked=True, passwordless=False, expiry=None), _NEW
    if record is not None:
        words = login_words(locked=record.locked, passwordless=record.passwordless, expiry=record.expiry)
        return words, "as before the cut"
    return THEIRS, CREATION


def login_words(*, locked: bool, passwordless: bool, expiry: int | None) -> str:
    """Say how a password is and when the account expires; `expiry` is a day counted from 1970, None for never."""
    password = "no password" if passwordless else "locked" if locked else "open"
    return f"{password}, " + ("never expires" if expiry is None else f"expires {shown_day(expiry)}")


def _subids(case: Case) -> Attribute:
    why = case.sources.of_site("subids")
    uid = "" if case.account is None else str(case.account.uid)
    seen = case.observed
    there = ", ".join(
        f"{what} {_spans(ranges, case.name, uid)}" for what, ranges in (("uids", seen.subuids), ("gids", seen.subgids))
    )
    if case.wanted is None:
        return Attribute(ACCOUNT, SUBIDS, THEIRS, "never taken away", there)
    wanted = f"{seen.limits.subid_count} of each" if case.site.subids else THEIRS
    return Attribute(ACCOUNT, SUBIDS, wanted, why, there)


def _spans(ranges: tuple[SubidRange, ...] | None, name: str, uid: str) -> str:
    if ranges is None:
        return "not kept here"
    own = [f"{span.first}-{span.first + span.count - 1}" for span in ranges if span.owner in (name, uid)]
    return " ".join(own) or "none"


def group_attributes(case: Case) -> Iterator[Attribute]:
    """Yield each group that is wanted, then those that are the person's own."""
    has = case.observed.groups_of(case.name)
    asked: tuple[str, ...] = ()
    if case.wanted is not None:
        tier = case.wanted.tier
        asked = (MANAGED_GROUP, *(group for group in case.wanted.groups if group != MANAGED_GROUP))
        for group in asked:
            source = case.sources.of_site("tiers", tier, "groups", group)
            why = "marks managed accounts" if group == MANAGED_GROUP else f"tier {tier}, {source}"
            yield Attribute(GROUPS, group, "member", why, _membership(case, group))
    if own := sorted(has.difference(asked)):
        why = "kept in a cut" if case.is_leaving else "never taken away"
        yield Attribute(GROUPS, "their own", "kept", why, " ".join(own))


def _membership(case: Case, group: str) -> str:
    if group not in case.observed.groups:
        return "no such group here"
    return "member" if group in case.observed.groups_of(case.name) else "not a member"


def _limits(case: Case) -> Attribute:
    """Return what the person may use in all, logins and services together."""
    there = _limits_there(case)
    if case.wanted is None:
        return Attribute(ACCOUNT, LIMITS, "kept" if case.account else "none", case.why_out, there)
    tier = case.wanted.tier
    why = f"tier {tier}, {case.sources.of_site('tiers', tier, 'limits')}"
    return Attribute(ACCOUNT, LIMITS, shown(limits_text(case.wanted.limits)), why, there)


def _limits_there(case: Case) -> str:
    if case.observed.units.drop_ins is None:
        return UNSEEN
    return shown(case.observed.units.drop_ins.get(slice_of(case.account.uid))) if case.account else "none"
