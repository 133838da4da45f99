"""Runs the tests of docs/reliability.md at full size, and writes the page from what came out.

    python -m tests.proof [ROW...]

Without rows it runs all, else these; what is known of the others stays on the page, with its own date.
"""

import datetime as dt
import json
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.machine.machine import CHECKOUT, Machine
from tests.machine.rootfs import rootfs
from tests.proof.evidence import FOLDER, NOTES
from tests.proof.page import page
from tests.proof.rows import ROWS, Row

FIGURES, PAGE = CHECKOUT / "docs/reliability.json", CHECKOUT / "docs/reliability.md"
LONGEST = 7200  # seconds that one test may take


def main() -> int:
    """Run, then write."""
    wanted = sys.argv[1:]
    unknown = set(wanted) - {row.key for row in ROWS}
    if unknown:
        sys.stderr.write(f"proof: no such row: {', '.join(sorted(unknown))}\n")
        sys.stderr.write(f"rows: {' '.join(row.key for row in ROWS)}\n")
        return 64
    rows = [row for row in ROWS if not wanted or row.key in wanted]
    with tempfile.TemporaryDirectory() as folder:
        run(rows, Path(folder))
        found = results(rows, Path(folder))
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    keys = [row.key for row in ROWS]
    known = {key: (known | found)[key] for key in keys if key in known | found}
    FIGURES.write_text(json.dumps(known, indent=1) + "\n")
    PAGE.write_text(page(known))
    return 0 if all(one["passed"] and not one["failed"] for one in found.values()) else 1


def run(rows: Iterable[Row], folder: Path) -> None:
    """Run the tests of these rows at full size; what they note, and pytest's own report, lie in `folder` then."""
    tests = sorted({test for row in rows for test in row.tests})
    # A file that is there whole needs no function of it beside.
    tests = [test for test in tests if "::" not in test or test.partition("::")[0] not in tests]
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--numprocesses=2", "--dist=loadfile"]
    argv += [f"--override-ini=timeout={LONGEST}", f"--junit-xml={folder / 'tests.xml'}", *tests]
    subprocess.run(argv, cwd=CHECKOUT, env=os.environ | {FOLDER: str(folder)}, check=False)


def results(rows: Iterable[Row], folder: Path) -> dict[str, Any]:
    """Return what came out, by row."""
    tests = list(ET.parse(folder / "tests.xml").getroot().iter("testcase"))
    about = versions()
    counts: dict[str, Counter[str]] = {}
    notes = folder / NOTES
    for line in notes.read_text().splitlines() if notes.exists() else ():
        noted = json.loads(line)
        counts.setdefault(noted["row"], Counter()).update(noted["counts"])
    return {row.key: {**outcome(row, tests), "counts": dict(counts.get(row.key, {})), **about} for row in rows}


def outcome(row: Row, tests: Sequence[ET.Element]) -> dict[str, Any]:
    """Return how many tests of the row passed, failed and were skipped, and how many seconds they took."""
    own = [test for test in tests if set(row.tests) & names_of(test)]
    failed = [test for test in own if test.find("failure") is not None or test.find("error") is not None]
    skipped = [test for test in own if test.find("skipped") is not None]
    return {
        "passed": len(own) - len(failed) - len(skipped),
        "failed": len(failed),
        "skipped": len(skipped),
        "seconds": round(sum(float(test.attrib["time"]) for test in own), 1),
    }


def names_of(test: ET.Element) -> set[str]:
    """Return the names by which a row can mean a test: its file, its function."""
    file = test.attrib["classname"].replace(".", "/") + ".py"
    return {file, f"{file}::{test.attrib['name'].partition('[')[0]}"}


def versions() -> dict[str, str]:
    """Return what the outcome depends on, and when it was."""
    with Machine(rootfs("bookworm")) as machine:
        systemd = machine.run("systemctl", "--version").out.split()[1]
    commit = git("rev-parse", "--short", "HEAD").strip()
    edited = git("status", "--porcelain", "--", "reconciler", "units", "packaging", "tests")
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "commit": f"{commit} with edits" if edited else commit,
        "systemd": systemd,
        "kernel": platform.release(),
    }


def git(*arguments: str) -> str:
    """Ask git about the checkout."""
    argv = ["git", "-C", str(CHECKOUT), *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
