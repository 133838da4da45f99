"""Homes looked at from outside: what has changed, what is there for steps, and which old units."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.desired import Desired
from reconciler.core.home_records import StepRecord
from reconciler.core.home_steps import DirectoryStep, Ending, FileStep, HomeStep, StepBody, Watch
from reconciler.core.observed import Account
from reconciler.core.site_homes import SiteStep
from reconciler.host import scan_home_work as module
from reconciler.host.looks import exists, same
from reconciler.host.scan_home_work import scan_home_work
from reconciler.host.state import State
from tests.unit.facts import SITE, desired, person


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return bob's home, on a machine without an agent for everybody."""
    monkeypatch.setattr(module, "AGENT_PLACES", (".local/bin/claude", str(tmp_path / "usr/bin/claude")))
    path = tmp_path / "home" / "bob"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


def accounts(home: Path) -> dict[str, Account]:
    return {"bob": Account("bob", 1001, 1001, str(home), "/bin/zsh")}


def wanting(body: StepBody | None = None) -> Desired:
    homes = {"x": SiteStep(HomeStep("x", body or DirectoryStep("x"), 30))}
    return desired(person("bob"), site=replace(SITE, homes=homes))


def save(state: State, *watches: Watch) -> None:
    state.save_home_steps("bob", {"x": StepRecord("d", Ending.DONE, "", 1, watches=watches)})


def test_a_look_that_is_still_true_is_no_change(home: Path, state: State) -> None:
    (home / "x").write_text("")
    save(state, same(home / "x"), exists(home / "y"))
    work = scan_home_work(wanting(), accounts(home), state)
    assert work.changed == {}
    assert work.records["bob"]["x"].watches == (same(home / "x"), exists(home / "y"))


def test_the_first_path_that_looks_different_is_named(home: Path, state: State) -> None:
    save(state, exists(home), exists(home / "y"), exists(home / "z"))
    (home / "y").write_text("")
    (home / "z").write_text("")
    assert scan_home_work(wanting(), accounts(home), state).changed == {("bob", "x"): str(home / "y")}


@pytest.mark.parametrize("path", ["/x\0y", "/x\ud800", "", "/" + "x" * 600])
def test_a_path_that_no_file_can_have_is_a_change_and_no_error(home: Path, state: State, path: str) -> None:
    """What is watched comes from a process of the person's own."""
    save(state, Watch(path, "same", ("file", 1)))
    inside = f"{home}{path}"
    for one in (path, inside):
        save(state, Watch(one, "same", ("file", 1)))
        assert scan_home_work(wanting(), accounts(home), state).changed == {("bob", "x"): one}


def test_a_record_that_is_damaged_is_as_none_and_no_error(home: Path, state: State) -> None:
    save(state, Watch("/" + "x" * 10_000, "same", ()))
    work = scan_home_work(wanting(), accounts(home), state)
    assert (work.changed, dict(work.records["bob"])) == ({}, {})


def test_nothing_beyond_a_link_in_a_home_is_looked_at(home: Path, state: State, tmp_path: Path) -> None:
    """It may lead to a file system that never answers, or tell what only root can see."""
    (tmp_path / "elsewhere").mkdir()
    (home / "link").symlink_to(tmp_path / "elsewhere")
    save(state, exists(home / "link" / "x"), exists(home / "link"))
    assert scan_home_work(wanting(), accounts(home), state).changed == {("bob", "x"): str(home / "link" / "x")}


def test_who_is_not_on_the_roster_is_not_looked_at(home: Path, state: State) -> None:
    state.save_home_steps("gone", {"x": StepRecord("d", Ending.DONE, "", 1, watches=(exists(home / "y"),))})
    (home / "y").write_text("")
    work = scan_home_work(wanting(), accounts(home), state)
    assert (work.records, work.changed) == ({}, {})


def test_what_lies_on_a_file_system_of_the_persons_own_is_not_looked_at(
    home: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "mnt").mkdir()
    save(state, exists(home / "mnt" / "x"))
    monkeypatch.setattr(module, "_mounts_below", lambda _: (home / "mnt",))
    asked: list[Watch] = []

    def look(watch: Watch) -> bool:
        asked.append(watch)
        return True

    monkeypatch.setattr(module, "still", look)
    assert scan_home_work(wanting(), accounts(home), state).changed == {("bob", "x"): str(home / "mnt" / "x")}
    assert asked == []


@pytest.mark.parametrize("place", ["home/bob/.local/bin/claude", "usr/bin/claude"])
def test_an_agent_of_ones_own_or_of_the_machine_is_one(home: Path, state: State, tmp_path: Path, place: str) -> None:
    assert scan_home_work(wanting(), accounts(home), state).with_agent == frozenset()
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).symlink_to("../share/claude")
    assert scan_home_work(wanting(), accounts(home), state).with_agent == {"bob"}


def test_old_units_that_are_there_are_found_and_masks_are_none(home: Path, state: State) -> None:
    folder = home / ".config/systemd/user"
    folder.mkdir(parents=True)
    assert scan_home_work(wanting(), accounts(home), state).legacy_units == {}
    (folder / "playwright-mcp.service").write_text("[Service]\n")
    (folder / "playwright-snapshot-refresh.timer").symlink_to("/dev/null")
    (folder / "playwright-snapshot-refresh.service").symlink_to(home / "dotfiles/x.service")
    (folder / "other.service").write_text("")
    assert scan_home_work(wanting(), accounts(home), state).legacy_units == {
        ("bob", "playwright"): ("playwright-mcp.service", "playwright-snapshot-refresh.service")
    }


def test_a_unit_that_is_gone_before_it_is_read_is_none(
    home: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / ".config/systemd/user"
    folder.mkdir(parents=True)
    (folder / "playwright-mcp.service").symlink_to("x")

    def vanish(_: Path) -> Path:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "readlink", vanish)
    work = scan_home_work(wanting(), accounts(home), state)
    assert work.legacy_units == {("bob", "playwright"): ("playwright-mcp.service",)}


@pytest.mark.skipif(os.getuid() != 0, reason="a source has to be root's")
def test_a_source_is_found_by_the_name_that_it_has_for_the_person(home: Path, state: State, tmp_path: Path) -> None:
    wanted = wanting(FileStep("x", source=f"{tmp_path}/{{user}}-{{tier}}"))
    source = tmp_path / "bob-power-user"
    assert scan_home_work(wanted, accounts(home), state).sources.get(str(source)) is None
    source.write_text("1")
    source.chmod(0o600)
    first = scan_home_work(wanted, accounts(home), state).sources[str(source)]
    assert first.problem == ""
    source.write_text("22")
    assert scan_home_work(wanted, accounts(home), state).sources[str(source)].state != first.state
    for mode, owner in ((0o620, 0), (0o602, 0), (0o600, 1001)):
        source.chmod(mode)
        os.chown(source, owner, 0)
        problem = scan_home_work(wanted, accounts(home), state).sources[str(source)].problem
        assert problem.startswith(f"{source}: ")
        assert "root" in problem
