"""A web server for a machine: pages that show what a browser brings along, and storage states for who has the token.

    python3 /src/tests/machine/web_server.py

It listens on port 8000 of the loopback, and runs in the machine with nothing but the standard library.

    /                  says which cookies came with the request and what the page finds in its localStorage
    /set/VALUE         the same, after it has set the cookie `mark` and the item `mark` of localStorage to VALUE
    /snapshot/NAME     the file NAME.json of FOLDER, for who sends what NAME.token holds as a bearer token; waits
                       while there is a file `hold`
"""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = 8000
FOLDER = Path("/srv/web")

PAGE = """\
<!DOCTYPE html><title>what is here</title><link rel=icon href=data:,><p>cookies: {cookies}<p id=items>
<script>{script}; document.getElementById("items").textContent = "items: " + JSON.stringify(localStorage);</script>
"""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_GET(self) -> None:
        """Answer by what the path begins with."""
        if self.path.startswith("/snapshot/"):
            self._snapshot(self.path.removeprefix("/snapshot/"))
        elif self.path.startswith("/set/"):
            value = self.path.removeprefix("/set/")
            self._page(f'localStorage.setItem("mark", "{value}")', {"Set-Cookie": f"mark={value}; Path=/"})
        elif self.path == "/":
            self._page("", {})
        else:
            self._answer(404, "text/plain", b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _page(self, script: str, headers: dict[str, str]) -> None:
        page = PAGE.format(cookies=self.headers.get("Cookie", "none"), script=script)
        self._answer(200, "text/html", page.encode(), headers)

    def _snapshot(self, name: str) -> None:
        while (FOLDER / "hold").exists():
            time.sleep(0.05)
        token = (FOLDER / f"{name}.token").read_text().strip()
        if self.headers.get("Authorization") == f"Bearer {token}":
            self._answer(200, "application/json", (FOLDER / f"{name}.json").read_bytes())
        else:
            self._answer(401, "text/plain", b"who are you?\n")

    def _answer(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
