"""The examples in the documents are what the program accepts."""

import re
from pathlib import Path

import pytest

from reconciler.core.hazard_case import HazardKind
from reconciler.core.site import parse_site

CHECKOUT = Path(__file__).parents[2]
PAGES = "".join((CHECKOUT / "docs" / name).read_text(encoding="utf-8") for name in ("site.md", "routes.md"))
EXAMPLES = re.findall(r"^ *```yaml\n(.*?)^ *```$", PAGES, re.MULTILINE | re.DOTALL)


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_of_a_site_file_is_accepted(text: str) -> None:
    parse_site("site.yaml", text.encode())


def test_a_jupyterlab_is_set_up_by_steps_for_its_own_port() -> None:
    site = parse_site("site.yaml", next(text for text in EXAMPLES if "jupyter-venv" in text).encode())
    assert list(site.homes) == ["jupyter-venv", "jupyter-install", "jupyter-config"]
    port = site.services["jupyter"].port
    assert port is not None
    assert port.path_for("alice") == "/etc/jupyter/alice.env"


def test_every_hazard_is_explained_the_worst_first() -> None:
    page = (CHECKOUT / "docs" / "doctor.md").read_text(encoding="utf-8")
    table = page.partition("## The hazards")[2].partition("What counts")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) == [kind.value for kind in HazardKind]
