"""The site's policy: each bad file is one of cases/site with what is told about it beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.core.home_steps import CodeLayout, DirectoryStep, HomeStep
from reconciler.core.records import Step
from reconciler.core.site import (
    ClusterCheck,
    Code,
    Guards,
    Hook,
    Limits,
    Namespaces,
    OutputKind,
    Playwright,
    PortRule,
    Proxy,
    Service,
    Site,
    Tier,
    TierSource,
    parse_site,
    template_of,
)
from reconciler.core.site_homes import SiteStep
from reconciler.errors import FileRefused

CASES = Path(__file__).parent.parent / "cases" / "site"
EVERYTHING = b"""\
shell: /usr/bin/fish
tiers:
  staff: {groups: [wheel], admin: true, cluster: exempt, namespaces: required,
    limits: {memory_max: 8G, cpu_quota: 200%, tasks_max: 4096}}
  guest: {}
services:
  notebook:
    units: [jupyter@.service, jupyter-cull@.timer]
    port: {variable: JUPYTER_PORT, base: 9000, limit: 9009, env_file: "/etc/jupyter/{user}.env"}
    route: true
    enabled: false
outputs: [dispatch-json]
proxies: {nginx-map: {check: [/opt/nginx, -t, -t], unit: front.service}, caddy: {check: null, unit: null}}
guards: {max_cuts: 3, max_cut_percent: 0}
k8s_users: {command: [/usr/bin/k8s, users, users], timeout: 20}
create_groups: true
subids: false
settle: 0
listen: 0
code: {infra_url: https://example.org/infra.git, branch: main, repo_base: "git@example.org:team"}
playwright: {snapshot_url: "https://example.org/state/{user}", token_file: /etc/token}
hooks: {revoke_cluster_rbac: {command: [/bin/revoke, "{k8s_user}"]}}
legacy_units: {notebook: [jupyter.service]}
homes:
  notes: {directory: {path: notes}, tiers: [staff], layouts: [single]}
  playwright-token: null
metrics: /var/lib/metrics/rosterd.prom
"""


@pytest.mark.parametrize("case", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_bad_site_file_is_refused_in_these_words(case: Path) -> None:
    with pytest.raises(FileRefused) as caught:
        parse_site("site.yaml", case.read_bytes())
    assert str(caught.value) + "\n" == case.with_suffix(".txt").read_text(encoding="utf-8")


def test_each_case_has_a_file_and_its_words() -> None:
    assert {path.stem for path in CASES.glob("*.yaml")} == {path.stem for path in CASES.glob("*.txt")}


@pytest.mark.parametrize("text", ["", "# Nothing but a comment.\n", "{}\n"])
def test_a_file_that_says_nothing_leaves_the_defaults(text: str) -> None:
    assert parse_site("site.yaml", text.encode()) == Site()


def test_every_setting_is_read() -> None:
    assert parse_site("site.yaml", EVERYTHING) == Site(  # noqa: S604 (a login shell)
        shell="/usr/bin/fish",
        tiers={
            "staff": Tier(
                "staff",
                ("wheel",),
                admin=True,
                cluster=ClusterCheck.EXEMPT,
                namespaces=Namespaces.REQUIRED,
                limits=Limits("8G", "200%", 4096),
            ),
            "guest": Tier("guest"),
        },
        services={
            "notebook": Service(
                "notebook",
                ("jupyter@.service", "jupyter-cull@.timer"),
                PortRule("JUPYTER_PORT", 9000, 9009, "/etc/jupyter/{user}.env"),
                route=True,
                enabled=False,
            )
        },
        outputs=(OutputKind.DISPATCH_JSON,),
        proxies={
            OutputKind.NGINX_MAP: Proxy(("/opt/nginx", "-t", "-t"), "front.service"),
            OutputKind.CADDY: Proxy(),
        },
        guards=Guards(3, 0),
        k8s_users=TierSource(command=("/usr/bin/k8s", "users", "users"), timeout=20),
        create_groups=True,
        subids=False,
        settle=0,
        code=Code("https://example.org/infra.git", "main", "git@example.org:team"),
        playwright=Playwright("https://example.org/state/{user}", "/etc/token"),
        hooks={Step.REVOKE_CLUSTER_RBAC: Hook(("/bin/revoke", "{k8s_user}"), timeout=30)},
        homes={
            "notes": SiteStep(HomeStep("notes", DirectoryStep("notes"), 30), ("staff",), (CodeLayout.SINGLE,)),
            "playwright-token": None,
        },
        legacy_units={"notebook": ("jupyter.service",)},
        listen=0,
        metrics="/var/lib/metrics/rosterd.prom",
    )


def test_the_shipped_site_file_shows_the_defaults_commented_out() -> None:
    shipped = (Path(__file__).parents[3] / "packaging" / "site.yaml").read_text(encoding="utf-8")
    assert parse_site("site.yaml", shipped.encode()) == Site()
    before, _, example = shipped.partition("# A catalogue of your own")
    settings = before + example[example.index("# The maps to write") :]
    # A setting stands right behind the #, or is indented by twos; prose by one or three.
    uncommented = re.sub(r"(?m)^#((?:  )*\w.*)$", r"\1", settings)
    assert parse_site("site.yaml", uncommented.encode()) == Site()


@pytest.mark.parametrize("text", ["proxies: null", "proxies: {}", "proxies: {caddy: {}}", "proxies: {nginx-map: null}"])
def test_what_is_not_said_of_a_proxy_is_as_by_default(text: str) -> None:
    assert parse_site("site.yaml", text.encode()) == Site()
    site = parse_site("site.yaml", b"proxies: {caddy: {unit: front.service}}")
    assert site.proxies[OutputKind.CADDY] == replace(Site().proxies[OutputKind.CADDY], unit="front.service")


def test_null_switches_a_source_off() -> None:
    text = b"k8s_users: null\ncode: {infra_url: null}\nhooks: null\nmetrics: null\nguards: null\n"
    assert parse_site("site.yaml", text) == Site()


def test_a_range_ends_999_above_its_base_and_at_the_last_port() -> None:
    text = """services:
  a: {{units: [a@.service], port: {{variable: A, base: {}, env_file: "/etc/a/{{user}}"}}}}
"""
    for base, limit in ((8000, 8999), (65000, 65535)):
        port = parse_site("site.yaml", text.format(base).encode()).services["a"].port
        assert port is not None
        assert port.limit == limit


@pytest.mark.parametrize(
    ("file_name", "owner"),
    [
        ("playwright-bob.env", "bob"),
        ("playwright-.env", None),
        ("playwright-Bob.env", None),
        ("playwright-root.env", "root"),
        ("playwright.env", None),
        (".playwright-bob.env.rosterd-new", None),
        ("bob.env", None),
        ("playwright-bob.env~", None),
    ],
)
def test_an_env_file_belongs_to_the_user_of_its_name(file_name: str, owner: str | None) -> None:
    rule = PortRule("P", 8000, 8001, "/etc/t3-serve/playwright-{user}.env")
    assert rule.owner_of(file_name) == owner
    if owner is not None:
        assert rule.path_for(owner) == f"/etc/t3-serve/{file_name}"


@pytest.mark.parametrize(
    ("instance", "template"),
    [
        ("t3-serve@alice.service", "t3-serve@.service"),
        ("playwright-snapshot-refresh@a-b_c.timer", "playwright-snapshot-refresh@.timer"),
    ],
)
def test_an_instance_has_one_template(instance: str, template: str) -> None:
    assert template_of(instance) == template
