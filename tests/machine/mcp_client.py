"""A client of MCP over streamable HTTP, which runs in a machine with nothing but the standard library.

    python3 /src/tests/machine/mcp_client.py [--until FILE] TALKS

TALKS is JSON: {SESSION: {"port": PORT, "calls": [[TOOL, ARGUMENTS], ...]}, ...}. All sessions are open at once, and
the calls are made in step: the first of every session at the same time, then the second of each. With --until the
sessions stay open until there is a file FILE. Printed is, as JSON, {SESSION: {"tools": [NAME, ...], "texts": [TEXT,
...]}}: the server's tools, and a text for each call.
"""

import argparse
import http.client
import itertools
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

PROTOCOL = "2025-03-26"
TIMEOUT = 60.0

Message = dict[str, Any]


class McpError(Exception):
    """The server refuses a request, or a tool fails."""


class Session:
    """One session with the server at a port of the loopback; a context manager."""

    def __init__(self, port: int) -> None:
        """Prepare a session that is not open yet."""
        self.port = port
        self._id: str | None = None
        self._numbers = itertools.count(1)
        self._stream: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        """Open it, and listen to what the server asks."""
        client = {"name": "rosterd-tests", "version": "1"}
        self.request("initialize", {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client})
        self._post({"method": "notifications/initialized"})
        self._stream = self._connect()
        self._stream.request("GET", "/mcp", headers=self._headers())
        threading.Thread(target=self._listen, args=(self._stream.getresponse(),), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Tell the server that it is over."""
        connection = self._connect()
        connection.request("DELETE", "/mcp", headers=self._headers())
        connection.getresponse().read()

    def request(self, method: str, parameters: Message) -> Message:
        """Return the result of a request. Raises McpError if the server answers with an error."""
        number = next(self._numbers)
        answers = self._post({"id": number, "method": method, "params": parameters})
        answer = next(answer for answer in answers if answer.get("id") == number)
        if "error" in answer:
            raise McpError(f"{method}: {answer['error']}")
        result: Message = answer["result"]
        return result

    def tools(self) -> list[str]:
        """Return the names of the server's tools."""
        return [tool["name"] for tool in self.request("tools/list", {})["tools"]]

    def call(self, tool: str, arguments: Message) -> str:
        """Return the text that a tool gives. Raises McpError if it fails."""
        result = self.request("tools/call", {"name": tool, "arguments": arguments})
        text = "\n".join(part["text"] for part in result["content"] if part["type"] == "text")
        if result.get("isError"):
            raise McpError(f"{tool}: {text}")
        return text

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("localhost", self.port, timeout=TIMEOUT)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        return {**headers, "Mcp-Session-Id": self._id} if self._id else headers

    def _post(self, message: Message) -> list[Message]:
        """Send one message and return what the server answers to it, which may be nothing."""
        connection = self._connect()
        connection.request("POST", "/mcp", json.dumps({"jsonrpc": "2.0", **message}), self._headers())
        with connection.getresponse() as response:
            if response.status >= http.client.BAD_REQUEST:
                raise McpError(f"HTTP {response.status}: {response.read()!r}")
            self._id = response.headers.get("Mcp-Session-Id", self._id)
            if response.headers.get_content_type() == "text/event-stream":
                return list(_events(response))
            body = response.read()
            return [json.loads(body)] if body else []

    def _listen(self, response: http.client.HTTPResponse) -> None:
        """Answer the server's pings, without which it takes the client for gone."""
        for message in _events(response):
            if message.get("method") == "ping":
                self._post({"id": message["id"], "result": {}})


def _events(response: http.client.HTTPResponse) -> "itertools.chain[Message]":
    """Return the messages of an event stream as they come; each is one `data:` line here."""
    lines = (line.decode().rstrip("\r\n") for line in response)
    found = (json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:") and len(line) > 6)
    return itertools.chain(found)


def talk(name: str, plan: Message, step: threading.Barrier, until: Path | None) -> tuple[str, Message]:
    """Hold one session; return its name and what came of it."""
    try:
        with Session(plan["port"]) as session:
            tools, texts = session.tools(), []
            for tool, arguments in plan["calls"]:
                step.wait(TIMEOUT)
                texts.append(session.call(tool, arguments))
            while until is not None and not until.exists():
                time.sleep(0.05)
    except Exception:
        step.abort()  # nobody else waits for this one
        raise
    return name, {"tools": tools, "texts": texts}


def main() -> None:
    """Hold all talks at once and print what came of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--until", type=Path)
    parser.add_argument("talks", type=json.loads)
    options = parser.parse_args()
    step = threading.Barrier(len(options.talks))
    with ThreadPoolExecutor(len(options.talks)) as pool:
        talks = [pool.submit(talk, name, plan, step, options.until) for name, plan in options.talks.items()]
    failures = [failure for done in talks if (failure := done.exception())]
    # One that fails lets down the others.
    failures.sort(key=lambda failure: isinstance(failure, threading.BrokenBarrierError))
    if failures:
        raise failures[0]
    json.dump(dict(done.result() for done in talks), sys.stdout)


if __name__ == "__main__":
    main()
