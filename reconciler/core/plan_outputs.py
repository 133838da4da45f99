"""The generated maps: whose lines they are to hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import assert_never

from reconciler.core import outputs
from reconciler.core.actions import Phase, ReloadProxy, WriteOutput
from reconciler.core.desired import Desired, DesiredUser
from reconciler.core.findings import Finding, warning
from reconciler.core.observed import Observed, ProxyState
from reconciler.core.outputs import Route
from reconciler.core.plan_ports import PortPlan
from reconciler.core.ports import Holder
from reconciler.core.site import OutputKind


def mapped_users(observed: Observed) -> frozenset[str]:
    """Return everybody whom one of the maps on the host names."""
    return frozenset(route.user for kind, text in observed.outputs.items() for route in outputs.parse(kind, text))


def unreadable_outputs(observed: Observed) -> list[str]:
    """Return the paths of the maps on the host that cannot be read as what they are."""
    return [kind.path for kind, text in observed.outputs.items() if not outputs.is_readable(kind, text)]


def plan_outputs(
    desired: Desired, observed: Observed, refused: Collection[str], ports: PortPlan, leaving: Collection[str]
) -> list[WriteOutput]:
    """Plan the maps: first without the people who leave, then as the roster has it.

    People who are refused keep the lines that they have. Nothing is planned from ports or from
    maps that could not be read.
    """
    if observed.env_files is None:
        return []
    known = routed_ports(desired, {**observed.sticky_ports, **ports.ports})
    actions: list[WriteOutput] = []
    for kind in desired.outputs:
        if kind not in observed.outputs or not outputs.is_readable(kind, observed.outputs[kind]):
            continue
        now = observed.outputs[kind]
        proxy = desired.proxies.get(kind)
        unmapping = _unmapping(WriteOutput(kind, (), now, Phase.UNMAP, proxy), leaving, known)
        actions += [unmapping] if unmapping else []
        routes = tuple(_routes(kind, desired, refused, ports))
        change = WriteOutput(kind, routes, unmapping.text if unmapping else now, proxy=proxy)
        change = change.keeping(refused, known)
        actions += [change] if change.needed else []
    return actions


def plan_reloads(desired: Desired, observed: Observed) -> list[ReloadProxy]:
    """Plan to reload the proxies that may not have their map as it is."""
    states = observed.proxies
    return [ReloadProxy(kind, proxy) for kind, proxy in desired.proxies.items() if _state(kind, states).reload_due]


def absent_proxies(desired: Desired, observed: Observed) -> Iterator[Finding]:
    """Tell of the maps that are put in place without a check or a reload, as what is to do it is not there."""
    for kind, proxy in desired.proxies.items():
        state = _state(kind, observed.proxies)
        missing = [] if state.has_check else [f"{proxy.check[0]}, which is to check it"]
        missing += [] if state.has_unit else [f"{proxy.unit}, which is to be reloaded"]
        if missing:
            yield warning(
                None, f"{kind.path} is put in place without {' or '.join(missing)}: not on this machine (see proxies)"
            )


def _state(kind: OutputKind, states: Mapping[OutputKind, ProxyState]) -> ProxyState:
    return states.get(kind, ProxyState())


def routed_ports(desired: Desired, ports: Mapping[Holder, int]) -> dict[str, int | None]:
    """Return the routed port of everybody who has one, whether or not they are on the roster."""
    routed = {name for name, service in desired.services.items() if service.route}
    return {user: port for (user, service), port in ports.items() if service in routed}


def _unmapping(nobody: WriteOutput, leaving: Collection[str], known: Mapping[str, int | None]) -> WriteOutput | None:
    """Return the change of a map that takes out those who leave, where it has one; `nobody` would empty it."""
    routes = outputs.parse(nobody.output, nobody.before)
    if not any(route.user in leaving for route in routes):
        return None
    staying = tuple(
        route if route.port is not None else replace(route, port=known.get(route.user))
        for route in routes
        if route.user not in leaving
    )
    return replace(nobody, routes=staying)


def _routes(kind: OutputKind, desired: Desired, refused: Collection[str], ports: PortPlan) -> Iterator[Route]:
    for user in desired.users.values():
        if user.name in refused:
            continue
        port = _port_of(user, ports)
        match kind:
            case OutputKind.TTYD_USER_MAP:
                yield Route(user.identity, user.name, port)
            case OutputKind.TTYD_ADMINS:
                if user.admin:
                    yield Route("", user.name, None)
            case OutputKind.DISPATCH_JSON | OutputKind.NGINX_MAP | OutputKind.CADDY:
                service = user.routed
                if service and service.running and port and (user.name, service.name) not in ports.misrouted:
                    yield Route(user.identity, user.name, port)
            case _:
                assert_never(kind)


def _port_of(user: DesiredUser, ports: PortPlan) -> int | None:
    return ports.ports.get((user.name, user.routed.name)) if user.routed else None
