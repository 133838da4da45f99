"""How the values of a status are written, for the table on a terminal and for the page alike.

Names in what these functions return have gone through `escaped`: it is fit for a terminal. HTML needs more.
"""

from __future__ import annotations

from reconciler.core.days import shown_time
from reconciler.core.status import AccountState, Health, MachineStatus, RunStatus, ServiceStatus, UnitStatus, UserStatus
from reconciler.core.text import counted, escaped, size_words

NOTHING = "-"

STATE_WORDS = {
    AccountState.ACTIVE: "on the roster, with an account",
    AccountState.PARKED: "on the roster and kept, but no service of theirs is to run",
    AccountState.MISSING: "on the roster, no account here yet",
    AccountState.CUT: "cut off: no login, no process, nothing deleted",
    AccountState.UNMANAGED: "an account of this name is here and is not managed by rosterd",
    AccountState.TOMBSTONE: "deleted; name, uid and ports are kept",
}
HEALTH_WORDS = {
    Health.OK: "runs, has stayed up, and listens on its port",
    Health.OFF: "is not to run, and does not",
    Health.STARTING: "runs, but not for long enough yet",
    Health.UNHEALTHY: "does not run or does not stay up, or nothing of its own listens on its port",
    Health.UNKNOWN: "systemd or the ports could not be asked",
}

# What a run ends with; docs/operations.md has the list.
_EXIT_WORDS = {
    0: "all done, or nothing to do",
    1: "it could not run, or a tier differs from the cluster's; nothing was changed",
    3: "some people failed, or have a conflict or an unhealthy unit; the others are done",
    4: "a guard held cuts; all else is done",
    5: "the roster or the site file is missing or refused; nothing was changed",
    75: "another run was at work all the time that it waited; nothing was changed",
    130: "it was interrupted; the next run finishes",
}
_NAMED = 8
# A look begins a moment before it is told.
_CLOCK_SECONDS = 60
_AGES = ((86_400, "day"), (3600, "hour"), (60, "minute"))


def exit_words(code: int) -> str:
    """Return what an exit code of a run says, and the code itself."""
    return f"{_EXIT_WORDS.get(code, 'see the journal of rosterd.service')} (exit {code})"


def memory_use(service: ServiceStatus) -> str:
    """Return the memory of a service and its cap: 410 MiB of 2 GiB; 410 MiB, no cap; cap 2 GiB."""
    cap = None if service.memory_max is None else size_words(service.memory_max)
    if service.memory is None:
        return NOTHING if cap is None else f"cap {cap}"
    return f"{size_words(service.memory)}, no cap" if cap is None else f"{size_words(service.memory)} of {cap}"


def listener_words(service: ServiceStatus) -> str:
    """Return who listens on the port of a service, and in which unit where that is none of the service's own."""
    holder = service.listener
    if service.port is None:
        return NOTHING
    if holder is None:
        return "nobody listens"
    who = escaped(holder.user) if holder.pid is None else f"pid {holder.pid} of {escaped(holder.user)}"
    if holder.unit is None:
        return f"{who}, in no unit"
    return who if is_own_listener(service) else f"{who}, in {escaped(holder.unit)}"


def is_own_listener(service: ServiceStatus) -> bool:
    """Say whether who listens on the port is in one of the service's own units."""
    return service.listener is not None and service.listener.unit in {unit.name for unit in service.units}


def unit_words(unit: UnitStatus) -> str:
    """Return the state of a unit, as systemctl has it: active (running), or failed (failed), disabled."""
    state = escaped(f"{unit.active} ({unit.sub})" if unit.sub else unit.active)
    return state if unit.enabled else f"{state}, disabled"


def restarts_of(service: ServiceStatus) -> int | None:
    """Return the restarts of all units of a service since the last run; None where none of them is known."""
    known = [unit.restarts for unit in service.units if unit.restarts is not None]
    return sum(known) if known else None


def needs_somebody(user: UserStatus) -> bool:
    """Say whether an administrator has to see to this person: a problem, or a service that is not as it should be."""
    return bool(user.problems) or any(service.health is Health.UNHEALTHY for service in user.services)


def summary(status: MachineStatus) -> tuple[str, ...]:
    """Return the sentences that come first: who needs somebody, what waits, what the next run would do."""
    users = status.users
    unknown = sum(any(found.health is Health.UNKNOWN for found in user.services) for user in users)
    pending = sum(bool(user.pending) for user in users)
    changes = sum(bool(user.changes) for user in users)
    told = [_verdict(users)]
    told += [f"This machine has {counted(len(status.problems), 'problem')}."] if status.problems else []
    told += [f"{counted(len(status.unseen), 'thing')} could not be read."] if status.unseen else []
    told += [f"How services are is not known for {unknown}."] if unknown else []
    told += [f"Something is pending for {pending}."] if pending else []
    told += [f"The next run would change something for {changes}."] if changes else []
    return tuple(told)


def run_ended(run: RunStatus, now: int) -> str:
    """Return when the last run ended; `now`, like the run's own, counts seconds since 1970."""
    if run.at > now + _CLOCK_SECONDS:
        return f"{shown_time(run.at)}, which is still to come: the clock was set back"
    return f"{shown_time(run.at)}, {_age(now - run.at)} before this look"


def _verdict(users: tuple[UserStatus, ...]) -> str:
    bad = [escaped(user.name) for user in users if needs_somebody(user)]
    if not users:
        return "Nobody is on the roster, and rosterd manages nobody here."
    if not bad:
        return "Nobody needs attention."
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return (
        f"{len(bad)} of {len(users)} {'needs' if len(bad) == 1 else 'need'} attention: {', '.join(bad[:_NAMED])}{more}."
    )


def _age(seconds: int) -> str:
    """Return how long that is; a clock that was set back makes it no time at all."""
    for length, word in _AGES:
        if seconds >= length:
            return counted(seconds // length, word)
    return "less than a minute"
