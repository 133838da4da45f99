"""A clone that is to be there, and that follows its remote for as long as the person leaves it alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from reconciler.core.home_steps import Ending, GitStep, Watch
from reconciler.core.text import counted
from reconciler.errors import StepFailed
from reconciler.home.directory import make_parents
from reconciler.home.place import Ended, Home, InTheWay, undisturbed, without_passwords
from reconciler.home.repository import (
    Repository,
    git,
    is_clone,
    is_empty_folder,
    same_repository,
    settings_in,
    what_is_there,
    words_of,
)
from reconciler.host.looks import exists, same
from reconciler.host.process import run

ORIGIN = "origin"
_ORIGIN_HEAD = f"refs/remotes/{ORIGIN}/HEAD"
_TIDYING_SECONDS = 5.0
_PASSES = 5
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
# What of git lies in the repository while it waits for the person to go on.
_UNDER_WAY: Mapping[str, str] = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisect",
}


def take_git(step: GitStep, home: Home) -> Ended:
    """Clone what is absent; set up and fast-forward what is there.

    The work tree of a person who works in it stays as it is, which is said (`Ending.KEPT`). Raises `InTheWay` where
    something else than a clone is there, and `StepFailed` where the remote cannot be had; nothing half-made stays.
    """
    path = home.inside(step.path)
    is_absent = not os.path.lexists(path) or is_empty_folder(path)
    if is_absent:
        _clone(step, path, home)
    elif not is_clone(path):
        raise InTheWay(f"{home.shown(path)} {what_is_there(path)}; move it away, and a clone of {step.url} is made")
    clone = Repository(home, path)
    if clone.git("rev-parse", "--git-dir").code != 0:
        raise InTheWay(f"{home.shown(path)} has a .git folder that is no repository")
    watches, added = _set_up(step, clone, step.branch or _remembered_branch(clone))
    return Ended(Ending.DONE, "cloned", watches) if is_absent else _look_after(step, clone, watches, added)


def _look_after(step: GitStep, clone: Repository, watches: tuple[Watch, ...], added: list[str]) -> Ended:
    """Bring a clone that is there, and is set up, to where its remote is. `added` is what was set up just now."""
    origin = clone.must("config", f"remote.{ORIGIN}.url")
    words = f"its {ORIGIN} is {without_passwords(origin)}"
    if not _leads_to(step.url, origin, clone):
        return Ended(Ending.KEPT, _listed(f"{words}, not {step.url}", added), watches)
    further = added if origin == step.url else [*added, words]
    if step.refresh == 0:
        return Ended(Ending.DONE, _listed("already there", further), watches)
    branch = _fetched(step, clone)
    ending, detail = (Ending.DONE, "already there") if branch is None else _follow(clone, branch)
    watches, more = _set_up(step, clone, branch)
    return Ended(ending, _listed(detail, further + more), watches)


def _listed(detail: str, further: list[str]) -> str:
    return ", ".join([detail, *further])


def _leads_to(url: str, origin: str, clone: Repository) -> bool:
    """Say whether `origin`, as written or as git rewrites it, is the repository at `url`."""
    return same_repository(origin, url) or same_repository(clone.must("remote", "get-url", ORIGIN), url)


# --- cloning ---


def _clone(step: GitStep, path: Path, home: Home) -> None:
    """Clone under another name, and give the clone its own once it is whole."""
    make_parents(path, home)
    new = path.with_name(f".{path.name}.rosterd-new")
    _remove(new)
    try:
        _clone_to(new, step, home)
        new.rename(path)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise StepFailed(f"{home.shown(path)}: {error.strerror}") from error
        raise InTheWay(f"{home.shown(path)} {what_is_there(path)} since a moment ago") from error
    finally:
        _remove(new)


def _clone_to(new: Path, step: GitStep, home: Home) -> None:
    # Before anything is checked out, so that no filter of the person's own configuration takes part.
    settings = [f"--config={key}={value}" for name in step.filters for key, value in _passing(name, _own(home))]
    branch = [f"--branch={step.branch}"] if step.branch else []
    finished = git(home, "clone", "--quiet", f"--origin={ORIGIN}", *branch, *settings, "--", step.url, str(new))
    if finished.code != 0:
        raise StepFailed(f"git clone: {words_of(finished)}")


def _own(home: Home) -> Mapping[str, str]:
    """Return the person's and the system's configuration of git, that of no clone."""
    return settings_in(git(home, "config", "--list", "-z", folder=Path("/")).out)


def _passing(name: str, settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Return what makes a filter let everything through as it is."""
    yield f"filter.{name}.clean", "cat"
    yield f"filter.{name}.smudge", "cat"
    yield f"filter.{name}.required", "false"
    # A process goes before the two; an empty one stands in their place, so it is set against another alone.
    if settings.get(f"filter.{name}.process"):
        yield f"filter.{name}.process", ""


def _remove(path: Path) -> None:
    """Remove what a clone left that did not come to its end, also where the step's time is over."""
    if os.path.lexists(path):
        run(["rm", "-rf", "--", str(path)], timeout=_TIDYING_SECONDS).or_fail()


# --- what a clone is to have ---


def _set_up(step: GitStep, clone: Repository, branch: str | None) -> tuple[tuple[Watch, ...], list[str]]:
    """Add what is not there yet, and return what to look at later, and what was added.

    The look is noted before each pass, and the last pass is one that found nothing to do, so that nothing that the
    person changes meanwhile is missed.
    """
    added: list[str] = []
    for _ in range(_PASSES):
        git_folder = clone.path / ".git"
        watches = (exists(clone.path), exists(git_folder), same(git_folder / "config"))
        new = [*_add_remotes(step, clone), *_add_filters(step, clone), *_add_upstream(clone, branch)]
        if not new:
            return watches, added
        added += new
    raise StepFailed(f"{clone.home.shown(clone.path)}: its configuration does not stay as it was set")


def _add_remotes(step: GitStep, clone: Repository) -> Iterator[str]:
    there = clone.must("remote").splitlines()
    for name, url in ((ORIGIN, step.url), *step.remotes):
        if name not in there:
            clone.must("remote", "add", "--", name, url)
            yield f"remote {name} added"


def _add_filters(step: GitStep, clone: Repository) -> Iterator[str]:
    """Set each filter that nobody has set.

    One of the person's own, wherever it stands, has made the files what they are: set to `cat` after that, it would
    turn them into changes that hold the plain text.
    """
    settings = clone.settings()
    for name in step.filters:
        if not any(key.startswith(f"filter.{name}.") for key in settings):
            for key, value in _passing(name, settings):
                clone.must("config", key, value)
            yield f"filter {name} set to cat"


def _add_upstream(clone: Repository, branch: str | None) -> Iterator[str]:
    if branch is None or not (_has(clone, f"refs/heads/{branch}") and _has(clone, f"refs/remotes/{ORIGIN}/{branch}")):
        return
    settings = clone.settings()
    remote, merge = f"branch.{branch}.remote", f"branch.{branch}.merge"
    if merge in settings or settings.get(remote, ORIGIN) != ORIGIN:
        return
    clone.must("config", remote, ORIGIN)
    clone.must("config", merge, f"refs/heads/{branch}")
    yield f"upstream of {branch} set"


def _has(clone: Repository, reference: str) -> bool:
    return clone.git("show-ref", "--verify", "--quiet", reference).code == 0


def _remembered_branch(clone: Repository) -> str | None:
    """Return the remote's own branch as it was when the clone was made."""
    reference = clone.answer("symbolic-ref", "--quiet", _ORIGIN_HEAD)
    return None if reference is None else reference.removeprefix(f"refs/remotes/{ORIGIN}/")


# --- following the remote ---


def _fetched(step: GitStep, clone: Repository) -> str | None:
    """Fetch, and return the branch to follow: None where the remote has none yet."""
    clone.must("fetch", "--quiet", "--no-write-fetch-head", "--no-recurse-submodules", ORIGIN)
    if step.branch:
        return step.branch
    # Asked each time: the remote may have taken another branch for its own.
    for line in clone.must("ls-remote", "--symref", ORIGIN, "HEAD").splitlines():
        if line.startswith("ref: refs/heads/"):
            return line.removeprefix("ref: refs/heads/").partition("\t")[0]
    return None


def _follow(clone: Repository, branch: str) -> tuple[Ending, str]:
    """Fast-forward, unless that would meddle with what the person does, and say what came of it."""
    why_not = _elsewhere(clone, branch)
    if why_not:
        return Ending.KEPT, why_not
    target = f"refs/remotes/{ORIGIN}/{branch}"
    if not _has(clone, target):
        raise StepFailed(f"{ORIGIN} has no branch {branch}, or the clone does not fetch it")
    is_unborn = clone.answer("rev-parse", "--verify", "--quiet", "HEAD") is None
    changed = len(clone.must("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all").splitlines())
    own = 0 if is_unborn else int(clone.must("rev-list", "--count", f"{target}..HEAD"))
    if changed:
        return Ending.KEPT, f"{counted(changed, 'file')} {'is' if changed == 1 else 'are'} changed"
    if own:
        return Ending.KEPT, f"{counted(own, 'commit')} of its own"
    newer = int(clone.must("rev-list", "--count", target if is_unborn else f"HEAD..{target}"))
    return _fast_forward(clone, target, newer) if newer else (Ending.DONE, "already there")


def _elsewhere(clone: Repository, branch: str) -> str:
    """Say why the clone is not at the tip of its branch for anybody to move; nothing if it is."""
    for name, words in _UNDER_WAY.items():
        if os.path.lexists(clone.path / ".git" / name):
            return f"{words} is in progress"
    head = clone.answer("symbolic-ref", "--quiet", "HEAD")
    if head is None:
        return f"on no branch (detached HEAD), not {branch}"
    on = head.removeprefix("refs/heads/")
    return "" if on == branch else f"on branch {on}, not {branch}"


def _fast_forward(clone: Repository, target: str, newer: int) -> tuple[Ending, str]:
    with undisturbed():  # cut off in the middle, what it has written already would pass for the person's work
        merged = clone.git("merge", "--quiet", "--ff-only", "--no-autostash", target)
    if merged.code == 0:
        if clone.must("rev-parse", "HEAD") != clone.must("rev-parse", target):
            raise StepFailed(f"git merge in {clone.home.shown(clone.path)} did not bring it to {target}")
        return Ending.DONE, f"{counted(newer, 'commit')} newer"
    lock = clone.path / ".git" / "index.lock"
    if os.path.lexists(lock):
        shown = clone.home.shown(lock)
        return Ending.KEPT, f"another git is at work in it, or one that crashed left {shown}, which then has to go"
    if "would be overwritten" in merged.err:
        return Ending.KEPT, f"{counted(newer, 'commit')} newer not taken: {words_of(merged)}"
    raise StepFailed(f"git merge in {clone.home.shown(clone.path)}: {words_of(merged)}")
