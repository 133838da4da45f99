"""Machines for the tests, a fresh one for each: `machine` is a bare Debian, `installed` one with the package.

They are Debian 12, unless the test says `@pytest.mark.parametrize("release", ["trixie"])`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.machine import CHECKOUT, Machine
from tests.machine.rootfs import rootfs as rootfs_of

# What the package is made of, as packaging/build-deb has it, without the tools that only build.
SOURCES = ("packaging", "units", "reconciler", "pyproject.toml", "README.md", "LICENSE", "roster.yaml")
NOT_SOURCES = frozenset({"build-deb", "dev-setup"})


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known that only tests in machines have."""
    config.addinivalue_line("markers", "waits: lets time pass, so comes after the other tests of its file")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that wait at the end of their file, whatever the order of the others: meanwhile, time passes."""
    files = [item.path for item in items]
    items.sort(key=lambda item: (files.index(item.path), item.get_closest_marker("waits") is not None))


@pytest.fixture
def release() -> str:
    """Return the name of the Debian release that the machine runs."""
    return "bookworm"


@pytest.fixture
def rootfs(release: str) -> Path:
    """Return the root file system of the release; built on the first use ever."""
    return rootfs_of(release)


@pytest.fixture
def machine(rootfs: Path) -> Iterator[Machine]:
    """Boot a machine without the package."""
    with Machine(rootfs) as machine:
        yield machine


@pytest.fixture(scope="session")
def deb() -> Path:
    """Return the path of the package that `make deb` built from the sources as they are now."""
    packages = sorted((CHECKOUT / "dist").glob("rosterd_*.deb"))
    if len(packages) != 1:
        pytest.fail(f"there must be one dist/rosterd_*.deb, not {len(packages)}: run `make deb`")
    built = packages[0].stat().st_mtime
    newer = [str(path.relative_to(CHECKOUT)) for path in _source_files() if path.stat().st_mtime > built]
    if newer:
        pytest.fail(f"{packages[0].name} is older than {', '.join(newer)}: run `make deb`")
    return packages[0]


@pytest.fixture
def installed(machine: Machine, deb: Path) -> Machine:
    """Boot a machine with the package installed."""
    machine.install(deb)
    return machine


def _source_files() -> Iterator[Path]:
    for top in (CHECKOUT / name for name in SOURCES):
        for path in (top, *top.rglob("*")):
            if path.is_file() and path.name not in NOT_SOURCES and "__pycache__" not in path.parts:
                yield path
