"""How a map is put in place for a proxy: the order of steps, and what a failure at each of them leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.actions import Phase, ReloadProxy, WriteOutput
from reconciler.core.observed import UnitState
from reconciler.core.outputs import Route, parse, render
from reconciler.core.site import OutputKind, Proxy
from reconciler.errors import StepFailed
from reconciler.host import proxies
from reconciler.host.bus import BusUnavailable, Job, Systemd
from reconciler.host.process import Finished

KIND = OutputKind.NGINX_MAP
PROXY = Proxy(("/bin/sh", "check"), "nginx.service")
ALICE, BOB, CAROL = Route("a", "alice", 3773), Route("b", "bob", 3774), Route("c", "carol", 3775)
# Edited by hand, so that "byte for byte" means something.
BEFORE = render(KIND, [ALICE, BOB]) + "# a note\n"


class Surroundings(Systemd):
    """A service manager, a check and a folder; notes what is done, and with which map and mark in place."""

    def __init__(self, folder: Path) -> None:
        """Let the proxy run and everything work."""
        super().__init__()
        self.map, self.due = folder / "nginx-map.conf", folder / "due" / KIND
        self.state: str | None = "active"
        self.dead = False
        self.code = 0
        self.result = "done"
        self.done: list[tuple[str, list[str], bool]] = []

    def states(self, patterns: Sequence[str]) -> Mapping[str, UnitState]:
        """Return the state of the proxy's unit."""
        if self.dead:
            raise BusUnavailable("no answer")
        return {} if self.state is None else {unit: UnitState(str(self.state), "") for unit in patterns}

    def run_jobs(self, job: Job, units: Iterable[str], seconds: float) -> dict[str, str]:
        """Reload."""
        assert seconds > 0
        self._note(job.value)
        return dict.fromkeys(units, self.result)

    def check(self, _what: str, command: Sequence[str], _timeout: int) -> Finished:
        """Check the configuration."""
        self._note("check")
        return Finished(tuple(command), self.code, "", '{"level": "info"}\none\n\ntwo\nthree\n')

    def _note(self, what: str) -> None:
        self.done.append((what, self.people(), self.due.exists()))

    def people(self) -> list[str]:
        """Return who is in the map now."""
        return [route.user for route in parse(KIND, self.map.read_text(encoding="utf-8"))]

    def put(self, *routes: Route, phase: Phase = Phase.MAPS, proxy: Proxy = PROXY) -> None:
        """Put a map with these routes in place of what there is."""
        before = self.map.read_text(encoding="utf-8") if self.map.exists() else None
        proxies.put_in_place(WriteOutput(KIND, routes, before, phase, proxy), proxy, self)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    """Return a machine with a map of alice and bob."""
    made = Surroundings(tmp_path)
    made.map.write_text(BEFORE, encoding="utf-8")
    monkeypatch.setattr(proxies, "RELOADS_DUE", tmp_path / "due")
    monkeypatch.setattr(proxies, "run_outside", made.check)
    monkeypatch.setattr("reconciler.core.site._OUTPUT_PATHS", {KIND: str(made.map)})
    return made


def test_the_map_is_in_place_before_it_is_checked_and_the_reload_is_due_until_it_is_done(host: Surroundings) -> None:
    host.put(ALICE, BOB, CAROL)
    everybody = ["alice", "bob", "carol"]
    assert host.done == [("check", everybody, True), ("ReloadUnit", everybody, True)]
    assert not host.due.exists()


@pytest.mark.parametrize("state", [None, "inactive", "failed", "deactivating"])
def test_a_proxy_that_does_not_run_is_checked_and_not_reloaded(host: Surroundings, state: str | None) -> None:
    host.state = state
    host.put(ALICE)
    assert host.done == [("check", ["alice"], True)]
    assert not host.due.exists()


def test_what_is_not_there_or_not_named_is_left_out(host: Surroundings) -> None:
    host.put(ALICE, proxy=replace(PROXY, check=("/no/such/program",)))
    host.put(BOB, proxy=replace(PROXY, check=()))
    assert [what for what, _, _ in host.done] == ["ReloadUnit", "ReloadUnit"]
    host.put(ALICE, proxy=Proxy())
    assert len(host.done) == 2
    assert not host.due.exists()


def test_a_failed_check_puts_the_old_map_back_byte_for_byte_and_gives_its_last_words(host: Surroundings) -> None:
    host.code = 1
    with pytest.raises(StepFailed, match=r"^sh exited 1: two three; the map was put back as it was$"):
        host.put(ALICE, BOB, CAROL)
    assert host.done == [("check", ["alice", "bob", "carol"], True)]
    assert host.map.read_text(encoding="utf-8") == BEFORE
    assert not host.due.exists()


def test_a_first_map_that_fails_the_check_is_taken_away_again(host: Surroundings) -> None:
    host.map.unlink()
    host.code = 1
    with pytest.raises(StepFailed, match="put back"):
        host.put(ALICE)
    assert not host.map.exists()


@pytest.mark.parametrize("phase", [Phase.UNMAP, Phase.MAPS])
def test_who_is_to_go_is_gone_though_the_check_fails(host: Surroundings, phase: Phase) -> None:
    host.code = 1
    with pytest.raises(StepFailed, match="is out of it"):
        host.put(ALICE, CAROL, phase=phase)
    assert host.people() == ["alice"]
    assert host.due.exists(), "the proxy still has bob"


def test_a_reload_that_was_due_before_stays_due_after_a_failed_check(host: Surroundings) -> None:
    host.due.parent.mkdir()
    host.due.touch()
    host.code = 1
    with pytest.raises(StepFailed):
        host.put(ALICE, BOB, CAROL)
    assert host.due.exists()


def test_a_reload_that_fails_stays_due_and_is_told(host: Surroundings) -> None:
    host.result = "failed"
    with pytest.raises(StepFailed, match=r"nginx\.service: reload job: failed"):
        host.put(ALICE)
    assert host.people() == ["alice"]
    assert host.due.exists()


def test_a_bus_that_does_not_answer_is_not_taken_for_a_failed_check(host: Surroundings) -> None:
    host.dead = True
    with pytest.raises(StepFailed, match="no answer"):
        host.put(ALICE, BOB, CAROL)
    assert host.people() == ["alice", "bob", "carol"]
    assert host.done == []
    assert host.due.exists()


def test_a_reload_that_is_due_is_made_after_a_check_and_only_then_no_more_due(host: Surroundings) -> None:
    host.due.parent.mkdir()
    host.due.touch()
    host.code = 1
    with pytest.raises(StepFailed, match="two three"):
        proxies.reload_proxy(ReloadProxy(KIND, PROXY), host)
    assert host.due.exists()
    host.code = 0
    proxies.reload_proxy(ReloadProxy(KIND, PROXY), host)
    assert [what for what, _, _ in host.done] == ["check", "check", "ReloadUnit"]
    assert not host.due.exists()
    assert host.map.read_text(encoding="utf-8") == BEFORE
