"""Twenty runs at once, round after round: one applies at a time, nothing is given twice, the machine is right after."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.machine.faults import (
    SITE,
    account_problems,
    breakable,
    everything_wrong,
    leftovers,
    run,
    units_of,
    write_roster,
)
from tests.machine.machine import Command, Machine
from tests.proof.evidence import note, scaled

ROUNDS = scaled(1, 50)
RUNS = 18  # and two commands that make a run about one person

# All of rosterd as it is, but that it notes when two of them apply something at a time.
ALONE = """\
import contextlib, os, sys, time
from reconciler.cli import main
from reconciler.host.executor import HostExecutor

real = HostExecutor.apply

def apply(self, actions):
    try:
        os.mkdir("/run/applying")
    except FileExistsError:
        with open("/run/together", "a") as log:
            print(*sys.argv, file=log)
    time.sleep(0.01)
    try:
        yield from real(self, actions)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir("/run/applying")

HostExecutor.apply = apply
sys.exit(main())
"""

# In place of a tool of shadow-utils: notes when two of them run at a time, which those of two runs would; and takes as
# long as there is a file.
TOOL = """\
#!/bin/sh
mkdir /run/tool 2>/dev/null || echo "$0 $*" >>/run/together
while [ -e /run/hold ]; do sleep 0.02; done
"$0.real" "$@"
code=$?
rmdir /run/tool 2>/dev/null
exit $code
"""
TOOLS = ("useradd", "groupadd", "usermod", "gpasswd")

# Starts all the commands of /run/commands. /run/ends has their exit codes, /run/said what they said.
ALL_AT_ONCE = """
cd /run
rm -rf together ends said
mkdir said
touch together ends
number=0
while read -r line; do
    number=$((number + 1))
    { code=0; /usr/bin/python3 /root/alone.py $line >"said/$number" 2>&1 || code=$?; echo "$code $line" >>ends; } &
done </run/commands
wait
"""

# How each may end. Who waited for too long for the others is told so; `doctor` finds what it finds.
ENDS = {
    "reconcile": {0, 75},
    "cut": {0, 75},
    "uncut": {0, 75},
    "status": {0, 3},
    "--dry-run": {0},
    "explain": {0},
    "doctor": {0, 3},
}

# What there is more than once: ids, or ports of whatever service.
DOUBLED = """
for file in passwd group; do cut -d: -f3 "/etc/$file" | sort | uniq -d | sed "s/^/twice: id in $file: /"; done
cut -d: -f1 /etc/passwd | sort | uniq -d | sed 's/^/twice: name: /'
for file in subuid subgid; do cut -d: -f2 "/etc/$file" | sort | uniq -d | sed "s/^/twice: range in $file: /"; done
sed -n 's/^[A-Z0-9]*_PORT=//p' /etc/t3-serve/*.env | sort | uniq -d | sed 's/^/twice: port: /'
"""


@dataclass(frozen=True)
class Round:
    """What one round asks for."""

    number: int

    @property
    def new(self) -> tuple[str, str]:
        """Who comes before the runs begin, and who while they go."""
        return f"new{self.number:02}", f"late{self.number:02}"

    @property
    def cut(self) -> str:
        """Who is cut off by command."""
        return ("carl", "dave")[self.number % 2]

    @property
    def uncut(self) -> str:
        """Who was, in the round before, and is let in again."""
        return ("dave", "carl")[self.number % 2]

    @property
    def has_browser(self) -> bool:
        """Whether emma's browser is on."""
        return self.number % 2 == 1

    @property
    def tasks(self) -> int:
        """How many tasks each may have."""
        return 500 + self.number

    @property
    def commands(self) -> list[str]:
        """What is started at once."""
        runs = ["reconcile"] * (RUNS // 3)
        first, second = [f"cut {self.cut}", "status", "--dry-run"], [f"uncut {self.uncut}", "explain anna", "doctor"]
        return [*runs, *first, *runs, *second, *runs]

    def people(self, *, late: bool) -> dict[str, dict[str, object]]:
        """Return the roster at the beginning of the round, or as it is edited while the runs go."""
        before = [name for number in range(self.number) for name in Round(number).new]
        names = ["carl", "dave", *before, *(self.new if late else self.new[:1])]
        plain: dict[str, dict[str, object]] = {name: {"tier": "power-user"} for name in names}
        return {"anna": {}, "emma": {"tier": "power-user", "services": {"playwright": self.has_browser}}, **plain}

    def write(self, machine: Machine, *, late: bool) -> None:
        """Put the roster in place."""
        write_roster(machine, self.people(late=late))


@pytest.fixture
def host() -> Iterator[Machine]:
    """Boot a machine that notes when two are at work at a time."""
    with breakable() as machine:
        for tool in TOOLS:
            path = machine.run("which", tool).out.strip()
            machine.run("mv", path, f"{path}.real")
            machine.write(path, TOOL, mode=0o755)
        machine.write("/root/alone.py", ALONE)
        yield machine


def write_site(machine: Machine, tasks: int) -> None:
    """Put a policy in place that limits power-users."""
    admin = "admin: {groups: [code-shared, docker, sudo], admin: true}"
    power_user = f"power-user: {{groups: [], limits: {{tasks_max: {tasks}}}}}"
    machine.write(SITE, f"settle: 0\nlisten: 0\ntiers:\n  {admin}\n  {power_user}\n")


def is_cut(machine: Machine, name: str) -> bool:
    """Say whether nobody gets in as this person: expired, locked, in no map, no service up."""
    fields = machine.run("getent", "shadow", name).out.rstrip("\n").split(":")
    told = machine.run("systemctl", "is-active", *units_of(name), check=False).out.split()
    maps = machine.sh("cat /etc/ttyd-user-map /etc/t3-serve/dispatch.json").out
    return fields[7] == "1" and fields[1].startswith("!") and "active" not in told and f"{name}.id" not in maps


def is_in(machine: Machine, name: str) -> bool:
    """Say whether all of a person is open."""
    expiry = machine.run("getent", "shadow", name).out.rstrip("\n").split(":")[7]
    told = machine.run("systemctl", "is-active", *units_of(name), check=False).out.split()
    lines = machine.read("/etc/ttyd-user-map").splitlines()
    table = machine.read("/etc/t3-serve/dispatch.json")
    return expiry == "" and set(told) == {"active"} and f"{name}.id={name}" in lines and f'"{name}.id"' in table


def wrong_after(machine: Machine, this: Round) -> list[str]:
    """Return what is not as the round asked for, by the host's own tools."""
    wrong = machine.sh(DOUBLED).out.splitlines()
    wrong += account_problems(machine, ["anna"]) + account_problems(machine, [*this.new, "emma"], ["rosterd"])
    wrong += [f"{name} is not in" for name in (*this.new, this.uncut, "anna") if not is_in(machine, name)]
    wrong += [] if is_cut(machine, this.cut) else [f"{this.cut} is not cut off"]
    browser = machine.run("systemctl", "is-active", "playwright-mcp@emma.service", check=False).out.strip()
    wrong += [] if (browser == "active") is this.has_browser else [f"emma's browser is {browser}"]
    slice_of = f"user-{machine.run('id', '-u', this.new[0]).out.strip()}.slice"
    tasks = machine.run("systemctl", "show", "--property=TasksMax", "--value", slice_of).out.strip()
    wrong += [] if tasks == str(this.tasks) else [f"{slice_of} may have {tasks} tasks"]
    return wrong + leftovers(machine)


@dataclass
class Seen:
    """What came of the rounds so far."""

    codes: Counter[int]
    wrong: list[str]
    together: int = 0
    doubled: int = 0


def make_round(machine: Machine, this: Round, seen: Seen) -> None:
    """Start everything at once, edit the roster meanwhile, and look at what became of it."""
    write_site(machine, this.tasks)
    this.write(machine, late=False)
    machine.write("/run/commands", "\n".join(this.commands) + "\n")
    runs = machine.start("/bin/sh", "-euc", ALL_AT_ONCE)
    machine.sh("until [ -s /run/ends ]; do sleep 0.02; done")
    this.write(machine, late=True)
    _, said = runs.communicate(timeout=120)
    ends = [line.split(" ") for line in machine.read("/run/ends").splitlines()]
    seen.codes.update(int(code) for code, *_ in ends)
    at_work, problems = machine.read("/run/together").splitlines(), wrong_after(machine, this)
    seen.together += len(at_work)
    seen.doubled += sum(problem.startswith("twice") for problem in problems)
    problems += [f"two at work: {line}" for line in at_work]
    problems += [f"{' '.join(command)}: {code}" for code, *command in ends if int(code) not in ENDS[command[0]]]
    problems += [] if len(ends) == len(this.commands) else [f"{len(ends)} ended: {said}"]
    problems += machine.sh("grep -l Traceback /run/said/* || :").out.splitlines()
    seen.wrong += [f"round {this.number}: {problem}" for problem in problems]


def test_of_twenty_runs_at_once_one_works_at_a_time_and_all_end_well(host: Machine) -> None:
    write_site(host, 499)
    write_roster(host, {"anna": {}, **{name: {"tier": "power-user"} for name in ("carl", "dave", "emma")}})
    run(host)
    run(host, "cut", "dave")
    seen = Seen(Counter(), [])
    for number in range(ROUNDS):
        make_round(host, Round(number), seen)
    runs = ROUNDS * (RUNS + 2)
    counts = {"rounds": ROUNDS, "runs_20_at_once": runs, "two_at_work": seen.together, "doubled": seen.doubled}
    note("together", **counts, gave_up_waiting=seen.codes[75], wrong=len(seen.wrong))
    assert not seen.wrong, "\n".join(seen.wrong)


# --- the lock itself ---

# What somebody does to the lock while a run holds it, and how another run ends then.
TAMPERED = {
    ":": 75,
    ": >new; mv new lock": 75,
    "rm lock; mkfifo lock": 75,
    "rm lock": 75,
    "ln -sf /run/elsewhere lock": 1,
    "rm lock; mkdir lock": 1,
}


def start_run(machine: Machine) -> Command:
    """Start a run that is held while it makes an account; return once it does."""
    machine.run("touch", "/run/hold")
    started = machine.start("/usr/bin/python3", "/root/alone.py", "reconcile")
    machine.sh("until [ -e /run/tool ]; do sleep 0.02; done", timeout=20)
    return started


def test_whatever_is_done_to_a_lock_that_is_held_nobody_else_gets_to_work(host: Machine) -> None:
    people = ["anna"]
    write_roster(host, people)
    run(host)
    wrong: list[str] = []
    changes = list(TAMPERED.items())[-scaled(3, len(TAMPERED)) :]
    for number, (change, code) in enumerate(changes):
        people.append(f"new{number}")
        write_roster(host, people)
        first = start_run(host)
        host.sh(f"cd /run/rosterd; {change}")
        second = host.run("/usr/bin/python3", "/root/alone.py", "reconcile", "--lock-wait", "1", check=False)
        wrong += [] if second.code == code and "/run/rosterd/lock" in second.err else [f"{change}: {second}"]
        host.run("rm", "/run/hold")
        first.communicate(timeout=30)
        wrong += [] if first.returncode == 0 else [f"{change}: the first run ended with {first.returncode}"]
        host.sh("[ -f /run/rosterd/lock ] || rm -r /run/rosterd/lock")
        again = run(host, code=None)
        wrong += [] if again.code == 0 else [f"{change}: {again}"]
    together = host.sh("cat /run/together 2>/dev/null || :").out.splitlines()
    note("locks", tampered=len(changes), two_at_work=len(together), wrong=len(wrong))
    assert not host.exists("/run/elsewhere")
    assert not wrong + together, "\n".join(wrong + together)
    assert not everything_wrong(host, people)


def test_the_lock_of_a_run_that_was_killed_holds_nobody_up(host: Machine) -> None:
    write_roster(host, ["anna"])
    first = start_run(host)
    first.kill()
    first.wait()
    host.run("rm", "/run/hold")
    host.sh("while pgrep -x useradd.real || pgrep -x groupadd.real; do sleep 0.02; done; rm -rf /run/applying")
    assert host.exists("/run/rosterd/lock")
    run(host, "reconcile", "--lock-wait", "0")
    assert not everything_wrong(host, ["anna"])
