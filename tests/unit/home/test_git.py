"""Clones: made whole or not at all, and followed only where that takes nothing from the person."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.home_steps import Ending, GitStep
from reconciler.errors import StepFailed
from reconciler.home.git import take_git
from reconciler.home.place import Ended, Home, InTheWay
from reconciler.home.repository import same_repository
from reconciler.host.looks import still
from tests.unit.home.conftest import Git, Remote, demanding_server

pytestmark = pytest.mark.processes


@pytest.fixture
def step(infra: Remote) -> GitStep:
    return GitStep("src/infra", infra.url)


@pytest.fixture
def clone(step: GitStep, home: Home) -> Path:
    """Return a clone that the step has made."""
    assert take_git(step, home).detail == "cloned"
    return home.inside(step.path)


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells whether anything below a folder was written."""
    looks = {}
    for top, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            found = (Path(top) / name).lstat()
            looks[f"{top}/{name}"] = (found.st_ino, found.st_mtime_ns, found.st_size)
    return looks


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def kept(ended: Ended) -> str:
    """Return why a clone was left alone."""
    assert ended.ending is Ending.KEPT, ended
    return ended.detail


# --- what is absent ---


def test_it_is_cloned_with_its_parents_on_the_remotes_own_branch(infra: Remote, home: Home, git: Git) -> None:
    infra.push("more", "of it", branch="trunk")
    git(infra.bare, "symbolic-ref", "HEAD", "refs/heads/trunk")
    ended = take_git(GitStep("src/deep/infra", infra.url), home)
    path = home.path / "src/deep/infra"
    assert (ended.ending, ended.detail) == (Ending.DONE, "cloned")
    assert git(path, "status", "-sb") == "## trunk...origin/trunk"
    assert git(path, "remote", "get-url", "origin") == infra.url
    assert names(path.parent) == ["infra"]


def test_the_branch_that_is_asked_for_is_checked_out(infra: Remote, home: Home, git: Git) -> None:
    infra.push("more", "of it", branch="release/1")
    take_git(GitStep("infra", infra.url, branch="release/1"), home)
    assert git(home.path / "infra", "status", "-sb") == "## release/1...origin/release/1"


def test_the_names_that_the_person_gives_to_remotes_do_not_count(step: GitStep, home: Home, git: Git) -> None:
    git(home.path, "config", "--global", "clone.defaultRemoteName", "elsewhere")
    take_git(step, home)
    assert git(home.inside(step.path), "remote") == "origin"


def test_an_empty_folder_gives_way(step: GitStep, home: Home) -> None:
    home.inside(step.path).mkdir(parents=True)
    assert take_git(step, home).detail == "cloned"


def test_what_an_interrupted_clone_left_is_removed(step: GitStep, home: Home) -> None:
    left = home.path / "src/.infra.rosterd-new"
    (left / ".git").mkdir(parents=True)
    (left / "half").write_text("of it")
    assert take_git(step, home).detail == "cloned"
    assert names(home.path / "src") == ["infra"]
    assert not (home.inside(step.path) / "half").exists()


def test_a_link_in_the_place_of_what_was_left_is_removed_and_not_followed(
    step: GitStep, home: Home, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("precious")
    (home.path / "src").mkdir()
    (home.path / "src/.infra.rosterd-new").symlink_to(tmp_path / "precious")
    assert take_git(step, home).detail == "cloned"
    assert (tmp_path / "precious/file").read_text() == "precious"


def test_a_remote_that_is_not_there_fails_and_leaves_nothing(step: GitStep, home: Home) -> None:
    with pytest.raises(StepFailed, match=r"does not exist|does not appear"):
        take_git(replace(step, url=f"file://{home.path}/nowhere.git"), home)
    assert names(home.path / "src") == []


def test_a_branch_that_is_not_there_fails_and_leaves_nothing(step: GitStep, home: Home) -> None:
    with pytest.raises(StepFailed, match="Remote branch nosuch not found"):
        take_git(replace(step, branch="nosuch"), home)
    assert names(home.path / "src") == []


def test_what_comes_to_its_place_meanwhile_is_kept(step: GitStep, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def late(source: Path, target: Path) -> None:
        (home.path / "src/infra").mkdir()
        (home.path / "src/infra/mine").write_text("mine")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(InTheWay, match=r"~/src/infra is a folder with other things"):
        take_git(step, home)
    assert names(home.path / "src") == ["infra"]
    assert (home.path / "src/infra/mine").read_text() == "mine"


def test_an_empty_remote_is_cloned_and_followed_once_it_has_something(home: Home, git: Git, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "new.git")
    step = GitStep("new", f"file://{tmp_path}/new.git")
    assert [take_git(step, home).detail for _ in range(2)] == ["cloned", "already there"]
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", "new.git", "other")
    git.commit(other, "README", "first")
    git(other, "push", "-q", "origin", "main")
    assert take_git(step, home).detail == "1 commit newer"
    assert (home.path / "new/README").read_text() == "first"


def test_an_untracked_file_is_not_written_over_by_the_first_commits(home: Home, git: Git, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "new.git")
    step = GitStep("new", f"file://{tmp_path}/new.git")
    take_git(step, home)
    (home.path / "new/README").write_text("mine")
    git(tmp_path, "clone", "-q", "new.git", "other")
    git.commit(tmp_path / "other", "README", "first")
    git(tmp_path / "other", "push", "-q", "origin", "main")
    assert "would be overwritten" in kept(take_git(step, home))
    assert (home.path / "new/README").read_text() == "mine"


# --- bounds, and what does not come out ---


@pytest.fixture
def silent() -> Iterator[str]:
    """Return the address of a server that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/infra.git"


def test_a_remote_that_hangs_is_given_up_in_time_and_leaves_nothing(silent: str, step: GitStep, home: Home) -> None:
    started = time.monotonic()
    home.deadline = started + 1
    with pytest.raises(StepFailed, match="did not end within"):
        take_git(replace(step, url=silent), home)
    assert time.monotonic() - started < 3
    assert names(home.path / "src") == []


def test_a_fetch_that_hangs_is_given_up_in_time_and_changes_nothing(
    silent: str, step: GitStep, home: Home, clone: Path, git: Git
) -> None:
    git(clone, "config", "remote.origin.url", silent)
    before = state(clone)
    home.deadline = time.monotonic() + 1.5
    with pytest.raises(StepFailed, match="did not end within"):
        take_git(replace(step, url=silent), home)
    assert state(clone) == before


def test_a_filter_that_hangs_leaves_no_lock(step: GitStep, home: Home, clone: Path, git: Git, infra: Remote) -> None:
    infra.push(".gitattributes", "slow filter=slow\n")
    take_git(step, home)
    git(clone, "config", "filter.slow.smudge", "sleep 60")
    infra.push("slow", "file")
    home.deadline = time.monotonic() + 2
    with pytest.raises(StepFailed, match="git merge did not end within"):
        take_git(step, home)
    assert not (clone / ".git/index.lock").exists()


def test_nobody_is_asked_for_a_password(step: GitStep, home: Home, git: Git) -> None:
    asked = home.path / "asked"
    askpass = home.path / "askpass"
    askpass.write_text(f"#!/bin/sh\ntouch {asked}\n")
    askpass.chmod(0o755)
    git(home.path, "config", "--global", "core.askPass", str(askpass))
    with demanding_server() as url, pytest.raises(StepFailed, match="terminal prompts disabled"):
        take_git(replace(step, url=url), home)
    assert not asked.exists()


def test_a_token_in_an_address_of_the_persons_does_not_come_out(
    step: GitStep, home: Home, clone: Path, git: Git
) -> None:
    with demanding_server() as url:
        secret = url.replace("://", "://bob:p@s3cret@")
        git(clone, "config", "remote.origin.url", secret)
        with pytest.raises(StepFailed) as raised:
            take_git(replace(step, url=url), home)
    assert "s3cret" not in str(raised.value)
    assert "git fetch in ~/src/infra: " in str(raised.value)
    assert "s3cret" not in kept(take_git(step, home))


def test_a_credential_helper_of_the_persons_is_used(step: GitStep, home: Home, git: Git) -> None:
    seen = home.path / "seen"
    git(home.path, "config", "--global", "credential.helper", f"!cat > {seen}; echo username=a; echo password=b; :")
    with demanding_server() as url, pytest.raises(StepFailed):
        take_git(replace(step, url=url), home)
    assert seen.exists()


# --- what is there ---


def test_a_second_time_changes_nothing(step: GitStep, home: Home, clone: Path) -> None:
    take_git(step, home)
    before = state(clone)
    ended = take_git(step, home)
    assert (ended.ending, ended.detail) == (Ending.DONE, "already there")
    assert state(clone) == before


def test_what_it_relied_on_looks_the_same_until_somebody_changes_it(
    step: GitStep, home: Home, infra: Remote, git: Git
) -> None:
    infra.push("secrets", "x")
    step = replace(step, remotes=(("upstream", infra.url),), filters=("git-crypt",))
    first = take_git(step, home)
    assert all(still(watch) for watch in first.watches)
    second = take_git(step, home)
    assert second.watches == first.watches
    git(home.inside(step.path), "config", "user.name", "Somebody Else")
    assert not all(still(watch) for watch in second.watches)


def test_a_change_of_the_configuration_while_it_works_is_noticed_later(
    step: GitStep, home: Home, clone: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = home.run

    def meddling(_: Home, argv: list[str], **how: object) -> object:
        finished = run(argv, **how)  # type: ignore[arg-type]  # as it came
        if "get-url" in argv or "ls-remote" in argv or argv[-1] == "remote":
            git(clone, "config", "user.name", f"{time.monotonic()}")
        return finished

    monkeypatch.setattr(Home, "run", meddling)
    assert not all(still(watch) for watch in take_git(step, home).watches)


def test_remotes_are_added_and_never_changed(step: GitStep, home: Home, clone: Path, git: Git) -> None:
    git(clone, "remote", "add", "mine", "https://example.org/mine.git")
    git(clone, "remote", "remove", "origin")
    step = replace(step, remotes=(("mine", "https://example.org/other.git"), ("more", "https://example.org/m.git")))
    assert "remote origin added, remote more added" in take_git(step, home).detail
    assert git(clone, "config", "--get-regexp", r"^remote\..*\.url").splitlines() == [
        "remote.mine.url https://example.org/mine.git",
        f"remote.origin.url {step.url}",
        "remote.more.url https://example.org/m.git",
    ]
    assert take_git(step, home).detail == "already there"


def test_an_upstream_is_set_where_there_is_none(step: GitStep, home: Home, clone: Path, git: Git) -> None:
    git(clone, "branch", "--unset-upstream")
    assert take_git(replace(step, branch="main"), home).detail == "already there, upstream of main set"
    assert git(clone, "status", "-sb") == "## main...origin/main"
    git(clone, "branch", "-q", "--set-upstream-to", "origin/main", "main")
    git(clone, "config", "branch.main.merge", "refs/heads/other")
    take_git(step, home)
    assert git(clone, "config", "branch.main.merge") == "refs/heads/other"


def test_a_clone_that_the_person_made_another_way_is_taken_for_one(step: GitStep, home: Home, git: Git) -> None:
    path = home.inside(step.path)
    path.mkdir(parents=True)
    git(path, "init", "-q")
    assert take_git(step, home).detail == "1 commit newer, remote origin added, upstream of main set"
    assert take_git(step, home).detail == "already there"


def test_another_repository_as_its_origin_is_left_alone_and_said(
    step: GitStep, home: Home, clone: Path, remote: Callable[[str], Remote], git: Git
) -> None:
    fork = remote("fork")
    git(clone, "remote", "set-url", "origin", fork.url)
    fork.push("new", "file")
    before = git(clone, "for-each-ref")
    assert kept(take_git(step, home)) == f"its origin is {fork.url}, not {step.url}"
    assert git(clone, "for-each-ref") == before


def test_the_same_repository_by_another_address_is_followed(
    step: GitStep, home: Home, clone: Path, infra: Remote, git: Git
) -> None:
    git(clone, "remote", "set-url", "origin", str(infra.bare))
    commit = infra.push("new", "file")
    assert take_git(step, home).detail == f"1 commit newer, its origin is {infra.bare}"
    assert git(clone, "rev-parse", "HEAD") == commit


def test_an_address_that_git_rewrites_is_understood(
    step: GitStep, home: Home, clone: Path, infra: Remote, git: Git
) -> None:
    git(home.path, "config", "--global", f"url.file://{infra.bare.parent}/.insteadOf", "work:")
    git(clone, "remote", "set-url", "origin", "work:infra.git")
    assert take_git(step, home).detail == "already there, its origin is work:infra.git"


def test_it_is_not_fetched_where_it_is_not_to_be_followed(
    step: GitStep, home: Home, clone: Path, infra: Remote, git: Git
) -> None:
    infra.push("new", "file")
    before = git(clone, "for-each-ref")
    assert take_git(replace(step, refresh=0), home).detail == "already there"
    assert git(clone, "for-each-ref") == before


# --- filters ---


@pytest.fixture
def sealed(infra: Remote) -> Remote:
    """Return a repository with a file that a filter would change."""
    infra.push(".gitattributes", "secret filter=git-crypt\nbig filter=lfs\n")
    infra.push("big", "pointer\n")
    infra.push("secret", "CIPHERTEXT\n")
    return infra


@pytest.fixture
def _own_filter(sealed: Remote, home: Home) -> None:
    """Give the person a filter of their own, as `git-crypt unlock` and `git lfs install` do."""
    for key, value in (("clean", "tr a-z A-Z"), ("smudge", "tr A-Z a-z"), ("required", "true")):
        sealed.git(home.path, "config", "--global", f"filter.git-crypt.{key}", value)
    for key, value in (("clean", "false"), ("smudge", "false"), ("process", "false"), ("required", "true")):
        sealed.git(home.path, "config", "--global", f"filter.lfs.{key}", value)


@pytest.mark.usefixtures("_own_filter")
def test_files_stay_as_they_are_in_the_repository(step: GitStep, home: Home, git: Git) -> None:
    take_git(replace(step, filters=("git-crypt", "lfs")), home)
    path = home.inside(step.path)
    assert (path / "secret").read_text() == "CIPHERTEXT\n"
    assert (path / "big").read_text() == "pointer\n"
    (path / "secret").touch()
    assert git(path, "status", "--porcelain") == ""
    assert git(path, "config", "--local", "--get-regexp", r"^filter\.git-crypt").splitlines() == [
        "filter.git-crypt.clean cat",
        "filter.git-crypt.smudge cat",
        "filter.git-crypt.required false",
    ]


@pytest.mark.usefixtures("sealed")
def test_what_comes_later_stays_as_it_is_too(step: GitStep, home: Home, infra: Remote, git: Git) -> None:
    step = replace(step, filters=("git-crypt",))
    take_git(step, home)
    git(home.path, "config", "--global", "filter.git-crypt.smudge", "tr A-Z a-z")
    infra.push("secret", "SECOND\n")
    assert take_git(step, home).detail == "1 commit newer"
    assert (home.inside(step.path) / "secret").read_text() == "SECOND\n"


@pytest.mark.usefixtures("sealed")
def test_they_are_set_in_a_clone_that_has_none(step: GitStep, home: Home, clone: Path, git: Git) -> None:
    step = replace(step, filters=("git-crypt",))
    assert take_git(step, home).detail == "already there, filter git-crypt set to cat"
    assert git(clone, "config", "--local", "filter.git-crypt.smudge") == "cat"
    assert take_git(step, home).detail == "already there"


@pytest.mark.usefixtures("sealed")
def test_one_of_the_persons_own_stays(step: GitStep, home: Home, git: Git) -> None:
    step = replace(step, filters=("git-crypt",))
    take_git(step, home)
    path = home.inside(step.path)
    git(path, "config", "filter.git-crypt.smudge", "git-crypt smudge")
    assert take_git(step, home).detail == "already there"
    assert git(path, "config", "filter.git-crypt.smudge") == "git-crypt smudge"


@pytest.mark.usefixtures("_own_filter")
def test_files_that_the_person_has_opened_do_not_become_changes(
    step: GitStep, home: Home, infra: Remote, git: Git
) -> None:
    path = home.inside(step.path)
    path.parent.mkdir()
    git(home.path, "config", "--global", "--remove-section", "filter.lfs")
    git(home.path, "clone", "-q", infra.url, str(path))
    assert (path / "secret").read_text() == "ciphertext\n"
    assert take_git(replace(step, filters=("git-crypt",)), home).detail == "already there"
    (path / "secret").touch()
    assert git(path, "status", "--porcelain") == ""


# --- in the way ---


def refused(step: GitStep, home: Home) -> str:
    """Take the step, which must change nothing, and return its words."""
    before = state(home.path)
    with pytest.raises(InTheWay) as raised:
        take_git(step, home)
    assert state(home.path) == before
    return str(raised.value)


def test_a_file(step: GitStep, home: Home) -> None:
    (home.path / "src").mkdir()
    home.inside(step.path).write_text("mine")
    assert refused(step, home).startswith("~/src/infra is no folder; move it away")


def test_a_file_instead_of_a_parent(step: GitStep, home: Home) -> None:
    (home.path / "src").write_text("mine")
    assert refused(step, home).startswith("~/src is there and is no folder")


def test_a_link_even_to_a_clone(step: GitStep, home: Home, infra: Remote) -> None:
    (home.path / "src").mkdir()
    home.inside(step.path).symlink_to(infra.work)
    assert f"is a symbolic link to {infra.work}" in refused(step, home)


def test_a_folder_with_files(step: GitStep, home: Home) -> None:
    home.inside(step.path).mkdir(parents=True)
    (home.inside(step.path) / "notes").write_text("mine")
    assert "is a folder with other things in it" in refused(step, home)


def test_a_folder_with_files_in_a_home_that_is_a_repository(step: GitStep, home: Home, git: Git) -> None:
    git(home.path, "init", "-q")
    home.inside(step.path).mkdir(parents=True)
    (home.inside(step.path) / ".git").mkdir()
    assert "has a .git folder that is no repository" in refused(step, home)


def test_a_bare_repository(step: GitStep, home: Home, git: Git) -> None:
    git(home.path, "init", "-q", "--bare", step.path)
    assert "is a bare repository" in refused(step, home)


def test_a_linked_worktree(step: GitStep, home: Home, infra: Remote, git: Git) -> None:
    git(infra.work, "worktree", "add", "-q", "-b", "x", str(home.inside(step.path)))
    assert "is a linked worktree or a submodule" in refused(step, home)


# --- following the remote ---


def test_it_is_brought_forward(step: GitStep, home: Home, clone: Path, infra: Remote, git: Git) -> None:
    commits = [infra.push("new", f"{number}") for number in range(3)]
    assert take_git(step, home).detail == "3 commits newer"
    assert git(clone, "rev-parse", "HEAD") == commits[-1]
    assert git(clone, "status", "--porcelain") == ""
    assert take_git(step, home).detail == "already there"
    assert len(git(clone, "reflog").splitlines()) == 2


def test_untracked_files_do_not_matter(step: GitStep, home: Home, clone: Path, infra: Remote) -> None:
    (clone / "notes").write_text("mine")
    infra.push("new", "file")
    assert take_git(step, home).detail == "1 commit newer"
    assert (clone / "notes").read_text() == "mine"


def test_an_untracked_file_that_would_be_written_over_is_kept(
    step: GitStep, home: Home, clone: Path, infra: Remote
) -> None:
    (clone / "new").write_text("mine")
    infra.push("new", "file")
    assert "would be overwritten by merge: new" in kept(take_git(step, home))
    assert (clone / "new").read_text() == "mine"


def test_changed_files_are_kept(step: GitStep, home: Home, clone: Path, infra: Remote, git: Git) -> None:
    infra.push("more", "file")
    take_git(step, home)
    infra.push("new", "file")
    (clone / "README").write_text("mine")
    assert kept(take_git(step, home)) == "1 file is changed"
    (clone / "more").write_text("mine")
    git(clone, "add", "more")
    assert kept(take_git(step, home)) == "2 files are changed"
    assert ((clone / "README").read_text(), (clone / "more").read_text()) == ("mine", "mine")
    assert not (clone / "new").exists()


def test_commits_of_its_own_are_kept(step: GitStep, home: Home, clone: Path, infra: Remote, git: Git) -> None:
    git.commit(clone, "mine", "1")
    git.commit(clone, "mine", "2")
    before = git(clone, "rev-parse", "HEAD")
    infra.push("new", "file")
    assert kept(take_git(step, home)) == "2 commits of its own"
    assert git(clone, "rev-parse", "HEAD") == before


def test_another_branch_is_kept(step: GitStep, home: Home, clone: Path, infra: Remote, git: Git) -> None:
    git(clone, "checkout", "-q", "-b", "feature")
    commit = infra.push("new", "file")
    assert kept(take_git(step, home)) == "on branch feature, not main"
    assert git(clone, "rev-parse", "origin/main") == commit
    assert not (clone / "new").exists()


def test_a_detached_head_is_kept(step: GitStep, home: Home, clone: Path, infra: Remote, git: Git) -> None:
    git(clone, "checkout", "-q", "--detach")
    infra.push("new", "file")
    assert kept(take_git(step, home)) == "on no branch (detached HEAD), not main"


def test_a_rebase_under_way_is_kept(step: GitStep, home: Home, clone: Path, infra: Remote, git: Git) -> None:
    git.commit(clone, "README", "mine")
    infra.push("README", "theirs")
    git(clone, "fetch", "-q")
    git(clone, "-c", "alias.r=!git rebase -q origin/main 2>/dev/null || true", "r")
    assert kept(take_git(step, home)) == "a rebase is in progress"


def test_a_merge_under_way_is_kept(step: GitStep, home: Home, clone: Path, infra: Remote, git: Git) -> None:
    git(clone, "checkout", "-q", "-b", "other")
    git.commit(clone, "mine", "1")
    git(clone, "checkout", "-q", "main")
    git(clone, "merge", "-q", "--no-ff", "--no-commit", "other")
    infra.push("new", "file")
    assert kept(take_git(step, home)) == "a merge is in progress"


def test_a_lock_that_a_crashed_git_left_is_named(
    step: GitStep, home: Home, clone: Path, infra: Remote, git: Git
) -> None:
    lock = clone / ".git/index.lock"
    lock.touch()
    infra.push("new", "file")
    before = git(clone, "rev-parse", "HEAD")
    assert "~/src/infra/.git/index.lock" in kept(take_git(step, home))
    assert git(clone, "rev-parse", "HEAD") == before
    assert lock.exists()
    lock.unlink()
    assert take_git(step, home).detail == "1 commit newer"


def test_a_remote_that_takes_another_branch_for_its_own_is_noticed(
    step: GitStep, home: Home, clone: Path, infra: Remote, git: Git
) -> None:
    infra.push("new", "file", branch="trunk")
    git(infra.bare, "symbolic-ref", "HEAD", "refs/heads/trunk")
    assert kept(take_git(step, home)) == "on branch main, not trunk"
    assert git(clone, "symbolic-ref", "--short", "HEAD") == "main"


def test_a_branch_that_the_remote_has_not_is_an_error(step: GitStep, home: Home, clone: Path, git: Git) -> None:
    git(clone, "checkout", "-q", "-b", "nosuch")
    with pytest.raises(StepFailed, match="origin has no branch nosuch"):
        take_git(replace(step, branch="nosuch"), home)


def test_a_remote_that_is_gone_is_an_error_and_nothing_changes(
    step: GitStep, home: Home, clone: Path, infra: Remote
) -> None:
    infra.bare.rename(infra.bare.with_name("gone"))
    before = state(clone)
    with pytest.raises(StepFailed, match=r"git fetch in ~/src/infra: fatal: .*infra\.git"):
        take_git(step, home)
    assert state(clone) == before


@pytest.mark.parametrize(
    "other",
    [
        "https://git.example.org/team/infra.git",
        "https://git.example.org/team/infra",
        "https://git.example.org/team/infra/",
        "https://git.example.org/team/infra.git/",
        "https://bob:token@GIT.example.org:443/team/infra.git",
        "http://git.example.org:80/team/infra",
        "ssh://git@git.example.org/team/infra.git",
        "ssh://git@git.example.org:22/team/infra.git",
        "ssh://git@git.example.org:2222/team/infra.git",
        "git@git.example.org:team/infra.git",
        "git@git.example.org:/team/infra",
        "git.example.org:team/infra.git",
        "git://git.example.org//team/infra",
        "https://git.example.org/team/%69nfra.git",
    ],
)
def test_one_repository_has_many_addresses(other: str) -> None:
    assert same_repository("https://git.example.org/team/infra.git", other)
    assert same_repository(other, "https://git.example.org/team/infra.git")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://git.example.org/team/infra.git", "https://git.example.org/team/other.git"),
        ("https://git.example.org/team/infra.git", "https://git.example.com/team/infra.git"),
        ("https://git.example.org/team/infra.git", "https://git.example.org:8443/team/infra.git"),
        ("https://git.example.org/team/infra.git", "https://git.example.org/Team/infra.git"),
        ("https://git.example.org/team/infra.git", "/team/infra.git"),
        ("https://git.example.org/team/infra.git", "https://git.example.org:port/team/infra.git"),
        ("https://git.example.org/team/infra.git", ""),
        ("git@git.example.org:team/infra.git", "git@git.example.org:bob/infra.git"),
        ("/srv/infra.git", "/srv/infra"),
    ],
)
def test_others_are_different(one: str, other: str) -> None:
    assert not same_repository(one, other)
    assert not same_repository(other, one)


def test_paths_are_compared_as_paths() -> None:
    assert same_repository("file:///srv/git/infra.git", "/srv/git/infra.git/")
    assert same_repository("file://localhost/srv/infra", "/srv//infra")
    assert same_repository("git@[::1]:infra", "ssh://[::1]/infra.git")
