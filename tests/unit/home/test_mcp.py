"""An MCP server in the agent's configuration, added by a stand-in for the agent that edits the file as it does."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from pathlib import Path

import pytest

from reconciler.core.home_steps import Ending, McpStep
from reconciler.errors import StepFailed
from reconciler.home.mcp import take_mcp
from reconciler.home.place import Home, InTheWay
from reconciler.host.looks import still

pytestmark = pytest.mark.processes

STEP = McpStep("playwright", "http://localhost:8931/mcp")
AGENT = f"""#!{sys.executable}
import json, os, pathlib, sys
home = pathlib.Path(os.environ["HOME"])
with (home / "asked").open("a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
path = home / ".claude.json"
document = json.loads(path.read_text()) if path.exists() else {{}}
document.setdefault("mcpServers", {{}})[sys.argv[-2]] = {{"type": "http", "url": sys.argv[-1]}}
path.write_text(json.dumps(document))
"""
ASKED = "mcp add --scope user --transport http playwright http://localhost:8931/mcp\n"


def install(home: Home, text: str = AGENT) -> None:
    path = home.path / ".local/bin/claude"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def agent(home: Home) -> Home:
    """Return a home with an agent."""
    install(home)
    return home


def asked(home: Home) -> str:
    log = home.path / "asked"
    return log.read_text() if log.exists() else ""


def configuration(home: Home) -> Path:
    return home.path / ".claude.json"


def test_a_server_is_added_once_by_the_agent(agent: Home) -> None:
    first, second = take_mcp(STEP, agent), take_mcp(STEP, agent)
    assert [(ended.ending, ended.detail) for ended in (first, second)] == [
        (Ending.DONE, "added"),
        (Ending.DONE, "already there"),
    ]
    assert asked(agent) == ASKED
    assert json.loads(configuration(agent).read_text()) == {
        "mcpServers": {"playwright": {"type": "http", "url": STEP.url}}
    }
    for ended in (first, second):
        assert [watch.path for watch in ended.watches] == [str(configuration(agent))]
        assert still(ended.watches[0])


def test_every_other_key_is_kept(agent: Home) -> None:
    before = {"numStartups": 7, "mcpServers": {"own": {"url": "x"}}, "projects": {"/a": {"é": [1, None]}}}
    configuration(agent).write_text(json.dumps(before))
    take_mcp(STEP, agent)
    after = json.loads(configuration(agent).read_text())
    assert after["mcpServers"].pop("playwright") == {"type": "http", "url": STEP.url}
    assert after == before


@pytest.mark.parametrize(
    "entry", [{"type": "http", "url": "http://localhost:9999/mcp"}, {"command": "npx"}, "x", 1, []]
)
def test_an_entry_of_their_own_is_left_alone(agent: Home, entry: object) -> None:
    configuration(agent).write_text(json.dumps({"mcpServers": {"playwright": entry}}))
    before = configuration(agent).read_bytes()
    ended = take_mcp(STEP, agent)
    assert (ended.ending, ended.detail) == (Ending.KEPT, "playwright is an entry of their own; left alone")
    assert configuration(agent).read_bytes() == before
    assert asked(agent) == ""
    assert all(map(still, ended.watches))
    assert ended.watches


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"mcpServers": {"own"', "is cut off or no JSON"),
        (b"", "is cut off or no JSON"),
        (b"\xff\xfe\x00", "is cut off or no JSON"),
        (b"[" * 100_000, "is cut off or no JSON"),
        (b"[1, 2]", "is no configuration of the agent's"),
        (b"null", "is no configuration of the agent's"),
        (b'{"mcpServers": ["playwright"]}', "is no configuration of the agent's"),
        (b'{"mcpServers": null}', "is no configuration of the agent's"),
    ],
    ids=["truncated", "empty", "binary", "deep", "a list", "null", "a list of servers", "null for servers"],
)
def test_a_file_that_the_agent_could_not_read_is_left_alone(agent: Home, data: bytes, why: str) -> None:
    configuration(agent).write_bytes(data)
    started = time.monotonic()
    with pytest.raises(InTheWay, match=f"^~/.claude.json {why}; left alone$"):
        take_mcp(STEP, agent)
    assert time.monotonic() - started < 3
    assert configuration(agent).read_bytes() == data
    assert asked(agent) == ""


def test_a_fifo_is_left_alone_and_holds_nothing_up(agent: Home) -> None:
    os.mkfifo(configuration(agent))
    started = time.monotonic()
    with pytest.raises(InTheWay, match=r"^~/\.claude\.json is no regular file; left alone$"):
        take_mcp(STEP, agent)
    assert time.monotonic() - started < 3
    assert stat.S_ISFIFO(configuration(agent).lstat().st_mode)
    assert asked(agent) == ""


def test_a_link_is_left_alone_with_what_it_leads_to(agent: Home, tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    target.write_text('{"own": 1}')
    configuration(agent).symlink_to(target)
    with pytest.raises(InTheWay, match=r"^~/\.claude\.json is a link; left alone$"):
        take_mcp(STEP, agent)
    assert target.read_text() == '{"own": 1}'
    assert asked(agent) == ""


def test_a_folder_is_left_alone(agent: Home) -> None:
    configuration(agent).mkdir()
    with pytest.raises(InTheWay, match=r"^~/\.claude\.json is no regular file; left alone$"):
        take_mcp(STEP, agent)
    assert asked(agent) == ""


def test_a_file_that_is_being_written_is_read_a_moment_later(agent: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration(agent).write_text('{"numSt')
    sleep = time.sleep

    def wait(seconds: float) -> None:
        sleep(seconds)
        if configuration(agent).read_text() == '{"numSt':
            configuration(agent).write_text('{"numStartups": 8}')

    monkeypatch.setattr(time, "sleep", wait)
    assert take_mcp(STEP, agent).detail == "added"
    assert json.loads(configuration(agent).read_text())["numStartups"] == 8


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("#!/bin/sh\necho broken >&2\nexit 3\n", "exited 3.*broken"),
        ("#!/bin/sh\nexit 0\n", r"^the agent exited 0, but ~/\.claude\.json has no server playwright$"),
    ],
)
def test_an_agent_that_does_not_take_it_is_told(home: Home, script: str, why: str) -> None:
    install(home, script)
    with pytest.raises(StepFailed, match=why):
        take_mcp(STEP, home)


def test_an_agent_that_hangs_ends_with_the_time_of_the_step(home: Home) -> None:
    install(home, "#!/bin/sh\nsleep 60\n")
    started = time.monotonic()
    home.deadline = started + 0.5
    with pytest.raises(StepFailed):
        take_mcp(STEP, home)
    assert time.monotonic() - started < 5
