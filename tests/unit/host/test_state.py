"""What is on record: of accounts being created, and of people who are cut off, deleted, or merely known."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.last_run import LastRun
from reconciler.core.records import CutRecord, Identity, Records, Step
from reconciler.errors import ScanFailed, StepFailed
from reconciler.host import files
from reconciler.host.state import State
from tests.unit.core.test_records import CUT, IDENTITY, STONE

T3, RBAC = Step.REMOVE_FROM_T3_GROUP, Step.REVOKE_CLUSTER_RBAC


def test_a_record_lasts_until_it_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "rosterd"
    assert State(folder).intents() == {}
    State(folder).save_intent("alice", 1000, 1000)
    State(folder).save_intent("bob", 1001, 1001)
    State(folder).save_intent("alice", 1002, 1003)
    assert State(folder).intents() == {"alice": (1002, 1003), "bob": (1001, 1001)}
    State(folder).remove_intent("alice")
    State(folder).remove_intent("alice")
    assert State(folder).intents() == {"bob": (1001, 1001)}


def test_the_folder_is_roots_own(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        State(tmp_path / "rosterd").save_intent("alice", 1000, 1000)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "rosterd").stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["", "{", "[]", '{"uid": 1000}', '{"uid": "x", "gid": 1}', "\udcff"])
def test_a_record_that_is_none_is_an_error_and_not_passed_over(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "creating"
    folder.mkdir()
    (folder / "alice").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ScanFailed, match="alice is not a record of rosterd's"):
        State(tmp_path).intents()


def test_files_that_are_no_names_are_no_records(tmp_path: Path) -> None:
    State(tmp_path).save_intent("alice", 1000, 1000)
    (tmp_path / "creating" / ".bob.rosterd-new").write_text("half a rec")
    assert State(tmp_path).intents() == {"alice": (1000, 1000)}


def test_a_record_that_cannot_be_written_fails_the_step_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StepFailed, match="rosterd"):
        State(tmp_path / "file" / "rosterd").save_intent("alice", 1000, 1000)
    with pytest.raises(StepFailed, match="file"):
        State(tmp_path / "file").save_intent("alice", 1000, 1000)


# --- people who are cut off, deleted, or merely known ---


def test_nothing_on_record_is_nothing(tmp_path: Path) -> None:
    assert State(tmp_path / "rosterd").records() == Records()


def test_every_kind_of_record_is_read_back_as_it_was(tmp_path: Path) -> None:
    state = State(tmp_path / "rosterd")
    state.save_cut("bob", CUT)
    state.save_cut("carol", CutRecord(1003, 1003, 5))
    state.save_tombstone(STONE)
    state.save_tombstone(replace(STONE, name="dave", complete=False))
    state.save_identities({"alice": Identity("a", "b"), "bob": IDENTITY})
    state.retire(1010)
    state.retire(1011)
    assert state.records() == Records(
        cuts={"bob": CUT, "carol": CutRecord(1003, 1003, 5)},
        tombstones={"bob": STONE, "dave": replace(STONE, name="dave", complete=False)},
        identities={"alice": Identity("a", "b"), "bob": IDENTITY},
        retired=frozenset({1010, 1011}),
    )


def test_records_are_for_root_alone(tmp_path: Path) -> None:
    state = State(tmp_path / "rosterd")
    before = os.umask(0)
    try:
        state.save_cut("bob", CUT)
        state.save_identities({})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "rosterd").stat().st_mode) == 0o700
    for path in ("cuts/bob", "identities"):
        assert stat.S_IMODE((tmp_path / "rosterd" / path).stat().st_mode) == 0o600


def test_what_was_before_a_cut_is_never_overwritten(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.save_cut("bob", CUT)
    with pytest.raises(StepFailed, match="what it says of the time before the cut is not overwritten"):
        state.save_cut("bob", replace(CUT, expiry=1, locked=True))
    assert state.records().cuts == {"bob": CUT}


def test_a_damaged_record_of_a_cut_is_not_overwritten_either(tmp_path: Path) -> None:
    (tmp_path / "cuts").mkdir()
    (tmp_path / "cuts" / "bob").write_text("")
    with pytest.raises(StepFailed, match="is there already"):
        State(tmp_path).save_cut("bob", CUT)
    assert (tmp_path / "cuts" / "bob").read_text() == ""


def test_a_record_of_a_cut_can_be_forgotten_and_written_anew(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.save_cut("bob", CUT)
    state.remove_cut("bob")
    state.remove_cut("bob")
    assert state.records().cuts == {}
    state.save_cut("bob", replace(CUT, since=7))
    assert state.records().cuts["bob"].since == 7


def test_only_the_reason_of_a_cut_changes(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.save_cut("bob", CUT)
    state.set_cut_reason("bob", by_command=False)
    assert state.records().cuts == {"bob": replace(CUT, by_command=False)}
    state.set_cut_reason("bob", by_command=True)
    assert state.records().cuts == {"bob": CUT}


def test_the_reason_of_no_cut_cannot_change(tmp_path: Path) -> None:
    with pytest.raises(ScanFailed, match="cuts/bob is not a record"):
        State(tmp_path).set_cut_reason("bob", by_command=False)
    assert State(tmp_path).records() == Records()


def test_a_step_is_marked_as_taken_wherever_somebody_is_on_record(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.save_cut("cut", replace(CUT, done=()))
    state.save_tombstone(replace(STONE, name="dead", cut=replace(CUT, done=())))
    state.save_cut("both", replace(CUT, done=(RBAC,)))
    state.save_tombstone(replace(STONE, name="both", cut=replace(CUT, done=())))
    for name in ("cut", "dead", "both"):
        state.mark_done(name, T3)
        state.mark_done(name, T3)
    found = state.records()
    assert found.cuts == {"cut": replace(CUT, done=(T3,)), "both": replace(CUT, done=(T3, RBAC))}
    assert {name: stone.cut.done for name, stone in found.tombstones.items()} == {"dead": (T3,), "both": (T3,)}


def test_a_step_of_somebody_not_on_record_is_marked_nowhere(tmp_path: Path) -> None:
    State(tmp_path).mark_done("nobody", T3)
    assert State(tmp_path).records() == Records()


def test_a_tombstone_can_be_changed_and_forgotten(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.save_tombstone(replace(STONE, complete=False))
    state.save_tombstone(STONE)
    assert state.records().tombstones == {"bob": STONE}
    state.remove_tombstone("bob")
    assert state.records().tombstones == {}


def test_an_id_that_is_retired_outlasts_its_tombstone(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.save_tombstone(STONE)
    state.retire(STONE.uid)
    state.remove_tombstone("bob")
    assert state.records().reserved_ids == {STONE.uid}


def test_identities_are_replaced_as_a_whole(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.save_identities({"alice": IDENTITY, "bob": IDENTITY})
    state.save_identities({"bob": IDENTITY})
    assert state.records().identities == {"bob": IDENTITY}


DAMAGED = ["", "{", "[]", "[1]", "{}", '"bob"', "null", '{"uid": 1}', "\udcff", "[" * 100_000]


@pytest.mark.parametrize("folder", ["cuts", "tombstones"])
@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: ascii(text[:20]))
def test_a_damaged_record_is_an_error_and_not_passed_over(tmp_path: Path, folder: str, text: str) -> None:
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "bob"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ScanFailed, match=f"{folder}/bob is not a record of rosterd's; look at it, then mend or remove"):
        State(tmp_path).records()
    assert path.read_bytes() == text.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"a": 1}', '{"a": {"authentik_user": "x"}}', '{"a": []}'])
def test_damaged_identities_are_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "identities").write_text(text)
    with pytest.raises(ScanFailed, match="identities is not a record of rosterd's"):
        State(tmp_path).records()


@pytest.mark.parametrize(
    "change", [{"done": ["destroy"]}, {"locked": 1}, {"running": "x"}, {"uid": "x"}, {"uid": float("inf")}]
)
def test_a_record_with_one_bad_value_is_damaged(tmp_path: Path, change: dict[str, object]) -> None:
    State(tmp_path).save_cut("bob", CUT)
    path = tmp_path / "cuts" / "bob"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ScanFailed):
        State(tmp_path).records()


Read = Callable[[State], object]


@pytest.mark.parametrize(
    "change", [lambda s: s.mark_done("bob", T3), lambda s: s.set_cut_reason("bob", by_command=False)]
)
def test_a_damaged_record_is_not_changed(tmp_path: Path, change: Read) -> None:
    (tmp_path / "cuts").mkdir()
    (tmp_path / "cuts" / "bob").write_text("half a rec")
    with pytest.raises(ScanFailed):
        change(State(tmp_path))
    assert (tmp_path / "cuts" / "bob").read_text() == "half a rec"


def test_a_link_in_place_of_a_record_is_not_followed(tmp_path: Path) -> None:
    State(tmp_path).save_cut("bob", CUT)
    (tmp_path / "cuts" / "eve").symlink_to(tmp_path / "cuts" / "bob")
    with pytest.raises(ScanFailed, match="cuts/eve"):
        State(tmp_path).records()


def test_files_that_are_no_names_are_no_records_of_people(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.save_cut("bob", CUT)
    state.retire(1010)
    (tmp_path / "cuts" / ".eve.rosterd-new").write_text("half a rec")
    (tmp_path / "retired" / ".1.rosterd-new").write_text("")
    assert state.records() == Records(cuts={"bob": CUT}, retired=frozenset({1010}))


def test_a_tombstone_under_another_name_is_an_error(tmp_path: Path) -> None:
    State(tmp_path).save_tombstone(STONE)
    (tmp_path / "tombstones" / "bob").rename(tmp_path / "tombstones" / "eve")
    with pytest.raises(ScanFailed, match="the tombstone of eve is of bob; look at it, then mend or remove it"):
        State(tmp_path).records()


@pytest.mark.parametrize("name", ["Bob", "bob.1", "-"])
def test_a_file_of_no_persons_name_is_looked_at_and_not_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "cuts").mkdir()
    (tmp_path / "cuts" / name).write_text("")
    with pytest.raises(ScanFailed):
        State(tmp_path).records()


# --- the last run ---

RAN = LastRun("0123abcd", 1_800_000_000, 3, 1.234, good=1_799_999_000, restarts={"t3-serve@bob.service": 4})


def test_of_runs_the_last_is_kept_and_nothing_of_one_is_lost(tmp_path: Path) -> None:
    state = State(tmp_path / "rosterd")
    assert state.last_run() is None
    state.save_last_run(replace(RAN, exit=0))
    state.save_last_run(RAN)
    assert State(tmp_path / "rosterd").last_run() == RAN
    assert stat.S_IMODE((tmp_path / "rosterd/last-run").stat().st_mode) == 0o600


@pytest.mark.parametrize("run", [replace(RAN, good=None), replace(RAN, restarts={}), LastRun("", 0, 0, 0.0)])
def test_a_run_that_has_less_to_tell_is_kept_as_well(tmp_path: Path, run: LastRun) -> None:
    State(tmp_path).save_last_run(run)
    assert State(tmp_path).last_run() == run


@pytest.mark.parametrize(
    "text",
    [
        "",
        "half a rec",
        "[]",
        "null",
        "7",
        "{}",
        '{"id": "a", "at": "yesterday", "exit": 0, "seconds": 1, "good": null, "restarts": {}}',
        '{"id": "a", "at": 1, "exit": 0, "seconds": 1, "good": null, "restarts": []}',
        '{"id": "a", "at": 1, "exit": 0, "seconds": 1, "good": null, "restarts": {"a": null}}',
        '{"id": "a", "at": 1e999, "exit": 0, "seconds": 1, "good": null, "restarts": {}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_record_of_a_run_is_as_none_and_the_next_run_mends_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "last-run").write_text(text)
    assert State(tmp_path).last_run() is None
    State(tmp_path).save_last_run(RAN)
    assert State(tmp_path).last_run() == RAN


def test_what_is_no_file_in_its_place_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "last-run").symlink_to("/etc/hostname")
    assert State(tmp_path).last_run() is None
    (tmp_path / "last-run").unlink()
    (tmp_path / "last-run").mkdir()
    assert State(tmp_path).last_run() is None
    with pytest.raises(StepFailed, match="last-run cannot be written"):
        State(tmp_path).save_last_run(RAN)


def test_a_record_that_may_not_be_read_is_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    State(tmp_path).save_last_run(RAN)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        State(tmp_path).last_run()


def test_a_folder_that_may_not_be_looked_into_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_arguments: object, **_options: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError):
        State(tmp_path).last_run()
