"""The metrics of real runs, as Debian's node exporter serves them, and the alert rules on them, as promtool takes them.

What the metrics are is read from what the exporter serves, never from the code that writes them.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.machine.machine import CHECKOUT, Machine
from tests.machine.rootfs import AROUND, RootfsError, rootfs
from tests.machine.workstation import (
    QUICK,
    ROSTER,
    SITE,
    entry_of,
    eventually,
    look,
    reconcile,
    roster,
    traced,
    workstation,
    write_roster,
)

FOLDER = "/var/lib/prometheus/node-exporter"
FILE = f"{FOLDER}/rosterd.prom"
RULES = CHECKOUT / "packaging" / "rosterd-alerts.yaml"
PAGE = CHECKOUT / "docs" / "metrics.md"

PEOPLE: dict[str, dict[str, Any]] = {"alice": {"tier": "admin"}, "bob": {}, "carol": {}}
DROP_IN = "/etc/systemd/system/t3-serve@bob.service.d/test.conf"
FAILS = "[Service]\nExecStart=\nExecStart=/bin/false\nRestart=no\n"
# Crashes until there is a file /run/stay, and systemd starts it again every time.
CRASHES = """\
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=
ExecStart=/bin/sh -c '[ -e /run/stay ] || exit 1; exec /usr/bin/t3 serve --port ${T3_PORT}'
Restart=always
RestartSec=100ms
"""

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]
_NO: Mapping[str, float] = {}

# Of the labels that Prometheus itself gives to what it fetches.
SCRAPED = (("instance", "workstation:9100"), ("job", "node"))
OTHER = (("instance", "other:9100"), ("job", "node"))


@dataclass(frozen=True)
class Situation:
    """What one run wrote: its exit code, the file, and what of it the exporter served."""

    code: int
    text: str
    served: str

    @property
    def samples(self) -> Samples:
        """What the exporter served of rosterd and of its textfile collector."""
        found = samples_in(self.served)
        return {key: value for key, value in found.items() if key[0].startswith(("rosterd_", "node_textfile_"))}

    def value(self, name: str, **labels: str) -> float:
        """Return one sample."""
        return self.samples[name, tuple(sorted(labels.items()))]


def samples_in(text: str) -> Samples:
    """Read the text format (prometheus.io, "Exposition formats"); there is nothing escaped in it here."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            assert match, line
            name, labels, value = match.groups()
            found[name, tuple(sorted(re.findall(r'(\w+)="([^"]*)"', labels or "")))] = float(value)
    return found


@pytest.fixture(scope="module")
def around(deb: Path) -> Iterator[Machine]:
    """Boot a workstation with the node exporter, whose site has a file for it; no run yet."""
    try:
        rootfs(AROUND)
    except RootfsError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no {AROUND}: {error}")
    with workstation(deb, AROUND) as machine:
        machine.write(SITE, f"{QUICK}metrics: {FILE}\n")
        machine.run("systemctl", "start", "prometheus-node-exporter.service")
        yield machine


@pytest.fixture(scope="module")
def situations(around: Machine) -> dict[str, Situation]:
    """Make runs of every kind, one after the other, by the service in its sandbox."""
    machine = around
    found = {}

    def note(name: str) -> None:
        found[name] = situation(machine)

    machine.run("useradd", "--create-home", "dave")
    write_roster(machine, {**PEOPLE, "dave": {}})
    note("never")
    write_roster(machine, PEOPLE)
    note("mended")
    note("good")

    machine.run("gpasswd", "--delete", "alice", "docker")
    note("drift")
    machine.write(ROSTER, f"# edited\n{roster(PEOPLE)}")
    machine.run("gpasswd", "--delete", "alice", "docker")
    note("edit")

    write_roster(machine, {**PEOPLE, "dave": {}})
    note("conflict")
    write_roster(machine, {"alice": PEOPLE["alice"]})
    note("held")
    machine.write(ROSTER, "users: [\n")
    note("refused")
    write_roster(machine, PEOPLE)
    machine.write("/var/lib/rosterd/cuts/eve", "{", mode=0o600)
    note("cannot")
    machine.run("rm", "/var/lib/rosterd/cuts/eve")

    override(machine, FAILS)
    note("unhealthy")
    override(machine, CRASHES)
    show = ("systemctl", "show", "--property=NRestarts", "--value", "t3-serve@bob.service")
    machine.run("systemctl", "restart", "--no-block", "t3-serve@bob.service")
    eventually(lambda: int(machine.run(*show).out) >= 6, within=30)
    machine.sh("touch /run/stay; until curl --silent --fail http://127.0.0.1:3774/; do sleep 0.1; done", timeout=20)
    note("crashes")

    machine.sh('rm -r "$1"; systemctl daemon-reload; systemctl restart t3-serve@bob.service', str(Path(DROP_IN).parent))
    write_roster(machine, {"alice": PEOPLE["alice"], "bob": {}})
    note("pending")
    return found


def override(machine: Machine, text: str) -> None:
    """Change bob's server by a drop-in, and stop it."""
    machine.write(DROP_IN, text)
    machine.sh("systemctl daemon-reload; systemctl stop t3-serve@bob.service")


def situation(machine: Machine) -> Situation:
    """Make a run, and return what came of it."""
    code = run_service(machine)
    served = machine.sh("until curl --silent --fail http://127.0.0.1:9100/metrics; do sleep 0.1; done", timeout=20).out
    return Situation(code, machine.read(FILE), served)


def run_service(machine: Machine) -> int:
    """Make a run by rosterd.service, and return its exit code."""
    machine.run("systemctl", "start", "rosterd.service", check=False)
    show = ("systemctl", "show", "--property=ExecMainStatus", "--value", "rosterd.service")
    return int(machine.run(*show).out)


# --- the file ---


def test_the_runs_ended_as_they_were_to(situations: dict[str, Situation]) -> None:
    codes = {name: one.code for name, one in situations.items()}
    assert codes == {
        "never": 3,
        "mended": 0,
        "good": 0,
        "drift": 0,
        "edit": 0,
        "conflict": 3,
        "held": 4,
        "refused": 5,
        "cannot": 1,
        "unhealthy": 3,
        "crashes": 0,
        "pending": 0,
    }
    assert {name: one.value("rosterd_run_exit_code") for name, one in situations.items()} == codes


def test_promtool_has_nothing_to_say_against_any_of_them(around: Machine, situations: dict[str, Situation]) -> None:
    for name, one in situations.items():
        result = around.run("promtool", "check", "metrics", input=one.text)
        assert (result.out, result.err) == ("", ""), (name, result)


def test_the_exporter_serves_all_that_is_in_the_file(situations: dict[str, Situation]) -> None:
    for one in situations.values():
        written = samples_in(one.text)
        served = {key: value for key, value in one.samples.items() if key[0].startswith("rosterd_")}
        assert served == written
        assert one.value("node_textfile_scrape_error") == 0
        assert one.value("node_textfile_mtime_seconds", file=FILE) > 0


def test_the_metrics_say_what_is_so_on_the_machine(situations: dict[str, Situation]) -> None:
    never, good, held = situations["never"], situations["good"], situations["held"]
    assert never.value("rosterd_run_success_timestamp_seconds") == 0
    assert good.value("rosterd_run_success_timestamp_seconds") == good.value("rosterd_run_end_timestamp_seconds")
    last_good = situations["edit"].value("rosterd_run_end_timestamp_seconds")
    assert held.value("rosterd_run_success_timestamp_seconds") == last_good

    assert never.value("rosterd_run_actions", kind="create_account", result="done") == len(PEOPLE)
    assert never.value("rosterd_run_conflicts") == 1
    assert {key[1] for key in never.samples if key[0] == "rosterd_run_user_problems"} == {(("os_user", "dave"),)}
    assert never.value("rosterd_users", state="unmanaged") == 1
    assert good.value("rosterd_users", state="active") == len(PEOPLE)
    assert not [key for key in good.samples if key[0] in ("rosterd_run_actions", "rosterd_run_user_problems")]

    assert held.value("rosterd_run_held_cuts") == 2
    assert situations["pending"].value("rosterd_users", state="cut") == 1
    assert situations["pending"].value("rosterd_run_pending_steps") == 2
    assert situations["unhealthy"].value("rosterd_services", health="unhealthy") == 1
    assert situations["unhealthy"].value("rosterd_run_user_problems", os_user="bob") >= 1

    bob = {"os_user": "bob", "unit": "t3-serve@bob.service"}
    assert good.value("rosterd_unit_restarts_total", **bob) == 0
    assert situations["crashes"].value("rosterd_unit_restarts_total", **bob) >= 6


def test_drift_is_what_comes_without_an_edit(situations: dict[str, Situation]) -> None:
    groups = {"kind": "add_to_groups", "result": "done"}
    assert situations["drift"].value("rosterd_run_actions", **groups) == 1
    assert situations["edit"].value("rosterd_run_actions", **groups) == 1
    assert situations["drift"].value("rosterd_run_drift_actions") == 1
    for name in ("never", "mended", "good", "edit"):
        assert situations[name].value("rosterd_run_drift_actions") == 0, name


def test_a_run_that_could_not_begin_tells_that_and_nothing_about_people(situations: dict[str, Situation]) -> None:
    for name in ("refused", "cannot"):
        assert {key[0] for key in samples_in(situations[name].text)} == {
            "rosterd_run_end_timestamp_seconds",
            "rosterd_run_success_timestamp_seconds",
            "rosterd_run_duration_seconds",
            "rosterd_run_exit_code",
        }


# --- the alert rules ---


def rules_in(text: str) -> list[dict[str, Any]]:
    """Return the rules of a rule file."""
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def selectors_in(expr: str) -> set[tuple[str, Labels]]:
    """Return the metrics that a query asks for, each with the labels that it must have."""
    bare = re.sub(r"\b(on|by|ignoring|without)\s*\([^)]*\)|\[[^]]*\]", " ", expr)
    names = re.findall(r"(?<![\w.\"])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\}|\()?", bare)
    found = set()
    for name, rest in names:
        if rest != "(" and name not in ("and", "or", "unless", "offset", "bool"):
            assert not re.search(r"=~|!=|!~", rest), f"this test cannot read {expr}"
            found.add((name, tuple(re.findall(r'(\w+)\s*=\s*"([^"]*)"', rest))))
    return found


def unserved(rules: str, situations: Mapping[str, Situation]) -> set[tuple[str, Labels]]:
    """Return what rules ask for that no run wrote and the exporter does not serve."""
    served = [key for one in situations.values() for key in samples_in(one.served)]
    asked = set().union(*(selectors_in(rule["expr"]) for rule in rules_in(rules)))
    return {
        (name, labels)
        for name, labels in asked
        if not any(name == there and set(labels) <= set(having) for there, having in served)
    }


def test_what_a_query_asks_for_is_read_from_it() -> None:
    expr = 'a_b{x="y"} unless max_over_time(c[1d]) and on (job, instance) d > 3 * 3600 or time() - e'
    assert selectors_in(expr) == {("a_b", (("x", "y"),)), ("c", ()), ("d", ()), ("e", ())}


def test_promtool_takes_the_rules(around: Machine) -> None:
    around.run("promtool", "check", "rules", "/usr/share/doc/rosterd/examples/rosterd-alerts.yaml")
    assert around.read("/usr/share/doc/rosterd/examples/rosterd-alerts.yaml") == RULES.read_text()


def test_every_metric_and_label_of_every_query_is_among_what_runs_wrote(situations: dict[str, Situation]) -> None:
    rules = RULES.read_text()
    assert unserved(rules, situations) == set()
    # And if one were not:
    assert unserved(rules.replace("rosterd_run_conflicts", "rosterd_conflicts"), situations) == {
        ("rosterd_conflicts", ())
    }
    assert unserved(rules.replace('health="unhealthy"', 'health="ill"'), situations) == {
        ("rosterd_services", (("health", "ill"),))
    }


def test_every_alert_says_how_bad_it_is_what_it_is_and_which_command_to_begin_with() -> None:
    for rule in rules_in(RULES.read_text()):
        assert rule["for"], rule
        assert rule["labels"]["severity"] in ("warning", "critical"), rule
        assert set(rule["annotations"]) == {"summary", "description"}, rule
        commands = r"`(rosterd|journalctl|systemctl) [^`]+`"
        assert re.search(commands, rule["annotations"]["description"]), rule


@dataclass(frozen=True)
class Course:
    """How the metrics go on over time, and which alerts fire at `minute` of it.

    Each name is that of a run whose values stay for as many minutes; "" is a time without any of rosterd's.
    `runs_go_on`: the same run comes again each minute, so that it does not grow old. `other` is the run of another
    machine, there all the time, `instead` are values to put in place of those that were written.
    """

    minute: int
    fire: frozenset[str]
    runs: tuple[tuple[str, int], ...]
    runs_go_on: bool = False
    other: str = ""
    instead: Mapping[str, float] = field(default_factory=dict)


def course(run: str, minute: int, *fire: str, runs_go_on: bool = False, instead: Mapping[str, float] = _NO) -> Course:
    """Return that of a single run."""
    return Course(minute, frozenset(fire), ((run, minute + 10),), runs_go_on, instead=instead)


DAYS = 49 * 60  # a little more than two
COURSES = {
    "good": course("good", 170),
    "good-for-days": course("good", DAYS, runs_go_on=True),
    "mended": course("mended", 170),
    "after-an-edit": course("edit", DAYS, runs_go_on=True),
    "no-run-any-more": course("good", 190, "RosterdRunOverdue", "RosterdNoGoodRun"),
    "never-a-good-run": course("never", 60, "RosterdRunFailed", "RosterdConflicts", "RosterdNoGoodRun"),
    "conflict": course("conflict", 60, "RosterdRunFailed", "RosterdConflicts"),
    "conflict-that-stays": course(
        "conflict", 190, "RosterdRunFailed", "RosterdConflicts", "RosterdNoGoodRun", runs_go_on=True
    ),
    "conflict-that-goes": Course(20, frozenset(), (("conflict", 10), ("good", 60))),
    "held": course("held", 60, "RosterdCutsHeld"),
    "refused": course("refused", 60, "RosterdRosterRefused"),
    "cannot": course("cannot", 60, "RosterdCannotRun"),
    "unhealthy": course("unhealthy", 60, "RosterdRunFailed", "RosterdServicesUnhealthy"),
    "crashes": Course(90, frozenset({"RosterdCrashLoop"}), (("good", 60), ("crashes", 60))),
    "pending-for-an-hour": course("pending", 60),
    "pending-for-days": course("pending", DAYS, "RosterdStepsPending", runs_go_on=True),
    "drift-once": Course(DAYS, frozenset(), (("drift", 60), ("good", DAYS)), runs_go_on=True),
    "drift-each-time": course("drift", 7 * 60, "RosterdDrift", runs_go_on=True),
    # No real run is to take ten minutes here.
    "slow": course("good", 120, "RosterdRunSlow", instead={"rosterd_run_duration_seconds": 660}),
    "gone": Course(120, frozenset({"RosterdMetricsGone"}), (("good", 30), ("", 120)), other="good"),
    "missing": course("", 120, "RosterdMetricsMissing"),
}


def series_of(course: Course, situations: Mapping[str, Situation]) -> list[dict[str, str]]:
    """Return the input of `promtool test rules`, a sample each minute from 0, when the first run ends."""
    series = _series(course, course.runs, SCRAPED, situations)
    if course.other:
        series += _series(course, ((course.other, course.minute + 10),), OTHER, situations)
    return series


def _series(
    course: Course, runs: Sequence[tuple[str, int]], scraped: Labels, situations: Mapping[str, Situation]
) -> list[dict[str, str]]:
    values: dict[tuple[str, Labels], list[str]] = {}
    begin = 0
    for run, minutes in runs:
        samples = _from_0(situations[run or "good"], course, begin * 60)
        if not run:
            samples = {key: told for key, told in samples.items() if not key[0].startswith("rosterd_")}
        for key in samples.keys() - values.keys():
            values[key] = [f"_x{begin}"] if begin else []
        for key, told in values.items():
            told.append(f"{samples[key]}x{minutes - 1}" if key in samples else f"_x{minutes}")
        begin += minutes
    return [
        {"series": f"{name}{{{_told((*labels, *scraped))}}}", "values": " ".join(told)}
        for (name, labels), told in sorted(values.items())
    ]


def _told(labels: Labels) -> str:
    return ",".join(f'{key}="{value}"' for key, value in labels)


def _from_0(one: Situation, course: Course, begin: int) -> dict[tuple[str, Labels], str]:
    """Return what a run at `begin` seconds would have written, each value with what it grows by in a minute."""
    end = one.value("rosterd_run_end_timestamp_seconds")
    told = {}
    for (name, labels), written in one.samples.items():
        value = course.instead.get(name, written)
        if name.endswith("_timestamp_seconds"):
            value += begin - end
        goes_on = name.startswith("rosterd_run_end_") or (name.startswith("rosterd_run_success_") and one.code == 0)
        told[name, labels] = f"{value:.15g}+{60 if course.runs_go_on and goes_on else 0}"
    return told


@pytest.mark.parametrize("name", COURSES)
def test_exactly_the_alerts_fire_that_are_to(around: Machine, situations: dict[str, Situation], name: str) -> None:
    course = COURSES[name]
    fire = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(course.fire)]
    expected = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{course.minute}m",
        "exp_samples": fire,
    }
    test = {"interval": "1m", "input_series": series_of(course, situations), "promql_expr_test": [expected]}
    around.write("/tmp/rules.yaml", RULES.read_text())
    around.write(
        "/tmp/test.yaml", json.dumps({"rule_files": ["/tmp/rules.yaml"], "evaluation_interval": "1m", "tests": [test]})
    )
    around.run("promtool", "test", "rules", "/tmp/test.yaml")


def test_every_alert_fires_in_one_of_these_courses() -> None:
    fire = set().union(*(course.fire for course in COURSES.values()))
    assert fire == {rule["alert"] for rule in rules_in(RULES.read_text())}


# --- the page ---


def test_the_page_names_the_metrics_that_runs_write_with_type_and_labels(situations: dict[str, Situation]) -> None:
    rows = re.findall(r"^\| `(rosterd_\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    told = {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert len(told) == len(rows)
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", "\n".join(one.text for one in situations.values()), re.MULTILINE))
    samples = [key for one in situations.values() for key in samples_in(one.text)]
    written = {
        name: (kind, frozenset(label for there, labels in samples if there == name for label, _ in labels))
        for name, kind in kinds.items()
    }
    assert told == written


def test_the_page_names_the_alerts_with_their_severity() -> None:
    rows = re.findall(r"^\| `(Rosterd\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    assert dict(rows) == {rule["alert"]: rule["labels"]["severity"] for rule in rules_in(RULES.read_text())}


# --- how it is written ---

# Reads the file over and over until there is another one, and prints each text that it has seen, once.
READER = """\
import json, os
seen = set()
open("/run/reads", "w").close()
while not os.path.exists("/run/enough"):
    try:
        seen.add(open("%s").read())
    except FileNotFoundError:
        seen.add(None)
print(json.dumps(list(seen)))
"""


@pytest.fixture
def machine(deb: Path) -> Iterator[Machine]:
    """Boot a workstation without an exporter, and make a run that is good."""
    with workstation(deb) as machine:
        machine.run("mkdir", "-p", FOLDER)
        machine.write(SITE, f"{QUICK}metrics: {FILE}\n")
        write_roster(machine, PEOPLE)
        assert run_service(machine) == 0
        yield machine


def test_the_file_is_for_everybody_to_read_and_replaced_in_one_step(machine: Machine) -> None:
    inodes = {machine.run("stat", "--format=%i", FILE).out}
    reader = machine.start("python3", "-c", READER % FILE)
    eventually(lambda: machine.exists("/run/reads"), within=10)
    for _ in range(10):
        assert run_service(machine) == 0
        assert look(machine, FILE) == "root:root 644"
        assert machine.sh('ls -A "$1"', FOLDER).out.split() == ["rosterd.prom"]
        inodes.add(machine.run("stat", "--format=%i", FILE).out)
    machine.run("touch", "/run/enough")
    texts = json.loads(reader.communicate(timeout=20)[0])

    assert len(texts) > 1
    for text in texts:
        assert text is not None
        assert text.startswith("# HELP rosterd_run_end_timestamp_seconds "), text
        last = 'rosterd_unit_restarts_total{os_user="carol",unit="t3-serve@carol.service"} 0\n'
        assert text.endswith(f"\n{last}"), text
    assert len(inodes) > 1

    touched = [call for call in traced(machine, "rosterd").changes if "rosterd.prom" in call]
    assert any(call.startswith("rename") for call in touched), touched
    assert not any(call.startswith("open") and 'rosterd.prom"' in call for call in touched), touched


def test_a_dry_run_and_a_command_about_one_person_write_no_metrics(machine: Machine) -> None:
    before = machine.run("stat", "--format=%i %z", FILE).out
    machine.run("rosterd", "--dry-run")
    machine.run("rosterd", "cut", "carol")
    assert machine.run("stat", "--format=%i %z", FILE).out == before


UNWRITABLE = {
    "missing": f"rm -r {FOLDER}",
    "read-only": f"mount -t tmpfs -o ro none {FOLDER}",
    "not-open-to-the-service": f"mkdir /srv/metrics; sed -i s,{FOLDER},/srv/metrics, {SITE}",
    "a-folder-in-the-way": f"rm {FILE}; mkdir {FILE}",
}


@pytest.mark.parametrize("script", UNWRITABLE.values(), ids=UNWRITABLE)
def test_where_it_cannot_be_written_all_else_is_done_and_the_run_says_so(machine: Machine, script: str) -> None:
    machine.sh(script)
    write_roster(machine, {**PEOPLE, "dora": {}})
    assert run_service(machine) == 3
    assert entry_of(machine, "passwd", "dora")
    assert "dora.id" in machine.read("/etc/ttyd-user-map")
    said = machine.journal("ROSTERD_EVENT=run_not_kept")
    assert len(said) == 1, said
    assert "this run is not in the metrics: " in said[0]["MESSAGE"]
    assert "rosterd.prom cannot be written: " in said[0]["MESSAGE"]
    assert json.loads(machine.run("rosterd", "status", "--json").out)["run"]["exit"] == 3

    machine.write(ROSTER, "users: [\n")
    assert run_service(machine) == 5


def test_another_folder_is_opened_to_the_service_by_a_drop_in(machine: Machine) -> None:
    (drop_in,) = re.findall(r"^```ini\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    machine.run("mkdir", "/srv/metrics")
    machine.write("/etc/systemd/system/rosterd.service.d/metrics.conf", drop_in)
    machine.write(SITE, f"{QUICK}metrics: /srv/metrics/rosterd.prom\n")
    machine.run("systemctl", "daemon-reload")
    assert run_service(machine) == 0
    assert look(machine, "/srv/metrics/rosterd.prom") == "root:root 644"


def test_a_record_that_cannot_be_written_is_in_the_metrics(machine: Machine) -> None:
    machine.sh("rm /var/lib/rosterd/last-run; mkdir /var/lib/rosterd/last-run")
    reconcile(machine, code=3)
    assert "rosterd_run_exit_code 3\n" in machine.read(FILE)
