"""Runs of the engine on the host in memory, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from reconciler.core.actions import Action
from reconciler.core.outcome import Outcome, Status
from reconciler.core.plan import Plan
from reconciler.core.roster import Roster
from reconciler.core.site import Site
from reconciler.engine import EVERYBODY, Purpose, Report, Surroundings, reconcile
from reconciler.inputs import Inputs
from tests.unit.facts import SITE
from tests.unit.memory_host import MemoryHost

MOST_SLEEPS = 1000


@dataclass
class Run:
    """One run and everything it was heard to do. `is_wanted` says whether a command waits for its end."""

    host: MemoryHost
    rosters: list[Roster]
    site: Site = SITE
    purpose: Purpose = EVERYBODY
    loaded: int = 0
    sleeps: list[float] = field(default_factory=list)
    shown: list[Plan] = field(default_factory=list)
    ended: list[Outcome] = field(default_factory=list)
    is_wanted: Callable[[], bool] = lambda: False

    def go(self) -> Report:
        """Reconcile. Each further roster is an edit of the file while the run is going."""
        return reconcile(
            Surroundings(
                load=self._load,
                digest=lambda: str(min(self.loaded + 1, len(self.rosters))),
                host=self.host,
                executor=self.host,
                is_wanted=self.is_wanted,
                sleep=self._sleep,
                planned=self.shown.append,
                ended=self.ended.append,
            ),
            self.purpose,
        )

    def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        assert len(self.sleeps) < MOST_SLEEPS, "the run does not end"
        self.host.sleep(seconds)

    def _load(self) -> Inputs:
        roster = self.rosters[min(self.loaded, len(self.rosters) - 1)]
        self.loaded += 1
        return Inputs(roster, self.site, str(min(self.loaded, len(self.rosters))))


def run(host: MemoryHost, roster: Roster, site: Site = SITE, allow_cuts: int | None = None) -> Report:
    """Reconcile the host with one roster."""
    return Run(host, [roster], site, Purpose(allow_cuts=allow_cuts)).go()


def command(host: MemoryHost, roster: Roster, purpose: Purpose, site: Site = SITE) -> Report:
    """Make a run about one person: `rosterd cut`, which reads no roster, or `rosterd uncut`."""
    return Run(host, [Roster({}) if purpose.cut else roster], site, purpose).go()


def kinds(report: Report, status: Status, user: str | None = None) -> list[str]:
    """Return the kinds of a user's actions that ended so."""
    return [
        outcome.action.kind for outcome in report.outcomes if outcome.status is status and outcome.action.user == user
    ]


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing catches it."""


class KilledAfter:
    """An executor that is killed after a number of actions."""

    def __init__(self, host: MemoryHost, actions: int) -> None:
        """Carry out `actions` actions on `host`, then be killed."""
        self._host = host
        self._left = actions

    def apply(self, actions: Sequence[Action]) -> Iterator[Outcome]:
        """Carry out what is left to this executor."""
        for action in actions:
            if not self._left:
                raise Killed
            self._left -= 1
            yield from self._host.apply([action])


def run_killed(host: MemoryHost, roster: Roster, actions: int, site: Site = SITE, purpose: Purpose = EVERYBODY) -> bool:
    """Reconcile, but be killed after some actions; return whether the run ended before that."""
    inputs = Inputs(roster, site, "")
    nothing: Callable[[object], None] = lambda _: None  # noqa: E731 (two fields take it)
    try:
        killed = KilledAfter(host, actions)
        reconcile(
            Surroundings(lambda: inputs, lambda: "", host, killed, host.sleep, lambda: False, nothing, nothing), purpose
        )
    except Killed:
        return False
    return True
