"""The steps in one person's home, as attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from reconciler.core.days import shown_time
from reconciler.core.explanation import HOME, UNSEEN, Attribute, Case
from reconciler.core.home_records import StepRecord
from reconciler.core.home_steps import (
    CommandStep,
    DirectoryStep,
    FileStep,
    GitStep,
    HomeStep,
    LayoutStep,
    McpStep,
    RetireStep,
    StepBody,
)
from reconciler.core.observed import HomeWork
from reconciler.core.roster import IMPLICIT_REPO
from reconciler.core.site_homes import CODE, MCP, TOKEN


def home_attributes(case: Case) -> Iterator[Attribute]:
    """Yield each step that the person is to have in their home, in the order in which they are taken."""
    work = case.observed.home_work
    if case.wanted is None:
        return
    failed: list[str] = []
    for step in case.wanted.steps:
        record = None if work is None else work.records.get(case.name, {}).get(step.name)
        waits = next((name for name in failed if step.is_below(name)), None)
        if record is not None and not record.went_well:
            failed.append(step.name)
        there = UNSEEN if work is None else f"waits for {waits}" if waits else _there(case, step, record, work)
        yield Attribute(HOME, step.name, _wanted(step.body), _why(case, step), there)


def _wanted(body: StepBody) -> str:  # noqa: PLR0911 (one arm for each kind)
    """Say in few words what a step makes; the plan has them all."""
    match body:
        case DirectoryStep():
            return f"folder ~/{body.path}"
        case FileStep():
            return f"~/{body.path}"
        case GitStep():
            return f"clone ~/{body.path}"
        case McpStep():
            return f"MCP server {body.server}"
        case CommandStep():
            return f"run {body.run[0]}"
        case LayoutStep():
            return f"~/{body.path}, {body.layout}"
        case RetireStep():
            return f"retire {body.describe()}"
        case _:
            assert_never(body)


def _why(case: Case, step: HomeStep) -> str:
    """Say where a step is defined: at `homes`, or for a standard one at what it is made from."""
    if step.name in case.site.homes:
        return case.sources.of_site("homes", step.name)
    if step.name in (CODE, f"{CODE}/{IMPLICIT_REPO}"):
        key = "infra_url" if case.site.code.infra_url is not None else "repo_base"
        return case.sources.of_site("code", key)
    if step.is_below(CODE):
        return case.here("repos", step.name.partition("/")[2])
    if step.name == TOKEN:
        return case.sources.of_site("playwright", "token_file")
    return case.sources.of_site("services", "playwright") if step.name == MCP else case.sources.of_site("homes")


def _there(case: Case, step: HomeStep, record: StepRecord | None, work: HomeWork) -> str:
    if record is not None:
        words = f"{record.ending}, {shown_time(record.at)}"
        return f"{words}; rests while parked" if case.wanted is not None and case.wanted.parked else words
    if case.wanted is not None and case.wanted.parked:
        return "not done; rests while parked"
    if isinstance(step.body, McpStep) and case.name not in work.with_agent:
        return "left out, no agent's command here"
    if isinstance(step.body, FileStep) and step.body.source and "{" not in step.body.source:
        return "not done yet" if step.body.source in work.sources else f"left out, no {step.body.source} here"
    return "not done yet"
