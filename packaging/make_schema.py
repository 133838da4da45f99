#!/usr/bin/python3
"""Write the JSON Schemas of the roster and the site file, for editors: `packaging/make_schema.py`.

Patterns and closed lists come from the parser's own modules. A schema says less than the parser: what
depends on the site, on other entries or on the host is not in it. An editor that reads YAML 1.2 also takes
`no` and `22:30` for text, which the parser, reading YAML 1.1, does not.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from reconciler.core import home_steps, names, records, roster, site, site_homes  # noqa: E402 (found through the line above)
from reconciler.core.fields import Rule  # noqa: E402

FOLDER = CHECKOUT / "reconciler" / "schema"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

_FLAG: Schema = {"type": "boolean"}
_PORT: Schema = {"type": "integer", "minimum": 1024, "maximum": 65535}
_DEFAULT = site.Site()


def main() -> None:
    """Write both files."""
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (FOLDER / name).write_text(text_of(schema), encoding="utf-8")


def schemas() -> dict[str, Schema]:
    """Return the schemas by the names of their files."""
    return {"roster.schema.json": roster_schema(), "site.schema.json": site_schema()}


def text_of(schema: Schema) -> str:
    """Return a schema as its file has it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def roster_schema() -> Schema:
    """Return the schema of roster.yaml."""
    users = {
        "type": "object",
        "propertyNames": _text(names.OS_USER) | {"not": {"enum": sorted(names.ALWAYS_RESERVED)}},
        "additionalProperties": _user(),
    }
    return {
        "$schema": _DIALECT,
        "title": "roster.yaml: who works on this machine",
        **_object({"users": users}, required=["users"]),
    }


def _user() -> Schema:
    repo = _text(names.REPO) | {"not": {"anyOf": [{"const": roster.IMPLICIT_REPO}, {"pattern": r"\.git$"}]}}
    return _object(
        {
            "authentik_user": _text(names.IDENTITY),
            "k8s_user": _text(names.IDENTITY),
            "tier": _text(names.WORD) | {"examples": list(_DEFAULT.tiers)},
            "namespaces": _list(_text(names.NAMESPACE)),
            "code_layout": {"enum": list(home_steps.CodeLayout), "default": home_steps.CodeLayout.SINGLE},
            "repos": _list(repo),
            "parked": _FLAG,
            "services": _or_null(_each(names.WORD, _FLAG)) | {"examples": [dict.fromkeys(_DEFAULT.services, False)]},
            "adopt": _FLAG,
        },
        required=["authentik_user", "k8s_user", "tier"],
    ) | {
        "dependentSchemas": {
            "repos": {
                "required": ["code_layout"],
                "properties": {"code_layout": {"const": home_steps.CodeLayout.WORKSPACE}},
            }
        }
    }


def site_schema() -> Schema:
    """Return the schema of site.yaml."""
    settings = {
        "shell": _text(names.PATH),
        "tiers": _or_null(_each(names.WORD, _tier()) | {"minProperties": 1}),
        "services": _or_null(_each(names.WORD, _service())),
        "outputs": _list({"enum": list(site.OutputKind)}),
        "proxies": _or_null(_object({kind.value: _or_null(_proxy()) for kind in _DEFAULT.proxies})),
        "guards": _or_null(_object({"max_cuts": _number(0, 100_000), "max_cut_percent": _number(0, 100)})),
        "k8s_users": _or_null(_tier_source()),
        "create_groups": _FLAG,
        "subids": _FLAG,
        "settle": _number(0, 300),
        "listen": _number(0, 600),
        "code": _or_null(_code()),
        "playwright": _or_null(_playwright()),
        "hooks": _or_null(_object({step.value: _hook() for step in records.Step})),
        "homes": _or_null(
            _each(names.WORD, _or_null(_home_step())) | {"properties": {site_homes.CODE: {"type": "null"}}}
        ),
        "legacy_units": _or_null({"type": "object", "additionalProperties": _list(_text(names.UNIT))}),
        "metrics": _or_null(_text(site.METRICS)),
    }
    return {"$schema": _DIALECT, "title": "site.yaml: the policy of this machine", **_object(settings)}


def _tier() -> Schema:
    return _object(
        {
            "groups": _list(_text(names.GROUP)),
            "admin": _FLAG,
            "cluster": {"enum": list(site.ClusterCheck)},
            "namespaces": {"enum": list(site.Namespaces)},
            "limits": _or_null(_limits()),
        }
    )


def _limits() -> Schema:
    return _object(
        {
            "memory_max": _or_null(_text(site.MEMORY)),
            "cpu_quota": _or_null(_text(site.CPU)),
            "tasks_max": _or_null(_number(site.FEWEST_TASKS, site.MOST_TASKS)),
        }
    )


def _service() -> Schema:
    port = _object(
        {
            "variable": _text(names.VARIABLE),
            "base": _PORT,
            "limit": _PORT,
            "env_file": _text(names.ENV_FILE),
        },
        required=["variable", "base", "env_file"],
    )
    units = _list(_text(names.TEMPLATE)) | {"minItems": 1}
    routed = {"properties": {"route": {"const": True}}, "required": ["route"]}
    needs_port = {"properties": {"port": {"type": "object"}}, "required": ["port"]}
    service = _object({"units": units, "port": _or_null(port), "route": _FLAG, "enabled": _FLAG}, required=["units"])
    return service | {"if": routed, "then": needs_port}


def _tier_source() -> Schema:
    source = _object({"file": _text(names.PATH), "command": _command(), "timeout": _number(1, 300)})
    from_file = {"required": ["file"], "properties": {"command": {"maxItems": 0}}}
    from_command = {"required": ["command"], "properties": {"file": False, "command": {"minItems": 1}}}
    return source | {"anyOf": [from_file, from_command]}


def _hook() -> Schema:
    known = "|".join(re.escape(word) for word in site.HOOK_PLACEHOLDERS)
    argument = _text(names.TEXT) | {"not": {"pattern": rf"(?!{known})\{{\w*\}}"}}
    command = _command(argument) | {"minItems": 1}
    default = site.Hook(()).timeout
    return _object({"command": command, "timeout": _number(1, 3600) | {"default": default}}, required=["command"])


def _proxy() -> Schema:
    check = _command(_text(names.TEXT)) | {"minItems": 1}
    return _object({"check": _or_null(check), "unit": _or_null(_text(names.UNIT))})


def _code() -> Schema:
    rules = {"infra_url": site_homes.GIT_URL, "branch": site_homes.BRANCH, "repo_base": site_homes.GIT_BASE}
    return _object({key: _or_null(_text(rule)) for key, rule in rules.items()})


def _playwright() -> Schema:
    return _object({"snapshot_url": _or_null(_text(site.SNAPSHOT_URL)), "token_file": _or_null(_text(names.PATH))})


def _home_step() -> Schema:
    kinds = {
        "directory": _directory(),
        "file": _file(),
        "git": _git(),
        "mcp": _object({"server": _text(site_homes.SERVER), "url": _text(site_homes.HTTP_URL)}, ["server", "url"]),
        "command": _home_command(),
    }
    limits = {
        "tiers": _list(_text(names.WORD)),
        "layouts": _list({"enum": list(home_steps.CodeLayout)}),
        "timeout": _number(1, site_homes.MOST_SECONDS),
    }
    return _object(kinds | limits) | {"oneOf": [{"required": [kind]} for kind in site_homes.KINDS]}


def _directory() -> Schema:
    return _object({"path": _text(site_homes.HOME_PATH), "mode": _text(site_homes.MODE)}, ["path"])


def _file() -> Schema:
    file = _object(
        {
            "path": _text(site_homes.HOME_PATH),
            "content": _text(site_homes.CONTENT),
            "source": _text(names.PATH),
            "mode": _text(site_homes.MODE),
            "keep": {"enum": list(home_steps.Keep), "default": home_steps.Keep.SEED},
            "comment": _text(site_homes.COMMENT),
        },
        required=["path"],
    )
    return file | {"oneOf": [{"required": ["content"]}, {"required": ["source"]}]}


def _git() -> Schema:
    return _object(
        {
            "path": _text(site_homes.HOME_PATH),
            "url": _text(site_homes.GIT_URL),
            "branch": _text(site_homes.BRANCH),
            "remotes": _or_null(_each(site_homes.SERVER, _text(site_homes.GIT_URL))),
            "filters": _list(_text(site_homes.SERVER)),
            "refresh": _number(0, site_homes.MOST_HOURS),
        },
        required=["path", "url"],
    )


def _home_command() -> Schema:
    arguments = _list(_text(names.TEXT), unique=False)
    command = _object(
        {
            "run": arguments | {"minItems": 1},
            "creates": _text(site_homes.HOME_PATH),
            "unless": arguments,
            "refresh": _number(0, site_homes.MOST_HOURS),
        },
        required=["run"],
    )
    by_path = {"required": ["creates"], "properties": {"unless": {"maxItems": 0}}}
    by_command = {"required": ["unless"], "properties": {"creates": False, "unless": {"minItems": 1}}}
    return command | {"anyOf": [by_path, by_command]}


def _command(argument: Schema | None = None) -> Schema:
    argument = argument or _text(names.TEXT)
    program = {"allOf": [argument, {"pattern": "^/"}]}
    return _list(argument, unique=False) | {"prefixItems": [program]}


def _text(rule: Rule) -> Schema:
    return {"type": "string", "pattern": f"^(?:{rule.pattern.pattern})$", "description": rule.words}


def _number(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _list(items: Schema, *, unique: bool = True) -> Schema:
    return {"type": "array", "items": items} | ({"uniqueItems": True} if unique else {})


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def _each(key: Rule, value: Schema) -> Schema:
    """Return the schema of a catalogue: entries of one kind under names of one kind."""
    return {"type": "object", "propertyNames": _text(key), "additionalProperties": value}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


if __name__ == "__main__":
    main()
