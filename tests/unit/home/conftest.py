"""A home, and repositories for it to clone; real folders and real git."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reconciler.home.place import Home
from reconciler.host.process import run

_GIT_CONFIG = """\
[user]
    name = A Person
    email = person@example.org
[init]
    defaultBranch = main
[protocol "file"]
    allow = always
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return an empty home whose owner has a name in git."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    (path / ".gitconfig").write_text(_GIT_CONFIG)
    return Home(path)


class Git:
    """git as a person types it, in a folder of theirs; fails the test where git fails."""

    def __init__(self, home: Path) -> None:
        """Work as the owner of `home`."""
        self.home = home

    def __call__(self, folder: Path, *arguments: str) -> str:
        """Run `git ARGUMENTS` and return what it wrote."""
        finished = run(
            ["git", "-c", "gc.auto=0", *arguments],
            timeout=30,
            environment={"HOME": str(self.home), "GIT_OPTIONAL_LOCKS": "0"},
            folder=str(folder),
        )
        assert finished.code == 0, finished.complaint
        return finished.out.rstrip("\n")

    def commit(self, folder: Path, name: str, text: str, branch: str | None = None) -> None:
        """Commit a file."""
        if branch:
            self(folder, "checkout", "-q", "-B", branch)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        self(folder, "add", "--", name)
        self(folder, "commit", "-q", "-m", f"{name}: {text[:20]}")


@pytest.fixture
def git(home: Home) -> Git:
    """Return git as the owner of the home types it."""
    return Git(home.path)


class Remote:
    """A bare repository, and a clone of it from which others push."""

    def __init__(self, folder: Path, name: str, git: Git) -> None:
        """Make it with one commit on `main`."""
        self.git = git
        self.bare = folder / f"{name}.git"
        self.work = folder / f"{name}.work"
        git(folder, "init", "-q", "--bare", str(self.bare))
        git(folder, "clone", "-q", str(self.bare), str(self.work))
        self.push("README", f"{name}\n")

    @property
    def url(self) -> str:
        """Its address."""
        return f"file://{self.bare}"

    def push(self, name: str, text: str, branch: str = "main") -> str:
        """Commit a file and push it; return the commit."""
        self.git.commit(self.work, name, text, branch)
        self.git(self.work, "push", "-q", "origin", branch)
        return self.git(self.work, "rev-parse", "HEAD")


@pytest.fixture
def remote(tmp_path: Path, git: Git) -> Callable[[str], Remote]:
    """Return what makes a remote repository of a name."""
    folder = tmp_path / "remotes"
    folder.mkdir()
    return lambda name: Remote(folder, name, git)


@pytest.fixture
def infra(remote: Callable[[str], Remote]) -> Remote:
    """Return the repository that everybody has."""
    return remote("infra")


class _Demanding(BaseHTTPRequestHandler):
    """Wants a name and a password, and takes none."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def demanding_server() -> Iterator[str]:
    """Serve on a port of the loopback, and give the address of a repository there."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Demanding) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/team/infra.git"
        finally:
            server.shutdown()
            thread.join()
