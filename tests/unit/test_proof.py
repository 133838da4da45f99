"""The page of what rosterd survives: each row names tests that are there, and what came out is counted by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.proof.__main__ import results
from tests.proof.evidence import FOLDER, NOTES, note, scaled
from tests.proof.page import page
from tests.proof.rows import ROWS, Row, unit

CHECKOUT = Path(__file__).parents[2]
ROW = Row("links", "links are swapped", "nothing is touched", unit("test_a", "b::c"))
ABOUT = {"date": "2026-01-02", "commit": "abc", "systemd": "252", "kernel": "6.1"}
REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_b" name="test_c[one]" time="1.5"/>
<testcase classname="tests.unit.test_b" name="test_c[two]" time="1"><failure/></testcase>
<testcase classname="tests.unit.test_b" name="test_other" time="100"/>
<testcase classname="tests.unit.test_test_a" name="test_any" time="0.5"/>
<testcase classname="tests.unit.test_test_a" name="test_more" time="0"><skipped/></testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize("test", sorted({test for row in ROWS for test in row.tests}))
def test_a_row_names_tests_that_are_there(test: str) -> None:
    file, _, function = test.partition("::")
    text = (CHECKOUT / file).read_text()
    assert f"def {function}(" in text if function else "def test_" in text


def test_no_two_rows_have_one_key() -> None:
    assert len({row.key for row in ROWS}) == len(ROWS)


def test_a_sample_is_small_and_notes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.chdir(tmp_path)
    note("links", swaps=3)
    assert scaled(10, 60) == 10
    assert list(tmp_path.iterdir()) == []


def test_what_tests_saw_and_how_they_ended_is_added_up_by_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr("tests.proof.__main__.versions", lambda: ABOUT)
    assert scaled(10, 60) == 60
    note("links", swaps=3, wins=0)
    note("others", swaps=5)
    note("links", swaps=4)
    (tmp_path / "tests.xml").write_text(REPORT)
    found = results([ROW], tmp_path)
    assert found == {
        "links": {"passed": 2, "failed": 1, "skipped": 1, "seconds": 3.0, "counts": {"swaps": 7, "wins": 0}, **ABOUT}
    }
    assert json.loads((tmp_path / NOTES).read_text().splitlines()[0])["counts"] == {"swaps": 3, "wins": 0}


def test_the_page_tells_what_failed_and_what_was_not_run() -> None:
    key = ROWS[0].key
    told = {"passed": 2, "failed": 1, "skipped": 1, "seconds": 3.0, "counts": {"half_made": 1234}, **ABOUT}
    text = page({key: told})
    assert "**FAILED**: 1,234 half made; 2 of 3 tests pass; 1 not run" in text
    assert text.count("| not run |") == len(ROWS) - 1
    assert f"- 2026-01-02, at abc, systemd 252, Linux 6.1: {key} (3 s)" in text
