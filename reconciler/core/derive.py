"""The desired state as JSON, for scripts; from the roster and given ports alone, never from the host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reconciler.core import outputs
from reconciler.core.desired import Desired, desire
from reconciler.core.outputs import Route
from reconciler.core.ports import allocate
from reconciler.core.roster import Roster
from reconciler.core.site import OutputKind, Site

Ports = Mapping[str, int]
PLAYWRIGHT = "playwright"


def parse_ports(text: str) -> Ports:
    """Read a JSON object of os_user to port; raises ValueError saying what is wrong with it."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from error
    fits = isinstance(table, dict) and all(
        isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= 65535  # noqa: PLR2004 (TCP's last)
        for port in table.values()
    )
    if not fits:
        raise ValueError('must be a JSON object of os_user to port, as in {"alice": 3773}')
    return dict(table)


def derive(roster: Roster, site: Site, given: Mapping[str, Ports]) -> dict[str, Any]:
    """Return the document that `rosterd derive` prints.

    `given` are the sticky ports by service. A person who has none gets the lowest from the base that no
    person of the roster was given. Raises ValueError where two people were given one port, or where no port is
    left for somebody.
    """
    desired = desire(roster, site)
    ports = _all_ports(desired, given)
    routed = next((service.name for service in desired.services.values() if service.route), "")
    routes = {name: Route(user.identity, name, ports.get(routed, {}).get(name)) for name, user in desired.users.items()}
    dispatched = [
        route
        for name, route in routes.items()
        if route.port is not None and (service := desired.users[name].routed) and service.running
    ]
    return {
        "accounts": {user.name: _account(desired, roster, user.name) for user in roster.users.values()},
        "dispatch": {route.identity: {"os_user": route.user, "port": route.port} for route in dispatched},
        "ports": ports.get(routed, {}),
        "playwright_ports": ports.get(PLAYWRIGHT, {}),
        "ttyd_user_map": outputs.render(OutputKind.TTYD_USER_MAP, routes.values()),
    }


def _account(desired: Desired, roster: Roster, name: str) -> dict[str, Any]:
    user = roster.users[name]
    return {
        "os_user": name,
        "tier": user.tier,
        "shell": desired.shell,
        "login_locked": True,
        "groups": list(desired.users[name].groups),
        "code_layout": user.code_layout.value,
        "repos": list(user.repos),
    }


def _all_ports(desired: Desired, given: Mapping[str, Ports]) -> dict[str, dict[str, int]]:
    """Return, by service, the port of everybody who was given one or has the service switched on."""
    kept = {
        service: {user: port for user, port in ports.items() if user in desired.users}
        for service, ports in given.items()
    }
    taken = set(_owners(kept))
    result: dict[str, dict[str, int]] = {}
    for name, service in desired.services.items():
        if service.port is None:
            continue
        ports = dict(kept.get(name, {}))
        without = [
            user.name for user in desired.users.values() if user.services[name].enabled and user.name not in ports
        ]
        for user, port in allocate(service.port, without, taken).items():
            if port is None:
                raise ValueError(f"no port is left between {service.port.base} and {service.port.limit} for {user}")
            ports[user] = port
        result[name] = ports
    return result


def _owners(given: Mapping[str, Ports]) -> Mapping[int, str]:
    """Return who has each given port; raises ValueError where two people have one."""
    owners: dict[int, str] = {}
    for ports in given.values():
        for user, port in ports.items():
            if owners.setdefault(port, user) != user:
                raise ValueError(f"port {port} is given to {owners[port]} and to {user}; requests would go astray")
    return owners
