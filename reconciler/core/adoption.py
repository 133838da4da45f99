"""`rosterd adopt`: which accounts may be taken over."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.core.actions import Action, Adopt, CreateGroup
from reconciler.core.desired import Desired
from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import Observed
from reconciler.core.plan_accounts import is_managed
from reconciler.errors import UnknownName


def plan_adoption(wanted: Sequence[str], desired: Desired, observed: Observed) -> list[Action]:
    """Return what marks these accounts as managed; nothing for those that are already.

    Raises `UnknownName`, with all reasons, if any of them cannot be meant.
    """
    wrong = [why for name in wanted if (why := _why_not(name, desired, observed))]
    if wrong:
        raise UnknownName("; ".join(wrong))
    new = [name for name in dict.fromkeys(wanted) if not is_managed(observed, name)]
    actions: list[Action] = [Adopt(name, observed.accounts[name].uid, MANAGED_GROUP) for name in new]
    if actions and MANAGED_GROUP not in observed.groups:
        actions.insert(0, CreateGroup(MANAGED_GROUP))
    return actions


def _why_not(name: str, desired: Desired, observed: Observed) -> str | None:
    if name not in desired.users:
        return f"'{name}' is not on the roster; put them there first, else the next run would cut them off"
    if name not in observed.accounts:
        return f"'{name}' has no account on this machine; a run creates it"
    return None
