"""A file that is to be there: put there once, or kept current for as long as nobody has changed it."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from reconciler.core.home_steps import Ending, FileStep, Keep
from reconciler.errors import StepFailed
from reconciler.home.directory import kind_of, make_parents
from reconciler.home.place import Ended, Home, InTheWay
from reconciler.host.files import read_bytes, replace_file
from reconciler.host.looks import exists, same

_MARK = "kept current by rosterd until you change it"
_MARK_LINE = re.compile(rb".{1,3} " + _MARK.encode() + rb" \(([0-9a-f]{16})\)\n")
_LIMIT = 1024 * 1024


def take_file(step: FileStep, home: Home) -> Ended:
    """Write a file if it is absent, or if it is kept current and still as it was written."""
    path = home.inside(step.path)
    make_parents(path, home)
    kind = kind_of(path)
    if step.keep is Keep.SEED:
        return _seed(step, path, kind, home)
    if kind == "link":
        return Ended(Ending.KEPT, f"{home.shown(path)} is a link of their own; left alone", (same(path),))
    if kind not in ("", "file"):
        raise InTheWay(f"{home.shown(path)} is a {kind}")
    return _keep_current(step, path, home)


def _seed(step: FileStep, path: Path, kind: str, home: Home) -> Ended:
    if not kind:
        replace_file(path, _content(step, home), int(step.mode, 8))
        return Ended(Ending.DONE, "written", (exists(path),))
    if kind not in ("file", "link"):
        raise InTheWay(f"{home.shown(path)} is a {kind}")
    return Ended(Ending.DONE, "already there", (exists(path),))


def _keep_current(step: FileStep, path: Path, home: Home) -> Ended:
    wanted = marked(_content(step, home), step.comment)
    seen = same(path)
    try:
        found = read_bytes(path, _LIMIT)
        mode = "" if found is None else f"0{path.lstat().st_mode & 0o777:03o}"
    except OSError as error:
        raise InTheWay(f"{home.shown(path)} cannot be read: {error.strerror}") from error
    if found is not None and not is_unchanged(found):
        return Ended(Ending.KEPT, f"{home.shown(path)} has been changed and is theirs; left alone", (seen,))
    if found == wanted and mode == step.mode:
        return Ended(Ending.DONE, "already so", (seen,))
    replace_file(path, wanted, int(step.mode, 8))
    return Ended(Ending.DONE, "written" if found is None else "brought up to date", (same(path),))


def marked(content: bytes, comment: str) -> bytes:
    """Return a content with the mark in its first line, after a `#!` line if there is one."""
    first, rest = _split(content)
    digest = sha256(content).hexdigest()[:16]
    return first + f"{comment} {_MARK} ({digest})\n".encode() + rest


def is_unchanged(data: bytes) -> bool:
    """Say whether a file bears the mark, and is what the mark was made for."""
    first, rest = _split(data)
    mark = _MARK_LINE.match(rest)
    return mark is not None and sha256(first + rest[mark.end() :]).hexdigest()[:16] == mark[1].decode()


def _split(content: bytes) -> tuple[bytes, bytes]:
    line, newline, rest = content.partition(b"\n")
    return (line + newline, rest) if line.startswith(b"#!") and newline else (b"", content)


def _content(step: FileStep, home: Home) -> bytes:
    if step.source is None:
        return (step.content or "").encode()
    if step.source not in home.contents:
        raise StepFailed(f"the content of {step.source} was not handed over")
    return home.contents[step.source]
