"""What is read of the proxies: files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core.observed import ProxyState
from reconciler.core.site import OutputKind, Proxy
from reconciler.host.scan_proxies import RELOADS_DUE, scan_proxies

KIND = OutputKind.NGINX_MAP


def put(root: Path, path: str) -> None:
    """Make an empty file below a root."""
    (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (root / path.lstrip("/")).touch()


def look(root: Path, proxy: Proxy) -> ProxyState:
    return scan_proxies({KIND: proxy}, root)[KIND]


@pytest.mark.parametrize(
    "unit",
    [
        "/usr/lib/systemd/system/nginx.service",
        "/etc/systemd/system/nginx.service",
        "/run/systemd/generator.late/nginx.service",
    ],
)
def test_a_program_and_a_unit_that_are_there_are_found(tmp_path: Path, unit: str) -> None:
    proxy = Proxy(("/usr/sbin/nginx", "-t"), "nginx.service")
    assert look(tmp_path, proxy) == ProxyState(has_check=False, has_unit=False)
    put(tmp_path, "/usr/sbin/nginx")
    put(tmp_path, unit)
    assert look(tmp_path, proxy) == ProxyState()


def test_an_instance_is_there_with_its_template(tmp_path: Path) -> None:
    put(tmp_path, "/etc/systemd/system/nginx@.service")
    assert look(tmp_path, Proxy(unit="nginx@front.service")).has_unit


def test_what_the_site_leaves_out_is_not_missed(tmp_path: Path) -> None:
    assert look(tmp_path, Proxy()) == ProxyState()


def test_a_reload_is_due_where_a_file_says_so(tmp_path: Path) -> None:
    put(tmp_path, f"{RELOADS_DUE}/caddy")
    assert not look(tmp_path, Proxy()).reload_due
    put(tmp_path, f"{RELOADS_DUE}/nginx-map")
    assert look(tmp_path, Proxy()).reload_due
