"""Many units at once: more than systemd can tell about in one go."""

from pathlib import Path

from tests.machine.workstation import workstation

MANY = 600
UNIT = "[Service]\nExecStart=/usr/bin/sleep infinity\n"
# As a run starts units; the installed package is what it imports.
START = """\
import collections, sys
from reconciler.host.bus import Job, Systemd
units = [f"many@{number}.service" for number in range(int(sys.argv[1]))]
print(dict(collections.Counter(Systemd().run_jobs(Job.START, units, 100).values())))
"""


def test_of_hundreds_of_jobs_every_end_is_heard(deb: Path) -> None:
    with workstation(deb) as machine:
        machine.write("/etc/systemd/system/many@.service", UNIT)
        machine.run("systemctl", "daemon-reload")
        assert machine.run("python3", "-c", START, str(MANY), timeout=150).out.strip() == f"{{'done': {MANY}}}"
        listed = machine.run("systemctl", "list-units", "--no-legend", "--plain", "--state=active", "many@*").out
        assert len(listed.splitlines()) == MANY
        said = machine.run("journalctl", "--unit=init.scope", "--unit=dbus.service", "--output=cat").out
        assert "disconnect on API bus" not in said
        assert "match rules" not in said
