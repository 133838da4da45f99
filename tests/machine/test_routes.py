"""Whose request goes where, with real nginx and real caddy, configured as docs/routes.md says.

The SSO and people's servers are stand-ins. Runs are made as a unit, in the sandbox of rosterd.service.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machine.machine import CHECKOUT, Machine
from tests.machine.rootfs import AROUND, rootfs
from tests.machine.sso_stand_in import NAMELESS, PORT
from tests.machine.workstation import (
    QUICK,
    SITE,
    STAND_IN,
    eventually,
    is_up,
    look,
    stop_own_units,
    traced,
    write_roster,
)

PAGE = (CHECKOUT / "docs" / "routes.md").read_text(encoding="utf-8")
ADDRESS = "workstation.example.org"
# alice and bob in other letters, too; an identity that means something else to a proxy, and one of odd letters.
PEOPLE = {
    "alice": {"authentik_user": "alice.a"},
    "bob": {"authentik_user": "bob.b+work@example.org"},
    "carol": {"authentik_user": "ALICE.a"},
    "dave": {"authentik_user": "default"},
    "erin": {"authentik_user": "import"},
    "frank": {"authentik_user": f"f.{'long' * 60}"},
}
IDENTITIES = {name: fields["authentik_user"] for name, fields in PEOPLE.items()}
# Answers with the user that it runs as, then with what it was asked.
SERVER = STAND_IN.replace("connection.recv(65536)", "request = connection.recv(65536).decode()").replace(
    "{name}\\n", "{name}\\n{request}"
)
CERTIFICATE = """
mkdir /etc/ssl/workstation
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$1" \\
    -addext "subjectAltName=DNS:$1" -keyout /etc/ssl/workstation/key.pem -out /etc/ssl/workstation/cert.pem 2>&1
chgrp caddy /etc/ssl/workstation/key.pem
chmod 640 /etc/ssl/workstation/key.pem
"""


@dataclass(frozen=True)
class Proxy:
    """One of the two, and where its parts are."""

    output: str
    unit: str
    configuration: str
    map: str
    broken: str
    """What a configuration is broken with."""
    complaint: str
    """What its check says of that."""

    @property
    def site(self) -> str:
        """A site whose proxy it is."""
        return f"{QUICK}guards: {{max_cuts: 9}}\noutputs: [dispatch-json, {self.output}]\n"

    @property
    def due(self) -> str:
        """The file that tells of a reload that is due."""
        return f"/run/rosterd/reload/{self.output}"


NGINX = Proxy(
    "nginx-map",
    "nginx.service",
    "/etc/nginx/conf.d/workstation.conf",
    "/etc/t3-serve/nginx-map.conf",
    "servr {}\n",
    '[emerg] {}: unknown directive "servr" in /etc/nginx/conf.d/workstation.conf:',
)
CADDY = Proxy(
    "caddy",
    "caddy.service",
    "/etc/caddy/Caddyfile",
    "/etc/t3-serve/caddy-map.conf",
    "other.example.org {\n\tservr\n}\n",
    "Error: adapting config using caddyfile: /etc/caddy/Caddyfile:",
)


def example(path: str) -> str:
    """Return the text that docs/routes.md gives for a file."""
    (text,) = re.findall(rf"^```\w+\n(# {re.escape(path)}\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


@dataclass(frozen=True)
class Front:
    """A machine whose people are reached by a proxy."""

    machine: Machine
    proxy: Proxy

    def ask(self, session: str | None, *headers: str, path: str = "/") -> tuple[int, str]:
        """Send a request as a browser of this session does; return the status and the body."""
        curl = [
            "curl",
            "--silent",
            "--http1.1",
            "--cacert",
            "/etc/ssl/workstation/cert.pem",
            "--write-out",
            "\n%{http_code}",
        ]
        curl += ["--resolve", f"{ADDRESS}:443:127.0.0.1"]
        curl += [] if session is None else ["--cookie", f"session={session}"]
        curl += [part for header in headers for part in ("--header", header)]
        body, _, code = self.machine.run(*curl, f"https://{ADDRESS}{path}").out.rpartition("\n")
        return int(code), body

    def reached(self, name: str, *headers: str) -> str:
        """Return at whose instance the request of a person ends, or the status where at none."""
        code, body = self.ask(IDENTITIES.get(name, name), *headers)
        return body.splitlines()[0] if code == 200 else str(code)

    def reaches(self, name: str, whom: str) -> None:
        """See that the requests of a person end there from now on; old processes of nginx take a moment to end."""
        eventually(lambda: {self.reached(name) for _ in range(5)} == {whom}, within=5)

    def reloads(self) -> int:
        """Return how many reloads systemd has done."""
        return len(self.machine.journal(f"UNIT={self.proxy.unit}", "JOB_TYPE=reload", "JOB_RESULT=done"))

    def run(self, *leave_out: str, code: int = 0, **entries: dict[str, object]) -> str:
        """Give everybody but these an entry in the roster, make a run as a unit, and return what it logged."""
        fields = {name: {**PEOPLE.get(name, {}), **entries.get(name, {})} for name in {**PEOPLE, **entries}}
        write_roster(self.machine, {name: one for name, one in sorted(fields.items()) if name not in leave_out})
        cursor = self.machine.sh("journalctl --sync; journalctl -n0 --show-cursor").out.split("cursor: ")[1].strip()
        self.machine.run("systemctl", "start", "rosterd.service", check=code == 0)
        status = "ExecMainStatus"
        assert self.machine.run("systemctl", "show", f"-p{status}", "rosterd").out.strip() == f"{status}={code}"
        entries_of = self.machine.journal("--unit=rosterd.service", f"--after-cursor={cursor}")
        return "\n".join(str(entry["MESSAGE"]) for entry in entries_of)

    def break_configuration(self) -> None:
        """Put a fault into another part of the configuration than the map."""
        self.machine.write(self.proxy.configuration, example(self.proxy.configuration) + self.proxy.broken)

    def mend_configuration(self) -> None:
        """Take the fault out."""
        self.machine.write(self.proxy.configuration, example(self.proxy.configuration))


@pytest.fixture(scope="module", params=[NGINX, CADDY], ids=["nginx", "caddy"])
def front(request: pytest.FixtureRequest, deb: Path) -> Iterator[Front]:
    """Boot a workstation, make a run, and set its proxy up as the page says."""
    proxy: Proxy = request.param
    with Machine(rootfs(AROUND)) as machine:
        machine.install(deb)
        stop_own_units(machine)
        machine.run("systemctl", "--quiet", "mask", "--runtime", "rosterd-recheck.service")
        machine.sh("groupadd --system docker; groupadd --system code-shared")
        machine.write("/usr/bin/t3", SERVER, mode=0o755)
        machine.write("/usr/bin/npx", STAND_IN, mode=0o755)
        machine.sh(CERTIFICATE, ADDRESS)
        machine.start("python3", "-I", "/src/tests/machine/sso_stand_in.py")
        machine.sh('until curl --silent "http://127.0.0.1:$1/"; do sleep 0.05; done', str(PORT), timeout=30)
        machine.write(SITE, proxy.site)
        front = Front(machine, proxy)
        front.run()
        machine.write(proxy.configuration, example(proxy.configuration))
        machine.run("systemctl", "start", proxy.unit)
        yield front


@pytest.fixture
def changing(front: Front) -> Iterator[Front]:
    """Let a test change everything, and put it back: everybody at work, and a proxy that knows."""
    yield front
    front.mend_configuration()
    front.machine.write(SITE, front.proxy.site)
    front.run()
    front.machine.run("systemctl", "restart", front.proxy.unit)
    assert not front.machine.exists(front.proxy.due)


def test_everybody_reaches_their_own_instance(front: Front) -> None:
    assert {name: front.reached(name) for name in PEOPLE} == {name: name for name in PEOPLE}
    code, body = front.ask("alice.a", path="/a/b%20c?d=e&f")
    assert (code, body.splitlines()[1].split()[:2]) == (200, ["GET", "/a/b%20c?d=e&f"])
    assert look(front.machine, front.proxy.map) == "root:root 644"


@pytest.mark.parametrize(
    "stranger",
    ["mallory.m", "Alice.a", "alice_a", "aliceXa", "alice.a.", "xalice.a", "DEFAULT", "nobody", "~^alice[.]a$"],
)
def test_whoever_is_not_on_the_roster_gets_403(front: Front, stranger: str) -> None:
    assert front.reached(stranger) == "403"


def test_who_is_not_signed_in_is_sent_to_sign_in(front: Front) -> None:
    assert front.ask(None)[0] == 302
    assert front.ask(None, path="/outpost.goauthentik.io/start") == (200, "sign in here\n")


SMUGGLED = [
    ("X-authentik-username: alice.a",),
    ("x-AUTHENTIK-username: alice.a",),
    ("X-Authentik-Username: alice.a", "X-Authentik-Username: alice.a"),
    ("X_authentik_username: alice.a",),
    ("X-authentik-username: alice.a", "Connection: X-authentik-username"),
]


@pytest.mark.parametrize("headers", SMUGGLED, ids=[" ".join(headers) for headers in SMUGGLED])
def test_what_a_client_says_it_is_is_not_believed(front: Front, headers: tuple[str, ...]) -> None:
    assert front.ask(None, *headers)[0] == 302
    assert front.reached(NAMELESS, *headers) == "403"
    assert front.reached("mallory.m", *headers) == "403"
    code, body = front.ask(IDENTITIES["bob"], *headers, "X-authentik-groups: admins", "X-authentik-uid: 1")
    assert (code, body.splitlines()[0]) == (200, "bob")
    told = [line for line in body.splitlines() if "authentik" in line.lower()]
    assert [line.lower() for line in told] == [f"x-authentik-username: {IDENTITIES['bob']}".lower()]


def test_a_connection_that_stays_open_is_passed_on_as_such(front: Front) -> None:
    websocket = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
    code, body = front.ask("alice.a", *websocket)
    assert (code, body.splitlines()[0]) == (200, "alice")
    assert {"connection: upgrade", "upgrade: websocket"} <= {line.lower() for line in body.splitlines()}


def test_who_is_parked_or_switched_off_gets_403_until_that_ends(changing: Front) -> None:
    changing.run(alice={"parked": True}, bob={"services": {"t3": False}})
    changing.reaches("alice", "403")
    changing.reaches("bob", "403")
    changing.reaches("carol", "carol")
    changing.run()
    changing.reaches("alice", "alice")
    changing.reaches("bob", "bob")


def test_who_is_cut_off_gets_403_and_their_own_instance_when_they_are_back(changing: Front) -> None:
    changing.run("bob")
    changing.reaches("bob", "403")
    changing.reaches("alice", "alice")
    changing.run()
    changing.reaches("bob", "bob")


def test_a_command_cuts_off_at_the_proxy_too(changing: Front) -> None:
    changing.machine.run("rosterd", "cut", "bob")
    changing.reaches("bob", "403")
    changing.reaches("alice", "alice")
    changing.machine.run("rosterd", "uncut", "bob")
    changing.reaches("bob", "bob")


def test_the_proxy_is_reloaded_when_its_map_changed_and_at_no_other_time(changing: Front) -> None:
    before = changing.reloads()
    changing.run()
    changing.run(alice={"tier": "admin"})
    assert changing.reloads() == before
    changing.run(gina={})
    assert changing.reloads() == before + 1
    assert not changing.machine.exists(changing.proxy.due)
    changing.run("gina")
    assert changing.reloads() == before + 2
    changing.run()


def test_a_run_with_nothing_to_do_starts_no_process_and_writes_nothing(front: Front) -> None:
    trace = traced(front.machine, "rosterd")
    assert trace.result.code == 0, trace.result
    assert trace.programs == []
    assert [call for call in trace.changes if "/run/rosterd/lock" not in call and "last-run" not in call] == []


def test_a_plan_without_root_says_that_it_cannot_see_whether_a_reload_is_due(front: Front) -> None:
    plan = front.machine.run("runuser", "-u", "alice", "--", "rosterd", "--dry-run").out
    assert "whether a proxy is to be reloaded (/run/rosterd/reload" in plan


def test_a_proxy_that_does_not_run_is_left_alone(changing: Front) -> None:
    changing.machine.run("systemctl", "stop", changing.proxy.unit)
    changing.run(gina={})
    assert not is_up(changing.machine, changing.proxy.unit)
    assert not changing.machine.exists(changing.proxy.due)
    changing.machine.run("systemctl", "start", changing.proxy.unit)
    changing.reaches("gina.id", "gina")


def test_a_map_that_fails_the_check_is_put_back_and_the_words_of_the_check_are_told(changing: Front) -> None:
    before, reloads = changing.machine.read(changing.proxy.map), changing.reloads()
    changing.break_configuration()
    told = changing.run(code=3, hugo={})
    words = changing.proxy.complaint.split("{}")
    assert all(word in told for word in words), told
    assert "the map was put back as it was" in told
    assert changing.machine.read(changing.proxy.map) == before
    assert look(changing.machine, changing.proxy.map) == "root:root 644"
    assert changing.reloads() == reloads
    # All else of the run is done, and nobody notices.
    assert "hugo" in changing.machine.read("/etc/t3-serve/dispatch.json")
    assert is_up(changing.machine, "t3-serve@hugo.service")
    changing.reaches("alice", "alice")
    changing.mend_configuration()
    changing.run(hugo={})
    changing.reaches("hugo.id", "hugo")


def test_who_leaves_is_out_of_the_map_though_the_check_fails(changing: Front) -> None:
    changing.break_configuration()
    told = changing.run("bob", code=3, iris={})
    assert all(word in told for word in changing.proxy.complaint.split("{}")), told
    lines = changing.machine.read(changing.proxy.map)
    assert re.findall(r"# (\w+)$", lines, re.MULTILINE) == ["carol", "alice", "dave", "frank", "erin"]
    assert not is_up(changing.machine, "t3-serve@bob.service")
    # Until it is mended that is told in each run, by a plan too.
    assert all(word in changing.run("bob", code=3, iris={}) for word in changing.proxy.complaint.split("{}"))
    assert f"{changing.proxy.unit}: not reloaded" in changing.machine.run("rosterd", "--dry-run").out
    changing.mend_configuration()
    changing.run("bob", iris={})
    changing.reaches("bob", "403")
    changing.reaches("iris.id", "iris")
    assert not changing.machine.exists(changing.proxy.due)


def test_a_reload_that_a_killed_run_owes_is_made_by_the_next_one(changing: Front) -> None:
    reloads = changing.reloads()
    changing.machine.write(
        SITE, f"{changing.proxy.site}proxies: {{{changing.proxy.output}: {{check: [/usr/bin/sleep, '61']}}}}\n"
    )
    write_roster(changing.machine, {**PEOPLE, "jane": {}})
    run = changing.machine.start("rosterd", "reconcile")
    eventually(lambda: "jane" in changing.machine.read(changing.proxy.map), within=20)
    eventually(lambda: changing.machine.run("pgrep", "-f", "^/usr/bin/sleep 61$", check=False).code == 0, within=5)
    run.end()
    assert (changing.reloads(), changing.reached("jane.id")) == (reloads, "403")
    changing.machine.write(SITE, changing.proxy.site)
    told = changing.run(jane={})
    assert f"{changing.proxy.unit}: not reloaded since {changing.proxy.map} changed → reloaded" in told
    assert changing.reloads() == reloads + 1
    changing.reaches("jane.id", "jane")
    changing.run(jane={})
    assert changing.reloads() == reloads + 1


@pytest.mark.parametrize("front", [NGINX], ids=["nginx"], indirect=True)  # the same for both, and it takes its time
def test_a_check_that_hangs_is_ended_and_nobody_else_waits_for_long(changing: Front) -> None:
    changing.machine.write(
        SITE, f"{changing.proxy.site}proxies: {{{changing.proxy.output}: {{check: [/usr/bin/sleep, '62']}}}}\n"
    )
    told = changing.run(code=3, kate={})
    assert "/usr/bin/sleep did not end within 10 s and was ended" in told
    assert changing.machine.run("pgrep", "-f", "^/usr/bin/sleep 62$", check=False).code == 1
    assert "kate" not in changing.machine.read(changing.proxy.map)
    assert is_up(changing.machine, "t3-serve@kate.service")


def test_a_proxy_that_is_not_there_is_a_warning(changing: Front) -> None:
    absent = "check: [/opt/proxy, check], unit: no-such-proxy.service"
    changing.machine.write(SITE, f"{changing.proxy.site}proxies: {{{changing.proxy.output}: {{{absent}}}}}\n")
    told = changing.run(liam={})
    assert f"{changing.proxy.map} is put in place without /opt/proxy, which is to check it" in told
    assert "no-such-proxy.service, which is to be reloaded" in told
    assert "liam" in changing.machine.read(changing.proxy.map)
    changing.machine.write(
        SITE, f"{changing.proxy.site}proxies: {{{changing.proxy.output}: {{check: null, unit: null}}}}\n"
    )
    assert "put in place without" not in changing.run(liam={}, mona={})
    assert "mona" in changing.machine.read(changing.proxy.map)


@pytest.mark.parametrize("front", [CADDY], ids=["caddy"], indirect=True)  # nginx is told by signals
def test_nobody_but_its_own_user_tells_caddy_what_to_do(front: Front) -> None:
    asked = ("curl", "--silent", "--show-error", "--output", "/dev/null")
    socket = ("--unix-socket", "/var/lib/caddy/admin.sock", "http://localhost/config/")
    front.machine.run("runuser", "-u", "caddy", "--", *asked, *socket)
    assert front.machine.run("runuser", "-u", "alice", "--", *asked, *socket, check=False).code == 7
    port = "http://localhost:2019/config/"
    assert front.machine.run("runuser", "-u", "alice", "--", *asked, port, check=False).code == 7
