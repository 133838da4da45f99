"""Damaged bytes of real files, a million of them for `make proof`: refused or read, never a traceback, never a hang.

A case is known by its target and its number: `mutated(NUMBER, TARGET.seeds, TARGET.words)` is the file again.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from reconciler.core.envfile import parse_env, with_assignment
from reconciler.core.home_steps import Ending, Result, Watch, read_result, result_line
from reconciler.core.last_run import LastRun, last_run_document
from reconciler.core.outputs import Route, is_readable, parse, render
from reconciler.core.records import CutRecord, Identity, Step, Tombstone, as_document
from reconciler.core.roster import parse_roster
from reconciler.core.site import OutputKind, parse_site
from reconciler.core.tiers import parse_cluster_tiers
from reconciler.errors import FileRefused, ScanFailed
from reconciler.host.mounts import mounts
from reconciler.host.scan_accounts import scan_group, scan_limits, scan_passwd, scan_shadow, scan_subids
from reconciler.host.scan_ports import dump_listening
from reconciler.host.scan_presence import scan_processes
from reconciler.host.state import State
from tests.proof.evidence import note, scaled
from tests.unit.facts import SITE
from tests.unit.fuzzing import Finding, Target, fuzz, places_are_told
from tests.unit.mutations import ENV_WORDS, JSON_WORDS, LINE_WORDS, YAML_WORDS
from tests.unit.strict_checker import roster_faults, site_faults
from tests.unit.test_schema import GOOD_ROSTER, GOOD_SITE

CHECKOUT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "cases"
# How many of a thousand cases each kind of file gets.
SHARES = {"roster": 330, "site": 220, "env": 150, "records": 120, "accounts": 100, "maps": 40, "kernel": 40}
THOUSANDS = {"sample": 12, "full": 1000}
# One of so many refused files is shown to the strict checker too, which takes its time.
ASKED = 20


# --- seeds ---


def yaml_seeds(kind: str) -> list[bytes]:
    """Return small files: good ones in several forms, those of the pages, and the bad ones of the other tests."""
    cases = [path.read_bytes() for path in sorted((CASES / kind).glob("*.yaml"))]
    page = (CHECKOUT / f"docs/{kind}.md").read_text(encoding="utf-8")
    examples = [block.encode() for block in re.findall(r"(?s)```yaml\n(.*?)```", page)]
    short = [data for data in cases if len(data) < 400]
    good = [*examples, *GOOD[kind]]
    # Those are damaged most often: more is to be seen of what is nearly right.
    return short + good * (3 * len(short) // len(good))


def entries(document: Mapping[str, Any]) -> list[bytes]:
    """Return each entry of a site file as a file of its own, on one line and on several."""
    alone = [{key: value} for key, value in document.items() if key not in {"legacy_units", "homes"}]
    alone += [{"homes": {name: step}} for name, step in document["homes"].items() if "tiers" not in (step or {})]
    return [json.dumps(one, indent=indent).encode() for one in alone for indent in (None, 2)]


GOOD = {
    "roster": [
        json.dumps(GOOD_ROSTER).encode(),
        b"users:\n  alice: {authentik_user: alice.a, k8s_user: alice, tier: admin}  # a comment\n",
        b"users:\n  a:\n    authentik_user: a.a\n    k8s_user: \"a\"\n    tier: 'admin'\n    services:\n      t3: no\n",
        b"---\nusers:\n  b:\n   namespaces:\n   - x\n   authentik_user: b\n   k8s_user: b\n   tier: namespace-owner\n",
        b"users: {a: {authentik_user: >-\n  x, k8s_user: |-\n  y\n, tier: admin}}\n",
        b"users: {}\n",
    ],
    "site": [*entries(GOOD_SITE), b"", b"# nothing\n", b"settle: 3\nlisten: 0\n"],
}
CUT = CutRecord(
    1001, 1001, 1_800_000_000, expiry=20000, running=("x.service",), identity=Identity("a.x", "a"),
    done=(Step.REVOKE_CLUSTER_RBAC,),
)  # fmt: skip
STONE = Tombstone(
    "alice", 1001, 1001, "/home/alice", "/bin/zsh", "", ("rosterd", "docker"), ((100000, 65536),), ((100000, 65536),),
    {"t3": 3773}, "/var/backups/rosterd/alice.tar", "00ff", 1_800_000_000, CUT, complete=True,
)  # fmt: skip
STEPS = {
    "code": {
        "digest": "ab", "ending": "done", "detail": "cloned", "at": 1_800_000_000, "failures": 0,
        "watches": [{"path": "/home/alice/code", "how": "same", "look": ["file", 1, 2, 3]}],
    }
}  # fmt: skip
RESULT = Result("code", Ending.DONE, "cloned", (Watch("/home/alice/code", "same", ("file", 1, 2)),))
ROUTES = (Route("alice.a", "alice", 3773), Route("b+c@example.org", "bob", 3774))
PASSWD = b"root:x:0:0:root:/root:/bin/bash\nalice:x:1001:1001:Alice A,,,:/home/alice:/bin/zsh\n# no account\n+::::::\n"
SHADOW = b"root:*:19000:0:99999:7:::\nalice:!$y$x:19000:0:99999:7::20000:\nbob::19000::::::\n"
GROUP = b"root:x:0:\nrosterd:x:999:alice,bob\nalice:x:1001:\n"
SUBIDS = b"alice:100000:65536\nbob:165536:65536\n"
DEFS = b"# login.defs\nUID_MIN\t1000\nUID_MAX 60000\nSUB_UID_COUNT 65536\nMAIL_DIR /var/mail\n"
MOUNTS = (
    b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n"
    b"36 22 0:31 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n40 22 0:40 / /home/a/x\\040y rw - fuse.x x rw\n"
)
STATUS = b"Umask:\t0022\nState:\tS (sleeping)\nTgid:\t77\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\n"


def diag(port: int, *, cgroup: bool) -> bytes:
    """Return one answer of sock_diag(7): an IPv4 socket on the loopback."""
    address = bytes([127, 0, 0, 1]) + bytes(12)
    body = struct.pack("=4B", socket.AF_INET, 10, 0, 0) + struct.pack(">HH", port, 0) + address + bytes(16)
    body += struct.pack("=I2I5I", 0, 0, 0, 0, 0, 0, 1000, 4711)
    body += struct.pack("=HHQ", 12, 21, 99) if cgroup else b""
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body


DONE = struct.pack("=IHHII", 20, 3, 2, 1, 0) + bytes(4)


# --- readers ---


class YamlReader:
    """Reads rosters or site files, and asks the strict checker about what is accepted, and of what is not, of some."""

    def __init__(self, read: Callable[[bytes], object], faults: Callable[[bytes], list[str]]) -> None:
        """Take what reads, and what checks."""
        self._read = read
        self._faults = faults
        self.stricter: list[bytes] = []
        self.asked = self._refused = 0

    def __call__(self, data: bytes) -> bool:
        """Read one."""
        try:
            self._read(data)
        except FileRefused as refused:
            places_are_told(refused, data)
            self._refused += 1
            if self._refused % ASKED == 0:
                self.asked += 1
                self.stricter += [] if self._faults(data) else [data]
            return False
        if faults := self._faults(data):
            raise Finding("wrongly_accepted", "; ".join(faults))
        return True


ROSTERS = YamlReader(lambda data: parse_roster("file.yaml", data, SITE, ()), roster_faults)
SITES = YamlReader(lambda data: parse_site("file.yaml", data), lambda data: site_faults(data)[0])


def read_env(data: bytes) -> bool:
    """Read an env file, and see that a line added to it is one, and changes no other."""
    before = parse_env(data)
    if before.open_ended:
        return False
    longer = with_assignment(data, "T3_PORT", "3773")
    if not longer.startswith(data):
        raise Finding("lost_bytes", repr(longer))
    after = parse_env(longer)
    if after.variables != {**before.variables, b"T3_PORT": b"3773"} or after.open_ended:
        raise Finding("lost_lines", f"{before.variables} and then {after.variables}")
    return True


def record_readers(folder: Path) -> Iterator[Target]:
    """Return the readers of records, and of what comes from a person's own process."""
    state = State(folder)

    def through(path: Path, read: Callable[[], object], right: Callable[[Any], bool]) -> Callable[[bytes], bool]:
        path.parent.mkdir(parents=True, exist_ok=True)

        def reader(data: bytes) -> bool:
            path.write_bytes(data)
            try:
                found = read()
            except ScanFailed:
                return False
            finally:
                path.unlink()
            if found and not right(json.loads(data)):
                raise Finding("wrongly_accepted", repr(found))
            return bool(found)

        return reader

    def target(name: str, document: Any, read: Callable[[], object], right: Callable[[Any], bool]) -> Target:  # noqa: ANN401 (JSON)
        seeds = [json.dumps(document, sort_keys=True).encode(), json.dumps(document, indent=1).encode()]
        return Target(name, seeds, JSON_WORDS, through(folder / name, read, right))

    yield target("cuts/alice", as_document(CUT), lambda: state.records().cuts, is_cut)
    yield target("tombstones/alice", as_document(STONE), lambda: state.records().tombstones, is_stone)
    known = {"alice": as_document(Identity("a.x", "a")), "bob": as_document(Identity("b.x", "b"))}
    yield target("identities", known, lambda: state.records().identities, are_identities)
    yield target("creating/alice", {"uid": 1001, "gid": 1001}, state.intents, lambda found: is_ids(found, "uid", "gid"))
    steps: Callable[[], object] = lambda: state.home_steps().get("alice")  # noqa: E731 (as the others)
    yield target("homes/alice", STEPS, steps, lambda found: all(isinstance(one, dict) for one in found.values()))
    last = LastRun("abc", 1_800_000_000, 3, 1.5, good=1_700_000_000, restarts={"x@a.service": 2}, digest="ff")
    yield target("last-run", last_run_document(last), state.last_run, lambda found: isinstance(found, dict))
    yield Target("result", [result_line(RESULT)], JSON_WORDS, raising(ValueError, read_result))


def is_ids(document: Any, *keys: str) -> bool:  # noqa: ANN401 (JSON)
    """Say whether these are whole numbers from 0."""
    return all(type(document[key]) is int and document[key] >= 0 for key in keys)


def is_cut(document: Any) -> bool:  # noqa: ANN401 (JSON)
    """Say whether this can be the record of a cut: right types, and nothing missing."""
    flags = all(type(document[key]) is bool for key in ("by_command", "locked", "passwordless", "lingering"))
    texts = all(isinstance(document[key], list) for key in ("running", "done"))
    identity = document["identity"]
    known = identity is None or are_identities({"": identity})
    day = document["expiry"]
    return is_ids(document, "uid", "gid", "since") and flags and texts and known and (day is None or type(day) is int)


def is_stone(document: Any) -> bool:  # noqa: ANN401 (JSON)
    """Say whether this can be a tombstone."""
    texts = all(isinstance(document[key], str) for key in ("name", "home", "shell", "gecos", "archive", "digest"))
    numbers = [number for key in ("subuids", "subgids") for span in document[key] for number in span]
    numbers += document["ports"].values()
    whole = all(type(number) is int and number >= 0 for number in numbers)
    return is_ids(document, "uid", "gid", "since") and texts and whole and is_cut(document["cut"])


def are_identities(document: Any) -> bool:  # noqa: ANN401 (JSON)
    """Say whether these are identities by name."""
    return all(isinstance(one[key], str) for one in document.values() for key in ("authentik_user", "k8s_user"))


def raising(documented: type[Exception], read: Callable[[bytes], object]) -> Callable[[bytes], bool]:
    """Return a reader for what raises one documented kind of error."""

    def reader(data: bytes) -> bool:
        try:
            read(data)
        except documented:
            return False
        return True

    return reader


def account_readers(folder: Path) -> Iterator[Target]:
    """Return the readers of the files of shadow-utils."""
    path = folder / "file"

    def reader(read: Callable[[Path], object], expected: Callable[[bytes], object]) -> Callable[[bytes], bool]:
        def of_file(data: bytes) -> bool:
            path.write_bytes(data)
            try:
                found = read(path)
            except ScanFailed:
                return False
            if found != (right := expected(data)):
                raise Finding("wrongly_accepted", f"read as {found}, but it says {right}")
            return True

        return of_file

    yield Target("passwd", [PASSWD], LINE_WORDS, reader(passwd_found, passwd_expected))
    yield Target("group", [GROUP], LINE_WORDS, reader(group_found, group_expected))
    yield Target("shadow", [SHADOW], LINE_WORDS, reader(shadow_found, shadow_expected))
    yield Target("subids", [SUBIDS], LINE_WORDS, reader(lambda path: bool(scan_subids(path)), bool_of_rows))
    yield Target("login.defs", [DEFS], LINE_WORDS, reader(lambda path: scan_limits(path) is not None, lambda _: True))


def rows(data: bytes, columns: int) -> Iterator[list[str]]:
    """Yield the rows of a file of shadow-utils, the first of each name; a torn one is an error."""
    names = set()
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        row = line.split(":")
        if not line.strip() or line.startswith(("#", "+", "-")):
            continue
        if len(row) < columns:
            raise Finding("wrongly_accepted", f"a torn line: {line!r}")
        if row[0] not in names:
            names.add(row[0])
            yield row


def passwd_found(path: Path) -> dict[str, tuple[str, str, str, str]]:
    """Return what is read of each account, as text."""
    return {one.name: (str(one.uid), str(one.gid), one.home, one.shell) for one in scan_passwd(path).values()}


def passwd_expected(data: bytes) -> dict[str, tuple[str, str, str, str]]:
    """Return the same by a reader of its own."""
    return {row[0]: (number(row[2]), number(row[3]), row[5], row[6]) for row in rows(data, 7)}


def group_found(path: Path) -> dict[str, tuple[str, set[str]]]:
    """Return what is read of each group."""
    return {one.name: (str(one.gid), set(one.members)) for one in scan_group(path).values()}


def group_expected(data: bytes) -> dict[str, tuple[str, set[str]]]:
    """Return the same by a reader of its own."""
    return {row[0]: (number(row[2]), set(row[3].split(",")) - {""}) for row in rows(data, 4)}


def shadow_found(path: Path) -> dict[str, tuple[bool, bool]]:
    """Return who is locked, and who has an empty password."""
    return {name: (one.locked, one.passwordless) for name, one in scan_shadow(path).items()}


def shadow_expected(data: bytes) -> dict[str, tuple[bool, bool]]:
    """Return the same by a reader of its own."""
    return {row[0]: (row[1][:1] == "!", row[1] == "") for row in rows(data, 2)}


def bool_of_rows(data: bytes) -> bool:
    """Say whether there are any rows."""
    return any(True for _ in rows(data, 3))


def number(text: str) -> str:
    """Return a number without zeros before it."""
    return text.lstrip("0") or "0"


def map_readers(_folder: Path) -> Iterator[Target]:
    """Return the readers of the maps, and of the cluster's list."""

    def reader(kind: OutputKind) -> Callable[[bytes], bool]:
        def of_map(data: bytes) -> bool:
            text = data.decode("utf-8", "replace")
            found = parse(kind, text)
            strange: list[object] = [part for route in found for part in (route.user, route.port or 0)]
            if not all(isinstance(part, str | int) for part in strange):
                raise Finding("wrongly_accepted", repr(found))
            if found and not is_readable(kind, text):
                raise Finding("wrongly_accepted", "routes in a file that cannot be read")
            return bool(found)

        return of_map

    for kind in OutputKind:
        words = JSON_WORDS if kind is OutputKind.DISPATCH_JSON else LINE_WORDS
        yield Target(kind, [render(kind, ROUTES).encode()], words, reader(kind))
    tiers = raising(ValueError, lambda data: parse_cluster_tiers(data.decode("utf-8", "replace")))
    yield Target("cluster's tiers", [b'{"alice": "admin", "bob": "power-user"}'], JSON_WORDS, tiers)


def kernel_readers(folder: Path) -> Iterator[Target]:
    """Return the readers of what the kernel tells, with names in it that people give."""
    (folder / "self").mkdir()

    def read_mounts(data: bytes) -> bool:
        (folder / "self/mountinfo").write_bytes(data)
        try:
            return bool(mounts(folder))
        except ScanFailed:
            return False

    def read_sockets(data: bytes) -> bool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "socket", lambda *_: Link([data, DONE]))
            try:
                return bool(list(dump_listening(socket.AF_INET)))
            except ScanFailed:
                return False

    def read_status(data: bytes) -> bool:
        # The kernel keeps 15 bytes of a name, and escapes these two.
        name = data[:15].replace(b"\0", b"").replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
        (folder / "77").mkdir(exist_ok=True)
        (folder / "77/status").write_bytes(b"Name:\t" + name + b"\n" + STATUS)
        found = scan_processes([(1000, 1000)], folder)
        if [(one.pid, one.uid) for one in found] != [(77, 1000)]:
            raise Finding("wrongly_accepted", f"a process that hides itself: {found}")
        return True

    yield Target("mountinfo", [MOUNTS], LINE_WORDS, read_mounts)
    seeds = [diag(3773, cgroup=True) + diag(22, cgroup=False), diag(3773, cgroup=False) + DONE]
    yield Target("sock_diag", seeds, (b"\0" * 4, b"\0", b"\1", b"\2", b"\xff" * 4), read_sockets)
    names = [b"\rUid:\t0\t0\t0\t0", b"\rState:\tZ", b"\x0bUid:\t0", b"bash", b"a b)"]
    yield Target(
        "process name", names, (b"\r", b"\n", b"\\", b":\t", b"Uid:\t0", b"\x85", b"\x1c", b"\xff"), read_status
    )


class Link:
    """A socket that gives these answers and no others."""

    def __init__(self, answers: list[bytes]) -> None:
        """Give `answers`."""
        self._answers = answers

    def __enter__(self) -> Self:
        """Open nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close nothing."""

    def settimeout(self, _seconds: float) -> None:
        """Wait for nobody."""

    def send(self, _request: bytes) -> None:
        """Ask nobody."""

    def recv(self, _size: int) -> bytes:
        """Give the next answer."""
        return self._answers.pop(0) if self._answers else DONE


READERS: Mapping[str, Callable[[Path], Iterator[Target]]] = {
    "roster": lambda _: iter([Target("roster", yaml_seeds("roster"), YAML_WORDS, ROSTERS)]),
    "site": lambda _: iter([Target("site", yaml_seeds("site"), YAML_WORDS, SITES)]),
    "env": lambda _: iter([Target("env", [path.read_bytes() for path in sorted((CASES / "envfile").glob("*.env"))],
                                  ENV_WORDS, read_env)]),
    "records": record_readers,
    "accounts": account_readers,
    "maps": map_readers,
    "kernel": kernel_readers,
}  # fmt: skip


@pytest.mark.parametrize("kind", READERS)
def test_damaged_bytes_are_refused_or_read_and_nothing_else(kind: str, tmp_path: Path) -> None:
    targets = list(READERS[kind](tmp_path))
    cases = SHARES[kind] * scaled(THOUSANDS["sample"], THOUSANDS["full"]) // len(targets)
    for target in targets:
        tally = fuzz(target, range(cases))
        wrong = ("tracebacks", "hangs", "wrongly_accepted", "without_place", "lost_bytes", "lost_lines")
        note("damaged", **tally.numbers("cases", "accepted", *wrong))
        tally.check()
        assert tally.counts["accepted"], f"no case of {target.name} is good"
