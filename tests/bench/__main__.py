"""Measures rosterd beside its floor and beside other tools, in throwaway machines.

    python -m tests.bench [SIZE...]

Without sizes it measures all, and writes docs/performance.md with its picture and figures; with sizes it takes less
time, and writes the same into dist/bench/.
"""

import base64
import datetime as dt
import json
import os
import platform
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.bench.measuring import LONGEST, Measuring
from tests.bench.page import page
from tests.bench.place import PEERS
from tests.bench.plot import HEIGHT, WIDTH, plot
from tests.bench.results import Results
from tests.bench.words import duration
from tests.machine.browser import seen_by_chromium
from tests.machine.machine import CHECKOUT, Machine
from tests.machine.rootfs import BROWSER, RootfsError, rootfs

SIZES = (10, 100, 1_000, 10_000)
PICTURE = """<!doctype html><style>body {{ margin: 0 }} svg {{ display: block; width: {width}px }}</style>{svg}"""
SHARP = 2


def main() -> int:
    """Measure and write."""
    sizes = tuple(sorted(int(word) for word in sys.argv[1:])) or SIZES
    folder = CHECKOUT / ("docs" if sizes == SIZES else "dist/bench")
    folder.mkdir(parents=True, exist_ok=True)
    (deb,) = (CHECKOUT / "dist").glob("rosterd_*.deb")
    results = Results(about(), sizes)
    Measuring(deb, results).everything()
    write(results, folder)
    return 0


def write(results: Results, folder: Path) -> None:
    """Write the figures, the picture and the page."""
    picture = plot(results)
    written = {
        "performance.json": (json.dumps(results.as_json(), indent=1) + "\n").encode(),
        "performance.svg": picture.encode(),
        "performance.md": page(results).encode(),
    }
    try:
        written["performance.png"] = png_of(picture)
    except RootfsError as error:
        sys.stderr.write(f"bench: no performance.png: {error}\n")
    for name, data in written.items():
        (folder / name).write_bytes(data)
        sys.stdout.write(f"{(folder / name).relative_to(CHECKOUT)}\n")


def png_of(picture: str) -> bytes:
    """Have Chromium draw the picture, twice as large, so that it is sharp."""
    view: dict[str, Any] = {"width": SHARP * WIDTH, "height": SHARP * HEIGHT, "media": "screen", "scheme": "light"}
    with Machine(rootfs(BROWSER)) as machine:
        machine.run("useradd", "--create-home", "viewer")
        machine.write("/srv/picture.html", PICTURE.format(width=SHARP * WIDTH, svg=picture))
        (seen,) = seen_by_chromium(machine, "viewer", "file:///srv/picture.html", [{**view, "evaluate": "null"}])
    return base64.b64decode(seen["picture"])


def about() -> dict[str, str]:
    """Return what the figures depend on: the host, and the versions."""
    with Machine(rootfs("bookworm")) as machine:
        systemd = machine.run("systemctl", "--version").out.split()[1]
        python = machine.run("python3", "--version").out.split()[1]
    peers = {one.name: one.version for one in metadata.distributions(path=[str(site_packages())])}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "systemd": systemd,
        "python": python,
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{round(memory / 1e9)} GB",
        "kernel": platform.release(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "rosterd": own_version(),
        "ansible": peers["ansible-core"],
        "pyinfra": peers["pyinfra"],
        "longest": duration(LONGEST),
    }


def site_packages() -> Path:
    """Return where the other tools are installed."""
    (found,) = PEERS.glob("lib/python3.*/site-packages")
    return found


def processor() -> str:
    """Return what /proc/cpuinfo calls the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def own_version() -> str:
    """Return the version of rosterd."""
    version: str = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    return version


if __name__ == "__main__":
    sys.exit(main())
