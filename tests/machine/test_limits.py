"""Limits: one ceiling a person, for what they do in logins and what they run as services."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.busy import let_in, ssh, uid_of
from tests.machine.limits import (
    CAP,
    RELOAD_DUE,
    control_group,
    drop_in,
    drop_ins,
    enforced,
    limited_workstation,
    properties,
    services_of,
    site,
    undisturbed,
    write_limits,
)
from tests.machine.machine import Machine
from tests.machine.workstation import (
    SITE,
    answer_at,
    eventually,
    everything,
    is_up,
    look,
    main_pid,
    reconcile,
    traced,
    write_roster,
)

PEOPLE: dict[str, dict[str, Any]] = {"alice": {"tier": "admin"}, "bob": {}, "bob-smith": {}, "carol": {}}
PORTS = {"alice": 3773, "bob": 3774, "bob-smith": 3775, "carol": 3776}
KILLED = "child ended by 9"
# In a login: allocates past the cap in a child, and says what the shell made of that.
EAT = "python3 -c 'b\"x\" * (400 << 20)'; echo ended with $?; cat /proc/self/cgroup"


@pytest.fixture(scope="module")
def shared(deb: Path) -> Iterator[Machine]:
    """Boot a workstation with everybody in place; whoever uses it brings it back to how it was."""
    with limited_workstation(deb) as machine:
        machine.write(SITE, site())
        write_roster(machine, PEOPLE)
        reconcile(machine)
        let_in(machine, *PEOPLE)
        yield machine


@pytest.fixture
def machine(shared: Machine) -> Iterator[Machine]:
    """Return the workstation, and bring it back afterwards.

    Where limits were changed, people's slices begin anew. On cgroup v1, systemd 252 has been seen to hand on no further
    change of a slice whose limits were taken away and given back while its services went on running.
    """
    before = shared.run("stat", "--format=%i", SITE).out
    yield shared
    is_other = shared.run("stat", "--format=%i", SITE).out != before
    shared.write(SITE, site())
    write_roster(shared, PEOPLE)
    reconcile(shared)
    if is_other:
        shared.run("systemctl", "stop", *(slice_of(shared, name) for name in PEOPLE))
        reconcile(shared)


def slice_of(machine: Machine, name: str) -> str:
    """Return the slice that logind puts a person's sessions into."""
    return f"user-{uid_of(machine, name)}.slice"


def eat(machine: Machine, name: str) -> str:
    """Have a person's server let a child take too much; return what it says came of that."""
    return machine.run("curl", "--silent", "--max-time", "50", f"http://127.0.0.1:{PORTS[name]}/eat").out.strip()


# --- what is set ---


def test_a_persons_slice_has_the_limits_of_their_tier_and_the_kernel_has_them_too(machine: Machine) -> None:
    for name in ("bob", "bob-smith", "carol"):
        told = properties(
            machine, slice_of(machine, name), "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec", "LoadState", "DropInPaths"
        )
        assert (told["MemoryMax"], told["TasksMax"]) == (str(CAP), "200")
        assert told["CPUQuotaPerSecUSec"] == "1.500000s"
        held = enforced(machine, slice_of(machine, name))
        assert (held["memory"], held["tasks"]) == (str(CAP), "200")
        assert held["cpu"] in ("150000", "150000 100000")
        assert look(machine, drop_in(slice_of(machine, name))) == "root:root 644"


def test_who_is_of_a_tier_without_limits_has_no_drop_in(machine: Machine) -> None:
    limited = ["bob", "bob-smith", "carol"]
    expected = [slice_of(machine, name) for name in limited] + [unit for name in limited for unit in services_of(name)]
    assert drop_ins(machine) == sorted(expected)
    assert properties(machine, slice_of(machine, "alice"), "MemoryMax")["MemoryMax"] == "infinity"
    assert control_group(machine, "t3-serve@alice.service").startswith("/system.slice/")


def test_services_and_logins_are_in_the_same_slice_and_names_that_begin_alike_do_not_nest(machine: Machine) -> None:
    for name in ("bob", "bob-smith"):
        place = f"/user.slice/{slice_of(machine, name)}"
        for unit in (f"t3-serve@{name}.service", f"playwright-mcp@{name}.service"):
            assert control_group(machine, unit) == f"{place}/{unit}"
        session = machine.run(*ssh(name, "cat /proc/self/cgroup")).out
        assert f":{place}/session-" in session
    assert control_group(machine, slice_of(machine, "bob-smith")) == f"/user.slice/{slice_of(machine, 'bob-smith')}"


def test_the_settings_and_the_text_of_the_files_are_those_of_systemd(machine: Machine) -> None:
    text = machine.read(drop_in(slice_of(machine, "bob")))
    assert text.startswith("# Written by rosterd")
    assert text.splitlines()[1:] == ["[Slice]", "MemoryMax=96M", "CPUQuota=150%", "TasksMax=200"]
    placed = machine.read(drop_in("t3-serve@bob.service")).splitlines()[1:]
    assert placed == ["[Service]", f"Slice={slice_of(machine, 'bob')}"]
    said = machine.run("systemd-analyze", "verify", "--man=no", slice_of(machine, "bob"), "t3-serve@bob.service")
    assert (said.out, said.err) == ("", "")


# --- what it does ---


def test_a_child_of_a_service_that_takes_too_much_dies_alone(machine: Machine) -> None:
    before = undisturbed(machine, *PEOPLE)
    assert properties(machine, "t3-serve@bob.service", "OOMPolicy")["OOMPolicy"] == "continue"
    assert eat(machine, "bob") == KILLED
    assert answer_at(machine, PORTS["bob"]) == "bob"
    assert undisturbed(machine, *PEOPLE) == before
    assert {found["NRestarts"] for found in before.values()} == {"0"}


def test_who_has_no_limits_may_take_as_much(machine: Machine) -> None:
    assert eat(machine, "alice") == "child ended by 0"


def test_what_takes_too_much_in_a_login_dies_and_the_login_goes_on(machine: Machine) -> None:
    before = undisturbed(machine, *PEOPLE)
    session = machine.run(*ssh("bob", EAT)).out
    assert "ended with 137\n" in session
    assert f"/user.slice/{slice_of(machine, 'bob')}/session-" in session
    assert "ended with 0\n" in machine.run(*ssh("alice", EAT)).out
    assert undisturbed(machine, *PEOPLE) == before


def test_a_login_and_the_services_share_one_ceiling(machine: Machine) -> None:
    """Most of the cap in one of them is fine, and too much once the other takes as much."""
    before = undisturbed(machine, *PEOPLE)
    as_much = "python3 -c 'b\"x\" * (50 << 20)'; echo ended with $?"
    assert machine.run(*ssh("bob", as_much)).out == "ended with 0\n"
    child = machine.run("curl", "--silent", f"http://127.0.0.1:{PORTS['bob']}/hold").out.strip()
    assert has_ended(machine, child) is False
    assert machine.run(*ssh("carol", as_much)).out == "ended with 0\n"
    assert has_ended(machine, child) is False

    login = machine.run(*ssh("bob", as_much)).out
    assert login == "ended with 137\n" or has_ended(machine, child)
    assert undisturbed(machine, *PEOPLE) == before
    machine.run("kill", "-KILL", child, check=False)


def has_ended(machine: Machine, pid: str) -> bool:
    """Say whether a process is no more, or is only still to be waited for."""
    return machine.run("ps", "--format", "stat=", "--pid", pid, check=False).out.strip()[:1] in ("", "Z")


def test_tasks_are_counted_over_logins_and_services_together(machine: Machine) -> None:
    write_limits(machine, "{tasks_max: 64}")
    reconcile(machine)
    try:
        forks = "for i in $(seq 80); do sleep 5 & done 2>&1; true"
        said = machine.run(*ssh("carol", "sh", "-c", f"'{forks}'"), check=False)
        assert "fork" in (said.out + said.err).lower()
        assert machine.run(*ssh("alice", "sh", "-c", f"'{forks}'")).err == ""
    finally:
        machine.run("pkill", "--exact", "sleep", check=False)
    assert answer_at(machine, PORTS["carol"]) == "carol"


# --- what changes ---


def test_a_changed_cap_holds_without_a_restart(machine: Machine) -> None:
    before = undisturbed(machine, *PEOPLE)
    write_limits(machine, "{memory_max: 700M, tasks_max: 200}")
    said = reconcile(machine)
    assert "bob: user-1001.slice: memory_max 96M → 700M, cpu_quota 150% → none" in said.err
    assert properties(machine, slice_of(machine, "bob"), "MemoryMax")["MemoryMax"] == str(700 << 20)
    assert enforced(machine, slice_of(machine, "bob"))["memory"] == str(700 << 20)
    assert enforced(machine, slice_of(machine, "bob"))["cpu"] in ("", "-1", "max 100000")
    assert eat(machine, "bob") == "child ended by 0"

    machine.write(SITE, site())
    reconcile(machine)
    assert eat(machine, "bob") == KILLED
    assert undisturbed(machine, *PEOPLE) == before


def test_many_drop_ins_are_read_by_one_reload(machine: Machine) -> None:
    write_limits(machine, "{memory_max: 128M}")
    assert traced(machine, "rosterd").bus_methods.count("Reload") == 1
    assert not machine.exists(RELOAD_DUE)


def test_another_tier_brings_its_limits_and_none_takes_them_away(machine: Machine) -> None:
    write_limits(machine, "{memory_max: 96M}", guest="{memory_max: 200M}")
    reconcile(machine)
    slice_name = slice_of(machine, "carol")
    write_roster(machine, {**PEOPLE, "carol": {"tier": "guest"}})
    reconcile(machine)
    assert properties(machine, slice_name, "MemoryMax")["MemoryMax"] == str(200 << 20)

    carol = {"tier": "namespace-owner", "namespaces": ["shop"]}
    write_roster(machine, {**PEOPLE, "carol": carol})
    reconcile(machine)
    assert not [unit for unit in drop_ins(machine) if "carol" in unit or unit == slice_name]
    assert not machine.exists(f"/etc/systemd/system/{slice_name}.d")
    assert properties(machine, slice_name, "MemoryMax")["MemoryMax"] == "infinity"


def test_limits_taken_out_of_the_policy_leave_no_file(machine: Machine) -> None:
    machine.write("/etc/systemd/system/t3-serve@bob.service.d/site.conf", "[Service]\nEnvironment=A=b\n")
    write_limits(machine, "null")
    reconcile(machine)
    assert drop_ins(machine) == []
    assert machine.run("ls", "/etc/systemd/system/t3-serve@bob.service.d").out == "site.conf\n"
    assert enforced(machine, slice_of(machine, "bob"))["memory"] != str(CAP)
    assert "nothing to do" in reconcile(machine).out
    machine.run("rm", "-r", "/etc/systemd/system/t3-serve@bob.service.d")


@pytest.mark.parametrize("damage", ["echo MemoryMax=1G >>$1", "rm $1", ": >$1", "sed -i s/96M/97M/ $1"])
def test_a_drop_in_that_somebody_changed_is_put_back(machine: Machine, damage: str) -> None:
    path = drop_in(slice_of(machine, "bob"))
    before = machine.read(path)
    machine.sh(damage, path)
    machine.run("systemctl", "daemon-reload")
    assert slice_of(machine, "bob") in reconcile(machine).err
    assert machine.read(path) == before
    assert properties(machine, slice_of(machine, "bob"), "MemoryMax")["MemoryMax"] == str(CAP)


def test_drop_ins_of_others_are_not_touched(machine: Machine) -> None:
    # The last has the name that rosterd gives to its own.
    paths = tuple(
        f"/etc/systemd/system/{place}.conf"
        for place in ("user-.slice.d/50-site", "ssh.service.d/50-site", "rosterd.service.d/50-rosterd")
    )
    sections = ("[Slice]\nTasksMax=9999\n", "[Service]\nNice=0\n", "[Service]\nReadWritePaths=/srv\n")
    for path, section in zip(paths, sections, strict=True):
        machine.write(path, section)
    before = machine.run("stat", "--format=%i %Z", *paths).out
    write_limits(machine, "{memory_max: 128M}")
    reconcile(machine)
    write_limits(machine, "null")
    reconcile(machine)
    assert machine.run("stat", "--format=%i %Z", *paths).out == before
    machine.run("rm", "-r", *(path.rpartition("/")[0] for path in paths))


# --- what runs already ---


def test_an_instance_that_runs_elsewhere_is_left_there_and_told(machine: Machine) -> None:
    unit = "t3-serve@bob.service"
    write_limits(machine, "null")
    reconcile(machine)
    machine.run("systemctl", "restart", *services_of("bob")[::2])
    assert control_group(machine, unit).startswith("/system.slice/")
    before = undisturbed(machine, *PEOPLE)

    machine.write(SITE, site())
    said = reconcile(machine)
    assert undisturbed(machine, *PEOPLE) == before
    assert control_group(machine, unit).startswith("/system.slice/")
    for pending in (unit, "playwright-mcp@bob.service"):
        assert f"restart pending, {pending} runs outside of {slice_of(machine, 'bob')}" in said.err
    assert "restart pending" in reconcile(machine).err
    assert eat(machine, "bob") == "child ended by 0"

    machine.run("systemctl", "restart", *services_of("bob")[::2])
    assert control_group(machine, unit) == f"/user.slice/{slice_of(machine, 'bob')}/{unit}"
    answer_at(machine, PORTS["bob"])
    assert "restart pending" not in reconcile(machine).err
    assert eat(machine, "bob") == KILLED


def test_services_do_not_notice_logins_nor_lingering(machine: Machine) -> None:
    before = undisturbed(machine, "bob")
    uid = str(uid_of(machine, "bob"))
    machine.run(*ssh("bob", "true"))
    eventually(lambda: not machine.exists(f"/run/user/{uid}"), within=20)  # the last session has ended
    assert undisturbed(machine, "bob") == before
    machine.run("loginctl", "enable-linger", "bob")
    eventually(lambda: is_up(machine, f"user@{uid}.service"), within=10)
    machine.run("loginctl", "disable-linger", "bob")
    eventually(lambda: not is_up(machine, f"user@{uid}.service"), within=20)
    machine.run(*ssh("bob", "true"))
    machine.run("loginctl", "terminate-user", "bob", check=False)
    eventually(lambda: not machine.exists(f"/run/user/{uid}"), within=20)
    assert undisturbed(machine, "bob") == before
    assert answer_at(machine, PORTS["bob"]) == "bob"


# --- a run that is killed, a bus that is away ---


def test_a_run_killed_before_the_reload_is_finished_by_the_next(machine: Machine) -> None:
    write_limits(machine, "{memory_max: 128M}")
    # The mark is the first file that this run puts in place, then come the drop-ins of three people.
    for number in ("2", "3"):
        kill = ("-e", "trace=renameat", "-e", f"inject=renameat:signal=SIGKILL:when={number}")
        machine.run("strace", "-f", "-qq", "-o", "/dev/null", *kill, "rosterd", check=False)
        assert machine.exists(RELOAD_DUE)
    assert properties(machine, slice_of(machine, "bob"), "MemoryMax")["MemoryMax"] == str(CAP)
    reconcile(machine)
    for name in ("bob", "bob-smith", "carol"):
        assert properties(machine, slice_of(machine, name), "MemoryMax")["MemoryMax"] == str(128 << 20)
    assert not machine.exists(RELOAD_DUE)


def test_a_run_killed_after_the_last_drop_in_is_finished_by_the_next(machine: Machine) -> None:
    write_limits(machine, "{memory_max: 128M}")
    script = """
        import os, signal
        from reconciler.host.bus import Systemd
        from reconciler.cli import main
        Systemd.reload = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        main()
    """
    code = "\n".join(line.strip() for line in script.splitlines())
    machine.run("python3", "-c", code, "reconcile", check=False)
    assert "MemoryMax=128M" in machine.read(drop_in(slice_of(machine, "bob")))
    assert properties(machine, slice_of(machine, "bob"), "MemoryMax")["MemoryMax"] == str(CAP)
    assert machine.exists(RELOAD_DUE)
    assert "systemd: drop-ins changed → read" in machine.run("rosterd", "--dry-run").out
    assert "systemd: drop-ins changed → read" in reconcile(machine).err
    assert properties(machine, slice_of(machine, "bob"), "MemoryMax")["MemoryMax"] == str(128 << 20)
    assert not machine.exists(RELOAD_DUE)
    assert "nothing to do" in reconcile(machine).out


def test_while_the_bus_is_away_the_files_are_written_and_read_later(machine: Machine) -> None:
    write_limits(machine, "{memory_max: 128M}")
    machine.run("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        done = machine.run("rosterd", "reconcile", check=False)
        assert done.code == 3, done
        assert "MemoryMax=128M" in machine.read(drop_in(slice_of(machine, "bob")))
    finally:
        machine.run("systemctl", "start", "dbus.socket", "dbus.service")
        machine.run("systemctl", "restart", "systemd-logind.service")
    reconcile(machine)
    assert properties(machine, slice_of(machine, "bob"), "MemoryMax")["MemoryMax"] == str(128 << 20)
    assert not machine.exists(RELOAD_DUE)


# --- the second run, and the dry one ---


def test_a_second_run_has_nothing_to_do_and_writes_nothing(machine: Machine) -> None:
    reconcile(machine)
    let_logins_end(machine)
    before = everything(machine)
    trace = traced(machine, "rosterd")
    assert trace.result.code == 0, trace.result
    assert "nothing to do" in trace.result.out
    assert (trace.programs, trace.changes_beyond_its_own) == ([], [])
    assert "Reload" not in trace.bus_methods
    assert everything(machine) == before


def test_a_dry_run_says_what_would_change_and_changes_nothing(machine: Machine) -> None:
    let_logins_end(machine)
    before = everything(machine)
    write_limits(machine, "{memory_max: 1G, tasks_max: 200}")
    told = machine.run("rosterd", "--dry-run").out
    assert "~ user-1001.slice: memory_max 96M → 1G, cpu_quota 150% → none" in told
    machine.write(SITE, site())
    assert not machine.exists(RELOAD_DUE)
    assert without_site(everything(machine)) == without_site(before)


def let_logins_end(machine: Machine) -> None:
    """Wait until people's own managers have ended, as they do a while after the last login."""
    listed = ("systemctl", "list-units", "--no-legend", "--plain", "user@*.service")
    eventually(lambda: machine.run(*listed).out == "", within=30)


def without_site(text: str) -> str:
    """Return a snapshot without the folder of the policy, which the test itself edits."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("/etc/rosterd"))


# --- people who leave ---


def test_who_is_cut_off_keeps_the_drop_ins_and_runs_nothing_and_returns_into_them(machine: Machine) -> None:
    machine.start(*ssh("carol", "exec sleep 600"))
    eventually(lambda: machine.run("pgrep", "--uid", "carol", "--exact", "sleep", check=False).code == 0, within=10)
    mine = [slice_of(machine, "carol"), *services_of("carol")]
    write_roster(machine, {name: fields for name, fields in PEOPLE.items() if name != "carol"})
    reconcile(machine)
    assert machine.run("ps", "-u", "carol", "-o", "args=", check=False).out == ""
    assert not is_up(machine, slice_of(machine, "carol"))
    assert set(mine) <= set(drop_ins(machine))
    assert "nothing to do" in reconcile(machine).out

    write_roster(machine, PEOPLE)
    reconcile(machine)
    unit = "t3-serve@carol.service"
    assert control_group(machine, unit) == f"/user.slice/{slice_of(machine, 'carol')}/{unit}"
    assert eat(machine, "carol") == KILLED
    assert main_pid(machine, unit) != 0


def test_who_is_deleted_leaves_no_drop_in_after_the_next_run(machine: Machine) -> None:
    people = {**PEOPLE, "zoe": {}}
    write_roster(machine, people)
    reconcile(machine)
    slice_name = slice_of(machine, "zoe")
    assert slice_name in drop_ins(machine)
    write_roster(machine, PEOPLE)
    reconcile(machine)
    machine.run("rosterd", "destroy", "zoe", "--yes", "zoe")
    reconcile(machine)
    assert not [unit for unit in drop_ins(machine) if "zoe" in unit or unit == slice_name]
    assert properties(machine, slice_name, "MemoryMax")["MemoryMax"] == "infinity"
    assert "nothing to do" in reconcile(machine).out


# --- the other release ---


def test_the_whole_of_it_on_debian_13(deb: Path) -> None:
    with limited_workstation(deb, "trixie") as machine:
        machine.write(SITE, site())
        write_roster(machine, PEOPLE)
        reconcile(machine)
        let_in(machine, "bob", "carol")
        before = undisturbed(machine, *PEOPLE)
        assert enforced(machine, slice_of(machine, "bob"))["memory"] == str(CAP)
        assert eat(machine, "bob") == KILLED
        assert "ended with 137\n" in machine.run(*ssh("bob", EAT)).out
        assert eat(machine, "alice") == "child ended by 0"
        machine.run(*ssh("carol", "true"))
        assert undisturbed(machine, *PEOPLE) == before
        write_limits(machine, "{memory_max: 700M}")
        reconcile(machine)
        assert properties(machine, slice_of(machine, "bob"), "MemoryMax")["MemoryMax"] == str(700 << 20)
        # On cgroup v1, which systemd 257 supports no more, a slice that runs keeps its cap through a reload.
        if not machine.exists("/sys/fs/cgroup/memory"):
            assert eat(machine, "bob") == "child ended by 0"
        assert "nothing to do" in reconcile(machine).out
