"""A stand-in for the site's git server in a machine: git's own http-backend behind a web server that knows people.

    python3 /src/tests/machine/git_server.py

It listens on port PORT of the loopback, and runs in the machine with nothing but the standard library and git.

    /team/NAME.git/…   the bare repository in FOLDER, for who is named in its file `readers`, a line `PERSON:TOKEN` for
                       each, and sends both (Basic). Others get 401. While there is a file FOLDER/hold-NAME.git, an
                       answer with objects stops in its middle.

What has been asked for is in FOLDER/asked, a line `PERSON STATUS PATH` for each request, the path without `/team`.
"""

import base64
import binascii
import os
import subprocess  # noqa: TID251 (runs in the machine, without rosterd)
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = 8080
FOLDER = Path("/srv/git")

BACKEND = "/usr/lib/git-core/git-http-backend"
_POLL_INTERVAL = 0.02
_log = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_GET(self) -> None:
        """Answer what asks for the references of a repository."""
        self._serve()

    def do_POST(self) -> None:
        """Answer what asks for objects, or brings some."""
        self._serve()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        path, _, query = self.path.removeprefix("/team").partition("?")
        repository = path.split("/")[1]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        person = self._reader_of(repository)
        _note(f"{person or '-'} {200 if person else 401} {path}")
        if not person:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._pass_on(self._answer_of_git(path, query, person, body), FOLDER / f"hold-{repository}")

    def _reader_of(self, repository: str) -> str:
        """Return who sends a name and a token that the repository knows, nothing for anybody else."""
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        try:
            sent = base64.b64decode(encoded).decode()
            readers = (FOLDER / repository / "readers").read_text().splitlines()
        except (binascii.Error, UnicodeDecodeError, OSError):
            return ""
        return sent.partition(":")[0] if scheme == "Basic" and sent in readers else ""

    def _answer_of_git(self, path: str, query: str, person: str, body: bytes) -> bytes:
        """Return what git says as a CGI program (RFC 3875)."""
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(FOLDER),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "REMOTE_USER": person,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        run = subprocess.run([BACKEND], input=body, env=environment, check=True, stdout=subprocess.PIPE)  # noqa: S603 (git's)
        return run.stdout

    def _pass_on(self, answer: bytes, hold: Path) -> None:
        head, _, body = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        middle = len(body) // 2 if self.command == "POST" else 0
        self.wfile.write(body[:middle])
        while middle and hold.exists():
            time.sleep(_POLL_INTERVAL)
        self.wfile.write(body[middle:])


def _note(line: str) -> None:
    with _log, (FOLDER / "asked").open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
