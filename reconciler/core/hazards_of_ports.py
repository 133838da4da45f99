"""Hazards of ports: held, shared, forgotten, open. One function a hazard; no I/O here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from reconciler.core.hazard_case import Case, Hazard, HazardKind
from reconciler.core.observed import Listener
from reconciler.core.plan_ports import holder_words, is_own, listens
from reconciler.core.site import instance_of, template_of
from reconciler.core.text import counted, listed, shell_word


def held_ports(case: Case) -> Iterator[Hazard]:
    """Find ports of services that something else listens on."""
    for name in sorted(case.people & case.desired.users.keys()):
        for service in case.desired.users[name].services.values():
            port = case.observed.sticky_ports.get((name, service.name))
            if port is None or not service.enabled:
                continue
            sharing = _units_sharing(port, case)
            strangers = [
                found
                for found in case.observed.listeners_by_port.get(port, ())
                if not is_own(found, name, service, case.observed) and found.unit not in sharing
            ]
            if strangers:
                yield Hazard(
                    HazardKind.PORT_HELD,
                    (name,),
                    f"port {port}, {service.name} of {name}, is held by {holder_words(strangers[0], case.observed)}",
                    f"{_end(strangers[0], port)}; or give {name} another port, {case.port_line(service.name)} in"
                    f" {shell_word(case.env_path((name, service.name)))}; then: rosterd",
                )


def _units_sharing(port: int, case: Case) -> set[str]:
    """Return the units of whose env files keep this port; that several do is a hazard of its own."""
    return {unit for name, service in case.holders[port] for unit in case.desired.services[service].instances(name)}


def _end(listener: Listener, port: int) -> str:
    """Return how to end what listens."""
    if listener.unit is not None and listener.unit.endswith((".service", ".socket")) and listener.user_unit is None:
        return f"systemctl stop -- {shell_word(listener.unit)}"
    if listener.pid is not None:
        return f"kill {listener.pid}"
    return f"see who it is: ss -ltnp 'sport = :{port}'"


def shared_ports(case: Case) -> Iterator[Hazard]:
    """Find ports that several env files keep."""
    for port, sharing in case.holders.items():
        if len(sharing) < 2 or not case.people & {name for name, _ in sharing}:  # noqa: PLR2004 (two)
            continue
        listening = [holder for holder in sharing if listens(holder, port, case.desired, case.observed)]
        moving = next((holder for holder in sharing if holder not in listening), sharing[-1])
        files = listed(f"{name} ({service}, {case.env_path((name, service))})" for name, service in sharing)
        who = f"; who listens there: {listed(name for name, _ in listening)}" if listening else ""
        units = " ".join(map(shell_word, case.desired.services[moving[1]].instances(moving[0])))
        yield Hazard(
            HazardKind.PORT_SHARED,
            tuple(sorted({name for name, _ in sharing})),
            f"port {port} stands in the env files of {files}{who}",
            f"{case.port_line(moving[1])} in {shell_word(case.env_path(moving))}; then: rosterd && systemctl restart"
            f" -- {units}",
        )


def wrong_ports(case: Case) -> Iterator[Hazard]:
    """Find services that listen elsewhere than requests are sent."""
    for name in sorted(case.people):
        for service in case.desired.services.values():
            port = case.observed.sticky_ports.get((name, service.name))
            for unit in service.instances(name) if port is not None else ():
                heard = {found.port for found in case.observed.listeners_by_unit.get(unit, ())}
                if heard and port not in heard:
                    yield Hazard(
                        HazardKind.WRONG_PORT,
                        (name,),
                        f"{unit} listens on {listed(heard)}, but {case.env_path((name, service.name))} says {port}",
                        f"when it suits {name}: systemctl restart -- {shell_word(unit)}",
                    )


def open_listeners(case: Case) -> Iterator[Hazard]:
    """Tell of instances by template, as it is their unit file that says where they listen, and of others by person."""
    open_ones = [listener for listener in case.observed.listeners if not listener.loopback]
    names = {uid: name for name, uid in case.uids.items()}
    by_template: dict[str, dict[str, int]] = defaultdict(dict)
    by_person: dict[str, set[int]] = defaultdict(set)
    for listener in open_ones:
        template = template_of(listener.unit) if listener.unit else ""
        if listener.unit and template in case.desired.templates:
            if (owner := instance_of(listener.unit)) in case.people:
                by_template[template][owner] = listener.port
        elif listener.uid in names:
            by_person[names[listener.uid]].add(listener.port)
    for template, ports in by_template.items():
        where = listed(f"{name} on {port}" for name, port in ports.items())
        yield Hazard(
            HazardKind.OPEN_LISTENER,
            tuple(sorted(ports)),
            f"{template} listens on an address that others than this machine reach: {where}",
            f"let ExecStart= bind 127.0.0.1: systemctl edit -- {shell_word(template)}; then restart each instance when"
            " it suits its person",
        )
    for name, held in by_person.items():
        yield Hazard(
            HazardKind.OPEN_LISTENER,
            (name,),
            f"a program of {name} listens on {counted(len(held), 'port')} that others than this machine reach:"
            f" {listed(held)}",
            f"see what it is: ss -ltnp {shell_word(' or '.join(f'sport = :{port}' for port in sorted(held)))}; let"
            f" {name} bind it to 127.0.0.1 and reach it by ssh -L",
        )
