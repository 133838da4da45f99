"""`useradd` killed in the middle, and accounts that were left half-made: the next run completes them."""

from collections.abc import Iterator

import pytest

from tests.machine.faults import account_problems, breakable, fingerprint, leftovers, run, write_roster
from tests.machine.kill_points import Point, sample
from tests.machine.killed_tools import kills, make_killable, plan_kills, plan_traces, traced_points_of
from tests.machine.machine import Machine
from tests.machine.sweep import Sweep, Tally
from tests.proof.evidence import note

NO_SERVICES = "settle: 0\nservices: {}\n"

# What each state of an account lacks, as a script; $1 is the name, $2 the uid. `record` is that of a creation that
# nobody has seen the end of.
HALF_MADE = {
    "no shadow line": 'sed -i "/^$1:/d" /etc/shadow',
    "no group": 'sed -i "/^$1:/d" /etc/group /etc/gshadow',
    "no gshadow line": 'sed -i "/^$1:/d" /etc/gshadow',
    "no subordinate ids": 'sed -i "/^$1:/d" /etc/subuid /etc/subgid',
    "no subordinate gids": 'sed -i "/^$1:/d" /etc/subgid',
    "no home": 'rm -r "/home/$1"',
    "no tier groups": 'for group in docker sudo code-shared; do gpasswd -d "$1" "$group"; done',
    "no mark and no home but a record": 'record "$1" "$2"; gpasswd -d "$1" rosterd; rm -r "/home/$1"',
    "an empty home of root's": 'record "$1" "$2"; rm -r "/home/$1"; mkdir "/home/$1"',
    "an empty home that nobody may enter": 'record "$1" "$2"; rm -r "/home/$1"; mkdir -m 000 "/home/$1"',
    "an empty home of another mode": 'record "$1" "$2"; rm "/home/$1"/.[a-z]*; chmod 755 "/home/$1"',
    "half of the skel": 'record "$1" "$2"; rm "/home/$1/.profile"; truncate -s 100 "/home/$1/.bashrc"',
    "half of a file that root owns": 'record "$1" "$2"; truncate -s 9 "/home/$1/.bashrc"; chown 0:0 "/home/$1/.bashrc"',
    "a line in passwd and nothing else": """
        sed -i "/^$1:/d" /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/subgid
        for group in docker sudo code-shared rosterd; do gpasswd -d "$1" "$group"; done
        rm -r "/home/$1"
    """,
    "the same with a record": """
        record "$1" "$2"
        sed -i "/^$1:/d" /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/subgid
        for group in docker sudo code-shared rosterd; do gpasswd -d "$1" "$group"; done
        rm -r "/home/$1"
    """,
}
RECORD = 'record() { echo "{\\"uid\\": $2, \\"gid\\": $2}" >"/var/lib/rosterd/creating/$1"; }\n'


@pytest.fixture
def sweep(release: str) -> Iterator[Machine]:
    """Boot a machine with a skel that is easy to copy by half, and no services: only accounts take time."""
    with breakable(release, skel=True) as machine:
        make_killable(machine, "useradd", "groupadd", "usermod", "gpasswd")
        machine.write("/etc/rosterd/site.yaml", NO_SERVICES)
        yield machine


@pytest.fixture
def points(sweep: Machine) -> list[Point]:
    """Return where useradd can be killed, from the trace of one that rosterd started and that went well."""
    write_roster(sweep, ["probe"])
    plan_traces(sweep, "probe", "useradd")
    run(sweep)
    found = traced_points_of(sweep, "useradd", "probe")
    assert len(found) > 120
    return found


def told_with_points(problems: list[str], people: dict[str, Point]) -> str:
    """Return the problems, each with the point that led to it."""
    return "\n".join(f"{line}\n    {people[line.split(':')[0]]}" for line in problems)


def failures(said: str) -> str:
    """Return the lines of a run that tell of something that did not work."""
    return "\n".join(line for line in said.splitlines() if "FAILED" in line or "conflict" in line)


@pytest.mark.parametrize(("release", "size"), [("bookworm", 60), ("trixie", 30)])
def test_useradd_killed_anywhere_together_with_the_run_is_completed_by_the_next_run(
    sweep: Machine, points: list[Point], size: int
) -> None:
    # The last one leaves all the locks of shadow-utils behind.
    with_locks = next(point for point in points if "/etc/shadow+" in point.shown and point.call == "rename")
    chosen = [point for point in sample(points, size) if point != with_locks]
    people = {f"k{number:03}": point for number, point in enumerate([*chosen, with_locks])}
    plan_kills(sweep, "useradd", people, last=[max(people)])
    write_roster(sweep, ["probe", *people])
    run(sweep, code=-9)
    assert kills(sweep) == dict.fromkeys(people, "137")
    assert sweep.exists("/etc/passwd.lock")
    half_made = {line.split(":")[0] for line in account_problems(sweep, people)}
    assert len(half_made) > len(people) * 0.9

    done = run(sweep, code=None)
    problems = account_problems(sweep, people)
    broken = {line.split(":")[0] for line in problems}
    note("useradd", points=len(people), half_made=len(half_made), completed=len(people) - len(broken))
    assert not problems, f"{told_with_points(problems, people)}\n{failures(done.said)}"
    assert done.code == 0, failures(done.said)
    assert not leftovers(sweep)


def test_a_run_whose_useradd_is_killed_goes_on_with_the_others(sweep: Machine, points: list[Point]) -> None:
    people = {f"k{number:03}": point for number, point in enumerate(sample(points, 12))}
    plan_kills(sweep, "useradd", people)
    write_roster(sweep, ["probe", "zoe", *people])
    first = run(sweep, code=3)
    assert kills(sweep) == dict.fromkeys(people, "137")
    assert not account_problems(sweep, ["zoe"])
    for name in people:
        assert f"{name}: FAILED account" in first.said

    done = run(sweep, code=None)
    problems = account_problems(sweep, people)
    assert not problems, f"{told_with_points(problems, people)}\n{failures(done.said)}"


@pytest.mark.parametrize(
    ("tool", "spoil"),
    [
        ("groupadd", ""),
        ("gpasswd", 'gpasswd -d "$1" docker'),
        ("usermod", HALF_MADE["no shadow line"]),
        ("usermod", HALF_MADE["no subordinate ids"]),
    ],
    ids=["a group", "a membership", "a shadow line", "subordinate ids"],
)
def test_another_tool_killed_anywhere_is_finished_by_the_next_run(sweep: Machine, tool: str, spoil: str) -> None:
    """Where nothing is spoilt, the tool is started for people who are new."""

    def give_work(*names: str) -> None:
        write_roster(sweep, ["probe", *names])
        if spoil:
            run(sweep)
            for name in names:
                sweep.sh(spoil, name)

    give_work("probe")
    plan_traces(sweep, "probe", tool)
    run(sweep)
    points = traced_points_of(sweep, tool, "probe")
    assert len(points) > 15
    people = {f"k{number:03}": point for number, point in enumerate(sample(points, 5))}
    give_work(*people)
    plan_kills(sweep, tool, people, last=[max(people)])
    run(sweep, code=-9)
    ends = kills(sweep)
    assert account_problems(sweep, people)
    done = run(sweep, code=None)
    problems = account_problems(sweep, people)
    tally = Tally()
    for name, point in people.items():
        wrong = [line for line in problems if line.startswith(f"{name}:")]
        if ends.get(name) == "137":
            tally.add(f"{tool} {point}", torn=[], lost=[], wrong=wrong)
        else:
            tally.not_reached += 1
    tally.judge("tools", tool)
    assert done.code == 0, failures(done.said)
    assert not leftovers(sweep)


def test_a_run_killed_anywhere_while_it_makes_a_home_is_completed_by_the_next(sweep: Machine) -> None:
    write_roster(sweep, ["zoe"])
    run(sweep)
    sweep.run("rm", "-r", "/home/zoe")
    making = Sweep(sweep, "rosterd", "reconcile")
    points = making.undisturbed()
    assert not account_problems(sweep, ["zoe"])
    for point in sample(points, 4):
        making.kill(point)
    making.tally.judge("killed", "a home")


@pytest.fixture(scope="module")
def mended() -> Iterator[dict[str, list[str]]]:
    """Leave an account in each of the half-made states, make one run, and return what is then wrong, by state."""
    names = {state: f"p{number:02}" for number, state in enumerate(HALF_MADE)}
    with breakable() as machine:
        machine.write("/etc/rosterd/site.yaml", NO_SERVICES)
        write_roster(machine, names.values())
        run(machine)
        for state, name in names.items():
            uid = machine.run("id", "-u", name).out.strip()
            machine.sh(RECORD + HALF_MADE[state], name, uid)
            assert account_problems(machine, [name]), f"nothing to mend: {state}"
        run(machine)
        assert not leftovers(machine)
        yield {state: account_problems(machine, [name]) for state, name in names.items()}


@pytest.mark.parametrize("state", HALF_MADE)
def test_a_half_made_account_is_completed_by_one_run(mended: dict[str, list[str]], state: str) -> None:
    assert mended[state] == []


@pytest.mark.parametrize(
    "likeness",
    [
        # A record of another uid is that of another account of this name.
        "useradd -m zoe; record zoe 1234",
        # The mark is written before the home, so whoever has a home and no mark has it from somebody else.
        'useradd -m zoe; record zoe "$(id -u zoe)"',
        # Somebody lives there.
        'useradd -m zoe; sed -i "/^zoe:/d" /etc/group /etc/gshadow',
        # Nobody's home, but an account as others have made it.
        "useradd -M zoe",
    ],
    ids=["a record of another uid", "a record and a home", "no group but a home", "no home but a group"],
)
def test_an_account_that_only_looks_half_made_is_not_taken_over(machine_without_people: Machine, likeness: str) -> None:
    machine_without_people.sh(f"mkdir -p /var/lib/rosterd/creating; {RECORD} {likeness}")
    write_roster(machine_without_people, ["zoe"])
    before = lines_of_zoe(machine_without_people)
    done = run(machine_without_people, code=3)
    assert "zoe: conflict: account exists" in done.said
    assert lines_of_zoe(machine_without_people) == before
    assert "zoe" not in machine_without_people.run("getent", "group", "rosterd").out


def lines_of_zoe(machine: Machine) -> list[str]:
    """Return all that the machine has of her, without the record: a stale one may go."""
    return [line for line in fingerprint(machine).splitlines() if "zoe" in line and "/creating" not in line]


@pytest.fixture
def machine_without_people() -> Iterator[Machine]:
    """Boot a machine that nobody has an account on."""
    with breakable() as machine:
        machine.write("/etc/rosterd/site.yaml", NO_SERVICES)
        yield machine
