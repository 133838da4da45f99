"""One run: look, plan, guard, apply, look again.

The engine is level-triggered. It repeats until a look at the host asks for nothing that has not
been tried, and whether a change worked is decided by that look, not by an exit code. It is given
everything that touches the world: how to load the files, how to look, the executor, the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Protocol

from reconciler.core.actions import (
    DUE_IN_TIME,
    Action,
    HaltUnit,
    HoldJobs,
    Key,
    LockAccount,
    RetireUnits,
    RunUnit,
    SetLinger,
    TakeHomeStep,
    WriteOutput,
    WritePort,
)
from reconciler.core.desired import Desired, desire
from reconciler.core.guard import guard
from reconciler.core.observed import Observed
from reconciler.core.outcome import Executor, Outcome, Status
from reconciler.core.plan import Plan, judged, make_plan, only, put_off
from reconciler.core.site import Site
from reconciler.errors import RosterdError
from reconciler.inputs import Inputs

MAX_PASSES = 3
# Seconds. An edit, or a command such as `rosterd cut`, is not held up for longer by a service that takes its time.
_LONGEST_SLEEP = 1.0


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a run is for: everybody, or one person whom a command cuts off or lets in again.

    `allow_cuts` is how many people an administrator lets be cut off this once, None for what the guards say.
    `retry`: steps in homes that failed are tried again before their time.
    """

    allow_cuts: int | None = None
    retry: bool = False
    cut: str | None = None
    uncut: str | None = None

    @property
    def about_everybody(self) -> bool:
        """Whether it is not about one person alone."""
        return self.cut is None and self.uncut is None


EVERYBODY = Purpose()


class Host(Protocol):
    """Looks at the host."""

    def observe(self, desired: Desired) -> Observed:
        """Return what is there of all that `desired` touches."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run is given.

    `load` reads and checks the files, `digest` only tells whether they changed. `is_wanted`: somebody waits for this
    run to end.
    """

    load: Callable[[], Inputs]
    digest: Callable[[], str]
    host: Host
    executor: Executor
    sleep: Callable[[float], None]
    is_wanted: Callable[[], bool]
    planned: Callable[[Plan], None]
    ended: Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Look:
    """What was wanted and what was there at one moment, and the plan as the guards let it through."""

    desired: Desired
    observed: Observed
    plan: Plan


@dataclass(slots=True)
class Report:
    """What a run did. `people` are on the roster, None where it was about one person.

    `last` is the last look, `site` the policy it went by, `digest` that of the files. `drift` is how many changes the
    first look asked for, without those that come due as time passes.

    `failed` are the actions that did not work, and not at a further try either, by kind and key.

    `unmet` are changes that did not take effect although nothing failed. `stopped` is set where the run could
    not go on after it had begun: a file edited meanwhile is refused, or a further look failed.
    """

    people: int | None
    last: Look
    site: Site
    digest: str = ""
    drift: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    failed: dict[tuple[str, Key], Action] = field(default_factory=dict)
    unmet: list[Action] = field(default_factory=list)
    stopped: RosterdError | None = None

    @property
    def plan(self) -> Plan:
        """The plan of the last look."""
        return self.last.plan

    def count(self, status: Status) -> int:
        """Return how many actions ended this way."""
        return sum(outcome.status is status for outcome in self.outcomes)

    @property
    def has_problems(self) -> bool:
        """Whether something failed, did not take effect, or stands in the way."""
        return bool(self.unmet or self.failed) or self.plan.has_problems


def look(host: Host, inputs: Inputs, purpose: Purpose = EVERYBODY) -> Look:
    """Look at the host once."""
    cut, uncut = ([name] if name else [] for name in (purpose.cut, purpose.uncut))
    desired = desire(inputs.roster, inputs.site, cut=cut, uncut=uncut, retry=purpose.retry)
    observed = host.observe(desired)
    plan = make_plan(desired, observed)
    for name in (*cut, *uncut):
        plan = only(plan, name)
    return Look(desired, observed, guard(plan, inputs.site.guards, 1 if cut or uncut else purpose.allow_cuts))


def reconcile(surroundings: Surroundings, purpose: Purpose = EVERYBODY) -> Report:
    """Make the host agree with the files. Raises `RosterdError` where nothing could be begun."""
    inputs = surroundings.load()
    first = look(surroundings.host, inputs, purpose)
    drift = sum(not isinstance(action, DUE_IN_TIME) for action in first.plan.actions)
    report = Report(_people(inputs, purpose), first, inputs.site, inputs.digest, drift)
    try:
        _repeat(surroundings, inputs, purpose, report)
    except RosterdError as error:
        report.stopped = error
    return report


def _people(inputs: Inputs, purpose: Purpose) -> int | None:
    return len(inputs.roster.users) if purpose.about_everybody else None


def _repeat(surroundings: Surroundings, inputs: Inputs, purpose: Purpose, report: Report) -> None:
    """Converge, and again while the files were edited meanwhile, a few times at most."""
    for passes_left in reversed(range(MAX_PASSES)):
        surroundings.planned(report.plan)
        _converge(surroundings, inputs, purpose, report)
        # systemd drops a path unit's trigger that comes while the service runs.
        if not passes_left or surroundings.digest() == inputs.digest:
            break
        inputs = surroundings.load()
        report.people, report.site, report.digest = _people(inputs, purpose), inputs.site, inputs.digest
        report.last = look(surroundings.host, inputs, purpose)


def _converge(surroundings: Surroundings, inputs: Inputs, purpose: Purpose, report: Report) -> None:
    """Apply plan after plan until one asks for nothing new. Most runs need two looks."""
    report.failed.clear()  # by a run of files that were edited since
    afterwards = replace(purpose, retry=False)  # so that what failed again is told as what rests
    run = _Applying(surroundings, report)
    patience = full_patience = float(inputs.site.settle + inputs.site.listen)
    for _ in range(MAX_PASSES):
        untried = run.untried(report.plan)
        if not untried and (not report.plan.starting or _is_urgent(surroundings, inputs)):
            break
        if untried:
            run.apply(untried)
            if any(isinstance(action, RunUnit) and action.start for action in untried):
                _rest(surroundings, inputs, inputs.site.settle)
                patience = full_patience  # what an earlier look gave up on is not waited for again
            report.last = look(surroundings.host, inputs, afterwards)
        report.last, patience = _when_judged(surroundings, inputs, afterwards, report.last, patience)
    if report.plan.starting:
        report.last = replace(report.last, plan=put_off(report.plan))
    report.unmet = run.unmet(report.plan)


def _is_urgent(surroundings: Surroundings, inputs: Inputs) -> bool:
    """Say whether something else is to be done that may be a cut: a command waits, or the files were edited."""
    return surroundings.is_wanted() or surroundings.digest() != inputs.digest


def _when_judged(
    surroundings: Surroundings, inputs: Inputs, purpose: Purpose, last: Look, patience: float
) -> tuple[Look, float]:
    """Look again until every service that has just been started is known to be well or not.

    It takes no longer than `patience`, in seconds; what is left of that is returned too. Where something else comes up
    they are left to the next run.
    """
    while last.plan.starting and patience > 0:
        wait = min(service.wait for service in last.plan.starting)
        if not _rest(surroundings, inputs, wait):
            return last, patience
        patience -= wait
        last = look(surroundings.host, inputs, purpose)
    return replace(last, plan=judged(last.plan)), patience


def _rest(surroundings: Surroundings, inputs: Inputs, seconds: float) -> bool:
    """Let time pass; return early, and False, where a command waits for this run, or the files were edited."""
    while seconds > 0:
        if _is_urgent(surroundings, inputs):
            return False
        surroundings.sleep(min(seconds, _LONGEST_SLEEP))
        seconds -= _LONGEST_SLEEP
    return True


class _Applying:
    """Applies plans phase by phase, and remembers what was tried and what failed."""

    def __init__(self, surroundings: Surroundings, report: Report) -> None:
        self._surroundings = surroundings
        self._report = report
        self._failed = report.failed
        self._tried: set[object] = set()
        self._starts: dict[str, set[object]] = {}

    def untried(self, plan: Plan) -> list[Action]:
        """Return what this run has not tried yet and nothing that failed stands in the way of.

        What failed is tried again if a further look asks for it in another form: a uid that was taken
        meanwhile gives way to the next one.
        """
        wanted = self._reduced(plan)
        return [
            action for action in wanted if _identity(action) not in self._tried and not self._blocker(action.key[:-1])
        ]

    def unmet(self, plan: Plan) -> list[Action]:
        """Return what a look asks for although it was tried and did not fail.

        A home is its owner's: that something in it changes again, or is in the way, is no failure of the run.
        """
        return [
            action
            for action in self._reduced(plan)
            if not isinstance(action, TakeHomeStep) and not self._blocker(action.key)
        ]

    def apply(self, actions: Iterable[Action]) -> None:
        """Carry out actions in the order of their phases."""
        for _, group in groupby(actions, key=lambda action: action.phase):
            # Reduced again: somebody may have failed in a phase before.
            batch = [self._for_failed(action, self._report.plan) for action in group]
            possible = list(self._possible(action for action in batch if action is not None))
            for outcome in self._surroundings.executor.apply(possible):
                self._note(outcome)

    def _possible(self, actions: Iterable[Action]) -> Iterator[Action]:
        for action in actions:
            if blocker := self._blocker(action.key[:-1]):
                self._note(Outcome(action, Status.SKIPPED, f"{' '.join(blocker)} failed before"))
            else:
                identity = _identity(action)
                self._tried.add(identity)
                if isinstance(action, RunUnit):
                    self._starts.setdefault(action.user, set()).add(identity)
                yield action

    def _blocker(self, key: Key) -> Key | None:
        failed = {action.key for action in self._failed.values()}
        return next((key[:size] for size in range(1, len(key) + 1) if key[:size] in failed), None)

    def _note(self, outcome: Outcome) -> None:
        self._report.outcomes.append(outcome)
        match outcome.status:
            case Status.FAILED:
                self._failed[outcome.action.kind, outcome.action.key] = outcome.action
            case Status.DONE:
                self._failed.pop((outcome.action.kind, outcome.action.key), None)
                if isinstance(outcome.action, _HELD_SHUT):
                    # Until a person's processes have ended they can open again what was closed before.
                    self._tried.discard(outcome.action)
                if isinstance(outcome.action, TakeHomeStep):
                    self._allow_starts(outcome.action.user)
            case Status.SKIPPED:
                pass
        self._surroundings.ended(outcome)

    def _allow_starts(self, user: str) -> None:
        """Let the person's services be started once more: what they lacked may be in the home now."""
        self._tried -= self._starts.pop(user, set())

    def _reduced(self, plan: Plan) -> list[Action]:
        reduced = (self._for_failed(action, plan) for action in plan.actions)
        return [action for action in reduced if action is not None]

    def _for_failed(self, action: Action, plan: Plan) -> Action | None:
        """Leave the map lines of people whose account or port failed as they are."""
        if not isinstance(action, WriteOutput):
            return action
        failed = self._failed.values()
        unmapped = {one.key[0] for one in failed if len(one.key) == 1 or isinstance(one, WritePort)}
        reduced = action.keeping(unmapped, dict(plan.routed_ports))
        return reduced if reduced.needed else None


_HELD_SHUT = (HoldJobs, LockAccount, SetLinger)
_ONCE = (RunUnit, HaltUnit, RetireUnits, TakeHomeStep)


def _identity(action: Action) -> object:
    """Return what makes two actions one try: a unit is started, a home changed once a run, however it looks."""
    return (action.kind, action.key) if isinstance(action, _ONCE) else action
