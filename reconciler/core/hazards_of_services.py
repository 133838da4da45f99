"""Hazards of running services: crash loops, no memory cap, a shared /tmp. One function a hazard; no I/O here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.core.drop_ins import slice_of
from reconciler.core.hazard_case import Case, Hazard, HazardKind, have
from reconciler.core.sightings import ServiceLook
from reconciler.core.site import instance_of
from reconciler.core.text import counted, listed, shell_word

_OFTEN = 3


def crash_loops(case: Case) -> Iterator[Hazard]:
    """Find services that systemd starts again and again."""
    for unit, now in sorted(case.seen.now.items()):
        if (name := instance_of(unit)) in case.people and (times := _restarts(unit, now, case)):
            waiting = unit in case.seen.restarting
            yield Hazard(
                HazardKind.CRASH_LOOP,
                (name,),
                f"{unit} restarted {times}, now {'activating (auto-restart)' if waiting else 'up again'}",
                f"see why: journalctl -n 50 -u {shell_word(unit)}; to let it rest:"
                f" systemctl stop -- {shell_word(unit)}",
            )


def _restarts(unit: str, now: int, case: Case) -> str:
    """Say how often a service was restarted, "" where that is not often; once since the last run can be an accident."""
    risen = now - case.seen.before.get(unit, now)
    last = case.observed.last_run
    since = now - last.restarts.get(unit, 0) if last else 0
    if risen > 0:
        return f"{counted(risen, 'time')} between two looks, {now} in all"
    if since >= _OFTEN:
        return f"{counted(since, 'time')} since the last run, {now} in all"
    return counted(now, "time") if unit in case.seen.restarting and now > 0 else ""


def no_memory_caps(case: Case) -> Iterator[Hazard]:
    """Find sessions and services that nothing keeps from taking all of the memory."""
    uncapped = sorted(name for name, cap in case.seen.slice_caps.items() if cap is None and name in case.people)
    if uncapped:
        slices = listed(f"{slice_of(case.uids[name])} ({name})" for name in uncapped)
        yield Hazard(
            HazardKind.NO_MEMORY_CAP,
            tuple(uncapped),
            f"{have(uncapped, 'slice')} no MemoryMax for a person's sessions: {slices}",
            _cap_remedy(uncapped, case),
        )
    for template, services in case.running.items():
        free = [name for name, look in services.items() if not _is_capped(name, look, case)]
        if free:
            yield Hazard(
                HazardKind.NO_MEMORY_CAP,
                tuple(free),
                f"{template}: {have(free, 'instance')} no MemoryMax, nor one of the person's slice: {listed(free)}",
                _cap_remedy(free, case),
            )


def _is_capped(name: str, look: ServiceLook, case: Case) -> bool:
    in_own_slice = slice_of(case.uids[name]) in look.cgroup.split("/")
    return look.memory_max is not None or (in_own_slice and case.seen.slice_caps.get(name) is not None)


def _cap_remedy(names: Iterable[str], case: Case) -> str:
    tiers = {case.desired.users[name].tier for name in names if name in case.desired.users}
    where = f"at {'tier' if len(tiers) == 1 else 'tiers'} {listed(tiers)}" if tiers else "at their tier"
    return f"in /etc/rosterd/site.yaml, {where}: limits: {{memory_max: 8G}}; then: rosterd"


def shared_tmp(case: Case) -> Iterator[Hazard]:
    """Find services that see the /tmp of everybody."""
    for template, services in case.running.items():
        sharing = [name for name, look in services.items() if not look.private_tmp]
        if sharing:
            folder = shell_word(f"/etc/systemd/system/{template}.d")
            yield Hazard(
                HazardKind.NO_PRIVATE_TMP,
                tuple(sharing),
                f"{template}: {have(sharing, 'running instance')} no PrivateTmp: {listed(sharing)}",
                f"install -d {folder} && printf '[Service]\\nPrivateTmp=yes\\n' >{folder}/private-tmp.conf &&"
                " systemctl daemon-reload; then restart each when it suits its person. Its /tmp is then its own: it"
                " shares no file there with the person's logins, and what is in it goes when the service stops",
            )
