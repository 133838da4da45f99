"""A roster that cannot be right, or that somebody else could have written, is refused whole: nothing changes."""

import io
import re
import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from tests.machine.faults import ROSTER, SITE, breakable, fingerprint, run, write_roster
from tests.machine.machine import CHECKOUT, Machine

# The bad rosters of the unit tests, tried here through the whole program as root.
FILES = {path.stem: path for path in (CHECKOUT / "tests/unit/cases/roster").glob("*.yaml")}

# What has to be among them.
REQUIRED = """
    empty only-comments cut-off-in-a-line duplicate-user duplicate-field unknown-key two-documents tab-indent
    nul invalid-utf-8 alias merge-key-bomb python-tag nested-too-deep name-no name-number name-hexadecimal
    name-null name-date name-capital name-digit-first name-dash-first name-dots name-slash name-percent name-at
    name-accent name-look-alike name-newline name-33-letters name-root name-nobody name-of-a-system-account
    namespaces-a-word identity-a-number identity-with-equals identity-with-newline identity-twice parked-quoted
    tier-unknown repos-without-workspace repo-infra repos-bad-names service-unknown
"""

# Makes a run with each of $1 rosters. /run/ends has exit code, milliseconds and what changed, /run/said what they said.
RUN_ALL = """
cd /run
sleep 0.01
touch mark
: >ends
: >said
for number in $(seq 0 $(($1 - 1))); do
    for attempt in first second; do
        started=$(date +%s%N) code=0
        timeout 10 rosterd reconcile --roster "/etc/rosterd/cases/$number.roster.yaml" >out 2>&1 || code=$?
        took=$((($(date +%s%N) - started) / 1000000))
        # Slow twice is slow.
        [ "$took" -gt 1000 ] || break
    done
    [ "$number" = 0 ] || printf '\\0' >>said
    cat out >>said
    changed=$(find /etc /home /srv /var/lib/rosterd/* ! -path /var/lib/rosterd/last-run -cnewer mark | tr '\\n' ' ')
    echo "$code $took $changed" >>ends
    touch mark
done
"""

PLACE = re.compile(r"roster\.yaml:[1-9]\d*:[1-9]\d*: \S")
A_SECOND = 1.0

GOOD = "users:\n  anna: {authentik_user: anna.id, k8s_user: anna, tier: power-user}\n"
UNKNOWN_KEY = b"users:\n  anna: {authentik_user: anna.id, k8s_user: anna, tier: power-user, email: a@example.org}\n"

# Beside the files: what is too long or too dangerous to lie in a checkout.
BAD = {
    "20,000 brackets": b"users: " + b"[" * 20000 + b"]" * 20000,
    "20,000 open brackets": b"users: " + b"[" * 20000,
    "20,000 open braces": b"users: " + b"{a: " * 20000,
    "a tag that runs a program": b"users: !!python/object/apply:os.system ['touch /etc/rosterd/owned']\n",
    "a thousand mistakes": b"users:\n" + b"".join(b"  a%d: {tier: 7}\n" % number for number in range(1000)),
    "a name of a person's other env file": GOOD.encode()
    + GOOD.encode().splitlines()[1].replace(b"anna", b"playwright-anna"),
}


def people(*names: str) -> dict[str, dict[str, str]]:
    """Return entries of people who are no administrators: those are never cut off."""
    return {name: {"tier": "power-user"} for name in names}


def prepare(machine: Machine) -> None:
    """Give one person everything, and the machine a system account that a bad roster names."""
    machine.run("useradd", "--system", "postgres")
    machine.write(ROSTER, GOOD)
    run(machine)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Boot a machine with one person who has everything; tests may not change more than the two files."""
    with breakable() as machine:
        prepare(machine)
        yield machine


@pytest.fixture
def unchanged(machine: Machine) -> Iterator[Machine]:
    """See that a test changes nothing, with the good roster in place again afterwards."""
    before = fingerprint(machine)
    yield machine
    assert fingerprint(machine) == before
    machine.sh('rm -rf "$1" && mkdir "$1"', "/etc/rosterd")
    machine.write(ROSTER, GOOD)
    machine.write(SITE, "settle: 0\nlisten: 0\n")


def refusal(machine: Machine, *arguments: str) -> str:
    """Make a run that is refused within a second; return what it says. One that is slow twice is slow."""
    done = run(machine, *arguments, code=5, limit=10)
    if done.seconds > A_SECOND:
        done = run(machine, *arguments, code=5, limit=10)
    assert done.seconds < A_SECOND, str(done)
    assert "Traceback" not in done.said
    return done.said


def put(machine: Machine, data: bytes) -> None:
    """Put any bytes in place of the roster."""
    machine.write(ROSTER, data.decode(errors="surrogateescape"))


def packed(contents: Iterable[bytes]) -> str:
    """Return a tar archive of files named 0.roster.yaml and on, as text that the machine takes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number, data in enumerate(contents):
            info = tarfile.TarInfo(f"{number}.roster.yaml")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive.getvalue().decode(errors="surrogateescape")


@dataclass(frozen=True)
class Refusal:
    """What came of one bad roster: exit code, seconds, the files that changed, and all that was said."""

    code: int
    seconds: float
    changed: list[str]
    said: str


@pytest.fixture(scope="module")
def refusals() -> Iterator[dict[str, Refusal]]:
    """Make a run with each bad roster, all in one go; return what came of each."""
    rosters = BAD | {name: path.read_bytes() for name, path in FILES.items()}
    with breakable() as machine:
        prepare(machine)
        machine.sh("mkdir /etc/rosterd/cases; tar x -C /etc/rosterd/cases", input=packed(rosters.values()))
        before = fingerprint(machine)
        machine.sh(RUN_ALL, str(len(rosters)), timeout=120)
        assert fingerprint(machine) == before
        ends = [line.split() for line in machine.read("/run/ends").splitlines()]
        told = machine.read("/run/said").split("\0")
        yield {
            name: Refusal(int(code), int(milliseconds) / 1000, changed, said)
            for name, (code, milliseconds, *changed), said in zip(rosters, ends, told, strict=True)
        }


def test_the_bad_rosters_of_the_design_are_all_there() -> None:
    assert set(REQUIRED.split()) <= set(FILES)


@pytest.mark.parametrize("name", sorted([*BAD, *FILES]))
def test_a_bad_roster_is_refused_with_line_and_column(refusals: dict[str, Refusal], name: str) -> None:
    found = refusals[name]
    assert found.code == 5, found.said
    assert PLACE.search(found.said)
    assert "Traceback" not in found.said
    assert not found.changed
    assert found.seconds < A_SECOND


def test_a_roster_over_the_size_limit_is_refused(unchanged: Machine) -> None:
    unchanged.sh('yes "# nobody" | head -c 17000000 >"$1"', ROSTER)
    assert "larger than 16 MiB" in refusal(unchanged)


# What is wrong with the file and the words for it. {} is the file.
UNTRUSTED = {
    "missing": ("rm {}", "no such file"),
    "group-writable": ("chmod 664 {}", "0664"),
    "world-writable": ("chmod 646 {}", "0646"),
    "of another owner": ("chown nobody {}", "not to root"),
    "in a folder that a group can write in": ("chmod 775 /etc/rosterd", "/etc/rosterd"),
    "in a folder of another owner": ("chown nobody /etc/rosterd", "/etc/rosterd"),
    "a symbolic link": ("mv {} /root/real; ln -s /root/real {}", "symbolic link"),
    "a dangling link": ("ln -sf /root/nothing {}", "symbolic link"),
    "in a folder that is a link": ("mv /etc/rosterd /root/real; ln -s /root/real /etc/rosterd", "symbolic link"),
    "a FIFO": ("rm {}; mkfifo {}", "regular file"),
    "a folder": ("rm {}; mkdir {}", "regular file"),
    "a device": ("rm {}; mknod {} c 1 5", "regular file"),
}


@pytest.mark.parametrize("fault", UNTRUSTED)
def test_a_roster_that_others_could_have_written_is_refused(unchanged: Machine, fault: str) -> None:
    script, words = UNTRUSTED[fault]
    unchanged.sh(f"rm -rf /root/real; {script.format(*[ROSTER] * 3)}")
    said = refusal(unchanged)
    assert words in said
    assert "/etc/rosterd" in said


@pytest.mark.parametrize("fault", [fault for fault in UNTRUSTED if fault != "missing" and "folder" not in fault])
def test_a_site_file_that_others_could_have_written_is_refused(unchanged: Machine, fault: str) -> None:
    script, words = UNTRUSTED[fault]
    unchanged.sh(f"rm -rf /root/real; {script.format(*[SITE] * 3)}")
    said = refusal(unchanged)
    assert words in said
    assert f" {SITE}: " in said


def test_a_bad_site_file_is_refused_with_line_and_column(unchanged: Machine) -> None:
    unchanged.write(SITE, "settle: 0\nshell: [zsh]\nguards: {max_cuts: many}\n")
    said = refusal(unchanged)
    assert re.search(r"site\.yaml:2:8: ", said)
    assert re.search(r"site\.yaml:3:20: ", said)


def test_a_roster_in_a_sticky_folder_is_no_less_trusted(unchanged: Machine) -> None:
    unchanged.sh("mkdir -m 1777 -p /root/sticky; cp /etc/rosterd/roster.yaml /root/sticky")
    run(unchanged, "reconcile", "--roster", "/root/sticky/roster.yaml")
    unchanged.sh("rm -r /root/sticky")


def test_all_mistakes_of_a_roster_are_told_at_once(unchanged: Machine) -> None:
    put(unchanged, b"users:\n  Anna: 7\n  bob: {tier: x, k8s_user: 3}\n  root: {}\n")
    said = refusal(unchanged)
    for line, column in ((2, 3), (2, 9), (3, 15), (3, 28), (4, 3)):
        assert f"roster.yaml:{line}:{column}: " in said
    assert said.count("^\n") == said.count("roster.yaml:")


@pytest.mark.parametrize("command", [("validate",), ("reconcile", "--dry-run")])
def test_the_commands_that_only_read_refuse_it_likewise(unchanged: Machine, command: tuple[str, ...]) -> None:
    put(unchanged, UNKNOWN_KEY)
    assert PLACE.search(refusal(unchanged, *command))


def test_an_empty_list_of_users_is_held_and_not_refused(unchanged: Machine) -> None:
    write_roster(unchanged, [])
    done = run(unchanged, code=4)
    assert "anna" in done.said


def test_half_of_the_users_gone_are_held_while_new_ones_are_added() -> None:
    with breakable() as machine:
        write_roster(machine, people("anna", "bea", "cora", "dora"))
        run(machine)
        before = [line for line in fingerprint(machine).splitlines() if "cora" in line or "dora" in line]
        write_roster(machine, people("anna", "bea", "emil"))
        run(machine, code=4)
        assert machine.run("systemctl", "is-active", "t3-serve@emil").out == "active\n"
        after = [line for line in fingerprint(machine).splitlines() if "cora" in line or "dora" in line]
        assert after == before
        for name in ("cora", "dora", "emil"):
            assert f"{name}.id={name}\n" in machine.read("/etc/ttyd-user-map")


def test_a_refusal_does_not_take_long_even_while_the_file_is_being_opened(unchanged: Machine) -> None:
    unchanged.sh('rm "$1"; mkfifo "$1"', ROSTER)
    writer = unchanged.start("sh", "-c", f"exec cat >{ROSTER}")
    started = time.monotonic()
    refusal(unchanged)
    assert time.monotonic() - started < 5
    writer.kill()
