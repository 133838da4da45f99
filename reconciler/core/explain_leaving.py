"""What is known of a person who leaves, is cut off, comes back or is deleted, as attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reconciler.core.days import shown_time
from reconciler.core.explain_account import login_words
from reconciler.core.explanation import LEAVING, UNSEEN, Attribute, Case
from reconciler.core.observed import Presence
from reconciler.core.records import CutRecord, Step
from reconciler.core.text import counted

RECORD, JOBS, LINGERING, UNITS = "record", "crontab and at jobs", "lingering", "other units"
PROCESSES = "sessions and processes"


def leaving_attributes(case: Case) -> Iterator[Attribute]:
    """Yield nothing for who is on the roster and has no record."""
    if case.stone is not None:
        yield from _deleted(case)
    elif case.record is not None or case.is_leaving:
        yield from _cut(case)


def _cut(case: Case) -> Iterator[Attribute]:
    out = case.wanted is None
    why = case.why_out if out else "as before the cut"
    record, here = case.record, case.observed.presence.get(case.name)
    yield Attribute(LEAVING, RECORD, "kept for the return" if out else "closed", why, _record_words(case, record))
    yield Attribute(LEAVING, JOBS, "held" if out else "as they were", why, _seen(here, _jobs))
    lingers = "off" if out or record is None or not record.lingering else "on"
    yield Attribute(LEAVING, LINGERING, lingers, why, _seen(here, lambda found: "on" if found.lingering else "off"))
    running = "" if record is None else " ".join(record.running)
    yield Attribute(LEAVING, UNITS, "stopped" if out else running or "theirs", why, _seen(here, _units))
    if out:
        yield Attribute(LEAVING, PROCESSES, "none", why, _seen(here, _processes))
        yield from _steps(case, record)


def _deleted(case: Case) -> Iterator[Attribute]:
    stone = case.stone
    if stone is None:
        return
    ports = ", ".join(f"{service} {port}" for service, port in sorted(stone.ports.items()))
    yield Attribute(LEAVING, "archive", "kept", case.why_out, stone.archive)
    yield Attribute(LEAVING, "reserved", "to nobody else", case.why_out, f"uid {stone.uid}" + (ports and f", {ports}"))
    yield from _steps(case, stone.cut)


def _steps(case: Case, record: CutRecord | None) -> Iterator[Attribute]:
    """Yield what is to be taken back outside of this machine."""
    done = () if record is None else record.done
    for step in Step:
        why = case.sources.of_site("hooks", step) if step in case.site.hooks else "no hook, by hand"
        yield Attribute(LEAVING, step, "taken", why, "taken" if step in done else "pending")


def _record_words(case: Case, record: CutRecord | None) -> str:
    if record is None:
        return UNSEEN if case.observed.records is None else "none"
    before = login_words(locked=record.locked, passwordless=record.passwordless, expiry=record.expiry)
    return f"since {shown_time(record.since)}; before: {before}"


def _seen(found: Presence | None, words: Callable[[Presence], str]) -> str:
    return UNSEEN if found is None else words(found)


def _jobs(found: Presence) -> str:
    due = _job_words(crontab=found.crontab, at_jobs=len(found.at_jobs))
    held = _job_words(crontab=found.held_crontab, at_jobs=len(found.held_at_jobs) + len(found.late_at_jobs))
    return ", ".join([*(f"{one} due" for one in due), *(f"{one} held" for one in held)]) or "none"


def _job_words(*, crontab: bool, at_jobs: int) -> list[str]:
    return [*(["crontab"] if crontab else []), *([counted(at_jobs, "at job")] if at_jobs else [])]


def _units(found: Presence) -> str:
    return ", ".join(f"{unit.name} {'active' if unit.active else 'inactive'}" for unit in found.units) or "none"


def _processes(found: Presence) -> str:
    slices = ["a slice of sessions"] if found.slice_active else []
    number = len(found.processes)
    told = [] if not number else ["1 process" if number == 1 else f"{number} processes"]
    return ", ".join([*slices, *told]) or "none"
