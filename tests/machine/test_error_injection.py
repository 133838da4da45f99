"""Each file call of a command fails, one at a time: no byte is lost, the error is named, the next run puts all right.

What the interpreter opens to load libraries is left out, and what the tools do that rosterd starts; those end in an
exit code of theirs, as in tests.machine.test_faults.
"""

import re
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from tests.machine.error_points import WORDS, Failure, failures_in, paths_of
from tests.machine.faults import SITE, breakable, everything_wrong, run, write_roster
from tests.machine.kill_points import sample as sample_of
from tests.machine.machine import Machine, Result
from tests.machine.test_power_loss import POLICY, SETUP
from tests.proof.evidence import note

PEOPLE = ["anna", "bob"]
CODES = {0, 1, 3, 5, 75}
NOTHING_CHANGED = {1, 5, 75}
BEGIN = '"/etc/passwd"'  # the first that a command opens for itself

# What may fail without a word: where nothing depends on it, or it is tried otherwise.
QUIET = re.compile(
    r'"", 0x|'  # the size of its blocks, of an opened file: Python guesses then
    r"close\(\d+<[^>]*>\)|"  # of what was read, or a folder
    r"/var/lib/rosterd/last-run>?|"  # of before: nothing is decided by it
    r'mkdir\("/(var/lib|run)/rosterd(/homes|/archives)?"|'  # it is there already
    r"/run/rosterd/waiting|"  # it only makes haste
    r"/home/\w+/|bin/claude|"  # what a step relies on is looked at again by the step itself
    r'"/home/\w+", |'  # a cut needs nothing of a home; everybody else's is told of
    r"/etc/rosterd|\"/etc\"|\"/\"|"  # the files have changed, so it seems: it goes again
    r"/proc/((self|\d+)/)?(status|mounts)|/sys/fs/cgroup|"  # of libraries, and of which services a slice holds
    r"write\(\d+<(pipe|anon_inode)"  # nobody listens any more
)

# Of all that a command may change, a line for each: content, or that it is there. Of a map each line counts.
STATE = r"""
cd /
for path in /etc/ttyd-* /etc/t3-serve/dispatch.json; do sed "s|^|map $path |; s|,\$||" "$path"; done
files=$(ls /etc/t3-serve/*.env /etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/systemd/system/*.d/50-rosterd.conf)
sha256sum $files
find /home -type f -exec sha256sum {} +
find /var/lib/rosterd/*/ -type f ! -path '*/archives/*'
find /etc /var/lib/rosterd /run/rosterd -name '*rosterd-new*' -o -name reload-due -o -path '*/homes/*.*'
find /etc/systemd/system -type l -printf '%p %l\n'
"""


@dataclass(frozen=True)
class Command:
    """A command that is to fail in each of its file calls.

    `prepare` is a script that brings the machine back to where the command has something to do, `finish` is what must
    end well when nothing fails any more. Of the calls that change nothing, one in `share` is taken.
    """

    argv: tuple[str, ...]
    prepare: str = ":"
    finish: tuple[str, ...] = ("reconcile", "--retry")
    share: int = 1


@dataclass
class Seen:
    """What came of all failures, to be noted, and what was wrong, to be told."""

    count: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, kind: str, failure: str, said: str) -> None:
        """Note that something was wrong, and what was said then."""
        self.count[kind] += 1
        self.wrong.append(f"{kind}: {failure}\n    {said.strip()[-400:]}")


COUNTED = ("points", "quiet", "tracebacks", "unnamed", "wrong_codes", "lost", "not_mended")
State = frozenset[str]


def state(machine: Machine) -> State:
    """Return what there is."""
    return frozenset(machine.sh(STATE, check=False).out.splitlines())


def judge(seen: Seen, hit: str, error: str, result: Result, *, changed: bool) -> None:
    """Look at the words and the exit code of a command in which a call failed, and whether they are true."""
    said = result.out + result.err
    if "Traceback" in said:
        seen.add("tracebacks", hit, said)
    elif result.code not in CODES:
        seen.add("wrong_codes", f"{result.code} after {hit}", said)
    elif result.code == 0:
        seen.count["quiet"] += 1
        # Or it was named, tried once more by the same run, and done.
        if not QUIET.search(hit) and not is_named(hit, error, said):
            seen.add("unnamed", hit, said)
    elif not is_named(hit, error, said):
        seen.add("unnamed", hit, said)
    if result.code in NOTHING_CHANGED and changed:
        seen.add("wrong_codes", f"{result.code} says that nothing was changed, after {hit}", said)


def is_named(hit: str, error: str, said: str) -> bool:
    """Say whether the file, or its folder, and the error are told."""
    if "cannot be looked at, not even by root" in said or f"cannot be started: {WORDS[error]}" in said:
        return True
    names = []
    for path in paths_of(hit):
        folder, _, name = re.sub(r"^/proc/\d+/", "/proc/self/", path).rpartition("/")
        names += [f"{folder}/{name.removeprefix('.').removesuffix('.rosterd-new')}", f"{folder}:", f"{folder} "]
    return WORDS[error] in said and any(name in said for name in names)


def failures_of(machine: Machine, command: Command) -> list[Failure]:
    """Return what can fail in a command, from the trace of one in which nothing does."""
    machine.sh(command.prepare)
    traced(machine, command.argv)
    found = list(failures_in(machine.read("/run/trace"), BEGIN))
    reading = [failure for failure in found if not failure.is_changing]
    return [failure for failure in found if failure.is_changing] + reading[:: command.share]


def traced(machine: Machine, argv: Sequence[str], *options: str) -> Result:
    """Run a command under strace."""
    strace = ("strace", "-qq", "-y", "-s", "300", "-o", "/run/trace", *options)
    return machine.run(*strace, "rosterd", *argv, check=False)


def try_all(machine: Machine, command: Command, failures: Sequence[Failure]) -> Seen:
    """Make the command fail at each of these, and finish it."""
    seen = Seen()
    machine.run("rosterd", *command.finish)
    whole = state(machine)
    for failure in failures:
        machine.sh(command.prepare)
        before = state(machine)
        result = traced(machine, command.argv, *failure.inject)
        hit = machine.sh("grep -m 1 INJECTED /run/trace || :").out.strip()
        if not hit:
            continue  # this time it makes fewer of these calls
        seen.count["points"] += 1
        after = state(machine)
        judge(seen, hit, failure.error, result, changed=before != after)
        for line in lost(before, after, whole):
            seen.add("lost", f"{line} after {hit}", result.out + result.err)
        done = machine.run("rosterd", *command.finish, check=False) if after != whole else result
        for line in state(machine) ^ whole:
            seen.add("not_mended", f"{line} after {hit}", result.out + result.err + done.out + done.err)
    note("errors", **{kind: seen.count[kind] for kind in COUNTED})
    return seen


def lost(before: State, after: State, whole: State) -> Iterator[str]:
    """Yield what is neither as before nor as it is to be: each file, and each line of a map."""
    for line in after - before - whole:
        if re.match(r"map |[0-9a-f]{64} ", line):
            yield line
    contents = dict(line.split("  ")[::-1] for line in before if re.match(r"[0-9a-f]{64} ", line))
    there = {line.split("  ")[1] for line in after if re.match(r"[0-9a-f]{64} ", line)}
    kept = {line.split("  ")[1] for line in whole if re.match(r"[0-9a-f]{64} ", line)}
    yield from sorted((contents.keys() & kept) - there)
    if contents.keys() - there and not any("/tombstones/" in line for line in after):
        yield "deleted, and not archived:"


def assert_good(seen: Seen) -> None:
    """Say what was wrong, if anything."""
    assert seen.count["points"] > 0
    assert not seen.wrong, f"{len(seen.wrong)} of {seen.count['points']}\n" + "\n".join(seen.wrong[:60])


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Boot a machine whose people have everything, with lines of hers beside anna's port."""
    with breakable() as machine:
        machine.sh(SETUP)
        machine.write(SITE, POLICY)
        write_roster(machine, PEOPLE)
        run(machine)
        machine.sh(KEEP)
        run(machine)
        assert not everything_wrong(machine, PEOPLE)
        yield machine


KEEP = """
printf 'TOKEN="two\nlines"\n' >>/etc/t3-serve/anna.env
mkdir /run/kept
cp -a --parents /etc/t3-serve /etc/ttyd-user-map /etc/ttyd-admins /var/lib/rosterd/identities /run/kept
"""

# anna has lost her port, bob his env file and his limits; the maps are old, and who is who is not on record.
BREAK = """
cp -a /run/kept/. /
sed -i /T3_PORT/d /etc/t3-serve/anna.env
rm -rf /etc/t3-serve/bob.env /var/lib/rosterd/identities /run/rosterd/reload-due /etc/systemd/system/user-*.slice.d
echo '{"anna.id": {"os_user": "anna", "port": 3773}}' >/etc/t3-serve/dispatch.json
: >/etc/ttyd-admins
"""

COMMANDS = {
    "a run with nothing to do": (Command(("reconcile",)), 12),
    "a run with something to do": (Command(("reconcile",), BREAK, share=10), 8),
    "steps in a home": (Command(("reconcile", "--retry"), "rm -f /var/lib/rosterd/homes/bob", share=40), 3),
    "a cut": (Command(("cut", "bob"), "rosterd uncut bob || :", ("cut", "bob"), share=20), 3),
}


@pytest.mark.parametrize(("command", "sample"), COMMANDS.values(), ids=COMMANDS)
def test_a_command_in_which_a_file_call_fails(machine: Machine, command: Command, sample: int) -> None:
    seen = try_all(machine, command, sample_of(failures_of(machine, command), sample))
    machine.run("rosterd", "uncut", "bob", check=False)
    machine.run("rosterd", "reconcile", "--retry")
    assert_good(seen)
    assert not everything_wrong(machine, PEOPLE)


DESTROY = ("destroy", "bob", "--yes", "bob")
RESTORE = "[ ! -e /var/lib/rosterd/tombstones/bob ] || rosterd restore bob"


def test_a_deletion_in_which_a_file_call_fails(machine: Machine) -> None:
    run(machine, "cut", "bob")
    write_roster(machine, ["anna"])
    command = Command(DESTROY, RESTORE, DESTROY, share=20)
    seen = try_all(machine, command, sample_of(failures_of(machine, command), 2))
    machine.sh(RESTORE)
    write_roster(machine, PEOPLE)
    run(machine, "uncut", "bob")
    assert_good(seen)
    assert not everything_wrong(machine, PEOPLE)


# --- as a system makes it ---

# Fewer, and the interpreter does not come as far as to rosterd.
FEWEST = 5


def test_few_open_files_are_enough_or_it_is_named(machine: Machine) -> None:
    """With each number allowed, from the fewest up to where the run has enough."""
    machine.sh(BREAK)
    run(machine)
    seen, whole, code = Seen(), state(machine), -1
    for allowed in range(FEWEST, 64):
        machine.sh(BREAK)
        before = state(machine)
        result = machine.run("prlimit", f"--nofile={allowed}", "rosterd", "reconcile", check=False)
        code, said = result.code, result.out + result.err
        seen.count["limits"] += 1
        if code == -signal.SIGTRAP and "GLib-ERROR" in said and state(machine) == before:
            seen.count["ended_by_glib"] += 1  # before anything was changed
            continue
        if "Traceback" in said:
            seen.add("tracebacks", f"{allowed} open files", said)
        if result.code not in CODES or (result.code in NOTHING_CHANGED and state(machine) != before):
            seen.add("wrong_codes", f"{result.code} with {allowed} open files", said)
        if result.code and WORDS["EMFILE"] not in said:
            seen.add("unnamed", f"{allowed} open files", said)
        if code == 0:
            break
    note(
        "full",
        **{kind: seen.count[kind] for kind in ("limits", "ended_by_glib", "tracebacks", "unnamed", "wrong_codes")},
    )
    machine.run("rosterd", "reconcile")
    assert not seen.wrong, "\n".join(seen.wrong)
    assert seen.count["limits"] > 1
    assert code == 0
    assert state(machine) == whole


def test_a_limit_on_the_size_of_files_is_named(machine: Machine) -> None:
    machine.sh(BREAK)
    before = state(machine)
    result = machine.run("prlimit", "--fsize=8", "rosterd", "reconcile", check=False)
    assert result.code == 3, result
    for path in ("/etc/t3-serve/anna.env", "/etc/t3-serve/dispatch.json", "/var/lib/rosterd/identities"):
        assert f"{path} cannot be written: File too large" in result.out + result.err
    assert state(machine) == before
    machine.run("rosterd", "reconcile")
    assert not everything_wrong(machine, PEOPLE)
