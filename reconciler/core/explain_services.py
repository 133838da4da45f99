"""The services of one person and their lines in the maps, as attributes."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.core import outputs
from reconciler.core.actions import WriteOutput, WritePort
from reconciler.core.desired import DesiredUser
from reconciler.core.explanation import LEFT_ALONE, MAPS, UNSEEN, Attribute, Case, service_topic
from reconciler.core.observed import Listener
from reconciler.core.outputs import Route
from reconciler.core.provenance import DEFAULT
from reconciler.core.site import OutputKind, PortRule, Service, template_of

SWITCH, PORT, LEGACY = "switch", "port", "units of their own"
_NO_LINE = "no line"


def service_attributes(case: Case) -> Iterator[Attribute]:
    """Yield the switch, the port and the units of each service, in the catalogue's order."""
    if case.account is None and case.wanted is None:
        return
    for service in case.site.services.values():
        switch = _switch(case, service)
        yield switch
        if service.port is not None:
            yield _port(case, service, service.port, switch.why)
        for template, unit in zip(service.units, service.instances(case.name), strict=True):
            here = case.sources.of_site("services", service.name, "units", template)
            why = here if _is_running(case, service) else switch.why
            yield _unit(case, service, unit, why)
        if legacy := case.observed.legacy_units_of(case.name, service.name):
            wanted = "retired" if _is_enabled(case, service) else "theirs"
            why = case.sources.of_site("legacy_units", service.name)
            yield Attribute(service_topic(service.name), LEGACY, wanted, why, ", ".join(legacy))


def _is_enabled(case: Case, service: Service) -> bool:
    return case.wanted is not None and case.wanted.services[service.name].enabled


def _is_running(case: Case, service: Service) -> bool:
    return case.wanted is not None and case.wanted.services[service.name].running


def _switch(case: Case, service: Service) -> Attribute:
    topic = service_topic(service.name)
    if case.wanted is None:
        return Attribute(topic, SWITCH, LEFT_ALONE if case.left_alone else "off", case.why_out, "")
    why = case.here("services", service.name)
    if why == DEFAULT:
        why = case.sources.of_site("services", service.name, "enabled")
    if not _is_enabled(case, service):
        return Attribute(topic, SWITCH, "off", why, "")
    if case.wanted.parked:
        return Attribute(topic, SWITCH, "off while parked", case.here("parked"), "")
    return Attribute(topic, SWITCH, "on", why, "")


# --- ports ---


def _port(case: Case, service: Service, rule: PortRule, why_off: str) -> Attribute:
    kept = case.observed.sticky_ports.get((case.name, service.name))
    if kept is not None:
        wanted, why = str(kept), "kept"
    elif _is_enabled(case, service):
        wanted, why = _new_port(case, service, rule)
    else:
        wanted, why = "none", why_off
    heard = case.observed.listeners_by_port.get(kept, ()) if kept is not None else ()
    holders = [_holder(case, service, one) for one in heard]
    there = ", ".join([_env_file_words(case, service, rule), *holders])
    return Attribute(service_topic(service.name), PORT, wanted, why, there)


def _env_file_words(case: Case, service: Service, rule: PortRule) -> str:
    path = rule.path_for(case.name)
    if case.observed.env_files is None:
        return f"{UNSEEN}: {path}"
    file = case.observed.env_files.get((service.name, case.name))
    if file is None or not file.exists or (file.value is None and not file.problem):
        return "none"
    return f"{file.value} in {path}" if case.observed.sticky_ports.get((case.name, service.name)) else "not usable"


def _new_port(case: Case, service: Service, rule: PortRule) -> tuple[str, str]:
    """Return the port that a run would give, as far as it would give one."""
    changes = (one for one in case.plan.actions if isinstance(one, WritePort))
    given = next((one.port for one in changes if (one.user, one.service) == (case.name, service.name)), None)
    base = f"from {rule.base}, {case.sources.of_site('services', service.name, 'port', 'base')}"
    if case.observed.env_files is None:
        return "a port", f"kept, or {base}"
    if given is None:
        return "a port", base
    units = service.instances(case.name)
    if any(found.port == given and found.unit in units for found in case.observed.listeners):
        return str(given), "its unit listens there"
    return str(given), f"lowest {base}"


def _holder(case: Case, service: Service, found: Listener) -> str:
    pid = f"pid {found.pid}" if found.pid is not None else ""
    unit = found.unit or found.user_unit
    if unit in service.instances(case.name):
        return f"listening ({pid})" if pid else "listening"
    told = ", ".join(filter(None, [pid, f"user {case.observed.user_of(found.uid)}", unit]))
    return f"held by {told}"


# --- units ---


def _unit(case: Case, service: Service, unit: str, why: str) -> Attribute:
    wanted = "enabled, active" if _is_running(case, service) else "disabled, inactive"
    if case.left_alone:
        wanted = LEFT_ALONE
    return Attribute(service_topic(service.name), unit, wanted, why, _unit_words(case, unit))


def _unit_words(case: Case, unit: str) -> str:
    units = case.observed.units
    if units.states is None:
        return UNSEEN
    if template_of(unit) not in units.templates:
        return "no template installed"
    enabled = "enabled" if unit in units.enabled else "disabled"
    if unit in units.masked or template_of(unit) in units.masked:
        enabled = "masked"
    state = units.states.get(unit)
    return f"{enabled}, inactive" if state is None else f"{enabled}, {state.active} ({state.sub})"


# --- maps ---


def map_attributes(case: Case) -> Iterator[Attribute]:
    """Yield what each map has of the person, and what it would have after a run."""
    for kind in case.site.outputs:
        wanted, why = _line_wanted(case, kind)
        yield Attribute(MAPS, kind.path, wanted, why, _line_there(case, kind))


def _line_there(case: Case, kind: OutputKind) -> str:
    if kind not in case.observed.outputs:
        return UNSEEN
    text = case.observed.outputs[kind]
    if not outputs.is_readable(kind, text):
        return "not of its format"
    return "no such file" if text is None else _line_of(case, kind, text)


def _line_wanted(case: Case, kind: OutputKind) -> tuple[str, str]:
    """Return the line that a run would leave in a map, and what decides about it."""
    seen = case.observed
    if seen.env_files is None or kind not in seen.outputs or not outputs.is_readable(kind, seen.outputs[kind]):
        return "", "nothing is planned"
    changes = [one for one in case.plan.actions if isinstance(one, WriteOutput) and one.output is kind]
    line = _line_of(case, kind, changes[-1].text if changes else seen.outputs[kind])
    return line, _why_line(case, kind, is_there=line != _NO_LINE)


def _why_line(case: Case, kind: OutputKind, *, is_there: bool) -> str:
    if case.wanted is None:
        return "as it is" if is_there else case.why_out
    if kind is OutputKind.TTYD_ADMINS:
        return f"tier {case.wanted.tier}, {case.sources.of_site('tiers', case.wanted.tier, 'admin')}"
    if is_there:
        return case.here("authentik_user")
    return "nothing is done for them" if kind is OutputKind.TTYD_USER_MAP else _why_no_route(case, case.wanted)


def _why_no_route(case: Case, wanted: DesiredUser) -> str:
    routed = wanted.routed
    if wanted.parked:
        return f"parked, {case.here('parked')}"
    if routed is None:
        return f"no route, {case.sources.of_site('services')}"
    return f"{routed.name} has no port of theirs" if routed.running else f"{routed.name} is off"


def lines_of(name: str, kind: OutputKind, text: str | None) -> frozenset[Route]:
    """Return what a map's text has of one person."""
    return frozenset(route for route in outputs.parse(kind, text) if route.user == name)


def _line_of(case: Case, kind: OutputKind, text: str | None) -> str:
    found = sorted(lines_of(case.name, kind, text), key=lambda route: route.identity)
    return ", ".join(map(_line_words, found)) or _NO_LINE


def _line_words(route: Route) -> str:
    if not route.identity:
        return route.user
    return f"{route.identity} = {route.user}" if route.port is None else f"{route.identity} → {route.port}"
