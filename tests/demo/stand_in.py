#!/usr/bin/python3
"""A stand-in for the agent server `t3` and for the browser server that `npx` starts.

Neither can be installed in a machine without a network. This answers every HTTP request on the port
that it is given with the name of the user it runs as, and does nothing else.
"""

import os
import pwd
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answer(BaseHTTPRequestHandler):
    """Says who serves."""

    def do_GET(self) -> None:
        """Answer with the user's name."""
        body = f"this is the server of {pwd.getpwuid(os.getuid()).pw_name}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the journal for rosterd."""


port = int(sys.argv[sys.argv.index("--port") + 1])
ThreadingHTTPServer(("127.0.0.1", port), Answer).serve_forever()
