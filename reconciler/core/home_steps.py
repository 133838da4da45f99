"""What is done in a person's home: a closed union of steps, and how they travel to who takes them.

A step is taken by a process that runs as the owner of the home, never by root. It is level-triggered: it looks, changes
what is not so yet, and says what it has seen, so that a later run can tell without a process that all is as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any, ClassVar, TypeVar

from reconciler.core.text import escaped

# More than any real look at a path has: the word of a hostile process is kept, and must not grow without end.
_LONGEST_PATH, _MOST_PARTS, _LONGEST_WORD = 1024, 7, 16
_PLACEHOLDER = re.compile(r"\{\{([a-z][a-z0-9_.-]*)\}\}|\{([a-z][a-z0-9_.-]*)\}")

AGENT_PLACES = (".local/bin/claude", "/usr/local/bin/claude", "/usr/bin/claude")
"""Where the agent's command can be, the first that is there counts: relative to the home, or of the machine."""
USER_UNITS = ".config/systemd/user"
"""Where a home has the units that its owner made (systemd.unit(5))."""


class CodeLayout(StrEnum):
    """What `~/code` is: the infra clone itself, or a folder with the clones beside each other."""

    SINGLE = "single"
    WORKSPACE = "workspace"


class Keep(StrEnum):
    """What becomes of a file that is there already: it is the person's, or kept current while it bears the mark."""

    SEED = "seed"
    CURRENT = "current"


@dataclass(frozen=True, slots=True)
class DirectoryStep:
    """A folder, made with `mode` if it is absent; the folders above it likewise, but 0755."""

    kind: ClassVar = "directory"
    path: str
    mode: str = "0755"

    def describe(self) -> str:
        """Say what is to be there."""
        return f"folder ~/{self.path} ({self.mode})"


@dataclass(frozen=True, slots=True)
class FileStep:
    """A file with a given content, or that of `source`, a file that only root can read.

    A file that is kept current bears a mark in a comment that begins with `comment`.
    """

    kind: ClassVar = "file"
    path: str
    content: str | None = None
    source: str | None = None
    mode: str = "0644"
    keep: Keep = Keep.SEED
    comment: str = "#"

    def describe(self) -> str:
        """Say what is to be there."""
        source = f" from {self.source}" if self.source else ""
        kept = "kept current" if self.keep is Keep.CURRENT else "if absent"
        return f"file ~/{self.path} ({self.mode}){source}, {kept}"


@dataclass(frozen=True, slots=True)
class GitStep:
    """A clone of `url`, followed by fast-forward every `refresh` hours (0: never) while it is clean and on its branch.

    `branch` None stands for the remote's own. `remotes` are further ones by name. `filters` are set to `cat`.
    """

    kind: ClassVar = "git"
    path: str
    url: str
    branch: str | None = None
    remotes: tuple[tuple[str, str], ...] = ()
    filters: tuple[str, ...] = ()
    refresh: int = 24

    def describe(self) -> str:
        """Say what is to be there."""
        return f"clone ~/{self.path} of {self.url}" + (f", branch {self.branch}" if self.branch else "")


@dataclass(frozen=True, slots=True)
class McpStep:
    """A user-scope entry of an MCP server in the configuration of the person's agent, made if it is absent."""

    kind: ClassVar = "mcp"
    server: str
    url: str

    def describe(self) -> str:
        """Say what is to be there."""
        return f"MCP server {self.server} at {self.url}"


@dataclass(frozen=True, slots=True)
class CommandStep:
    """A command, run unless `creates` exists or the command `unless` exits with 0, asked every `refresh` hours."""

    kind: ClassVar = "command"
    run: tuple[str, ...]
    creates: str | None = None
    unless: tuple[str, ...] = ()
    refresh: int = 24

    def describe(self) -> str:
        """Say what is run, and when not."""
        but = f"~/{self.creates} exists" if self.creates else f"{' '.join(self.unless)} succeeds"
        return f"{' '.join(self.run)}, unless {but}"


@dataclass(frozen=True, slots=True)
class LayoutStep:
    """Where a person's clones lie: `path` is the infra clone, or a folder with it and `repos` beside each other."""

    kind: ClassVar = "layout"
    layout: CodeLayout
    path: str
    url: str | None
    repos: tuple[str, ...] = ()

    def describe(self) -> str:
        """Say what is to be there."""
        if self.layout is CodeLayout.SINGLE:
            return f"~/{self.path} for the infra clone"
        return f"~/{self.path} a folder for {', '.join(['infra', *self.repos])}"


@dataclass(frozen=True, slots=True)
class RetireStep:
    """Units of a person's own systemd that hold the port of a service: stopped, disabled, renamed."""

    kind: ClassVar = "retire"
    units: tuple[str, ...]

    def describe(self) -> str:
        """Say what goes."""
        return ", ".join(self.units)


StepBody = DirectoryStep | FileStep | GitStep | McpStep | CommandStep | LayoutStep | RetireStep
_KINDS: Mapping[str, type[StepBody]] = {
    kind.kind: kind for kind in (DirectoryStep, FileStep, GitStep, McpStep, CommandStep, LayoutStep, RetireStep)
}
_S = TypeVar("_S", bound=StepBody)


@dataclass(frozen=True, slots=True)
class HomeStep:
    """One named step. `timeout` is in seconds. What a step `a/b` does needs `a` to have been done."""

    name: str
    body: StepBody
    timeout: int

    def is_below(self, other: str) -> bool:
        """Say whether this step needs another one to have been done."""
        return self.name.startswith(f"{other}/")

    @property
    def refresh(self) -> int:
        """After how many hours it is looked at again although nothing has changed, 0 for never."""
        return self.body.refresh if isinstance(self.body, GitStep | CommandStep) else 0

    def digest(self, source: str = "") -> str:
        """Return what tells two definitions apart, `source` standing for the state of its source."""
        return sha256(json.dumps([_document(self), source], sort_keys=True).encode()).hexdigest()


class Ending(StrEnum):
    """How a step ended: so it is; left to the person, whose own it is; something is in the way; it did not work."""

    DONE = "done"
    KEPT = "kept"
    BLOCKED = "blocked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Watch:
    """What a step relied on: the look of a path, `how` much of it, and how it looked.

    "exists" tells only a folder, a file and nothing apart, "same" also one file, and one state of it, from another.
    """

    path: str
    how: str
    look: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a step, in words, and what a later run has to look at to know that it is still so."""

    name: str
    ending: Ending
    detail: str = ""
    watches: tuple[Watch, ...] = ()


# --- placeholders ---


def placeholders_of(text: str) -> set[str]:
    """Return the words that stand in braces; doubled braces stand for themselves."""
    return {found[2] for found in _PLACEHOLDER.finditer(text) if found[2]}


def filled(step: _S, values: Mapping[str, str]) -> _S | None:
    """Put values in the place of placeholders, None where there is none for one of them."""
    try:
        return replace(step, **{field.name: _filled(getattr(step, field.name), values) for field in fields(step)})
    except KeyError:
        return None


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put values in the place of placeholders. Raises KeyError where there is none for one of them."""
    return _PLACEHOLDER.sub(lambda found: f"{{{found[1]}}}" if found[1] else values[found[2]], text)


def _filled(value: Any, values: Mapping[str, str]) -> Any:  # noqa: ANN401 (a field of any step)
    if isinstance(value, StrEnum):
        return value
    if isinstance(value, str):
        return fill(value, values)
    if isinstance(value, tuple):
        return tuple(_filled(item, values) for item in value)
    return value


# --- on their way ---


def work_order(home: str, steps: Sequence[HomeStep], contents: Mapping[str, str]) -> bytes:
    """Return the work for one home as one line of JSON; `contents` are those of sources, base64, by path."""
    document = {"home": home, "steps": [_document(step) for step in steps], "contents": dict(contents)}
    return json.dumps(document).encode() + b"\n"


def read_order(line: bytes) -> tuple[str, list[HomeStep], Mapping[str, str]]:
    """Read the line of `work_order`."""
    document = json.loads(line)
    return document["home"], [_step_from(step) for step in document["steps"]], document["contents"]


def result_line(result: Result) -> bytes:
    """Return a result as one line of JSON."""
    return json.dumps(asdict(result)).encode() + b"\n"


def read_result(line: bytes) -> Result:
    """Read the line of `result_line`, which comes from a person's own process: raises ValueError for anything else."""
    try:
        document = json.loads(line)
        watches = tuple(watch_from(watch) for watch in document["watches"])
        ending = Ending(document["ending"])
        return Result(str(document["name"]), ending, escaped(str(document["detail"])[:500]), watches)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("is no result of a step") from error


def watch_from(document: Mapping[str, Any]) -> Watch:
    """Read the document of a watch. Raises KeyError, TypeError or ValueError for anything else."""
    path, how, look = document["path"], document["how"], document["look"]
    if not isinstance(path, str) or how not in ("exists", "same") or not isinstance(look, list):
        raise TypeError("is no watch")
    if len(path) > _LONGEST_PATH or len(look) > _MOST_PARTS or not all(map(_is_part, look)):
        raise ValueError("is no watch that a look could give")
    return Watch(path, how, tuple(look))


def _is_part(part: object) -> bool:
    return (isinstance(part, str) and len(part) <= _LONGEST_WORD) or (isinstance(part, int) and 0 <= part < 1 << 64)


def _document(step: HomeStep) -> dict[str, Any]:
    return {"name": step.name, "timeout": step.timeout, "kind": step.body.kind, **asdict(step.body)}


def _step_from(document: Mapping[str, Any]) -> HomeStep:
    values = {key: _read_field(key, value) for key, value in document.items()}
    kind, name, timeout = (values.pop(key) for key in ("kind", "name", "timeout"))
    return HomeStep(name, _KINDS[kind](**values), timeout)


def _read_field(key: str, value: Any) -> Any:  # noqa: ANN401 (a field of any step)
    words: Mapping[str, type[StrEnum]] = {"keep": Keep, "layout": CodeLayout}
    if key in words:
        return words[key](value)
    return tuple(_read_field("", item) for item in value) if isinstance(value, list) else value
