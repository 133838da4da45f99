"""A word of its own in every place that holds a secret; after runs that work and runs that fail, it is in no other.

systemd is traced meanwhile, and with it all that it starts: the service, the commands, people's units and steps. So
every argument list and environment is seen that any of these processes ever had, and every file that it wrote to.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.machine import git_server
from tests.machine.homes import HEAD, SECRET_FILE, STEPS, TOKEN_FILE, forget, home_workstation
from tests.machine.machine import Machine
from tests.machine.roots_calls import system_traced
from tests.machine.workstation import SITE, entry_of, write_roster
from tests.proof.evidence import note, scaled

PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {"tier": "admin", "code_layout": "workspace", "repos": ["api"]},
    "bob": {"services": {"t3": False, "playwright": False}},
    "carol": {},
}
WITHOUT_BOB = {name: entry for name, entry in PEOPLE.items() if name != "bob"}

# By place. `hash` is the line that shadow has for bob, and is known later.
CANARIES = {
    place: f"c4nary0f{place.replace('-', '')}47"
    for place in (
        "env-file",
        "env-file-second-line",
        "env-file-of-browser",
        "env-file-left-open",
        "source",
        "snapshot-token",
        "git-credentials",
        "git-address",
        "agent",
        "agent-cut-off",
        "ssh-key",
        "crontab",
        "mail",
        "own-environment",
        "cluster",
        "site",
    )
}

pytestmark = pytest.mark.timeout(900)  # all is traced, which takes its time
WHOLE = bool(scaled(0, 1))
ENVIRONMENT, METRICS, PAGE = "/srv/environment", "/srv/metrics.prom", "/srv/status.html"
ARCHIVES = "/var/lib/rosterd/archives"
TRACE = "/srv/trace"
STRACE = ("strace", "-ff", "-qq", "-y", "-v", "-s", "65536", "-e", "signal=none")
CALLS = "execve,openat,mkdir,mkdirat,write,pwrite64,writev,sendto,sendfile,copy_file_range"

# As the browser's entry with a token in it, and as a file that somebody's editor has cut off.
AGENT = f'{{"mcpServers": {{"own": {{"url": "http://h/", "headers": {{"Authorization": "{CANARIES["agent"]}"}}}}}}}}'
AGENT_CUT_OFF = f'{{"oauth": "{CANARIES["agent-cut-off"]}", "mcpServers": {{'
LEFT_OPEN = f'T3_PORT="3790\nTOKEN={CANARIES["env-file-left-open"]}\n'
# Of two clones: the one's is not what the site says, the other's is, and its token is wrong.
ADDRESSES = (
    f"http://other:{CANARIES['git-address']}@127.0.0.1:9/extra.git",
    f"http://other:{CANARIES['git-address']}@127.0.0.1:{git_server.PORT}/team/extra.git",
)

SITE_TEXT = f"""{HEAD.removesuffix("homes:" + chr(10))}listen: 0
metrics: {METRICS}
k8s_users: {{command: [/usr/local/bin/cluster], timeout: 10}}
hooks: {{revoke_cluster_rbac: {{command: [/usr/local/bin/hook, "{{k8s_user}}"], timeout: 10}}}}
homes:
"""
MORE_STEPS = {
    **STEPS,
    "fetched": f'{{git: {{path: fetched, url: "http://127.0.0.1:{git_server.PORT}/team/extra.git"}}, tiers: [admin]}}',
    "extra": STEPS["extra"].removesuffix("}") + ", tiers: [admin]}",
    "fails": "{command: {run: [/bin/false], creates: never}}",
    # Clones take most of the time.
    **({} if WHOLE else {"code": "null"}),
}
# What the cluster says once; then it is away. The hook fails the first time.
CLUSTER = f"#!/bin/sh\n[ -e /srv/asked ] && exit 3\ntouch /srv/asked\necho '{{\"alice\": {CANARIES['cluster']}'\n"
HOOK = "#!/bin/sh\n[ -e /srv/hooked ] && exit 0\ntouch /srv/hooked\nexit 1\n"

# Everything that these people keep to themselves.
LIFE = """
runuser -u alice -- git config --global credential.helper store
install -d -m 700 -o bob -g bob /home/bob/.ssh
crontab -u bob /srv/crontab
"""

# Fails in the middle of putting an env file in place: as the disk does, then as nobody thought of.
BROKEN = """
import errno, os, sys
from reconciler.cli import main
error = OSError(errno.ENOSPC, "No space left on device") if sys.argv[1] == "full" else RuntimeError("a mistake")
def broken(*arguments, **options):
    raise error
os.fsync = broken
sys.argv[1:] = ["reconcile"]
main()
"""

PIPE, SOCKET = r"pipe:\[\d+\]", r"(?:socket|TCP):\[.*\]"
# What keeps a secret is put in place by another file; or it is handed to who keeps it. Nothing else may have it.
HANDED_ON: Mapping[str, str] = {
    "env-file": r"/etc/t3-serve/\.alice\.env\.rosterd-new",
    "env-file-second-line": r"/etc/t3-serve/\.alice\.env\.rosterd-new",
    "env-file-of-browser": r"/etc/t3-serve/\.playwright-alice\.env\.rosterd-new",
    "source": r"/run/rosterd/homes/\w+\.work|/home/\w+/\.config/app/\.secret\.rosterd-new",
    "snapshot-token": r"/run/rosterd/homes/\w+\.work|/home/\w+/\.config/playwright/\.token\.rosterd-new",
    # git and its helpers, among themselves.
    "git-credentials": rf"{PIPE}|{SOCKET}|/home/alice/\.git-credentials\.lock",
    "git-address": rf"{PIPE}|{SOCKET}",
    "hash": r"/etc/shadow[+-]",
    # What asks the cluster writes it to who has started it.
    "cluster": PIPE,
    # The agent's own stand-in, which writes its file anew.
    "agent": r"/home/alice/\.claude\.json",
}
# Into the archive and out of it, by pipes, and through folders that are root's alone until all is there.
ARCHIVED = ("hash", "ssh-key", "crontab", "mail", "source")
ON_ITS_WAY = rf"{PIPE}|/dev/null|(?:{ARCHIVES}|/home|/var/mail|/var/spool/cron/rosterd-held)/\.bob\.rosterd-new/.*"


@dataclass
class Told:
    """What the runs said, by what was run, and what strace saw of the words: a line `of.PID:CALL` each."""

    machine: Machine
    canaries: dict[str, str]
    said: list[tuple[str, int, str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    in_passing: list[str] = field(default_factory=list)
    started: int = 0

    def run(self, *argv: str) -> int:
        """Run a command as a unit of its own, which has a secret in its environment."""
        unit = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--property=EnvironmentFile={ENVIRONMENT}")
        result = self.machine.run(*unit, "--", *argv, check=False)
        self.said.append((" ".join(argv[:3]), result.code, result.out + result.err))
        return result.code

    def serve(self) -> int:
        """Make a run of the service."""
        self.machine.run("systemctl", "start", "rosterd.service", check=False)
        shown = self.machine.run("systemctl", "show", "--property=ExecMainStatus", "--value", "rosterd.service").out
        return int(shown)

    def look(self, *names: str) -> None:
        """Have everything told that commands tell, and of these people all there is."""
        for form in ([], ["--json"]) if WHOLE else (["--json"],):
            for name in names if WHOLE else names[:1]:
                self.run("rosterd", "explain", name, *form)
            self.run("rosterd", "status", *form)
            self.run("rosterd", "doctor", "--wait", "0", *form)
        self.run("rosterd", "status", "--html", PAGE)
        self.run("rosterd", "validate")
        self.run("rosterd", "--dry-run")
        self.run("rosterd", "reconcile", "--dry-run", "--json")


@pytest.fixture(scope="module")
def told(deb: Path) -> Iterator[Told]:
    """Make every kind of run; all of them traced."""
    with home_workstation(deb) as machine:
        told = Told(machine, dict(CANARIES))
        set_up(machine)
        with system_traced(machine, TRACE, *STRACE, "-e", f"trace={CALLS}"):
            first_runs(told)
            failing_runs(told)
            leaving_and_returning(told)
        told.calls = calls_with(machine, told.canaries)
        told.in_passing = made_in_passing(machine)
        told.started = int(machine.sh(f"cd {TRACE}; cat of.* | grep -c '^execve(.* = 0$'").out)
        machine.run("rm", "-r", TRACE)
        yield told


def set_up(machine: Machine) -> None:
    """Put the words where a site and its machine have them before the first run."""
    words = CANARIES
    several = f'# kept\nTOKEN="{words["env-file"]}\n{words["env-file-second-line"]}"\n'
    for path, text in {
        SECRET_FILE: f"{words['source']}\n",
        TOKEN_FILE: f"{words['snapshot-token']}\n",
        "/etc/t3-serve/alice.env": several,
        "/etc/t3-serve/playwright-alice.env": f"KEY={words['env-file-of-browser']}\n",
        "/etc/t3-serve/carol.env": LEFT_OPEN,
        ENVIRONMENT: f"SECRET={words['own-environment']}\n",
        "/srv/git/extra.git/readers": f"alice:{words['git-credentials']}\n",
        "/srv/crontab": f"TOKEN={words['crontab']}\n0 5 * * * true\n",
    }.items():
        machine.write(path, text, mode=0o600)
    machine.write("/etc/systemd/system/rosterd.service.d/own.conf", f"[Service]\nEnvironmentFile={ENVIRONMENT}\n")
    machine.write("/usr/local/bin/cluster", CLUSTER, mode=0o755)
    machine.write("/usr/local/bin/hook", HOOK, mode=0o755)
    write_site(machine)
    machine.run("systemctl", "daemon-reload")
    machine.start("python3", "/src/tests/machine/git_server.py")
    machine.sh('until ss -Hltn "sport = :$1" | grep -q .; do sleep 0.05; done', str(git_server.PORT), timeout=10)


def write_site(machine: Machine, before: str = "") -> None:
    """Put the site in place, with something before all else in it."""
    steps = "".join(f"  {name}: {body}\n" for name, body in MORE_STEPS.items())
    machine.write(SITE, before + SITE_TEXT + steps)


def first_runs(told: Told) -> None:
    """Make the first run, let people live, and make the runs that give them what was still missing, and nothing."""
    machine, words = told.machine, told.canaries
    write_roster(machine, PEOPLE)
    assert told.serve() == 3  # the step that fails, the env file that is left open
    git = f"http://alice:{words['git-credentials']}@127.0.0.1:{git_server.PORT}\n"
    machine.write("/home/alice/.git-credentials", git, mode=0o600, owner="alice")
    machine.write("/home/alice/.claude.json", AGENT, mode=0o600, owner="alice")
    machine.write("/home/carol/.claude.json", AGENT_CUT_OFF, mode=0o600, owner="carol")
    machine.write("/var/mail/bob", f"From carol\n{words['mail']}\n", mode=0o660, owner="bob")
    machine.sh(LIFE)
    machine.write("/home/bob/.ssh/id_ed25519", f"{words['ssh-key']}\n", mode=0o600, owner="bob")
    machine.run("chpasswd", input="bob:correct-horse-47\n")
    told.canaries["hash"] = entry_of(machine, "shadow", "bob")[1]
    machine.run("rm", "/srv/crontab")
    forget(machine, *PEOPLE)
    told.run("rosterd", "reconcile", "--retry")
    assert machine.exists("/home/alice/fetched/README")
    if WHOLE:
        told.run("rosterd", "reconcile")
        told.look(*PEOPLE)


def failing_runs(told: Told) -> None:
    """Make runs in which every kind of step fails, and some that end in the middle."""
    machine = told.machine
    machine.sh("""
        for name in alice carol; do
            cd "/home/$name"; rm -rf .config/app/secret .config/playwright/token code notes
            mkdir .config/app/secret .config/playwright/token; touch code notes
        done
        sed -i /T3_PORT/d /etc/t3-serve/alice.env
        chmod 0 /usr/local/bin/claude
    """)
    for clone, address in zip(("src/extra", "fetched"), ADDRESSES, strict=True):
        path = f"/home/alice/{clone}/.git/config"
        text = re.sub("url = .*", f"url = {address}", machine.read(path))
        machine.write(path, text, owner="alice")
    forget(machine, *PEOPLE)
    for how in ("full", "mistake"):
        told.run("python3", "-c", BROKEN, how)
    assert told.serve() == 3
    told.look("carol", "alice", "bob")
    machine.sh("""
        rm -rf /home/*/code /home/*/notes /home/*/.config/app/secret
        rm -rf /home/*/.config/playwright/token; chmod 755 /usr/local/bin/claude
    """)
    # What somebody might write into the site file by mistake.
    write_site(machine, f"playwright: {{snapshot_url: 'https://a:{CANARIES['site']}@h/'}}\n")
    assert told.serve() == 5
    told.run("rosterd", "validate")
    told.run("rosterd", "status")
    write_site(machine)
    told.run("rosterd", "reconcile", "--retry")


def leaving_and_returning(told: Told) -> None:
    """Cut bob off in both ways, delete him, and bring him back, the first time with a tool that fails."""
    machine = told.machine
    if WHOLE:
        assert told.run("rosterd", "cut", "bob") in (0, 3)
        told.look("bob")
        told.run("rosterd", "uncut", "bob")
        told.serve()
    write_roster(machine, WITHOUT_BOB)
    assert told.serve() == 3
    told.serve()  # in which the hook is well again
    assert told.run("rosterd", "destroy", "bob", "--yes", "bob") == 0
    if WHOLE:
        told.look("bob")
    machine.sh("mv /usr/sbin/chpasswd /usr/sbin/chpasswd.real")
    machine.write("/usr/sbin/chpasswd", "#!/bin/sh\ncat >/dev/null\necho no >&2\nexit 1\n", mode=0o755)
    assert told.run("rosterd", "restore", "bob") != 0
    machine.sh("mv /usr/sbin/chpasswd.real /usr/sbin/chpasswd")
    assert told.run("rosterd", "restore", "bob") == 0
    write_roster(machine, PEOPLE)
    told.serve()
    # What is due by itself: the state of the browser.
    machine.run("systemctl", "start", "playwright-snapshot-refresh@alice.service", check=False)


def forms_of(word: str) -> Iterator[str]:
    """Return a word, and what of it is always the same in base64, wherever in a text it begins."""
    yield word
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + word.encode()).decode()
        yield coded[4 if before else 0 : -4]


def search(words: Mapping[str, str], text: str) -> list[str]:
    """Return the places whose word is in a text."""
    return [place for place, word in words.items() if any(form in text for form in forms_of(word))]


def made_in_passing(machine: Machine) -> list[str]:
    """Return the calls that made a file, or a folder of root's, for the time until it is put in place."""
    making = r'^(mkdir|mkdirat|openat)\(.*\.rosterd-new".* = [0-9]'
    lines = machine.sh(f'cd {TRACE}; grep --no-filename --text --extended-regexp -e "$1" of.* || :', making).out
    # Of a home's owner, in a home that is theirs alone: a folder that is being cloned into.
    clone = re.compile(r'mkdir(?:at)?\(.*"/home/\w+/')
    return [
        line for line in lines.splitlines() if "O_CREAT" in line or (line.startswith("mkdir") and not clone.match(line))
    ]


def calls_with(machine: Machine, words: Mapping[str, str]) -> list[str]:
    """Return the traced calls in which any word is."""
    patterns = "\n".join(form for word in words.values() for form in forms_of(word))
    return machine.sh(f"cd {TRACE}; grep --text --fixed-strings --file=- of.* || :", input=patterns).out.splitlines()


# --- tests ---


def leaks_in_processes(told: Told) -> list[str]:
    """Return whose argument list or environment has a word, other than its own."""
    leaks = set()
    for line in told.calls:
        found = re.match(r'of\.\d+:execve\("([^"]+)", \[(.*?)\], \[(.*)\]\)? ', line)
        if found is None:
            continue
        program, arguments, environment = found.groups()
        # git's own way with an address, see docs/security.md.
        shown = {"git-address"} if re.search(r"/git(-remote-http)?$", program) else set()
        leaks |= {f"{place}: arguments of {program}" for place in set(search(told.canaries, arguments)) - shown}
        others = [place for place in search(told.canaries, environment) if not is_own(place, program, arguments)]
        leaks |= {f"{place}: environment of {program}" for place in others}
    return sorted(leaks)


def is_own(place: str, program: str, arguments: str) -> bool:
    """Say whether an environment is that of whom the secret is for: a unit's, as systemd gives it."""
    if place == "own-environment":
        given = program in ("/usr/sbin/rosterd", "/usr/bin/python3") or "/run/rosterd/before" in arguments
        return given or (program == "/usr/bin/stat" and "/etc/rosterd/roster.yaml" in arguments)
    prepares = program in ("/bin/sh", "/usr/bin/mkdir") and ".cache/playwright" in arguments
    return place.startswith("env-file") and (program in ("/usr/bin/t3", "/usr/bin/npx") or prepares)


def test_no_argument_list_and_no_environment_of_another_has_a_secret(told: Told) -> None:
    leaks = leaks_in_processes(told)
    note("secrets", canaries=len(told.canaries), processes_started=told.started, leaks=len(leaks))
    # Were nothing seen, nothing would be found either.
    shown = [line for line in told.calls if ":execve(" in line]
    for place in ("own-environment", "env-file", "env-file-of-browser", "git-address"):
        assert any(search({place: told.canaries[place]}, line) for line in shown), place
    assert leaks == []


def test_no_secret_is_said_by_any_command(told: Told) -> None:
    leaks = {f"{place}: {what}" for what, _, said in told.said for place in search(told.canaries, said)}
    note("secrets", outputs=len(told.said), leaks=len(leaks))
    codes = {code for _, code, _ in told.said}
    assert {0, 1, 3, 5} <= codes, codes
    assert any("Traceback" in said and "a mistake" in said for *_, said in told.said)
    assert any("No space left" in said for *_, said in told.said)
    assert leaks == set()


def test_no_secret_is_in_the_journal_in_any_field(told: Told) -> None:
    told.machine.run("journalctl", "--sync")
    journal = told.machine.run("journalctl", "--output=export", "--all").out
    entries = journal.count("\n__CURSOR=") + journal.startswith("__CURSOR=")
    leaks = search(told.canaries, journal)
    note("secrets", journal_entries=entries, leaks=len(leaks))
    # The runs are in it, and they were about what holds the words.
    for text in (
        "home step secret",
        "home step playwright-token",
        "/etc/t3-serve/carol.env",
        "home step fetched",
        "…@h/",
        "…@127.0.0.1",
    ):
        assert text in journal, text
    assert "the cluster's tiers are not known" in journal
    assert leaks == []


def holders(told: Told) -> dict[str, set[str]]:
    """Return the files that may have each word at the end, by where it is kept."""
    both = ("alice", "carol")
    own = {
        "env-file": {"/etc/t3-serve/alice.env"},
        "env-file-second-line": {"/etc/t3-serve/alice.env"},
        "env-file-of-browser": {"/etc/t3-serve/playwright-alice.env"},
        "env-file-left-open": {"/etc/t3-serve/carol.env"},
        "source": {SECRET_FILE, *(f"/home/{name}/.config/app/secret" for name in PEOPLE)},
        "snapshot-token": {TOKEN_FILE, *(f"/home/{name}/.config/playwright/token" for name in both)},
        "git-credentials": {"/home/alice/.git-credentials", "/srv/git/extra.git/readers"},
        "git-address": {f"/home/alice/{clone}/.git/config" for clone in ("src/extra", "fetched")},
        "agent": {"/home/alice/.claude.json"},
        "agent-cut-off": {"/home/carol/.claude.json"},
        "ssh-key": {"/home/bob/.ssh/id_ed25519"},
        "crontab": {"/var/spool/cron/crontabs/bob"},
        "mail": {"/var/mail/bob"},
        "own-environment": {ENVIRONMENT},
        "cluster": {"/usr/local/bin/cluster"},
        "site": set[str](),
        "hash": {"/etc/shadow"},
    }
    assert own.keys() == told.canaries.keys()
    return own


def test_each_secret_is_in_its_own_place_and_in_no_other_file(told: Told) -> None:
    patterns = {place: "\n".join(forms_of(word)) for place, word in told.canaries.items()}
    # A page, metrics, records, temporary files: everything that is a file, but what belongs to packages.
    grep = 'cd /; grep -rlaF --devices=skip --exclude-dir=journal --file=- "$@" || :'
    folders = ("/etc", "/home", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var", "/dev/shm")
    found = {
        place: {
            path.replace("/var/spool/mail/", "/var/mail/")
            for path in told.machine.sh(grep, *folders, input=text).out.split()
        }
        for place, text in patterns.items()
    }
    # shadow-utils keep the file as it was before.
    found["hash"] -= {"/etc/shadow-"}
    expected = holders(told)
    leaks = {place: found[place] - expected[place] for place in found if found[place] - expected[place]}
    number = told.machine.sh('find "$@" -type f | wc -l', *folders).out
    note("secrets", files_searched=int(number), leaks=sum(map(len, leaks.values())))
    assert leaks == {}
    assert {place: expected[place] - found[place] for place in found if expected[place] - found[place]} == {}
    assert told.machine.exists(PAGE)
    assert told.machine.exists(METRICS)


def test_what_rosterd_writes_of_a_secret_nobody_else_can_read(told: Told) -> None:
    files = [
        path
        for place in ("env-file", "env-file-of-browser", "source", "snapshot-token")
        for path in holders(told)[place]
    ]
    modes = told.machine.run("stat", "--format=%a %n", *files).out.split("\n")
    assert [line for line in modes if line and not line.startswith("600 ")] == []
    archives = told.machine.sh(f"stat --format='%U %a' {ARCHIVES} {ARCHIVES}/*").out.splitlines()
    assert archives[0] == "root 700"
    assert set(archives[1:]) == {"root 600"}


def test_what_is_made_in_passing_is_closed_to_others_from_the_first(told: Told) -> None:
    assert {call.partition("(")[0] for call in told.in_passing} >= {"openat", "mkdir"}
    assert [call for call in told.in_passing if not re.search(r", 0[67]00\) += \d", call)] == []


def test_no_secret_is_written_to_a_file_that_is_not_its_own(told: Told) -> None:
    leaks = set()
    seen: set[str] = set()
    for line in told.calls:
        found = re.match(r"of\.\d+:(?:write|pwrite64|writev|sendto)\(\d+<(.*?)>, ", line)
        for place in search(told.canaries, line) if found else ():
            assert found is not None
            allowed = "|".join((HANDED_ON.get(place, "(?!)"), *((ON_ITS_WAY,) if place in ARCHIVED else ())))
            if re.fullmatch(allowed, found[1]):
                seen.add(place)
            else:
                leaks.add(f"{place}: {found[1]}")
    note("secrets", writes_with_a_secret=len(told.calls), leaks=len(leaks))
    assert leaks == set()
    # It is told from this trace too: these were written, and seen so.
    assert seen >= {"env-file", "env-file-second-line", "env-file-of-browser", "source", "snapshot-token", "hash"}
