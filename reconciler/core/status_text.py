"""`rosterd status` as a table for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from reconciler.core.days import shown_time
from reconciler.core.status import Health, MachineStatus, ServiceStatus, UnitStatus, UserStatus
from reconciler.core.text import counted, escaped

_HEADINGS = ("USER", "TIER", "STATE", "SERVICE", "HEALTH", "PORT", "LISTENER", "RESTARTS", "MEMORY", "UNITS")
_NONE = "-"
_COLOURS = {Health.OK: "32", Health.STARTING: "33", Health.UNKNOWN: "33", Health.UNHEALTHY: "1;31"}
_EXITS = {
    0: "all well",
    1: "could not run",
    3: "some failed, or have a conflict or an unhealthy service",
    4: "a guard held something",
    5: "the roster or the site file was refused",
}
_UNITS = ("", "K", "M", "G", "T")
_KIBI = 1024
_ONE_DIGIT = 10


def status_text(status: MachineStatus, *, now: int, colour: bool = False) -> str:
    """Return the table: a row a person and service, the worst first, what is the matter below each, and a last line."""
    rows = [(user, row) for user in status.users for row in _rows(user)]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *(row for _, row in rows), strict=True)]
    lines = [_line(_HEADINGS, widths)] if rows else []
    for user in status.users:
        lines += [_line(row, widths, colour=colour) for row in _rows(user)]
        lines += [f"    {mark} {escaped(text)}" for mark, text in _remarks(user)]
    lines += [f"! {escaped(text)}" for text in status.problems]
    lines += [f"Could not be seen: {escaped(what)}" for what in status.unseen]
    return "\n".join([*lines, last_run_text(status, now), summary_text(status)]) + "\n"


def last_run_text(status: MachineStatus, now: int) -> str:
    """Return a line about the last run over everybody, and how it ended while that lasts."""
    if status.run is None:
        return "Last run: none on record"
    ended = _EXITS.get(status.run.exit, f"exit code {status.run.exit}")
    failed = "" if status.run.exit == 0 else f"; journalctl RUN_ID={escaped(status.run.id)}"
    return f"Last run: {shown_time(status.run.at)} ({_ago(now - status.run.at)}), {ended}{failed}"


def summary_text(status: MachineStatus) -> str:
    """Return the last line: how many people, how their services are, what is to be done."""
    states = Counter(user.state.value for user in status.users)
    health = Counter(service.health for user in status.users for service in user.services)
    changes = len(status.changes) + sum(len(user.changes) for user in status.users)
    people = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    services = ", ".join(f"{health[kind]} {kind.value}" for kind in Health if health[kind])
    told = [f"People: {people or 'none'}", f"services: {services or 'none'}"]
    told.append(f"the next run would make {counted(changes, 'change') if changes else 'no change'}")
    return "; ".join(told)


def holder_text(service: ServiceStatus) -> str:
    """Return who listens on the port: pid and user, and the unit where it is not one of the service's own."""
    holder = service.listener
    if holder is None:
        return _NONE
    own = any(holder.unit == unit.name for unit in service.units)
    told = (str(holder.pid or ""), holder.user, "" if own else holder.unit or "no unit")
    return " ".join(escaped(part) for part in told if part)


def size_text(size: int | None) -> str:
    """Return bytes as in 410M, 1.5G."""
    if size is None:
        return _NONE
    number, unit = float(size), 0
    while round(number) >= _KIBI and unit < len(_UNITS) - 1:
        number, unit = number / _KIBI, unit + 1
    digits = 1 if unit and round(number, 1) < _ONE_DIGIT else 0
    return f"{number:.{digits}f}{_UNITS[unit]}"


def _rows(user: UserStatus) -> Iterator[tuple[str, ...]]:
    first = (user.name, user.tier or _NONE, user.state.value)
    if not user.services:
        yield (*map(escaped, first), *[_NONE] * (len(_HEADINGS) - len(first)))
    for service in user.services:
        yield (*map(escaped, first), *_of_service(service))


def _of_service(service: ServiceStatus) -> tuple[str, ...]:
    risen = [unit.restarts for unit in service.units if unit.restarts is not None]
    cap = f"/{size_text(service.memory_max)}" if service.memory_max is not None else ""
    return (
        escaped(service.name),
        service.health.value,
        str(service.port or _NONE),
        holder_text(service),
        str(sum(risen)) if risen else _NONE,
        f"{size_text(service.memory)}{cap}",
        " ".join(map(_unit, service.units)) or _NONE,
    )


def _unit(unit: UnitStatus) -> str:
    """Return the state of a unit; whether it is enabled only where that does not go with it."""
    kind = unit.name.rpartition(".")[2]
    if unit.active in ("active", "inactive"):
        state = unit.sub if unit.active == "active" else "stopped"
        odd = {(True, False): ",disabled", (False, True): ",enabled"}.get((unit.active == "active", unit.enabled), "")
    else:
        state, odd = unit.active if unit.active == unit.sub else f"{unit.active}({unit.sub})", ""
    return escaped(f"{kind}:{state}{odd}")


def _remarks(user: UserStatus) -> Iterator[tuple[str, str]]:
    yield from (("!", text) for text in user.problems)
    yield from (("?", text) for text in user.pending)
    yield from (("→", text) for text in user.changes)


def _line(cells: Sequence[str], widths: Sequence[int], *, colour: bool = False) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    if colour and cells[_HEALTH] in _COLOURS:
        padded[_HEALTH] = f"\x1b[{_COLOURS[Health(cells[_HEALTH])]}m{padded[_HEALTH]}\x1b[0m"
    return "  ".join(padded).rstrip()


_HEALTH = _HEADINGS.index("HEALTH")


def _ago(seconds: int) -> str:
    for size, word in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{counted(seconds // size, word)} ago"
    return "just now"
