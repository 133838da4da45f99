"""Root file systems for the throwaway machines: built once with mmdebstrap, from then on only read.

A root lies in the cache under a name made of its release and a hash of all that goes into it, so that a
changed recipe is a new root and an unchanged one is never built twice. It is built under another name and
renamed when it is complete: a root that exists is whole.

    python3 -m tests.machine.rootfs bookworm trixie bookworm-browser bookworm-around

builds what is missing and prints the paths. `bookworm-browser` is a Debian 12 with what tests.machine.node_parts
brings as well: Chromium, npm with the browser MCP to be had from it, and the agent's command. `bookworm-around` is one
with what surrounds rosterd on a site's machine: proxies and Prometheus, none of which starts by itself. Building takes
root, and the mirror that the host's own apt uses.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.machine import node_parts

RELEASES = ("bookworm", "trixie")
BROWSER = "bookworm-browser"
AROUND = "bookworm-around"
ROOTS = (*RELEASES, BROWSER, AROUND)

PACKAGES = (
    # A Debian with real logins: without libpam-systemd there are no sessions.
    "adduser", "dbus", "dbus-user-session", "libpam-modules-bin", "libpam-systemd", "login", "passwd",
    "systemd", "systemd-sysv", "uidmap",
    # What the package depends on: it is installed with no network.
    "python3", "python3-gi", "python3-pydbus", "python3-structlog", "python3-yaml", "zsh",
    # What people on a workstation use, and what a test needs to act as them or to watch.
    "at", "cron", "curl", "git", "iproute2", "less", "openssh-server", "procps", "strace", "sudo", "tmux",
)  # fmt: skip

# What a root has beside PACKAGES; around is what surrounds rosterd on a site's machine.
MORE_PACKAGES = {
    BROWSER: node_parts.DEBIAN_PACKAGES,
    AROUND: ("caddy", "nginx-light", "openssl", "prometheus", "prometheus-node-exporter"),
}

# Run on the host when the packages are in; $1 is the root.
SETUP = """\
set -eu
# mmdebstrap brings the host's own name and name servers along.
echo workstation >"$1/etc/hostname"
echo 127.0.0.1 localhost workstation >"$1/etc/hosts"
rm -f "$1/etc/resolv.conf"
: >"$1/etc/apt/sources.list"
# Nothing may start by itself in the middle of a test.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer; do
    ln -s /dev/null "$1/etc/systemd/system/$unit"
done
# Else every boot takes itself for the first one after an upgrade, and rebuilds caches.
touch -r "$1/usr" "$1/etc/.updated" "$1/var/.updated"
"""

# After SETUP, in AROUND: nothing of these starts at boot, as nothing else does that the other roots lack.
AROUND_SETUP = """\
for name in caddy nginx prometheus; do
    rm -f "$1"/etc/systemd/system/*.wants/"$name"*
done
"""

# Ends all of a build when the process that asked for it is killed, and its mounts with it.
ALONE = ("setpriv", "--pdeathsig=KILL", "--", "unshare", "--mount-proc", "--pid", "--fork", "--kill-child", "--")

# Changed when the way of building changes in a way that PACKAGES and SETUP do not show.
BUILDER_VERSION = 1

DEBIAN_SUITES = frozenset({*RELEASES, "stable", "oldstable"})


class RootfsError(Exception):
    """A root file system cannot be had; the text says why."""


@dataclass(frozen=True)
class Source:
    """One source of binary packages in the host's apt configuration."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def rootfs(name: str) -> Path:
    """Return the path of a root file system, one of ROOTS; if there is none, build it and say so on stderr.

    Raises RootfsError where that is not possible.
    """
    if name not in ROOTS:
        raise RootfsError(f"no root file system is known for {name!r}, only for {', '.join(ROOTS)}")
    root = cache_folder() / "roots" / f"{name}-{_recipe_hash(name)}"
    if not root.is_dir():
        root.parent.mkdir(parents=True, exist_ok=True)
        with _lock(root.with_name(f"{name}.lock")):
            if not root.is_dir():
                _build(name, root)
    return root


def cache_folder() -> Path:
    """Return the folder for all that is made once and kept outside the checkout."""
    if given := os.environ.get("ROSTERD_CACHE"):
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rosterd"


def host_mirror(apt: Path = Path("/etc/apt")) -> str:
    """Return the URI of the Debian mirror that the apt configuration in the folder `apt` names first.

    Raises RootfsError if it names none.
    """
    for source in _sources(apt):
        if "main" in source.components and not DEBIAN_SUITES.isdisjoint(source.suites):
            return source.uri
    raise RootfsError(f"{apt} names no Debian mirror (a source with the component main of a Debian release)")


def _packages(name: str) -> tuple[str, ...]:
    return (*PACKAGES, *MORE_PACKAGES.get(name, ()))


def _setup(name: str) -> str:
    return SETUP + AROUND_SETUP if name == AROUND else SETUP


def _recipe_hash(name: str) -> str:
    recipe: tuple[object, ...] = (BUILDER_VERSION, name, sorted(_packages(name)), _setup(name))
    if name == BROWSER:
        recipe = (*recipe, node_parts.RECIPE)
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]


def _build(name: str, root: Path) -> None:
    if os.geteuid() != 0:
        raise RootfsError("building a root file system takes root")
    if shutil.which("mmdebstrap") is None:
        raise RootfsError("mmdebstrap is not installed: run packaging/dev-setup machine")
    building = root.with_name(f"{name}.building")
    _remove(building)
    duration = "a minute and a half" if name == BROWSER else "half a minute"
    _say(f"building {name} from {len(_packages(name))} packages and what they need (about {duration})")
    started = time.monotonic()
    try:
        _run_mmdebstrap(name, building)
        if name == BROWSER:
            _say(f"{name}: {node_parts.SERVED} and {node_parts.INSTALLED} from npm")
            node_parts.install(building, partial(_run_in, building))
        building.rename(root)
    finally:
        _remove(building)
    _say(f"built {name} in {time.monotonic() - started:.0f} s: {root}")


def _run_mmdebstrap(name: str, target: Path) -> None:
    argv = [
        *ALONE,
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(_packages(name))}",
        f"--customize-hook={_setup(name)}",
        name.partition("-")[0],
        str(target),
        host_mirror(),
    ]
    last_lines: deque[str] = deque(maxlen=30)
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **_apt_proxies()},
    ) as process:
        for line in process.stderr or ():
            last_lines.append(line)
            if line.startswith("I: ") and line.endswith("...\n"):
                _say(f"{name}: {line[3:].rstrip()}")
    if process.returncode != 0:
        raise RootfsError(f"mmdebstrap failed with exit code {process.returncode}:\n{''.join(last_lines)}")


def _run_in(root: Path, folder: str, script: str, argument: str) -> None:
    """Run a shell script in `folder` of a root, with the host's network; `argument` is its $1."""
    inside = (f"--root={root}", f"--wd={folder}", "--", "/bin/sh", "-euc", script, "sh", argument)
    result = subprocess.run(
        [*ALONE[:-1], *inside],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**_npm_settings(), "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8"},
    )
    if result.returncode != 0:
        raise RootfsError(f"{argument} cannot be had (exit code {result.returncode}):\n{result.stderr[-3000:]}")


def _npm_settings() -> dict[str, str]:
    """Return the variables by which npm on the host knows its registry and how to reach it."""
    names = re.compile(r"npm_config_\w+|https?_proxy|no_proxy|NODE_EXTRA_CA_CERTS", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if names.fullmatch(name)}


def _apt_proxies() -> dict[str, str]:
    """Return the proxies of the host's apt as environment variables; mmdebstrap does not read them."""
    script = subprocess.run(
        ["apt-config", "shell", "http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return dict(re.findall(r"^(\w+)='(.+)'$", script, re.MULTILINE))


def _sources(apt: Path) -> Iterator[Source]:
    """Yield the sources of both notations, in the order in which apt reads the files."""
    one_line_files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]
    for path in one_line_files:
        if path.is_file():
            yield from _one_line_sources(path.read_text())
    for path in sorted((apt / "sources.list.d").glob("*.sources")):
        yield from _deb822_sources(path.read_text())


def _one_line_sources(text: str) -> Iterator[Source]:
    """Yield what lines such as `deb [options] URI SUITE COMPONENT...` say."""
    for line in text.splitlines():
        if found := re.match(r"\s*deb\s+(?:\[[^]]*\]\s*)?(\S+)\s+(\S+)\s+([^#]+)", line):
            uri, suite, components = found.groups()
            yield Source(uri, (suite,), tuple(components.split()))


def _deb822_sources(text: str) -> Iterator[Source]:
    """Yield what paragraphs of `Key: values` say; a field goes on in lines that begin with a space."""
    without_comments = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", without_comments):
        fields = {
            key.lower(): value.split()
            for key, value in re.findall(r"^(\S+):((?:.*)(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        }
        if "deb" in fields.get("types", ()) and fields.get("enabled", ["yes"]) != ["no"]:
            for uri in fields.get("uris", ()):
                yield Source(uri, tuple(fields.get("suites", ())), tuple(fields.get("components", ())))


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; whoever else builds the same release waits."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for another build ({path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(folder: Path) -> None:
    """Delete what a build left, and nothing that is still mounted in it."""
    if folder.exists():
        subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)


def _say(text: str) -> None:
    sys.stderr.write(f"rootfs: {text}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str]) -> int:
    """Build the root file systems named in `arguments` and print a path for each; return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.machine.rootfs", description=rootfs.__doc__)
    parser.add_argument("name", nargs="+", choices=ROOTS)
    try:
        for name in parser.parse_args(arguments).name:
            sys.stdout.write(f"{rootfs(name)}\n")
    except RootfsError as error:
        _say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
