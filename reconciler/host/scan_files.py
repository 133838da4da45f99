"""Reads the env files and the generated maps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from reconciler.core.envfile import EnvText, parse_env
from reconciler.core.observed import EnvFile
from reconciler.core.site import OutputKind, Service
from reconciler.errors import ScanFailed
from reconciler.host import files


class OddFile(ScanFailed):
    """A folder, a FIFO or a device lies where a file belongs."""


def scan_env_files(services: Iterable[Service], root: Path = Path("/")) -> dict[tuple[str, str], EnvFile]:
    """Return the port variable of every env file there is, by service and user, whoever the user is.

    Raises `ScanFailed`, or PermissionError where the caller may not read one.
    """
    rules = {service.name: service.port for service in services if service.port is not None}
    found: dict[tuple[str, str], EnvFile] = {}
    for folder in sorted({rule.folder for rule in rules.values()}):
        here = {service: rule for service, rule in rules.items() if rule.folder == folder}
        for path, name in _listing(root / folder.lstrip("/")):
            # playwright-bob.env is bob's, and would be playwright-bob's as well: it is read once for both.
            owners = ((service, rule.owner_of(name), rule.variable) for service, rule in here.items())
            variables = {(service, owner): variable for service, owner, variable in owners if owner is not None}
            if variables:
                found |= _env_file(path, variables)
    return found


def scan_outputs(kinds: Iterable[OutputKind], root: Path = Path("/")) -> dict[OutputKind, str | None]:
    """Return the text of each generated map, None where it does not exist."""
    return {kind: _text(root / kind.path.lstrip("/")) for kind in kinds}


def _listing(folder: Path) -> list[tuple[str, str]]:
    """Return path and name of what lies in a folder; nothing does where it does not exist."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 (a Path for each takes as long as reading it)
    except FileNotFoundError:
        return []
    return [(f"{folder}/{name}", name) for name in names]


def _env_file(path: str, variables: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], EnvFile]:
    """Return what a file says of each of these variables."""
    try:
        data = _read(path)
    except OddFile as error:
        return dict.fromkeys(variables, EnvFile(exists=True, problem=str(error)))
    if data is None:
        return dict.fromkeys(variables, EnvFile(exists=False))
    text = parse_env(data)
    return {
        holder: EnvFile(exists=True, value=_value(text, variable), open_ended=text.open_ended)
        for holder, variable in variables.items()
    }


def _value(text: EnvText, variable: str) -> str | None:
    value = text.variables.get(variable.encode())
    return None if value is None else value.decode("utf-8", "replace")


def _text(path: Path) -> str | None:
    data = _read(path)
    return None if data is None else data.decode("utf-8", "replace")


def _read(path: Path | str) -> bytes | None:
    try:
        return files.read_bytes(path, follow=True)
    except PermissionError:
        raise
    except OSError as error:
        if error.errno == files.NOT_A_FILE:
            raise OddFile(f"{path} is not a regular file; put one there, or remove it") from error
        raise ScanFailed(f"{path}: {error.strerror}") from error
