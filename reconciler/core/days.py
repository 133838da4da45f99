"""Days and seconds counted from 1970, as dates and times."""

from __future__ import annotations

from datetime import date

_FIRST = date(1970, 1, 1).toordinal()


def shown_day(day: int) -> str:
    """Return a day as YYYY-MM-DD, or by its number where no calendar has it."""
    try:
        return date.fromordinal(_FIRST + day).isoformat()
    except (ValueError, OverflowError):
        return f"day {day}"


def shown_time(seconds: int) -> str:
    """Return a time as YYYY-MM-DD HH:MM UTC."""
    day, left = divmod(seconds, 86_400)
    return f"{shown_day(day)} {left // 3600:02}:{left % 3600 // 60:02} UTC"
