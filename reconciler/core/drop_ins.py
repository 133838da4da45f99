"""rosterd's own drop-ins for units of the service manager: one file a unit, its text, and what it sets.

A person's limits are those of `user-UID.slice`, where logind puts their sessions (user@.service(5)); their services are
put there too, so that there is one ceiling for both. A drop-in and not SetUnitProperties(), which refuses to move a
service into another slice; and not a slice of the person's name, for `bob-smith.slice` lies below `bob.slice`
(systemd.slice(5)).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.core.site import Limits

FILE_NAME = "50-rosterd.conf"
FOLDER = "/etc/systemd/system"
_HEADER = "# Written by rosterd from the limits of a tier in /etc/rosterd/site.yaml; edits here are overwritten.\n"
_WORDS = {"MemoryMax": "memory_max", "CPUQuota": "cpu_quota", "TasksMax": "tasks_max", "Slice": "slice"}


def slice_of(uid: int) -> str:
    """Return the slice that logind puts the sessions of a user into."""
    return f"user-{uid}.slice"


def path_of(unit: str) -> str:
    """Return where a unit's drop-in lies."""
    return f"{FOLDER}/{unit}.d/{FILE_NAME}"


def limits_text(limits: Limits) -> str:
    """Return the drop-in of a slice."""
    return _text("Slice", limits.settings)


def placement_text(slice_name: str) -> str:
    """Return the drop-in that puts a service into a slice."""
    return _text("Service", {"Slice": slice_name})


def services_of(instances: Iterable[str]) -> tuple[str, ...]:
    """Return the services among these units, and those that the others start: a timer's, a socket's, a path's."""
    return tuple(dict.fromkeys(f"{unit.rpartition('.')[0]}.service" for unit in instances))


def is_written_by_rosterd(text: str) -> bool:
    """Say whether a drop-in is rosterd's: somebody else may give theirs the same name."""
    return text.startswith(_HEADER)


def shown(text: str | None) -> str:
    """Say what a drop-in sets, as in `memory_max 8G, tasks_max 500`; "none" for none."""
    return ", ".join(f"{_WORDS.get(key, key)} {value}" for key, value in _settings(text).items()) or "none"


def described(before: str | None, after: str | None) -> str:
    """Say what changes from one text of a drop-in to another, as in `memory_max 4G → 8G`."""
    old, new = _settings(before), _settings(after)
    changed = [key for key in (*old, *(key for key in new if key not in old)) if old.get(key) != new.get(key)]
    told = [f"{_WORDS.get(key, key)} {old.get(key, 'none')} → {new.get(key, 'none')}" for key in changed]
    return ", ".join(told) or ("nothing set → removed" if after is None else "edited by hand → as it was written")


def _text(section: str, settings: Mapping[str, str]) -> str:
    lines = "".join(f"{key}={value}\n" for key, value in settings.items())
    return f"{_HEADER}[{section}]\n{lines}"


def _settings(text: str | None) -> dict[str, str]:
    pairs = (line.partition("=") for line in (text or "").splitlines() if line[:1].isalpha())
    return {key.strip(): value.strip() for key, found, value in pairs if found}
