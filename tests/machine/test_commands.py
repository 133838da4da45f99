"""The commands from a checkout, with Debian's own Python and nothing installed; and `adopt`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.machine import CHECKOUT, Machine, Result
from tests.machine.rootfs import rootfs
from tests.machine.workstation import (
    ROSTER,
    account_lines,
    answer_at,
    dispatch,
    entry_of,
    everything,
    groups_of,
    is_enabled,
    main_pid,
    map_lines,
    owner_of,
    prepare,
    reconcile,
    roster,
    workstation,
    write_roster,
)

PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {"tier": "admin"},
    "bob": {"tier": "namespace-owner", "namespaces": ["shop"], "code_layout": "workspace", "repos": ["web", "api"]},
    "carol": {"parked": True},
}


@pytest.fixture(scope="module")
def bare(deb: Path) -> Iterator[Machine]:  # noqa: ARG001 - so that `make deb` is asked for once, up front
    """Boot a machine without the package, with rosters that anybody can read; tests in it change nothing else."""
    with Machine(rootfs("bookworm")) as machine:
        machine.run("useradd", "--create-home", "zoe")
        machine.write("/tmp/roster.yaml", roster(PEOPLE))
        machine.write("/tmp/blocked/gi/__init__.py", "raise ImportError('blocked by a test')\n")
        machine.write("/tmp/blocked/pydbus/__init__.py", "raise ImportError('blocked by a test')\n")
        yield machine


@pytest.fixture
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a workstation that has had no run yet."""
    with workstation(deb) as machine:
        yield machine


def as_zoe(machine: Machine, *arguments: str) -> Result:
    """Call the checkout as somebody without rights, where neither pydbus nor gi can be imported."""
    user = ("runuser", "--user", "zoe", "--", "env", "PYTHONPATH=/src:/tmp/blocked")
    return machine.run(*user, "/usr/bin/python3", "-m", "reconciler", *arguments, check=False)


def with_ports(machine: Machine, name: str, ports: dict[str, int]) -> str:
    """Write a file of ports that anybody can read, and return its path."""
    path = f"/tmp/{name}.json"
    machine.write(path, json.dumps(ports))
    return path


# --- from a checkout ---


def test_a_checkout_makes_a_whole_run_with_debians_own_python() -> None:
    with Machine(rootfs("bookworm")) as machine:
        prepare(machine)
        machine.sh("cp /src/units/*@* /etc/systemd/system/; systemctl daemon-reload")
        write_roster(machine, PEOPLE)
        command = ("env", "--chdir=/src", "/usr/bin/python3", "-m", "reconciler")
        plan = machine.run(*command, "--dry-run").out
        assert "Plan: " in plan
        assert entry_of(machine, "passwd", "alice") == []
        machine.run(*command, "reconcile")
        assert groups_of(machine, "alice") == {"alice", "rosterd", "docker", "sudo", "code-shared"}
        assert owner_of(machine, main_pid(machine, "t3-serve@bob.service")) == "bob"
        assert answer_at(machine, 3773) == "alice"
        assert "nothing to do" in machine.run(*command, "reconcile").out


def test_the_example_roster_is_valid(bare: Machine) -> None:
    result = as_zoe(bare, "validate", "--roster", "/src/roster.yaml")
    assert result.code == 0, result


def test_validate_needs_neither_root_nor_the_bus(bare: Machine) -> None:
    result = as_zoe(bare, "validate", "--roster", "/tmp/roster.yaml")
    assert result.code == 0, result
    bare.write("/tmp/bad.yaml", roster({"alice": {"tier": "king"}, "bob": {"parked": "yes"}}))
    result = as_zoe(bare, "validate", "--roster", "/tmp/bad.yaml")
    assert result.code == 5, result
    assert "/tmp/bad.yaml:2:" in result.err
    assert "/tmp/bad.yaml:3:" in result.err


def test_validate_compares_tiers_with_the_clusters(bare: Machine) -> None:
    grants = "/tmp/grants.json"
    check = ("validate", "--roster", "/tmp/roster.yaml", "--k8s-users-json", grants)
    bare.write(grants, json.dumps({"alice": "power-user", "bob": "namespace-owner"}))
    result = as_zoe(bare, *check)
    assert result.code == 0, result
    assert [line.split(":")[0] for line in result.err.splitlines()] == ["WARN"]
    assert "carol" in result.err

    bare.write(grants, json.dumps({"bob": "power-user", "carol": "power-user"}))
    result = as_zoe(bare, *check)
    assert result.code == 1, result
    assert [line.split(":")[0] for line in result.err.splitlines()] == ["ERROR"]
    assert "bob" in result.err


def test_derive_tells_the_desired_state_from_the_files_alone(bare: Machine) -> None:
    t3 = with_ports(bare, "t3", {"bob": 3773, "gone": 3774})
    playwright = with_ports(bare, "playwright", {"carol": 9000})
    arguments = ("--ports-json", t3, "--playwright-ports-json", playwright)
    result = as_zoe(bare, "derive", "--roster", "/tmp/roster.yaml", *arguments)
    assert result.code == 0, result
    derived = json.loads(result.out)
    assert result.out == json.dumps(derived, indent=2, sort_keys=True) + "\n"
    assert derived["ports"] == {"alice": 3774, "bob": 3773, "carol": 3775}
    assert derived["playwright_ports"] == {"alice": 8931, "bob": 8932, "carol": 9000}
    assert derived["dispatch"] == {
        "alice.id": {"os_user": "alice", "port": 3774},
        "bob.id": {"os_user": "bob", "port": 3773},
    }
    lines = [line for line in derived["ttyd_user_map"].splitlines() if not line.startswith("#")]
    assert lines == ["bob.id=bob", "alice.id=alice", "carol.id=carol"]
    assert derived["accounts"]["bob"] == {
        "os_user": "bob",
        "tier": "namespace-owner",
        "shell": "/bin/zsh",
        "login_locked": True,
        "groups": [],
        "code_layout": "workspace",
        "repos": ["web", "api"],
    }
    assert derived["accounts"]["alice"]["groups"] == ["code-shared", "docker", "sudo"]


def test_deprovision_names_who_left_and_what_there_is_to_undo(bare: Machine) -> None:
    bare.write("/tmp/new.yaml", roster({"bob": PEOPLE["bob"]}))
    command = ("deprovision", "--old", "/tmp/roster.yaml", "--new", "/tmp/new.yaml")
    assert as_zoe(bare, *command).out == "alice\ncarol\n"
    kinds = [
        *("disable_instance", "unmap_dispatch", "remove_from_t3_group"),
        *("lock_login", "revoke_cluster_rbac"),
    ]
    steps = [{"os_user": name, "kind": kind, "reversible": True} for name in ("alice", "carol") for kind in kinds]
    assert json.loads(as_zoe(bare, *command, "--plan").out) == steps
    steps.insert(5, {"os_user": "alice", "kind": "userdel_archive", "reversible": False})
    steps.append({"os_user": "carol", "kind": "userdel_archive", "reversible": False})
    assert json.loads(as_zoe(bare, *command, "--plan", "--destructive").out) == steps


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["--no-such-option"],
        ["reconcile", "--allow-cuts", "-1"],
        ["reconcile", "--lock-wait", "soon"],
        ["--detailed-exitcode"],
        ["derive"],
        ["deprovision", "--old", "/tmp/roster.yaml"],
        ["deprovision", "--old", "/tmp/roster.yaml", "--new", "/tmp/roster.yaml", "--destructive"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_from_every_other_failure(bare: Machine, arguments: list[str]) -> None:
    result = as_zoe(bare, *arguments)
    assert result.code == 64, result
    assert result.out == ""
    assert result.err != ""


def test_files_given_on_the_command_line_are_those_that_are_used(bare: Machine) -> None:
    bare.write("/tmp/site.yaml", "shell: /bin/sh\ntiers: {wizard: {}}\n")
    bare.write("/tmp/wizards.yaml", roster({"merlin": {"tier": "wizard"}}))
    files = ("--roster", "/tmp/wizards.yaml", "--site", "/tmp/site.yaml")
    assert as_zoe(bare, "validate", *files).code == 0
    assert as_zoe(bare, "validate", *files[:2]).code == 5
    derived = json.loads(as_zoe(bare, "derive", *files, "--ports-json", with_ports(bare, "none", {})).out)
    assert derived["accounts"]["merlin"]["shell"] == "/bin/sh"


def test_a_missing_roster_is_refused_and_a_missing_site_file_is_the_default(bare: Machine) -> None:
    assert not bare.exists(ROSTER)
    assert as_zoe(bare, "validate").code == 5
    result = as_zoe(bare, "validate", "--roster", "/tmp/roster.yaml", "--site", "/tmp/no-such-file")
    assert result.code == 5, result


def test_a_roster_that_is_cut_off_is_told_with_a_place_that_it_has(bare: Machine) -> None:
    last = "  bob: {authentik_user: b, k8s_us"
    bare.write("/tmp/cut.yaml", f"users:\n{last}")
    result = as_zoe(bare, "validate", "--roster", "/tmp/cut.yaml")
    assert result.code == 5, result
    assert "/tmp/cut.yaml:2:" in result.err
    assert last.strip() in result.err


def test_nothing_of_the_checkout_was_written_to(bare: Machine) -> None:
    as_zoe(bare, "validate", "--roster", "/tmp/roster.yaml")
    assert bare.read("/src/pyproject.toml") == (CHECKOUT / "pyproject.toml").read_text()


# --- adopt ---


def test_adopt_takes_over_an_account_once_and_a_run_completes_it(machine: Machine) -> None:
    machine.run("useradd", "--create-home", "--uid", "1500", "--shell", "/bin/sh", "--groups", "video", "una")
    before = account_lines(machine, "una")
    write_roster(machine, {"una": {"tier": "admin"}})
    reconcile(machine, code=3)
    assert account_lines(machine, "una") == before

    machine.run("rosterd", "adopt", "una")
    assert groups_of(machine, "una") == {"una", "video", "rosterd"}
    adopted = everything(machine)
    machine.run("rosterd", "adopt", "una")
    assert everything(machine) == adopted

    reconcile(machine)
    assert entry_of(machine, "passwd", "una") == ["una", "x", "1500", "1500", "", "/home/una", "/bin/sh"]
    assert groups_of(machine, "una") == {"una", "video", "rosterd", "sudo", "docker", "code-shared"}
    assert is_enabled(machine, "t3-serve@una.service")
    assert answer_at(machine, 3773) == "una"
    assert map_lines(machine) == ["una.id=una"]
    assert dispatch(machine) == {"una.id": {"os_user": "una", "port": 3773}}
    reconcile(machine)


def test_adopt_refuses_who_is_not_on_the_roster_or_has_no_account(machine: Machine) -> None:
    machine.run("useradd", "--create-home", "una")
    machine.run("useradd", "--create-home", "zoe")
    write_roster(machine, {"una": {}, "newcomer": {}})
    before = everything(machine)
    for names in (["zoe"], ["newcomer"], ["nobody-at-all"], ["root"], ["una", "zoe"]):
        result = machine.run("rosterd", "adopt", *names, check=False)
        assert result.code == 64, result
        assert names[-1] in result.err
    assert everything(machine) == before
