"""A stand-in for an SSO's outpost, which answers a request about a request as authentik's does. Runs in a machine.

    python3 -I sso_stand_in.py

Whoever has the cookie `session=NAME` is NAME; `session=nameless` is signed in, and nobody is told who that is. It
listens on port 9000 of the loopback.
"""

import http.server
from http.cookies import SimpleCookie

PORT = 9000
NAMELESS = "nameless"
OUTPOST = "/outpost.goauthentik.io"


class Outpost(http.server.BaseHTTPRequestHandler):
    """Answers who somebody is, and where to sign in."""

    def do_GET(self) -> None:
        """Answer one request."""
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        if self.path.startswith(f"{OUTPOST}/start"):
            self._answer(200, body="sign in here\n")
        elif not self.path.startswith(f"{OUTPOST}/auth/"):
            self._answer(404)
        elif cookie is None and self.path == f"{OUTPOST}/auth/nginx":
            self._answer(401)
        elif cookie is None:
            self._answer(302, Location=f"{OUTPOST}/start")
        elif cookie.value == NAMELESS:
            self._answer(200)
        else:
            self._answer(200, **{"X-authentik-username": cookie.value})

    def _answer(self, code: int, body: str = "", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Outpost).serve_forever()
