"""People's clones: made with their own credentials, followed while they are left alone, moved with all that is in them.

The git server is a stand-in (tests.machine.git_server) with git itself behind it; what a clone holds is asked of git,
as the person whose it is.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.machine import git_server
from tests.machine.machine import Command, Machine, Result
from tests.machine.workstation import QUICK, SITE, eventually, look, reconcile, workstation, write_roster

URL = f"http://127.0.0.1:{git_server.PORT}/team"
SILENT_PORT = 8081
CODE = f'{QUICK}code: {{infra_url: "{URL}/infra.git", branch: main, repo_base: "{URL}"}}\n'

REPOS = ("infra", "api", "web", "docs", "tools", "lib")
# What a secret is in the repository, and what alice's own filter would make of it.
CIPHERTEXT, PLAIN_TEXT = "CIPHERTEXT of the password\n", "PLAINTEXT of the password\n"

NO_SERVICES = {"t3": False, "playwright": False}
WORKSPACE: Mapping[str, Any] = {"code_layout": "workspace", "services": NO_SERVICES}
SINGLE: Mapping[str, Any] = {"services": NO_SERVICES}
PEOPLE: dict[str, Mapping[str, Any]] = {
    "alice": {**WORKSPACE, "repos": ["api", "web"]},
    "bob": SINGLE,
    "carol": SINGLE,  # her origin holds her token
    "dave": {**WORKSPACE, "repos": ["api", "web", "docs", "tools", "lib"]},  # works in his clones
    "erin": {**SINGLE, "tier": "admin"},  # a clone of hers hangs
    "frank": WORKSPACE,  # his clone is killed
    "gina": {**WORKSPACE, "repos": ["api", "web"]},  # to single and back
    "hank": SINGLE,  # to workspace
}

# One silent port: it takes every connection and never says a word.
SILENCE = f"""\
import socket, time
server = socket.create_server(("127.0.0.1", {SILENT_PORT}))
taken = []
while True: taken.append(server.accept())
"""

# What git knows of a clone and what lies in its work tree, without the clones in it, `$@` after the path.
CLONE_STATE = """
    cd "$1"; shift
    git symbolic-ref --quiet HEAD || echo detached
    git rev-parse HEAD
    git for-each-ref refs/heads refs/stash
    git stash list
    git status --porcelain | grep --invert-match --regexp='^?? \\(api\\|web\\)/$' || :
    find . \\( -name .git -o -path ./api -o -path ./web \\) -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
"""

# Branches of one's own, a stash, files changed, staged and untracked.
WORK = """
    cd "$1"
    git checkout -q -b idea; echo idea >idea; git add idea; git commit -q -m idea
    git checkout -q main; git branch other
    echo stashed >>f; git stash -q
    echo dirty >>f; echo staged >staged; git add staged
    mkdir -p notes; echo untracked >notes/mine; ln -s /nowhere notes/link
"""


@dataclass
class Team:
    """A machine whose people have had their clones made, and what the runs said that did it.

    `first` is the run that bob had no credentials for, `asked_first` what was asked of the git server up to then, and
    `retried` the one after he got them.
    """

    machine: Machine
    first: Result
    seconds: float
    asked_first: list[str]
    bobs_code_was_there: bool
    retried: Result
    people: dict[str, Mapping[str, Any]] = field(default_factory=lambda: dict(PEOPLE))

    def change(self, name: str, **fields: object) -> None:
        """Change somebody's entry in the roster; None takes a field out."""
        entry = {**self.people[name], **fields}
        self.people[name] = {key: value for key, value in entry.items() if value is not None}
        write_roster(self.machine, self.people)


@pytest.fixture(scope="module")
def team(deb: Path) -> Iterator[Team]:
    """Make accounts, give all but bob their credentials, and have the clones made."""
    with workstation(deb) as machine:
        start_git_server(machine)
        write_roster(machine, PEOPLE)
        reconcile(machine)
        for name in PEOPLE:
            as_person(machine, name, 'git config --global user.name "$1"; git config --global user.email "$1@x"', name)
            if name != "bob":
                give_token(machine, name)
        for setting, value in (
            ("smudge", "sed s/CIPHERTEXT/PLAINTEXT/"),
            ("clean", "sed s/PLAINTEXT/CIPHERTEXT/"),
            ("required", "true"),
        ):
            as_person(machine, "alice", 'git config --global "filter.git-crypt.$1" "$2"', setting, value)
        machine.write(SITE, CODE)
        started = time.monotonic()
        first = reconcile(machine, code=3)
        seconds = time.monotonic() - started
        asked_first = asked(machine)
        there = machine.exists("/home/bob/code")
        give_token(machine, "bob")
        yield Team(machine, first, seconds, asked_first, there, reconcile(machine, "--retry"))


# --- what the tests act and look with ---


def start_git_server(machine: Machine) -> None:
    """Make the repositories, each for those alone who have a token for it, and serve them."""
    readers = "".join(f"{name}:{token_of(name)}\n" for name in PEOPLE)
    for repo in REPOS:
        machine.sh(
            """
            mkdir -p "$1"; cd "$1"; git init -q --bare -b main "$2.git"
            git clone -q "$2.git" "work/$2" 2>/dev/null; cd "work/$2"; git checkout -q -b main
            echo 1 >f; echo '*.secret filter=git-crypt diff=git-crypt' >.gitattributes; printf %s "$3" >db.secret
            git add .; git -c user.name=a -c user.email=a@x commit -q -m 1; git push -q origin main
            """,
            str(git_server.FOLDER),
            repo,
            CIPHERTEXT,
        )
        machine.write(f"{git_server.FOLDER}/{repo}.git/readers", readers, mode=0o600)
    serve_git(machine)


def serve_git(machine: Machine) -> None:
    """Start the git server."""
    machine.run("systemd-run", "--quiet", "--unit=git-server", "python3", "/src/tests/machine/git_server.py")
    wait_for_port(machine, git_server.PORT)


def wait_for_port(machine: Machine, port: int) -> None:
    """Wait until something listens there."""
    machine.sh('until ss -Hltn "sport = :$1" | grep -q .; do sleep 0.05; done', str(port), timeout=10)


def push_commit(machine: Machine, repo: str) -> str:
    """Let somebody else push a commit to a repository; return it."""
    script = """
        cd "$1/work/$2"; date +%N >>f; git -c user.name=a -c user.email=a@x commit -q -a -m more
        git push -q origin main; git rev-parse HEAD
    """
    return machine.sh(script, str(git_server.FOLDER), repo).out.strip()


def token_of(name: str) -> str:
    """Return the token that a person has at the git server."""
    return f"t0ken-0f-{name}"


def give_token(machine: Machine, name: str) -> None:
    """Keep a person's credentials as git itself keeps them."""
    line = f"http://{name}:{token_of(name)}@127.0.0.1:{git_server.PORT}\n"
    machine.write(f"/home/{name}/.git-credentials", line, mode=0o600, owner=name)
    as_person(machine, name, "git config --global credential.helper store")


def asked(machine: Machine) -> list[str]:
    """Return the requests to the git server, each as `PERSON STATUS PATH`."""
    return machine.read(f"{git_server.FOLDER}/asked").splitlines()


def as_person(machine: Machine, name: str, script: str, *arguments: str, given: str = "") -> str:
    """Run a shell script as a person, in their home; return what it writes. `given` is its standard input."""
    run_as = ("runuser", "-u", name, "--", "/bin/sh", "-euc", f"cd; {script}", "sh", *arguments)
    return machine.run(*run_as, env={"HOME": f"/home/{name}", "GIT_OPTIONAL_LOCKS": "0"}, input=given).out


def git(machine: Machine, name: str, path: str, *arguments: str) -> str:
    """Ask git as a person about a clone of theirs; `path` is below the home."""
    return as_person(machine, name, 'cd "$1"; shift; git "$@"', path, *arguments).strip()


def clone_state(machine: Machine, name: str, path: str) -> str:
    """Return all that is in a clone but for the clones nested in it."""
    return as_person(machine, name, CLONE_STATE, path)


def make_due(machine: Machine, name: str) -> None:
    """Make it a day and more ago that anything was looked at in a home."""
    path = f"/var/lib/rosterd/homes/{name}"
    record = json.loads(machine.read(path))
    for step in record.values():
        step["at"] -= 90_000
    machine.write(path, json.dumps(record), mode=0o600)


def starts(machine: Machine, name: str = "*") -> int:
    """Return how many times something was run in homes, as the journal has it."""
    entries = machine.journal(f"--unit=rosterd-home@{name}.service")
    return sum(entry["MESSAGE"].startswith("Starting ") for entry in entries)


def last_end(machine: Machine, name: str) -> int:
    """Return when something was last done with in a home, in microseconds since 1970."""
    entries = machine.journal(f"--unit=rosterd-home@{name}.service")
    return max(int(entry["__REALTIME_TIMESTAMP"]) for entry in entries if "Deactivated" in entry["MESSAGE"])


def traces_of(machine: Machine, text: str) -> str:
    """Return where a text stands in the journal, all fields of it, or in what rosterd keeps."""
    script = """
        journalctl --sync
        journalctl --output=export --no-pager | grep --text --fixed-strings -e "$1" || :
        grep --recursive --text --fixed-strings -e "$1" /var/lib/rosterd /run/rosterd /etc/rosterd || :
    """
    return machine.sh(script, text).out


def moved_aside(machine: Machine, name: str) -> str:
    """Return what of half-made or moving things there is in a home."""
    return machine.run("find", f"/home/{name}", "-name", "*rosterd*").out


@contextmanager
def held_clone(team: Team, name: str, repo: str) -> Iterator[Command]:
    """Start a run in which somebody gets one more clone, and hold it where half of the objects have come."""
    machine, hold = team.machine, f"{git_server.FOLDER}/hold-{repo}.git"
    machine.run("touch", hold)
    try:
        team.change(name, repos=[*team.people[name].get("repos", []), repo])
        run = machine.start("rosterd", "reconcile")
        eventually(lambda: f"{name} 200 /{repo}.git/git-upload-pack" in asked(machine), within=15)
        eventually(lambda: machine.exists(f"/home/{name}/code/.{repo}.rosterd-new/.git/config"), within=5)
        yield run
    finally:
        machine.run("rm", hold)


def is_whole(machine: Machine, name: str, repo: str) -> None:
    """See that a clone is whole, and that nothing is left of the way there."""
    assert git(machine, name, f"code/{repo}", "status", "--porcelain", "--branch") == "## main...origin/main"
    git(machine, name, f"code/{repo}", "fsck", "--strict")
    assert moved_aside(machine, name) == ""


# --- cloning ---


def test_clones_are_made_where_they_belong_and_are_their_owners(team: Team) -> None:
    for repo in ("infra", "api", "web"):
        path = f"/home/alice/code/{repo}"
        assert look(team.machine, path) == "alice:alice 755"
        assert look(team.machine, f"{path}/f") == "alice:alice 644"
        assert git(team.machine, "alice", path, "remote", "get-url", "origin") == f"{URL}/{repo}.git"
        assert git(team.machine, "alice", path, "status", "--porcelain", "--branch") == "## main...origin/main"
        git(team.machine, "alice", path, "fsck", "--strict")
    assert look(team.machine, "/home/alice/code") == "alice:alice 755"
    assert team.machine.run("find", "/home/alice", "!", "-user", "alice").out == ""
    assert moved_aside(team.machine, "alice") == ""


def test_each_is_cloned_with_the_persons_own_credentials(team: Team) -> None:
    with_objects = {line for line in team.asked_first if line.endswith("/git-upload-pack")}
    expected = {f"alice 200 /{repo}.git/git-upload-pack" for repo in ("infra", "api", "web")}
    assert {line for line in with_objects if line.startswith("alice ")} == expected
    assert not [line for line in with_objects if line.startswith(("- 200", "bob "))]


def test_a_person_without_credentials_is_told_of_and_holds_nobody_up(team: Team) -> None:
    line = next(line for line in team.first.err.splitlines() if "bob: FAILED" in line)
    assert re.search(r"home step code/infra: .*git clone: .*could not read Username", line), line
    assert "alice: FAILED" not in team.first.err
    assert not team.bobs_code_was_there
    assert team.seconds < 20, team.seconds


def test_with_credentials_a_retry_clones(team: Team) -> None:
    assert "bob: home step code/infra" in team.retried.err
    assert git(team.machine, "bob", "code", "rev-parse", "--abbrev-ref", "HEAD@{upstream}") == "origin/main"


def test_a_run_after_that_starts_nothing(team: Team) -> None:
    reconcile(team.machine)
    before = starts(team.machine)
    reconcile(team.machine)
    assert starts(team.machine) == before > 0


def test_secrets_stay_ciphertext_whatever_filter_the_person_has(team: Team) -> None:
    for repo in ("infra", "api"):
        assert team.machine.read(f"/home/alice/code/{repo}/db.secret") == CIPHERTEXT
    # Her filter does decrypt where nothing is set against it.
    as_person(team.machine, "alice", 'git clone -q "$1" by-hand', f"{URL}/infra.git")
    assert team.machine.read("/home/alice/by-hand/db.secret") == PLAIN_TEXT


def test_a_filter_that_a_person_sets_later_is_left_alone(team: Team) -> None:
    machine, name = team.machine, "alice"
    for key, value in (("smudge", "sed s/CIPHERTEXT/PLAINTEXT/"), ("clean", "sed s/PLAINTEXT/CIPHERTEXT/")):
        git(machine, name, "code/web", "config", f"filter.git-crypt.{key}", value)
    as_person(machine, name, "cd code/web; rm db.secret; git checkout -q db.secret")
    configuration = machine.read(f"/home/{name}/code/web/.git/config")
    commit = push_commit(machine, "web")
    make_due(machine, name)
    reconcile(machine)
    assert machine.read(f"/home/{name}/code/web/.git/config") == configuration
    assert git(machine, name, "code/web", "rev-parse", "HEAD") == commit
    assert machine.read(f"/home/{name}/code/web/db.secret") == PLAIN_TEXT
    assert git(machine, name, "code/web", "status", "--porcelain") == ""


# --- following the remote ---


def test_a_clone_is_followed_unless_somebody_works_in_it(team: Team) -> None:
    machine, name = team.machine, "dave"
    work_in = {
        "api": "echo dirty >>f; echo mine >untracked",
        "web": "git checkout -q -b idea",
        "docs": "echo mine >own; git add own; git commit -q -m own",
        "tools": "echo a >>f; git commit -q -am a; git branch b HEAD~; git checkout -q b; echo b >>f; "
        "git commit -q -am b; git rebase main >/dev/null 2>&1 || :",
        # Neither is at stake when the branch moves on.
        "lib": "echo stashed >>f; git stash -q; echo mine >untracked",
    }
    for repo, script in work_in.items():
        as_person(machine, name, f'cd "code/$1"; {script}', repo)
    newest = {repo: push_commit(machine, repo) for repo in REPOS}
    before = {repo: clone_state(machine, name, f"code/{repo}") for repo in work_in}
    stash = git(machine, name, "code/lib", "rev-parse", "stash@{0}")

    make_due(machine, name)
    result = reconcile(machine)

    said = {
        "api": "1 file is changed",
        "web": "on branch idea, not main",
        "docs": "1 commit of its own",
        "tools": "a rebase is in progress",
        "infra": "1 commit newer",
        "lib": "1 commit newer",
    }
    for repo, words in said.items():
        assert re.search(rf"{name}: home step code/{repo}: .*{words}", result.err), result.err
    for repo in ("api", "web", "docs", "tools"):
        assert clone_state(machine, name, f"code/{repo}") == before[repo]
        assert git(machine, name, f"code/{repo}", "rev-parse", "origin/main") == newest[repo]
    for repo in ("infra", "lib"):
        assert git(machine, name, f"code/{repo}", "rev-parse", "HEAD") == newest[repo]
    assert git(machine, name, "code/lib", "rev-parse", "stash@{0}") == stash
    assert machine.read(f"/home/{name}/code/lib/untracked") == "mine\n"


# --- what goes wrong ---


def test_a_token_in_an_address_comes_into_no_log_and_no_record(team: Team) -> None:
    machine, name = team.machine, "carol"
    mine = f"http://{name}:{token_of(name)}@127.0.0.1:{git_server.PORT}/team/infra.git"
    # Not as an argument of this test's: runuser has itself logged, with its arguments.
    as_person(machine, name, 'git -C code remote set-url origin "$(cat)"', given=mine)
    make_due(machine, name)
    with_server = reconcile(machine)
    make_due(machine, name)
    machine.run("systemctl", "stop", "git-server.service")
    try:
        without = reconcile(machine, code=3)
    finally:
        serve_git(machine)
        recovered = reconcile(machine, "--retry")
    assert re.search(rf"{name}: FAILED home step code/infra: .*git fetch in ~/code: .*127\.0\.0\.1", without.err)
    for result in (with_server, without, recovered, machine.run("rosterd", "status", check=False)):
        assert token_of(name) not in result.out + result.err
    assert traces_of(machine, token_of(name)) == ""
    assert traces_of(machine, "127.0.0.1:8080/team/infra.git") != ""
    assert git(machine, name, "code", "config", "remote.origin.url") == mine


def test_who_hangs_leaves_nothing_half_made_and_holds_nobody_up(team: Team) -> None:
    machine, seconds = team.machine, 3
    stuck = f'{{git: {{path: stuck, url: "http://127.0.0.1:{SILENT_PORT}/x.git"}}, tiers: [admin], timeout: {seconds}}}'
    machine.run("systemd-run", "--quiet", "--unit=silence", "python3", "-c", SILENCE)
    wait_for_port(machine, SILENT_PORT)
    machine.write(SITE, f"{CODE}homes:\n  stuck: {stuck}\n  notes: {{directory: {{path: notes}}}}\n")
    started = time.monotonic()
    try:
        result = reconcile(machine, code=3)
    finally:
        machine.write(SITE, CODE)
    assert time.monotonic() - started < seconds + 5
    assert re.search(rf"erin: FAILED home step stuck: .*did not end within {seconds - 1} s", result.err), result.err
    for name in PEOPLE:
        assert look(machine, f"/home/{name}/notes") == f"{name}:{name} 755"
    ends = {name: last_end(machine, name) for name in PEOPLE}
    assert max(ends, key=lambda name: ends[name]) == "erin"
    assert all(ends["erin"] - end > (seconds - 2) * 1e6 for name, end in ends.items() if name != "erin"), ends
    assert not machine.exists("/home/erin/stuck")
    assert moved_aside(machine, "erin") == ""
    assert machine.run("pgrep", "-u", "erin", check=False).out == ""
    reconcile(machine)


def test_a_clone_that_is_killed_in_its_middle_is_whole_after_the_next_run(team: Team) -> None:
    machine, name = team.machine, "frank"
    with held_clone(team, name, "web") as run:
        seen = machine.sh('grep -l --text --fixed-strings -e "$1" /proc/[0-9]*/cmdline || :', token_of(name)).out
        # Of grep itself, and of the shell that had it in its arguments.
        assert len(seen.splitlines()) <= 2, seen
        run.kill()
        run.wait(10)
        machine.run("systemctl", "kill", "--signal=KILL", f"rosterd-home@{name}.service")
        eventually(lambda: machine.run("pgrep", "-u", name, check=False).out == "", within=5)
    assert moved_aside(machine, name) != ""
    assert not machine.exists(f"/home/{name}/code/web")
    reconcile(machine)
    is_whole(machine, name, "web")


def test_of_a_clone_whose_git_is_killed_nothing_stays(team: Team) -> None:
    machine, name = team.machine, "frank"
    with held_clone(team, name, "docs") as run:
        machine.run("pkill", "-KILL", "-u", name, "git")
        assert run.wait(15) == 3
    assert not machine.exists(f"/home/{name}/code/docs")
    assert moved_aside(machine, name) == ""
    reconcile(machine, "--retry")
    is_whole(machine, name, "docs")


def test_no_token_is_in_a_log_or_on_record(team: Team) -> None:
    for name in PEOPLE:
        assert traces_of(team.machine, token_of(name)) == ""
        assert token_of(name) not in team.first.err + team.first.out + team.retried.err + team.retried.out


# --- from one layout to the other ---


def test_to_single_and_back_everything_stays_what_it_was(team: Team) -> None:
    machine, name = team.machine, "gina"
    for repo in ("infra", "api", "web"):
        as_person(machine, name, WORK, f"code/{repo}")
    as_person(machine, name, "git -C code/infra worktree add -q ~/hotfix other; echo more >hotfix/more")
    before = {repo: clone_state(machine, name, f"code/{repo}") for repo in ("infra", "api", "web")}
    hotfix = clone_state(machine, name, "hotfix")

    team.change(name, code_layout="single", repos=None)
    reconcile(machine)
    assert clone_state(machine, name, "code") == before["infra"]
    assert {repo: clone_state(machine, name, f"code/{repo}") for repo in ("api", "web")}.items() <= before.items()
    assert clone_state(machine, name, "hotfix") == hotfix

    team.change(name, code_layout="workspace", repos=["api", "web"])
    reconcile(machine)
    assert {repo: clone_state(machine, name, f"code/{repo}") for repo in before} == before
    assert clone_state(machine, name, "hotfix") == hotfix
    assert moved_aside(machine, name) == ""
    count = starts(machine, name)
    reconcile(machine)
    assert starts(machine, name) == count


def test_a_clone_made_inside_the_infra_clone_is_lifted_to_its_place(team: Team) -> None:
    machine, name = team.machine, "hank"
    as_person(machine, name, WORK, "code")
    as_person(machine, name, 'git clone -q "$1" code/api', f"{URL}/api.git")
    as_person(machine, name, WORK, "code/api")
    as_person(machine, name, "git -C code worktree add -q ~/hotfix other; git -C code worktree add -q ~/code/wt idea")
    infra, api, hotfix = (clone_state(machine, name, path) for path in ("code", "code/api", "hotfix"))
    inner = clone_state(machine, name, "code/wt")

    team.change(name, code_layout="workspace", repos=["api", "web"])
    reconcile(machine)
    assert clone_state(machine, name, "code/infra") == infra
    assert clone_state(machine, name, "code/api") == api
    assert not machine.exists(f"/home/{name}/code/infra/api")
    assert clone_state(machine, name, "hotfix") == hotfix
    assert clone_state(machine, name, "code/infra/wt") == inner
    assert git(machine, name, "code/web", "status", "--porcelain", "--branch") == "## main...origin/main"
    assert moved_aside(machine, name) == ""
    listed = git(machine, name, "code/infra", "worktree", "list", "--porcelain")
    assert "prunable" not in listed, listed
