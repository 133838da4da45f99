"""How figures are written on the page and in the picture."""

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


def duration(seconds: float) -> str:
    """Return a time with two digits that count: `30 ms`, `0.25 s`, `9.1 s`, `97 s`, `27 min`, `3.1 h`."""
    if 0 < seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    for unit, name, beyond in ((1.0, "s", 100.0), (_MINUTE, "min", _HOUR), (_HOUR, "h", 2 * _DAY)):
        if seconds < beyond:
            return f"{figure(seconds / unit)} {name}"
    return f"{figure(seconds / _DAY)} days"


def ratio(value: float) -> str:
    """Return how many times as much: `1.86 times`, `36 times`, `1,240 times`."""
    return f"{value:.2f} times" if value < 10 else f"{round(value):,} times"


def figure(value: float) -> str:
    """Return a number with two digits that count, or all before the point."""
    if value == 0:
        return "0"
    if value >= 10:
        return f"{round(value):,}"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}"


def people(users: int) -> str:
    """Return a number of people."""
    return f"{users:,}"
