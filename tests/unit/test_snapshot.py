"""The refresh of a storage state, against a real server on the loopback."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reconciler import snapshot
from reconciler.core.site import Playwright, Site
from reconciler.snapshot import NotRenewed, Person, load_site, main, renew

TOKEN = "s3cret-of-alice"  # noqa: S105 (nobody's)
COOKIE = {"name": "sid", "value": "1", "domain": "example.org", "path": "/"}
ORIGIN = {"origin": "https://example.org", "localStorage": [{"name": "theme", "value": "dark"}]}
STATE = {"cookies": [COOKIE, {**COOKIE, "expires": 1.5, "httpOnly": True, "sameSite": "Lax"}], "origins": [ORIGIN]}
OLD = b'{"cookies": [], "origins": [], "old": true}'

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers every request by calling `answer`, and keeps the requests' headers and paths."""

    daemon_threads = True
    answer: Answer

    def __init__(self) -> None:
        """Listen on a free port of the loopback."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Take it that a client goes away."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        """Answer as the test says."""
        self.server.requests.append((self.path, self.headers.get("Authorization")))
        self.server.answer(self)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def gives(body: bytes | object, status: int = 200, **headers: str) -> Answer:
    """Return an answer of bytes, or of an object as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(data)

    return answer


def says(text: bytes) -> Answer:
    """Return an answer that is these bytes, whatever they are, and then the end of the connection."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(text)
        request.close_connection = True

    return answer


def drips(request: BaseHTTPRequestHandler) -> None:
    """Answer a byte now and then, for ever."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    over = request.server.over  # type: ignore[attr-defined] # a Server
    while not over.wait(0.02):
        request.wfile.write(b" ")


@pytest.fixture
def server() -> Iterator[Server]:
    """Start a server that gives STATE."""
    with Server() as server:
        server.answer = gives(STATE)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def alice(tmp_path: Path) -> Person:
    """Make a home with a token and nothing else."""
    person = Person("alice", tmp_path / "alice")
    person.token.parent.mkdir(parents=True)
    person.token.write_text(f"{TOKEN}\n")
    return person


@pytest.fixture
def old(alice: Person) -> Path:
    """Give alice a storage state."""
    person_state = alice.storage_state
    person_state.parent.mkdir(parents=True, mode=0o700)
    person_state.write_bytes(OLD)
    return person_state


def site(url: str | None) -> Site:
    """Return a site with this address of storage states."""
    return Site(playwright=Playwright(url))


def why_not(person: Person, url: str, time_limit: float = 5) -> str:
    """Return why nothing is renewed, which is one line and, like the rest of the error, does not tell the token."""
    with pytest.raises(NotRenewed) as caught:
        renew(person, site(url), time_limit)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return [path.name for path in folder.iterdir()]


def mode_of(path: Path) -> int:
    """Return the permissions of a file or folder."""
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_state_is_fetched_with_the_token_and_lies_there_for_its_person_alone(server: Server, alice: Person) -> None:
    told = renew(alice, site(server.url + "/states/{user}?full=1"))
    assert told == "storage state renewed: 2 cookies, 1 origin"
    assert server.requests == [("/states/alice?full=1", f"Bearer {TOKEN}")]
    assert json.loads(alice.storage_state.read_bytes()) == STATE
    assert mode_of(alice.storage_state) == 0o600
    assert [mode_of(folder) for folder in (alice.storage_state.parent, alice.home / ".cache")] == [0o700, 0o700]
    assert names_in(alice.storage_state.parent) == ["storage-state.json"]


def test_a_second_time_it_is_fetched_again(server: Server, alice: Person) -> None:
    renew(alice, site(server.url))
    first = alice.storage_state.stat().st_ino
    server.answer = gives({"cookies": [], "origins": []})
    assert renew(alice, site(server.url)) == "storage state renewed: 0 cookies, 0 origins"
    assert alice.storage_state.read_bytes() == b'{"cookies": [], "origins": []}'
    assert alice.storage_state.stat().st_ino != first


@pytest.mark.usefixtures("old")
def test_who_has_the_old_file_open_keeps_it_whole(server: Server, alice: Person) -> None:
    with alice.storage_state.open("rb") as reader:
        renew(alice, site(server.url))
        assert reader.read() == OLD


def test_a_link_in_the_place_is_replaced_and_not_followed(server: Server, alice: Person, old: Path) -> None:
    elsewhere = old.rename(alice.home / "elsewhere.json")
    old.symlink_to(elsewhere)
    renew(alice, site(server.url))
    assert not old.is_symlink()
    assert json.loads(old.read_bytes()) == STATE
    assert elsewhere.read_bytes() == OLD


def test_keys_that_are_not_known_are_kept(server: Server, alice: Person) -> None:
    newer = {
        "cookies": [{**COOKIE, "partitionKey": "x"}],
        "origins": [{**ORIGIN, "indexedDB": [{"name": "db"}]}],
        "v": 2,
    }
    server.answer = gives(newer)
    renew(alice, site(server.url))
    assert json.loads(alice.storage_state.read_bytes()) == newer


def test_a_site_without_an_address_has_nothing_to_fetch(alice: Person) -> None:
    alice.token.unlink()
    assert renew(alice, site(None)) == "no storage state to fetch: the site names no snapshot_url"
    assert names_in(alice.home) == [".config"]


CUT_OFF = json.dumps(STATE).encode()[:-10]
NOT_RENEWED: dict[str, tuple[Answer, str]] = {
    "no permission": (gives(b"who?", 401), "HTTP 401 (Unauthorized)"),
    "a strange code": (gives(b"?", 799), "HTTP 799 (unknown)"),
    "an error of the server": (gives(STATE, 503), "HTTP 503 (Service Unavailable)"),
    "no content": (says(b"HTTP/1.1 204 x\r\n\r\n"), "HTTP 204 (No Content)"),
    "only a part": (gives(STATE, 206), "HTTP 206 (Partial Content)"),
    "a redirect": (
        gives(b"", 302, Location=f"https://login.example.org/a/{TOKEN}/b?back={TOKEN}#{TOKEN}"),
        "HTTP 302 (Found) points to https://login.example.org/a/.../b, and no redirect is followed",
    ),
    "not JSON": (gives(b"<html>please log in"), "the answer is no storage state: it is not JSON"),
    "empty": (gives(b""), "the answer is no storage state: it is not JSON"),
    "not UTF-8": (gives(b'{"cookies": "\xff"}'), "the answer is no storage state: it is not JSON"),
    "a number that JSON has not": (gives(b'{"cookies": NaN}'), "the answer is no storage state: it is not JSON"),
    "a deep nest": (gives(b"[" * 200_000), "the answer is no storage state: it is not JSON"),
    "a list": (gives([STATE]), "the answer is no storage state: it is no object"),
    "no cookies": (gives({"origins": []}), "the answer is no storage state: cookies is not a list of objects"),
    "no origins": (gives({"cookies": []}), "the answer is no storage state: origins is not a list of objects"),
    "cut off": (
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + CUT_OFF),
        "the answer is cut off in the middle",
    ),
    "cut off in a chunk": (
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n" + CUT_OFF),
        "the answer is cut off in the middle",
    ),
    "cut off at an unknown length": (
        says(b"HTTP/1.1 200 OK\r\n\r\n" + CUT_OFF),
        "the answer is no storage state: it is not JSON",
    ),
    "nothing": (says(b""), "the server does not answer: Remote end closed connection without response"),
    "not HTTP": (says(f"+OK {TOKEN}\r\n".encode()), "the server answers something else than HTTP (BadStatusLine)"),
    "a byte now and then": (drips, "no whole answer within 0.3 s"),
}


@pytest.mark.parametrize(("answer", "why"), NOT_RENEWED.values(), ids=NOT_RENEWED)
def test_the_old_state_stays_if_the_server_gives(
    server: Server, alice: Person, old: Path, answer: Answer, why: str
) -> None:
    os.utime(old, (0, 1_795_600_000))
    before = old.stat()
    server.answer = answer
    limit = 0.3 if answer is drips else 5
    told = why_not(alice, server.url, limit)
    assert told.startswith("storage state not renewed, the old one of 2026-11-2")
    assert told.endswith(f" stays: {why}")
    assert old.read_bytes() == OLD
    assert (old.stat().st_ino, old.stat().st_mtime) == (before.st_ino, before.st_mtime)
    assert names_in(old.parent) == [old.name]


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("says_length", [True, False])
def test_an_answer_that_is_too_large_is_not_taken(
    server: Server, alice: Person, monkeypatch: pytest.MonkeyPatch, *, says_length: bool
) -> None:
    monkeypatch.setattr(snapshot, "MAX_SIZE", 1000)
    body = json.dumps({**STATE, "more": "x" * 1000}).encode()
    server.answer = gives(body) if says_length else says(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    assert why_not(alice, server.url).endswith("the answer is larger than 1000 bytes")
    assert alice.storage_state.read_bytes() == OLD


WRONG_PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "a cookie without a value": (
        {"cookies": [COOKIE, {"name": "a", "domain": "b", "path": "/"}], "origins": []},
        "cookies[1].value is not text",
    ),
    "a number as the name": ({"cookies": [{**COOKIE, "name": 1}], "origins": []}, "cookies[0].name is not text"),
    "text as an expiry": (
        {"cookies": [{**COOKIE, "expires": "soon"}], "origins": []},
        "cookies[0].expires has a value that a cookie cannot have",
    ),
    "a word that sameSite has not": (
        {"cookies": [{**COOKIE, "sameSite": "lax"}], "origins": []},
        "cookies[0].sameSite has a value that a cookie cannot have",
    ),
    "a cookie that is text": ({"cookies": ["a=b"], "origins": []}, "cookies is not a list of objects"),
    "an origin without items": (
        {"cookies": [], "origins": [{"origin": "https://a"}]},
        "origins[0].localStorage is not a list of objects",
    ),
    "an item without a value": (
        {"cookies": [], "origins": [{"origin": "https://a", "localStorage": [{"name": "a"}]}]},
        "origins[0].localStorage[0].value is not text",
    ),
}


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize(("state", "why"), WRONG_PARTS.values(), ids=WRONG_PARTS)
def test_a_state_that_no_browser_would_take_is_refused(
    server: Server, alice: Person, state: dict[str, Any], why: str
) -> None:
    server.answer = gives(state)
    assert why_not(alice, server.url).endswith(f": the answer is no storage state: {why}")
    assert alice.storage_state.read_bytes() == OLD


def test_a_server_that_is_not_there_is_named(alice: Person) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1]
    told = why_not(alice, f"http://127.0.0.1:{port}")
    assert told == "storage state not renewed, and there is none: the server does not answer: Connection refused"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/", "https://[::1/", "http://127.0.0.1/\x01", "http://127.0.0.1/é"]
)
def test_an_address_that_is_none_is_refused(alice: Person, url: str) -> None:
    assert why_not(alice, url).endswith(": the site's snapshot_url is no address")


def test_nothing_is_sent_to_a_server_that_does_not_show_who_it_is(server: Server, alice: Person) -> None:
    # It speaks no TLS at all.
    told = why_not(alice, server.url.replace("http:", "https:"))
    assert "the server does not answer: [SSL" in told
    assert server.requests == []


def no_token(path: Path) -> None:
    path.unlink()


def empty_token(path: Path) -> None:
    path.write_text(" \n")


def link_for_token(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def fifo_for_token(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder_for_token(path: Path) -> None:
    path.unlink()
    path.mkdir()


def two_lines_for_token(path: Path) -> None:
    path.write_text(f"{TOKEN}\nX-Other: {TOKEN}\n")


def bytes_for_token(path: Path) -> None:
    path.write_bytes(TOKEN.encode() + b"\xff\x00")


def huge_token(path: Path) -> None:
    path.write_text(TOKEN * 10_000)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (no_token, "there is no token in {}"),
        (empty_token, "the token {} is empty"),
        (link_for_token, "the token {} cannot be read: Too many levels of symbolic links"),
        (fifo_for_token, "the token {} cannot be read: is not a regular file"),
        (folder_for_token, "the token {} cannot be read: is not a regular file"),
        (two_lines_for_token, "{} holds something else than a token, which is one word of printable characters"),
        (bytes_for_token, "{} holds something else than a token, which is one word of printable characters"),
        (huge_token, "the token {} cannot be read: is larger than 16384 bytes"),
    ],
)
@pytest.mark.usefixtures("old")
def test_without_a_token_nobody_is_asked(
    server: Server, alice: Person, spoil: Callable[[Path], None], why: str
) -> None:
    spoil(alice.token)
    assert why_not(alice, server.url).endswith(": " + why.format(alice.token))
    assert server.requests == []
    assert alice.storage_state.read_bytes() == OLD


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_full_disk_leaves_the_old_state(
    server: Server, alice: Person, old: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "write":
        monkeypatch.setattr("reconciler.host.files.os.fchmod", full)  # before the first byte leaves the buffer
    else:
        monkeypatch.setattr(f"reconciler.host.files.os.{call}", full)
    told = why_not(alice, server.url)
    monkeypatch.undo()
    assert "storage-state.json cannot be written: No space left on device" in told or "cannot be made" in told
    assert old.read_bytes() == OLD
    assert names_in(old.parent) == [old.name]


def test_a_file_where_the_folder_should_be_is_named(server: Server, alice: Person) -> None:
    (alice.home / ".cache").write_text("mine")
    assert f"{alice.home}/.cache cannot be made" in why_not(alice, server.url)
    assert (alice.home / ".cache").read_text() == "mine"


# --- the site's file ---


def test_the_address_comes_from_the_site(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("playwright: {snapshot_url: https://example.org/{user}}".replace("{user}", "x"))
    assert load_site(str(path), trusted=False).playwright.snapshot_url == "https://example.org/x"


def test_a_missing_site_is_the_default_one(tmp_path: Path) -> None:
    assert load_site(str(tmp_path / "site.yaml")).playwright.snapshot_url is None


def test_a_refused_site_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("shell: nowhere\nsettle: -1\n")
    with pytest.raises(NotRenewed) as caught:
        load_site(str(path), trusted=False)
    assert str(caught.value).startswith(f"storage state not renewed: {path}:1:8: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_site_that_anybody_could_have_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("settle: 1\n")
    path.chmod(0o666)
    with pytest.raises(NotRenewed, match=r"site\.yaml: "):
        load_site(str(path))


# --- as a program ---


def test_it_says_what_came_of_it(
    server: Server, alice: Person, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(snapshot, "Person", lambda *_: alice)
    monkeypatch.setattr(snapshot, "load_site", lambda: site(server.url))
    assert main() == 0
    assert capsys.readouterr() == ("storage state renewed: 2 cookies, 1 origin\n", "")
    server.answer = gives(b"", 401)
    assert main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(" stays: HTTP 401 (Unauthorized)\n")
    assert TOKEN not in err
