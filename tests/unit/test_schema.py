"""The JSON Schemas: current, and of one mind with the parser as far as a schema can tell."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from reconciler.core.roster import parse_roster
from reconciler.core.site import parse_site
from reconciler.errors import FileRefused
from tests.unit.facts import SITE

CHECKOUT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "cases"
Json = Any

# What no schema of the file alone can say: it depends on the site, on another entry, or on another file.
BEYOND = re.compile(
    "tier is '.*'; allowed:"
    "|namespaces is not allowed for the tier"
    "|namespaces is (missing|empty); the tier"
    "|services: unknown key"
    "|is that of '.*' already"
    "|would be an env file of"
    "|limit is .*; it must be a whole number from"
    "|route: true stands at more than one service"
    "|belongs to two services"
    "|keep their ports in one variable of one file"
    "|{.*} is none of {"
    "|home step '.*' is empty; only a standard step"
    "|home step '.*': tiers: '.*' is none of "
    "|legacy_units: '.*' is no service; there are "
)


def load_generator() -> ModuleType:
    spec = spec_from_file_location("make_schema", CHECKOUT / "packaging" / "make_schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pattern(_validator: object, pattern: str, text: object, _schema: object) -> Iterator[ValidationError]:
    """Match as JSON Schema's own dialect, ECMA 262, does: there $ is the end, and not before a last newline too."""
    if isinstance(text, str) and not re.search(pattern.replace("$", r"\Z"), text):
        yield ValidationError(f"{text!r} does not match {pattern!r}")


GENERATOR = load_generator()
SCHEMAS: dict[str, Any] = GENERATOR.schemas()
EcmaValidator = extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]
ROSTER_SCHEMA = EcmaValidator(SCHEMAS["roster.schema.json"])
SITE_SCHEMA = EcmaValidator(SCHEMAS["site.schema.json"])


class Plain(yaml.SafeDumper):
    """Writes no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        """Say that nothing is to be one."""
        del data
        return True


def problems(document: Json, kind: str) -> list[str]:
    """Return the first lines of what the parser says about a document."""
    data = yaml.dump(document, Dumper=Plain, allow_unicode=True).encode()
    try:
        if kind == "roster":
            parse_roster("file.yaml", data, SITE, ())
        else:
            parse_site("file.yaml", data)
    except FileRefused as refused:
        return [line for line in str(refused).splitlines() if line.startswith("file.yaml:")]
    return []


def check_agreement(document: Json, schema: Any, kind: str) -> None:  # noqa: ANN401 (jsonschema makes its classes)
    """See that the parser refuses what the schema does, and otherwise only what is beyond a schema."""
    found = problems(document, kind)
    if schema.is_valid(document):
        assert [line for line in found if not BEYOND.search(line)] == []
    else:
        assert found != []


# --- the files ---


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_schemas_in_the_package_are_current(name: str) -> None:
    shipped = (CHECKOUT / "reconciler" / "schema" / name).read_text(encoding="utf-8")
    assert shipped == GENERATOR.text_of(SCHEMAS[name]), "run packaging/make_schema.py"


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


def test_the_example_roster_follows_the_schema() -> None:
    ROSTER_SCHEMA.validate(yaml.safe_load((CHECKOUT / "roster.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("kind", "schema"),
    [pytest.param("roster", ROSTER_SCHEMA, id="roster"), pytest.param("site", SITE_SCHEMA, id="site")],
)
def test_schema_and_parser_agree_on_the_bad_files(kind: str, schema: Any) -> None:  # noqa: ANN401 (as above)
    compared = 0
    for case in sorted((CASES / kind).glob("*.yaml")):
        try:
            document = yaml.safe_load(case.read_bytes())
            yaml.safe_dump(document)
        except (yaml.YAMLError, ValueError, RecursionError):
            continue
        if isinstance(document, dict) and b"<<" not in case.read_bytes():
            check_agreement(document, schema, kind)
            compared += 1
    assert compared > 10


# --- random documents ---

WORDS = """
a A no 123 0x10 null 2024-01-01 22:30 a/b /bin/sh /a//b /a/../b /a/ ../x .git x.git infra -x $(id) é root admin staff
single workspace required exempt t3 x@.service x.service /etc/a/{user}.env playwright-bob ttyd-admins T3_PORT 9P
git@example.org:x https://example.org/x https://a:b@example.org/x ~/x {home}/x ../x 0644 0999 // directory file current
code web
remove_from_t3_group revoke_cluster_rbac /bin/{user} {authentik_user}{k8s_user} {k8s-user} {user}{name} /bin/{} {{user}}
"""
LENGTHS = ["a" * 31, "a" * 32, "a" * 101, "A" * 255, "A" * 256]
words = st.sampled_from([*WORDS.split(), "", "a b", "a\n", "\x7f", *LENGTHS])
numbers = st.sampled_from(
    [-1, 0, 1, 80, 100, 101, 300, 301, 1023, 1024, 3600, 3601, 65535, 65536, 100_000, 100_001, 1.5]
)
scalars = st.one_of(st.none(), st.booleans(), numbers, words)
values: st.SearchStrategy[Json] = st.one_of(
    scalars, st.lists(scalars, max_size=3), st.dictionaries(words, scalars, max_size=2), st.just({}), st.just([])
)

GOOD_ROSTER: Json = {
    "users": {
        "alice": {"authentik_user": "alice.a", "k8s_user": "alice", "tier": "admin"},
        "bob": {
            "authentik_user": "bob.b",
            "k8s_user": "bob",
            "tier": "namespace-owner",
            "namespaces": ["shop"],
            "code_layout": "workspace",
            "repos": ["api", "web"],
            "parked": True,
            "services": {"t3": False},
            "adopt": False,
        },
    }
}
GOOD_SITE: Json = {
    "shell": "/bin/sh",
    "tiers": {"staff": {"groups": ["wheel"], "admin": True, "cluster": "exempt", "namespaces": "required"}},
    "services": {
        "web": {
            "units": ["web@.service"],
            "port": {"variable": "P", "base": 8000, "limit": 8010, "env_file": "/etc/w/{user}"},
            "route": True,
            "enabled": False,
        }
    },
    "outputs": ["ttyd-admins"],
    "guards": {"max_cuts": 1, "max_cut_percent": 1},
    "k8s_users": {"command": ["/bin/k8s"], "timeout": 3},
    "create_groups": True,
    "subids": False,
    "settle": 1,
    "code": {"infra_url": "https://example.org/infra.git", "branch": None, "repo_base": "git@example.org:team"},
    "playwright": {"snapshot_url": "https://example.org/{user}", "token_file": "/x"},
    "hooks": {"revoke_cluster_rbac": {"command": ["/bin/revoke", "--user={k8s_user}"], "timeout": 3}},
    "homes": {
        "notes": {"directory": {"path": "~/notes", "mode": "0700"}, "tiers": ["staff"], "layouts": ["single"]},
        "rules": {
            "file": {"path": ".config/rules", "content": "You are {user}.\n", "keep": "current", "comment": "//"}
        },
        "token": {"file": {"path": "{home}/.token", "source": "/etc/token", "mode": "0600"}},
        "tools": {
            "git": {
                "path": "src/tools",
                "url": "ssh://git@example.org/tools.git",
                "branch": "main",
                "remotes": {"upstream": "https://example.org/tools.git"},
                "filters": ["git-crypt"],
                "refresh": 0,
            },
            "timeout": 600,
        },
        "server": {"mcp": {"server": "web", "url": "http://localhost:{port.web}/mcp"}},
        "linter": {"command": {"run": ["/bin/make"], "creates": ".local/bin/lint", "refresh": 1}},
        "again": {"command": {"run": ["make", "x"], "unless": ["test", "-e", "x"]}},
        "code": None,
    },
    "legacy_units": {"web": ["web.service"]},
    "metrics": "/x.prom",
}


def places(document: Json) -> list[list[str | int]]:
    """Return the paths of everything in a document."""
    found: list[list[str | int]] = [[]]
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inner:
        found += [[key, *path] for path in places(value)]
    return found


@st.composite
def changed(draw: st.DrawFn, good: Json) -> Json:
    """Draw a good document with one or two things put in, put in another's place, renamed or taken out."""
    document = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 2))):
        paths = [path for path in places(document) if path]
        if not paths:
            break
        *path, last = draw(st.sampled_from(paths))
        parent = document
        for key in path:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "remove", "rename", "add"])):
            case "remove":
                del parent[last]
            case "rename" if isinstance(parent, dict):
                parent[draw(words)] = parent.pop(last)
            case "add" if isinstance(parent, list):
                parent.append(draw(scalars))
            case "add":
                parent[draw(words)] = draw(values)
            case _:
                parent[last] = draw(values)
    return document


@given(changed(GOOD_ROSTER))
@example(GOOD_ROSTER)
def test_schema_and_parser_agree_on_rosters(document: Json) -> None:
    check_agreement(document, ROSTER_SCHEMA, "roster")


@given(changed(GOOD_SITE))
@example(GOOD_SITE)
@example({"hooks": {"revoke_cluster_rbac": {"command": ["/bin/revoke", "{k8s-user}"]}}})
def test_schema_and_parser_agree_on_site_files(document: Json) -> None:
    check_agreement(document, SITE_SCHEMA, "site")


@pytest.mark.parametrize(("document", "kind"), [(GOOD_ROSTER, "roster"), (GOOD_SITE, "site")])
def test_the_good_documents_are_good(document: Json, kind: str) -> None:
    schema = ROSTER_SCHEMA if kind == "roster" else SITE_SCHEMA
    schema.validate(document)
    assert problems(document, kind) == []
