"""Giving out ports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.ports import allocate, port_number
from reconciler.core.site import PortRule

RULE = PortRule("T3_PORT", 3773, 3779, "/etc/t3-serve/{user}.env")


def test_people_get_the_lowest_free_ports_in_the_order_of_their_names() -> None:
    assert allocate(RULE, ["carol", "alice", "bob"], {3774}) == {"alice": 3773, "bob": 3775, "carol": 3776}


def test_what_is_given_is_taken() -> None:
    taken = {3773}
    allocate(RULE, ["alice"], taken)
    assert taken == {3773, 3774}


def test_whoever_comes_after_the_last_port_gets_none() -> None:
    given_out = allocate(RULE, ["a", "b", "c"], {3773, 3774, 3775, 3776, 3777})
    assert given_out == {"a": 3778, "b": 3779, "c": None}


@given(st.sets(st.sampled_from("abcdefghij")), st.sets(st.integers(3770, 3782)))
def test_no_port_is_given_twice_nor_one_that_is_taken_nor_a_higher_one_than_needed(
    users: set[str], taken: set[int]
) -> None:
    given_out = allocate(RULE, users, set(taken))
    ports = [given_out[user] for user in sorted(users)]
    free = [port for port in range(3773, 3780) if port not in taken]
    assert ports == [*free[: len(users)], *[None] * (len(users) - len(free))]


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("3773", 3773),
        ("1", 1),
        ("65535", 65535),
        ("03773", 3773),
        ("0", None),
        ("65536", None),
        ("-1", None),
        ("+1", None),
        ("3773 ", None),
        ("37_73", None),
        ("0x10", None),
        ("٣٧٧٣", None),
        ("", None),
        ("9" * 5000, None),
    ],
)
def test_a_port_is_a_decimal_number_up_to_65535(text: str, port: int | None) -> None:
    assert port_number(text) == port
