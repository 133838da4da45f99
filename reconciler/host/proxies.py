"""Puts a map in place for a proxy that reads it: checked, taken back if the proxy would not start with it, reloaded.

A proxy looks at the file when it is reloaded, not before. That a reload is due stands in a file in `RELOADS_DUE` from
before the map is changed until the proxy has it: a run that was killed between the two is made up for by the next one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reconciler.core.actions import ReloadProxy, WriteOutput
from reconciler.core.site import Proxy
from reconciler.errors import StepFailed
from reconciler.host import files
from reconciler.host.bus import Job, Systemd
from reconciler.host.outside import run_outside
from reconciler.host.scan_proxies import RELOADS_DUE

MAP_MODE = 0o644
# Whoever is cut off is unmapped before all else: a proxy that hangs must not keep their login open for long.
_CHECK_SECONDS = 10
_RELOAD_SECONDS = 10.0
_TOLD_LINES = 2
# Not loaded, or not running: it reads the map when it is started.
_AT_REST = ("inactive", "failed", "deactivating")


def put_in_place(action: WriteOutput, proxy: Proxy, systemd: Systemd) -> None:
    """Write a map, have the proxy check its configuration with it, and reload the proxy.

    Where the check fails nobody is added, and nobody who was to be taken out stays: the old map is put back, without
    them. Raises `StepFailed` with the words of the check.
    """
    path, due = Path(action.output.path), RELOADS_DUE / action.output
    was_due, old = due.exists(), files.read_bytes(path, follow=True)
    files.replace_file(due, b"", 0o600)
    files.replace_file(path, action.text.encode(), MAP_MODE)
    running = _is_running(proxy, systemd)
    try:
        _check(proxy)
    except StepFailed as failure:
        raise StepFailed(f"{failure}; {_take_back(action, path, old, due, was_due=was_due)}") from failure
    _reload(proxy, systemd, running=running)
    files.remove_file(due)


def reload_proxy(action: ReloadProxy, systemd: Systemd) -> None:
    """Check and reload a proxy that may not have its map as it is. Raises `StepFailed`."""
    running = _is_running(action.proxy, systemd)
    _check(action.proxy)
    _reload(action.proxy, systemd, running=running)
    files.remove_file(RELOADS_DUE / action.output)


def _take_back(action: WriteOutput, path: Path, old: bytes | None, due: Path, *, was_due: bool) -> str:
    """Undo what a change adds, and nothing of what it takes out; return words for that."""
    taking_out = action.taking_out()
    if taking_out is not None:
        files.replace_file(path, taking_out.text.encode(), MAP_MODE)
        return "who was to be taken out of the map is out of it, nobody was added, and the proxy is not reloaded"
    if old is None:
        files.remove_file(path)
    else:
        files.replace_file(path, old, MAP_MODE)
    if not was_due:
        files.remove_file(due)
    return "the map was put back as it was"


def _check(proxy: Proxy) -> None:
    """Run the proxy's own check, where there is one on this machine. It opens logs, which rosterd.service may not."""
    if not proxy.check or not Path(proxy.check[0]).exists():
        return
    finished = run_outside("check of a proxy's configuration", proxy.check, _CHECK_SECONDS)
    if finished.code != 0:
        raise StepFailed(replace(finished, err=_last_words(finished.err), out=_last_words(finished.out)).complaint)


def _last_words(text: str) -> str:
    """Return the lines that say why: the last ones, without what is logged as JSON."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("{")]
    return "\n".join(lines[-_TOLD_LINES:])


def _is_running(proxy: Proxy, systemd: Systemd) -> bool:
    """Say whether the proxy runs, and has read its map before. Raises `BusUnavailable`."""
    state = None if proxy.unit is None else systemd.states([proxy.unit]).get(proxy.unit)
    return state is not None and state.active not in _AT_REST


def _reload(proxy: Proxy, systemd: Systemd, *, running: bool) -> None:
    if proxy.unit is None or not running:
        return
    result = systemd.run_jobs(Job.RELOAD, [proxy.unit], _RELOAD_SECONDS)[proxy.unit]
    if result != "done":
        raise StepFailed(f"{proxy.unit}: reload job: {result}; see: journalctl -u {proxy.unit}")
