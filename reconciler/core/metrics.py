"""The metrics of a run, in the text format that the node exporter's textfile collector reads.

Names and units are as OpenMetrics has them: seconds, and `_total` for what only counts up. Everything else is a gauge
of the last run. docs/metrics.md has them all, packaging/rosterd-alerts.yaml asks for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.core.last_run import LastRun
from reconciler.core.status import AccountState, Health, MachineStatus

Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]


@dataclass(frozen=True, slots=True)
class Results:
    """What a run over everybody found and did.

    `drift` is how many changes its first look asked for although nobody had edited anything, `actions` how many
    actions of each kind ended how. `user_problems` are those of each person who has any, `restarts` how often systemd
    has restarted a person's service, by person and unit: of every service, of none where systemd could not be asked.
    """

    status: MachineStatus
    drift: int
    actions: Mapping[tuple[str, str], int]
    conflicts: int
    pending: int
    held: int
    unmet: int
    failed_users: int
    user_problems: Mapping[str, int]
    restarts: Mapping[tuple[str, str], int]


def render(run: LastRun, results: Results | None) -> str:
    """Return the whole text. `results` is None where the run was stopped: then only that is told."""
    families = [*_of_run(run), *(_of_results(results) if results else ())]
    return "".join(_family(*family) for family in families)


def _of_run(run: LastRun) -> Iterator[tuple[str, str, str, Sequence[Sample]]]:
    yield "rosterd_run_end_timestamp_seconds", "gauge", "When the last run ended, in Unix time.", [((), run.at)]
    text = "When the last run ended that had exit code 0, in Unix time; 0 if there was none."
    yield "rosterd_run_success_timestamp_seconds", "gauge", text, [((), run.good or 0)]
    yield "rosterd_run_duration_seconds", "gauge", "How long the last run took.", [((), run.seconds)]
    yield "rosterd_run_exit_code", "gauge", "The exit code of the last run, as in rosterd(8).", [((), run.exit)]


def _of_results(results: Results) -> Iterator[tuple[str, str, str, Sequence[Sample]]]:
    states = Counter(user.state.value for user in results.status.users)
    health = Counter(service.health.value for user in results.status.users for service in user.services)
    yield "rosterd_users", "gauge", "People, by how they stand.", _each("state", AccountState, states)
    yield "rosterd_services", "gauge", "Services of people, by how they are.", _each("health", Health, health)
    actions = [((("kind", kind), ("result", result)), count) for (kind, result), count in results.actions.items()]
    yield "rosterd_run_actions", "gauge", "Actions of the last run, by kind and result.", sorted(actions)
    text = "Changes that were due at the begin of the last run although no file had been edited since the run before."
    yield "rosterd_run_drift_actions", "gauge", text, [((), results.drift)]
    text = "Changes of the last run that did not take effect although nothing failed."
    yield "rosterd_run_unmet_actions", "gauge", text, [((), results.unmet)]
    yield "rosterd_run_conflicts", "gauge", "What stands in the way of the last run.", [((), results.conflicts)]
    yield "rosterd_run_pending_steps", "gauge", "Steps outside of this machine to take.", [((), results.pending)]
    yield "rosterd_run_held_cuts", "gauge", "People whom a guard keeps from being cut off.", [((), results.held)]
    yield "rosterd_run_failed_users", "gauge", "People for whom an action failed.", [((), results.failed_users)]
    problems = [((("os_user", user),), number) for user, number in results.user_problems.items()]
    text = "What failed, is unhealthy, stands in the way or did not take effect, for each person of whom that is so."
    yield "rosterd_run_user_problems", "gauge", text, sorted(problems)
    restarts = [((("os_user", user), ("unit", unit)), number) for (user, unit), number in results.restarts.items()]
    text = "Restarts of a person's service by systemd itself, since somebody last started it."
    yield "rosterd_unit_restarts_total", "counter", text, sorted(restarts)


def _each(label: str, members: Iterable[str], counts: Mapping[str, int]) -> list[Sample]:
    """Return a sample for every member of a closed list, so that none is missing at 0."""
    return [(((label, str(member)),), counts.get(member, 0)) for member in members]


def _family(name: str, kind: str, text: str, samples: Sequence[Sample]) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {value:.15g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    told = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
    return f"{{{told}}}" if told else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
