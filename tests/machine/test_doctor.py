"""`rosterd doctor` on a machine where each hazard is really made, and taken away again by its own remedy.

The clean machine has what a site sets for itself: a private /tmp and a memory cap, by drop-ins.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.machine.machine import Machine, Result
from tests.machine.workstation import (
    QUICK,
    SITE,
    answer_at,
    eventually,
    everything,
    is_up,
    look,
    main_pid,
    port_in,
    reconcile,
    traced,
    workstation,
    write_roster,
)

CAPS = "[Service]\nPrivateTmp=yes\nMemoryMax=1G\n"
TEMPLATES = ("t3-serve@.service", "playwright-mcp@.service")
UNITS = "/etc/systemd/system"
SLICE_CAP = f"{UNITS}/user-.slice.d/50-cap.conf"
BIND = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
# What a look asks of the system bus.
ASKING = {"Hello", "Introspect", "ListUnitsByPatterns", "Get", "AddMatch", "GetNameOwner", "StartServiceByName"}


@pytest.fixture(scope="module")
def clean(deb: Any) -> Iterator[Machine]:  # noqa: ANN401 (a fixture's path)
    """Make a machine without a hazard; each test leaves it so."""
    with workstation(deb) as machine:
        for template in TEMPLATES:
            machine.write(f"{UNITS}/{template}.d/caps.conf", CAPS)
        machine.write(SLICE_CAP, "[Slice]\nMemoryMax=2G\n")
        machine.run("systemctl", "daemon-reload")
        write_roster(machine, {"alice": {}, "bob": {}})
        reconcile(machine)
        for name in ("alice", "bob"):
            assert answer_at(machine, port_of(machine, name)) == name
        yield machine


@pytest.fixture
def machine(clean: Machine) -> Iterator[Machine]:
    """Return the clean machine, and see that the test left it so."""
    yield clean
    assert hazards(clean, code=0) == []


def doctor(machine: Machine, *arguments: str, code: int) -> Result:
    result = machine.run("rosterd", "doctor", *arguments, check=False)
    assert result.code == code, result
    return result


def hazards(machine: Machine, *arguments: str, code: int = 3) -> list[dict[str, Any]]:
    document = json.loads(doctor(machine, "--json", "--wait", "0", *arguments, code=code).out)
    assert document["version"] == 1
    assert document["unseen"] == []
    found: list[dict[str, Any]] = document["hazards"]
    return found


def the_one(machine: Machine, kind: str, users: list[str], *arguments: str) -> dict[str, Any]:
    found = hazards(machine, *arguments)
    assert [(one["kind"], one["users"]) for one in found] == [(kind, users)]
    return found[0]


def port_of(machine: Machine, name: str) -> int:
    return port_in(machine, f"/etc/t3-serve/{name}.env")


@contextmanager
def dropped_in(machine: Machine, unit: str, text: str) -> Iterator[None]:
    """Restart a unit with a drop-in, and afterwards without."""
    path = f"{UNITS}/{unit}.d/zz-test.conf"
    machine.write(path, text)
    machine.sh('systemctl daemon-reload; systemctl restart "$1"', unit, check=False)
    yield
    machine.sh('rm -r "${1%/*}"; systemctl daemon-reload; systemctl reset-failed "$2" || :', path, unit)
    machine.run("systemctl", "restart", unit)
    eventually(lambda: is_up(machine, unit), within=5)


def listens_openly(machine: Machine, port: int) -> bool:
    lines = machine.run("ss", "--no-header", "-ltn", f"sport = :{port}").out.splitlines()
    return any(line.split()[3] in (f"0.0.0.0:{port}", f"*:{port}", f"[::]:{port}") for line in lines)


def settled(machine: Machine) -> None:
    """Wait until both people's servers answer again."""
    for name in ("alice", "bob"):
        assert answer_at(machine, port_of(machine, name)) == name


def test_a_clean_machine_has_no_hazard(clean: Machine) -> None:
    result = doctor(clean, "--wait", "1", code=0)
    assert result.out == "No hazards.\n"
    assert result.err == ("rosterd: waiting 1 s to see whether services restart (--wait 0: no second look)\n")


# --- ports ---


def test_a_port_that_a_stranger_holds(machine: Machine) -> None:
    port = port_of(machine, "alice")
    machine.run("systemctl", "stop", "t3-serve@alice.service")
    machine.run("systemd-run", "--quiet", "--unit=stranger", "--uid=bob", "/usr/bin/t3", "--port", str(port))
    assert answer_at(machine, port) == "bob"
    one = the_one(machine, "port-held", ["alice"])
    pid = main_pid(machine, "stranger.service")
    assert f"port {port}, t3 of alice, is held by another process (pid {pid}, user bob" in one["evidence"]
    assert "stranger.service" in one["evidence"]
    machine.sh(one["remedy"].partition(";")[0])
    machine.run("systemctl", "start", "t3-serve@alice.service")
    settled(machine)


def test_two_people_on_one_port(machine: Machine) -> None:
    port, path = port_of(machine, "alice"), "/etc/t3-serve/bob.env"
    before = machine.read(path)
    machine.run("systemctl", "stop", "t3-serve@bob.service")
    machine.write(path, f"T3_PORT={port}\n", mode=0o600)
    one = the_one(machine, "port-shared", ["alice", "bob"])
    assert f"port {port} stands in the env files of alice" in one["evidence"]
    assert "who listens there: alice" in one["evidence"]
    line, place = one["remedy"].partition(";")[0].split(" in ")
    machine.write(place, f"{line}\n", mode=0o600)
    machine.sh(one["remedy"].partition("then: ")[2])
    settled(machine)
    machine.write(path, before, mode=0o600)
    machine.run("systemctl", "restart", "t3-serve@bob.service")
    settled(machine)


def test_an_instance_that_listens_on_another_port_than_its_env_file_says(machine: Machine) -> None:
    path, before = "/etc/t3-serve/alice.env", machine.read("/etc/t3-serve/alice.env")
    old = port_of(machine, "alice")
    machine.write(path, "T3_PORT=3799\n", mode=0o600)
    one = the_one(machine, "wrong-port", ["alice"])
    assert one["evidence"] == f"t3-serve@alice.service listens on {old}, but {path} says 3799"
    machine.sh(one["remedy"].partition(": ")[2])
    assert answer_at(machine, 3799) == "alice"
    assert hazards(machine, code=0) == []
    machine.write(path, before, mode=0o600)
    machine.run("systemctl", "restart", "t3-serve@alice.service")
    settled(machine)


def test_an_instance_that_the_network_reaches(machine: Machine) -> None:
    port = port_of(machine, "alice")
    start = "[Service]\nExecStart=\nExecStart=/usr/bin/python3 -m http.server --bind 0.0.0.0 ${T3_PORT}\n"
    with dropped_in(machine, "t3-serve@alice.service", start):
        eventually(lambda: listens_openly(machine, port), within=5)
        one = the_one(machine, "open-listener", ["alice"])
        assert (
            f"t3-serve@.service listens on an address that others than this machine reach: alice on {port}"
            in (one["evidence"])
        )
    settled(machine)


@pytest.mark.parametrize("address", ["::", "0.0.0.0"])  # noqa: S104 (what is to be found)
def test_a_persons_own_server_that_the_network_reaches(machine: Machine, address: str) -> None:
    server = ("/usr/bin/python3", "-m", "http.server", "--directory", "/var/empty", "--bind", address, "5173")
    machine.run("mkdir", "-p", "/var/empty")
    machine.run("systemd-run", "--quiet", "--unit=dev", "--uid=bob", *server)
    eventually(lambda: listens_openly(machine, 5173), within=5)
    one = the_one(machine, "open-listener", ["bob"])
    assert "a program of bob listens on 1 port that others than this machine reach: 5173" in one["evidence"]
    assert "python3" in machine.sh(one["remedy"].partition(": ")[2].partition("; ")[0]).out
    assert hazards(machine, "--accept", "open-listener:bob", code=0) == []
    machine.run("systemctl", "stop", "dev.service")


def test_a_persons_own_server_on_the_loopback_is_no_hazard(machine: Machine) -> None:
    machine.run("systemd-run", "--quiet", "--unit=dev", "--uid=bob", "/usr/bin/t3", "--port", "5174")
    assert answer_at(machine, 5174) == "bob"
    assert hazards(machine, code=0) == []
    machine.run("systemctl", "stop", "dev.service")


# --- services ---


def test_a_crash_loop(machine: Machine) -> None:
    unit = "t3-serve@bob.service"
    text = (
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=\nExecStart=/bin/false\nRestart=always\nRestartSec=1s\n"
    )
    with dropped_in(machine, unit, text):
        eventually(lambda: restarts(machine, unit) > 0, within=10)
        before = restarts(machine, unit)
        document = json.loads(doctor(machine, "--json", "--wait", "3", code=3).out)
        after = restarts(machine, unit)
        (one,) = document["hazards"]
        assert (one["kind"], one["users"]) == ("crash-loop", ["bob"])
        assert " between two looks, " in one["evidence"]
        told = int(one["evidence"].partition(" between two looks, ")[2].split()[0])
        assert before < told <= after
    settled(machine)


def restarts(machine: Machine, unit: str) -> int:
    return int(machine.run("systemctl", "show", "--property=NRestarts", "--value", unit).out)


def test_a_service_that_crashed_before_and_waits_for_its_restart_is_told_at_one_look(machine: Machine) -> None:
    unit = "t3-serve@bob.service"
    start = "ExecStart=/bin/sh -c 'sleep 0.2; exit 1'\nRestart=always\nRestartSec=2s\n"
    text = f"[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=\n{start}"
    with dropped_in(machine, unit, text):
        state = ("systemctl", "show", "--property=SubState", "--value", unit)
        eventually(lambda: restarts(machine, unit) > 0, within=10)
        eventually(lambda: machine.run(*state).out.strip() == "auto-restart", within=10)
        one = the_one(machine, "crash-loop", ["bob"])
        assert one["evidence"].startswith(f"{unit} restarted ")
        assert one["evidence"].endswith(", now activating (auto-restart)")
    settled(machine)


def test_services_that_share_tmp_are_one_hazard(machine: Machine) -> None:
    machine.write(f"{UNITS}/t3-serve@.service.d/caps.conf", "[Service]\nMemoryMax=1G\n")
    machine.run("systemctl", "daemon-reload")
    one = the_one(machine, "no-private-tmp", ["alice", "bob"])
    assert one["evidence"] == "t3-serve@.service: 2 running instances have no PrivateTmp: alice, bob"
    assert hazards(machine, "--accept", "no-private-tmp", code=0) == []
    machine.sh(one["remedy"].partition(";")[0])
    show = ("systemctl", "show", "--property=PrivateTmp", "--value", "t3-serve@alice.service")
    assert machine.run(*show).out == "yes\n"
    machine.sh('rm "$1/private-tmp.conf"', f"{UNITS}/t3-serve@.service.d")
    machine.write(f"{UNITS}/t3-serve@.service.d/caps.conf", CAPS)
    machine.run("systemctl", "daemon-reload")


def test_slices_and_services_without_a_cap(machine: Machine) -> None:
    machine.run("rm", SLICE_CAP)
    machine.write(f"{UNITS}/t3-serve@.service.d/caps.conf", "[Service]\nPrivateTmp=yes\n")
    machine.run("systemctl", "daemon-reload")
    uids = [machine.run("id", "-u", name).out.strip() for name in ("alice", "bob")]
    found = {one["evidence"] for one in hazards(machine) if one["kind"] == "no-memory-cap"}
    assert found == {
        "t3-serve@.service: 2 instances have no MemoryMax, nor one of the person's slice: alice, bob",
        f"2 slices have no MemoryMax for a person's sessions: user-{uids[0]}.slice (alice), user-{uids[1]}.slice (bob)",
    }
    machine.write(SITE, f"{QUICK}tiers:\n  power-user: {{groups: [], limits: {{memory_max: 1G}}}}\n")
    reconcile(machine)
    # A cap of the slice is one of the service only once that runs in it.
    assert [one["users"] for one in hazards(machine)] == [["alice", "bob"]]
    machine.run("systemctl", "restart", "t3-serve@alice.service")
    assert [one["users"] for one in hazards(machine)] == [["bob"]]
    machine.run("systemctl", "restart", "t3-serve@bob.service")
    settled(machine)
    assert hazards(machine, code=0) == []
    machine.write(SITE, QUICK)
    machine.write(SLICE_CAP, "[Slice]\nMemoryMax=2G\n")
    machine.write(f"{UNITS}/t3-serve@.service.d/caps.conf", CAPS)
    reconcile(machine)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "t3-serve@alice.service", "t3-serve@bob.service")
    settled(machine)


# --- files ---


@pytest.mark.parametrize("mode", ["755", "711"])
def test_a_home_that_everybody_can_enter(machine: Machine, mode: str) -> None:
    machine.run("chmod", mode, "/home/alice")
    one = the_one(machine, "readable-home", ["alice"])
    assert one["evidence"] == f"1 home open to everybody: /home/alice ({mode})"
    machine.sh(one["remedy"])
    assert look(machine, "/home/alice").endswith("0")


@pytest.mark.parametrize("path", ["/etc/t3-serve/alice.env", "/etc/rosterd/playwright-token", "/etc/t3-serve/spare"])
def test_a_secret_that_everybody_can_read(machine: Machine, path: str) -> None:
    machine.sh('[ -e "$1" ] || touch "$1"; chmod 644 "$1"', path)
    one = the_one(machine, "readable-secret", [])
    assert one["evidence"] == f"1 file has mode 644 and owner root:root, not 600 and root:root: {path}"
    machine.sh(one["remedy"].partition(";")[0])
    assert look(machine, path) == "root:root 600"
    assert hazards(machine, code=0) == []
    if not path.endswith(".env"):
        machine.run("rm", path)


def test_an_enabled_unit_of_nobody(machine: Machine) -> None:
    template = machine.run("systemctl", "show", "--property=FragmentPath", "--value", "t3-serve@alice.service").out
    link = f"{UNITS}/multi-user.target.wants/t3-serve@ghost.service"
    machine.run("ln", "-s", template.strip(), link)
    one = the_one(machine, "stray-link", [])
    assert one["evidence"] == f"there is no account ghost, but 1 link: {link}"
    machine.sh(one["remedy"])
    assert not machine.exists(link)


def test_an_enabled_unit_whose_template_is_gone(machine: Machine) -> None:
    machine.write(f"{UNITS}/old@.service", "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n")
    machine.sh('systemctl --quiet enable old@alice.service; rm "$1"', f"{UNITS}/old@.service")
    one = the_one(machine, "stray-link", [])
    assert one["evidence"].startswith("there is no template old@.service, but 1 link: ")
    machine.sh(one["remedy"])


def test_an_env_file_of_nobody(machine: Machine) -> None:
    machine.write("/etc/t3-serve/ghost.env", "T3_PORT=3888\n", mode=0o600)
    one = the_one(machine, "stray-env-file", [])
    assert one["evidence"] == "/etc/t3-serve/ghost.env keeps port 3888 of t3 for ghost, and there is no such account"
    machine.sh(one["remedy"].partition(": ")[2])
    assert not machine.exists("/etc/t3-serve/ghost.env")


def test_a_socket_of_bobs_that_is_named_after_alice(machine: Machine) -> None:
    machine.run("runuser", "-u", "bob", "--", "python3", "-c", BIND, "/tmp/agent-alice.sock")
    machine.run("runuser", "-u", "alice", "--", "python3", "-c", BIND, "/tmp/mcp-alice.sock")
    one = the_one(machine, "foreign-socket", ["alice"])
    assert one["evidence"].startswith("/tmp/agent-alice.sock is a socket of bob (uid ")
    machine.sh(one["remedy"].rpartition(": ")[2])
    assert machine.exists("/tmp/mcp-alice.sock")
    assert hazards(machine, code=0) == []
    machine.run("rm", "/tmp/mcp-alice.sock")


def test_a_folder_of_bobs_where_an_agent_of_alice_would_have_its_sockets(machine: Machine) -> None:
    uid = machine.run("id", "-u", "alice").out.strip()
    folder = f"/tmp/agents-{uid}"
    machine.run("runuser", "-u", "bob", "--", "mkdir", "-m", "755", folder)
    assert hazards(machine, code=0) == []
    machine.run("runuser", "-u", "bob", "--", "python3", "-c", BIND, f"{folder}/control")
    one = the_one(machine, "foreign-socket", ["alice"])
    assert one["evidence"].startswith(f"{folder} is a folder with 1 socket in it (control) of bob (uid ")
    machine.sh(one["remedy"].rpartition(": ")[2])


def test_tmux_of_everybody_is_no_hazard(machine: Machine) -> None:
    for name in ("alice", "bob"):
        machine.run("runuser", "-u", name, "--", "tmux", "new-session", "-d", "sleep", "60")
        uid = machine.run("id", "-u", name).out.strip()
        assert look(machine, f"/tmp/tmux-{uid}") == f"{name}:{name} 700"
    assert hazards(machine, code=0) == []
    machine.sh("for name in alice bob; do runuser -u $name -- tmux kill-server; done; rm -r /tmp/tmux-*")


# --- how it is told, and that it only looks ---


def test_a_look_changes_nothing_and_opens_nothing_below_a_home(machine: Machine) -> None:
    machine.run("chmod", "755", "/home/alice")
    before = everything(machine)
    trace = traced(machine, "rosterd", "doctor", "--wait", "1")
    assert trace.result.code == 3
    assert everything(machine) == before
    assert trace.programs == []
    assert [call for call in trace.changes if "/dev/null" not in call] == []
    assert set(trace.bus_methods) <= ASKING
    assert "Get" in trace.bus_methods
    assert [call for call in trace.calls if "/home/" in call] == []
    machine.run("chmod", "700", "/home/alice")


def test_the_text_has_evidence_and_remedy(machine: Machine) -> None:
    machine.run("chmod", "755", "/home/alice")
    assert doctor(machine, "--wait", "0", code=3).out.splitlines() == [
        "readable-home: a home is open to everybody on this machine",
        "  - 1 home open to everybody: /home/alice (755)",
        "    > chmod o= -- /home/alice",
        "",
        "1 hazard: 1 readable-home.",
    ]
    machine.run("chmod", "700", "/home/alice")


def test_without_root_it_tells_what_it_sees_and_names_what_it_does_not(machine: Machine) -> None:
    as_bob = ("runuser", "-u", "bob", "--", "rosterd", "doctor", "--json", "--wait", "0")
    clean = machine.run(*as_bob)
    document = json.loads(clean.out)
    assert document["hazards"] == []
    assert any(words.startswith("the env files (") for words in document["unseen"])
    machine.run("chmod", "755", "/home/alice")
    found = machine.run(*as_bob, check=False)
    assert (found.code, [one["kind"] for one in json.loads(found.out)["hazards"]]) == (3, ["readable-home"])
    machine.run("chmod", "700", "/home/alice")


def test_what_is_accepted_has_to_be_a_hazard(machine: Machine) -> None:
    refused = doctor(machine, "--accept", "open-door", code=64)
    assert "'open-door' is no hazard" in refused.err
    assert "open-listener" in refused.err


def test_a_bus_that_does_not_answer_is_no_clean_machine(machine: Machine) -> None:
    machine.run("systemctl", "stop", "dbus.socket", "dbus.service")
    result = doctor(machine, "--wait", "0", code=1)
    assert "Could not be seen, so nothing is known of its hazards: running services and slices (" in result.out
    assert result.out.endswith("\nNo hazards seen.\n")
    machine.run("systemctl", "start", "dbus.socket", "dbus.service")
