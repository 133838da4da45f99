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
from reconciler.core.status import Health, MachineStatus, ServiceStatus, UserStatus
from reconciler.core.status_words import (
    HEALTH_WORDS,
    NOTHING,
    STATE_WORDS,
    is_own_listener,
    listener_words,
    memory_use,
    needs_somebody,
    restarts_of,
    run_words,
    summary,
    unit_words,
)
from reconciler.core.text import escaped

# A column of the table: its class in the style, and its head.
_COLUMNS = (
    ("service", "Service"),
    ("health", "Health"),
    ("port", "Port"),
    ("listener", "Listens there"),
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
body { margin: 0 auto; max-width: 84rem; padding: 2rem; background: var(--ground); color: var(--text);
  font: 0.875rem/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1, h2, p, dl, dd, ul { margin: 0; padding: 0; }
h1, h2 { font-size: 0.875rem; font-weight: 600; }
h2 { margin: 2rem 0 0.5rem; }
ul { list-style: none; }
.verdict { margin: 0.25rem 0; font-size: 1.375rem; line-height: 1.3; }
.soft, dt, thead th, footer { color: var(--soft); font-weight: normal; }
.bad { color: var(--bad); font-weight: 600; }
.wait { color: var(--wait); font-weight: 600; }
.good { color: var(--good); }
dl { display: grid; grid-template-columns: 6rem 1fr; gap: 0.125rem 1rem; }
dd { grid-column: 2; }
header dl { margin-top: 1rem; }
table { width: 100%; border-collapse: collapse; text-align: left; }
th, td { padding: 0.125rem 1rem 0.125rem 0; vertical-align: baseline; font-weight: normal; }
thead th { padding-bottom: 0.375rem; }
tbody { border-top: 1px solid var(--line); }
tbody tr:first-child > * { padding-top: 0.5rem; }
tbody tr:last-child > *, tbody th { padding-bottom: 0.5rem; }
tbody th { min-width: 9rem; }
tbody th strong { display: block; font-size: 1rem; line-height: 1.25; }
tbody th span { display: block; }
.port, .restarts { text-align: right; }
.service, .health, .port, .memory { white-space: nowrap; }
.notes td { padding-top: 0.375rem; }
footer { margin-top: 2rem; border-top: 1px solid var(--line); padding-top: 0.75rem; }
footer dl { margin: 0.5rem 0 1rem; }
@media (max-width: 56rem) {
  body { padding: 1rem; font-size: 0.9375rem; }
  table, tbody, tr, th, td { display: block; }
  thead { position: absolute; clip-path: inset(50%); }
  tbody { padding: 0.75rem 0; }
  tbody tr > *, tbody tr:first-child > *, tbody tr:last-child > * { padding: 0; text-align: left; white-space: normal; }
  tbody tr { margin-top: 0.5rem; }
  tbody tr:first-child { margin: 0; }
  tbody th span { display: inline; margin-right: 0.75rem; }
  td:not(.note) { display: grid; grid-template-columns: 6rem 1fr; gap: 1rem; }
  td::before { color: var(--soft); font-weight: normal; }
  td.none { display: none; }
LABELS
}
@media print {
  body { max-width: none; padding: 0; font-size: 8pt; }
  tbody { break-inside: avoid; }
  footer { display: none; }
}
"""
_LABELS = "\n".join(f'  .{name}::before {{ content: "{head}"; }}' for name, head in _COLUMNS)
_SHEET = _STYLE.replace("LABELS", _LABELS)
_HASH = b64encode(sha256(_SHEET.encode()).digest()).decode()
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
    yield f"<style>{_SHEET}</style>"
    yield "</head>"


def _header(status: MachineStatus, host: str, now: int) -> Iterator[str]:
    verdict, *rest = summary(status)
    is_bad = bool(status.problems) or any(needs_somebody(user) for user in status.users)
    run_look = ' class="bad"' if status.run is not None and status.run.exit != 0 else ""
    yield "<header>"
    yield f"<h1>{_text(host)}</h1>"
    yield f'<p class="verdict{" bad" if is_bad else ""}">{_text(verdict)}</p>'
    if rest:
        yield f"<p>{_text(' '.join(rest))}</p>"
    yield "<dl>"
    yield f"<dt>Last run</dt><dd{run_look}>{_text(run_words(status.run, now))}</dd>"
    yield f"<dt>This look</dt><dd>{shown_time(now)}</dd>"
    yield "</dl>"
    yield "</header>"


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
    rows = rows or [f'<td class="note soft" colspan="{len(_COLUMNS)}">no services</td>']
    whole = f'<td class="note" colspan="{len(_COLUMNS)}"><dl>{"".join(notes)}</dl></td>'
    yield "<tbody>"
    yield f"<tr>{_person(user, len(rows) + bool(notes))}{rows[0]}</tr>"
    yield from (f"<tr>{row}</tr>" for row in rows[1:])
    if notes:
        yield f'<tr class="notes">{whole}</tr>'
    yield "</tbody>"


def _person(user: UserStatus, rows: int) -> str:
    uid = "no account" if user.uid is None else f"uid {user.uid}"
    told = [user.tier or "not on the roster", f"{user.state.value}, {uid}"]
    lines = "".join(f'<span class="soft">{_text(line)}</span> ' for line in told)
    return f'<th scope="rowgroup" rowspan="{rows}"><strong>{_text(user.name)}</strong> {lines}</th>'


def _service(service: ServiceStatus) -> str:
    units = "".join(f"<li>{_text(unit.name)} <span>{_text(unit_words(unit))}</span></li>" for unit in service.units)
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


def _cell(column: str, value: str, look: str = "") -> str:
    names = " ".join(name for name in (column, look, "none" if value == NOTHING else "") if name)
    return f'<td class="{names}"><span>{_text(value)}</span></td>'


def _notes(title: str, texts: Sequence[str], look: str = "") -> list[str]:
    """Return a term and what is said under it, or nothing."""
    term = f'<dt class="{look}">' if look else "<dt>"
    return [f"{term}{title}</dt>", *(f"<dd>{_text(text)}</dd>" for text in texts)] if texts else []


def _footer() -> Iterator[str]:
    yield "<footer>"
    yield "<details><summary>What the words mean</summary>"
    for words in (STATE_WORDS, HEALTH_WORDS):
        yield f"<dl>{''.join(f'<dt>{word.value}</dt><dd>{meaning}</dd>' for word, meaning in words.items())}</dl>"
    yield "<p>Restarts are those since the last run. Numbers of memory are of this look.</p>"
    yield "</details>"
    yield "</footer>"
