"""How large a test is, and what it has seen.

`make test` runs each test as a sample; `make proof` sets ROSTERD_PROOF to a folder, runs them at full size, and makes
docs/reliability.md of what they note there.
"""

import json
import os
from pathlib import Path

FOLDER = "ROSTERD_PROOF"
NOTES = "notes.jsonl"


def scaled(sample: int, full: int) -> int:
    """Return how many of something a test takes: `full` for `make proof`, else `sample`."""
    return full if os.environ.get(FOLDER) else sample


def note(row: str, **counts: int) -> None:
    """Note what a test has seen, before it is judged: `note("power", snapshots=200, torn=0)`.

    `row` is a key of `tests.proof.rows`. Counts of one name in one row are added up, whichever tests they are from.
    """
    folder = os.environ.get(FOLDER)
    if folder:
        line = json.dumps({"row": row, "counts": counts}) + "\n"
        # One write to the end: tests run in two processes.
        file = os.open(Path(folder) / NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
