"""What `rosterd explain NAME` tells, as values: each attribute of a person, and what it is told from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.core.actions import Action
from reconciler.core.desired import Desired, DesiredUser
from reconciler.core.findings import Finding
from reconciler.core.observed import Account, Observed
from reconciler.core.plan import Plan
from reconciler.core.plan_accounts import is_admin, managed_accounts
from reconciler.core.plan_cuts import commanded, misrecorded, recorded
from reconciler.core.provenance import Sources
from reconciler.core.records import CutRecord, Tombstone
from reconciler.core.roster import Roster, User
from reconciler.core.site import Site
from reconciler.core.status import AccountState

Spot = tuple[str, str]
"""Where an attribute stands: its topic, and its name there."""

ROSTER, ACCOUNT, GROUPS, MAPS, HOME, LEAVING = "roster", "account", "groups", "maps", "home steps", "leaving"
UNSEEN = "not seen"
THEIRS = "theirs"
LEFT_ALONE = "left alone"
CREATION = "set at creation only"


def service_topic(service: str) -> str:
    """Return the topic under which a service's attributes stand."""
    return f"service {service}"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of one person. `wanted` and `there` are "" where there is nothing to want, or to look at.

    `why` names the place that says so. `actions` are what a run would change of it, `findings` what stands in the way.
    """

    topic: str
    name: str
    wanted: str
    why: str
    there: str
    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def spot(self) -> Spot:
        """Where it stands."""
        return (self.topic, self.name)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one person. `because` says in words how they stand and what brought it, `remedy` the way out.

    `held` is why a guard keeps them from being cut off, `unseen` what could not be read, `stopped` why a run would end
    before it has changed anything; each empty where it is not so.
    """

    name: str
    state: AccountState
    because: str
    remedy: str
    attributes: tuple[Attribute, ...]
    held: str = ""
    unseen: tuple[str, ...] = ()
    stopped: str = ""

    @property
    def actions(self) -> Iterator[Action]:
        """What a run would do for this person."""
        return (action for attribute in self.attributes for action in attribute.actions)

    @property
    def findings(self) -> Iterator[Finding]:
        """What a run would tell of this person."""
        return (finding for attribute in self.attributes for finding in attribute.findings)


@dataclass(frozen=True, slots=True)
class Case:
    """One person and all that is known of them: what an explanation is made from.

    `entry` is theirs on the roster; `wanted` what comes of it, None also where a command cuts them off. `plan` is that
    of the whole machine, as the guards let it through.
    """

    name: str
    entry: User | None
    wanted: DesiredUser | None
    site: Site
    desired: Desired
    observed: Observed
    plan: Plan
    sources: Sources

    @classmethod
    def of(  # noqa: PLR0913 (all that is known meets here)
        cls, name: str, roster: Roster, site: Site, desired: Desired, observed: Observed, plan: Plan, sources: Sources
    ) -> Case:
        """Gather what concerns one person."""
        wanted = None if name in commanded(desired, observed) else desired.users.get(name)
        return cls(name, roster.users.get(name), wanted, site, desired, observed, plan, sources)

    @property
    def account(self) -> Account | None:
        """Their account, None where there is none."""
        return self.observed.accounts.get(self.name)

    @property
    def record(self) -> CutRecord | None:
        """The record of their cut, None where they are not on record as cut off, or another account is."""
        return self.observed.on_record.cuts[self.name] if self.name in recorded(self.observed) else None

    @property
    def stone(self) -> Tombstone | None:
        """The record of their deletion, None where there is none."""
        return self.observed.on_record.tombstones.get(self.name)

    @property
    def left_alone(self) -> str:
        """Why an account that the roster does not have is not cut off all the same, "" where it is."""
        if self.wanted is not None or self.account is None or self.record is not None:
            return ""
        if self.name in misrecorded(self.observed):
            return "the record is another's"
        if self.name not in managed_accounts(self.observed):
            return "not managed"
        return "an administrator" if is_admin(self.desired, self.observed, self.name) else ""

    @property
    def is_leaving(self) -> bool:
        """Whether they are to be cut off, or are already; whoever is deleted is not."""
        return self.wanted is None and self.stone is None and self.account is not None and not self.left_alone

    @property
    def why_out(self) -> str:
        """What decides about who has nothing to get here."""
        if self.left_alone:
            return self.left_alone
        if self.stone is not None:
            return "by rosterd destroy"
        return f"not in {self.sources.roster_name}" if self.entry is None else "cut off by command"

    def here(self, *path: str) -> str:
        """Say where the roster has their entry, or one value of it."""
        return self.sources.of_user(self.name, *path)
