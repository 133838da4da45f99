"""People who return get back exactly what they had before the cut, however it was, and nothing else."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.machine.busy import (
    EVERY_WAY,
    NO_WAY,
    at_queue,
    commands_of,
    differences,
    let_in,
    logins,
    set_to_work,
    snapshot,
    ssh,
)
from tests.machine.machine import Machine
from tests.machine.workstation import (
    everything,
    reconcile,
    traced,
    workstation,
    write_roster,
)
from tests.proof.evidence import note

# Each is another case; `keys` has what a key is good for as well, and no password.
PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {"tier": "admin"},
    **{name: {} for name in ("busy", "empty", "expiring", "idle", "keys", "over", "starred")},
}
LEAVING = tuple(sorted(PEOPLE.keys() - {"alice"}))
STAYING = {"alice": PEOPLE["alice"]}

# Shadow lines as people have them, all but the first from an administrator: a lock, days, weeks of warning.
SETTINGS = """
passwd --quiet --lock keys
passwd --quiet --delete empty
usermod --expiredate 2031-05-06 expiring
usermod --expiredate 2020-02-03 over
usermod --password '*' starred
chage --lastday 2026-01-02 --mindays 1 --maxdays 9999 --warndays 14 --inactive 60 expiring
chage --lastday 2025-12-24 empty
for name in busy expiring; do
    runuser -u "$name" -- sh -c 'cd /; echo true | at -M now + 3 days; echo true | at -M -q c 10:00 2030-01-01' 2>&1
    printf '# a comment, and bytes: \\377\\n\\n5 4 * * * true' >"/tmp/$name"
    echo >>"/tmp/$name"
    crontab -u "$name" "/tmp/$name"
done
"""
NO_LOGINS = dict.fromkeys(LEAVING, NO_WAY)


@dataclass(frozen=True)
class Look:
    """How people are at a moment: what they have, their at jobs, what runs for them, the ways in that were tried."""

    has: dict[str, str]
    at_jobs: dict[str, list[str]]
    running: dict[str, str]
    units: str
    ways: dict[str, dict[str, bool]]


@dataclass(frozen=True)
class Returned:
    """Looks before the cut, during it, and after the return."""

    before: Look
    during: Look
    after: Look


def look(machine: Machine, *trying: str) -> Look:
    """Look at everybody, while some try to log in."""
    ways = logins(machine, *trying)
    show = ("systemctl", "show", "--property=Id,ActiveState,SubState,UnitFileState", *all_units())
    return Look(
        snapshot(machine, PEOPLE),
        {name: at_queue(machine, name) for name in LEAVING},
        {name: services_in(commands_of(machine, name)) for name in LEAVING},
        machine.run(*show).out,
        ways,
    )


def all_units() -> Iterator[str]:
    """Yield the units that people had running, those of the catalogue and others."""
    yield from ("errand-busy.service", "crashing-busy.service")
    for name in LEAVING:
        yield from (f"t3-serve@{name}.service", f"playwright-mcp@{name}.service")
        yield f"playwright-snapshot-refresh@{name}.timer"


def services_in(listing: str) -> str:
    """Return the services among what runs, without pids, so that what was started anew reads the same."""
    programs = ("/usr/bin/t3", "/usr/bin/npx", "/usr/bin/sleep 80009", "/usr/bin/sleep 80010")
    lines = (line.split(None, 4)[4] for line in listing.splitlines())
    return "\n".join(sorted(line for line in lines if any(program in line for program in programs)))


@pytest.fixture(scope="module")
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a machine in which seven people, each another case, are at work."""
    with workstation(deb) as machine:
        write_roster(machine, PEOPLE)
        reconcile(machine)
        let_in(machine, *PEOPLE)
        set_to_work(machine, "busy")
        machine.sh(SETTINGS)
        machine.sh("echo API_TOKEN='of two\nlines' >>/etc/t3-serve/busy.env")
        yield machine


@pytest.fixture(scope="module")
def before(machine: Machine) -> Look:
    """Look at people before any cut."""
    return look(machine, *LEAVING)


@pytest.fixture(scope="module", params=["service", "hand"])
def returned(machine: Machine, before: Look, request: pytest.FixtureRequest) -> Returned:
    """Cut all of them off and let them return; by hand, somebody interferes with the cut."""
    write_roster(machine, STAYING)
    reconcile(machine, "--allow-cuts", str(len(LEAVING)))
    if request.param == "service":
        during = look(machine, *LEAVING)
        write_roster(machine, PEOPLE)
        machine.run("systemctl", "start", "rosterd.service")
        return Returned(before, during, look(machine, *LEAVING))
    interfere(machine)
    reconcile(machine)
    during = look(machine, "busy")
    write_roster(machine, PEOPLE)
    reconcile(machine)
    return Returned(before, during, look(machine, "busy"))


def interfere(machine: Machine) -> None:
    """Open again, by hand, what the cut of the busy one has closed."""
    machine.sh("""
        usermod --expiredate 2040-01-02 --unlock busy
        echo '* * * * * true' | crontab -u busy -
        loginctl enable-linger busy
        systemctl --quiet enable --now t3-serve@busy.service
        systemctl start errand-busy.service
    """)
    machine.run(*ssh("busy", "setsid -f sleep 70000 >/dev/null 2>&1"))
    assert "sleep 70000" in commands_of(machine, "busy")


def test_everything_is_as_before(returned: Returned) -> None:
    lines = differences(returned.before.has, returned.after.has).splitlines()
    note("leaving", people_returned=len(LEAVING), differences_after=len(lines))
    assert differences(returned.before.has, returned.after.has) == ""
    assert returned.after.has == returned.before.has
    assert returned.after.at_jobs == returned.before.at_jobs
    assert len(returned.before.at_jobs["busy"]) == 6


def test_meanwhile_nobody_had_anything(returned: Returned) -> None:
    during = returned.during
    assert during.ways == dict.fromkeys(during.ways, NO_WAY)
    assert set(during.running.values()) == {""}
    assert not any(during.at_jobs.values())
    assert re.findall(r"^(ActiveState=(?!inactive|failed).*|UnitFileState=enabled)$", during.units, re.MULTILINE) == [
        "UnitFileState=enabled"  # of the errand, which is not rosterd's
    ]
    for name in LEAVING:
        assert during.has[f"lingering of {name}"] == "no\n"
        assert during.has[f"crontab of {name}"] == ""
        assert during.has[f"home of {name}"] == returned.before.has[f"home of {name}"]
        (shadow,) = (line for line in during.has["/etc/shadow"].splitlines() if line.startswith(f"{name}:"))
        assert re.fullmatch(r"\w+:!.*:1:", shadow)


def test_each_can_log_in_as_before_and_in_no_other_way(returned: Returned) -> None:
    # sshd itself refuses an empty password.
    no_password = {"key": True, "password": False, "su": True}
    assert returned.before.ways == {
        **dict.fromkeys(("busy", "expiring", "idle"), EVERY_WAY),
        **dict.fromkeys(("empty", "keys", "starred"), no_password),
        "over": NO_WAY,
    }
    assert returned.after.ways == {name: returned.before.ways[name] for name in returned.after.ways}


def test_what_ran_as_a_service_runs_again(returned: Returned) -> None:
    assert returned.after.running == returned.before.running
    assert len(returned.before.running["busy"].splitlines()) == 4
    assert returned.after.units == returned.before.units


def test_a_further_run_has_nothing_to_do(machine: Machine, returned: Returned) -> None:
    assert returned.after.ways
    before = everything(machine)
    trace = traced(machine, "rosterd")
    assert "Plan: nothing to do." in trace.result.out
    assert trace.programs == []
    assert everything(machine) == before
