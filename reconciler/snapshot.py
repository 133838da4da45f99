"""Renews the storage state that a person's browser starts from; `playwright-snapshot-refresh` runs it, as that person.

The state is fetched from the site's address with the person's own token and checked, and only then takes the place
of the one that is there. A storage state holds logins, so it is the person's alone (0600). The token goes into the
request and nowhere else: no argument, no environment, no text.
"""

from __future__ import annotations

import http.client
import json
import os
import pwd
import re
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from reconciler.core.site import Site, parse_site
from reconciler.core.text import counted, printable
from reconciler.errors import FileRefused, StepFailed
from reconciler.host.files import make_private_folder, read_bytes, replace_file
from reconciler.host.sources import read_source

SITE = "/etc/rosterd/site.yaml"
MAX_SIZE = 16 * 1024 * 1024
TIME_LIMIT = 60.0
"""Seconds for the whole of a request: finding the address, connecting, the answer to its last byte."""
_MAX_TOKEN = 16 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]+")
_COOKIE_TEXTS = ("name", "value", "domain", "path")
_SAME_SITE = ("Strict", "Lax", "None")


class NotRenewed(Exception):
    """There is no new storage state; the text says why, in one line without secrets."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whose storage state it is, and where it and the token for it lie."""

    name: str
    home: Path

    @property
    def token(self) -> Path:
        """The file with the token."""
        return self.home / ".config/playwright/token"

    @property
    def storage_state(self) -> Path:
        """The file that the browser MCP gives to each of its sessions."""
        return self.home / ".cache/playwright/storage-state.json"


def main() -> int:
    """Renew the storage state of whoever runs this and say what came of it, in one line; return the exit code."""
    account = pwd.getpwuid(os.getuid())
    try:
        told = renew(Person(account.pw_name, Path(account.pw_dir)), load_site())
    except NotRenewed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{told}\n")
    return 0


def load_site(path: str = SITE, *, trusted: bool = True) -> Site:
    """Return the site's policy. Raises `NotRenewed`; without `trusted`, whoever the file belongs to."""
    try:
        data = read_source(path, trusted=trusted, optional=True)
        return parse_site(path, data) if data is not None else Site()
    except FileRefused as error:
        first_line = str(error).partition("\n")[0]
        raise NotRenewed(f"storage state not renewed: {first_line}") from error


def renew(person: Person, site: Site, time_limit: float = TIME_LIMIT) -> str:
    """Fetch, check and replace; return what was done. Raises `NotRenewed`, with the old state as it was."""
    if site.playwright.snapshot_url is None:
        return "no storage state to fetch: the site names no snapshot_url"
    try:
        token = _read_token(person.token)
        url = site.playwright.snapshot_url.replace("{user}", person.name)
        data = _within(time_limit, lambda: _fetch(url, token, time_limit))
        counts = check(data)
        _put_in_place(person.storage_state, data)
    except NotRenewed as error:
        raise NotRenewed(f"storage state not renewed, {_what_stays(person.storage_state)}: {error}") from error
    return f"storage state renewed: {counts}"


def _read_token(path: Path) -> str:
    try:
        data = read_bytes(path, _MAX_TOKEN)
    except OSError as error:
        raise NotRenewed(f"the token {path} cannot be read: {error.strerror}") from error
    if data is None:
        raise NotRenewed(f"there is no token in {path}")
    token = data.decode("ascii", errors="replace").strip()
    if not token:
        raise NotRenewed(f"the token {path} is empty")
    # Checked here, because the text of http.client's own error quotes it.
    if not _TOKEN.fullmatch(token):
        raise NotRenewed(f"{path} holds something else than a token, which is one word of printable characters")
    return token


def _within(time_limit: float, fetch: Callable[[], bytes]) -> bytes:
    """Return what `fetch` does, or give it up after `time_limit` seconds.

    In a thread of its own, because a socket's timeout bounds neither the search for an address nor a server that
    sends a byte now and then. The thread writes nothing, and ends with the program at the latest.
    """
    results: list[bytes] = []
    failures: list[NotRenewed] = []

    def work() -> None:
        try:
            results.append(fetch())
        except NotRenewed as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(time_limit)
    if failures:
        raise failures[0]
    if not results:
        raise NotRenewed(f"no whole answer within {time_limit:g} s")
    return results[0]


def _fetch(address: str, token: str, time_limit: float) -> bytes:
    """Return what the server has at `address`, following no redirect."""
    try:
        url = urlsplit(address)
        with closing(_connection(url, time_limit)) as connection:
            connection.request("GET", _target(url), headers={"Authorization": f"Bearer {token}"})
            with connection.getresponse() as response:
                _refuse_status(response, token)
                return _body(response)
    except OSError as error:
        raise NotRenewed(f"the server does not answer: {error.strerror or error}") from error
    # The texts of these quote what the server says, or the address.
    except http.client.IncompleteRead:
        raise NotRenewed("the answer is cut off in the middle") from None
    except (http.client.InvalidURL, ValueError):
        raise NotRenewed("the site's snapshot_url is no address") from None
    except http.client.HTTPException as error:
        raise NotRenewed(f"the server answers something else than HTTP ({type(error).__name__})") from None


def _connection(url: SplitResult, time_limit: float) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    return kind(url.hostname or "", url.port, timeout=time_limit)


def _target(url: SplitResult) -> str:
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


def _refuse_status(response: http.client.HTTPResponse, token: str) -> None:
    """Raise `NotRenewed` unless the server gives what was asked for."""
    if response.status == HTTPStatus.OK:
        return
    reason = http.client.responses.get(response.status, "unknown")
    location = response.headers.get("Location")
    if location is None:
        raise NotRenewed(f"HTTP {response.status} ({reason})")
    # A redirect to a login page may carry the request along.
    place = printable(re.split("[?#]", location)[0].replace(token, "..."))
    raise NotRenewed(f"HTTP {response.status} ({reason}) points to {place}, and no redirect is followed")


def _body(response: http.client.HTTPResponse) -> bytes:
    length = response.length  # None where the server does not say
    # With a size, read() would take a body that is cut off for a whole one.
    data = response.read(MAX_SIZE + 1) if length is None or length > MAX_SIZE else response.read()
    if len(data) > MAX_SIZE:
        raise NotRenewed(f"the answer is larger than {MAX_SIZE} bytes")
    return data


def check(data: bytes) -> str:
    """Return what a storage state holds, as in `2 cookies, 1 origin`. Raises `NotRenewed` if it is none.

    Keys that are not known here are let through: a newer browser may have more to keep.
    """
    try:
        # A browser reads no NaN, which Python's JSON has; and brackets may be nested too deep.
        state = json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise NotRenewed("the answer is no storage state: it is not JSON") from error
    if not isinstance(state, dict):
        raise _not_a_state("it is no object")
    cookies, origins = _objects(state, "cookies"), _objects(state, "origins")
    for number, cookie in enumerate(cookies):
        _check_cookie(f"cookies[{number}]", cookie)
    for number, origin in enumerate(origins):
        _check_origin(f"origins[{number}]", origin)
    return f"{counted(len(cookies), 'cookie')}, {counted(len(origins), 'origin')}"


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError


def _not_a_state(why: str) -> NotRenewed:
    return NotRenewed(f"the answer is no storage state: {why}")


def _objects(holder: dict[str, object], key: str, where: str = "") -> list[dict[str, object]]:
    items = holder.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _not_a_state(f"{where}{key} is not a list of objects")
    return items


def _check_cookie(where: str, cookie: dict[str, object]) -> None:
    """Refuse what a browser would: it takes no state at all where one field of one cookie is wrong."""
    _check_texts(where, cookie, _COOKIE_TEXTS)
    for key, is_right in _COOKIE_OPTIONS.items():
        if key in cookie and not is_right(cookie[key]):
            raise _not_a_state(f"{where}.{key} has a value that a cookie cannot have")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_same_site(value: object) -> bool:
    return value in _SAME_SITE


_COOKIE_OPTIONS: Mapping[str, Callable[[object], bool]] = {
    "expires": _is_number,
    "httpOnly": _is_flag,
    "secure": _is_flag,
    "sameSite": _is_same_site,
}


def _check_origin(where: str, origin: dict[str, object]) -> None:
    _check_texts(where, origin, ("origin",))
    for number, item in enumerate(_objects(origin, "localStorage", f"{where}.")):
        _check_texts(f"{where}.localStorage[{number}]", item, ("name", "value"))


def _check_texts(where: str, item: dict[str, object], keys: tuple[str, ...]) -> None:
    for key in keys:
        if not isinstance(item.get(key), str):
            raise _not_a_state(f"{where}.{key} is not text")


def _put_in_place(path: Path, data: bytes) -> None:
    try:
        for folder in (path.parent.parent, path.parent):
            make_private_folder(folder)
        replace_file(path, data, 0o600)
    except StepFailed as error:
        raise NotRenewed(str(error)) from error


def _what_stays(path: Path) -> str:
    try:
        time = datetime.fromtimestamp(path.lstat().st_mtime).astimezone()
    except OSError:
        return "and there is none"
    return f"the old one of {time:%Y-%m-%d %H:%M} stays"
