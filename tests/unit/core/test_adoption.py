"""`rosterd adopt`: which accounts may be taken over."""

from __future__ import annotations

import pytest

from reconciler.core.actions import Adopt, CreateGroup
from reconciler.core.adoption import plan_adoption
from reconciler.core.names import MANAGED_GROUP
from reconciler.errors import UnknownName
from tests.unit.facts import bare, desired, person

ON_ROSTER = desired(person("alice"), person("bob"), person("carol"))
HOST = bare().account("alice", 1000).account("bob", 1001, managed=False)


def test_an_account_that_is_not_managed_is_marked_once() -> None:
    assert plan_adoption(["bob", "bob"], ON_ROSTER, HOST.observed) == [Adopt("bob", 1001, MANAGED_GROUP)]


def test_an_account_that_is_managed_needs_nothing() -> None:
    assert plan_adoption(["alice"], ON_ROSTER, HOST.observed) == []


def test_the_group_that_marks_is_made_if_need_be() -> None:
    host = bare().account("bob", 1001, managed=False)
    assert plan_adoption(["bob"], ON_ROSTER, host.observed) == [
        CreateGroup(MANAGED_GROUP),
        Adopt("bob", 1001, MANAGED_GROUP),
    ]


def test_all_names_that_cannot_be_meant_are_told_together_and_nothing_is_done() -> None:
    with pytest.raises(UnknownName) as caught:
        plan_adoption(["bob", "carol", "root"], ON_ROSTER, HOST.observed)
    assert str(caught.value) == (
        "'carol' has no account on this machine; a run creates it;"
        " 'root' is not on the roster; put them there first, else the next run would cut them off"
    )
