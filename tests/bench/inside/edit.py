"""Puts an edited roster in place and writes how many seconds later a person's server answers.

edit.py NEW_ROSTER ROSTER NAME PORT
"""

import socket
import sys
import time
from pathlib import Path

LONGEST = 60.0

new, roster, name, port = sys.argv[1:]
started = time.monotonic()
Path(new).rename(roster)
while (passed := time.monotonic() - started) < LONGEST:
    try:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=1) as connection:
            answer = connection.recv(100).decode()
    except OSError:
        time.sleep(0.002)
        continue
    if answer != name:
        sys.exit(f"{answer!r} answers at port {port}, not {name}")
    sys.stdout.write(str(time.monotonic() - started))
    sys.exit()
sys.exit(f"nobody answers at port {port} after {passed:.0f} s")
