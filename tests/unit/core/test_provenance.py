"""On which line of its file a value stands. The oracle is the text: each line holds what is said to be on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core.provenance import Sources, places
from reconciler.errors import FileRefused

CHECKOUT = Path(__file__).parents[3]

ROSTER = """\
# people
users:
  alice:
    authentik_user: alice.a
    k8s_user: alice
    tier:
      admin

  "bob": {authentik_user: bob.b,
          k8s_user: bob, tier: namespace-owner,
          namespaces: [shop,
                       'shop-staging'],
          services: {t3: true,
                     playwright: false}}
  ? carol
  : {authentik_user: carol.c, k8s_user: carol, tier: power-user, code_layout: workspace,
     repos: [
       api,
       web, api]}
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("users",), "users:"),
        (("users", "alice"), "  alice:"),
        (("users", "alice", "authentik_user"), "    authentik_user: alice.a"),
        (("users", "alice", "tier"), "    tier:"),
        (("users", "bob"), '  "bob": {authentik_user: bob.b,'),
        (("users", "bob", "authentik_user"), '  "bob": {authentik_user: bob.b,'),
        (("users", "bob", "tier"), "          k8s_user: bob, tier: namespace-owner,"),
        (("users", "bob", "namespaces"), "          namespaces: [shop,"),
        (("users", "bob", "namespaces", "shop"), "          namespaces: [shop,"),
        (("users", "bob", "namespaces", "shop-staging"), "                       'shop-staging'],"),
        (("users", "bob", "services", "t3"), "          services: {t3: true,"),
        (("users", "bob", "services", "playwright"), "                     playwright: false}}"),
        (("users", "carol"), "  ? carol"),
        (("users", "carol", "repos", "api"), "       api,"),
        (("users", "carol", "repos", "web"), "       web, api]}"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_value_is_on_the_line_of_its_key(path: tuple[str, ...], line: str, end: str) -> None:
    found = places("roster.yaml", ROSTER.replace("\n", end).encode())
    assert ROSTER.splitlines()[found[path] - 1] == line


@pytest.mark.parametrize("file", ["roster.yaml", "packaging/site.yaml"])
def test_every_place_in_a_file_that_ships_holds_its_word(file: str) -> None:
    text = (CHECKOUT / file).read_text(encoding="utf-8")
    lines = text.splitlines()
    found = places(file, text.encode())
    assert all(path[-1] in lines[line - 1] for path, line in found.items())
    keys = [line.split("#")[0].strip().split(":")[0] for line in lines if ":" in line.split("#")[0]]
    assert {path[-1] for path in found} >= {key for key in keys if key.isidentifier()}


@pytest.mark.parametrize("text", ["", "# nobody\n", "word\n"])
def test_a_file_without_keys_has_no_places(text: str) -> None:
    assert places("site.yaml", text.encode()) == {}


def test_a_byte_order_mark_moves_nothing() -> None:
    assert places("site.yaml", b"\xef\xbb\xbfsettle: 3\n") == {("settle",): 1}


def test_what_is_no_yaml_is_refused_as_everywhere() -> None:
    with pytest.raises(FileRefused, match=r"site\.yaml:1:"):
        places("site.yaml", b"{")


def test_sources_are_called_by_the_name_of_their_file() -> None:
    site = b"tiers:\n  admin: {groups: [docker,\n    sudo]}\n"
    sources = Sources.read(("/srv/a/people.yaml", ROSTER.encode()), ("/etc/rosterd/site.yaml", site))
    assert sources.of_user("alice") == "people.yaml:3"
    assert sources.of_user("bob", "services", "playwright") == "people.yaml:14"
    assert sources.of_user("bob", "parked") == "default"
    assert sources.of_site("tiers", "admin", "groups", "sudo") == "site.yaml:3"
    assert sources.of_site("shell") == "default"


def test_without_a_site_file_all_of_it_is_default() -> None:
    sources = Sources.read(("roster.yaml", b"users: {}\n"), ("/etc/rosterd/site.yaml", None))
    assert sources.of_site("shell") == "default"
