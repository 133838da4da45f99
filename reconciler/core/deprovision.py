"""Who left between two rosters, and what there is to undo for each; for scripts."""

from __future__ import annotations

from typing import Any

from reconciler.core.roster import Roster

_REVERSIBLE = (
    "disable_instance",
    "unmap_dispatch",
    "remove_from_t3_group",
    "lock_login",
    "revoke_cluster_rbac",
)
_DESTRUCTIVE = ("userdel_archive",)


def dropped(old: Roster, new: Roster) -> list[str]:
    """Return the people of the old roster who are not on the new one, sorted."""
    return sorted(set(old.users) - set(new.users))


def deprovision_plan(old: Roster, new: Roster, *, destructive: bool) -> list[dict[str, Any]]:
    """Return the steps for each of them, in order; only those that cannot be undone are not reversible."""
    steps = [(kind, True) for kind in _REVERSIBLE]
    steps += [(kind, False) for kind in _DESTRUCTIVE] if destructive else []
    return [
        {"os_user": name, "kind": kind, "reversible": reversible}
        for name in dropped(old, new)
        for kind, reversible in steps
    ]
