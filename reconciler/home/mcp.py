"""An MCP server in the configuration of the person's agent.

The agent's own command writes it, and only where the file is one that it can read: before anything else it is seen that
`~/.claude.json` is absent, or a regular file with a JSON object in it. The agent writes to that file all day.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler.core.home_steps import AGENT_PLACES, Ending, McpStep
from reconciler.errors import StepFailed
from reconciler.home.place import Ended, Home, InTheWay
from reconciler.host.files import NOT_A_FILE, read_bytes
from reconciler.host.looks import same

CONFIGURATION = ".claude.json"
_LIMIT = 64 * 1024 * 1024
# While it is being written the file can be cut off in the middle.
_TRIES, _PAUSE = 4, 0.3
_QUIET = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}


def take_mcp(step: McpStep, home: Home) -> Ended:
    """Add a user-scope server to the agent's configuration if it has none of that name.

    Raises `InTheWay` where the file is not one that the agent could read, `StepFailed` where it did not take it.
    """
    path = home.inside(CONFIGURATION)
    seen = same(path)
    entry = _servers(path, home).get(step.server)
    if entry is not None:
        url = entry.get("url") if isinstance(entry, dict) else None
        if url == step.url:
            return Ended(Ending.DONE, "already there", (seen,))
        return Ended(Ending.KEPT, f"{step.server} is an entry of their own; left alone", (seen,))
    home.run(
        (str(_agent(home)), "mcp", "add", "--scope", "user", "--transport", "http", step.server, step.url),
        environment=_QUIET,
    ).or_fail()
    after = same(path)
    if step.server not in _servers(path, home):
        raise StepFailed(f"the agent exited 0, but {home.shown(path)} has no server {step.server}")
    return Ended(Ending.DONE, "added", (after,))


def _agent(home: Home) -> Path:
    for place in AGENT_PLACES:
        if os.access(home.inside(place), os.X_OK):
            return home.inside(place)
    raise InTheWay("the agent's command is there, but cannot be run")


def _servers(path: Path, home: Home) -> Mapping[str, Any]:
    """Return the user-scope servers by name."""
    document = _document(path, home)
    servers = document.get("mcpServers", {}) if isinstance(document, dict) else None
    if not isinstance(servers, dict):
        raise InTheWay(f"{home.shown(path)} is no configuration of the agent's; left alone")
    return servers


def _document(path: Path, home: Home) -> object:
    for _ in range(_TRIES):
        try:
            return json.loads(_read(path, home))
        except (ValueError, RecursionError):  # broken, not UTF-8, or nested without end
            time.sleep(_PAUSE)
    raise InTheWay(f"{home.shown(path)} is cut off or no JSON; left alone")


def _read(path: Path, home: Home) -> bytes:
    """Return the file's bytes; neither waits on a FIFO nor follows a link."""
    try:
        data = read_bytes(path, _LIMIT)
    except OSError as error:
        why = "is no regular file" if error.errno == NOT_A_FILE else f"cannot be read ({error.strerror})"
        if path.is_symlink():
            why = "is a link"
        raise InTheWay(f"{home.shown(path)} {why}; left alone") from error
    return b"{}" if data is None else data
