"""Good rosters and site files with everything in them that may be, made by chance, and one thing of them broken.

Each function takes a `random.Random`: hypothesis hands one out that it can shrink, or one of a seed.
"""

from __future__ import annotations

import copy
import re
from random import Random
from typing import Any

import yaml

Document = dict[str, Any]

NAMES = ["alice", "bob", "carol", "_svc", "a", "d-2", "no", "on", "null", "playwright", "x_y", "e" * 31, "yes", "y"]
IDENTITIES = ["alice.a", "b@example.org", "0x10", "1", "12.5", "yes", "2024-01-01", "A+b", "c_c", "null", "e" * 255]
GROUPS = ["code-shared", "docker", "sudo", "video", "_grp", "g"]
SERVICE_NAMES = ["t3", "web", "files", "yes", "notebook", "on"]
STEP_NAMES = ["notes", "motd", "tools", "server", "linter", "off", "playwright-mcp", "playwright-token"]
GIT_ADDRESSES = [
    "https://git.example.org/team/infra.git",
    "http://git/x",
    "ssh://git@example.org:22/x.git",
    "git://example.org/x",
    "file:///srv/git/x",
    "git@example.org:team/x.git",
]
HOME_PATHS = ["notes", ".config/app/x", "~/x", "{home}/.local/bin/x", ".{user}", "a b/c", "é"]
PATHS = ["/bin/sh", "/usr/bin/zsh", "/srv/a b", "/etc/x.d/y", "/é"]
BRANCHES = ["main", "feature/x", "v1.2", "0"]

# What is put in the place of something, beside what stands elsewhere in the file.
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 64, 1023, 1024, 65535, 65536, 99999, 4194305, 1.5, 10**12, [], {}, [None], [[]],
    {"x": {}}, "", " ", "no", "123", "0x10", "2024-01-01", "22:30", "~", "<<", "=", "é", "\u0430lice", "a\nb", "a\tb",
    "\x00", "\x7f", "\u2028", "x" * 32, "x" * 101, "x" * 256, "x" * 2001, "root", "nobody", "rosterd", "infra",
    "x.git", "../x", "-x", "a=b", "a b", "$(id)", "playwright-bob", "admin", "single", "workspace", "required",
    "exempt", "t3", "web", "x@.service", "x.service", "/a//b", "/a/../b", "/a/", "/etc/{user}.env", "/etc/a/{user}/x",
    "/etc/../{user}", "/etc/a/{user}{user}", "/home/x.prom", "{name}", "{user}", "{{user}}", "{port.web}",
    "https://u:p@example.org/x", "ftp://example.org/x", "http://example.org/{user}", "0999", "755", "8G", "8g", "0%",
    "101%", "25%", "current", "code", "9P", "T3_PORT", "a.b", ".lock", "a..b", "ttyd-admins",
]  # fmt: skip


def site(random: Random) -> Document:
    """Return a good site file."""
    made = {
        "shell": random.choice(PATHS),
        "create_groups": _flag(random),
        "subids": _flag(random),
        "settle": random.randint(0, 300),
        "listen": random.randint(0, 600),
        "outputs": _some(random, ["ttyd-user-map", "ttyd-admins", "dispatch-json", "nginx-map", "caddy"]),
        "metrics": random.choice([None, "/var/lib/x.prom"]),
        "guards": {"max_cuts": random.randint(0, 100_000), "max_cut_percent": random.randint(0, 100)},
        "proxies": {name: _proxy(random) for name in _some(random, ["nginx-map", "caddy"])},
        "hooks": {
            name: {
                "command": ["/bin/hook", "{user}", "-{k8s_user}={authentik_user}"],
                "timeout": random.randint(1, 3600),
            }
            for name in _some(random, ["remove_from_t3_group", "revoke_cluster_rbac"])
        },
        "k8s_users": random.choice([None, {"file": "/x.json"}, {"command": ["/bin/k8s", "$X"], "timeout": 300}]),
        "code": {
            "infra_url": random.choice([None, *GIT_ADDRESSES]),
            "branch": random.choice([None, *BRANCHES]),
            "repo_base": random.choice([None, "https://git.example.org/team", "git@example.org:team"]),
        },
        "playwright": {
            "snapshot_url": random.choice([None, "https://example.org/{user}", "http://127.0.0.1:80/{user}"]),
            "token_file": random.choice([None, *PATHS]),
        },
        "tiers": {name: _tier(random) for name in _some(random, ["admin", "staff", "no", "power-user"], 1)},
        "services": _services(random),
    }
    kept: Document = {key: made[key] for key in random.sample(sorted(made), random.randint(0, len(made)))}
    tiers = list(kept.get("tiers", ["admin", "power-user", "namespace-owner"]))
    services = kept.get("services", {"t3": {"port": {}}, "playwright": {"port": {}}})
    ports = [name for name, service in services.items() if "port" in service]
    if random.random() < 0.5:
        kept["homes"] = {name: _step(random, name, tiers, ports) for name in _some(random, STEP_NAMES)}
    # It has a default for `playwright`, which need not be in the catalogue.
    kept["legacy_units"] = {name: [f"{name}.service", "x.timer"] for name in _some(random, list(services))}
    return kept


def roster(random: Random, policy: Document | None = None) -> Document:
    """Return a good roster for a good site file, or for the defaults."""
    policy = policy or {}
    tiers: Document = policy.get(
        "tiers", {"admin": {}, "power-user": {}, "namespace-owner": {"namespaces": "required"}}
    )
    services = sorted(policy.get("services", ["t3", "playwright"]))
    # Of two names that make one file, the longer is refused.
    names = [name for name in _some(random, NAMES) if not name.startswith("playwright-")]
    identities = random.sample(IDENTITIES, len(IDENTITIES))
    return {"users": {name: _person(random, identities[i % 11] + "x" * (i // 11), tiers, services)
                      for i, name in enumerate(names)}}  # fmt: skip


def _person(random: Random, identity: str, tiers: Document, services: list[str]) -> Document:
    tier = random.choice(sorted(tiers))
    person: Document = {"authentik_user": identity[-255:], "k8s_user": random.choice(IDENTITIES), "tier": tier}
    if tiers[tier].get("namespaces") == "required":
        person["namespaces"] = _some(random, ["shop", "a", "0", "x-1", "n" * 63], 1)
    optional: Document = {
        "parked": _flag(random),
        "adopt": _flag(random),
        "services": random.choice([None, {name: _flag(random) for name in _some(random, services)}]),
        "code_layout": random.choice(["single", "workspace"]),
    }
    person |= {key: optional[key] for key in random.sample(sorted(optional), random.randint(0, len(optional)))}
    if person.get("code_layout") == "workspace":
        person["repos"] = _some(random, ["api", "web", "api.v2", "A_b", "0"])
    return person


def _flag(random: Random) -> bool:
    return random.random() < 0.5


def _some(random: Random, things: list[str], least: int = 0) -> list[str]:
    return random.sample(things, random.randint(least, len(things)))


def _proxy(random: Random) -> Document | None:
    return random.choice([None, {"check": None}, {"unit": None}, {"check": ["/bin/check", "-t"], "unit": "x.service"}])


def _tier(random: Random) -> Document:
    optional: Document = {
        "groups": _some(random, GROUPS),
        "admin": _flag(random),
        "cluster": random.choice(["exempt", "checked"]),
        "namespaces": random.choice(["required", "forbidden"]),
        "limits": {
            "memory_max": random.choice(["8G", "512M", "25%", None]),
            "cpu_quota": "400%",
            "tasks_max": random.randint(64, 4194304),
        },
    }
    return {key: optional[key] for key in random.sample(sorted(optional), random.randint(0, len(optional)))}


def _services(random: Random) -> Document:
    made: Document = {}
    for number, name in enumerate(_some(random, SERVICE_NAMES)):
        base = random.randint(1024, 65535)
        port: Document = {"variable": f"PORT{number}", "base": base, "env_file": f"/etc/env/{name}.d/{{user}}.env"}
        if _flag(random):
            port["limit"] = random.randint(base, 65535)
        made[name] = {"units": [f"{name}@.service", f"{name}-x@.timer"][: random.randint(1, 2)]}
        if _flag(random):
            made[name]["port"] = port
            made[name]["route"] = not any(one.get("route") for one in made.values()) and _flag(random)
        if _flag(random):
            made[name]["enabled"] = _flag(random)
    return made


def _step(random: Random, name: str, tiers: list[str], ports: list[str]) -> Document | None:
    if name.startswith("playwright") and _flag(random):
        return None
    address, path = random.choice(GIT_ADDRESSES), random.choice(HOME_PATHS)
    port = f"{{port.{random.choice(ports)}}}" if ports else "1"
    kinds: Document = {
        "directory": {"path": path, "mode": random.choice(["0700", "0755"])},
        "file": {
            "path": path,
            **random.choice(
                [{"content": f"{{user}} {port}\n\t{{{{x}}}} é"}, {"source": "/etc/{user}"}, {"content": ""}]
            ),
            "mode": "0600",
            "keep": random.choice(["seed", "current"]),
            "comment": random.choice(["#", "//", ";"]),
        },
        "git": {
            "path": path,
            "url": address,
            "branch": random.choice(BRANCHES),
            "remotes": {"upstream": address, "no": address},
            "filters": ["git-crypt"],
            "refresh": random.randint(0, 8760),
        },
        "mcp": {"server": "a_B-9", "url": f"http://localhost:{port}/mcp"},
        "command": {
            "run": ["/bin/make", "{home}/x", "{tier}"],
            **random.choice([{"creates": path}, {"unless": ["test", "-e", "x"]}]),
            "refresh": random.randint(0, 8760),
        },
    }
    kind = random.choice(sorted(kinds))
    step: Document = {kind: kinds[kind]}
    if _flag(random):
        step |= {"tiers": _some(random, tiers), "layouts": ["workspace"], "timeout": random.randint(1, 600)}
    return step


# --- one thing broken ---


def broken(random: Random, good: Document) -> Document:
    """Return a document with one thing replaced, renamed, added, taken out, or put in another's place."""
    document = copy.deepcopy(good)
    spots = list(_spots(document))
    if not spots:
        return {random.choice(["users", "homes", "x"]): random.choice(STRANGE)}
    parent, key = random.choice(spots)
    match random.randrange(6):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[_key(random)] = parent.pop(key)
        case 2 if isinstance(parent, dict):
            parent[_key(random)] = random.choice(STRANGE)
        case 2:
            parent.append(random.choice(STRANGE))
        case 3:
            # Of another entry, where there is one: what may stand once alone then stands twice.
            other, place = random.choice([spot for spot in spots if spot[1] == key] if _flag(random) else spots)
            parent[key] = copy.deepcopy(other.get(place) if isinstance(other, dict) else random.choice(STRANGE))
        case _:
            parent[key] = random.choice(STRANGE)
    return document


def _key(random: Random) -> Any:  # noqa: ANN401 (YAML allows any scalar)
    return random.choice([thing for thing in STRANGE if not isinstance(thing, list | dict)])


def _spots(tree: Any) -> Any:  # noqa: ANN401 (a document of any shape)
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _spots(value)


# --- as text ---


class _Dumper(yaml.CSafeDumper):
    """Writes no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        """Say that nothing is to be one."""
        del data
        return True


def as_yaml(random: Random, document: Document) -> bytes:
    """Return a document as somebody could have written it: on one line or on many, with comments, with CR LF."""
    written = yaml.dump(
        document,
        Dumper=_Dumper,
        default_flow_style=random.choice([False, False, None, True]),
        allow_unicode=_flag(random),
        sort_keys=False,
        indent=random.choice([2, 4]),
        width=random.choice([80, 1000]),
        explicit_start=random.random() < 0.2,
        line_break=random.choice(["\n", "\n", "\r\n"]),
    )
    if random.random() < 0.2:
        # Only where no text goes over several lines.
        written = re.sub(r"(?m)^(\s*[a-z_0-9]+: [a-z0-9_]+)$", r"\1  # so it is", written)
    return written.encode()
