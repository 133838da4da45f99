"""Records as documents and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.records import (
    CutRecord,
    Identity,
    Records,
    Step,
    Tombstone,
    as_document,
    cut_record_from,
    identity_from,
    tombstone_from,
)

IDENTITY = Identity("bob.x", "bob")
CUT = CutRecord(
    uid=1001,
    gid=1002,
    since=1_800_000_000,
    by_command=True,
    expiry=30000,
    locked=False,
    passwordless=True,
    lingering=True,
    running=("a.service", "b.service"),
    identity=IDENTITY,
    done=(Step.REVOKE_CLUSTER_RBAC,),
)
STONE = Tombstone(  # noqa: S604 (a login shell)
    name="bob",
    uid=1001,
    gid=1002,
    home="/home/bob",
    shell="/bin/zsh",
    gecos="Bob, the builder",
    groups=("docker", "rosterd"),
    subuids=((100_000, 65536),),
    subgids=((100_000, 65536), (300_000, 1)),
    ports={"t3": 3773, "playwright": 8931},
    archive="/var/backups/rosterd/bob.tar",
    digest="0" * 64,
    since=1_800_000_000,
    cut=CUT,
    complete=True,
)


def through_json(record: CutRecord | Tombstone | Identity) -> dict[str, Any]:
    """Return the document as it is read back from a file."""
    document: dict[str, Any] = json.loads(json.dumps(as_document(record)))
    return document


whole = st.integers(0)
cuts = st.builds(CutRecord, uid=whole, gid=whole, since=whole, expiry=st.none() | whole)
ranges = st.lists(st.tuples(whole, whole)).map(tuple)


@given(cuts)
def test_a_cut_record_comes_back_as_it_was(record: CutRecord) -> None:
    assert cut_record_from(through_json(record)) == record


@given(
    st.builds(
        Tombstone,
        uid=whole,
        gid=whole,
        subuids=ranges,
        subgids=ranges,
        ports=st.dictionaries(st.text(), whole),
        since=whole,
        cut=cuts,
    )
)
def test_a_tombstone_comes_back_as_it_was(stone: Tombstone) -> None:
    assert tombstone_from(through_json(stone)) == stone


def test_an_identity_comes_back_as_it_was() -> None:
    assert identity_from(through_json(IDENTITY)) == IDENTITY


@pytest.mark.parametrize("record", [CUT, STONE])
def test_steps_come_back_as_steps(record: CutRecord | Tombstone) -> None:
    found = cut_record_from(through_json(CUT)) if record is CUT else tombstone_from(through_json(STONE)).cut
    assert found.done == (Step.REVOKE_CLUSTER_RBAC,)
    assert all(isinstance(step, Step) for step in found.done)


WRONG: dict[str, list[Any]] = {
    "uid": ["x", None, [], 10.01, True, -1],
    "gid": ["x", None, 1e3],
    "since": ["x", None, "1800000000"],
    "by_command": [0, "yes", None],
    "expiry": ["x", [], 20.5, False],
    "locked": [1, None],
    "passwordless": ["", None],
    "lingering": ["no"],
    "running": ["a.service", [1], None],
    "identity": [[], "bob", {"authentik_user": "x"}, {"authentik_user": 1, "k8s_user": "x"}],
    "done": [["destroy"], None],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_damaged_cut_record_is_none(key: str, value: object) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        cut_record_from({**through_json(CUT), key: value})


@pytest.mark.parametrize("key", sorted(WRONG))
def test_a_cut_record_has_every_key(key: str) -> None:
    document = through_json(CUT)
    del document[key]
    with pytest.raises(KeyError):
        cut_record_from(document)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 1),
        ("home", None),
        ("groups", "docker"),
        ("subuids", [[1]]),
        ("subgids", [1]),
        ("subgids", [[100000.5, 65536]]),
        ("ports", {"t3": 37.73}),
        ("ports", []),
        ("ports", {"t3": "x"}),
        ("cut", None),
        ("complete", 1),
        ("digest", 0),
    ],
)
def test_a_damaged_tombstone_is_none(key: str, value: object) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        tombstone_from({**through_json(STONE), key: value})


def test_ids_and_ports_on_record_are_reserved() -> None:
    stone = replace(STONE, uid=1003, gid=1004)
    records = Records(cuts={"bob": CUT}, tombstones={"carol": stone}, retired=frozenset({1009}))
    assert records.reserved_ids == {1001, 1002, 1003, 1004, 1009}
    assert records.reserved_ports == {3773, 8931}
    assert Records().reserved_ids == Records().reserved_ports == frozenset()
