"""`rosterd status --html`: one page that needs nothing else. No I/O here.

Everything that comes from elsewhere passes `_text`, and nothing else makes text of a value. Beside that, the page's own
policy lets a browser run and load nothing: no script, no picture, no font, and of styles the one block in the page.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from html import escape

from reconciler.core.days import shown_time
from reconciler.core.status import Health, MachineStatus, RunStatus, ServiceStatus, UnitStatus, UserStatus
from reconciler.core.status_words import (
    HEALTH_WORDS,
    NOTHING,
    STATE_WORDS,
    exit_words,
    is_own_listener,
    listener_words,
    memory_use,
    needs_somebody,
    restarts_of,
    run_ended,
    summary,
    unit_words,
)
from reconciler.core.text import escaped

# A column of the table: its class in the style, and its head.
_COLUMNS = (
    ("service", "Service"),
    ("health", "Health"),
    ("port", "Port"),
    ("listener", "Listener"),
    ("units", "Units"),
    ("restarts", "Restarts"),
    ("memory", "Memory"),
)

# Every text has at least the contrast of WCAG AA (4.5:1) on its ground, in both schemes; a test computes it.
_STYLE = """
:root { color-scheme: light dark; --ground: #fcfcfa; --text: #1e2124; --soft: #5c6269; --line: #dddcd6;
  --bad: #a8201a; --wait: #7a5400; --good: #2c6440; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ground: #17191c; --text: #e3e4e1; --soft: #a2a8ae; --line: #353a3f;
    --bad: #ff9d92; --wait: #e6bf6c; --good: #93cda0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 84rem; padding: 2rem 1.5rem; background: var(--ground); color: var(--text);
  font: 0.8125rem/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1, h2, p, dl, dd, ul { margin: 0; padding: 0; }
h1, h2 { font-size: 0.875rem; font-weight: 600; }
h2 { margin: 2rem 0 0.5rem; }
ul { list-style: none; }
.verdict { margin: 0.25rem 0; font-size: 1.375rem; line-height: 1.3; }
.soft, dt, thead th, summary { color: var(--soft); }
.bad { color: var(--bad); font-weight: 600; }
.wait { color: var(--wait); font-weight: 600; }
.good { color: var(--good); }
dl { display: grid; grid-template-columns: 5.5rem 1fr; column-gap: 0.75rem; }
dt { grid-column: 1; }
dd { grid-column: 2; }
header dl { margin-top: 1rem; }
table { width: 100%; border-collapse: collapse; text-align: left; }
th, td { padding: 0.125rem 0.75rem 0.125rem 0; vertical-align: baseline; font-weight: normal; }
thead th { padding-bottom: 0.375rem; white-space: nowrap; }
tbody { border-top: 1px solid var(--line); }
tbody tr:first-child > * { padding-top: 0.5rem; }
tbody tr:last-child > *, tbody th { padding-bottom: 0.625rem; }
tbody th strong { font-size: 0.9375rem; line-height: 1.3; }
.health, .port, .memory { white-space: nowrap; }
.port, .restarts { text-align: right; }
footer { margin-top: 2rem; border-top: 1px solid var(--line); padding-top: 0.75rem; }
footer dl { margin: 0.5rem 0; }
@media print, screen and (min-width: 60rem) {
  tbody th { min-width: 10rem; }
  .service { min-width: 6.25rem; }
}
@media screen and (min-width: 72rem) {
  .listener { min-width: 10rem; }
  .units { min-width: 24rem; width: 100%; }
  .units li { display: grid; grid-template-columns: 1fr 10.5rem; column-gap: 0.75rem; }
}
@media screen and (max-width: 59.99rem) {
  body { padding: 1rem; font-size: 0.875rem; }
  table, tbody, th, td { display: block; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody { padding: 0.75rem 0; }
  tbody tr { display: grid; grid-template-columns: 5.5rem 1fr; column-gap: 0.75rem; margin-top: 0.5rem; }
  tbody tr:first-child { margin: 0; }
  tbody tr > *, tbody tr:first-child > *, tbody tr:last-child > * { padding: 0; }
  tbody th, .units, .wide { grid-column: 1 / -1; }
  tbody th { margin-bottom: 0.5rem; }
  tbody th span + br { display: none; }
  tbody th span { margin-right: 0.5rem; }
  .health, .listener, .memory { grid-column: 2; white-space: normal; }
  .port, .restarts { text-align: left; }
  .service { font-weight: 600; }
  .units li { padding-left: 1rem; text-indent: -1rem; }
  .none { display: none; }
  .port::before { content: "Port "; }
  .restarts::before { content: "Restarts "; }
  .memory::before { content: "Memory "; }
  td::before { color: var(--soft); }
}
@media print {
  :root { font-size: 12px; }
  body { max-width: none; padding: 0; }
  tbody { break-inside: avoid; }
  footer { display: none; }
}
"""
_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; img-src data:; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"

_HEALTH_CLASSES = {
    Health.OK: "good",
    Health.OFF: "soft",
    Health.STARTING: "wait",
    Health.UNHEALTHY: "bad",
    Health.UNKNOWN: "wait",
}


def status_page(status: MachineStatus, host: str, now: int) -> str:
    """Return the page as HTML. `host` is the machine's name; `now`, when it was looked at, in seconds since 1970."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            *_head(host),
            "<body>",
            *_header(status, host, now),
            *_machine(status),
            *_people(status.users),
            *_footer(),
            "</body>",
            "</html>",
            "",
        ]
    )


def _text(value: str) -> str:
    """Return a text from elsewhere as HTML that is that text and nothing else."""
    return escape(escaped(value), quote=True)


def _head(host: str) -> Iterator[str]:
    yield "<head>"
    yield '<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="referrer" content="no-referrer">'
    yield f"<title>{_text(host)}: people and services</title>"
    # Else a browser asks the server for one.
    yield '<link rel="icon" href="data:,">'
    yield f"<style>{_STYLE}</style>"
    yield "</head>"


def _header(status: MachineStatus, host: str, now: int) -> Iterator[str]:
    verdict, *rest = summary(status)
    look = " bad" if any(needs_somebody(user) for user in status.users) else ""
    yield "<header>"
    yield f"<h1>{_text(host)}</h1>"
    yield f'<p class="verdict{look}">{_text(verdict)}</p>'
    if rest:
        yield f"<p>{_text(' '.join(rest))}</p>"
    yield "<dl>"
    yield f"<dt>Last run</dt>{_run(status.run, now)}"
    yield f"<dt>Looked at</dt><dd>{shown_time(now)}</dd>"
    yield "</dl>"
    yield "</header>"


def _run(run: RunStatus | None, now: int) -> str:
    if run is None:
        return "<dd>none over everybody yet</dd>"
    look = ' class="bad"' if run.exit else ""
    return f"<dd{look}>{exit_words(run.exit)}</dd><dd>{run_ended(run, now)}</dd>"


def _machine(status: MachineStatus) -> Iterator[str]:
    notes = [
        *_notes("Problems", status.problems, "bad"),
        *_notes("Not read", status.unseen, "wait"),
        *_notes("Next run", status.changes),
    ]
    if notes:
        yield '<section aria-labelledby="machine">'
        yield '<h2 id="machine">This machine</h2>'
        yield f"<dl>{''.join(notes)}</dl>"
        yield "</section>"


def _people(users: Sequence[UserStatus]) -> Iterator[str]:
    yield "<main>"
    yield '<h2 id="people">People and their services</h2>'
    if users:
        heads = "".join(f'<th scope="col" class="{name}">{head}</th>' for name, head in _COLUMNS)
        yield '<table aria-labelledby="people">'
        yield f'<thead><tr><th scope="col">Person</th>{heads}</tr></thead>'
        for user in users:
            yield from _user(user)
        yield "</table>"
    else:
        yield "<p>None.</p>"
    yield "</main>"


def _user(user: UserStatus) -> Iterator[str]:
    """Yield the block of a person: a row a service, then what there is to say."""
    notes = [
        *_notes("Problems", user.problems, "bad"),
        *_notes("Pending", user.pending),
        *_notes("Next run", user.changes),
    ]
    rows = [_service(service) for service in user.services]
    rows += [_wide(f"<dl>{''.join(notes)}</dl>")] if notes else []
    first, *others = rows or [_wide('<span class="soft">no services</span>')]
    yield "<tbody>"
    yield f"<tr>{_person(user, 1 + len(others))}{first}</tr>"
    yield from (f"<tr>{row}</tr>" for row in others)
    yield "</tbody>"


def _person(user: UserStatus, rows: int) -> str:
    uid = "no account" if user.uid is None else f"uid {user.uid}"
    told = [user.tier or "not on the roster", f"{user.state.value}, {uid}"]
    lines = "<br> ".join(f'<span class="soft">{_text(line)}</span>' for line in told)
    return f'<th scope="rowgroup" rowspan="{rows}"><strong>{_text(user.name)}</strong><br> {lines}</th>'


def _service(service: ServiceStatus) -> str:
    units = "".join(f"<li>{_unit(unit)}</li>" for unit in service.units)
    stranger = service.listener is not None and not is_own_listener(service)
    restarts = restarts_of(service)
    return "".join(
        [
            _cell("service", service.name),
            _cell("health", service.health.value, _HEALTH_CLASSES[service.health]),
            _cell("port", NOTHING if service.port is None else str(service.port)),
            _cell("listener", listener_words(service), "bad" if stranger else ""),
            f'<td class="units"><ul>{units}</ul></td>',
            _cell("restarts", NOTHING if restarts is None else str(restarts)),
            _cell("memory", memory_use(service)),
        ]
    )


def _unit(unit: UnitStatus) -> str:
    name = _text(unit.name).replace("@", "<wbr>@")
    return f'<span>{name}</span> <span class="soft">{_text(unit_words(unit))}</span>'


def _cell(column: str, value: str, look: str = "") -> str:
    names = " ".join(name for name in (column, look, "none" if value == NOTHING else "") if name)
    return f'<td class="{names}">{_text(value)}</td>'


def _wide(content: str) -> str:
    """Return a cell of HTML in place of those of a service."""
    return f'<td class="wide" colspan="{len(_COLUMNS)}">{content}</td>'


def _notes(title: str, texts: Sequence[str], look: str = "") -> list[str]:
    """Return a term and what is said under it, or nothing."""
    term = f'<dt class="{look}">' if look else "<dt>"
    return [f"{term}{title}</dt>", *(f"<dd>{_text(text)}</dd>" for text in texts)] if texts else []


def _footer() -> Iterator[str]:
    yield "<footer>"
    yield "<details><summary>What the words mean</summary>"
    for words in (STATE_WORDS, HEALTH_WORDS):
        yield f"<dl>{''.join(f'<dt>{word.value}</dt><dd>{meaning}</dd>' for word, meaning in words.items())}</dl>"
    yield "<p>Restarts are those since the last run.</p>"
    yield "</details>"
    yield "</footer>"
