"""Reads the env files and the generated maps."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from reconciler.core.envfile import parse_env
from reconciler.core.observed import EnvFile
from reconciler.core.site import OutputKind, PortRule, Service
from reconciler.errors import ScanFailed
from reconciler.host import files


class OddFile(ScanFailed):
    """A folder, a FIFO or a device lies where a file belongs."""


def scan_env_files(services: Iterable[Service], root: Path = Path("/")) -> dict[tuple[str, str], EnvFile]:
    """Return the port variable of every env file there is, by service and user, whoever the user is.

    Raises `ScanFailed`, or PermissionError where the caller may not read one.
    """
    found: dict[tuple[str, str], EnvFile] = {}
    for service in services:
        if service.port is not None:
            for user, path in _env_paths(service.port, root):
                found[service.name, user] = _env_file(path, service.port.variable)
    return found


def scan_outputs(kinds: Iterable[OutputKind], root: Path = Path("/")) -> dict[OutputKind, str | None]:
    """Return the text of each generated map, None where it does not exist."""
    return {kind: _text(root / kind.path.lstrip("/")) for kind in kinds}


def _env_paths(rule: PortRule, root: Path) -> list[tuple[str, Path]]:
    folder = root / rule.folder.lstrip("/")
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 (a path for each takes as long as reading it)
    except FileNotFoundError:
        return []
    owners = ((rule.owner_of(name), name) for name in names)
    return [(owner, folder / name) for owner, name in owners if owner is not None]


def _env_file(path: Path, variable: str) -> EnvFile:
    try:
        data = _read(path)
    except OddFile as error:
        return EnvFile(exists=True, problem=str(error))
    if data is None:
        return EnvFile(exists=False)
    text = parse_env(data)
    value = text.variables.get(variable.encode())
    return EnvFile(
        exists=True,
        value=None if value is None else value.decode("utf-8", "replace"),
        open_ended=text.open_ended,
    )


def _text(path: Path) -> str | None:
    data = _read(path)
    return None if data is None else data.decode("utf-8", "replace")


def _read(path: Path) -> bytes | None:
    try:
        return files.read_bytes(path, follow=True)
    except PermissionError:
        raise
    except OSError as error:
        if error.errno == files.NOT_A_FILE:
            raise OddFile(f"{path} is not a regular file; put one there, or remove it") from error
        raise ScanFailed(f"{path}: {error.strerror}") from error
