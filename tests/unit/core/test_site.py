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
    instance_of,
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


# --- limits, listening, metrics ---


def limits_of(text: str) -> Limits:
    return parse_site("site.yaml", f"tiers: {{staff: {{limits: {text}}}}}\n".encode()).tiers["staff"].limits


def is_refused(text: str) -> bool:
    try:
        parse_site("site.yaml", text.encode())
    except FileRefused as refused:
        return str(refused).startswith("site.yaml:1:")
    return False


@pytest.mark.parametrize("size", ["1M", "8G", "2T", "9999999M", "1%", "25%", "100%"])
def test_memory_is_a_size_with_its_unit_or_a_share(size: str) -> None:
    assert limits_of(f"{{memory_max: {size}}}") == Limits(memory_max=size)


@pytest.mark.parametrize(
    "size",
    [
        "0M",
        "08G",
        "8g",
        "8GB",
        "8Gi",
        "8.5G",
        "101%",
        "0%",
        "200%",
        "8589934592",
        "-1G",
        "infinity",
        "''",
        "8 G",
        "'4096'",
    ],
)
def test_memory_in_other_words_is_refused(size: str) -> None:
    assert is_refused(f"tiers: {{staff: {{limits: {{memory_max: {size}}}}}}}\n")


@pytest.mark.parametrize(
    ("share", "is_good"), [("1%", True), ("50%", True), ("6400%", True), ("0%", False), ("2", False)]
)
def test_processor_time_is_a_percentage_of_one(share: str, is_good: bool) -> None:  # noqa: FBT001 (a column of the table)
    assert is_refused(f"tiers: {{staff: {{limits: {{cpu_quota: {share}}}}}}}\n") != is_good


@pytest.mark.parametrize(("number", "is_good"), [(64, True), (1 << 22, True), (63, False), ((1 << 22) + 1, False)])
def test_tasks_are_enough_to_log_in_and_not_more_than_the_kernel_has(number: int, is_good: bool) -> None:  # noqa: FBT001 (a column of the table)
    assert is_refused(f"tiers: {{staff: {{limits: {{tasks_max: {number}}}}}}}\n") != is_good


@pytest.mark.parametrize(
    "text", ["null", "{}", "{memory_max: null}", "{memory_max: null, cpu_quota: null, tasks_max: null}"]
)
def test_null_is_no_limit(text: str) -> None:
    assert limits_of(text) == Limits()
    assert limits_of(text).settings == {}


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("listen: 0", True),
        ("listen: 600", True),
        ("listen: 601", False),
        ("listen: -1", False),
        ("listen: null", False),
        ("metrics: /var/lib/prometheus/node-exporter/rosterd.prom", True),
        ("metrics: rosterd.prom", False),
        ("metrics: /var/lib/metrics/rosterd.txt", False),
        ("metrics: /home/alice/rosterd.prom", False),
        ("metrics: true", False),
        ("metrics: [/a.prom]", False),
    ],
)
def test_how_long_to_wait_and_where_the_metrics_go_have_their_bounds(text: str, is_good: bool) -> None:  # noqa: FBT001 (a column of the table)
    assert is_refused(f"{text}\n") != is_good


@pytest.mark.parametrize(
    ("unit", "instance"),
    [
        ("t3-serve@alice.service", "alice"),
        ("t3-serve@bob-smith.timer", "bob-smith"),
        ("ssh.service", ""),
        ("t3@.service", ""),
        ("user-1000.slice", ""),
    ],
)
def test_an_instance_is_what_stands_behind_the_sign(unit: str, instance: str) -> None:
    assert instance_of(unit) == instance
