"""Hazards of files: what others can read, what is theirs and looks like a person's, what nobody has any more.

One function a hazard; no I/O here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from reconciler.core.hazard_case import Case, Hazard, HazardKind, have
from reconciler.core.observed import HomeKind, Observed
from reconciler.core.sightings import SharedPlace, named_after, words_for
from reconciler.core.site import instance_of, template_of
from reconciler.core.text import counted, listed, shell_word

_OTHERS = 0o007
_GROUP = 0o070
# Programs that keep their sockets in a folder of this name and the person's name or uid, and make do with one that is
# there already. The services of the site are taken for such programs too.
_PROGRAMS = ("claude", "codex", "tmux")


def readable_secrets(case: Case) -> Iterator[Hazard]:
    """Find files that may hold secrets and that others can read or change."""
    by_look: dict[tuple[int, int, int], list[str]] = defaultdict(list)
    for file in case.seen.secrets:
        if file.uid != 0 or file.mode & _OTHERS or (file.mode & _GROUP and file.gid != 0):
            by_look[file.uid, file.gid, file.mode].append(file.path)
    for (uid, gid, mode), paths in by_look.items():
        files = " ".join(map(shell_word, paths))
        yield Hazard(
            HazardKind.READABLE_SECRET,
            (),
            f"{have(paths, 'file')} mode {mode:o} and {_owner(uid, gid, case.observed)}, not 600 and root:root:"
            f" {listed(paths)}",
            f"chown root:root -- {files} && chmod 600 -- {files}; then renew what was in there and others could read",
        )


def _owner(uid: int, gid: int, observed: Observed) -> str:
    group = next((group.name for group in observed.groups.values() if group.gid == gid), str(gid))
    return f"owner {observed.user_of(uid)}:{group}"


def foreign_sockets(case: Case) -> Iterator[Hazard]:
    """Find sockets that a person, or their agent, could take for their own."""
    words = words_for(case.uids)
    for place in case.seen.shared:
        base = place.path.rpartition("/")[2]
        meant = named_after(base, words)
        # System accounts have their sockets in /tmp too, with numbers in their names.
        if not meant or place.uid < case.observed.limits.uid_min or case.observed.names_by_uid.get(place.uid) in meant:
            continue
        if place.is_socket or place.sockets or _is_folder_of_program(base, meant, case):
            yield _foreign(place, sorted(meant), case)


def _is_folder_of_program(base: str, meant: Iterable[str], case: Case) -> bool:
    """Say whether a program of these people would take a folder of this name for its own."""
    programs = "|".join(map(re.escape, (*_PROGRAMS, *case.desired.services)))
    owners = "|".join(re.escape(word) for name in meant for word in (name, str(case.uids[name])))
    return re.fullmatch(rf"\.?(?:{programs})[-_.](?:{owners})", base) is not None


def _foreign(place: SharedPlace, meant: list[str], case: Case) -> Hazard:
    owner = case.observed.user_of(place.uid)
    if place.is_socket:
        what, remove = "is a socket", "rm"
    elif place.sockets:
        what, remove = (
            f"is a folder with {counted(len(place.sockets), 'socket')} in it ({listed(place.sockets)})",
            "rm -r",
        )
    else:
        what, remove = "is a folder", "rm -r"
    return Hazard(
        HazardKind.FOREIGN_SOCKET,
        tuple(meant),
        f"{place.path} {what} of {owner} (uid {place.uid}, mode {place.mode:o}), and is named after"
        f" {' and '.join(meant)}",
        f"ask {owner} what it is; if nothing that {' and '.join(meant)} trusts: {remove} -- {shell_word(place.path)}",
    )


def readable_homes(case: Case) -> Iterator[Hazard]:
    """Find homes that whoever is on this machine can enter or list."""
    homes = {
        name: (case.observed.accounts[name].home, home.mode)
        for name, home in sorted(case.observed.homes.items())
        if name in case.people and home.kind is HomeKind.FOLDER and home.mode & _OTHERS
    }
    if homes:
        paths = " ".join(shell_word(path) for path, _ in homes.values())
        yield Hazard(
            HazardKind.READABLE_HOME,
            tuple(homes),
            f"{counted(len(homes), 'home')} open to everybody:"
            f" {listed(f'{path} ({mode:o})' for path, mode in homes.values())}",
            f"chmod o= -- {paths}",
        )


def stray_links(case: Case) -> Iterator[Hazard]:
    """Find links that enable instances of nobody, or of no template."""
    nobodys: dict[str, list[str]] = defaultdict(list)
    for link in case.seen.links:
        owner, template = instance_of(link.unit), template_of(link.unit)
        if not link.has_template:
            nobodys[f"there is no template {template}"].append(link.path)
        elif template in case.desired.templates and not _is_somebody(owner, case):
            nobodys[f"there is no account {owner}"].append(link.path)
    for why, paths in nobodys.items():
        yield Hazard(
            HazardKind.STRAY_LINK,
            (),
            f"{why}, but {counted(len(paths), 'link')}: {listed(paths)}",
            f"rm -- {' '.join(map(shell_word, paths))} && systemctl daemon-reload",
        )


def _is_somebody(name: str, case: Case) -> bool:
    """Say whether a name is that of a person who is here, comes, or can be brought back."""
    return (
        name in case.observed.accounts
        or name in case.desired.users
        or name in case.observed.on_record.tombstones
        or name in case.observed.intents
    )


def stray_env_files(case: Case) -> Iterator[Hazard]:
    """Find env files whose port nobody has."""
    # A file can be read as that of two: playwright-bob.env is bob's for one service, and playwright-bob's for another.
    somebodys = {
        case.env_path((name, service)) for service, name in case.observed.env_files or {} if _is_somebody(name, case)
    }
    for (name, service), port in sorted(case.observed.sticky_ports.items()):
        path = case.env_path((name, service))
        if path not in somebodys and not _is_somebody(name, case):
            yield Hazard(
                HazardKind.STRAY_ENV_FILE,
                (),
                f"{path} keeps port {port} of {service} for {name}, and there is no such account",
                f"if nobody needs what is in it: rm -- {shell_word(path)}",
            )
