"""Carries out what deletes a person for good and what brings a deleted one back.

The only module that deletes an account or somebody's files. Each step can be made again after it was killed anywhere,
and looks once more at what it is about to delete.
"""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from reconciler.core.inventory import Contents
from reconciler.core.names import MANAGED_GROUP
from reconciler.core.observed import Account
from reconciler.core.removal import (
    ArchiveFiles,
    CloseAccount,
    CompleteOwnGroup,
    CompleteTombstone,
    DeleteAccount,
    DeleteEnvFiles,
    DeleteTree,
    DropOrphans,
    DropStaging,
    ForgetCut,
    Part,
    RecordCut,
    RecreateAccount,
    RecreateGroups,
    RejoinGroups,
    ReleaseSubids,
    Removal,
    RemoveTombstone,
    ReopenTombstone,
    RestoreEnvFiles,
    RestorePassword,
    RestoreTree,
    RetireIds,
    ReturnSubids,
    WriteTombstone,
)
from reconciler.errors import RemovalRefused, StepFailed
from reconciler.host import archive, files
from reconciler.host.archive import Progress, unseen
from reconciler.host.belongings import shadow_line, staging_beside, tree_at, writable_by_others
from reconciler.host.process import run
from reconciler.host.scan_accounts import scan_group, scan_passwd
from reconciler.host.state import DEFAULT_FOLDER, State

ARCHIVES = DEFAULT_FOLDER / "archives"
_ETC = Path("/etc")

_TOOL_SECONDS = 60.0
_DELETE_SECONDS = 86400.0
_ENV_MODE = 0o600
# The day of shadow(5) that useradd and usermod are given as a date: EXPIRED_DAY.
_EXPIRED_DATE = "1970-01-02"

# The fields of shadow(5) after the password, and what chage calls them; the eighth is the expiry.
_AGING = {2: "--lastday", 3: "--mindays", 4: "--maxdays", 5: "--warndays", 6: "--inactive"}
_PASSWORD = 1


def archive_path(folder: Path, name: str, uid: int) -> Path:
    """Return where a new archive goes: a name that is free, for an archive is never written over."""
    stem = f"{name}-{uid}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    names = (f"{stem}{f'.{number}' if number else ''}.tar.gz" for number in itertools.count())
    return next(folder / name for name in names if not (folder / name).exists())


def archives_of(folder: Path, name: str, uid: int) -> list[Path]:
    """Return the archives that there are of a person, also of commands that were killed before they used it."""
    return sorted(folder.glob(f"{name}-{uid}-*.tar.gz"))


def archive_folder(given: str | None) -> Path:
    """Return the folder for archives, one of root's alone. Raises `RemovalRefused`."""
    if given is None:
        return ARCHIVES  # made when it is first needed
    folder = Path(os.path.realpath(given))
    if not folder.is_dir():
        raise RemovalRefused(f"{given} is not a folder; nothing was archived")
    if bad := writable_by_others([folder, *folder.parents]):
        raise RemovalRefused(f"others than root can write in {', '.join(bad)}; nothing was archived")
    return folder


class Remover:
    """Changes this machine. Needs root, and the lock of a run."""

    def __init__(self, state: State, contents: Contents | None = None, progress: Progress = unseen) -> None:
        """Use these records; `contents` are those of the archive on record."""
        self._state = state
        self._contents = contents
        self._progress = progress
        self._digest = ""
        self._stamps: dict[str, archive.Stamps] = {}

    def carry_out(self, step: Removal) -> None:  # noqa: C901, PLR0912, PLR0915 (one arm for each member of the union)
        """Carry out one step. Raises `RosterdError`."""
        match step:
            case DropStaging():
                for path in step.paths:
                    _delete(Path(path))
            case ArchiveFiles():
                self._archive(step)
            case WriteTombstone():
                self._state.save_tombstone(replace(step.stone, digest=self._digest))
            case DeleteTree():
                self._delete_archived(step)
            case DeleteEnvFiles():
                for path in step.paths:
                    files.remove_file(Path(path))
            case ReleaseSubids():
                self._change_subids("del", step)
            case DeleteAccount():
                _delete_account(step)
            case DropOrphans():
                _drop_orphans(step)
            case ForgetCut():
                self._state.remove_home_steps(step.user)
                self._state.remove_cut(step.user)
            case CompleteTombstone():
                self._mark(step.user, complete=True)
            case ReopenTombstone():
                self._mark(step.user, complete=False)
            case RecordCut():
                self._state.save_cut(step.user, step.record)
            case RecreateGroups():
                if step.managed:
                    _tool("groupadd", "--system", "--", MANAGED_GROUP)
                if step.gid is not None:
                    _tool("groupadd", "--gid", str(step.gid), "--", step.user)
            case CompleteOwnGroup():
                _tool("gpasswd", "--restrict", "--", step.user)
            case RecreateAccount():
                _recreate_account(step)
            case CloseAccount():
                _close_account(step.user)
            case RejoinGroups():
                for group in step.groups:
                    _tool("gpasswd", "--add", step.user, group)
            case ReturnSubids():
                self._change_subids("add", step)
            case RestoreTree():
                self._restore_tree(step)
            case RestoreEnvFiles():
                for path in step.paths:
                    files.replace_file(Path(path), self._kept(path.lstrip("/")), _ENV_MODE)
            case RestorePassword():
                _restore_password(step.user, self._kept(archive.SHADOW))
            case RetireIds():
                for number in step.ids:
                    self._state.retire(number)
            case RemoveTombstone():
                self._state.remove_tombstone(step.user)
            case _:
                assert_never(step)

    def _archive(self, step: ArchiveFiles) -> None:
        target = Path(step.archive)
        if target.parent == ARCHIVES:
            files.make_private_folder(ARCHIVES)
        staging = staging_beside(target.parent / step.user)
        _delete(staging)  # left by one that was killed
        shadow = shadow_line(step.user)
        try:
            sources = [Path(source) for source in step.sources]
            self._stamps = {source: archive.stamps(Path(source)) for source in step.sources}
            self._digest = archive.create(staging, target, sources, shadow + b"\n", self._progress)
        finally:
            _delete(staging)

    def _delete_archived(self, step: DeleteTree) -> None:
        """Delete a tree that is still what it was when the archive was made, or is compared with it once more.

        Somebody else may have a folder in it that they can write in.
        """
        path = Path(step.path)
        before = self._stamps.get(step.path)
        if before is None and self._contents is not None:
            before = archive.stamps(path)
            if found := archive.comparison(path, self._contents, self._progress).differences:
                raise StepFailed(f"{path} is not deleted: {found[0]}")
        if before is None or archive.stamps(path) != before:
            raise StepFailed(
                f"{path} is not deleted: it was changed since it was archived; run this again to see where"
            )
        _delete_tree(step.part, path, step.uid)

    def _restore_tree(self, step: RestoreTree) -> None:
        """Unpack beside the place, on the same file system, and rename: the place holds all of it or nothing new."""
        path = Path(step.path)
        if self._contents is None:
            raise AssertionError("nothing is restored from an archive that was not read")
        if step.part is Part.JOBS:
            files.make_private_folder(path.parent)
        staging = staging_beside(path)
        files.make_private_folder(staging)
        try:
            member = step.path.lstrip("/")
            made = archive.extract(self._archive_of(step.user), member, staging, self._contents, self._progress)
            if step.replaces:
                _delete_tree(step.part, path, step.uid)
            files.move(made, path)
        finally:
            _delete(staging)

    def _archive_of(self, name: str) -> Path:
        return Path(self._state.records().tombstones[name].archive)

    def _kept(self, member: str) -> bytes:
        if self._contents is None or member not in self._contents.kept:
            raise StepFailed(f"the archive has no {member}")
        return self._contents.kept[member]

    def _mark(self, name: str, *, complete: bool) -> None:
        self._state.save_tombstone(replace(self._state.records().tombstones[name], complete=complete))

    def _change_subids(self, how: str, step: ReleaseSubids | ReturnSubids) -> None:
        spans = [(f"--{how}-subuids", first, count) for first, count in step.uids]
        spans += [(f"--{how}-subgids", first, count) for first, count in step.gids]
        words = [word for option, first, count in spans for word in (option, f"{first}-{first + count - 1}")]
        _tool("usermod", *words, "--", step.user)


def _delete_tree(part: Part, path: Path, uid: int) -> None:
    """Delete one part of a person's, after one more look at what lies there. Raises `StepFailed`."""
    found = tree_at(part, path)
    if not found.exists:
        return
    if not found.is_sound or (part is not Part.JOBS and found.uid != uid):
        raise StepFailed(f"{path} is not what it was a moment ago, and is left alone")
    _delete(path)


def _delete(path: Path) -> None:
    """Delete a file or a tree durably; fine if it is gone already. Raises `StepFailed`.

    By rm(1): it opens each folder below the one before it and follows no link, however deep the tree is.
    """
    if not os.path.lexists(path):
        return
    argv = ("rm", "--recursive", "--force", "--one-file-system", "--preserve-root", "--", str(path))
    run(argv, timeout=_DELETE_SECONDS).or_fail()
    files.sync_folder(path.parent)


def _delete_account(step: DeleteAccount) -> None:
    """Never with --remove or --force: the one deletes files, the other what somebody uses."""
    account = _account(step.user)
    if account.uid != step.uid:
        raise StepFailed(f"{step.user} is not uid {step.uid} any more, and is left alone")
    _tool("userdel", "--", step.user)
    own = scan_group(_ETC / "group").get(step.user)
    if own is not None and own.gid == account.gid:
        _tool("groupdel", "--", step.user)  # userdel leaves it where login.defs has no USERGROUPS_ENAB


def _drop_orphans(step: DropOrphans) -> None:
    for group in step.memberships:
        _tool("gpasswd", "--delete", step.user, group)
    if step.gid is not None:
        _tool("groupdel", "--", step.user)
    # These two take the lines out that have no partner in passwd and group, whoever's they are.
    if step.shadow:
        _tool("pwconv")
    if step.gshadow:
        _tool("grpconv")


def _recreate_account(step: RecreateAccount) -> None:
    """In one call with its expiry and groups; useradd locks the password. Subordinate ids and files come later."""
    stone = step.stone
    groups = ("--groups", ",".join(step.groups)) if step.groups else ()
    _tool(
        *("useradd", "--uid", str(stone.uid), "--gid", step.user, "--comment", stone.gecos, *groups),
        *("--home-dir", stone.home, "--no-create-home", "--shell", stone.shell, "--expiredate", _EXPIRED_DATE),
        *("--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0", "--", step.user),
    )


def _close_account(name: str) -> None:
    line = shadow_line(name).split(b":")
    if len(line) > _PASSWORD and line[_PASSWORD]:
        _tool("usermod", "--expiredate", _EXPIRED_DATE, "--lock", "--", name)
    else:
        # Not --lock: without a shadow line that would put the ! into passwd itself.
        _tool("usermod", "--expiredate", _EXPIRED_DATE, "--password", "!", "--", name)


def _restore_password(name: str, archived: bytes) -> None:
    fields = archived.decode("utf-8", "surrogateescape").rstrip("\n").split(":")
    if len(fields) <= max(_AGING):
        raise StepFailed("the shadow line in the archive is torn; the password stays as it is, locked")
    password = fields[_PASSWORD] if fields[_PASSWORD].startswith("!") else f"!{fields[_PASSWORD]}"
    _tool("chpasswd", "--encrypted", given=f"{name}:{password}\n".encode("utf-8", "surrogateescape"))
    dates = [word for field, option in _AGING.items() for word in (option, fields[field] or "-1")]
    _tool("chage", *dates, name)


def _account(name: str) -> Account:
    account = scan_passwd(_ETC / "passwd").get(name)
    if account is None:
        raise StepFailed(f"{name} has no account")
    return account


def _tool(*argv: str, given: bytes | None = None) -> None:
    run(argv, timeout=_TOOL_SECONDS, given=given).or_fail()
