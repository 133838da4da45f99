"""What a run starts from: the roster and the site file, read, checked and compared with the cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import structlog

from reconciler.core.provenance import Sources
from reconciler.core.roster import Roster, parse_roster
from reconciler.core.site import Site, TierSource, parse_site
from reconciler.core.tiers import compare_tiers, parse_cluster_tiers
from reconciler.errors import FileRefused, StepFailed, TierConflict
from reconciler.host.files import read_bytes
from reconciler.host.process import run
from reconciler.host.sources import read_source

ROSTER = "/etc/rosterd/roster.yaml"
SITE = "/etc/rosterd/site.yaml"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The two files as they were read. `digest` tells whether they are still the same.

    `roster_data` and `site_data` are their bytes, for who asks on which line something stands; None where there is
    no site file.
    """

    roster: Roster
    site: Site
    digest: str
    roster_data: bytes = b""
    site_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """Where the two files lie. Without `site` it is the default one, which may be missing.

    Without `roster` it is one with nobody in it, for commands that have to work whatever the roster says.
    `trusted`: refuse files that anybody but root could have written.
    """

    roster: str | None
    site: str | None
    trusted: bool

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where they lie."""
        return tuple(Path(path) for path in (self.roster, self.site or SITE) if path)

    def load(self, reserved: Collection[str]) -> Inputs:
        """Read and check both. Raises `FileRefused`."""
        roster_data, site_data = self._read()
        site = self._site(site_data)
        roster = parse_roster(self.roster, roster_data, site, reserved) if self.roster else Roster({})
        return Inputs(roster, site, _digest(roster_data, site_data), roster_data, site_data)

    def sources(self, inputs: Inputs) -> Sources:
        """Return on which line of the files each value of `inputs`, which were loaded from them, stands."""
        return Sources.read((self.roster or "", inputs.roster_data), (self.site or SITE, inputs.site_data))

    def site_if_good(self) -> Site | None:
        """Return the policy alone, None where it is refused; for what is still to be told when the roster is."""
        try:
            return self._site(self._read_site())
        except FileRefused:
            return None

    def digest(self) -> str:
        """Return the digest of the files as they are now; "" if they cannot be read, which is a change."""
        try:
            return _digest(*self._read())
        except FileRefused:
            return ""

    def _read(self) -> tuple[bytes, bytes | None]:
        site = self._read_site()
        if self.roster is None:
            return b"", site
        roster = read_source(self.roster, trusted=self.trusted)
        if roster is None:
            raise FileRefused(f"{self.roster}: there is no such file")
        return roster, site

    def _read_site(self) -> bytes | None:
        return read_source(self.site or SITE, trusted=self.trusted, optional=self.site is None)

    def _site(self, data: bytes | None) -> Site:
        return Site() if data is None else parse_site(self.site or SITE, data)


def check_cluster(roster: Roster, site: Site) -> None:
    """Compare tiers with the cluster where the site names a source.

    Raises `TierConflict`. A grant that is still to come, or a source that does not answer, is logged
    as a warning.
    """
    if site.k8s_users is None:
        return
    try:
        cluster = parse_cluster_tiers(_ask(site.k8s_users))
    except (StepFailed, ValueError, OSError) as error:
        text = f"the cluster's tiers are not known, so they are not compared: {error}"
        structlog.get_logger().warning("cluster_unreachable", message=text)
        return
    differences = compare_tiers(roster, site, cluster)
    for found in differences:
        if not found.is_conflict:
            structlog.get_logger().warning("tier_pending", message=found.text, os_user=found.user)
    if conflicts := [found.text for found in differences if found.is_conflict]:
        raise TierConflict("\n".join(conflicts))


def _ask(source: TierSource) -> str:
    if source.file is not None:
        data = read_bytes(Path(source.file), follow=True)
        if data is None:
            raise StepFailed(f"{source.file} does not exist")
        return data.decode("utf-8", "replace")
    return run(source.command, timeout=source.timeout).or_fail().out


def _digest(roster: bytes, site: bytes | None) -> str:
    parts = (roster, b"" if site is None else b"site:" + site)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
