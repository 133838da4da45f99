"""The Debian package: what installing, upgrading, removing and purging it does, and the service as it is installed."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.machine import Machine
from tests.machine.rootfs import rootfs
from tests.machine.workstation import (
    ROSTER,
    SITE,
    account_lines,
    answer_at,
    bytes_of,
    dispatch,
    entry_of,
    eventually,
    everything,
    groups_of,
    is_enabled,
    is_up,
    look,
    main_pid,
    map_lines,
    owner_of,
    reconcile,
    roster,
    stop_own_units,
    workstation,
    write_roster,
)

OWN_UNITS = (
    "rosterd.service",
    "rosterd.timer",
    "rosterd.path",
    "rosterd-recheck.service",
    "rosterd-failed.service",
)
TEMPLATES = ("t3-serve@", "playwright-mcp@", "playwright-snapshot-refresh@")
SERVICES = [f"{template}{name}.service" for template in TEMPLATES[:2] for name in ("alice", "bob")]


@pytest.fixture
def served(deb: Path) -> Iterator[Machine]:
    """Boot a workstation on which the service has made a run for alice and bob."""
    with workstation(deb) as machine:
        write_roster(machine, {"alice": {"tier": "admin"}, "bob": {}})
        machine.run("systemctl", "start", "rosterd.service")
        machine.run("systemctl", "start", "rosterd.path", "rosterd.timer")
        yield machine


@pytest.fixture(scope="module")
def shipped(deb: Path) -> Iterator[Machine]:
    """Boot a machine with the package; whoever uses it only looks at what the package brought."""
    with Machine(rootfs("bookworm")) as machine:
        machine.install(deb)
        yield machine


def dpkg(machine: Machine, *arguments: str) -> None:
    """Call dpkg without questions."""
    machine.run("dpkg", *arguments, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=120)


def people_of(machine: Machine) -> str:
    """Return all that is people's: their account lines, files, env files, maps, and running services."""
    lines = account_lines(machine, "alice") + account_lines(machine, "bob")
    files = machine.sh("find /home /etc/t3-serve /etc/ttyd-* -printf '%p %i %m %U:%G %C@\\n' | sort").out
    links = machine.sh("find /etc/systemd/system -name '*@alice.*' -o -name '*@bob.*' | sort").out
    pids = [main_pid(machine, unit) for unit in SERVICES]
    assert 0 not in pids
    return f"{lines}{files}{links}{pids}"


# --- installing ---


def test_installing_starts_the_timer_and_the_path_unit_and_makes_no_run(shipped: Machine) -> None:
    for unit in ("rosterd.timer", "rosterd.path"):
        assert is_enabled(shipped, unit)
        assert is_up(shipped, unit)
    assert shipped.run("systemctl", "show", "--property=ExecMainPID", "--value", "rosterd").out.strip() == "0"
    assert entry_of(shipped, "group", "rosterd")[3] == ""
    assert [line for line in shipped.read("/etc/passwd").splitlines() if ":/home/" in line] == []
    assert shipped.run("ls", "-A", "/etc/rosterd", "/etc/t3-serve", "/home").out.split() == [
        *("/etc/rosterd:", "/etc/t3-serve:", "/home:")
    ]
    assert not shipped.exists("/var/lib/rosterd")
    assert shipped.run("systemctl", "--failed", "--no-legend", "--plain").out == ""


def test_without_a_roster_a_start_of_the_service_is_skipped_and_with_one_the_edit_makes_the_run(
    installed: Machine,
) -> None:
    installed.run("systemctl", "start", "rosterd.service")
    assert installed.run("systemctl", "show", "--property=ExecMainPID", "--value", "rosterd").out.strip() == "0"
    installed.write(ROSTER, roster({"alice": {}}))
    eventually(lambda: entry_of(installed, "passwd", "alice") != [], within=2)


def test_the_units_of_the_package_have_no_faults(shipped: Machine) -> None:
    units = [*OWN_UNITS, *(f"{template}alice.service" for template in TEMPLATES)]
    timer = "playwright-snapshot-refresh@alice.timer"
    # What the templates start is not part of the package.
    for program in ("/usr/bin/t3", "/usr/bin/npx", "/etc/rosterd/on-failure"):
        shipped.write(program, "#!/bin/sh\n", mode=0o755)
    result = shipped.run("systemd-analyze", "verify", "--man=no", *units, timer, check=False)
    shipped.run("rm", "/etc/rosterd/on-failure")
    assert (result.code, result.out, result.err) == (0, "", ""), result


@pytest.mark.parametrize("unit", ["rosterd.service", "rosterd-failed.service"])
def test_a_service_is_exposed_to_2_5_at_most(shipped: Machine, unit: str) -> None:
    told = shipped.run("systemd-analyze", "security", "--no-pager", unit).out
    found = re.search(rf"Overall exposure level for {unit}: ([0-9.]+)", told)
    assert found
    assert float(found[1]) <= 2.5


@pytest.mark.parametrize(
    ("page", "heading"),
    [("man8/rosterd.8", "rosterd"), ("man5/rosterd-roster.5", "rosterd-roster"), ("man5/rosterd-site.5", "rosterd-")],
)
def test_the_man_pages_are_there(shipped: Machine, page: str, heading: str) -> None:
    text = gzip.decompress(bytes_of(shipped, f"/usr/share/man/{page}.gz")).decode()
    assert re.search(rf'^\.TH "{heading}', text, re.MULTILINE)
    assert ".SH NAME" in text


def test_every_page_that_a_unit_names_is_there(shipped: Machine) -> None:
    named = shipped.sh("grep -h ^Documentation= /usr/lib/systemd/system/rosterd*").out
    for name, section in set(re.findall(r"man:([\w-]+)\((\d)\)", named)):
        assert shipped.exists(f"/usr/share/man/man{section}/{name}.{section}.gz")


# --- the service as installed ---


@pytest.fixture(scope="module")
def sandboxed(deb: Path) -> Iterator[Machine]:
    """Boot a workstation on which the service has made a first run in which it had everything to do."""
    with workstation(deb) as machine:
        machine.sh("mkdir -m 2755 /etc/skel/shared; touch /etc/skel/shared/file")
        machine.write(SITE, "settle: 1\ncreate_groups: true\ntiers: {power-user: {groups: [lab]}}\n")
        machine.run("useradd", "--create-home", "--groups", "video", "ada")
        write_roster(machine, {"alice": {}, "bob": {}, "ada": {"adopt": True}})
        machine.run("systemctl", "start", "rosterd.service")
        yield machine


def test_the_service_makes_a_whole_first_run_in_its_sandbox(sandboxed: Machine) -> None:
    for name in ("alice", "bob", "ada"):
        assert groups_of(sandboxed, name) >= {name, "rosterd", "lab"}
        assert look(sandboxed, f"/etc/t3-serve/{name}.env") == "root:root 600"
        assert owner_of(sandboxed, main_pid(sandboxed, f"t3-serve@{name}.service")) == name
        assert is_enabled(sandboxed, f"t3-serve@{name}.service")
    for name in ("alice", "bob"):
        assert sandboxed.run("passwd", "--status", name).out.split()[1] == "L"
        assert look(sandboxed, f"/home/{name}") == f"{name}:{name} 700"
        assert look(sandboxed, f"/home/{name}/.bashrc") == f"{name}:{name} 644"
        assert sandboxed.exists(f"/home/{name}/shared/file")
        for file in ("/etc/subuid", "/etc/subgid"):
            assert f"{name}:" in sandboxed.read(file)
    assert sandboxed.run("find", "/home", "-mindepth", "1", "-user", "root").out == ""
    assert answer_at(sandboxed, 3773) == "ada"
    assert map_lines(sandboxed) == ["ada.id=ada", "alice.id=alice", "bob.id=bob"]
    assert len(dispatch(sandboxed)) == 3


def test_the_sandbox_costs_the_skel_none_of_its_modes(sandboxed: Machine) -> None:
    for name in ("alice", "bob"):
        assert look(sandboxed, f"/home/{name}/shared") == f"{name}:{name} 2755"


def test_the_sandbox_is_in_nobodys_way(sandboxed: Machine) -> None:
    assert sandboxed.journal("--unit=rosterd.service", "--priority=warning") == []


def test_runs_of_the_service_and_by_hand_find_nothing_to_do_after_each_other(sandboxed: Machine) -> None:
    before = everything(sandboxed)
    sandboxed.run("systemctl", "start", "rosterd.service")
    reconcile(sandboxed)
    assert everything(sandboxed) == before


def test_the_service_completes_in_its_sandbox_what_was_left_half_made(served: Machine) -> None:
    stop_own_units(served)
    alice = account_lines(served, "alice")
    served.sh("""
        systemctl stop t3-serve@bob.service playwright-mcp@bob.service
        rm -r /home/bob
        sed -i '/^bob:/d' /etc/shadow /etc/subuid /etc/subgid /etc/group /etc/gshadow
        gpasswd --add ghost rosterd 2>/dev/null || sed -i '/^rosterd:/s/$/,ghost/' /etc/group
    """)
    served.run("systemctl", "start", "rosterd.service")
    assert look(served, "/home/bob") == "bob:bob 700"
    assert look(served, "/home/bob/.bashrc").startswith("bob:bob ")
    assert bytes_of(served, "/home/bob/.bashrc") == bytes_of(served, "/etc/skel/.bashrc")
    assert served.run("passwd", "--status", "bob").out.split()[1] == "L"
    for file in ("/etc/subuid", "/etc/subgid", "/etc/group"):
        assert re.search("^bob:", served.read(file), re.MULTILINE)
    assert "ghost" not in served.read("/etc/group")
    assert owner_of(served, main_pid(served, "t3-serve@bob.service")) == "bob"
    assert account_lines(served, "alice") == alice


# --- upgrading and removing ---


def test_an_upgrade_leaves_peoples_services_running_and_its_own_units_too(served: Machine, deb: Path) -> None:
    before = people_of(served)
    dpkg(served, "--install", f"/var/cache/apt/archives/{deb.name}")
    assert people_of(served) == before
    assert is_up(served, "rosterd.timer")
    assert is_up(served, "rosterd.path")


def test_removing_stops_rosterd_and_touches_nobody_and_purging_takes_its_own_state_alone(
    served: Machine, deb: Path
) -> None:
    before = people_of(served)
    site, who = served.read(SITE), served.read(ROSTER)

    dpkg(served, "--remove", "rosterd")
    assert people_of(served) == before
    for unit in OWN_UNITS:
        assert not is_up(served, unit)
    assert not served.exists("/usr/sbin/rosterd")
    assert served.exists("/var/lib/rosterd")

    dpkg(served, "--purge", "rosterd")
    assert people_of(served) == before
    assert not served.exists("/var/lib/rosterd")
    assert not served.exists("/run/rosterd")
    assert sorted(entry_of(served, "group", "rosterd")[3].split(",")) == ["alice", "bob"]
    assert (served.read(SITE), served.read(ROSTER)) == (site, who)
    assert served.run("find", "/etc/systemd/system", "-name", "rosterd*").out == ""

    # Installed again it finds its people again, and has nothing to do.
    dpkg(served, "--install", f"/var/cache/apt/archives/{deb.name}")
    stop_own_units(served)
    reconcile(served)
    assert people_of(served) == before


def test_removing_leaves_no_unit_failed(served: Machine) -> None:
    dpkg(served, "--remove", "rosterd")
    assert served.run("systemctl", "--failed", "--no-legend", "--plain").out == ""
