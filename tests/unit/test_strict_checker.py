"""The strict checker, which other files are judged by: it refuses the bad files of the other tests, and no good one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.unit.strict_checker import roster_faults, site_faults
from tests.unit.test_schema import GOOD_ROSTER, GOOD_SITE

CHECKOUT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "cases"


@pytest.mark.parametrize("case", sorted((CASES / "roster").glob("*.yaml")), ids=lambda path: path.stem)
def test_it_refuses_each_bad_roster(case: Path) -> None:
    assert roster_faults(case.read_bytes(), reserved={"postgres"})


@pytest.mark.parametrize("case", sorted((CASES / "site").glob("*.yaml")), ids=lambda path: path.stem)
def test_it_refuses_each_bad_site_file(case: Path) -> None:
    assert site_faults(case.read_bytes())[0]


def test_it_accepts_the_good_files_of_the_other_tests() -> None:
    assert roster_faults(yaml.safe_dump(GOOD_ROSTER).encode()) == []
    assert site_faults(yaml.safe_dump(GOOD_SITE).encode())[0] == []
    assert roster_faults((CHECKOUT / "roster.yaml").read_bytes()) == []


@pytest.mark.parametrize("kind", ["roster", "site"])
def test_it_accepts_the_examples_of_the_pages_that_it_is_written_from(kind: str) -> None:
    page = (CHECKOUT / f"docs/{kind}.md").read_text(encoding="utf-8")
    examples = re.findall(r"(?s)```yaml\n(.*?)```", page)
    assert examples
    for example in examples:
        data = example.encode()
        assert (roster_faults(data) if kind == "roster" else site_faults(data)[0]) == [], example
