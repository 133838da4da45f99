"""Looks at the whole host once: every scanner, one `Observed`.

As root whatever cannot be read stops the run. Without root it is left as unknown and named in
`unseen`, so that a dry run shows what it can.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from reconciler.core.desired import Desired
from reconciler.core.drop_ins import slice_of
from reconciler.core.observed import EnvFile, Home, Listener, Login, Observed, Presence, Units
from reconciler.core.plan_accounts import home_of, managed_accounts
from reconciler.core.plan_cuts import concerned, id_spans
from reconciler.core.ports import port_number
from reconciler.core.site import PortRule, template_of
from reconciler.errors import ScanFailed
from reconciler.host import drop_ins, scan_accounts, scan_cgroups, scan_files, scan_ports, scan_units
from reconciler.host.bus import Systemd
from reconciler.host.scan_home_work import scan_home_work
from reconciler.host.scan_presence import Person, scan_presence
from reconciler.host.scan_proxies import scan_proxies
from reconciler.host.state import State

_T = TypeVar("_T")
_ETC = Path("/etc")
_SKEL = _ETC / "skel"


class Scanner:
    """Looks at this machine. It reads, and has nothing to change anything with."""

    def __init__(self, systemd: Systemd, state: State, *, closely: bool = False) -> None:
        """Ask `systemd` for units and `state` for the records.

        `closely`: also at what no plan needs, as the pids of people's own services, and their memory.
        """
        self._systemd = systemd
        self._state = state
        self._closely = closely
        self._unseen: list[str] = []

    def observe(self, desired: Desired) -> Observed:
        """Return what is there of all that `desired` touches. Raises `ScanFailed`."""
        self._unseen = []
        accounts = scan_accounts.scan_passwd(_ETC / "passwd")
        env_files = self._see(lambda: scan_files.scan_env_files(desired.services.values()), "the env files")
        last_run = self._see(self._state.last_run, "the record of the last run")
        intents = self._see(self._state.intents, "records of accounts being created") or {}
        logins = self._see(_scan_shadows, "shadow lines")
        seen = Observed(
            accounts=accounts,
            groups=scan_accounts.scan_group(_ETC / "group"),
            limits=scan_accounts.scan_limits(_ETC / "login.defs"),
            shadow=logins[0] if logins else None,
            shadow_groups=logins[1] if logins else None,
            subuids=scan_accounts.scan_subids(_ETC / "subuid"),
            subgids=scan_accounts.scan_subids(_ETC / "subgid"),
            intents={name: uid for name, (uid, _) in intents.items()},
            intent_gids={name: gid for name, (_, gid) in intents.items()},
            env_files=env_files,
            outputs=self._see(lambda: scan_files.scan_outputs(desired.outputs), "the maps") or {},
            proxies=self._see(lambda: scan_proxies(desired.proxies), "whether a proxy is to be reloaded") or {},
            units=self._with_drop_ins(scan_units.scan_units(self._systemd, desired.templates, last_run)),
            last_run=last_run,
            shell_exists=bool(self._see(Path(desired.shell).exists, "the shell")),
            listeners=_listeners(desired, env_files or {}, closely=self._closely),
            records=self._see(self._state.records, "records of people who were cut off"),
            home_work=self._see(lambda: scan_home_work(desired, accounts, self._state), "what is on record of homes"),
            now=int(time.time()),
        )
        people = set(desired.users) | managed_accounts(seen)
        presence, containers = self._presence(seen, desired)
        return replace(
            seen,
            units=_with_slices(seen, desired),
            homes=_homes(seen, people),
            skel_gaps=_skel_gaps(seen, people),
            presence=presence,
            containers=containers,
            memory=scan_cgroups.scan_memory(seen.units.states or ()) if self._closely else {},
            unseen=tuple(self._unseen),
        )

    def _with_drop_ins(self, units: Units) -> Units:
        texts = self._see(drop_ins.scan, "the drop-ins of limits")
        due = self._see(drop_ins.is_reload_due, "whether systemd is to be reloaded")
        return replace(units, drop_ins=texts, reload_due=bool(due))

    def _presence(self, seen: Observed, desired: Desired) -> tuple[Mapping[str, Presence], tuple[str, ...]]:
        """Look at what the people whom a cut concerns have running; on most machines, nobody."""
        accounts = [seen.accounts[name] for name in sorted(concerned(desired, seen))]
        people = [Person(account.name, account.uid, id_spans(account, seen)) for account in accounts]
        if not people:
            return {}, ()
        found = self._see(
            lambda: scan_presence(people, self._systemd, desired.templates, seen.now),
            "what people who leave have running",
        )
        return found or ({}, ())

    def _see(self, look: Callable[[], _T], what: str) -> _T | None:
        try:
            return look()
        except PermissionError as error:
            if os.geteuid() == 0:
                raise ScanFailed(f"{error.filename}: {error.strerror}") from error
            self._unseen.append(f"{what} ({error.filename}: {error.strerror})")
            return None
        except OSError as error:
            raise ScanFailed(f"{error.filename or what}: {error.strerror}") from error


def _scan_shadows() -> tuple[dict[str, Login], frozenset[str] | None]:
    """Read what root alone can of accounts and groups."""
    return scan_accounts.scan_shadow(_ETC / "shadow"), scan_accounts.scan_shadow_groups(_ETC / "gshadow")


def _homes(seen: Observed, concerned: Collection[str]) -> dict[str, Home]:
    """Look at homes; also where a new account would have its own, as somebody's files may lie there."""
    paths = {name: seen.accounts[name].home if name in seen.accounts else home_of(name) for name in concerned}
    return scan_accounts.scan_homes(paths)


def _skel_gaps(seen: Observed, concerned: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Look at what the homes of those being created lack of the skel."""
    created = [seen.accounts[name] for name in concerned if name in seen.intents and name in seen.accounts]
    return scan_accounts.scan_skel_gaps(_SKEL, created) if created else {}


def _with_slices(seen: Observed, desired: Desired) -> Units:
    """See which instances run in the slice of their user, of the people who have limits."""
    limited = [user for user in desired.users.values() if user.limits.settings and user.name in seen.accounts]
    if seen.units.states is None or not limited:
        return seen.units
    states = dict(seen.units.states)
    for user in limited:
        inside = scan_cgroups.units_in(slice_of(seen.accounts[user.name].uid))
        for unit in (unit for service in user.services.values() for unit in service.instances):
            if inside is not None and unit.endswith(".service") and unit in states and states[unit].active == "active":
                states[unit] = replace(states[unit], in_slice=unit in inside)
    return replace(seen.units, states=states)


def _listeners(
    desired: Desired, env_files: Mapping[tuple[str, str], EnvFile], *, closely: bool
) -> tuple[Listener, ...]:
    """Return the listening sockets; those on a port that a service has or could get come with their unit.

    Looked at `closely` they come with their pid too, and not only where somebody else holds the port.
    """
    ranges = [range(rule.base, rule.limit + 1) for rule in _port_rules(desired)]
    templates = desired.templates
    sticky = {port_number(file.value) for file in env_files.values() if file.value is not None}
    return scan_ports.scan_listeners(
        concerns=lambda port: port in sticky or any(port in span for span in ranges),
        is_instance=lambda unit: not closely and template_of(unit) in templates,
    )


def _port_rules(desired: Desired) -> list[PortRule]:
    return [service.port for service in desired.services.values() if service.port]
