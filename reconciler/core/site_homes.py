"""The steps that a site adds to every home, read from `homes:` of site.yaml."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from reconciler.core import names
from reconciler.core.document import Mapping as MappingNode
from reconciler.core.document import Node, Scalar, Sequence
from reconciler.core.fields import Fields, Rule, is_null, shown
from reconciler.core.home_steps import (
    CodeLayout,
    CommandStep,
    DirectoryStep,
    FileStep,
    GitStep,
    HomeStep,
    Keep,
    McpStep,
    StepBody,
    placeholders_of,
)
from reconciler.core.text import printable

KINDS = ("directory", "file", "git", "mcp", "command")
PLACEHOLDERS = ("user", "home", "tier")
SOURCE_PLACEHOLDERS = ("user", "tier")
"""What may stand in the path of a source, which root looks for before anything is known of the home."""
CODE, TOKEN, MCP = "code", "playwright-token", "playwright-mcp"
"""The names of the standard steps; those of the clones are below the first."""

# Below a home: no empty part, no `.` and no `..`.
HOME_PATH = Rule(
    re.compile(r"(?:~/|\{home\}/)?(?!.*\{home\})(?!/)(?!(?:.*/)?\.{1,2}(?:/|$))(?!.*//)[^\x00-\x1f\x7f]{1,1000}(?<!/)"),
    "a path in the home, as in .config/app",
)


# No dash first: what starts with one is taken for an option on its way to ssh.
HOST = r"(?!-)(?:\[[0-9A-Fa-f:.]+\]|[^\s/@:\[\]?#\\]+)"


# Credentials are the person's own, and an address is seen by everybody: there is no place for a password.
def _git_address(path: str) -> str:
    """Return a pattern of addresses whose path, where they have a host before it, is like `path`."""
    account, host = r"(?!-)[A-Za-z0-9._-]+@", rf"{HOST}(?::\d+)?"
    web, other = rf"https?://{host}{path}", rf"(?:ssh|git)://(?:{account})?{host}{path}"
    return rf"(?:{web}|{other}|file:///\S+|{account}(?!-)[A-Za-z0-9.-]+:(?!//)\S+)"


GIT_URL = Rule(
    re.compile(_git_address(r"/\S+")),
    "the address of a git repository without a password, as in https://git.example.org/team/infra.git",
)
GIT_BASE = Rule(
    re.compile(_git_address(r"(?:/\S+)?") + r"(?<!/)"),
    "the address that repositories are below, without a password, as in https://git.example.org/team",
)
BRANCH = Rule(
    re.compile(r"(?!.*\.\.)(?!.*//)(?!.*/\.)[A-Za-z0-9][A-Za-z0-9._/-]{0,199}(?<![/.])(?<!\.lock)"),
    "the name of a branch",
)
MODE = Rule(re.compile(r"0[0-7]{3}"), 'four octal digits in quotes, as in "0644"')
HTTP_URL = Rule(re.compile(rf"https?://{HOST}(?::[^\s/@:\[\]]+)?(?:/\S*)?"), "an http or https address")
_KEEP = tuple(Keep)
CONTENT = Rule(re.compile(r"[^\x00]{0,65536}", re.DOTALL), "a text of at most 65,536 characters")
COMMENT = Rule(re.compile(r"[#;%!\"'/-]{1,3}"), "what begins a comment, as in # or //")
SERVER = Rule(re.compile(r"[A-Za-z0-9_-]{1,64}"), "a name of letters, digits, _ and -")
_STEP_SECONDS: Mapping[str, int] = {"directory": 30, "file": 30, "git": 300, "mcp": 60, "command": 300}
MOST_SECONDS = 600
MOST_HOURS = 8760


@dataclass(frozen=True, slots=True)
class SiteStep:
    """One step of `homes:`, its placeholders not filled yet, and for whom it is: empty means everybody."""

    step: HomeStep
    tiers: tuple[str, ...] = ()
    layouts: tuple[CodeLayout, ...] = ()


def read_homes(fields: Fields, tiers: Collection[str], ports: Collection[str]) -> dict[str, SiteStep | None]:
    """Read `homes:`; None stands for a standard step that the site leaves out. `ports` are services that have one."""
    node = fields.take_mapping("homes")
    if node is None:
        return {}
    return {name.text: _step(fields, name, entry, tiers, ports) for name, entry in node.entries}


def _step(fields: Fields, name: Scalar, node: Node, tiers: Collection[str], ports: Collection[str]) -> SiteStep | None:
    subject = f"home step '{printable(name.text)}'"
    if name.kind != "str" or not names.WORD.accepts(name.text):
        fields.document.problem(name.place, f"{subject}: the name must be {names.WORD.words}")
        return None
    if is_null(node):
        if name.text not in (CODE, TOKEN, MCP):
            wrong = f"{subject} is empty; only a standard step can be left out so: {CODE}, {TOKEN}, {MCP}"
            fields.document.problem(node.place, wrong)
        return None
    if not isinstance(node, MappingNode):
        fields.document.problem(node.place, f"{subject} is {shown(node)}; it must be a mapping with one of {_kinds()}")
        return None
    if name.text == CODE:
        fields.document.problem(name.place, f"{subject} is set up by 'code:'; it can be left out, as in 'code: null'")
        return None
    inner = Fields(fields.document, subject, node)
    given = [kind for kind in KINDS if inner.value(kind) is not None]
    if len(given) != 1:
        inner.wrong(node.place, f"it must have exactly one of {_kinds()}" + (f", not {len(given)}" if given else ""))
    limited = SiteStep(
        HomeStep(name.text, _body(inner, given[0]) if given else DirectoryStep("x"), _timeout(inner, given)),
        tiers=inner.take_texts("tiers", names.WORD, lambda tier: _no_tier(tier, tiers)),
        layouts=tuple(CodeLayout(one) for one in inner.take_texts("layouts", _one_of(CodeLayout))),
    )
    inner.finish()
    refuse_unknown(inner, node, {*PLACEHOLDERS, *(f"port.{name}" for name in ports)})
    return limited


def _timeout(inner: Fields, given: list[str]) -> int:
    return inner.take_number("timeout", 1, MOST_SECONDS, _STEP_SECONDS[given[0]] if given else 0)


def _no_tier(tier: str, tiers: Collection[str]) -> str | None:
    return None if tier in tiers else f"tiers: '{tier}' is none of {', '.join(tiers)}"


def _body(step: Fields, kind: str) -> StepBody:
    value = step.value(kind)
    if value is not None and is_null(value):
        step.wrong(value.place, f"{kind} is empty; it must be a mapping, as in {{key: value}}")
    node = step.take_mapping(kind)
    if node is None:
        return DirectoryStep("x")
    inner = Fields(step.document, f"{step.subject}: {kind}", node)
    body = _READ[kind](inner)
    inner.finish()
    return body


def _directory(inner: Fields) -> DirectoryStep:
    return DirectoryStep(_path(inner), inner.take_text("mode", MODE, "0755"))


def _file(inner: Fields) -> FileStep:
    path = _path(inner)
    content = inner.take_text("content", CONTENT) if inner.value("content") is not None else None
    source = inner.take_text("source", names.PATH) or None
    if (content is None) == (source is None):
        inner.wrong(inner.node.place, "name either its content or a source, a file that only root can write")
    if source is not None:
        refuse_unknown(inner, inner.value("source") or inner.node, SOURCE_PLACEHOLDERS)
    return FileStep(
        path,
        content,
        source,
        mode=inner.take_text("mode", MODE, "0644"),
        keep=Keep(inner.take_choice("keep", _KEEP, Keep.SEED)),
        comment=inner.take_text("comment", COMMENT, "#"),
    )


def _git(inner: Fields) -> GitStep:
    remotes = inner.take_each("remotes", lambda name, node: _remote(inner, name, node))
    return GitStep(
        _path(inner),
        inner.take_required("url", GIT_URL),
        branch=inner.take_text("branch", BRANCH) or None,
        remotes=tuple(sorted((remotes or {}).items())),
        filters=inner.take_texts("filters", SERVER),
        refresh=inner.take_number("refresh", 0, MOST_HOURS, 24),
    )


def _remote(git: Fields, name: Scalar, node: Node) -> str:
    what = f"remote '{printable(name.text)}'"
    git.refuse_other_than_text(name)
    if not SERVER.accepts(name.text):
        git.wrong(name.place, f"{what} must be {SERVER.words}")
    return git.text_of(what, node, GIT_URL, "")


def _mcp(inner: Fields) -> McpStep:
    return McpStep(inner.take_required("server", SERVER), inner.take_required("url", HTTP_URL))


def _command(inner: Fields) -> CommandStep:
    run, unless = (
        tuple(inner.text_of(f"an argument of {key}", node, names.TEXT, "") for node in inner.take_list(key))
        for key in ("run", "unless")
    )
    creates = _in_home(inner.take_text("creates", HOME_PATH)) or None
    if not run:
        inner.wrong(inner.node.place, "run is missing; it is a list, as in [/usr/bin/make, '{home}/app']")
    both = inner.value("creates") is not None and inner.value("unless") is not None
    if both or (creates is None) == (not unless):
        inner.wrong(
            inner.node.place, "name either creates, a path, or unless, a command: else it would be run every time"
        )
    return CommandStep(run, creates, unless, refresh=inner.take_number("refresh", 0, MOST_HOURS, 24))


_READ: Mapping[str, Callable[[Fields], StepBody]] = {
    "directory": _directory,
    "file": _file,
    "git": _git,
    "mcp": _mcp,
    "command": _command,
}


def _path(inner: Fields) -> str:
    return _in_home(inner.take_required("path", HOME_PATH))


def _in_home(path: str) -> str:
    """Return a path as it is kept: relative to the home."""
    return path.removeprefix("~/").removeprefix("{home}/")


def refuse_unknown(inner: Fields, node: Node, known: Collection[str]) -> None:
    """Note each placeholder below a node that is none of those known, with the place of its text."""
    allowed = ", ".join(f"{{{word}}}" for word in sorted(known))
    for scalar in _scalars(node):
        for unknown in sorted(placeholders_of(scalar.text) - set(known)):
            inner.wrong(scalar.place, f"{{{unknown}}} is none of {allowed}; for the text itself, double the braces")


def _scalars(node: Node) -> Iterator[Scalar]:
    if isinstance(node, Scalar):
        yield node
        return
    children = node.items if isinstance(node, Sequence) else [value for _, value in node.entries]
    for child in children:
        yield from _scalars(child)


def _one_of(words: type[CodeLayout]) -> Rule:
    return Rule(re.compile("|".join(words)), "one of " + ", ".join(words))


def _kinds() -> str:
    return ", ".join(KINDS)
