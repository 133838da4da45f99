"""People who leave: in seconds nothing of theirs runs or can begin again, and nothing that is theirs is lost."""

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.machine.busy import (
    EVERY_WAY,
    NO_WAY,
    RAN,
    at_queue,
    commands_of,
    differences,
    let_in,
    logins,
    set_jobs,
    set_to_work,
    snapshot,
)
from tests.machine.machine import Machine, Result
from tests.machine.workstation import (
    QUICK,
    ROSTER,
    SITE,
    dispatch,
    entry_of,
    eventually,
    everything,
    groups_of,
    is_enabled,
    is_up,
    main_pid,
    map_lines,
    reconcile,
    traced,
    workstation,
    write_roster,
)
from tests.proof.evidence import note, scaled

# bob has limits, so that his services run in the slice of his sessions.
PEOPLE: dict[str, dict[str, Any]] = {"alice": {"tier": "admin"}, "bob": {"tier": "limited"}, "carol": {}, "dora": {}}
LIMITED = f"""{QUICK}tiers:
  admin: {{groups: [code-shared, docker, sudo], admin: true, cluster: exempt}}
  power-user: {{groups: []}}
  limited: {{groups: [], limits: {{memory_max: 2G, tasks_max: 500}}}}
"""
WITHOUT_BOB = {name: fields for name, fields in PEOPLE.items() if name != "bob"}
ADMIN_GROUPS = ("docker", "code-shared", "sudo")
CRON_MINUTES = scaled(1, 5)
LIMIT = 30.0  # seconds that a cut may take

# What a plan has to say of somebody who has all of it. The pending steps are told in the log as well.
TOLD = (
    r"cut off \(.*\): no → on record for the return \(expires never, password open, lingering, .*\)",
    r"crontab and 2 at jobs: due → held",
    r"login: expires never, password open → expired, password locked",
    r"crashing-{0}\.service: running → stopped \(its User= is {0}, who is cut off\)",
    r"errand-{0}\.service: running → stopped \(its User= is {0}, who is cut off\)",
    r"once-{0}\.service: running → stopped \(its User= is {0}, who is cut off\)",
    r"playwright-mcp@{0}\.service: enabled, running → disabled, stopped \(cut off\)",
    r"playwright-snapshot-refresh@{0}\.timer: enabled, running → disabled, stopped \(cut off\)",
    r"t3-serve@{0}\.service: enabled, running → disabled, stopped \(cut off\)",
    r"lingering: on → off",
    r"user-\d+\.slice, \d+ processes \(.*\) → ended",
    r"pending: remove_from_t3_group \(k8s {0}, authentik {0}\.id\): no hook is set for it; .* rosterd done {0} .*",
    r"pending: revoke_cluster_rbac \(k8s {0}, authentik {0}\.id\): no hook is set for it; .* rosterd done {0} .*",
    r"errand-{0}\.service, whose User= is {0}, starts at boot, .*",
)
# And of their return.
GIVEN_BACK = (
    r"login: expired → expires never, password open, as before the cut",
    r"crontab and 1 at job: held → due",
    r"lingering: off → on",
    r"errand-{0}\.service: stopped → running",
    r"t3-serve@{0}\.service: disabled, stopped → enabled, running",
    r"playwright-mcp@{0}\.service: disabled, stopped → enabled, running",
    r"playwright-snapshot-refresh@{0}\.timer: disabled, stopped → enabled, running",
)


@dataclass
class Left:
    """A machine that bob has left by the roster, and that a command has cut dora off from while the roster was refused.

    alice and carol stay. `planned` is what a dry run said before, `ceiling` what held bob's services and sessions in,
    `seconds` what the cut took, `running` the processes that were left right after it, `ran` what each person's jobs
    had done by then.
    """

    machine: Machine
    before: dict[str, str]
    listing: str
    planned: dict[str, str] = field(default_factory=dict)
    ceiling: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    ran: dict[str, list[str]] = field(default_factory=dict)

    def cut(self, name: str, *command: str) -> None:
        """Make the run that cuts somebody off."""
        started = time.monotonic()
        self.results[name] = self.machine.run(*command, check=False)
        self.running[name] = commands_of(self.machine, name)
        self.seconds[name] = time.monotonic() - started
        sys.stdout.write(f"{name} was cut off in {self.seconds[name]:.1f} s\n")


@pytest.fixture(scope="module")
def left(deb: Path) -> Iterator[Left]:
    """Cut two busy people off; the tests that use it leave it so."""
    with workstation(deb) as machine:
        machine.write(SITE, LIMITED)
        write_roster(machine, PEOPLE)
        reconcile(machine)
        let_in(machine, *PEOPLE)
        set_to_work(machine, "bob", stubborn=True)
        set_to_work(machine, "dora")
        # The jobs of the next minute must not be due before the cut.
        if (second := time.time() % 60) > 48:
            time.sleep(63 - second)
        for name in ("bob", "dora", "carol"):
            set_jobs(machine, name)

        left = Left(machine, snapshot(machine, PEOPLE), everything(machine))
        left.ceiling = ceiling(machine)
        left.planned["dora"] = dry_run(machine, "cut", "dora", "--dry-run")
        write_roster(machine, WITHOUT_BOB)
        left.planned["bob"] = dry_run(machine, "--dry-run")
        assert without_roster(everything(machine)) == without_roster(left.listing)

        left.cut("bob", "systemctl", "start", "rosterd.service")
        machine.write(ROSTER, "users: {bob: [}\n")
        left.cut("dora", "rosterd", "cut", "dora")
        left.ran = {name: ran(machine, name) for name in ("bob", "dora", "carol")}
        write_roster(machine, WITHOUT_BOB)
        yield left


def ceiling(machine: Machine) -> str:
    """Return the slice of bob's services, what it limits, and the drop-ins that make it so."""
    uid = machine.run("id", "--user", "bob").out.strip()
    units = ("t3-serve@bob.service", "playwright-mcp@bob.service")
    slices = machine.run("systemctl", "show", "--property=Id,Slice", *units).out
    limits = machine.run("systemctl", "show", "--property=MemoryMax,TasksMax", f"user-{uid}.slice").out
    return slices + limits + machine.sh("tail -n +1 /etc/systemd/system/*.d/50-rosterd.conf").out


def dry_run(machine: Machine, *arguments: str) -> str:
    """Return what a dry run shows, which has to work."""
    return machine.run("rosterd", *arguments).out


def without_roster(listing: str) -> list[str]:
    """Return the lines of a listing that are not about the roster, which a test has written."""
    return [line for line in listing.splitlines() if not line.startswith("/etc/rosterd")]


def ran(machine: Machine, name: str) -> list[str]:
    """Return a word for each job of a person's that has run."""
    return machine.sh('[ ! -e "$1" ] || cat "$1"', f"{RAN}/{name}").out.split()


both = pytest.mark.parametrize("name", ["bob", "dora"])


@both
def test_a_cut_works_and_says_all_that_it_does_and_that_something_is_pending(left: Left, name: str) -> None:
    assert left.results[name].code == 0, left.results[name]
    log = left.machine.run("journalctl", f"OS_USER={name}", "--output=cat").out
    for line in TOLD:
        assert re.search(f"^{name}: {line.format(name)}$", log, re.MULTILINE), f"{line}\n{log}"
    assert all(line.startswith(f"{name}: ") for line in log.splitlines())
    ends = left.machine.run("journalctl", "ROSTERD_EVENT=run_finished", "--output=cat").out
    # The first run made everybody, the second cut bob off, the third dora.
    own = ends.splitlines()[1 if name == "bob" else 2]
    assert re.match(r"run finished: 1\d done, 2 pending, \d warnings?;", own), own


@both
def test_a_dry_run_told_the_same_before(left: Left, name: str) -> None:
    block = re.search(f"^{name}\n((?:  .*\n)+)", left.planned[name], re.MULTILINE)
    assert block is not None, left.planned[name]
    for line in TOLD:
        assert re.search(rf"^  [-?] {line.format(name)}$", block[1], re.MULTILINE), f"{line}\n{block[1]}"
    assert re.search(r"^  - /etc/t3-serve/dispatch.json: .*\(- \w+\)$", left.planned[name], re.MULTILINE)


@both
def test_no_process_is_left_within_thirty_seconds(left: Left, name: str) -> None:
    note("leaving", people_cut_off=1, processes_left=len(left.running[name].splitlines()))
    assert left.running[name] == ""
    assert left.seconds[name] < LIMIT
    assert commands_of(left.machine, name) == ""
    uid = left.machine.run("id", "--user", name).out.strip()
    assert left.machine.run("systemctl", "is-active", f"user-{uid}.slice", check=False).out == "inactive\n"
    assert name not in left.machine.run("loginctl", "list-sessions", "--no-legend").out.split()


@both
def test_it_comes_out_of_the_maps_first_and_each_thing_in_its_turn(left: Left, name: str) -> None:
    run = left.machine.journal("ROSTERD_EVENT=run_finished")[1 if name == "bob" else 2]["RUN_ID"]
    told = [entry["MESSAGE"] for entry in left.machine.journal(f"RUN_ID={run}", "ROSTERD_EVENT=action_done")]
    order = (
        rf"{name}: cut off \(.*\): no → on record",
        rf".*/dispatch\.json: .*\(- {name}\)",
        rf".*/ttyd-user-map: .*\(- {name}\)",
        rf"{name}: crontab and 2 at jobs: due → held",
        rf"{name}: login: .* → expired, password locked",
        rf"{name}: t3-serve@{name}\.service: .* → disabled, stopped",
        rf"{name}: lingering: on → off",
        rf"{name}: user-\d+\.slice, .* → ended",
    )
    places = [[number for number, line in enumerate(told) if re.match(wanted, line)] for wanted in order]
    assert all(len(place) == 1 for place in places), told
    assert places == sorted(places)


@both
def test_there_is_no_way_in(left: Left, name: str) -> None:
    ways = logins(left.machine, name, "carol")
    note("leaving", ways_in_tried=len(ways[name]), ways_in_open=sum(ways[name].values()))
    assert ways == {name: NO_WAY, "carol": EVERY_WAY}


@both
def test_nothing_is_left_that_could_start_anything(left: Left, name: str) -> None:
    units = [kind.format(name) for kind in ("errand-{}.service", "crashing-{}.service", "once-{}.service")]
    own = [kind.format(name) for kind in ("t3-serve@{}.service", "playwright-mcp@{}.service")]
    own.append(f"playwright-snapshot-refresh@{name}.timer")
    told = left.machine.run("systemctl", "is-active", *units, *own, check=False).out.split()
    assert set(told) <= {"inactive", "failed"}
    assert not any(is_enabled(left.machine, unit) for unit in own)
    assert not left.machine.exists(f"/var/lib/systemd/linger/{name}")
    assert not left.machine.exists(f"/var/spool/cron/crontabs/{name}")
    assert at_queue(left.machine, name) == []
    assert left.machine.run("crontab", "-l", "-u", name, check=False).code == 1
    assert f"{name}.id" not in dispatch(left.machine)
    assert f"{name}.id={name}" not in map_lines(left.machine)


@both
def test_nothing_is_taken_that_could_not_be_given_back(left: Left, name: str) -> None:
    machine = left.machine
    after = snapshot(machine, [name])
    for what in (f"home of {name}", "/etc/passwd", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid"):
        assert after[what] == left.before[what], what
    for path in (f"/etc/t3-serve/{name}.env", f"/etc/t3-serve/playwright-{name}.env"):
        assert machine.read(path) in left.before["maps and ports"]
    assert is_enabled(machine, f"errand-{name}.service")
    assert ceiling(machine) == left.ceiling
    assert groups_of(machine, name) == {name, "rosterd"}


def test_nobody_else_is_touched(left: Left) -> None:
    after = snapshot(left.machine, ["alice", "carol"])
    for what in after:
        if what.endswith((" of alice", " of carol")):
            assert after[what] == left.before[what], what
    for line in left.before["/etc/shadow"].splitlines():
        if not line.startswith(("bob:", "dora:")):
            assert line in after["/etc/shadow"].splitlines()
    assert map_lines(left.machine) == ["alice.id=alice", "carol.id=carol"]
    for name in ("alice", "carol"):
        for unit in (f"t3-serve@{name}.service", f"playwright-mcp@{name}.service"):
            assert is_up(left.machine, unit)
            assert is_enabled(left.machine, unit)
    # Of the services only instances are touched.
    lost = set(left.before["links"].splitlines()) - set(after["links"].splitlines())
    assert len(lost) == 6
    assert all(re.search(r"@(bob|dora)\.(service|timer) ", line) for line in lost)


def test_a_further_run_starts_no_process_and_writes_nothing(left: Left) -> None:
    before = everything(left.machine)
    trace = traced(left.machine, "rosterd")
    assert trace.result.code == 0, trace.result
    assert "nothing to do" in trace.result.out
    assert "pending: revoke_cluster_rbac" in trace.result.out
    assert "4 pending" in trace.result.err
    assert trace.programs == []
    # The lock is opened to write, and nothing is written to it.
    assert trace.changes_beyond_its_own == []
    assert everything(left.machine) == before


# --- guards ---


@pytest.fixture(scope="module")
def shared(deb: Path, left: Left) -> Iterator[Machine]:
    """Boot another machine with four people, one of them an admin; those who left meanwhile let time pass."""
    assert left.results
    with workstation(deb) as machine:
        machine.write(SITE, LIMITED)
        write_roster(machine, PEOPLE)
        reconcile(machine)
        let_in(machine, *PEOPLE)
        for name in PEOPLE:
            machine.sh('echo "0 0 1 1 * true" | crontab -u "$1" -', name)
        yield machine


@pytest.fixture
def guarded(shared: Machine) -> Machine:
    """Bring everybody back whom a test before has cut off, and set the four to work."""
    write_roster(shared, PEOPLE)
    reconcile(shared)
    for name in PEOPLE:
        shared.sh('runuser -u "$1" -- setsid -f sleep 90000 >/dev/null 2>&1', name)
    return shared


def state(machine: Machine) -> dict[str, str]:
    """Return all that a cut could change for the four, what they have running included.

    The manager of a session that a test before has had goes by itself, some seconds later.
    """
    running = {}
    for name in PEOPLE:
        lines = commands_of(machine, name).splitlines()
        kept = [line for line in lines if "systemd --user" not in line and "(sd-pam)" not in line]
        running[f"processes of {name}"] = "\n".join(kept)
    return snapshot(machine, PEOPLE) | running | {"records": machine.sh("ls /var/lib/rosterd/cuts 2>&1 || :").out}


@pytest.mark.parametrize("by", ["hand", "service"])
def test_an_empty_roster_holds_every_cut(guarded: Machine, by: str) -> None:
    write_roster(guarded, {})
    before = state(guarded)
    planned = guarded.run("rosterd", "--dry-run").out
    assert "the roster has nobody in it, 4 are managed and 3 would be cut off now" in planned
    assert "--allow-cuts 3" in planned
    if by == "hand":
        assert "--allow-cuts 3" in reconcile(guarded, code=4).err
    else:
        assert guarded.run("systemctl", "start", "rosterd.service", check=False).code != 0
        status = guarded.run("systemctl", "show", "--property=ExecMainStatus", "--value", "rosterd.service")
        assert status.out.strip() == "4"
    assert differences(before, state(guarded)) == ""


def test_a_mass_removal_is_held_while_whoever_is_new_comes_until_it_is_let_through_once(guarded: Machine) -> None:
    start = state(guarded)
    write_roster(guarded, {"alice": PEOPLE["alice"], "dora": {}, "erin": {}})
    planned = guarded.run("rosterd", "--dry-run").out
    assert "Held: bob, carol would be cut off: 2 of 4 people" in planned
    assert "if it is meant: rosterd reconcile --allow-cuts 2." in planned
    assert re.search(r"^erin\n  \+ account", planned, re.MULTILINE)
    assert differences(start, state(guarded)) == ""
    reconcile(guarded, code=4)
    log = reconcile(guarded, "--allow-cuts", "1", code=4).err
    assert "bob: not cut off: 2 people would be cut off" in log
    assert "if it is meant: rosterd reconcile --allow-cuts 2" in log
    held = guarded.journal("ROSTERD_EVENT=cut_held", "OS_USER=bob")
    assert held[-1]["MESSAGE"].startswith("bob: not cut off: 2 people would be cut off, --allow-cuts lets 1; if it is")
    after = state(guarded)
    for what in start:
        if " of " in what or what == "records":
            assert after[what] == start[what], what
    assert set(start["/etc/shadow"].splitlines()) <= set(after["/etc/shadow"].splitlines())
    assert entry_of(guarded, "passwd", "erin")
    assert map_lines(guarded) == [f"{name}.id={name}" for name in (*PEOPLE, "erin")]

    assert "Held" not in guarded.run("rosterd", "--dry-run", "--allow-cuts", "2").out
    reconcile(guarded, "--allow-cuts", "2")
    assert logins(guarded, "bob", "carol", "dora") == {"bob": NO_WAY, "carol": NO_WAY, "dora": EVERY_WAY}
    assert commands_of(guarded, "bob") + commands_of(guarded, "carol") == ""
    # Once: what it let through stays done, and a further one has to be asked for again.
    reconcile(guarded)
    write_roster(guarded, {"alice": PEOPLE["alice"]})
    reconcile(guarded, code=4)
    assert logins(guarded, "dora") == {"dora": EVERY_WAY}

    write_roster(guarded, {**PEOPLE, "erin": {}})
    reconcile(guarded)
    after = state(guarded)
    for what in start:
        if what.startswith(("home of", "crontab of", "lingering of")):
            assert after[what] == start[what], what
    assert set(start["/etc/shadow"].splitlines()) <= set(after["/etc/shadow"].splitlines())


def test_an_administrator_is_not_cut_off_by_the_roster(guarded: Machine) -> None:
    write_roster(guarded, {name: fields for name, fields in PEOPLE.items() if name != "alice"})
    reconcile(guarded, "--allow-cuts", "9", code=3)  # forgets what she is called elsewhere
    before = state(guarded)
    log = reconcile(guarded, "--allow-cuts", "9", code=3).err
    assert "alice: conflict: is an administrator and not on the roster" in log
    assert differences(before, state(guarded)) == ""
    assert logins(guarded, "alice") == {"alice": EVERY_WAY}


def test_the_last_administrator_is_not_cut_off_by_a_command_either(guarded: Machine) -> None:
    before = state(guarded)
    assert "no administrator could log in any more" in guarded.run("rosterd", "cut", "alice", "--dry-run").out
    result = guarded.run("rosterd", "cut", "alice", check=False)
    assert result.code == 4, result
    assert "no administrator could log in any more without alice" in result.err
    assert differences(before, state(guarded)) == ""
    assert logins(guarded, "alice") == {"alice": EVERY_WAY}


def test_one_of_two_administrators_is_cut_off_by_a_command_and_then_the_other_is_not(guarded: Machine) -> None:
    write_roster(guarded, {**PEOPLE, "frank": {"tier": "admin"}})
    reconcile(guarded)
    result = guarded.run("rosterd", "cut", "alice")
    assert "alice: was an administrator" in result.err
    assert logins(guarded, "alice") == {"alice": NO_WAY}
    assert map_lines(guarded, "/etc/ttyd-admins") == ["frank"]
    assert guarded.run("rosterd", "cut", "frank", check=False).code == 4
    assert guarded.run("su", "frank", "-c", "true").code == 0
    guarded.run("rosterd", "uncut", "alice")
    assert logins(guarded, "alice") == {"alice": EVERY_WAY}
    for group in ADMIN_GROUPS:
        guarded.run("gpasswd", "--delete", "frank", group)


# --- time passes ---


@pytest.mark.waits
@pytest.mark.timeout(180 + 60 * CRON_MINUTES)
def test_minutes_later_no_job_of_theirs_has_run_nor_does_one_that_came_due_when_they_return(left: Left) -> None:
    machine = left.machine
    wait_for_cron(machine, "carol", CRON_MINUTES)
    eventually(lambda: {"at", "cron.d"} <= set(ran(machine, "carol")), within=10)
    for name in ("bob", "dora"):
        assert ran(machine, name) == left.ran[name]
        assert commands_of(machine, name) == ""
    assert logins(machine, "bob", "dora") == {"bob": NO_WAY, "dora": NO_WAY}

    write_roster(machine, PEOPLE)
    planned = {"bob": dry_run(machine, "--dry-run"), "dora": dry_run(machine, "uncut", "dora", "--dry-run")}
    assert logins(machine, "bob", "dora") == {"bob": NO_WAY, "dora": NO_WAY}
    log = reconcile(machine).err + machine.run("rosterd", "uncut", "dora").err
    for name in ("bob", "dora"):
        assert f"{name}: cut off: yes → no (1 at job came due meanwhile and did not run)" in log
        told = machine.run("journalctl", f"OS_USER={name}", "--output=cat").out
        for line in GIVEN_BACK:
            assert re.search(rf"^  [+~] {line.format(name)}$", planned[name], re.MULTILINE), f"{line}\n{planned[name]}"
            assert re.search(f"^{name}: {line.format(name)}$", told, re.MULTILINE), f"{line}\n{told}"
        assert len(machine.sh("atq | grep -w $1", name).out.splitlines()) == 1
    assert differences(left.before, snapshot(machine, PEOPLE)) == ""
    assert ceiling(machine) == left.ceiling
    assert "MemoryMax=2147483648\nTasksMax=500\n" in left.ceiling
    slice_name = f"user-{machine.run('id', '--user', 'bob').out.strip()}.slice"
    assert left.ceiling.count(f"Slice={slice_name}\n") >= 4  # of two services, as systemd has it and as it is written
    pid = main_pid(machine, "t3-serve@bob.service")
    assert f"/{slice_name}/t3-serve@bob.service" in machine.read(f"/proc/{pid}/cgroup")
    assert logins(machine, "bob", "dora") == {"bob": EVERY_WAY, "dora": EVERY_WAY}
    if CRON_MINUTES > 1:
        wait_for_cron(machine, "bob", 1)
    assert "at" not in (*ran(machine, "bob"), *ran(machine, "dora"))


def wait_for_cron(machine: Machine, name: str, minutes: int) -> None:
    """Wait until cron has run somebody's job this many times more."""
    wanted = ran(machine, name).count("cron") + minutes
    eventually(lambda: ran(machine, name).count("cron") >= wanted, within=60.0 * minutes + 30)
