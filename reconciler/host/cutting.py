"""What a cut and its undoing do to jobs, sessions and processes.

Every wait has an end, and each step can be made again after it was interrupted anywhere.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Collection

from reconciler.core.actions import EndProcesses, HoldJobs, ResumeJobs, RunHook
from reconciler.errors import StepFailed
from reconciler.host import files
from reconciler.host.bus import Job, Systemd
from reconciler.host.outside import run_outside
from reconciler.host.process import run
from reconciler.host.scan_presence import AT_JOBS, CRONTAB, CRONTABS, HELD_JOBS, scan_processes

# A polite end first; a program that needs longer is not waited for by somebody who is being cut off.
_POLITE_SECONDS = 5.0
_KILL_SECONDS = 10.0
_PAUSE = 0.05
_AT_DAEMON = "atd.service"
# Signals everything that a user may signal, itself excepted (kill(2)). An effective id is enough for that, and as the
# other ids are nobody's, those who are killed can neither signal nor trace the one that kills.
_KILL = """
import contextlib, os, signal, sys
nobodys = 0xFFFFFFFD
os.setgroups([])
os.setresgid(nobodys, nobodys, nobodys)
os.setresuid(nobodys, int(sys.argv[1]), nobodys)
with contextlib.suppress(ProcessLookupError):
    os.kill(-1, signal.SIGKILL)
"""


def hold_jobs(action: HoldJobs) -> None:
    """Rename a person's crontab and at jobs into their folder of held jobs. Raises `StepFailed`."""
    folder = HELD_JOBS / action.user
    files.make_private_folder(HELD_JOBS)
    files.make_private_folder(folder)
    if action.crontab:
        files.move(CRONTABS / action.user, files.free_name(folder / CRONTAB))
    for job in action.at_jobs:
        files.move(AT_JOBS / job, files.free_name(folder / job))


def resume_jobs(action: ResumeJobs, systemd: Systemd) -> None:
    """Rename held jobs back to where cron and atd look. Raises `StepFailed`."""
    folder = HELD_JOBS / action.user
    if action.crontab:
        files.move(folder / CRONTAB, CRONTABS / action.user)
    for job in action.at_jobs:
        files.move(folder / job, AT_JOBS / job)
    if action.at_jobs:
        # atd sleeps until the next job that it knows of; SIGHUP makes it look again (atd(8)). It may not run at all.
        with contextlib.suppress(StepFailed):
            systemd.hang_up(_AT_DAEMON)


def set_held_aside(user: str) -> None:
    """Rename a person's folder of held jobs, if anything is left in it, to NAME.1 or the next that is free."""
    folder = HELD_JOBS / user
    if not folder.exists():
        return
    if any(folder.iterdir()):
        files.move(folder, files.free_name(folder))
    else:
        files.remove_empty_folder(folder)


def stop_units(systemd: Systemd, units: Collection[str]) -> dict[str, str]:
    """Stop units, and kill those that take their time. Returns the results of their jobs, as `Systemd.run_jobs`."""
    results = systemd.run_jobs(Job.STOP, units, _POLITE_SECONDS)
    late = [unit for unit, result in results.items() if result == "timeout"]
    if not late:
        return results
    for unit in late:
        with contextlib.suppress(StepFailed):
            systemd.kill(unit)
    return results | systemd.run_jobs(Job.STOP, late, _KILL_SECONDS)


def end_processes(action: EndProcesses, systemd: Systemd) -> None:
    """End a person's sessions, and then every process of theirs, whatever cgroup it is in. Raises `StepFailed`.

    systemd stops the slice, as it can reach what runs as root in it. What is elsewhere is killed by a child
    that has taken the process's own user id: rosterd.service may not signal others.
    """
    if action.slice_active:
        # What is not stopped here is killed below, or seen by the next look.
        with contextlib.suppress(StepFailed):
            stop_units(systemd, [f"user-{action.uid}.slice"])
    deadline = time.monotonic() + _KILL_SECONDS
    while left := scan_processes(action.spans):
        if time.monotonic() > deadline:
            told = ", ".join(f"{process.pid} ({process.name})" for process in left[:5])
            raise StepFailed(f"{len(left)} of the processes cannot be ended, among them {told}")
        for uid in sorted({process.uid for process in left} - {0}):
            with contextlib.suppress(StepFailed):
                run((sys.executable, "-I", "-S", "-c", _KILL, str(uid)), timeout=_KILL_SECONDS)
        time.sleep(_PAUSE)


def run_hook(action: RunHook) -> None:
    """Run the site's command in a transient unit, out of the sandbox of rosterd.service. Raises `StepFailed`."""
    run_outside(f"hook {action.step}", action.command, action.timeout).or_fail()
