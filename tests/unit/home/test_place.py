"""What a step may be cut off in, and what of an address is told."""

from __future__ import annotations

import signal
import sys
import threading

import pytest

from reconciler.home.place import undisturbed, without_passwords
from reconciler.host.process import run


@pytest.mark.processes
def test_a_signal_waits_until_the_change_is_whole() -> None:
    seen: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("SIGTERM"))
    try:
        with undisturbed():
            # To this thread: the process that runs the tests has others, what takes the steps has not.
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            # A child has the same mask: it outlives the signal that the whole unit gets.
            script = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); print('whole')"
            seen.append(run([sys.executable, "-c", script], timeout=10).or_fail().out.strip())
        seen.append("after")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["whole", "SIGTERM", "after"]


def test_credentials_are_left_out_of_addresses() -> None:
    text = "fatal: https://bob:to@ken@git.example.org/x\n  not found"
    assert without_passwords(text) == "fatal: https://…@git.example.org/x not found"
