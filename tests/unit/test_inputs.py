"""What a run starts from: both files, and the comparison with the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from reconciler.core.site import Site, TierSource
from reconciler.errors import FileRefused, TierConflict
from reconciler.inputs import Files, check_cluster
from tests.unit.facts import person, roster

PEOPLE = roster(person("alice", "admin"), person("bob"))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return a roster and a site file."""
    (tmp_path / "roster.yaml").write_text("users: {}\n")
    (tmp_path / "site.yaml").write_text("settle: 3\n")
    return Files(str(tmp_path / "roster.yaml"), str(tmp_path / "site.yaml"), trusted=False)


def from_file(tmp_path: Path, text: str) -> Site:
    (tmp_path / "tiers.json").write_text(text)
    return Site(k8s_users=TierSource(file=str(tmp_path / "tiers.json")))


# --- the files ---


def test_both_files_are_read(files: Files) -> None:
    inputs = files.load(())
    assert inputs.roster.users == {}
    assert inputs.site.settle == 3


def test_a_site_file_that_was_named_must_be_there(files: Files) -> None:
    Path(files.site or "").unlink()
    with pytest.raises(FileRefused, match=r"site\.yaml: there is no such file"):
        files.load(())


def test_names_of_the_host_are_reserved(files: Files) -> None:
    Path(files.roster or "").write_text("users: {x: {authentik_user: x, k8s_user: x, tier: admin}}\n")
    assert list(files.load(()).roster.users) == ["x"]
    with pytest.raises(FileRefused, match="belongs to the system"):
        files.load({"x"})


def test_the_lines_told_are_those_of_what_was_loaded(files: Files) -> None:
    loaded = files.load(())
    Path(files.roster or "").write_text("\n\nusers: {}\n")
    Path(files.site or "").unlink()
    sources = files.sources(loaded)
    assert (sources.roster, sources.site) == ({("users",): 1}, {("settle",): 1})


def test_the_digest_tells_any_edit_of_either_file(files: Files) -> None:
    seen = {files.load(()).digest}
    assert files.digest() in seen
    for path, text in ((files.roster or "", "users: {} \n"), (files.site or "", "settle: 4\n"), (files.site or "", "")):
        Path(path).write_text(text)
        assert files.digest() not in seen
        seen.add(files.digest())


def test_a_file_that_cannot_be_read_is_a_change(files: Files) -> None:
    Path(files.roster or "").unlink()
    assert files.digest() == ""


# --- the cluster ---


def test_a_site_without_a_source_compares_nothing() -> None:
    with capture_logs() as entries:
        check_cluster(PEOPLE, Site())
    assert entries == []


def test_another_tier_in_the_cluster_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TierConflict, match="user 'bob': tier is power-user in the roster but admin in the cluster"):
        check_cluster(PEOPLE, from_file(tmp_path, '{"bob": "admin"}'))


def test_a_grant_that_is_still_to_come_is_a_warning(tmp_path: Path) -> None:
    with capture_logs() as entries:
        check_cluster(PEOPLE, from_file(tmp_path, "{}"))
    assert [(entry["event"], entry["os_user"], entry["log_level"]) for entry in entries] == [
        ("tier_pending", "bob", "warning")
    ]


@pytest.mark.parametrize("text", ["", "[]", "\udcff"])
def test_a_source_that_makes_no_sense_is_a_warning(tmp_path: Path, text: str) -> None:
    site = from_file(tmp_path, "")
    (tmp_path / "tiers.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with capture_logs() as entries:
        check_cluster(PEOPLE, site)
    assert [entry["event"] for entry in entries] == ["cluster_unreachable"]


def test_a_source_that_is_missing_is_a_warning(tmp_path: Path) -> None:
    with capture_logs() as entries:
        check_cluster(PEOPLE, Site(k8s_users=TierSource(file=str(tmp_path / "none"))))
    assert [entry["event"] for entry in entries] == ["cluster_unreachable"]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("command", "events"),
    [
        (("/bin/echo", '{"bob": "power-user"}'), []),
        (("/bin/false",), ["cluster_unreachable"]),
        (("/bin/sleep", "60"), ["cluster_unreachable"]),
        (("/no/such/program",), ["cluster_unreachable"]),
    ],
)
def test_a_source_may_be_a_command(command: tuple[str, ...], events: list[str]) -> None:
    with capture_logs() as entries:
        check_cluster(PEOPLE, Site(k8s_users=TierSource(command=command, timeout=1)))
    assert [entry["event"] for entry in entries] == events
