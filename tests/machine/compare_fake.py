"""Runs in a machine, as root: carries out plans for real, and says where the host in memory thinks otherwise.

    python3 -m tests.machine.compare_fake ROSTER SITE [cut|uncut NAME]

Each action of a plan is applied alone. What a look finds afterwards is compared with what the fake makes of the look
before. Prints one JSON object: `kinds`, how often each kind of action was compared, and `differences`, as text.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

from reconciler.core.actions import Action, SetLinger
from reconciler.core.desired import Desired, desire
from reconciler.core.observed import HomeWork, Observed, Presence, Process
from reconciler.core.outcome import Executor, Outcome, Status
from reconciler.core.plan import make_plan
from reconciler.core.roster import parse_roster
from reconciler.core.site import parse_site
from reconciler.engine import Host
from reconciler.host.machine import this_machine
from tests.unit.memory_host import MemoryHost

# Seconds until a started server listens, or systemd has forgotten a stopped unit.
SETTLE = 2.0


def comparable(seen: Observed) -> Observed:
    """Return a look without what may differ: the fake need not know these.

    - units that are loaded but inactive: systemd keeps them for a moment, or for what refers to them
    - the order of subordinate ranges, which the tools sort
    - sockets that are no service's, as those of sshd
    - the clock, for how long a unit has been up, and how often systemd started it again meanwhile
    - what is running of people who are not on record as cut off: a look leaves them out
    - foreign units that are loaded but inactive, likewise
    - which processes somebody has, if they have any, and of whoever lingers that too: their manager takes its time
    - of the steps on record in homes, when they were taken, what was said and what they relied on
    - an env file that by its name could be one of another service and another person: playwright-bob's of t3
    """
    states = {
        name: replace(state, up=None, restarts=None)
        for name, state in (seen.units.states or {}).items()
        if state.active != "inactive"
    }
    cuts = seen.records.cuts if seen.records else {}
    return replace(
        seen,
        now=0,
        home_work=_comparable_homes(seen.home_work),
        presence={name: _comparable_presence(found) for name, found in seen.presence.items() if name in cuts},
        units=replace(seen.units, states=states),
        subuids=tuple(sorted(seen.subuids or (), key=lambda span: span.first)),
        subgids=tuple(sorted(seen.subgids or (), key=lambda span: span.first)),
        env_files={key: file for key, file in (seen.env_files or {}).items() if not key[1].startswith("playwright-")},
        listeners=tuple(sorted((found for found in seen.listeners if found.unit), key=lambda found: found.port)),
    )


def _comparable_homes(found: HomeWork | None) -> HomeWork | None:
    if found is None:
        return None
    records = {
        name: {step: replace(record, detail="", at=0, watches=()) for step, record in steps.items()}
        for name, steps in found.records.items()
    }
    return replace(found, records=records)


def _comparable_presence(found: Presence) -> Presence:
    return replace(
        found,
        units=tuple(unit for unit in found.units if unit.active),
        slice_active=found.slice_active and not found.lingering,
        processes=tuple(Process(0, 0, "") for _ in found.processes[: not found.lingering]),
    )


def _sessions_aside(seen: Observed) -> Observed:
    """Return a look without sessions: logind ends somebody's own manager when lingering ends, now or in a moment."""
    gone = {name: replace(found, slice_active=False, processes=()) for name, found in seen.presence.items()}
    return replace(seen, presence=gone)


def differences(real: Observed, fake: Observed) -> Iterator[str]:
    """Yield a line for each field in which two looks differ."""
    for field in fields(Observed):
        one, other = getattr(real, field.name), getattr(fake, field.name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
            one, other = ({key: found.get(key) for key in keys} for found in (one, other))
        yield f"{field.name}: really {one}, in memory {other}"


def compare(action: Action, desired: Desired, scanner: Host, executor: Executor) -> Iterator[str]:
    """Carry out one action and yield where the fake and the machine disagree, its outcome included."""
    memory = MemoryHost(scanner.observe(desired))
    (expected,) = memory.apply([action])
    (outcome,) = executor.apply([action])
    yield from _outcome_differences(outcome, expected)

    def seen(look: Observed) -> Observed:
        return _sessions_aside(comparable(look)) if isinstance(action, SetLinger) else comparable(look)

    fake = seen(memory.observed)
    deadline = time.monotonic() + SETTLE
    while (found := list(differences(seen(scanner.observe(desired)), fake))) and time.monotonic() < deadline:
        time.sleep(0.05)
    yield from found


def _outcome_differences(real: Outcome, fake: Outcome) -> Iterator[str]:
    if real.status is not fake.status:
        yield f"really {real.status} {real.why}, in memory {fake.status} {fake.why}"
    elif real.status is Status.FAILED:
        sys.stderr.write(f"{real.action.describe()}: really {real.why}, in memory {fake.why}\n")


def main(roster_path: str, site_path: str, command: str = "", person: str = "") -> None:
    """Go on from plan to plan until one asks for nothing that was not tried."""
    site = parse_site(site_path, Path(site_path).read_bytes())
    roster = parse_roster(roster_path, Path(roster_path).read_bytes(), site, ())
    cut, uncut = ([person] if command == asked else [] for asked in ("cut", "uncut"))
    desired = desire(roster, site, cut=cut, uncut=uncut)
    tried: list[Action] = []
    found: list[str] = []
    scanner, executor = this_machine()
    while True:
        new = [action for action in make_plan(desired, scanner.observe(desired)).actions if action not in tried]
        if not new:
            break
        for action in new:
            tried.append(action)
            differing = compare(action, desired, scanner, executor)
            found += [f"{action.kind} {action.user} ({action.describe()}): {line}" for line in differing]
    kinds = Counter(action.kind for action in tried)
    sys.stdout.write(json.dumps({"kinds": kinds, "differences": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
