"""`rosterd explain` on a real machine, held against what the host's own tools say of the same."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.machine import Machine, Result
from tests.machine.workstation import (
    ROSTER,
    SITE,
    account_lines,
    entry_of,
    everything,
    groups_of,
    is_enabled,
    main_pid,
    map_lines,
    port_in,
    reconcile,
    workstation,
)

PEOPLE = """\
# Written by several people, in several styles.
users:
  alice:
    authentik_user: alice.id
    k8s_user: alice
    tier: admin
  bob: {authentik_user: bob.id, k8s_user: bob, tier: power-user,
        services: {playwright: false}}
  "dora":
    authentik_user: dora.id
    k8s_user: dora
    tier: power-user
    # On leave.
    parked: true
  hugo: {authentik_user: hugo.id, k8s_user: hugo, tier: power-user}
"""
LEAVERS = """\
  gina: {authentik_user: gina.id, k8s_user: gina, tier: power-user}
  ida: {authentik_user: ida.id, k8s_user: ida, tier: power-user}
"""
NEW = "  erin: {authentik_user: erin.id, k8s_user: erin, tier: power-user}\n"
POLICY = """\
settle: 1
tiers:
  admin:
    admin: true
    groups:
      - docker
      - code-shared
  power-user: {}
homes:
  notes: {directory: {path: notes}}
"""
BROKEN = "[Service]\nExecStart=\nExecStart=/bin/false\nRestart=no\n"


@pytest.fixture(scope="module")
def machine(deb: Path) -> Iterator[Machine]:
    """Have people of every kind on a machine after two runs; whoever uses it leaves it as it is."""
    with workstation(deb) as machine:
        machine.write(SITE, POLICY)
        machine.run("useradd", "--create-home", "hugo")
        machine.write("/etc/systemd/system/t3-serve@bob.service.d/broken.conf", BROKEN)
        machine.run("systemctl", "daemon-reload")
        machine.write(ROSTER, PEOPLE + LEAVERS)
        reconcile(machine, code=3)
        machine.run("gpasswd", "--add", "alice", "video")
        machine.run("rosterd", "cut", "ida")
        machine.write(ROSTER, PEOPLE)
        reconcile(machine, code=3)
        machine.write(ROSTER, PEOPLE + NEW)
        yield machine


def explain(machine: Machine, name: str, *arguments: str) -> str:
    return machine.run("rosterd", "explain", name, *arguments).out


def document(machine: Machine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(explain(machine, name, "--json"))
    return found


def row(machine: Machine, name: str, topic: str, attribute: str) -> tuple[str, str, str]:
    rows = document(machine, name)["attributes"]
    (found,) = (one for one in rows if (one["topic"], one["name"]) == (topic, attribute))
    return found["wanted"], found["why"], found["there"]


def grep(machine: Machine, words: str, path: str) -> str:
    """Return where the only line with these words stands, as grep says it."""
    (line,) = machine.run("grep", "-nF", "--", words, path).out.splitlines()
    return f"{path.rpartition('/')[2]}:{line.partition(':')[0]}"


def shown(machine: Machine, unit: str) -> str:
    """Return a unit's state as systemctl has it, in the words of an explanation."""
    show = ("systemctl", "show", "--value", unit)
    active, sub = (machine.run(*show, f"--property={what}").out.strip() for what in ("ActiveState", "SubState"))
    state = active if sub == "dead" else f"{active} ({sub})"
    return f"{'enabled' if is_enabled(machine, unit) else 'disabled'}, {state}"


# --- what is wanted, and which line says so ---


@pytest.mark.parametrize(
    ("name", "attribute", "words"),
    [
        ("alice", "authentik_user", "authentik_user: alice.id"),
        ("alice", "tier", "tier: admin"),
        ("bob", "tier", "bob: {"),
        ("dora", "parked", "parked: true"),
        ("dora", "k8s_user", "k8s_user: dora"),
    ],
)
def test_a_line_of_the_roster_is_the_one_that_grep_finds(
    machine: Machine, name: str, attribute: str, words: str
) -> None:
    assert row(machine, name, "roster", attribute)[1] == grep(machine, words, ROSTER)


def test_lines_of_the_site_file_too(machine: Machine) -> None:
    for group in ("docker", "code-shared"):
        assert row(machine, "alice", "groups", group)[1] == f"tier admin, {grep(machine, f'- {group}', SITE)}"
    assert row(machine, "alice", "home steps", "notes")[1] == grep(machine, "notes: {", SITE)
    assert row(machine, "alice", "maps", "/etc/ttyd-admins")[1] == f"tier admin, {grep(machine, 'admin: true', SITE)}"
    assert row(machine, "bob", "service playwright", "switch")[1] == grep(machine, "playwright: false", ROSTER)
    assert row(machine, "dora", "service t3", "switch")[1] == grep(machine, "parked: true", ROSTER)
    assert row(machine, "alice", "service t3", "switch")[1] == "default"


# --- what is there ---


@pytest.mark.parametrize("name", ["alice", "bob", "dora", "hugo", "gina"])
def test_an_account_is_as_getent_and_stat_say(machine: Machine, name: str) -> None:
    _, _, uid, _, _, home, shell = entry_of(machine, "passwd", name)
    managed = "managed" if "rosterd" in groups_of(machine, name) else "not managed"
    assert row(machine, name, "account", "account")[2] == f"uid {uid}, {managed}"
    owner, mode = machine.run("stat", "--format=%U %a", home).out.split()
    assert row(machine, name, "account", "home")[::2] == (home, f"{owner}'s, 0{mode}")
    assert row(machine, name, "account", "shell")[2] == shell
    first, count = next(
        line.split(":")[1:] for line in machine.read("/etc/subuid").splitlines() if line.startswith(f"{name}:")
    )
    assert f"uids {first}-{int(first) + int(count) - 1}," in row(machine, name, "account", "subordinate ids")[2]


def test_groups_are_as_id_says(machine: Machine) -> None:
    found = [one for one in document(machine, "alice")["attributes"] if one["topic"] == "groups"]
    member = {one["name"] for one in found if one["there"] == "member"}
    own = set(found[-1]["there"].split())
    assert member | own == groups_of(machine, "alice")
    assert own == {"alice", "video"}


@pytest.mark.parametrize("name", ["alice", "bob", "dora", "gina"])
def test_units_are_as_systemctl_says(machine: Machine, name: str) -> None:
    rows = [one for one in document(machine, name)["attributes"] if "@" in one["name"]]
    assert len(rows) == 3
    for one in rows:
        assert one["there"] == shown(machine, one["name"])


def test_a_port_is_the_one_that_systemd_reads_and_its_holder_the_one_that_listens(machine: Machine) -> None:
    path, unit = "/etc/t3-serve/alice.env", "t3-serve@alice.service"
    port = port_in(machine, path)
    listening = machine.run("ss", "--no-header", "--listening", "--tcp", "--processes", "sport", "=", f":{port}").out
    assert f"pid={main_pid(machine, unit)}," in listening
    there = f"{port} in {path}, listening"
    assert row(machine, "alice", "service t3", "port") == (str(port), "kept", there)


def test_lines_of_maps_are_those_in_the_files(machine: Machine) -> None:
    assert row(machine, "alice", "maps", "/etc/ttyd-user-map")[2] == "alice.id = alice"
    assert "alice.id=alice" in map_lines(machine)
    assert row(machine, "dora", "maps", "/etc/t3-serve/dispatch.json")[::2] == ("no line", "no line")
    assert "dora" not in machine.read("/etc/t3-serve/dispatch.json")


# --- how people stand ---


def test_who_is_well_has_nothing_to_change(machine: Machine) -> None:
    text = explain(machine, "alice")
    assert text.startswith(f"alice is on the roster ({grep(machine, 'alice:', ROSTER)}).\n")
    assert text.endswith("\nA run would change nothing for alice.\n")
    assert [line for line in text.splitlines() if line[:4].strip()[:1] in ("!", "+", "~", "-", "?")] == []


def test_a_unit_that_does_not_come_up_is_marked(machine: Machine) -> None:
    text = explain(machine, "bob")
    (line,) = (one for one in text.splitlines() if one.startswith("  ~ "))
    assert line.split()[1] == "t3-serve@bob.service"
    assert line.endswith(shown(machine, "t3-serve@bob.service"))
    assert "\n        ~ t3-serve@bob.service: failed → running\n" in text


def test_who_is_parked_cut_off_or_not_managed_is_told_so(machine: Machine) -> None:
    parked = grep(machine, "parked: true", ROSTER)
    entry = grep(machine, '"dora":', ROSTER)
    assert explain(machine, "dora").startswith(f"dora is on the roster ({entry}) and parked ({parked}): no service")
    gone = explain(machine, "gina")
    assert gone.splitlines()[0].endswith(": not in roster.yaml.")
    assert "To let them in: put them on the roster;" in gone
    by_command = explain(machine, "ida")
    assert "by rosterd cut; not in roster.yaml." in by_command
    assert "To let them in: rosterd uncut ida, and put them on the roster." in by_command
    assert ":1:" in account_lines(machine, "gina")  # shadow(5): expired on day 1
    assert row(machine, "gina", "account", "password and expiry")[2] == "locked, expired"
    foreign = explain(machine, "hugo")
    assert "is not managed, so nothing is done for this person." in foreign
    assert "rosterd adopt hugo" in foreign


def test_what_a_run_would_do_is_what_a_dry_run_says(machine: Machine) -> None:
    text = explain(machine, "erin")
    dry = machine.run("rosterd", "--dry-run").out
    block = dry.partition("\nerin\n")[2].partition("\n\n")[0]
    lines = [line.strip() for line in block.splitlines()]
    assert len(lines) >= 6
    assert lines[0].startswith("+ account: none → uid ")
    for line in lines:
        assert text.count(f"\n        {line}\n") == 1


def test_who_is_not_root_sees_what_they_may(machine: Machine) -> None:
    seen = machine.run("runuser", "-u", "nobody", "--", "rosterd", "explain", "alice")
    assert seen.err == ""
    uid = entry_of(machine, "passwd", "alice")[2]
    assert f"uid {uid}, managed" in seen.out
    assert "Could not be seen: shadow lines (/etc/shadow: Permission denied)" in seen.out
    assert "  not seen: /etc/t3-serve/alice.env\n" in seen.out


def test_a_name_that_nobody_has_is_wrong_usage(machine: Machine) -> None:
    for name, words in (("allice", "did you mean 'alice'?"), ("gin", "did you mean 'gina'?"), ("root", "not manage")):
        ended = failing(machine, "rosterd", "explain", name)
        assert ended.code == 64
        assert words in ended.err


def test_looking_changes_nothing(machine: Machine) -> None:
    before = everything(machine)
    for name in ("alice", "bob", "dora", "gina", "hugo", "ida", "erin"):
        explain(machine, name)
    assert everything(machine) == before


def failing(machine: Machine, *command: str) -> Result:
    return machine.run(*command, check=False)
