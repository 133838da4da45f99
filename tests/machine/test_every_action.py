"""The service as it is installed does every kind of action that a run knows, in its sandbox, started by systemd alone.

What only commands do is left out: they are root's by hand, outside of the sandbox. Those are `set_cut_reason`, which
`rosterd cut` and `uncut` alone ask for, and the steps of `destroy`, `restore` and `forget`, which are no actions.
"""

import json
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.actions import Action
from tests.machine.busy import at_queue, commands_of, uid_of
from tests.machine.machine import Machine
from tests.machine.workstation import (
    SITE,
    dispatch,
    entry_of,
    eventually,
    groups_of,
    is_enabled,
    is_up,
    look,
    main_pid,
    map_lines,
    owner_of,
    port_in,
    workstation,
    write_roster,
)
from tests.proof.evidence import note

BY_COMMAND = {"set_cut_reason"}
PEOPLE: dict[str, dict[str, Any]] = {"ada": {"adopt": True}, "alice": {}, "bob": {}, "dora": {}}
STAYING = {name: entry for name, entry in PEOPLE.items() if name != "dora"}
SITE_TEXT = """\
settle: 0
listen: 0
create_groups: true
tiers: {power-user: {groups: [lab], limits: {memory_max: 1G}}}
outputs: [ttyd-user-map, ttyd-admins, dispatch-json, nginx-map]
proxies: {nginx-map: {check: [/usr/local/bin/noted, checked], unit: front.service}}
hooks:
  remove_from_t3_group: {command: [/usr/local/bin/noted, "removed-{authentik_user}"]}
  revoke_cluster_rbac: {command: [/usr/local/bin/noted, "revoked-{k8s_user}"]}
homes: {notes: {directory: {path: notes, mode: "0750"}}}
"""
# Neither may write to /srv where it is part of the service.
NOTED = '#!/bin/sh\necho "$1" >>/srv/noted\n'
FRONT = "[Service]\nExecStart=/bin/sleep 90001\nExecReload=/usr/local/bin/noted reloaded\n"
OLD_UNIT = "[Service]\nExecStart=/bin/sleep 90002\nRestart=always\n[Install]\nWantedBy=default.target\n"
OLD_UNITS = "/home/ada/.config/systemd/user"

# What the first run finds: an account that is not rosterd's, with a unit of her own that holds the place of a service;
# a name without an account in the group; the record of a creation that came to nothing.
BEFORE = """
useradd --create-home --shell /bin/bash ada
chmod 700 /home/ada
loginctl enable-linger ada
runuser -u ada -- mkdir -p /home/ada/.config/systemd/user
sed -i '/^rosterd:/s/$/ghost/' /etc/group
install -d -m 700 /var/lib/rosterd /var/lib/rosterd/creating
echo '{"uid": 4711, "gid": 4711}' >/var/lib/rosterd/creating/nemo
systemctl start front.service
"""
# What a killed run, or somebody by hand, leaves.
DAMAGE = """
sed -i '/^ada:/d' /etc/shadow /etc/group /etc/gshadow /etc/subuid
sed -i '/^bob:/d' /etc/gshadow
rm -r /home/alice
for name in bob dora; do
    echo "{\\"uid\\": $(id -u $name), \\"gid\\": $(id -g $name)}" >/var/lib/rosterd/creating/$name
done
chmod 755 /home/bob
rm /home/dora/.profile
touch /run/rosterd/reload-due
install -d -m 700 /run/rosterd/reload
touch /run/rosterd/reload/nginx-map
"""
LIFE = """
loginctl enable-linger dora
echo '0 5 * * * true' | crontab -u dora -
runuser -u dora -- sh -c 'cd /; echo true | at -M now + 3 days' 2>&1
runuser -u dora -- setsid -f sleep 90003 >/dev/null 2>&1 </dev/null
echo dora:correct-horse-47 | chpasswd
"""


def kinds() -> set[str]:
    """Return the kinds of the union, whichever these are."""
    return {str(one.kind) for one in typing.get_args(Action)}


@dataclass
class Seen:
    """What the runs of the service did, by kind, and how the host was after each of them."""

    machine: Machine
    done: Counter[str] = field(default_factory=Counter)
    ill: list[str] = field(default_factory=list)
    during_cut: Mapping[str, object] = field(default_factory=dict)

    def by_edit(self, people: Mapping[str, Mapping[str, Any]]) -> None:
        """Have the path unit start a run."""
        before = self._invocation()
        write_roster(self.machine, people)
        eventually(lambda: self._invocation() not in (before, ""), within=5)
        eventually(lambda: not self._is_running(), within=30)
        self._read()

    def by_start(self) -> None:
        """Start a run as the timer does."""
        self.machine.run("systemctl", "start", "rosterd.service", check=False)
        self._read()

    def _read(self) -> None:
        entries = self.machine.journal(f"_SYSTEMD_INVOCATION_ID={self._invocation()}")
        for entry in entries:
            if entry.get("ROSTERD_STATUS") == "done":
                self.done[entry["ROSTERD_ACTION"]] += 1
            elif int(entry["PRIORITY"]) <= 4:
                self.ill.append(str(entry["MESSAGE"]))

    def _invocation(self) -> str:
        return self._show("InvocationID")

    def _is_running(self) -> bool:
        return self._show("ActiveState") in ("activating", "deactivating")

    def _show(self, what: str) -> str:
        return self.machine.run("systemctl", "show", f"--property={what}", "--value", "rosterd.service").out.strip()


@pytest.fixture(scope="module")
def seen(deb: Path) -> Iterator[Seen]:
    """Have the service make people, mend what is broken, cut somebody off, and give it all back."""
    with workstation(deb) as machine:
        machine.write(SITE, SITE_TEXT)
        machine.write("/usr/local/bin/noted", NOTED, mode=0o755)
        machine.write("/etc/systemd/system/front.service", FRONT)
        machine.sh(BEFORE)
        machine.write(f"{OLD_UNITS}/playwright-mcp.service", OLD_UNIT, owner="ada")
        machine.run("systemctl", "start", "rosterd.path")
        seen = Seen(machine)
        seen.by_edit(PEOPLE)
        assert_made(machine)
        machine.sh(DAMAGE)
        seen.by_start()
        assert_mended(machine)
        machine.sh(LIFE)
        had = life_of(machine, "dora")
        seen.by_edit(STAYING)
        assert_cut(machine, "dora")
        seen.by_edit(PEOPLE)
        assert life_of(machine, "dora") == had
        assert not machine.exists("/var/lib/rosterd/cuts/dora")
        yield seen


def assert_made(machine: Machine) -> None:
    """See by the host's own tools what the first run is to have made."""
    assert entry_of(machine, "group", "lab") != []
    assert entry_of(machine, "group", "rosterd")[3].split(",").count("ghost") == 0
    assert machine.sh("ls /var/lib/rosterd/creating").out == ""
    for name in PEOPLE:
        assert groups_of(machine, name) >= {name, "lab", "rosterd"}
        assert look(machine, f"/home/{name}") == f"{name}:{name} 700"
        assert look(machine, f"/home/{name}/notes") == f"{name}:{name} 750"
        unit = f"t3-serve@{name}.service"
        assert is_enabled(machine, unit)
        assert owner_of(machine, main_pid(machine, unit)) == name
        port = port_in(machine, f"/etc/t3-serve/{name}.env")
        assert dispatch(machine)[f"{name}.id"] == {"os_user": name, "port": port}
        assert f"~^{name}[.]id$ {port}; # {name}" in machine.read("/etc/t3-serve/nginx-map.conf").splitlines()
        memory = machine.run("systemctl", "show", "--property=MemoryMax", f"user-{uid_of(machine, name)}.slice").out
        assert memory == f"MemoryMax={1 << 30}\n"
    assert sorted(map_lines(machine)) == [f"{name}.id={name}" for name in sorted(PEOPLE)]
    assert machine.exists(f"{OLD_UNITS}/playwright-mcp.service.retired-by-rosterd")
    assert not machine.exists(f"{OLD_UNITS}/playwright-mcp.service")
    assert set(json.loads(machine.read("/var/lib/rosterd/identities"))) == set(PEOPLE)
    assert machine.read("/srv/noted").splitlines() == ["checked", "reloaded"]


def assert_mended(machine: Machine) -> None:
    """See by the host's own tools what the second run is to have mended."""
    assert machine.run("passwd", "--status", "ada").out.split()[1] == "L"
    assert entry_of(machine, "group", "ada")[2] == entry_of(machine, "passwd", "ada")[3]
    assert machine.run("grep", "--count", "^ada:", "/etc/subuid").out == "1\n"
    assert entry_of(machine, "gshadow", "bob") == ["bob", "!", "", ""]
    for name in ("alice", "bob", "dora"):
        assert look(machine, f"/home/{name}") == f"{name}:{name} 700"
        assert look(machine, f"/home/{name}/.profile").startswith(f"{name}:{name} ")
    assert machine.sh("ls /var/lib/rosterd/creating /run/rosterd/reload").out.split() == [
        "/run/rosterd/reload:",
        "/var/lib/rosterd/creating:",
    ]
    assert not machine.exists("/run/rosterd/reload-due")
    assert machine.read("/srv/noted").splitlines() == ["checked", "reloaded"] * 2


def life_of(machine: Machine, name: str) -> tuple[object, ...]:
    """Return what a cut takes and a return gives back."""
    return (
        entry_of(machine, "shadow", name)[1:],
        machine.run("crontab", "-u", name, "-l").out,
        at_queue(machine, name),
        machine.exists(f"/var/lib/systemd/linger/{name}"),
        is_up(machine, f"t3-serve@{name}.service"),
        is_enabled(machine, f"t3-serve@{name}.service"),
        name in [entry["os_user"] for entry in dispatch(machine).values()],
    )


def assert_cut(machine: Machine, name: str) -> None:
    """See by the host's own tools that somebody has nothing left, and that the hook was told."""
    fields = entry_of(machine, "shadow", name)
    assert (fields[1][0], fields[7]) == ("!", "1")
    assert machine.run("crontab", "-u", name, "-l", check=False).code == 1
    assert at_queue(machine, name) == []
    assert not machine.exists(f"/var/lib/systemd/linger/{name}")
    assert not is_up(machine, f"t3-serve@{name}.service")
    assert not is_enabled(machine, f"t3-serve@{name}.service")
    assert commands_of(machine, name) == ""
    assert name not in machine.sh("cat /etc/ttyd-user-map /etc/t3-serve/dispatch.json").out
    assert {f"revoked-{name}", f"removed-{name}.id"} <= set(machine.read("/srv/noted").splitlines())


def test_the_service_does_every_kind_of_action_in_its_sandbox(seen: Seen) -> None:
    note("sandbox", kinds=len(kinds()), kinds_by_the_service=len(seen.done.keys() & kinds()), actions=seen.done.total())
    assert kinds() - seen.done.keys() == BY_COMMAND
    assert seen.done.keys() <= kinds()


def test_nothing_failed_and_nothing_was_in_its_way(seen: Seen) -> None:
    assert seen.ill == []


def test_what_only_a_command_does_is_done_by_a_command(seen: Seen) -> None:
    write_roster(seen.machine, STAYING)
    seen.by_start()
    seen.machine.run("rosterd", "cut", "dora")
    (entry,) = seen.machine.journal("ROSTERD_ACTION=set_cut_reason")
    assert (entry["OS_USER"], entry["ROSTERD_STATUS"]) == ("dora", "done")
    assert json.loads(seen.machine.read("/var/lib/rosterd/cuts/dora"))["by_command"] is True
