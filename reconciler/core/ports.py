"""Sticky port allocation: who has a port keeps it, who has none gets the lowest that nobody holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.core.site import PortRule

Holder = tuple[str, str]
"""A user and the service whose port is meant."""

_LAST = 65535
_DIGITS = 5


def allocate(rule: PortRule, users: Iterable[str], taken: set[int]) -> Mapping[str, int | None]:
    """Give each user, in sorted order, the lowest port of the rule's range that is not taken.

    Adds what it gives to `taken`. A user gets None where the range has run out.
    """
    given: dict[str, int | None] = {}
    candidate = rule.base
    for user in sorted(users):
        # Everything below the candidate is taken by now, so the search never starts again.
        while candidate in taken and candidate <= rule.limit:
            candidate += 1
        if candidate > rule.limit:
            given[user] = None
            continue
        given[user] = candidate
        taken.add(candidate)
    return given


def port_number(text: str) -> int | None:
    """Return the port that an env file's value means, None if it is none (decimal digits, 1 to 65535)."""
    is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS
    return int(text) if is_number and 1 <= int(text) <= _LAST else None
