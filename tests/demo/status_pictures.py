"""Draws docs/status-wide.png and docs/status-phone.png: the page of `rosterd status --html`, as Chromium shows it.

    python -m tests.demo.status_pictures [FOLDER]

The status is made up (tests.unit.statuses); the browser is real, in a throwaway machine.
"""

import base64
import sys
from pathlib import Path
from typing import Any

from reconciler.core.status_page import status_page
from tests.machine.browser import browser_root, seen_by_chromium
from tests.machine.machine import CHECKOUT, Machine
from tests.unit.statuses import NOW, bad_day

PAGE = "/srv/status.html"
# What a screen shows at first, without scrolling.
VIEWS: dict[str, dict[str, Any]] = {
    "status-wide.png": {"width": 1200, "height": 760, "media": "screen", "scheme": "light", "evaluate": "null"},
    "status-phone.png": {"width": 390, "height": 844, "media": "screen", "scheme": "dark", "evaluate": "null"},
}


def main() -> int:
    """Draw."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "docs"
    with Machine(browser_root()) as machine:
        machine.run("useradd", "--create-home", "viewer")
        machine.write(PAGE, status_page(bad_day(), "workstation", NOW))
        seen = seen_by_chromium(machine, "viewer", f"file://{PAGE}", list(VIEWS.values()))
    for name, view in zip(VIEWS, seen, strict=True):
        (folder / name).write_bytes(base64.b64decode(view["picture"]))
        sys.stdout.write(f"{folder / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
