"""The days of shadow(5), counted from 1970, as dates."""

from __future__ import annotations

from datetime import date

_FIRST = date(1970, 1, 1).toordinal()


def shown_day(day: int) -> str:
    """Return a day as YYYY-MM-DD, or by its number where no calendar has it."""
    try:
        return date.fromordinal(_FIRST + day).isoformat()
    except (ValueError, OverflowError):
        return f"day {day}"
