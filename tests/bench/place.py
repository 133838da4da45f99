"""The machine that is measured in: its people, its services, and the command of each tool."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.bench.results import Counts, Sample
from tests.bench.tracing import OPTIONS, counted
from tests.machine.machine import CHECKOUT, Machine
from tests.machine.rootfs import rootfs

INSIDE = CHECKOUT / "tests/bench/inside"
PROGRAMS = "/opt/bench"
PEERS = (CHECKOUT / ".peers").resolve()
TEMPLATES = ("bench-a@.service", "bench-b@.service")
PEOPLE, PEOPLE_JSON = "/root/bench/people", "/root/bench/people.json"
ROSTER, NEW_ROSTER = "/etc/rosterd/roster.yaml", "/etc/rosterd/roster.yaml.edited"
TRACES = "/run/bench.traces"
LONGEST = 3600.0

# Costs nothing to keep: the benchmark is about who starts services, not about the services.
UNIT = """\
[Service]
Type=oneshot
RemainAfterExit=yes
User=%i
EnvironmentFile=/etc/t3-serve/{letter}-%i.env
ExecStart=/usr/bin/true
[Install]
WantedBy=multi-user.target
"""
# So that thousands of them can be started: else each start has systemd 252 go through all others of the template.
NO_PROCESS = "[Service]\nExecStart=\nExecStop=/usr/bin/true\n"
START_ALL = """
cut --delimiter=' ' --fields=1 "$1" |
    sed 's/.*/bench-a@&.service bench-b@&.service/' |
    xargs --max-args=200 systemctl start
"""
# The service of one person of whom an answer is waited for.
ANSWERS = """\
[Service]
Type=exec
RemainAfterExit=no
ExecStart=
ExecStart=/usr/bin/python3 -IS /src/tests/bench/inside/answer.py
"""
FIRST_PORTS = (10000, 30000)
SITE = """\
settle: 0
listen: 0
shell: /bin/bash
services:
  a:
    units: [bench-a@.service]
    port: {variable: A_PORT, base: 10000, limit: 29999, env_file: "/etc/t3-serve/a-{user}.env"}
    route: true
  b:
    units: [bench-b@.service]
    port: {variable: B_PORT, base: 30000, limit: 49999, env_file: "/etc/t3-serve/b-{user}.env"}
"""
# Debian's limit of ids for containers is reached with 9,154 people.
MORE_SUBIDS = "\nSUB_UID_MAX 4200000000\nSUB_GID_MAX 4200000000\n"

ENVIRONMENT = {
    # What its documentation recommends for speed.
    "ANSIBLE_PIPELINING": "1",
    "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
}
# As a module, so that it is compiled already, as rosterd is.
_RUN_FLOOR = f"import sys; sys.path.append('{PROGRAMS}'); import floor; floor.main()"
_FLOOR = ("/usr/bin/python3", "-c", _RUN_FLOOR, PEOPLE, ROSTER, *TEMPLATES)
_ROSTERD = ("/usr/sbin/rosterd",)
_SHELL = ("/bin/sh", f"{PROGRAMS}/loop.sh", PEOPLE)
_ANSIBLE = (f"{PEERS}/bin/ansible-playbook", "--extra-vars", f"@{PEOPLE_JSON}", f"{PROGRAMS}/playbook.yaml")
_PYINFRA = (f"{PEERS}/bin/pyinfra", "@local", f"{PROGRAMS}/deploy.py")
# A first run and one more person are the same command as where there is nothing to do.
_COMMANDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "rosterd": {"": (*_ROSTERD, "reconcile"), "dry-run": (*_ROSTERD, "--dry-run"), "status": (*_ROSTERD, "status")},
    "floor": {"": _FLOOR, "dry-run": _FLOOR, "status": _FLOOR},
    "shell": {"": _SHELL},
    "ansible": {"": _ANSIBLE, "dry-run": (*_ANSIBLE, "--check")},
    "pyinfra": {"": (*_PYINFRA, "-y"), "dry-run": (*_PYINFRA, "--dry")},
}


def command(tool: str, scenario: str) -> tuple[str, ...] | None:
    """Return the command of a tool; None where it has none for this."""
    commands = _COMMANDS[tool]
    return commands.get(scenario) if scenario in ("dry-run", "status") else commands[""]


@dataclass
class Place:
    """A machine, and who is to be on it."""

    machine: Machine
    names: list[str] = field(default_factory=list)

    def expect(self, users: int) -> None:
        """Put that many people on the roster and on the lists of the other tools; those of before stay first."""
        self.names = [f"user{number:05}" for number in range(users)]
        self._write(ROSTER)

    def expect_one_more(self, roster: str = ROSTER) -> str:
        """Put one more person there, and return the name; `roster` is the file for rosterd."""
        self.names.append(f"user{len(self.names):05}")
        self._write(roster)
        return self.names[-1]

    def ports_of(self, name: str) -> tuple[int, int]:
        """Return the ports that somebody has: they are given out in the order of the names."""
        return _ports(self.names.index(name))

    def measured(self, tool: str, scenario: str) -> Sample:
        """Run a command once and return what it took; it must succeed."""
        found = json.loads(self._run("python3", f"{PROGRAMS}/measure.py", *_known(tool, scenario)))
        code = found.pop("code")
        if code != 0:
            said = self.machine.read("/run/bench.out")[-3000:]
            raise RuntimeError(f"{tool} {scenario} with {len(self.names)} users: exit code {code}\n{said}")
        return Sample(**found)

    def counts(self, tool: str, scenario: str) -> Counts:
        """Run a command once under strace and return what it did."""
        self.machine.sh('rm -rf "$1"; mkdir "$1"', TRACES)
        self._run("strace", *OPTIONS, f"--output={TRACES}/of", "--", *_known(tool, scenario))
        return counted(self.machine.sh('cat "$1"/of.*', TRACES).out.splitlines())

    def check(self) -> None:
        """See that everybody has all that they are to have; raises if not."""
        self._run("python3", f"{PROGRAMS}/check.py", PEOPLE)

    def put_people_ahead(self) -> None:
        """Make everybody's account, env files and running services without any of the tools."""
        self._run("python3", f"{PROGRAMS}/ahead.py", PEOPLE)
        drop_ins = [f"/run/systemd/system/{template}.d/ahead.conf" for template in TEMPLATES]
        for path in drop_ins:
            self.machine.write(path, NO_PROCESS)
        self._run("systemctl", "daemon-reload")
        self.machine.sh(START_ALL, PEOPLE, timeout=LONGEST)
        self._run("rm", *drop_ins)
        self._run("systemctl", "daemon-reload")

    def reload(self) -> float:
        """Return how many seconds systemd takes to read its units again, as it must when one is enabled."""
        started = time.monotonic()
        self._run("systemctl", "daemon-reload")
        return time.monotonic() - started

    def edit_to_answer(self) -> float:
        """Put one more person on the roster, and return how many seconds later their server answers.

        It is the path unit that notices, and rosterd.service that does it, as on any machine.
        """
        name = self.expect_one_more(NEW_ROSTER)
        port = str(self.ports_of(name)[0])
        self.machine.write(f"/etc/systemd/system/bench-a@{name}.service.d/answers.conf", ANSWERS)
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "start", "rosterd.path")
        seconds = self._run("python3", f"{PROGRAMS}/edit.py", NEW_ROSTER, ROSTER, name, port)
        self.machine.sh(
            'while systemctl is-active --quiet "$1" || [ -n "$(systemctl list-jobs --no-legend)" ]; do sleep 0.1; done',
            "rosterd.service",
            timeout=LONGEST,
        )
        self.machine.run("systemctl", "stop", "rosterd.path")
        return float(seconds)

    def _write(self, roster: str) -> None:
        entries = [f"  {name}: {{authentik_user: {name}.x, k8s_user: {name}, tier: power-user}}" for name in self.names]
        self.machine.write(roster, "\n".join(["users:", *entries, ""]))
        people = [{"name": name, "ports": _ports(number)} for number, name in enumerate(self.names)]
        self.machine.write(PEOPLE_JSON, json.dumps({"people": people}))
        lines = (
            f"{name} {first} {second}\n"
            for name, (first, second) in zip(self.names, map(_ports, count()), strict=False)
        )
        self.machine.write(PEOPLE, "".join(lines))

    def _run(self, *argv: str) -> str:
        return self.machine.run(*argv, timeout=LONGEST, env=ENVIRONMENT).out


def _ports(number: int) -> tuple[int, int]:
    return FIRST_PORTS[0] + number, FIRST_PORTS[1] + number


def _known(tool: str, scenario: str) -> tuple[str, ...]:
    argv = command(tool, scenario)
    assert argv is not None, f"{tool} has no {scenario}"
    return argv


@contextmanager
def place(deb: Path, users: int) -> Iterator[Place]:
    """Boot a machine with the tools, the templates and the site; nobody has an account yet."""
    with Machine(rootfs("bookworm"), also=[PEERS]) as machine:
        machine.install(deb)
        machine.run("systemctl", "stop", "rosterd.timer", "rosterd.path")
        machine.run("systemctl", "--quiet", "mask", "--runtime", "rosterd-recheck.service")
        machine.run("mkdir", "--parents", PROGRAMS, "/etc/t3-serve")
        for program in INSIDE.iterdir():
            if program.is_file():
                machine.push(program, f"{PROGRAMS}/{program.name}")
        machine.run("python3", "-m", "compileall", "-q", PROGRAMS)
        machine.sh('printf %s "$1" >>/etc/login.defs', MORE_SUBIDS)
        machine.write("/etc/rosterd/site.yaml", SITE)
        for template in TEMPLATES:
            machine.write(f"/etc/systemd/system/{template}", UNIT.format(letter=template[len("bench-")]))
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", "dbus.service")
        found = Place(machine)
        found.expect(users)
        yield found
