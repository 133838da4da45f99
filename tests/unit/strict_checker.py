"""An independent checker of rosters and site files: what docs/roster.md and docs/site.md say that is refused.

Written from those pages and shares no code with reconciler/: what rosterd accepts and this refuses is a mistake of
one of the two, or of the page. Where a page is silent (how long a branch's name is) this refuses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.unit.strict_yaml import NotStrict, Table, Tree, Word, read

NAME = "[a-z_][a-z0-9_-]{0,30}"
WORD = "[a-z][a-z0-9_-]*"
UNIT_TYPES = "service|timer|socket|path"
OUTPUTS = ("ttyd-user-map", "ttyd-admins", "dispatch-json", "nginx-map", "caddy")
HOOKS = ("remove_from_t3_group", "revoke_cluster_rbac")
STANDARD_STEPS = ("code", "playwright-token", "playwright-mcp")
KINDS = ("directory", "file", "git", "mcp", "command")
# A word in braces that are not doubled. What three braces mean the page does not say.
BRACED = re.compile(r"(?<!\{)\{([a-z][a-z0-9_.-]*)\}(?!\})")
HOOK_BRACED = re.compile(r"\{([\w-]+)\}")
NEVER = frozenset({"root", "nobody", "rosterd"})

Check = Callable[[Tree], bool]


@dataclass(frozen=True)
class Policy:
    """What of a site's policy a roster has to follow: which tiers need namespaces, the services and their files."""

    tiers: Mapping[str, bool] = field(
        default_factory=lambda: {"admin": False, "power-user": False, "namespace-owner": True}
    )
    services: Mapping[str, str | None] = field(
        default_factory=lambda: {"t3": "/etc/t3-serve/{user}.env", "playwright": "/etc/t3-serve/playwright-{user}.env"}
    )


class Faults(list[str]):
    """What is wrong with a file."""

    def unless(self, holds: object, what: str) -> None:
        """Note a fault, unless it `holds`."""
        if not holds:
            self.append(what)

    def table(self, tree: Tree, what: str, checks: Mapping[str, Check], required: Collection[str] = ()) -> Table:
        """Check the fields of a mapping; one that is no mapping counts as empty."""
        if not isinstance(tree, Table):
            self.append(f"{what} is no mapping")
            return Table({}, frozenset())
        for key, value in tree.entries.items():
            self.unless(key in checks, f"{what} has the unknown key {key!r}")
            self.unless(key not in checks or checks[key](value), f"{what}: {key} is not as it should be")
        for key in required:
            self.unless(key in tree.entries, f"{what}: {key} is missing")
        return tree

    def named(self, tree: Tree, what: str, pattern: str = WORD) -> dict[str, Tree]:
        """Return the entries of a mapping by names, which have to be text of this form."""
        if not isinstance(tree, Table):
            self.append(f"{what} is no mapping")
            return {}
        for key in tree.entries:
            good = key not in tree.other_keys and fits(pattern, key)
            self.unless(good, f"{what}: {key!r} is no name")
        return tree.entries


# --- rosters ---


def roster_faults(data: bytes, policy: Policy | None = None, reserved: Collection[str] = ()) -> list[str]:
    """Return what is wrong with a roster. `reserved` are the names of the machine's own accounts and groups."""
    faults, policy = Faults(), policy or Policy()
    try:
        tree = read(data)
    except NotStrict as error:
        return [str(error)]
    if tree is None:
        return ["empty"]
    users = faults.table(tree, "the roster", {"users": lambda value: isinstance(value, Table)}, ["users"])
    people = faults.named(users.entries.get("users", Table({}, frozenset())), "users", NAME)
    for name, entry in people.items():
        faults.unless(name not in NEVER | set(reserved), f"{name} belongs to the system")
        _person(faults, name, entry, policy)
    identities = [text_of(entry.entries.get("authentik_user")) for entry in people.values() if isinstance(entry, Table)]
    faults.unless(len(identities) == len(set(identities)), "two people with one identity")
    _env_files(faults, list(people), policy)
    return faults


def _person(faults: Faults, name: str, entry: Tree, policy: Policy) -> None:
    identity = text(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,254}")
    checks = {
        "authentik_user": identity,
        "k8s_user": identity,
        "tier": one_of(policy.tiers),
        "namespaces": texts(r"[a-z0-9]|[a-z0-9][a-z0-9-]{0,61}[a-z0-9]", different=True),
        "code_layout": one_of(("single", "workspace")),
        "repos": texts(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", different=True, but=lambda one: not _is_a_repo(one)),
        "parked": is_flag,
        "services": lambda value: _are_switches(value, policy),
        "adopt": is_flag,
    }
    found = faults.table(entry, name, checks, ["authentik_user", "k8s_user", "tier"]).entries
    tier, namespaces = text_of(found.get("tier")), found.get("namespaces")
    if policy.tiers.get(tier or ""):
        faults.unless(isinstance(namespaces, list) and namespaces, f"{name}: namespaces are required")
    else:
        faults.unless(namespaces is None, f"{name}: namespaces are not for this tier")
    in_workspace = text_of(found.get("code_layout")) == "workspace"
    faults.unless("repos" not in found or in_workspace, f"{name}: repos without workspace")


def _is_a_repo(name: str) -> bool:
    return name != "infra" and not name.endswith(".git")


def _are_switches(value: Tree, policy: Policy) -> bool:
    if is_null(value):
        return True
    known = isinstance(value, Table) and not value.other_keys and value.entries.keys() <= policy.services.keys()
    return isinstance(value, Table) and known and all(map(is_flag, value.entries.values()))


def _env_files(faults: Faults, people: list[str], policy: Policy) -> None:
    """See that no file is two people's, nor could be that of a shorter name, on the roster or not."""
    patterns = {path for path in policy.services.values() if path}
    owners: dict[str, set[str]] = {}
    for name in people:
        for path in {pattern.replace("{user}", name) for pattern in patterns}:
            owners.setdefault(path, set()).add(name)
            for other in patterns:
                before, after = other.split("{user}")
                owner = path.removeprefix(before).removesuffix(after)
                is_theirs = before + owner + after == path and fits(NAME, owner)
                faults.unless(not is_theirs or len(owner) >= len(name), f"{path} could be a file of {owner}'s")
    faults.unless(all(len(names) == 1 for names in owners.values()), "a file of two people")


# --- site files ---


def site_faults(data: bytes) -> tuple[list[str], Policy]:
    """Return what is wrong with a site file, and the policy in it, as far as it can be told."""
    faults = Faults()
    try:
        tree = read(data)
    except NotStrict as error:
        return [str(error)], Policy()
    if tree is None:
        return [], Policy()
    checks: dict[str, Check] = {
        "shell": is_path,
        "create_groups": is_flag,
        "subids": is_flag,
        "settle": number(0, 300),
        "listen": number(0, 600),
        "outputs": texts("|".join(OUTPUTS)),
        "metrics": or_null(lambda value: is_path(value) and fits(r"(?!/home/).*\.prom", text_of(value) or "")),
    }
    parts = {"tiers", "services", "proxies", "guards", "hooks", "k8s_users", "code", "playwright", "homes"}
    checks |= {part: lambda _: True for part in parts | {"legacy_units"}}
    top = faults.table(tree, "the file", checks).entries
    tiers = given(top, "tiers")
    services = given(top, "services")
    policy = Policy(
        Policy().tiers if tiers is None else _tiers(faults, tiers),
        Policy().services if services is None else _services(faults, services),
    )
    for part, check in {
        "proxies": _proxies,
        "guards": _guards,
        "hooks": _hooks,
        "k8s_users": _k8s_users,
        "code": _code,
        "playwright": _playwright,
    }.items():
        if (found := given(top, part)) is not None:
            check(faults, found)
    if (homes := given(top, "homes")) is not None:
        _homes(faults, homes, policy)
    if (legacy := given(top, "legacy_units")) is not None:
        names = faults.named(legacy, "legacy_units")
        faults.unless(names.keys() <= policy.services.keys(), "legacy_units: no such service")
        faults.unless(all(map(texts(rf"\S+\.(?:{UNIT_TYPES})"), names.values())), "legacy_units: no list of units")
    return faults, policy


def _tiers(faults: Faults, tree: Tree) -> dict[str, bool]:
    tiers = faults.named(tree, "tiers")
    faults.unless(tiers, "tiers is empty")
    needing = {}
    for name, tier in tiers.items():
        checks = {
            "groups": texts("[a-z_][a-z0-9_-]*"),
            "admin": is_flag,
            "cluster": one_of(("checked", "exempt")),
            "namespaces": one_of(("required", "forbidden")),
            "limits": lambda value: is_null(value) or _are_limits(value),
        }
        found = faults.table(tier, f"tier {name}", checks).entries
        needing[name] = text_of(found.get("namespaces")) == "required"
    return needing


def _are_limits(tree: Tree) -> bool:
    faults = Faults()
    checks = {
        "memory_max": or_null(text(r"[1-9]\d*[MGT]|(?:[1-9]\d?|100)%")),
        "cpu_quota": or_null(text(r"[1-9]\d*%")),
        "tasks_max": or_null(number(64, 4194304)),
    }
    faults.table(tree, "limits", checks)
    return not faults


def _services(faults: Faults, tree: Tree) -> dict[str, str | None]:
    templates: list[str] = []
    files: list[tuple[str | None, str | None]] = []
    routed, patterns = 0, {}
    for name, service in faults.named(tree, "services").items():
        what = f"service {name}"
        checks = {
            "units": texts(rf"[^\s/@]+@\.(?:{UNIT_TYPES})", different=True),
            "port": lambda _: True,
            "route": is_flag,
            "enabled": is_flag,
        }
        found = faults.table(service, what, checks, ["units"]).entries
        faults.unless(found.get("units"), f"{what}: no units")
        templates += [text_of(unit) or "" for unit in as_list(found.get("units"))]
        port = given(found, "port")
        patterns[name] = None if port is None else _port(faults, what, port)
        if isinstance(port, Table):
            files.append((patterns[name], text_of(port.entries.get("variable"))))
        if is_true(found.get("route")):
            routed += 1
            faults.unless(port is not None, f"{what}: a route needs a port")
    faults.unless(routed <= 1, "two routed services")
    faults.unless(len(templates) == len(set(templates)), "a template of two services")
    faults.unless(len(files) == len(set(files)), "one variable of one file for two services")
    return patterns


def _port(faults: Faults, what: str, tree: Tree) -> str | None:
    port = number(1024, 65535)
    checks = {"variable": text("[A-Za-z_][A-Za-z0-9_]*"), "env_file": is_env_file, "base": port, "limit": port}
    found = faults.table(tree, what, checks, ["variable", "env_file", "base"]).entries
    base, limit = found.get("base"), found.get("limit")
    if isinstance(base, Word) and isinstance(limit, Word) and port(base) and port(limit):
        faults.unless(int(base.text) <= int(limit.text), f"{what}: limit is below base")
    return text_of(found.get("env_file"))


def is_env_file(value: Tree) -> bool:
    """Say whether it is below /etc, in a folder of its own there, with {user} in the last part and nowhere else."""
    path = text_of(value) or ""
    *folders, last = path.split("/")
    below = len(folders) >= 3 and folders[:2] == ["", "etc"] and not {"", ".", ".."} & set(folders[2:])
    return below and path.count("{user}") == 1 and "{user}" in last and not set(path) & set("\n\0 ")


def _proxies(faults: Faults, tree: Tree) -> None:
    found = faults.table(tree, "proxies", {"nginx-map": lambda _: True, "caddy": lambda _: True}).entries
    for name, proxy in found.items():
        if not is_null(proxy):
            unit = or_null(text(rf"\S+\.(?:{UNIT_TYPES})"))
            faults.table(proxy, name, {"check": or_null(is_command), "unit": unit})


def _guards(faults: Faults, tree: Tree) -> None:
    faults.table(tree, "guards", {"max_cuts": number(0, 100_000), "max_cut_percent": number(0, 100)})


def _hooks(faults: Faults, tree: Tree) -> None:
    for name, hook in faults.named(tree, "hooks", "|".join(HOOKS)).items():
        found = faults.table(hook, name, {"command": is_command, "timeout": number(1, 3600)}, ["command"]).entries
        words = {word for one in texts_in(found.get("command")) for word in HOOK_BRACED.findall(one)}
        faults.unless(words <= {"user", "authentik_user", "k8s_user"}, f"{name}: an unknown word in braces")


def _k8s_users(faults: Faults, tree: Tree) -> None:
    checks = {"file": is_path, "command": is_command, "timeout": number(1, 300)}
    found = faults.table(tree, "k8s_users", checks).entries
    faults.unless(("file" in found) != ("command" in found), "k8s_users: either a file or a command")


def _code(faults: Faults, tree: Tree) -> None:
    address = or_null(is_git_address)
    faults.table(tree, "code", {"infra_url": address, "branch": or_null(is_branch), "repo_base": address})


def _playwright(faults: Faults, tree: Tree) -> None:
    checks = {"snapshot_url": or_null(is_snapshot_address), "token_file": or_null(is_path)}
    found = faults.table(tree, "playwright", checks).entries
    words = set(BRACED.findall(text_of(found.get("snapshot_url")) or ""))
    faults.unless(words <= {"user"}, "playwright: an unknown word in braces")


# --- steps in homes ---


def _homes(faults: Faults, tree: Tree, policy: Policy) -> None:
    known = {"user", "home", "tier", *(f"port.{name}" for name, path in policy.services.items() if path)}
    for name, step in faults.named(tree, "homes").items():
        if is_null(step):
            faults.unless(name in STANDARD_STEPS, f"home step {name}: only a standard step can be left out")
            continue
        faults.unless(name != "code", "home step code can only be left out")
        checks: dict[str, Check] = {
            "tiers": texts("|".join(map(re.escape, policy.tiers)) or r"(?!)"),
            "layouts": texts("single|workspace"),
            "timeout": number(1, 600),
        }
        checks |= {kind: lambda _: True for kind in KINDS}
        found = faults.table(step, f"home step {name}", checks).entries
        kinds = [kind for kind in KINDS if kind in found]
        faults.unless(len(kinds) == 1, f"home step {name}: exactly one kind")
        for kind in kinds:
            _STEPS[kind](faults, f"home step {name}", found[kind])
        words = {word for one in texts_in(step) for word in BRACED.findall(one)}
        faults.unless(words <= known, f"home step {name}: an unknown word in braces")


def _directory(faults: Faults, what: str, tree: Tree) -> None:
    faults.table(tree, what, {"path": is_home_path, "mode": is_mode}, ["path"])


def _file(faults: Faults, what: str, tree: Tree) -> None:
    checks = {
        "path": is_home_path,
        "content": text(r"(?s:.*)"),
        "source": is_path,
        "mode": is_mode,
        "keep": one_of(("seed", "current")),
        "comment": text(r"\S+"),
    }
    found = faults.table(tree, what, checks, ["path"]).entries
    faults.unless(("content" in found) != ("source" in found), f"{what}: either content or source")


def _git(faults: Faults, what: str, tree: Tree) -> None:
    checks = {
        "path": is_home_path,
        "url": is_git_address,
        "branch": is_branch,
        "remotes": lambda _: True,
        "filters": texts(r"\S+"),
        "refresh": number(0, 8760),
    }
    found = faults.table(tree, what, checks, ["path", "url"]).entries
    if (remotes := given(found, "remotes")) is not None:
        addresses = faults.named(remotes, f"{what}: remotes", r"\S+").values()
        faults.unless(all(map(is_git_address, addresses)), f"{what}: a remote has no address")


def _mcp(faults: Faults, what: str, tree: Tree) -> None:
    faults.table(tree, what, {"server": text("[A-Za-z0-9_-]+"), "url": is_web_address}, ["server", "url"])


def _command(faults: Faults, what: str, tree: Tree) -> None:
    checks = {"run": is_argv, "creates": is_home_path, "unless": is_argv, "refresh": number(0, 8760)}
    found = faults.table(tree, what, checks, ["run"]).entries
    faults.unless(("creates" in found) != ("unless" in found), f"{what}: either creates or unless")


_STEPS = {"directory": _directory, "file": _file, "git": _git, "mcp": _mcp, "command": _command}


# --- values ---


def fits(pattern: str, found: str) -> bool:
    """Say whether a whole text fits a pattern of ASCII."""
    return re.fullmatch(pattern, found, re.ASCII) is not None


def text_of(tree: Tree | None) -> str | None:
    """Return a text, None for anything else."""
    return tree.text if isinstance(tree, Word) and tree.kind == "text" else None


def as_list(tree: Tree | None) -> list[Tree]:
    """Return a list; anything else is an empty one."""
    return tree if isinstance(tree, list) else []


def texts_in(tree: Tree | None) -> Iterable[str]:
    """Return all texts in a tree that are values."""
    if isinstance(tree, Word):
        return [tree.text]
    below = tree.entries.values() if isinstance(tree, Table) else as_list(tree)
    return [found for one in below for found in texts_in(one)]


def given(entries: Mapping[str, Tree], key: str) -> Tree | None:
    """Return what stands at a key; a mapping that is left empty is as one that is left out."""
    found = entries.get(key)
    return None if found is None or is_null(found) else found


def text(pattern: str) -> Check:
    """Return the check for a text of a form."""
    return lambda value: (found := text_of(value)) is not None and fits(pattern, found)


def one_of(words: Iterable[str]) -> Check:
    """Return the check for one of some words."""
    allowed = frozenset(words)
    return lambda value: text_of(value) in allowed


def texts(pattern: str, *, different: bool = False, but: Callable[[str], bool] = lambda _: False) -> Check:
    """Return the check for a list of texts of a form."""
    one = text(pattern)

    def check(value: Tree) -> bool:
        if not isinstance(value, list) or not all(map(one, value)):
            return False
        found = [text_of(item) or "" for item in value]
        return not any(map(but, found)) and (not different or len(found) == len(set(found)))

    return check


def number(low: int, high: int) -> Check:
    """Return the check for a whole number in decimal digits."""
    return lambda value: (
        isinstance(value, Word)
        and value.kind == "int"
        and fits(r"0|[1-9]\d{0,9}", value.text)
        and low <= int(value.text) <= high
    )


def or_null(check: Check) -> Check:
    """Return the check that passes null as well."""
    return lambda value: is_null(value) or check(value)


def is_null(value: Tree) -> bool:
    """Say whether it is YAML's null."""
    return isinstance(value, Word) and value.kind == "null"


def is_flag(value: Tree) -> bool:
    """Say whether it is true or false."""
    return isinstance(value, Word) and value.kind == "bool"


def is_true(value: Tree | None) -> bool:
    """Say whether it is true."""
    return isinstance(value, Word) and value.kind == "bool" and value.text.lower() in {"true", "yes", "on"}


def is_path(value: Tree) -> bool:
    """Say whether it is an absolute path."""
    path = text_of(value) or ""
    return path.startswith("/") and not {"", ".", ".."} & set(path[1:].split("/")) and not set(path) & set("\0\n")


def is_home_path(value: Tree) -> bool:
    """Say whether it is a path relative to the home."""
    path = (text_of(value) or "").removeprefix("~/").removeprefix("{home}/")
    return bool(path) and not path.startswith("/") and ".." not in path.split("/") and not set(path) & set("\0\n")


def is_mode(value: Tree) -> bool:
    """Say whether it is four octal digits in quotes."""
    return fits("[0-7]{4}", text_of(value) or "")


def is_argv(value: Tree) -> bool:
    """Say whether it is a program and its arguments."""
    return texts(r"[^\0\n]+")(value) and bool(value)


def is_command(value: Tree) -> bool:
    """Say whether it is an absolute path of a program and its arguments."""
    return isinstance(value, list) and is_argv(value) and (text_of(value[0]) or "").startswith("/")


def is_branch(value: Tree) -> bool:
    """Say whether git could take it for a branch (git-check-ref-format(1)), and not for an option."""
    name = text_of(value) or ""
    bad = name.startswith(("-", "/")) or name.endswith(("/", ".", ".lock"))
    return (
        bool(name)
        and not bad
        and ".." not in name
        and "@{" not in name
        and not re.search(r"[\s~^:?*\[\\]|//|/\.", name)
    )


def is_git_address(value: Tree) -> bool:
    """Say whether it is https, http, ssh, git, file:///, or user@host:path, without a password."""
    address = text_of(value) or ""
    if not address or re.search(r"\s", address):
        return False
    if "://" not in address:
        return fits(r"[^@/:-][^@/:]*@[^@/:-][^@/:]*:.+", address)
    scheme, _, rest = address.partition("://")
    place = rest.partition("/")[0]
    if scheme == "file":
        return not place and len(rest) > 1
    return scheme in {"https", "http", "ssh", "git"} and bool(place) and ":" not in place.rpartition("@")[0]


def is_web_address(value: Tree) -> bool:
    """Say whether it is an address over HTTP, without a password."""
    address = text_of(value) or ""
    return fits(r"https?://[^/@]+(?:/.*)?", address) and not re.search(r"\s", address)


def is_snapshot_address(value: Tree) -> bool:
    """Say whether it is https, or http on this machine."""
    try:
        parts = urlsplit(text_of(value) or "")
        here = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    except ValueError:
        return False
    return bool(parts.netloc) and (parts.scheme == "https" or (parts.scheme == "http" and here))
