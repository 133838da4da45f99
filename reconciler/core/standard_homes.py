"""The steps of one person's home: the site's standard ones, then what the site adds."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.core.home_steps import CodeLayout, FileStep, GitStep, HomeStep, LayoutStep, McpStep
from reconciler.core.roster import IMPLICIT_REPO, User
from reconciler.core.site import Site
from reconciler.core.site_homes import CODE, MCP, TOKEN

_BROWSER = "playwright"
_CODE_PATH = "code"
_SECONDS, _CLONE_SECONDS, _AGENT_SECONDS = 60, 300, 60
# Secrets in a repository stay ciphertext, whatever the person's own configuration says of the filter.
_FILTERS = ("git-crypt",)


def home_steps(user: User, site: Site) -> tuple[HomeStep, ...]:
    """Return a person's steps in the order they are taken. The site can replace a standard one, or leave it out."""
    standard = [step for step in _standard(user, site) if step.name.partition("/")[0] not in site.homes]
    own = [one for one in site.homes.values() if one is not None]
    fitting = [
        one.step
        for one in own
        if (not one.tiers or user.tier in one.tiers) and (not one.layouts or user.code_layout in one.layouts)
    ]
    return (*standard, *fitting)


def _standard(user: User, site: Site) -> Iterator[HomeStep]:
    yield from _code(user, site)
    if _BROWSER not in site.services:
        return
    if dict(user.services).get(_BROWSER, site.services[_BROWSER].enabled) and site.playwright.token_file:
        token = FileStep(".config/playwright/token", source=site.playwright.token_file, mode="0600")
        yield HomeStep(TOKEN, token, _SECONDS)
    if site.services[_BROWSER].port is not None:
        server = McpStep(_BROWSER, f"http://localhost:{{port.{_BROWSER}}}/mcp")
        yield HomeStep(MCP, server, _AGENT_SECONDS)


def _code(user: User, site: Site) -> Iterator[HomeStep]:
    """Arrange `~/code`, then clone what belongs there; without an address a clone is left out."""
    code = site.code
    repos = user.repos if code.repo_base else ()
    workspace = user.code_layout is CodeLayout.WORKSPACE
    if code.infra_url is None and not (workspace and repos):
        return
    yield HomeStep(CODE, LayoutStep(user.code_layout, _CODE_PATH, code.infra_url, repos), _SECONDS)
    if code.infra_url is not None:
        path = f"{_CODE_PATH}/{IMPLICIT_REPO}" if workspace else _CODE_PATH
        yield _clone(IMPLICIT_REPO, GitStep(path, code.infra_url, code.branch, filters=_FILTERS))
    for repo in repos:
        yield _clone(repo, GitStep(f"{_CODE_PATH}/{repo}", f"{code.repo_base}/{repo}.git", filters=_FILTERS))


def _clone(name: str, step: GitStep) -> HomeStep:
    return HomeStep(f"{CODE}/{name}", step, _CLONE_SECONDS)
