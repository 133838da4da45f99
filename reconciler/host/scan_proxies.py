"""Reads what there is of the proxies that take one of the generated maps: files alone, no process, no bus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reconciler.core.observed import ProxyState
from reconciler.core.site import OutputKind, Proxy, template_of
from reconciler.host.scan_units import has_unit_file

RELOADS_DUE = Path("/run/rosterd/reload")
"""A file in it, named as an output: its proxy may not have the map as it is. Reboots empty it, and end the proxy."""


def scan_proxies(proxies: Mapping[OutputKind, Proxy], root: Path = Path("/")) -> dict[OutputKind, ProxyState]:
    """Return what there is of each proxy. Raises PermissionError where the caller may not look at `RELOADS_DUE`."""
    return {
        kind: ProxyState(
            reload_due=(root / str(RELOADS_DUE).lstrip("/") / kind).exists(),
            has_check=not proxy.check or (root / proxy.check[0].lstrip("/")).exists(),
            has_unit=proxy.unit is None or _is_there(proxy.unit, root),
        )
        for kind, proxy in proxies.items()
    }


def _is_there(unit: str, root: Path) -> bool:
    return has_unit_file(unit, root) or ("@" in unit and has_unit_file(template_of(unit), root))
