"""`rosterd status` as a table for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from reconciler.core.status import Health, MachineStatus, ServiceStatus, UserStatus
from reconciler.core.status_words import (
    NOTHING,
    exit_words,
    listener_words,
    memory_use,
    restarts_of,
    run_ended,
    summary,
    unit_words,
)
from reconciler.core.text import escaped

_HEADINGS = ("USER", "TIER", "STATE", "SERVICE", "HEALTH", "PORT", "LISTENER", "RESTARTS", "MEMORY", "UNITS")
_HEALTH = _HEADINGS.index("HEALTH")
_COLOURS = {Health.OK: "32", Health.STARTING: "33", Health.UNKNOWN: "33", Health.UNHEALTHY: "1;31"}


def status_text(status: MachineStatus, *, now: int, colour: bool = False) -> str:
    """Return the table: a row a person and service, the worst first, below each what is the matter; then a summary.

    `now` counts seconds since 1970.
    """
    table = [(user, list(_rows(user))) for user in status.users]
    rows = [_HEADINGS, *(row for _, some in table for row in some)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(_HEADINGS, widths)] if status.users else []
    for user, some in table:
        lines += [_line(row, widths, colour=colour) for row in some]
        lines += [f"    {mark} {escaped(text)}" for mark, text in _remarks(user)]
    lines += [f"! {escaped(text)}" for text in status.problems]
    lines += [f"→ {escaped(text)}" for text in status.changes]
    lines += [f"Could not be seen: {escaped(what)}" for what in status.unseen]
    return "\n".join([*lines, last_run_text(status, now), _counts(status), " ".join(summary(status))]) + "\n"


def last_run_text(status: MachineStatus, now: int) -> str:
    """Return a line about the last run over everybody; one that went wrong is told with where to read on."""
    if status.run is None:
        return "Last run: none on record."
    more = f" See: journalctl RUN_ID={escaped(status.run.id)}" if status.run.exit else ""
    return f"Last run: {run_ended(status.run, now)}: {exit_words(status.run.exit)}.{more}"


def _counts(status: MachineStatus) -> str:
    states = Counter(user.state.value for user in status.users)
    health = Counter(service.health for user in status.users for service in user.services)
    people = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    services = ", ".join(f"{health[kind]} {kind.value}" for kind in Health if health[kind])
    return f"People: {people or 'none'}. Services: {services or 'none'}."


def _rows(user: UserStatus) -> Iterator[tuple[str, ...]]:
    first = (escaped(user.name), escaped(user.tier) or NOTHING, user.state.value)
    if not user.services:
        yield (*first, *[NOTHING] * (len(_HEADINGS) - len(first)))
    for service in user.services:
        yield (*first, *_of_service(service))


def _of_service(service: ServiceStatus) -> tuple[str, ...]:
    restarts = restarts_of(service)
    units = (f"{escaped(unit.name.rpartition('.')[2])} {unit_words(unit)}" for unit in service.units)
    return (
        escaped(service.name),
        service.health.value,
        NOTHING if service.port is None else str(service.port),
        listener_words(service),
        NOTHING if restarts is None else str(restarts),
        memory_use(service),
        "; ".join(units) or NOTHING,
    )


def _remarks(user: UserStatus) -> Iterator[tuple[str, str]]:
    yield from (("!", text) for text in user.problems)
    yield from (("?", text) for text in user.pending)
    yield from (("→", text) for text in user.changes)


def _line(cells: Sequence[str], widths: Sequence[int], *, colour: bool = False) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    if colour and cells[_HEALTH] in _COLOURS:
        padded[_HEALTH] = f"\x1b[{_COLOURS[Health(cells[_HEALTH])]}m{padded[_HEALTH]}\x1b[0m"
    return "  ".join(padded).rstrip()
