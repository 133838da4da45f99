"""What the unit tests take for the machine is like the machine: the host in memory, and the grammar of env files."""

import json
import re
from collections import Counter
from typing import get_args

import pytest

from reconciler.core.actions import Action
from reconciler.core.envfile import parse_env, with_assignment
from tests.machine.faults import ROSTER, SITE, breakable, run, write_roster
from tests.machine.machine import CHECKOUT, Machine
from tests.machine.rootfs import RELEASES
from tests.machine.workstation import STAND_IN

# dan has an account before the first run.
PEOPLE = {
    "ann": {},
    "ben": {"tier": "power-user", "services": {"playwright": False}},
    "cleo": {"tier": "namespace-owner", "namespaces": ["shop"], "parked": True},
    "dan": {"adopt": True},
    "eve": {},
    "fay": {},
}

CHANGED = {**PEOPLE, "ben": {"tier": "power-user", "parked": True}, "cleo": {}, "eve": {"services": {"t3": False}}}
WITH_GUS = {**PEOPLE, "gus": {"tier": "power-user"}}

# Leaves work for every action that a first run does not need.
DAMAGE = """
record() { echo "{\\"uid\\": $2, \\"gid\\": $2}" >"/var/lib/rosterd/creating/$1"; }
sed -i 's/^rosterd:.*/&,ghost/' /etc/group /etc/gshadow
record gone 1999
sed -i /^ann:/d /etc/shadow
sed -i /^ben:/d /etc/group /etc/gshadow
sed -i /^cleo:/d /etc/subuid /etc/subgid
sed -i /^cleo:/d /etc/gshadow
rm -r /home/dan
gpasswd -d eve docker
record eve "$(id -u eve)"
rm -r /home/eve
mkdir /home/eve
record fay "$(id -u fay)"
rm /home/fay/.profile
truncate -s 5 /home/fay/.bashrc
chmod 755 /home/fay
systemctl stop t3-serve@ann
systemctl kill -s KILL t3-serve@ben
until systemctl is-failed --quiet t3-serve@ben; do sleep 0.05; done
rm /etc/ttyd-admins
"""

# What gus has when he leaves; $1 is his uid.
AT_WORK = """
printf '[Service]\\nUser=gus\\nExecStart=/usr/bin/sleep 80009\\n[Install]\\nWantedBy=multi-user.target\\n' \\
    >/etc/systemd/system/errand.service
systemctl enable --quiet --now errand.service
echo '* * 1 1 * true' | crontab -u gus -
runuser -u gus -- sh -c 'cd /; echo true | at -M now + 3 days' 2>/dev/null
usermod --password hash gus
loginctl enable-linger gus
until [ -S "/run/user/$1/bus" ]; do sleep 0.02; done
runuser -u gus -- setsid -f sleep 80005 >/dev/null 2>&1
touch /run/rosterd/reload-due
"""
# A reload of a proxy is due, and there is no such proxy.
DUE = "mkdir -p /run/rosterd/reload; touch /run/rosterd/reload/nginx-map"
OUTPUTS = "outputs: [ttyd-user-map, ttyd-admins, dispatch-json, nginx-map]\n"
LIMITS = """\
settle: 0
tiers:
  admin: {groups: [code-shared, docker, sudo], admin: true, cluster: exempt}
  power-user: {limits: {tasks_max: 4096}}
  namespace-owner: {namespaces: required}
"""
HOOK = "hooks: {revoke_cluster_rbac: {command: [/usr/bin/true]}}\n"
HOMES = "homes: {notes: {directory: {path: notes}}}\n"
# What packaging/home-steps is, for a machine with the checkout and without the package.
HOME_STEPS = """\
#!/usr/bin/python3 -IB
import sys
sys.path.insert(0, "/src")
from reconciler.home.worker import main
main()
"""
OLD_UNIT = """
install -d -o "$1" -g "$1" "/home/$1/.config" "/home/$1/.config/systemd" "/home/$1/.config/systemd/user"
install -o "$1" -g "$1" /dev/null "/home/$1/.config/systemd/user/playwright-mcp.service"
"""

ALL_KINDS = {action.kind for action in get_args(Action)}


def compared(machine: Machine, *command: str) -> Counter[str]:
    """Bring the machine to what the roster says, action by action, each like the fake's; count the kinds."""
    result = machine.run(
        *("python3", "-m", "tests.machine.compare_fake", ROSTER, SITE, *command),
        env={"PYTHONPATH": "/src", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    found = json.loads(result.out)
    assert not found["differences"], "\n".join(found["differences"])
    return Counter(found["kinds"])


def test_each_action_does_to_the_machine_what_it_does_to_the_host_in_memory() -> None:
    with breakable() as machine:
        for program in ("/usr/bin/t3", "/usr/bin/npx"):
            machine.write(program, STAND_IN, mode=0o755)
        machine.sh("mkdir /etc/systemd/system/t3-serve@.service.d; useradd --create-home dan")
        machine.write("/etc/systemd/system/t3-serve@.service.d/once.conf", "[Service]\nRestart=no\n")
        machine.run("systemctl", "daemon-reload")
        write_roster(machine, PEOPLE)
        kinds = compared(machine)
        machine.sh(DAMAGE)
        machine.write(SITE, LIMITS)
        write_roster(machine, CHANGED)
        kinds += compared(machine)
        run(machine)

        write_roster(machine, WITH_GUS)
        run(machine)
        machine.sh(AT_WORK, machine.run("id", "-u", "gus").out.strip())
        machine.write(SITE, LIMITS + HOOK + HOMES + OUTPUTS)
        machine.sh(DUE)
        machine.sh(OLD_UNIT, "ann")
        machine.write("/usr/lib/rosterd/home-steps", HOME_STEPS, mode=0o755)
        write_roster(machine, PEOPLE)
        kinds += compared(machine)
        kinds += compared(machine, "cut", "gus")
        write_roster(machine, WITH_GUS)
        kinds += compared(machine, "uncut", "gus")
        run(machine)
        assert set(kinds) == ALL_KINDS


# --- env files ---

CASES = {path.stem: path.read_bytes() for path in sorted((CHECKOUT / "tests/unit/cases/envfile").glob("*.env"))}
OWN_CASES = {
    "a byte order mark": b"\xef\xbb\xbfT3_PORT=1\nOTHER=2\n",
    "a comment that goes on": b"# one \\\nT3_PORT=1\nOTHER=2\n",
    "a semicolon comment that goes on": b"; one \\\nT3_PORT=1\n",
    "carriage returns alone": b"T3_PORT=1\rOTHER=2\r",
    "export": b"export T3_PORT=1\nOTHER=2\n",
    "a value of white space": b"T3_PORT=  \t \nOTHER=  a  b\t\n",
    "white space before a key": b"   T3_PORT=1\n\tOTHER=2\n",
    "white space within a key": b"T3 PORT=1\nT3_PORT =2\n",
    "a quote after a value": b"A=b'c'd\nB=\"x\"'y'z\n",
    "a quote within white space": b"A= 'b' \nB=\t\"c\"\t\n",
    "escapes": b'A=a\\bc\\\\d\\"e\nB="a\\bc\\\\d\\"e\\$f\\`g"\nC=\'a\\b\\\\\'\n',
    "escaped ends of lines": b"A=a\\\nb\nB=\"a\\\nb\"\nC='a\\\nb'\nD=x\\\n  y\n",
    "an escaped carriage return": b"A=a\\\r\nB=2\n",
    "a hash after a value": b"A=b # c\nB='b' # c\nC=b#c\n",
    "an empty key": b"=1\nA=2\n",
    "a key that starts with a digit": b"1A=1\nA=2\n",
    "a key with a dash": b"A-B=1\nA=2\n",
    "a key that is not ASCII": "ä=1\nA=2\n".encode(),
    "control characters": b"A=a\x01b\nB=\x7f\nC=\x1b[0m\n",
    "a dollar": b"A=$HOME\nB=${HOME}\nC='$HOME'\n",
    "an open quote before more": b"A='b\nT3_PORT=1\nOTHER=2\n",
    "a doubled variable": b"A=1\nA=2\nA=\n",
    "nothing but white space": b" \n\t\n",
    "a tab before the sign": b"A\t=1\n",
    "a line of an equals sign": b"A==\nB= =\n",
    "a secret of several lines with a port in it": b"KEY='-----BEGIN\nT3_PORT=9\n-----END'\nT3_PORT=1\n",
    "a very long value": b"A=" + b"x" * 100_000 + b"\nB=1\n",
}
# systemd starts no unit with these; what the parser makes of them matters to nobody.
REFUSED = {"a NUL": b"A=1\0\nB=2\n", "a value that is not UTF-8": b"A=\xff\nB=2\n"}

NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
ADDED = "ADDED_PORT"

# Starts a unit with each env file of /run/env and keeps its environment beside it. All at once, then waits for them.
SHOW_ALL = """
cd /run/env
for file in *.env; do
    systemd-run --quiet --wait --property=EnvironmentFile=/run/env/$file \
        --property=StandardOutput=file:/run/env/$file.out /usr/bin/env -0 &
done
wait
"""


@pytest.fixture(scope="module", params=RELEASES)
def systemd_says(request: pytest.FixtureRequest) -> dict[str, dict[bytes, bytes] | None]:
    """Return what systemd makes of each case, and of each with a line appended where that is said to be safe."""
    everything = CASES | OWN_CASES | REFUSED
    texts = {f"{number}": data for number, data in enumerate(everything.values())}
    texts |= {f"{number}+": with_assignment(data, ADDED, "3773") for number, data in enumerate(everything.values())}
    with breakable(request.param) as machine:
        machine.run("mkdir", "/run/env")
        for name, data in texts.items():
            machine.write(f"/run/env/{name}.env", data.decode(errors="surrogateescape"))
        machine.write("/run/env/none.env", "")
        machine.sh(SHOW_ALL)
        found = {name: environment(machine, name) for name in [*texts, "none"]}
    base = found["none"] or {}
    names = {f"{number}": name for number, name in enumerate(everything)}
    return {
        names[key.rstrip("+")] + "+" * key.endswith("+"): told if told is None else own(told, base)
        for key, told in found.items()
        if key != "none"
    }


def environment(machine: Machine, name: str) -> dict[bytes, bytes] | None:
    """Return the environment that a unit had; None if it did not start."""
    path = f"/run/env/{name}.env.out"
    text = machine.read(path).encode(errors="surrogateescape") if machine.exists(path) else b""
    if not text:
        return None
    return dict(entry.split(b"=", 1) for entry in text.split(b"\0") if entry)


def own(told: dict[bytes, bytes], base: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the variables that come from the file."""
    return {name: value for name, value in told.items() if name not in base}


@pytest.mark.parametrize("name", [*CASES, *OWN_CASES])
def test_an_env_file_is_read_as_systemd_reads_it(systemd_says: dict[str, dict[bytes, bytes] | None], name: str) -> None:
    read = parse_env((CASES | OWN_CASES)[name])
    told = systemd_says[name]
    assert told is not None
    # What systemd reads and then does not pass on, because no environment may hold it.
    passed_on = {key: value for key, value in read.variables.items() if NAME.fullmatch(key) and is_utf8(value)}
    # A comment that goes on is read by one release so and by the other so, and no line is added to it.
    if told != passed_on:
        assert read.open_ended
        assert "comment that goes on" in name


@pytest.mark.parametrize("name", [name for name, data in (CASES | OWN_CASES).items() if not parse_env(data).open_ended])
def test_a_line_added_to_an_env_file_is_one_to_systemd_and_changes_no_other(
    systemd_says: dict[str, dict[bytes, bytes] | None], name: str
) -> None:
    before = systemd_says[name]
    assert before is not None
    assert systemd_says[f"{name}+"] == {**before, ADDED.encode(): b"3773"}


@pytest.mark.parametrize("name", REFUSED)
def test_no_service_starts_with_an_env_file_that_systemd_refuses(
    systemd_says: dict[str, dict[bytes, bytes] | None], name: str
) -> None:
    assert systemd_says[name] is None


def is_utf8(value: bytes) -> bool:
    """Say whether a value may stand in an environment that systemd makes."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
