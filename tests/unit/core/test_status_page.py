"""The page of a status, taken apart with the standard library's parser."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html import escape
from html.parser import HTMLParser

import pytest

from reconciler.core.status import AccountState, Health, MachineStatus, RunStatus
from reconciler.core.status_page import status_page
from tests.unit.statuses import NOW, bad_day, hostile, large, off, person

VOID = frozenset({"br", "link", "meta", "wbr"})
ALLOWED = VOID | {
    *(
        "html",
        "head",
        "title",
        "style",
        "body",
        "header",
        "main",
        "section",
        "footer",
        "h1",
        "h2",
        "p",
        "dl",
        "dt",
        "dd",
    ),
    *("ul", "li", "table", "thead", "tbody", "tr", "th", "td", "span", "strong", "details", "summary"),
}
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><style>*{display:none}",
    "</td></tr></table><h1>",
    "&lt;b&gt;&amp;&#60;b&#62;",
    "<!-- <![CDATA[ ]]> -->",
    "javascript:alert(1)",
    "{{7*7}} ${7*7}",
    "a\x00b\x07c\x1b[31md\re\nf\tg",
    "abc\u202egnp.exe\u2066\u200f",
    "\ud800\udcff",
    "n" * 5000,
)


class Page(HTMLParser):
    """A page: what elements there are, and the text of each; asserts that they close in the order they opened in."""

    def __init__(self, source: str) -> None:
        """Read it."""
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[int] = []
        self.feed(source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        """Note its end."""
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        """Give text to all elements that it is in."""
        for number in self._open:
            self.texts[number] += data

    def named(self, tag: str, kind: str | None = None) -> list[str]:
        """Return the texts of elements; of those of a class where one is given."""
        found = zip(self.elements, self.texts, strict=True)
        return [text for (is_tag, has), text in found if is_tag == tag and (kind is None or kind in _classes(has))]

    def only(self, tag: str, kind: str | None = None) -> str:
        """Return the text of the only such element."""
        (text,) = self.named(tag, kind)
        return text

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each element of a kind."""
        return [has for is_tag, has in self.elements if is_tag == tag]


def _classes(attributes: dict[str, str | None]) -> list[str]:
    return (attributes.get("class") or "").split()


def page_of(status: MachineStatus, host: str = "workstation") -> Page:
    """Return the page of a status."""
    return Page(status_page(status, host, NOW))


def alone(health: Health = Health.OK) -> MachineStatus:
    """Return a machine with alice alone, whose services are all of one health."""
    alice = person("alice", 0, "admin")
    services = tuple(replace(service, health=health) for service in alice.services)
    return MachineStatus(RunStatus("run", NOW - 60, 0), (replace(alice, services=services),))


def rows_of(page: Page) -> list[str]:
    """Return the rows of the table's bodies, blanks in one."""
    return [" ".join(text.split()) for text in page.named("tr")[1:]]


def test_it_is_an_html_document_that_says_its_language_its_title_and_that_it_fits_a_phone() -> None:
    source = status_page(bad_day(), "workstation", NOW)
    page = Page(source)
    assert source.startswith("<!DOCTYPE html>\n")
    assert page.attributes("html") == [{"lang": "en"}]
    assert page.only("title") == "workstation: people and services"
    metas = page.attributes("meta")
    assert metas[0] == {"charset": "utf-8"}
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas


def test_it_has_no_element_that_runs_or_loads_anything() -> None:
    page = page_of(bad_day())
    assert {tag for tag, _ in page.elements} <= ALLOWED
    named = {name for _, has in page.elements for name in has}
    assert not [name for name in named if name.startswith("on") or name in {"src", "style", "action", "srcset"}]
    assert [has["href"] for _, has in page.elements if "href" in has] == ["data:,"]


def test_its_style_refers_to_nothing_elsewhere() -> None:
    style = page_of(bad_day()).only("style")
    assert not re.search(r"url\(|@import|https?:|//|expression|image-set|attr\(", style)


def test_its_policy_lets_nothing_through_but_its_own_style() -> None:
    page = page_of(bad_day())
    (policy,) = [has["content"] or "" for has in page.attributes("meta") if "http-equiv" in has]
    said = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    digest = b64encode(sha256(page.only("style").encode()).digest()).decode()
    assert said.pop("img-src") == "data:"
    assert said.pop("style-src") == f"'sha256-{digest}'"
    assert said.pop("default-src") == "'none'"
    assert set(said.values()) <= {"'none'"}


def test_its_policy_stands_before_all_that_it_is_about() -> None:
    page = page_of(bad_day())
    tags = [tag for tag, has in page.elements if tag in {"link", "style", "title"} or "http-equiv" in has]
    assert tags[0] == "meta"


def test_a_table_says_of_each_head_what_it_is_the_head_of() -> None:
    page = page_of(bad_day())
    assert {has["scope"] for has in page.attributes("th")} == {"col", "rowgroup"}
    assert len(page.named("h1")) == 1
    ids = [str(has["id"]) for _, has in page.elements if "id" in has]
    assert sorted(ids) == ["machine", "people"]
    assert {has["aria-labelledby"] for _, has in page.elements if "aria-labelledby" in has} == set(ids)


@pytest.mark.parametrize("status", [bad_day(), alone(), hostile("x"), large(30)])
def test_each_row_of_the_table_is_as_wide_as_its_head(status: MachineStatus) -> None:
    page = page_of(status)
    width = len([has for has in page.attributes("th") if has["scope"] == "col"])
    covered = sum(
        int(has.get("rowspan") or 1) * int(has.get("colspan") or 1)
        for tag, has in page.elements
        if tag == "td" or has.get("scope") == "rowgroup"
    )
    assert covered == width * len(rows_of(page))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_text_has_the_contrast_of_wcag_aa(scheme: str) -> None:
    blocks = re.findall(r":root \{([^}]*--ground[^}]*)\}", page_of(bad_day()).only("style"))
    colours = dict(re.findall(r"--(\w+): #(\w{6})", blocks[scheme == "dark"]))
    assert set(colours) == {"ground", "text", "soft", "line", "bad", "wait", "good"}
    for name in set(colours) - {"ground", "line"}:
        assert contrast(colours[name], colours["ground"]) >= 4.5, name


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, as WCAG 2 defines it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of rrggbb."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_first_sentence_names_who_needs_somebody() -> None:
    page = page_of(bad_day())
    assert page.only("p", "verdict") == "4 of 10 need attention: dave, carol, heidi, mallory."
    assert "The next run would change something for 2." in page.only("header")


def test_where_all_is_well_it_says_so_and_nothing_looks_bad() -> None:
    page = page_of(alone())
    assert page.only("p", "verdict") == "Nobody needs attention."
    assert not [has for _, has in page.elements if "bad" in _classes(has)]
    assert "This machine" not in page.named("h2")


def test_of_many_in_need_the_first_are_named() -> None:
    assert page_of(large(200)).only("p", "verdict").endswith("user0070 and 12 more.")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "all done"),
        (1, "could not run"),
        (3, "some people failed"),
        (4, "a guard held cuts"),
        (5, "refused"),
        (99, "journal"),
    ],
)
def test_the_last_run_is_told_in_words_and_looks_bad_unless_it_was_good(code: int, words: str) -> None:
    page = page_of(replace(alone(), run=RunStatus("run", NOW - 3 * 3600 - 59, code)))
    told = page.named("dd")[:2]
    assert words in told[0]
    assert f"(exit {code})" in told[0]
    assert told[1] == "2026-11-24 11:16 UTC, 3 hours before this look"
    assert bool(page.named("dd", "bad")) == (code != 0)


def test_a_machine_without_a_run_and_without_people_is_a_page_too() -> None:
    page = page_of(MachineStatus(None, ()))
    assert page.only("p", "verdict") == "Nobody is on the roster, and rosterd manages nobody here."
    assert page.named("dd")[0] == "none over everybody yet"
    assert page.named("table") == []


def test_what_concerns_the_machine_comes_before_the_people() -> None:
    page = page_of(bad_day())
    section = page.only("section")
    for text in (*bad_day().problems, *bad_day().unseen, *bad_day().changes):
        assert text in section
    assert page.named("h2") == ["This machine", "People and their services"]


def test_people_keep_their_order() -> None:
    assert page_of(bad_day()).named("strong") == [user.name for user in bad_day().users]


def test_a_service_is_one_row() -> None:
    rows = rows_of(page_of(bad_day()))
    assert rows[0] == (
        "dave power-user active, uid 1004t3unhealthy3776pid 4242 of carol, in run-u42.service"
        "t3-serve@dave.service activating (auto-restart)14cap 2 GiB"
    )
    assert rows[1] == (
        "playwrightok8934pid 1321 of daveplaywright-mcp@dave.service active (running)"
        "playwright-snapshot-refresh@dave.timer active (waiting)0153 MiB, no cap"
    )


def test_every_value_of_everybody_is_in_their_block() -> None:
    blocks = page_of(bad_day()).named("tbody")
    for user, block in zip(bad_day().users, blocks, strict=True):
        told = [user.name, user.tier or "not on the roster", user.state.value, *user.problems, *user.pending]
        told += [*user.changes, "no account" if user.uid is None else f"uid {user.uid}"]
        for service in user.services:
            told += [service.name, service.health.value, str(service.port)]
            told += [part for unit in service.units for part in (unit.name, f"{unit.active} ({unit.sub})")]
        assert [part for part in told if part not in block] == []


def test_a_unit_that_is_not_enabled_is_said_to_be_disabled() -> None:
    alice = person("alice", 0)
    status = replace(alone(), users=(replace(alice, services=tuple(off(service) for service in alice.services)),))
    rows = rows_of(page_of(status))
    assert "t3-serve@alice.service inactive (dead), disabled" in rows[0]
    assert "nobody listens" in rows[0]
    assert "disabled" not in rows_of(page_of(alone()))[0]


def test_a_person_without_a_service_has_a_row() -> None:
    ivan = next(user for user in bad_day().users if user.state is AccountState.TOMBSTONE)
    assert rows_of(page_of(replace(alone(), users=(ivan,)))) == [
        "ivan not on the roster tombstone, uid 1009no services"
    ]


@pytest.mark.parametrize("health", list(Health))
def test_health_is_told_by_its_word_and_the_word_is_explained(health: Health) -> None:
    page = page_of(alone(health))
    assert page.named("td", "health") == [health.value] * 2
    assert health.value in page.only("footer")


def test_every_state_is_explained() -> None:
    assert [state for state in AccountState if state.value not in page_of(alone()).only("footer")] == []


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_text_is_that_text_wherever_it_stands(text: str) -> None:
    source = status_page(hostile(text), text, NOW)
    inert, page = page_of(hostile("x"), "x"), Page(source)
    assert page.elements == inert.elements
    shown = re.sub(
        "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]",
        lambda found: f"\\x{ord(found.group()):02x}",
        text,
    )
    assert source.count(escape(shown, quote=True)) == 16
    for tag, kind, wanted in (
        ("title", None, f"{shown}: people and services"),
        ("h1", None, shown),
        ("p", "verdict", f"1 of 1 needs attention: {shown}."),
        ("strong", None, shown),
        ("td", "service", shown),
        ("td", "listener", f"pid 812 of {shown}"),
        ("li", None, f"{shown} {shown} ({shown})"),
    ):
        assert page.only(tag, kind) == wanted, tag
    assert page.named("dd")[3:6] == [shown] * 3
    assert page.named("dd")[6:9] == [shown] * 3
    assert page.named("span", "soft")[0] == shown


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_unit_that_is_not_the_services_own_is_named_as_it_is(text: str) -> None:
    status = hostile(text)
    (user,) = status.users
    (service,) = user.services
    stranger = replace(service, units=())
    page = page_of(replace(status, users=(replace(user, services=(stranger,)),)))
    assert {tag for tag, _ in page.elements} <= ALLOWED
    assert page.only("td", "listener").startswith("pid 812 of ")


def test_it_can_be_written_as_utf_8_whatever_the_names_are() -> None:
    for text in HOSTILE:
        source = status_page(hostile(text), text, NOW).encode()
        assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", source)


def test_a_thousand_people_take_a_fraction_of_a_second_and_ten_times_the_people_ten_times_that() -> None:
    small, big = large(100), large(1000)
    fast, slow = (min(_seconds(status) for _ in range(5)) for status in (small, big))
    assert slow < 0.3
    assert slow < 20 * fast


def _seconds(status: MachineStatus) -> float:
    started = time.process_time()  # not what others run beside it
    status_page(status, "workstation", NOW)
    return time.process_time() - started
