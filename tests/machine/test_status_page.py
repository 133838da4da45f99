"""The page of a status in Debian's Chromium: what is in it, what it runs and loads, and whether it fits the screen."""

import html
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from reconciler.core.status import MachineStatus
from reconciler.core.status_page import status_page
from tests.machine.browser import WEB, browser_root, seen_by_chromium, start_web_server
from tests.machine.machine import Machine
from tests.unit.statuses import NOW, bad_day, hostile

PAGE = "/srv/status.html"

# Each sets a mark if it ever runs, or asks the web server of the machine for something.
ATTACKS = (
    f"<script>document.title='owned'</script><script src={WEB}/script></script>",
    f'"><img src={WEB}/image onerror="document.title=\'owned\'">',
    f"<iframe src={WEB}/frame></iframe><svg onload=\"document.title='owned'\"></svg>",
    f"</style><link rel=stylesheet href={WEB}/style><style>@import '{WEB}/import';",
    f"<meta http-equiv=refresh content='0;url={WEB}/refresh'><base href={WEB}/>",
)
# Where a page sends its reader is no matter of its policy; what it runs and loads is.
FOR_THE_POLICY = "".join(ATTACKS[:-1])
WIDTHS = (320, 360, 390, 600, 800, 959, 960, 1024, 1151, 1152, 1200, 1920)
# A4 within its margins, in the pixels of a browser.
PAPER = 718

# What there is of elements that no page of rosterd has, and the text of the whole.
LOOK = """({
    title: document.title,
    text: document.body.innerText,
    injected: document.querySelectorAll('script, img, iframe, svg, object, form, base, [onerror], [onload]').length,
    styles: document.styleSheets.length,
    width: document.documentElement.scrollWidth,
    ground: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    heads: document.querySelector('thead')?.getBoundingClientRect().width,
    outside: [...document.querySelectorAll('body *:not(thead, thead *)')]
        .filter(one => one.getBoundingClientRect().right > innerWidth + 0.5).map(one => one.outerHTML.slice(0, 80)),
})"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Boot a machine with a browser and somebody who uses it; a web server listens, for what gets away."""
    with Machine(browser_root()) as machine:
        machine.run("useradd", "--create-home", "viewer")
        start_web_server(machine)
        yield machine


def shown(
    machine: Machine, page: str, widths: Sequence[int], scheme: str = "light", media: str = "screen"
) -> list[dict[str, Any]]:
    """Return what a browser makes of a page at these widths."""
    machine.write(PAGE, page)
    view = {"height": 800, "media": media, "scheme": scheme, "evaluate": LOOK}
    views = [{"width": width, **view} for width in widths]
    return seen_by_chromium(machine, "viewer", f"file://{PAGE}", views)


def show(machine: Machine, page: str, scheme: str = "light") -> dict[str, Any]:
    """Return what a browser makes of a page on a wide screen."""
    (seen,) = shown(machine, page, [1200], scheme)
    return seen


def page_of(status: MachineStatus, host: str = "workstation") -> str:
    return status_page(status, host, NOW)


def test_all_that_a_status_tells_is_on_the_screen(machine: Machine) -> None:
    value = show(machine, page_of(bad_day()))["value"]
    for user in bad_day().users:
        told = [user.name, *user.problems, *user.pending, *user.changes]
        told += [unit.name for service in user.services for unit in service.units]
        assert [part for part in told if part not in value["text"]] == []
    assert "4 of 10 need attention: dave, carol, heidi, mallory." in value["text"]
    assert value["title"] == "workstation: people and services"
    assert value["styles"] == 1


def test_nothing_is_loaded_and_nothing_is_refused(machine: Machine) -> None:
    seen = show(machine, page_of(bad_day()))
    assert seen["requests"] == [f"file://{PAGE}"]
    assert seen["refused"] == []


@pytest.mark.parametrize("number", range(len(ATTACKS)))
def test_a_name_that_tries_to_inject_is_a_name(machine: Machine, number: int) -> None:
    attack = ATTACKS[number]
    seen = show(machine, page_of(hostile(attack), attack))
    value = seen["value"]
    assert value["title"] == f"{attack}: people and services"
    assert value["injected"] == 0
    assert value["styles"] == 1
    assert seen["requests"] == [f"file://{PAGE}"]
    assert seen["refused"] == []
    # In the heading, the summary, as person, tier and service, of who listens, and in each list.
    assert value["text"].count(attack) >= 10


def test_what_got_past_the_escaping_would_be_stopped_by_the_policy(machine: Machine) -> None:
    seen = show(machine, html.unescape(page_of(hostile(FOR_THE_POLICY), "workstation")))
    assert seen["value"]["injected"] > 0
    assert seen["value"]["title"] == "workstation: people and services"
    assert [url for url in seen["loaded"] if url.startswith(WEB)] == []
    refused = "\n".join(seen["refused"])
    for kind in ("inline script", "inline event handler", "the script", "the image", "the stylesheet", "Framing"):
        assert kind in refused


def test_without_both_the_attack_would_work_and_be_seen(machine: Machine) -> None:
    naked = re.sub(r"<meta http-equiv=.*?>", "", html.unescape(page_of(hostile(ATTACKS[1]), "workstation")), count=1)
    seen = show(machine, naked)
    assert seen["value"]["title"] == "owned"
    assert f"{WEB}/image" in seen["loaded"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_scheme_of_its_reader(machine: Machine, scheme: str) -> None:
    value = show(machine, page_of(bad_day()), scheme=scheme)["value"]
    ground, ink = brightness(value["ground"]), brightness(value["ink"])
    assert (ground > 200 and ink < 60) if scheme == "light" else (ground < 60 and ink > 200)


def test_on_paper_it_is_a_table_in_dark_letters_and_fits(machine: Machine) -> None:
    (seen,) = shown(machine, page_of(bad_day()), [PAPER], scheme="dark", media="print")
    value = seen["value"]
    assert brightness(value["ground"]) > 200
    assert brightness(value["ink"]) < 60
    assert value["heads"] == value["width"] == PAPER
    assert value["outside"] == []
    assert "What the words mean" not in value["text"]


def brightness(colour: str) -> float:
    """Return how bright a colour as rgb(…) is, from 0 to 255."""
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize("status", [bad_day(), hostile("n" * 300)], ids=["bad-day", "long-names"])
def test_nothing_is_wider_than_the_screen(machine: Machine, status: MachineStatus) -> None:
    seen = [came["value"] for came in shown(machine, page_of(status), WIDTHS)]
    assert [(width, value["width"]) for width, value in zip(WIDTHS, seen, strict=True) if value["width"] > width] == []
    assert [value["outside"] for value in seen] == [[]] * len(WIDTHS)


def test_a_wide_screen_has_the_heads_of_columns_and_a_phone_has_none(machine: Machine) -> None:
    wide, phone = (seen["value"]["heads"] for seen in shown(machine, page_of(bad_day()), [1200, 360]))
    assert (wide > 1000, phone) == (True, 1)
