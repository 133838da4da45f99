"""Whom the commands about one person can mean."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconciler.core.naming import check_cut, check_done, check_uncut
from reconciler.core.observed import Observed
from reconciler.core.records import CutRecord
from reconciler.errors import ScanFailed, UnknownName
from tests.unit.facts import NOW, Machine, bare


def machine() -> Machine:
    """Return a machine with somebody of every kind."""
    return (
        bare()
        .account("here", 1000)
        .account("low", 999)
        .account("foreign", 1001, managed=False)
        .account("off", 1002)
        .cut("off")
        .account("told", 1003)
        .cut("told", by_command=True)
        .buried("dead", 1004)
        .account("other", 1007)
        .on_record(cuts={"other": CutRecord(1006, 1006, NOW, by_command=True)})
    )


Check = Callable[[str, Observed], None]


def may_cut(name: str, observed: Observed) -> None:
    check_cut(name, observed, session_uid=None)


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (may_cut, "here"),
        (may_cut, "off"),
        (may_cut, "told"),
        (check_uncut, "told"),
        (check_done, "off"),
        (check_done, "told"),
        (check_done, "dead"),
    ],
)
def test_a_command_can_mean(check: Check, name: str) -> None:
    check(name, machine().observed)


@pytest.mark.parametrize(
    ("check", "name", "why"),
    [
        (may_cut, "nobody", "'nobody' has no account on this machine"),
        (may_cut, "root", "'root' is an account of the system (uid 0) and is never cut off"),
        (may_cut, "low", "'low' is an account of the system (uid 999) and is never cut off"),
        (
            may_cut,
            "foreign",
            (
                "'foreign' is not managed by rosterd and is left alone;"
                " to lock the account yourself: usermod --lock --expiredate 1 foreign"
            ),
        ),
        (check_uncut, "here", "'here' is not cut off"),
        (check_uncut, "dead", "'dead' is not cut off"),
        (
            check_uncut,
            "off",
            "'off' is not cut off by a command; once they are on the roster, the next run lets them in",
        ),
        (
            check_uncut,
            "other",
            (
                "'other' is on record as cut off with uid 1006, but the account has uid 1007 and is another"
                " person's. If the record is of no use any more: rosterd forget other"
            ),
        ),
        (check_done, "here", "'here' is neither cut off nor deleted, so nothing is pending for them"),
    ],
)
def test_a_command_cannot_mean(check: Check, name: str, why: str) -> None:
    with pytest.raises(UnknownName) as caught:
        check(name, machine().observed)
    assert str(caught.value) == why


def test_nobody_is_cut_off_from_a_session_of_their_own_which_would_end_the_command() -> None:
    seen = machine().observed
    with pytest.raises(UnknownName) as caught:
        check_cut("here", seen, session_uid=1000)
    assert str(caught.value) == (
        "this command runs in a session of here's, which the cut ends, and it with it;"
        " from here: systemd-run --pipe --wait rosterd cut here"
    )
    check_cut("here", seen, session_uid=1002)
    check_cut("here", seen, session_uid=0)


@pytest.mark.parametrize("check", [check_uncut, check_done])
def test_where_the_records_could_not_be_seen_that_is_told(check: Check) -> None:
    with pytest.raises(ScanFailed, match="only root can see who is cut off"):
        check("told", machine().having(records=None).observed)
