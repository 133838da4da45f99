"""From one layout of the clones to the other: nothing is lost, whenever it is cut short."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.home_steps import CodeLayout, Ending, GitStep, LayoutStep
from reconciler.errors import StepFailed
from reconciler.home.git import take_git
from reconciler.home.layout import take_layout
from reconciler.home.place import Ended, Home, InTheWay
from reconciler.host.looks import still
from tests.unit.home.conftest import Git, Remote

pytestmark = pytest.mark.processes


class Killed(BaseException):
    """Stands for the end of the process, which no handler of errors sees."""


@pytest.fixture
def api(remote: Callable[[str], Remote]) -> Remote:
    return remote("api")


@pytest.fixture
def single(infra: Remote) -> LayoutStep:
    return LayoutStep(CodeLayout.SINGLE, "code", infra.url)


@pytest.fixture
def workspace(infra: Remote) -> LayoutStep:
    return LayoutStep(CodeLayout.WORKSPACE, "code", infra.url, ("api", "web"))


def as_single(step: LayoutStep) -> LayoutStep:
    """Return the step for the other layout of who has a workspace."""
    return replace(step, layout=CodeLayout.SINGLE, repos=())


def code_of(home: Home) -> Path:
    return home.path / "code"


def work_in(clone: Path, git: Git, remote: Remote) -> None:
    """Leave in a clone what a person who works there leaves."""
    git(clone.parent, "clone", "-q", remote.url, clone.name)
    (clone / ".gitignore").write_text("ignored\n")
    git(clone, "add", ".gitignore")
    git(clone, "commit", "-q", "-m", "ignore")
    git(clone, "branch", "idea")
    (clone / "README").write_text("stashed\n")
    git(clone, "stash", "-q")
    (clone / "README").write_text("changed\n")
    git.commit(clone, "deep/file", "committed\n", branch="feature")
    (clone / "deep/untracked").write_text("untracked\n")
    (clone / "staged").write_text("staged\n")
    git(clone, "add", "staged")
    (clone / "ignored").write_text("ignored\n")
    (clone / "link").symlink_to("nowhere")


@pytest.fixture
def nested(home: Home, infra: Remote, api: Remote, git: Git) -> Path:
    """Return an infra clone at ~/code that is worked in, with a clone of api in it that is worked in too."""
    code = code_of(home)
    work_in(code, git, infra)
    work_in(code / "api", git, api)
    (code / "notes").mkdir()
    (code / "notes/today").write_text("mine\n")
    return code


def files(folder: Path) -> dict[str, tuple[int, int, int, str]]:
    """Return what every file below a folder is and holds, by its path in it."""
    found = {}
    for top, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(top) / name
            look = path.lstat()
            content = sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(look.st_mode) else ""
            # A folder's own times change with what is renamed in it.
            time = look.st_mtime_ns if content else 0
            found[str(path.relative_to(folder))] = (look.st_ino, look.st_mode, time, content)
    return found


def under(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the part of a tree that is below a folder."""
    return {path.removeprefix(f"{name}/"): look for path, look in tree.items() if path.startswith(f"{name}/")}


def said_by_git(clone: Path, git: Git) -> Sequence[str]:
    """Return what git knows of a clone."""
    return [
        git(clone, *question.split())
        for question in ("status -sb", "for-each-ref", "stash list -p", "reflog", "diff HEAD", "config --local --list")
    ]


Kill = Callable[[int, LayoutStep], bool]


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch, home: Home) -> Kill:
    """Return what takes a step in a process that ends before its nth change, and says whether it came that far."""

    def killed_at(number: int, step: LayoutStep) -> bool:
        changes = itertools.count(1)

        def ending(change: Callable[..., None]) -> Callable[..., None]:
            def changed(*arguments: object, **options: object) -> None:
                if next(changes) == number:
                    raise Killed
                change(*arguments, **options)

            return changed

        with monkeypatch.context() as patch:
            for name in ("rename", "mkdir", "chmod", "rmdir"):
                patch.setattr(os, name, ending(getattr(os, name)))
            try:
                take_layout(step, home)
            except Killed:
                return True
        return False

    return killed_at


def done(ended: Ended) -> str:
    """Return what was done, and make sure that what was relied on is noted as it is."""
    assert ended.ending is Ending.DONE
    assert all(still(watch) for watch in ended.watches)
    return ended.detail


def refused(step: LayoutStep, home: Home) -> str:
    """Take the step, which must move nothing, and return its words."""
    before = files(home.path)
    with pytest.raises(InTheWay) as raised:
        take_layout(step, home)
    assert files(home.path) == before
    return str(raised.value)


# --- a folder for all clones ---


def test_a_folder_is_made(workspace: LayoutStep, home: Home) -> None:
    assert done(take_layout(workspace, home)) == "made"
    assert stat.S_IMODE(code_of(home).stat().st_mode) == 0o755
    assert done(take_layout(workspace, home)) == "already so"


def test_without_infra_only_the_folder_is_made(workspace: LayoutStep, home: Home) -> None:
    assert done(take_layout(replace(workspace, url=None), home)) == "made"
    assert done(take_layout(replace(workspace, url=None), home)) == "already so"


def test_the_clone_goes_a_level_lower_and_the_one_in_it_beside_it(
    workspace: LayoutStep, home: Home, nested: Path, git: Git
) -> None:
    before = files(nested)
    words = said_by_git(nested / "api", git)
    assert done(take_layout(workspace, home)) == "infra moved to ~/code/infra, api lifted to ~/code/api"
    after = files(nested)
    assert under(after, "api") == under(before, "api")
    assert under(after, "infra") == {path: look for path, look in before.items() if path.split("/")[0] != "api"}
    assert said_by_git(nested / "api", git) == words
    assert sorted(path.name for path in nested.iterdir()) == ["api", "infra"]
    assert not (home.path / ".code.rosterd").exists()
    assert stat.S_IMODE(nested.stat().st_mode) == 0o755
    assert done(take_layout(workspace, home)) == "already so"
    assert files(nested) == after


def test_what_infra_holds_of_its_own_is_not_lifted(workspace: LayoutStep, home: Home, infra: Remote, git: Git) -> None:
    infra.push("api/README", "of infra")
    git(home.path, "clone", "-q", infra.url, "code")
    git(code_of(home) / "api", "init", "-q")
    (code_of(home) / "web").mkdir()
    assert done(take_layout(workspace, home)) == "infra moved to ~/code/infra"
    assert (code_of(home) / "infra/api/README").read_text() == "of infra"
    assert not (code_of(home) / "api").exists()
    assert (code_of(home) / "infra/web").is_dir()


def test_a_submodule_is_not_lifted(workspace: LayoutStep, home: Home, infra: Remote, api: Remote, git: Git) -> None:
    git(infra.work, "submodule", "--quiet", "add", api.url, "api")
    git(infra.work, "commit", "-q", "-m", "api")
    git(infra.work, "push", "-q")
    git(home.path, "clone", "-q", "--recurse-submodules", infra.url, "code")
    assert done(take_layout(workspace, home)) == "infra moved to ~/code/infra"
    assert git(code_of(home) / "infra", "submodule", "status").endswith("api (heads/main)")


def test_what_is_beside_infra_already_is_not_replaced(
    workspace: LayoutStep, home: Home, nested: Path, api: Remote, git: Git
) -> None:
    take_layout(replace(workspace, repos=()), home)
    git(nested, "clone", "-q", api.url, "api")
    before = files(nested)
    ended = take_layout(workspace, home)
    assert done(ended) == "already so"
    assert files(nested) == before
    (nested / "api").rename(home.path / "elsewhere")
    assert not all(still(watch) for watch in ended.watches)
    assert done(take_layout(workspace, home)) == "api lifted to ~/code/api"


def test_what_is_cloned_into_infra_later_is_noticed_and_lifted(
    workspace: LayoutStep, home: Home, nested: Path, api: Remote, git: Git
) -> None:
    ended = take_layout(workspace, home)
    git(nested / "infra", "clone", "-q", api.url, "web")
    assert not all(still(watch) for watch in ended.watches)
    assert done(take_layout(workspace, home)) == "web lifted to ~/code/web"


# --- the infra clone alone ---


def test_nothing_or_an_empty_folder_is_left_to_the_clone(single: LayoutStep, home: Home) -> None:
    assert done(take_layout(single, home)) == "already so"
    assert not code_of(home).exists()
    code_of(home).mkdir()
    assert done(take_layout(single, home)) == "already so"
    assert code_of(home).is_dir()


def test_without_infra_nothing_is_done(single: LayoutStep, home: Home) -> None:
    (code_of(home) / "anything").mkdir(parents=True)
    assert done(take_layout(replace(single, url=None), home)) == "already so"


def test_there_and_back_keeps_every_byte(
    single: LayoutStep, workspace: LayoutStep, home: Home, nested: Path, git: Git
) -> None:
    before, words, of_api = files(nested), said_by_git(nested, git), said_by_git(nested / "api", git)
    take_layout(workspace, home)
    assert done(take_layout(single, home)) == "infra moved to ~/code with api in it"
    assert files(nested) == before
    assert said_by_git(nested, git) == words
    assert said_by_git(nested / "api", git) == of_api
    assert sorted(path.name for path in home.path.iterdir()) == [".gitconfig", "code"]
    assert done(take_layout(single, home)) == "already so"
    assert files(nested) == before


def test_one_name_in_both_is_found_out_before_anything_moves(
    single: LayoutStep, workspace: LayoutStep, home: Home, nested: Path
) -> None:
    take_layout(workspace, home)
    (nested / "notes").write_text("other notes")
    words = refused(single, home)
    assert words.startswith("~/code and ~/code/infra both hold notes, ")
    (nested / "notes").rename(nested / "other notes")
    assert done(take_layout(single, home)) == "infra moved to ~/code with api, other notes in it"
    assert (nested / "other notes").read_text() == "other notes"


# --- in the way ---


@pytest.fixture(params=[CodeLayout.SINGLE, CodeLayout.WORKSPACE])
def either(request: pytest.FixtureRequest, infra: Remote) -> LayoutStep:
    return LayoutStep(request.param, "code", infra.url)


def test_a_file_is_left_alone(either: LayoutStep, home: Home) -> None:
    code_of(home).write_text("mine")
    assert refused(either, home).startswith("~/code is no folder; move it away")


def test_a_link_is_left_alone(either: LayoutStep, home: Home, infra: Remote) -> None:
    code_of(home).symlink_to(infra.work)
    assert f"~/code is a symbolic link to {infra.work}" in refused(either, home)


def test_a_clone_of_something_else_is_left_alone(either: LayoutStep, home: Home, api: Remote, git: Git) -> None:
    git(home.path, "clone", "-q", api.url, "code")
    assert f"~/code is a clone of something else than {either.url}" in refused(either, home)


def test_a_linked_worktree_is_left_alone(either: LayoutStep, home: Home, infra: Remote, git: Git) -> None:
    git(infra.work, "worktree", "add", "-q", "-b", "x", str(code_of(home)))
    assert "~/code is a linked worktree or a submodule" in refused(either, home)


def test_a_clone_is_left_alone_where_no_infra_is_named(either: LayoutStep, home: Home, infra: Remote, git: Git) -> None:
    git(home.path, "clone", "-q", infra.url, "code")
    step = replace(either, url=None)
    if either.layout is CodeLayout.WORKSPACE:
        assert "~/code is a clone" in refused(step, home)
    else:
        assert done(take_layout(step, home)) == "already so"


def test_a_folder_without_infra_does_not_become_the_clone(
    single: LayoutStep, home: Home, api: Remote, git: Git
) -> None:
    code_of(home).mkdir()
    for number in range(7):
        (code_of(home) / f"notes{number}").touch()
    assert "with notes0, notes1, notes2, notes3, notes4 and 2 more and no clone of file:" in refused(single, home)
    git(code_of(home), "clone", "-q", api.url, "infra")
    assert "~/code/infra is a clone of something else" in refused(single, home)


def test_a_stranger_in_the_place_for_what_is_on_its_way_is_left_alone(
    either: LayoutStep, home: Home, nested: Path
) -> None:
    (home.path / ".code.rosterd").mkdir()
    (home.path / ".code.rosterd/file").write_text("mine")
    assert "~/.code.rosterd is a folder with other things in it" in refused(either, home)
    assert nested.exists()


def test_an_infra_clone_known_by_another_remote_and_address_is_one(
    workspace: LayoutStep, home: Home, api: Remote, git: Git
) -> None:
    git(home.path, "clone", "-q", api.url, "code")
    git(code_of(home), "remote", "add", "upstream", "git@git.example.org:team/infra.git")
    step = replace(workspace, url="https://git.example.org/team/infra")
    assert done(take_layout(step, home)) == "infra moved to ~/code/infra"


# --- cut short ---


def test_it_is_finished_wherever_it_was_killed_on_the_way_to_a_folder(
    workspace: LayoutStep, home: Home, nested: Path, git: Git, killed_at: Kill
) -> None:
    before, of_api = files(nested), said_by_git(nested / "api", git)
    single = as_single(workspace)
    number = 0
    while killed_at(number := number + 1, workspace):
        done(take_layout(workspace, home))
        after = files(nested)
        assert under(after, "api") == under(before, "api")
        assert under(after, "infra") == {path: look for path, look in before.items() if path.split("/")[0] != "api"}
        assert said_by_git(nested / "api", git) == of_api
        assert sorted(path.name for path in home.path.iterdir()) == [".gitconfig", "code"]
        take_layout(single, home)
        assert files(nested) == before
    assert number == 6


def test_it_is_finished_wherever_it_was_killed_on_the_way_to_the_clone(
    workspace: LayoutStep, home: Home, nested: Path, git: Git, killed_at: Kill
) -> None:
    single = as_single(workspace)
    before, words = files(nested), said_by_git(nested, git)
    take_layout(workspace, home)
    (nested / "more").write_text("more")
    number = 0
    while killed_at(number := number + 1, single):
        done(take_layout(single, home))
        (nested / "more").rename(home.path / "more")
        assert files(nested) == before
        assert said_by_git(nested, git) == words
        (home.path / "more").rename(nested / "more")
        assert sorted(path.name for path in home.path.iterdir()) == [".gitconfig", "code"]
        take_layout(workspace, home)
        (nested / "infra/more").rename(nested / "more")
    assert number == 6


def test_it_is_turned_round_where_the_other_layout_is_wanted_meanwhile(
    single: LayoutStep, workspace: LayoutStep, home: Home, nested: Path, killed_at: Kill
) -> None:
    before = files(nested)
    for number in range(1, 6):
        assert killed_at(number, workspace)
        done(take_layout(single, home))
        assert files(nested) == before
    take_layout(workspace, home)
    after = files(nested)
    for number in range(1, 5):
        assert killed_at(number, single)
        done(take_layout(workspace, home))
        assert files(nested) == after


def test_a_clone_made_while_it_was_cut_short_is_not_written_over(
    workspace: LayoutStep, home: Home, nested: Path, git: Git, killed_at: Kill
) -> None:
    before = files(nested)
    assert killed_at(4, workspace)
    git(home.path, "clone", "-q", str(workspace.url), "code")
    assert "~/.code.rosterd is a folder with other things in it" in refused(workspace, home)
    (home.path / "code").rename(home.path / "second")
    done(take_layout(workspace, home))
    assert under(files(nested), "api") == under(before, "api")


def test_what_cannot_be_moved_leaves_the_folder_in_its_place(
    single: LayoutStep, workspace: LayoutStep, home: Home, nested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_layout(workspace, home)
    rename = os.rename

    def refusing(source: Path, target: Path) -> None:
        if Path(source).name == "api":
            raise OSError(16, "Device or resource busy", str(source))
        rename(source, target)

    before = files(nested)
    monkeypatch.setattr(os, "rename", refusing)
    with pytest.raises(StepFailed, match="busy"):
        take_layout(single, home)
    assert files(nested) == before


# --- with the steps that clone ---


def test_the_clones_that_follow_are_no_reason_to_look_again(
    either: LayoutStep, home: Home, infra: Remote, api: Remote
) -> None:
    infra.push("api/README", "of infra")
    step = replace(either, repos=("api",)) if either.layout is CodeLayout.WORKSPACE else either
    ended = take_layout(step, home)
    if either.layout is CodeLayout.SINGLE:
        take_git(GitStep("code", infra.url), home)
    else:
        take_git(GitStep("code/infra", infra.url), home)
        take_git(GitStep("code/api", api.url), home)
    assert done(ended) in ("made", "already so")
    assert done(take_layout(step, home)) == "already so"


def test_what_undoes_the_layout_is_a_reason_to_look_again(
    single: LayoutStep, workspace: LayoutStep, home: Home, nested: Path, git: Git
) -> None:
    ended = take_layout(single, home)
    take_layout(workspace, home)
    assert not all(still(watch) for watch in ended.watches)
    ended = take_layout(workspace, home)
    take_layout(single, home)
    assert not all(still(watch) for watch in ended.watches)
    ended = take_layout(workspace, home)
    git(nested, "init", "-q")
    assert not all(still(watch) for watch in ended.watches)


# --- linked worktrees ---


def worktrees(clone: Path, git: Git) -> list[str]:
    """Return the worktrees of a clone that are where it says, and where git says the same from within."""
    listed = git(clone, "worktree", "list", "--porcelain").split("\n\n")
    assert not [words for words in listed if "prunable" in words]
    paths = [words.splitlines()[0].removeprefix("worktree ") for words in listed]
    for path in paths:
        git(Path(path), "status")
        assert git(Path(path), "worktree", "list", "--porcelain").split("\n\n") == listed
    return sorted(paths)


def test_worktrees_stay_linked_there_and_back(
    workspace: LayoutStep, home: Home, nested: Path, infra: Remote, git: Git
) -> None:
    single = as_single(workspace)
    outside, beside = home.path / "outside", home.path / "beside"
    git(nested, "worktree", "add", "-q", "-b", "one", str(outside))
    git(nested, "worktree", "add", "-q", "-b", "two", str(nested / "inside"))
    git(nested, "worktree", "add", "-q", "-b", "deep", str(nested / "some/where/inside"))
    git(nested / "api", "worktree", "add", "-q", "-b", "one", str(beside))
    git(nested / "api", "worktree", "add", "-q", "-b", "two", str(nested / "api/inner"))
    git(nested / "api", "worktree", "add", "-q", "-b", "three", str(nested / "api-three"))
    git(infra.work, "worktree", "add", "-q", "-b", "of-another", str(nested / "foreign"))
    for _ in range(2):
        take_layout(workspace, home)
        inner = nested / "infra"
        assert worktrees(inner, git) == sorted(
            map(str, (inner, outside, inner / "inside", inner / "some/where/inside"))
        )
        assert worktrees(nested / "api", git) == sorted(
            map(str, (nested / "api", beside, nested / "api/inner", inner / "api-three"))
        )
        assert worktrees(infra.work, git) == sorted(map(str, (infra.work, inner / "foreign")))
        take_layout(single, home)
        assert worktrees(nested, git) == sorted(
            map(str, (nested, outside, nested / "inside", nested / "some/where/inside"))
        )
        assert worktrees(nested / "api", git) == sorted(
            map(str, (nested / "api", beside, nested / "api/inner", nested / "api-three"))
        )
        assert worktrees(infra.work, git) == sorted(map(str, (infra.work, nested / "foreign")))


def test_worktrees_are_linked_again_by_the_run_after_one_that_was_killed(
    workspace: LayoutStep, home: Home, nested: Path, git: Git, killed_at: Kill
) -> None:
    outside = home.path / "outside"
    git(nested, "worktree", "add", "-q", "-b", "one", str(outside))
    git(nested, "worktree", "add", "-q", "-b", "two", str(nested / "inside"))
    assert killed_at(5, workspace)
    take_layout(workspace, home)
    inner = nested / "infra"
    assert worktrees(inner, git) == sorted(map(str, (inner, outside, inner / "inside")))


def test_a_worktree_that_is_gone_is_no_obstacle(workspace: LayoutStep, home: Home, nested: Path, git: Git) -> None:
    git(nested, "worktree", "add", "-q", "-b", "one", str(home.path / "outside"))
    (home.path / "outside").rename(home.path / "elsewhere")
    assert done(take_layout(workspace, home)) == "infra moved to ~/code/infra, api lifted to ~/code/api"
