"""The steps of a site: what is read, and what is refused in which words and where."""

from __future__ import annotations

import pytest

from reconciler.core.home_steps import (
    CodeLayout,
    CommandStep,
    DirectoryStep,
    FileStep,
    GitStep,
    HomeStep,
    Keep,
    McpStep,
)
from reconciler.core.site import parse_site
from reconciler.core.site_homes import SiteStep
from reconciler.errors import FileRefused

FULL = b"""\
homes:
  notes: {directory: {path: ~/notes/mine, mode: "0700"}, tiers: [admin, power-user], layouts: [workspace], timeout: 5}
  rules:
    file: {path: "{home}/.rules", content: "{{user}} is {user}", mode: "0600", keep: current, comment: //}
  key: {file: {path: .key, source: "/etc/keys/{user}"}}
  tools:
    git:
      path: src/tools
      url: ssh://git@example.org/tools.git
      branch: main
      remotes: {z: https://example.org/z.git, a: "git@example.org:a.git"}
      filters: [git-crypt, lfs]
      refresh: 0
  web: {mcp: {server: web, url: "http://localhost:{port.t3}/mcp"}}
  lint: {command: {run: [make, "{tier}"], creates: ~/bin/lint}}
  again: {command: {run: [make], unless: [test, -e, "x y"], refresh: 8760}, timeout: 600}
  playwright-mcp: null
  code: null
"""


def test_every_field_of_every_kind_is_read() -> None:
    assert parse_site("site.yaml", FULL).homes == {
        "notes": SiteStep(
            HomeStep("notes", DirectoryStep("notes/mine", "0700"), 5), ("admin", "power-user"), (CodeLayout.WORKSPACE,)
        ),
        "rules": SiteStep(
            HomeStep("rules", FileStep(".rules", "{{user}} is {user}", None, "0600", Keep.CURRENT, "//"), 30)
        ),
        "key": SiteStep(HomeStep("key", FileStep(".key", None, "/etc/keys/{user}", "0644", Keep.SEED, "#"), 30)),
        "tools": SiteStep(
            HomeStep(
                "tools",
                GitStep(
                    "src/tools",
                    "ssh://git@example.org/tools.git",
                    "main",
                    (("a", "git@example.org:a.git"), ("z", "https://example.org/z.git")),
                    ("git-crypt", "lfs"),
                    0,
                ),
                300,
            )
        ),
        "web": SiteStep(HomeStep("web", McpStep("web", "http://localhost:{port.t3}/mcp"), 60)),
        "lint": SiteStep(HomeStep("lint", CommandStep(("make", "{tier}"), "bin/lint", (), 24), 300)),
        "again": SiteStep(HomeStep("again", CommandStep(("make",), None, ("test", "-e", "x y"), 8760), 600)),
        "playwright-mcp": None,
        "code": None,
    }


def refused(text: str) -> list[str]:
    """Return what is told of a file with these steps, a line each."""
    with pytest.raises(FileRefused) as caught:
        parse_site("site.yaml", f"homes:\n{text}\n".encode())
    return [line.removeprefix("site.yaml:") for line in str(caught.value).splitlines() if line.startswith("site.yaml:")]


KINDS = "directory, file, git, mcp, command"
PLACE = "it must be a path in the home, as in .config/app"
ADDRESS = "it must be the address of a git repository without a password, as in https://git.example.org/team/infra.git"
ALWAYS = "name either creates, a path, or unless, a command: else it would be run every time"
SOURCE = "name either its content or a source, a file that only root can write"
MODE = 'it must be four octal digits in quotes, as in "0644"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # What a step is.
        ("  Notes: null", "2:3: home step 'Notes': the name must be a word of a-z, 0-9, _ and -, the first a letter"),
        ("  x: directory", f"2:6: home step 'x' is 'directory'; it must be a mapping with one of {KINDS}"),
        ("  x: [a]", f"2:6: home step 'x' is a list; it must be a mapping with one of {KINDS}"),
        ("  x: {}", f"2:6: home step 'x': it must have exactly one of {KINDS}"),
        (
            "  x: {directory: {path: a}, mcp: {server: a, url: http://a/}}",
            f"2:6: home step 'x': it must have exactly one of {KINDS}, not 2",
        ),
        ("  x: {directory: null}", "2:18: home step 'x': directory is empty; it must be a mapping, as in {key: value}"),
        ("  x: {mcp: web}", "2:12: home step 'x': mcp is 'web'; it must be a mapping, as in {key: value}"),
        (
            "  code: {directory: {path: code}}",
            "2:3: home step 'code' is set up by 'code:'; it can be left out, as in 'code: null'",
        ),
        (
            "  x: {directory: {path: a}, tier: [a]}",
            (
                "2:29: home step 'x': unknown key 'tier'; did you mean 'tiers'?"
                " (allowed: command, directory, file, git, layouts, mcp, tiers, timeout)"
            ),
        ),
        (
            "  x: {directory: {path: a, pat: b}}",
            "2:28: home step 'x': directory: unknown key 'pat'; did you mean 'path'? (allowed: mode, path)",
        ),
        # For whom, and for how long.
        (
            "  x: {directory: {path: a}, tiers: [staff]}",
            "2:37: home step 'x': tiers: 'staff' is none of admin, power-user, namespace-owner",
        ),
        (
            "  x: {directory: {path: a}, layouts: [double]}",
            "2:39: home step 'x': an entry of layouts is 'double'; it must be one of single, workspace",
        ),
        (
            "  x: {directory: {path: a}, timeout: 601}",
            "2:38: home step 'x': timeout is 601 (a number); it must be a whole number from 1 to 600",
        ),
        # Paths.
        ("  x: {directory: {}}", "2:18: home step 'x': directory: path is missing; " + PLACE),
        ("  x: {directory: {path: /etc/x}}", "2:25: home step 'x': directory: path is '/etc/x'; " + PLACE),
        ("  x: {directory: {path: ../x}}", "2:25: home step 'x': directory: path is '../x'; " + PLACE),
        ("  x: {directory: {path: a/../x}}", "2:25: home step 'x': directory: path is 'a/../x'; " + PLACE),
        ("  x: {directory: {path: a/..}}", "2:25: home step 'x': directory: path is 'a/..'; " + PLACE),
        ("  x: {directory: {path: ~/../x}}", "2:25: home step 'x': directory: path is '~/../x'; " + PLACE),
        ("  x: {directory: {path: ~//x}}", "2:25: home step 'x': directory: path is '~//x'; " + PLACE),
        ("  x: {directory: {path: a/}}", "2:25: home step 'x': directory: path is 'a/'; " + PLACE),
        ('  x: {directory: {path: "{home}"}}', "2:25: home step 'x': directory: path is '{home}'; " + PLACE),
        ('  x: {directory: {path: "{home}x"}}', "2:25: home step 'x': directory: path is '{home}x'; " + PLACE),
        ('  x: {directory: {path: "~/{home}/x"}}', "2:25: home step 'x': directory: path is '~/{home}/x'; " + PLACE),
        ('  x: {directory: {path: "a\\nb"}}', "2:25: home step 'x': directory: path is 'a\\x0ab'; " + PLACE),
        # Modes.
        (
            "  x: {directory: {path: a, mode: 0700}}",
            f"2:34: home step 'x': directory: mode is 0700 (a number); {MODE}; put it in quotes if it is meant as text",
        ),
        ('  x: {directory: {path: a, mode: "4755"}}', f"2:34: home step 'x': directory: mode is '4755'; {MODE}"),
        ('  x: {directory: {path: a, mode: "0788"}}', f"2:34: home step 'x': directory: mode is '0788'; {MODE}"),
        # Files.
        ("  x: {file: {path: a}}", f"2:13: home step 'x': file: {SOURCE}"),
        ("  x: {file: {path: a, content: a, source: /b}}", f"2:13: home step 'x': file: {SOURCE}"),
        (
            "  x: {file: {path: a, content: b, keep: always}}",
            "2:41: home step 'x': file: keep is 'always'; allowed: seed, current",
        ),
        (
            "  x: {file: {path: a, content: b, comment: rem}}",
            "2:44: home step 'x': file: comment is 'rem'; it must be what begins a comment, as in # or //",
        ),
        # Git.
        (
            "  x: {git: {path: a, url: https://bob:secret@example.org/x.git}}",
            f"2:27: home step 'x': git: url is 'https://…@example.org/x.git'; {ADDRESS}",
        ),
        (
            "  x: {git: {path: a, url: https://token@example.org/x.git}}",
            f"2:27: home step 'x': git: url is 'https://…@example.org/x.git'; {ADDRESS}",
        ),
        (
            "  x: {git: {path: a, url: ssh://git:secret@example.org/x.git}}",
            f"2:27: home step 'x': git: url is 'ssh://…@example.org/x.git'; {ADDRESS}",
        ),
        ("  x: {git: {path: a, url: 'ext::sh -c x'}}", f"2:27: home step 'x': git: url is 'ext::sh -c x'; {ADDRESS}"),
        (
            "  x: {git: {path: a, url: --upload-pack=x}}",
            f"2:27: home step 'x': git: url is '--upload-pack=x'; {ADDRESS}",
        ),
        (
            "  x: {git: {path: a, url: https://e/x, branch: -x}}",
            "2:48: home step 'x': git: branch is '-x'; it must be the name of a branch",
        ),
        (
            "  x: {git: {path: a, url: https://e/x, remotes: {a: https://u:p@e/x}}}",
            f"2:53: home step 'x': git: remote 'a' is 'https://…@e/x'; {ADDRESS}",
        ),
        (
            "  x: {git: {path: a, url: https://e/x, remotes: {a.b: https://e/x}}}",
            "2:50: home step 'x': git: remote 'a.b' must be a name of letters, digits, _ and -",
        ),
        # MCP.
        ("  x: {mcp: {server: a}}", "2:12: home step 'x': mcp: url is missing; it must be an http or https address"),
        (
            "  x: {mcp: {server: -a b, url: http://a/}}",
            "2:21: home step 'x': mcp: server is '-a b'; it must be a name of letters, digits, _ and -",
        ),
        (
            "  x: {mcp: {server: a, url: http://u:p@a/}}",
            "2:29: home step 'x': mcp: url is 'http://…@a/'; it must be an http or https address",
        ),
        # Commands.
        (
            "  x: {command: {creates: a}}",
            "2:16: home step 'x': command: run is missing; it is a list, as in [/usr/bin/make, '{home}/app']",
        ),
        (
            "  x: {command: {run: make, creates: a}}",
            "2:22: home step 'x': command: run is 'make'; it must be a list, as in [make]",
        ),
        ("  x: {command: {run: [a]}}", f"2:16: home step 'x': command: {ALWAYS}"),
        ("  x: {command: {run: [a], creates: a, unless: [b]}}", f"2:16: home step 'x': command: {ALWAYS}"),
        ("  x: {command: {run: [a], creates: /a}}", f"2:36: home step 'x': command: creates is '/a'; {PLACE}"),
    ],
)
def test_a_step_is_refused_in_these_words(text: str, expected: str) -> None:
    assert expected in refused(text)


KNOWN = "{home}, {port.playwright}, {port.t3}, {tier}, {user}; for the text itself, double the braces"


def test_an_unknown_placeholder_is_named_with_its_own_line() -> None:
    text = """\
  notes:
    command:
      run:
        - make
        - "{user} {port.web} {User} {{nobody}}"
      unless: [a, "{who}"]
"""
    assert refused(text) == [
        f"6:11: home step 'notes': {{port.web}} is none of {KNOWN}",
        f"7:19: home step 'notes': {{who}} is none of {KNOWN}",
    ]


def test_a_line_of_a_block_of_text_is_read_too() -> None:
    assert refused("  x:\n    file:\n      path: a\n      content: |\n        one\n        {who}") == [
        f"5:16: home step 'x': {{who}} is none of {KNOWN}"
    ]


def test_the_port_of_a_service_without_one_is_unknown() -> None:
    text = b"""\
services: {timer: {units: [a@.timer]}}
homes: {x: {directory: {path: "{port.timer}"}}}
"""
    with pytest.raises(FileRefused, match=r"site\.yaml:2:31: home step 'x': \{port\.timer\} is none of \{home\}"):
        parse_site("site.yaml", text)


def test_a_tier_of_the_site_is_known() -> None:
    text = b"tiers: {staff: {}}\nhomes: {x: {directory: {path: a}, tiers: [staff]}}\n"
    found = parse_site("site.yaml", text).homes["x"]
    assert found is not None
    assert found.tiers == ("staff",)


@pytest.mark.parametrize("text", [b"homes: null\n", b"homes: {}\n", b"shell: /bin/sh\n"])
def test_a_site_can_have_no_steps(text: bytes) -> None:
    assert parse_site("site.yaml", text).homes == {}


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.org/team/infra.git",
        "http://localhost:8080/x",
        "ssh://git@example.org:22/x",
        "git@example.org:team/x.git",
        "file:///srv/git/x.git",
        "https://example.org/{user}/x",
    ],
)
def test_an_address_of_git_can_be_any_of_these(url: str) -> None:
    text = f"homes: {{x: {{git: {{path: a, url: '{url}'}}}}}}\n"
    found = parse_site("site.yaml", text.encode()).homes["x"]
    assert found is not None
    assert isinstance(found.step.body, GitStep)
    assert found.step.body.url == url


@pytest.mark.parametrize(
    "text",
    [
        "code: {infra_url: 'https://oauth2:%s@git.example.org/infra.git'}",
        "code: {repo_base: 'https://%s@git.example.org/team'}",
        "code: {branch: main, infra_url: 'ssh://git:%s@git.example.org/infra.git', nonsense: 1}",
        "homes: {x: {git: {path: x, url: 'https://a:%s@h/x.git'}}}",
        "homes: {x: {git: {path: x, url: 'https://h/x.git', remotes: {'https://a:%s@h/': y}}}}",
        "homes: {x: {mcp: {server: x, url: 'http://a:%s@h/'}}}",
        "playwright: {snapshot_url: 'https://a:%s@h/'}",
        "'https://a:%s@h/': 1",
        "code: {infra_url: 'https://a:%s@h/x.git', ]",
        "{padding}\ncode: {{infra_url: 'https://a:%s@h/x.git', nonsense: 1}} # {padding}".format(padding="#" * 200),
    ],
)
@pytest.mark.parametrize("password", ["s3cret-of-4lice", "s3cret-of-4lice" * 10, "s3cret-of-4lice@x"])
def test_a_refusal_shows_no_password_of_an_address(text: str, password: str) -> None:
    with pytest.raises(FileRefused) as caught:
        parse_site("site.yaml", (text % password).encode())
    assert "s3cret" not in str(caught.value)
    assert "4lice" not in str(caught.value)


def test_a_caret_stays_under_its_place_where_a_password_is_covered() -> None:
    with pytest.raises(FileRefused) as caught:
        parse_site("site.yaml", b"code: {infra_url: 'https://a:secret@h/x', nonsense: 1}")
    assert str(caught.value).splitlines() == [
        "site.yaml:1:19: code: infra_url is 'https://…@h/x'; " + ADDRESS,
        "    1 | code: {infra_url: 'https://********@h/x', nonsense: 1}",
        "      |                   ^",
        "site.yaml:1:43: code: unknown key 'nonsense' (allowed: branch, infra_url, repo_base)",
        "    1 | code: {infra_url: 'https://********@h/x', nonsense: 1}",
        "      |                                           ^",
    ]
