"""A person's clone: git run in it without a question to anybody, and what several steps ask about it."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from reconciler.errors import StepFailed
from reconciler.home.place import Home, without_passwords
from reconciler.host.process import Finished

_SETTINGS = ("-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "credential.interactive=false")
# An empty GIT_ASKPASS is none, whatever core.askPass says; there is no terminal to ask at either.
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_OPTIONAL_LOCKS": "0",
}
_TOLD = 300
_LEAST_SECONDS, _GRACE_SECONDS = 0.2, 1.0
_STOPPED_BY_TIMEOUT, _USAGE = 124, 129
_PORTS: Mapping[str, int] = {"http": 80, "https": 443, "ssh": 22, "git": 9418}
_SCP_LIKE = re.compile(r"(?:[^/@]+@)?(?P<host>\[[^]/]+\]|[^/:]+):(?P<path>.*)", re.DOTALL)


def git(home: Home, verb: str, *arguments: str, folder: Path | None = None, repository: Path | None = None) -> Finished:
    """Run `git VERB`, in `folder`, on the repository of the clone `repository` where one is given.

    Never asks for anything, tidies up nothing by itself, and is stopped when the step's time is nearly over, with a
    SIGTERM, upon which git takes its locks away. Raises `StepFailed` where it gives no answer; 0, 1 and 128 are some.
    """
    left = max(_LEAST_SECONDS, home.deadline - time.monotonic())
    seconds = left - min(_GRACE_SECONDS, left / 2)
    which = () if repository is None else (f"--git-dir={repository / '.git'}",)
    finished = home.run(
        ["timeout", f"{seconds:.2f}", "git", *_SETTINGS, *which, verb, *arguments],
        environment=_ENVIRONMENT,
        folder=folder or repository,
    )
    if finished.code == _STOPPED_BY_TIMEOUT:
        raise StepFailed(f"git {verb} did not end within {seconds:.0f} s and was stopped")
    if finished.code >= _USAGE or finished.code in (125, 126, 127) or finished.code < 0:
        raise StepFailed(f"git {verb} gave no answer: {words_of(finished)}")
    return finished


def words_of(finished: Finished) -> str:
    """Return what git said, on one line, without credentials."""
    return without_passwords(finished.err or finished.out)[:_TOLD] or f"it exited {finished.code} and said nothing"


def settings_in(listing: str) -> dict[str, str]:
    """Return what `git config --list -z` wrote, by key; of several values the last."""
    entries = (entry.partition("\n") for entry in listing.split("\0") if entry)
    return {key: value for key, _, value in entries}


@dataclass(frozen=True, slots=True)
class Repository:
    """The clone at a path. `.git` there is a folder; nothing above it is ever taken for its repository."""

    home: Home
    path: Path

    def git(self, verb: str, *arguments: str) -> Finished:
        """Run git in the clone; any answer is one."""
        return git(self.home, verb, *arguments, repository=self.path)

    def must(self, verb: str, *arguments: str) -> str:
        """Run git in the clone and return what it wrote. Raises `StepFailed` with git's own words."""
        finished = self.git(verb, *arguments)
        if finished.code != 0:
            raise StepFailed(f"git {verb} in {self.home.shown(self.path)}: {words_of(finished)}")
        return finished.out.strip()

    def answer(self, verb: str, *arguments: str) -> str | None:
        """Ask git something that may have no answer."""
        finished = self.git(verb, *arguments)
        return (finished.out.strip() or None) if finished.code == 0 else None

    def settings(self) -> dict[str, str]:
        """Return the configuration as it counts in the clone, the person's own and the system's included."""
        return settings_in(self.must("config", "--list", "-z"))

    def is_of(self, url: str) -> bool:
        """Say whether one of its remotes is the repository at an address, as written or as git rewrites it."""
        return any(same_repository(address, url) for address in self._addresses())

    def _addresses(self) -> Iterator[str]:
        for key, value in self.settings().items():
            if key.startswith("remote.") and key.endswith(".url"):
                yield value
        for line in self.must("remote", "-v").splitlines():
            yield line.partition("\t")[2].rpartition(" ")[0]


def is_clone(path: Path) -> bool:
    """Say whether a path is a folder with a `.git` folder in it, links not followed."""
    return _is_folder(path) and _is_folder(path / ".git")


def is_empty_folder(path: Path) -> bool:
    """Say whether a path is a folder, no link to one, with nothing in it."""
    return _is_folder(path) and next(path.iterdir(), None) is None


def what_is_there(path: Path) -> str:
    """Say what is at a path where a clone is expected and none is, to follow the path's name."""
    if path.is_symlink():
        return f"is a symbolic link to {path.readlink()}"
    if not _is_folder(path):
        return "is no folder"
    if (path / ".git").is_symlink():
        return "has a symbolic link as its .git"
    if os.path.lexists(path / ".git"):
        return "is a linked worktree or a submodule of another clone"
    if (path / "HEAD").exists() and (path / "objects").exists() and (path / "refs").exists():
        return "is a bare repository"
    return "is a folder with other things in it"


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


# --- addresses ---


def same_repository(one: str, other: str) -> bool:
    """Say whether two addresses are of one repository, by whichever protocol and as whomever it is reached.

    Hosts and the paths on them are compared. Ports are only where the protocol is the same: ssh and https have
    different ones on one host.
    """
    first, second = _parsed(one), _parsed(other)
    if first is None or second is None:
        return one == other
    return first[1:3] == second[1:3] and (first[0] != second[0] or first[3] == second[3])


def _parsed(address: str) -> tuple[str, str, str, int | None] | None:
    """Take an address apart: protocol, host, path, port if it is an unusual one. None where it is malformed."""
    scp_like = _SCP_LIKE.fullmatch(address)
    if "://" not in address:
        if scp_like is None:
            return "file", "", posixpath.normpath(address), None
        return "ssh", scp_like["host"].strip("[]").lower(), _path_on_host(scp_like["path"]), None
    try:
        parts = urlsplit(address)
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").lower(), parts.port
    except ValueError:
        return None
    if scheme == "file":
        return "file", "", posixpath.normpath(unquote(parts.path)), None
    return scheme, host, _path_on_host(unquote(parts.path)), None if port == _PORTS.get(scheme) else port


def _path_on_host(path: str) -> str:
    return posixpath.normpath(path.strip("/")).removesuffix(".git").rstrip("/")
