"""Looks at a page with Debian's Chromium; runs in a machine with nothing but the standard library.

    python3 /src/tests/machine/chromium.py URL VIEWS

VIEWS is a JSON list of {"width": PIXELS, "height": PIXELS, "media": "screen" or "print", "scheme": "light" or "dark",
"evaluate": EXPRESSION}; for each, the page is opened anew. Printed is a JSON list with an object a view:

    {"value": what the expression gives, "picture": a PNG in base64, "requests": [URL, ...], "loaded": [URL, ...],
     "refused": [TEXT, ...]}

`requests` is all that the page asked for, itself included; `loaded`, what of that was answered; `refused`, what its own
policy kept from it. The picture shows what a screen of that size does.

Run it as somebody who is not root, so that Chromium keeps its sandbox. It is spoken to over two pipes, its file
descriptors 3 and 4, in JSON messages that end in a zero byte.
"""

import json
import os
import sys
import tempfile
from typing import Any, Self

COMMAND = (
    "chromium",
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-lcd-text",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--no-first-run",
)
# Narrower than that is a phone, which heeds the page's own word on its width.
PHONE = 600
# What a page does a little after it is loaded has begun by then: an image, what its failure calls.
QUIET = "new Promise(done => setTimeout(done, 300))"

Message = dict[str, Any]


class ChromiumError(Exception):
    """The browser has ended, or refuses a command."""


class Chromium:
    """A browser; a context manager. `events` is what it told beside its answers."""

    def __init__(self, profile: str) -> None:
        """Start it with an empty folder for its profile."""
        self.events: list[Message] = []
        self._number = 0
        self._read = b""
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        places = [(os.POSIX_SPAWN_DUP2, commands, 3), (os.POSIX_SPAWN_DUP2, answers, 4)]
        argv = [*COMMAND, f"--user-data-dir={profile}"]
        self._pid = os.posix_spawnp(argv[0], argv, {**os.environ, "HOME": profile}, file_actions=places)
        os.close(commands)
        os.close(answers)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Have it end, and wait for that: it does when nobody holds the pipes any more."""
        os.close(self._commands)
        os.close(self._answers)
        os.waitpid(self._pid, 0)

    def ask(self, method: str, session: str | None = None, **parameters: object) -> Message:
        """Return the answer to a command. Raises ChromiumError if it is an error."""
        self._number += 1
        message: Message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise ChromiumError(f"{method}: {answer['error']}")
        result: Message = answer["result"]
        return result

    def wait_for(self, method: str) -> None:
        """Return when an event has come since `events` was emptied."""
        while all(event["method"] != method for event in self.events):
            self.events.append(self._message())

    def _message(self) -> Message:
        while b"\0" not in self._read:
            more = os.read(self._answers, 1 << 20)
            if not more:
                raise ChromiumError("the browser has ended")
            self._read += more
        first, self._read = self._read.split(b"\0", 1)
        message: Message = json.loads(first)
        return message


def look(browser: Chromium, url: str, view: Message) -> Message:
    """Open a page in a tab of its own and return what came of it."""
    target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
    tab = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Network", "Log"):
        browser.ask(f"{domain}.enable", tab)
    size = {"width": view["width"], "height": view["height"], "deviceScaleFactor": 1, "mobile": view["width"] < PHONE}
    browser.ask("Emulation.setDeviceMetricsOverride", tab, **size)
    scheme = {"name": "prefers-color-scheme", "value": view["scheme"]}
    browser.ask("Emulation.setEmulatedMedia", tab, media=view["media"], features=[scheme])
    browser.events.clear()
    browser.ask("Page.navigate", tab, url=url)
    browser.wait_for("Page.loadEventFired")
    browser.ask("Runtime.evaluate", tab, expression=QUIET, awaitPromise=True)
    came = browser.ask("Runtime.evaluate", tab, expression=view["evaluate"], returnByValue=True)
    if "exceptionDetails" in came:
        raise ChromiumError(f"{view['evaluate']}: {came['exceptionDetails']}")
    picture = browser.ask("Page.captureScreenshot", tab)["data"]
    browser.ask("Target.closeTarget", targetId=target)
    return {"value": came["result"].get("value"), "picture": picture, **told(browser.events)}


def told(events: list[Message]) -> Message:
    """Return what the events say of requests and refusals."""
    came = [(event["method"], event["params"]) for event in events]
    entries = [with_["entry"]["text"] for method, with_ in came if method == "Log.entryAdded"]
    return {
        "requests": [with_["request"]["url"] for method, with_ in came if method == "Network.requestWillBeSent"],
        "loaded": [with_["response"]["url"] for method, with_ in came if method == "Network.responseReceived"],
        "refused": [text for text in entries if "Content Security Policy" in text],
    }


def main() -> None:
    """Look at the page in every view, and print what came of it."""
    url, views = sys.argv[1], json.loads(sys.argv[2])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Chromium(profile) as browser:
        json.dump([look(browser, url, view) for view in views], sys.stdout)


if __name__ == "__main__":
    main()
