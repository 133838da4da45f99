"""The commands, as a person or a script runs them from a checkout, with Debian's own Python.

Nothing here changes the machine: `reconcile` is only run by somebody who may not, or as a dry run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

CHECKOUT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "cases" / "derive"
NOBODY = 65534
COMMANDS = (
    *("reconcile", "validate", "derive", "deprovision", "status", "explain", "doctor"),
    *("adopt", "cut", "uncut", "done", "destroy", "restore", "forget"),
)
ROSTER = """\
users:
  zz-alice: {authentik_user: alice.a, k8s_user: alice, tier: admin}
  zz-bob: {authentik_user: bob.b, k8s_user: bob, tier: power-user}
"""


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    """Copy the program to where everybody can read it, as a checkout below a home may not be."""
    folder = Path(tempfile.mkdtemp(prefix="rosterd-test-"))
    folder.chmod(0o755)
    shutil.copytree(CHECKOUT / "reconciler", folder / "reconciler", ignore=shutil.ignore_patterns("__pycache__"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def rosterd(checkout: Path) -> Rosterd:
    """Return the program."""
    return Rosterd(checkout)


class Rosterd:
    """Runs `python3 -m reconciler`."""

    def __init__(self, checkout: Path) -> None:
        """Run it from `checkout`."""
        self._checkout = checkout

    def __call__(self, *arguments: str | Path, unprivileged: bool = False) -> subprocess.CompletedProcess[str]:
        """Run it to its end; `unprivileged`: as nobody, where the tests run as root."""
        other = NOBODY if unprivileged and os.geteuid() == 0 else None
        return subprocess.run(
            ["/usr/bin/python3", "-m", "reconciler", *map(str, arguments)],
            cwd=self._checkout,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=other,
            group=other,
            extra_groups=None if other is None else [],
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder that everybody can read, with a roster in it; pytest's own is closed to others."""
    made = Path(tempfile.mkdtemp(prefix="rosterd-test-"))
    made.chmod(0o755)
    (made / "roster.yaml").write_text(ROSTER)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def roster(folder: Path) -> Path:
    """Return the roster."""
    return folder / "roster.yaml"


def lines(text: str) -> list[str]:
    return text.splitlines()


# --- usage ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["--no-such-option"],
        ["reconcile", "extra"],
        ["reconcile", "--detailed-exitcode"],
        ["reconcile", "--allow-cuts", "-1"],
        ["reconcile", "--allow-cuts", "some"],
        ["validate", "--json"],
        ["derive"],
        ["deprovision", "--old", "x"],
        ["deprovision", "--old", "x", "--new", "y", "--destructive"],
        ["adopt"],
        ["cut"],
        ["cut", "zz-alice", "zz-bob"],
        ["cut", "zz-alice", "--allow-cuts", "1"],
        ["cut", "zz-no-such"],
        ["cut", "root"],
        ["cut", "--dry-run", "zz-no-such"],
        ["explain"],
        ["explain", "zz-alice", "zz-bob"],
        ["uncut"],
        ["done", "zz-alice"],
        ["done", "zz-alice", "no_such_step"],
        ["done", "zz-alice", "revoke_cluster_rbac", "--dry-run"],
        ["destroy"],
        ["restore"],
        ["forget"],
    ],
)
def test_wrong_usage_ends_with_64_and_says_what_is_wrong(rosterd: Rosterd, arguments: list[str]) -> None:
    ended = rosterd(*arguments)
    assert ended.returncode == 64
    assert ended.stdout == ""
    assert lines(ended.stderr)[-1].startswith("rosterd")
    assert "Traceback" not in ended.stderr


def test_help_names_the_commands(rosterd: Rosterd) -> None:
    ended = rosterd("--help")
    assert ended.returncode == 0
    assert ended.stderr == ""
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s", ended.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(rosterd: Rosterd, command: str) -> None:
    ended = rosterd(command, "--help")
    assert ended.returncode == 0
    assert ended.stdout.startswith(f"usage: rosterd {command}")


def test_the_version_is_told_from_a_checkout_too(rosterd: Rosterd) -> None:
    ended = rosterd("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith("rosterd ")


def test_a_reader_who_leaves_early_is_no_error(checkout: Path, folder: Path) -> None:
    people = "".join(f"  u{n}: {{authentik_user: u{n}, k8s_user: u{n}, tier: admin}}\n" for n in range(2000))
    (folder / "old.yaml").write_text(f"users:\n{people}")
    command = f"/usr/bin/python3 -m reconciler deprovision --old {folder}/old.yaml --new {folder}/roster.yaml | head -1"
    ended = subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {command}"], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "u0\n", "")


# --- reconcile ---


def test_only_root_can_change_the_machine(rosterd: Rosterd, roster: Path) -> None:
    ended = rosterd("reconcile", "--roster", roster, unprivileged=True)
    assert ended.returncode == 1
    assert ended.stderr == "rosterd: only root can change this machine; as yourself: rosterd --dry-run\n"


def test_a_dry_run_needs_no_root_and_says_what_it_could_not_see(rosterd: Rosterd, roster: Path) -> None:
    ended = rosterd("--dry-run", "--roster", roster, unprivileged=True)
    assert ended.returncode == 0, ended.stderr
    assert "  + account: none → uid " in ended.stdout
    assert "  ! services are not looked after: the system bus or systemd does not answer" in ended.stdout
    assert (
        "Could not be seen, so nothing is planned from it: shadow lines (/etc/shadow: Permission denied)\n"
        in ended.stdout
    )
    assert lines(ended.stdout)[-1].startswith("Plan: ")
    assert ended.stderr == ""


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--detailed-exitcode"], 2)])
def test_a_dry_run_that_finds_changes_ends_with_2_where_that_is_asked_for(
    rosterd: Rosterd, roster: Path, arguments: list[str], code: int
) -> None:
    assert rosterd("reconcile", "--dry-run", "--roster", roster, *arguments, unprivileged=True).returncode == code


def test_a_dry_run_that_finds_nothing_to_do_ends_with_0(rosterd: Rosterd, folder: Path) -> None:
    (folder / "roster.yaml").write_text("users: {}\n")
    (folder / "site.yaml").write_text("outputs: []\nservices: {}\n")
    arguments: list[str | Path] = [
        "--roster",
        folder / "roster.yaml",
        "--site",
        folder / "site.yaml",
        "--detailed-exitcode",
    ]
    ended = rosterd("--dry-run", *arguments, unprivileged=True)
    assert ended.returncode == 0
    assert lines(ended.stdout)[-1] == "Plan: nothing to do."


def test_a_dry_run_for_programs_is_one_json_document(rosterd: Rosterd, roster: Path) -> None:
    ended = rosterd("--dry-run", "--json", "--roster", roster, unprivileged=True)
    document = json.loads(ended.stdout)
    assert document["version"] == 1
    assert document["changes"] is True
    assert {action["user"] for action in document["actions"]} >= {"zz-alice", "zz-bob"}


@pytest.mark.parametrize("command", [["--dry-run"], ["validate"]])
@pytest.mark.parametrize("text", [None, "", "users: [\n"])
def test_a_roster_that_is_missing_or_bad_ends_with_5(
    rosterd: Rosterd, roster: Path, command: list[str], text: str | None
) -> None:
    if text is None:
        roster.unlink()
    else:
        roster.write_text(text)
    ended = rosterd(*command, "--roster", roster, unprivileged=True)
    assert ended.returncode == 5
    assert ended.stdout == ""
    assert ended.stderr.startswith(str(roster))
    assert "Traceback" not in ended.stderr


def test_a_folder_in_place_of_the_roster_ends_with_5(rosterd: Rosterd, folder: Path) -> None:
    ended = rosterd("validate", "--roster", folder)
    assert (ended.returncode, ended.stderr) == (5, f"{folder}: is not a regular file\n")


# --- validate ---


def test_a_good_roster_is_valid_without_root(rosterd: Rosterd, roster: Path) -> None:
    ended = rosterd("validate", "--roster", roster, unprivileged=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{roster}: 2 on the roster, no errors\n"


def test_a_bad_one_is_shown_with_its_line_and_a_caret(rosterd: Rosterd, roster: Path) -> None:
    roster.write_text(ROSTER.replace("power-user", "boss"))
    ended = rosterd("validate", "--roster", roster)
    assert ended.returncode == 5
    assert ended.stderr == (
        f"{roster}:3:56: user 'zz-bob': tier is 'boss'; allowed: admin, power-user, namespace-owner\n"
        "    3 |   zz-bob: {authentik_user: bob.b, k8s_user: bob, tier: boss}\n"
        "      |                                                        ^\n"
    )


def test_a_bad_site_file_is_shown_likewise(rosterd: Rosterd, roster: Path, folder: Path) -> None:
    (folder / "site.yaml").write_text("settle: soon\n")
    ended = rosterd("validate", "--roster", roster, "--site", folder / "site.yaml")
    assert ended.returncode == 5
    assert ended.stderr.startswith(f"{folder}/site.yaml:1:9: settle is 'soon'")


@pytest.mark.parametrize(
    ("cluster", "code", "stderr"),
    [
        ('{"bob": "power-user"}', 0, ""),
        ("{}", 0, "WARN: user 'zz-bob': the cluster has no grant for 'bob' yet\n"),
        (
            '{"bob": "admin"}',
            1,
            (
                "ERROR: user 'zz-bob': tier is power-user in the roster but admin in the cluster"
                " (k8s_user 'bob'); make them agree\n"
            ),
        ),
    ],
)
def test_tiers_are_compared_with_the_cluster(  # noqa: PLR0913 (fixtures, and columns of the table)
    rosterd: Rosterd, roster: Path, folder: Path, cluster: str, code: int, stderr: str
) -> None:
    (folder / "k8s.json").write_text(cluster)
    ended = rosterd("validate", "--roster", roster, "--k8s-users-json", folder / "k8s.json")
    assert (ended.returncode, ended.stderr) == (code, stderr)
    assert (ended.stdout == "") is (code == 1)


@pytest.mark.parametrize("text", [None, "[]", "{"])
def test_a_map_of_the_cluster_that_cannot_be_used_ends_with_1(
    rosterd: Rosterd, roster: Path, folder: Path, text: str | None
) -> None:
    if text is not None:
        (folder / "k8s.json").write_text(text)
    ended = rosterd("validate", "--roster", roster, "--k8s-users-json", folder / "k8s.json")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"rosterd: {folder}/k8s.json: ")


# --- status ---


def test_status_needs_no_root_and_says_what_it_could_not_see(rosterd: Rosterd, roster: Path) -> None:
    ended = rosterd("status", "--roster", roster, unprivileged=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = [line.split()[:3] for line in lines(ended.stdout)]
    assert ["zz-alice", "admin", "missing"] in rows
    assert ["zz-bob", "power-user", "missing"] in rows
    assert "\x1b" not in ended.stdout
    assert lines(ended.stdout)[-2].startswith("People: ")
    assert "Could not be seen: shadow lines (/etc/shadow: Permission denied)" in lines(ended.stdout)


def test_status_for_programs_is_one_json_document_and_ends_with_0_whatever_it_tells(
    rosterd: Rosterd, roster: Path
) -> None:
    ended = rosterd("status", "--json", "--roster", roster, unprivileged=True)
    assert ended.returncode == 0
    document = json.loads(ended.stdout)
    assert document["version"] == 1
    assert {user["name"] for user in document["users"]} >= {"zz-alice", "zz-bob"}
    # There is no system bus for tests, which is a problem of the machine.
    assert any("services are not looked after" in text for text in document["problems"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could replace them")
@pytest.mark.parametrize("place", ["link", "pipe", "folder", "none/page.html"])
def test_a_page_replaces_nothing_but_a_page(rosterd: Rosterd, roster: Path, place: str) -> None:
    with tempfile.TemporaryDirectory(dir="/root") as made:
        path = Path(made) / place
        if place == "link":
            path.symlink_to("/proc/self/fd/1")  # as /dev/stdout is
        elif place == "pipe":
            os.mkfifo(path)
        elif place == "folder":
            path.mkdir()
        before = path.lstat() if os.path.lexists(path) else None
        ended = rosterd("status", "--html", path, "--roster", roster)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith(f"rosterd: the page is not written: {path}")
        assert len(lines(ended.stderr)) == 1
        assert before is None or path.lstat().st_ino == before.st_ino


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_status_of_a_refused_roster_ends_with_5(rosterd: Rosterd, roster: Path, more: list[str]) -> None:
    roster.write_text("users: [\n")
    ended = rosterd("status", *more, "--roster", roster, unprivileged=True)
    assert (ended.returncode, ended.stdout) == (5, "")
    assert ended.stderr.startswith(f"{roster}:")


def test_status_with_a_site_file_that_is_missing_ends_with_5(rosterd: Rosterd, roster: Path, folder: Path) -> None:
    ended = rosterd("status", "--roster", roster, "--site", folder / "none.yaml", unprivileged=True)
    assert ended.returncode == 5


# --- derive ---


def test_derive_prints_this_document(rosterd: Rosterd) -> None:
    ended = rosterd(
        *("derive", "--roster", CASES / "roster.yaml", "--site", CASES / "site.yaml"),
        *("--ports-json", CASES / "ports.json", "--playwright-ports-json", CASES / "playwright-ports.json"),
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == (CASES / "derived.json").read_text(encoding="utf-8")


def test_derive_needs_no_ports_of_playwright(rosterd: Rosterd, roster: Path, folder: Path) -> None:
    (folder / "ports.json").write_text("{}")
    ended = rosterd("derive", "--roster", roster, "--ports-json", folder / "ports.json", unprivileged=True)
    assert json.loads(ended.stdout)["playwright_ports"] == {"zz-alice": 8931, "zz-bob": 8932}


@pytest.mark.parametrize("text", [None, "{", '{"a": "b"}'])
def test_ports_that_cannot_be_used_end_with_1(rosterd: Rosterd, roster: Path, folder: Path, text: str | None) -> None:
    if text is not None:
        (folder / "ports.json").write_text(text)
    ended = rosterd("derive", "--roster", roster, "--ports-json", folder / "ports.json")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"rosterd: {folder}/ports.json: ")


# --- deprovision ---


@pytest.fixture
def old(folder: Path) -> Path:
    """Return a roster with two people more."""
    more = "".join(f"  {n}: {{authentik_user: {n}, k8s_user: {n}, tier: power-user}}\n" for n in ("zz-dan", "zz-cat"))
    (folder / "old.yaml").write_text(ROSTER + more)
    return folder / "old.yaml"


def test_deprovision_names_who_was_dropped(rosterd: Rosterd, roster: Path, old: Path) -> None:
    ended = rosterd("deprovision", "--old", old, "--new", roster, unprivileged=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "zz-cat\nzz-dan\n", "")
    assert rosterd("deprovision", "--old", old, "--new", old).stdout == ""


@pytest.mark.parametrize(("more", "steps"), [([], 5), (["--destructive"], 6)])
def test_deprovision_prints_the_steps(rosterd: Rosterd, roster: Path, old: Path, more: list[str], steps: int) -> None:
    ended = rosterd("deprovision", "--old", old, "--new", roster, "--plan", *more)
    plan = json.loads(ended.stdout)
    assert [step["os_user"] for step in plan] == ["zz-cat"] * steps + ["zz-dan"] * steps
    assert [step["kind"] for step in plan if not step["reversible"]] == ["userdel_archive"] * (2 * (steps - 5))


def test_deprovision_refuses_a_bad_roster_on_either_side(rosterd: Rosterd, roster: Path, folder: Path) -> None:
    (folder / "bad.yaml").write_text("users:\n")
    for old, new in ((folder / "bad.yaml", roster), (roster, folder / "bad.yaml")):
        ended = rosterd("deprovision", "--old", old, "--new", new)
        assert (ended.returncode, ended.stdout) == (5, "")
        assert ended.stderr.startswith(f"{folder}/bad.yaml:1:7: users is empty")


# --- adopt ---


def test_only_root_can_adopt(rosterd: Rosterd, roster: Path) -> None:
    ended = rosterd("adopt", "--roster", roster, "zz-alice", unprivileged=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("rosterd: only root can change this machine")


# --- cut, uncut, done ---


def test_only_root_can_say_that_a_step_has_been_taken(rosterd: Rosterd) -> None:
    ended = rosterd("done", "zz-alice", "revoke_cluster_rbac", unprivileged=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("rosterd: only root can change this machine")


def test_a_step_that_is_none_is_told_which_there_are(rosterd: Rosterd) -> None:
    ended = rosterd("done", "zz-alice", "revoke", unprivileged=True)
    assert "'remove_from_t3_group', 'revoke_cluster_rbac'" in ended.stderr


def test_a_cut_needs_no_roster(rosterd: Rosterd, roster: Path) -> None:
    roster.write_text("users: [\n")
    ended = rosterd("cut", "--roster", roster, "zz-no-such", "--dry-run", unprivileged=True)
    assert (ended.returncode, ended.stderr) == (64, "rosterd: 'zz-no-such' has no account on this machine\n")


def test_the_end_of_a_cut_needs_one(rosterd: Rosterd, roster: Path) -> None:
    roster.write_text("users: [\n")
    ended = rosterd("uncut", "--roster", roster, "zz-alice", "--dry-run", unprivileged=True)
    assert ended.returncode == 5
    assert ended.stderr.startswith(str(roster))


def test_a_cut_heeds_the_site_file(rosterd: Rosterd, folder: Path) -> None:
    (folder / "site.yaml").write_text("hooks: {revoke: {command: [/bin/x]}}\n")
    ended = rosterd("cut", "--site", folder / "site.yaml", "zz-no-such", "--dry-run", unprivileged=True)
    assert ended.returncode == 5
    assert "the name must be one of remove_from_t3_group, revoke_cluster_rbac" in ended.stderr


# --- explain ---


def test_explain_needs_no_root_and_says_what_it_could_not_see(rosterd: Rosterd, roster: Path) -> None:
    ended = rosterd("explain", "zz-alice", "--roster", roster, unprivileged=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert lines(ended.stdout)[0] == "zz-alice is on the roster (roster.yaml:2) and has no account yet."
    assert "Could not be seen: shadow lines (/etc/shadow: Permission denied)\n" in ended.stdout
    assert "Could not be seen: units (the system bus or systemd does not answer" in ended.stdout
    assert re.search(
        r"^As far as could be seen, a run would make [0-9]+ changes for zz-alice\b", lines(ended.stdout)[-1]
    )


def test_explain_gives_the_same_to_programs(rosterd: Rosterd, roster: Path) -> None:
    found = json.loads(rosterd("explain", "zz-alice", "--roster", roster, "--json", unprivileged=True).stdout)
    assert (found["version"], found["name"], found["state"]) == (1, "zz-alice", "missing")
    places = {row["name"]: row["why"] for row in found["attributes"] if row["topic"] == "roster"}
    assert places == {
        "authentik_user": "roster.yaml:2",
        "k8s_user": "roster.yaml:2",
        "tier": "roster.yaml:2",
        "parked": "default",
        "code_layout": "default",
    }


def test_explain_offers_a_name_that_is_near(rosterd: Rosterd, roster: Path) -> None:
    ended = rosterd("explain", "zz-alicia", "--roster", roster, unprivileged=True)
    assert (ended.returncode, ended.stdout) == (64, "")
    assert "'zz-alicia' is neither on the roster, nor managed" in ended.stderr
    assert "; did you mean 'zz-alice'?" in ended.stderr


@pytest.mark.parametrize("text", ["users: [\n", ""])
def test_explain_refuses_a_roster_as_a_run_does(rosterd: Rosterd, roster: Path, text: str) -> None:
    roster.write_text(text)
    ended = rosterd("explain", "zz-alice", "--roster", roster, unprivileged=True)
    assert (ended.returncode, ended.stdout) == (5, "")
    assert ended.stderr.startswith(f"{roster}:1:")


def test_explain_says_that_a_run_would_stop_at_the_cluster(rosterd: Rosterd, folder: Path, roster: Path) -> None:
    (folder / "tiers.json").write_text('{"bob": "namespace-owner"}')
    (folder / "site.yaml").write_text(f"k8s_users: {{file: {folder}/tiers.json}}\n")
    files = ("--roster", roster, "--site", folder / "site.yaml")
    ended = rosterd("explain", "zz-bob", *files, unprivileged=True)
    assert ended.returncode == 0, ended.stderr
    assert "A run would stop before it changes anything: " in ended.stdout
    assert lines(ended.stdout)[-1].startswith("As far as could be seen, a run would change nothing for zz-bob")


# --- what is loaded ---


@pytest.mark.parametrize("command", ["validate", "derive", "deprovision"])
def test_commands_that_only_read_files_load_no_bus(checkout: Path, folder: Path, command: str) -> None:
    roster, ports = folder / "roster.yaml", folder / "ports.json"
    ports.write_text("{}")
    arguments = {
        "validate": ["validate", "--roster", roster],
        "derive": ["derive", "--roster", roster, "--ports-json", ports],
        "deprovision": ["deprovision", "--old", roster, "--new", roster],
    }
    script = (
        "import sys\n"
        "from reconciler.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sorted(name for name in ('gi', 'pydbus') if name in sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run(
        ["/usr/bin/python3", "-c", script, *map(str, arguments[command])],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "[]\n")


def test_an_output_that_cannot_be_written_is_told_and_no_traceback(checkout: Path, roster: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            ["/usr/bin/python3", "-m", "reconciler", "status", "--roster", roster],
            cwd=checkout,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (1, "rosterd: the output cannot be written: No space left on device\n")
