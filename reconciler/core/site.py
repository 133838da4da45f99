"""The site's policy: tiers, the catalogue of services, outputs and guards, read from site.yaml.

A key that the file leaves out keeps the default below; a catalogue that it names (`tiers`,
`services`, `outputs`) replaces the default one whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.core import names
from reconciler.core.document import Mapping as MappingNode
from reconciler.core.document import Node, Scalar, Sequence, read_document
from reconciler.core.fields import Fields, Rule, is_null, shown
from reconciler.core.records import Step
from reconciler.core.site_homes import (
    BRANCH,
    GIT_BASE,
    GIT_URL,
    HOST,
    SOURCE_PLACEHOLDERS,
    SiteStep,
    read_homes,
    refuse_unknown,
)
from reconciler.core.text import printable

HOOK_PLACEHOLDERS = ("{user}", "{authentik_user}", "{k8s_user}")
# A token goes with the request: in clear only within the machine.
SNAPSHOT_URL = Rule(
    re.compile(rf"https://{HOST}(?::\d+)?(?:/\S*)?|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?(?:/\S*)?"),
    "an https address, or http on this machine, as in https://snapshots.example.org/{user}",
)
# With a unit: what was meant as gigabytes and taken for bytes would end every process of the person.
MEMORY = Rule(
    re.compile(r"[1-9][0-9]{0,6}[MGT]|[1-9][0-9]?%|100%"),
    "a size in M, G or T, or a share of all memory, as in 8G or 25%",
)
CPU = Rule(re.compile(r"[1-9][0-9]{0,5}%"), "a percentage of one processor's time, as in 200%")
# A login alone takes a dozen; the kernel has no more than that many process ids (proc(5), pid_max).
FEWEST_TASKS, MOST_TASKS = 64, 1 << 22
# The collector passes over every other name; and root writes nothing below a home.
METRICS = Rule(
    re.compile(rf"(?!/home/)(?:{names.PATH.pattern.pattern})(?<=\.prom)"),
    "an absolute path outside of /home that ends in .prom",
)
_STEP = Rule(re.compile("|".join(Step)), "one of " + ", ".join(Step))
_PORTS_PER_SERVICE = 1000
_FIRST_PORT, _LAST_PORT = 1024, 65535


class ClusterCheck(StrEnum):
    """Whether a tier's members are compared with the cluster's list of tiers."""

    EXEMPT = "exempt"
    CHECKED = "checked"


class Namespaces(StrEnum):
    """Whether a tier's members name Kubernetes namespaces."""

    REQUIRED = "required"
    FORBIDDEN = "forbidden"


class OutputKind(StrEnum):
    """The files generated from the roster for the programs in front of the services."""

    TTYD_USER_MAP = "ttyd-user-map"
    TTYD_ADMINS = "ttyd-admins"
    DISPATCH_JSON = "dispatch-json"
    NGINX_MAP = "nginx-map"
    CADDY = "caddy"

    @property
    def path(self) -> str:
        """Where the file lies."""
        return _OUTPUT_PATHS[self]


_DEFAULT_OUTPUTS = (OutputKind.TTYD_USER_MAP, OutputKind.TTYD_ADMINS, OutputKind.DISPATCH_JSON)
_OUTPUT_PATHS = {
    OutputKind.TTYD_USER_MAP: "/etc/ttyd-user-map",
    OutputKind.TTYD_ADMINS: "/etc/ttyd-admins",
    OutputKind.DISPATCH_JSON: "/etc/t3-serve/dispatch.json",
    OutputKind.NGINX_MAP: "/etc/t3-serve/nginx-map.conf",
    OutputKind.CADDY: "/etc/t3-serve/caddy-map.conf",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one person may use in all, as systemd has it (systemd.resource-control(5)); None is no limit."""

    memory_max: str | None = None
    cpu_quota: str | None = None
    tasks_max: int | None = None

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a slice; none where nothing is limited."""
        found = {"MemoryMax": self.memory_max, "CPUQuota": self.cpu_quota, "TasksMax": self.tasks_max}
        return {key: str(value) for key, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Tier:
    """What belonging to a tier means. `limits` are those of each member."""

    name: str
    groups: tuple[str, ...] = ()
    admin: bool = False
    cluster: ClusterCheck = ClusterCheck.CHECKED
    namespaces: Namespaces = Namespaces.FORBIDDEN
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class PortRule:
    """Where a service's ports come from: the range `base`..`limit`, kept in `variable` of `env_file`."""

    variable: str
    base: int
    limit: int
    env_file: str

    def path_for(self, user: str) -> str:
        """Return the env file of one user."""
        return self.env_file.replace("{user}", user)

    def owner_of(self, file_name: str) -> str | None:
        """Return whose env file a file of this name would be, None where it is nobody's."""
        prefix, suffix = self.env_file.rpartition("/")[2].split("{user}")
        if not file_name.startswith(prefix) or not file_name.endswith(suffix):
            return None
        owner = file_name[len(prefix) : len(file_name) - len(suffix)]
        return owner if names.OS_USER.accepts(owner) else None

    @property
    def folder(self) -> str:
        """The folder that holds the env files of all users."""
        return self.env_file.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the catalogue: its template units and, if it listens, its port."""

    name: str
    units: tuple[str, ...]
    port: PortRule | None = None
    route: bool = False
    enabled: bool = True

    def instances(self, user: str) -> tuple[str, ...]:
        """Return the units of one user, in the catalogue's order."""
        return tuple(unit.replace("@.", f"@{user}.") for unit in self.units)


@dataclass(frozen=True, slots=True)
class Guards:
    """How many people one run may cut off by itself."""

    max_cuts: int = 1
    max_cut_percent: int = 10


@dataclass(frozen=True, slots=True)
class TierSource:
    """Where the cluster's map of tiers comes from: a file, or a command and its time limit in seconds."""

    file: str | None = None
    command: tuple[str, ...] = ()
    timeout: int = 10


@dataclass(frozen=True, slots=True)
class Hook:
    """The site's own command for an external step, and its time limit in seconds.

    `{user}`, `{authentik_user}` and `{k8s_user}` in its arguments stand for the names of who has left.
    """

    command: tuple[str, ...]
    timeout: int = 30


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that reads one of the outputs: the command that checks its configuration, and its unit.

    Without a command nothing is checked, without a unit nothing is reloaded.
    """

    check: tuple[str, ...] = ()
    unit: str | None = None


_PROXIES = {
    OutputKind.NGINX_MAP: Proxy(("/usr/sbin/nginx", "-t"), "nginx.service"),
    OutputKind.CADDY: Proxy(("/usr/bin/caddy", "validate", "--config", "/etc/caddy/Caddyfile"), "caddy.service"),
}


@dataclass(frozen=True, slots=True)
class Code:
    """Where people's clones come from. A repository of the roster is `{repo_base}/{repo}.git`; None leaves it out."""

    infra_url: str | None = None
    branch: str | None = None
    repo_base: str | None = None


@dataclass(frozen=True, slots=True)
class Playwright:
    """Where a person's browser gets its storage state from, and root's file with the token for it."""

    snapshot_url: str | None = None
    token_file: str | None = "/etc/rosterd/playwright-token"  # noqa: S105 (a path)


_T3 = Service(
    "t3",
    ("t3-serve@.service",),
    PortRule("T3_PORT", 3773, 4772, "/etc/t3-serve/{user}.env"),
    route=True,
)
_PLAYWRIGHT = Service(
    "playwright",
    ("playwright-mcp@.service", "playwright-snapshot-refresh@.timer"),
    PortRule("PLAYWRIGHT_PORT", 8931, 9930, "/etc/t3-serve/playwright-{user}.env"),
)
# What people had made for themselves before the services above.
_LEGACY = {
    "playwright": (
        "playwright-mcp.service",
        "playwright-snapshot-refresh.timer",
        "playwright-snapshot-refresh.service",
    )
}
_TIERS = (
    Tier("admin", ("code-shared", "docker", "sudo"), admin=True, cluster=ClusterCheck.EXEMPT),
    Tier("power-user"),
    Tier("namespace-owner", namespaces=Namespaces.REQUIRED),
)


@dataclass(frozen=True, slots=True)
class Site:
    """The policy of one machine.

    `settle` is for how many seconds a started service has to stay up, `listen` within how many it has to listen on its
    port. `metrics` is the file for the node exporter.
    """

    shell: str = "/bin/zsh"
    tiers: Mapping[str, Tier] = field(default_factory=lambda: {tier.name: tier for tier in _TIERS})
    services: Mapping[str, Service] = field(
        default_factory=lambda: {service.name: service for service in (_T3, _PLAYWRIGHT)}
    )
    outputs: tuple[OutputKind, ...] = _DEFAULT_OUTPUTS
    proxies: Mapping[OutputKind, Proxy] = field(default_factory=lambda: dict(_PROXIES))
    guards: Guards = Guards()
    k8s_users: TierSource | None = None
    create_groups: bool = False
    subids: bool = True
    settle: int = 5
    listen: int = 30
    metrics: str | None = None
    code: Code = Code()
    playwright: Playwright = Playwright()
    hooks: Mapping[Step, Hook] = field(default_factory=dict)
    homes: Mapping[str, SiteStep | None] = field(default_factory=dict)
    legacy_units: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(_LEGACY))

    @property
    def routed(self) -> Service | None:
        """The service whose port the route files carry."""
        return next((service for service in self.services.values() if service.route), None)


def template_of(unit: str) -> str:
    """Return the template of an instance: t3-serve@alice.service comes from t3-serve@.service."""
    prefix, _, rest = unit.partition("@")
    return f"{prefix}@.{rest.rpartition('.')[2]}"


def instance_of(unit: str) -> str:
    """Return the instance of a unit: alice of t3-serve@alice.service; "" of one without."""
    return unit.rpartition(".")[0].partition("@")[2]


def parse_site(name: str, data: bytes) -> Site:
    """Read a site file's bytes; raise `FileRefused` with every problem in it."""
    document, root = read_document(name, data)
    if root is None:
        return Site()
    if not isinstance(root, MappingNode):
        document.problem(root.place, "a site file is a mapping, as in 'shell: /bin/bash'")
        document.refuse_if_wrong()
        return Site()
    site = _read_site(Fields(document, "", root))
    document.refuse_if_wrong()
    return site


def _read_site(fields: Fields) -> Site:
    default = Site()
    tiers, services = _tiers(fields, default), _services(fields, default)
    site = Site(
        shell=fields.take_text("shell", names.PATH, default.shell),
        tiers=tiers,
        services=services,
        outputs=_outputs(fields, default),
        proxies=_proxies(fields, default),
        guards=_guards(fields),
        k8s_users=_tier_source(fields),
        create_groups=fields.take_flag("create_groups", default=default.create_groups),
        subids=fields.take_flag("subids", default=default.subids),
        settle=fields.take_number("settle", 0, 300, default.settle),
        listen=fields.take_number("listen", 0, 600, default.listen),
        metrics=_or_null(fields, "metrics", METRICS, placeholders=None),
        code=_code(fields),
        playwright=_playwright(fields),
        hooks=_hooks(fields),
        homes=read_homes(fields, tiers, [name for name, service in services.items() if service.port]),
        legacy_units=_legacy_units(fields, services, default),
    )
    fields.finish()
    return site


def _tiers(fields: Fields, default: Site) -> Mapping[str, Tier]:
    def read(name: Scalar, node: Node) -> Tier | None:
        inner = _entry(fields, "tier", names.WORD, name, node)
        if inner is None:
            return None
        tier = Tier(
            name.text,
            groups=inner.take_texts("groups", names.GROUP),
            admin=inner.take_flag("admin", default=False),
            cluster=ClusterCheck(inner.take_choice("cluster", ClusterCheck, ClusterCheck.CHECKED)),
            namespaces=Namespaces(inner.take_choice("namespaces", Namespaces, Namespaces.FORBIDDEN)),
            limits=_limits(inner),
        )
        inner.finish()
        return tier

    tiers = fields.take_each("tiers", read)
    if tiers is None:
        return default.tiers
    node = fields.take_mapping("tiers")
    if node is not None and not node.entries:
        fields.wrong(fields.place("tiers"), "tiers is empty; at least one tier is needed")
    return tiers


def _limits(tier: Fields) -> Limits:
    node = tier.take_mapping("limits")
    if node is None:
        return Limits()
    inner = Fields(tier.document, f"{tier.subject}: limits", node)
    tasks = inner.value("tasks_max")
    limits = Limits(
        _or_null(inner, "memory_max", MEMORY, placeholders=None),
        _or_null(inner, "cpu_quota", CPU, placeholders=None),
        None if tasks is None or is_null(tasks) else inner.take_number("tasks_max", FEWEST_TASKS, MOST_TASKS, 0),
    )
    inner.finish()
    return limits


def _services(fields: Fields, default: Site) -> Mapping[str, Service]:
    services = fields.take_each("services", lambda name, node: _service(fields, name, node))
    if services is None:
        return default.services
    place = fields.place("services")
    if len([service for service in services.values() if service.route]) > 1:
        fields.wrong(place, "route: true stands at more than one service; the route files carry one port")
    owners: dict[str, str] = {}
    variables: dict[tuple[str, str], str] = {}
    for service in services.values():
        for unit in service.units:
            if (other := owners.setdefault(unit, service.name)) != service.name:
                fields.wrong(place, f"unit '{unit}' belongs to two services, '{other}' and '{service.name}'")
        if service.port is not None:
            key = (service.port.env_file, service.port.variable)
            if (other := variables.setdefault(key, service.name)) != service.name:
                fields.wrong(
                    place,
                    f"services '{other}' and '{service.name}' keep their ports in one variable of one file;"
                    " give each a variable of its own",
                )
    return services


def _service(fields: Fields, name: Scalar, node: Node) -> Service | None:
    inner = _entry(fields, "service", names.WORD, name, node)
    if inner is None:
        return None
    units = inner.take_texts("units", names.TEMPLATE)
    given = inner.value("units")
    if given is None or (isinstance(given, Sequence) and not given.items):
        inner.wrong(inner.place("units"), "units is missing or empty; name at least one template unit")
    service = Service(
        name.text,
        units,
        port=_port_rule(inner),
        route=inner.take_flag("route", default=False),
        enabled=inner.take_flag("enabled", default=True),
    )
    if service.route and service.port is None:
        inner.wrong(inner.place("route"), "route: true needs a port")
    inner.finish()
    return service


def _port_rule(service: Fields) -> PortRule | None:
    node = service.take_mapping("port")
    if node is None:
        return None
    inner = Fields(service.document, f"{service.subject}: port", node)
    base = inner.take_number("base", _FIRST_PORT, _LAST_PORT, 0)
    if inner.value("base") is None:
        inner.wrong(node.place, f"base is missing; it must be a port from {_FIRST_PORT} to {_LAST_PORT}")
    last = min(base + _PORTS_PER_SERVICE - 1, _LAST_PORT)
    rule = PortRule(
        inner.take_required("variable", names.VARIABLE),
        base,
        inner.take_number("limit", max(base, _FIRST_PORT), _LAST_PORT, last),
        inner.take_required("env_file", names.ENV_FILE),
    )
    inner.finish()
    return rule if rule.env_file and rule.variable and rule.base else None


def _outputs(fields: Fields, default: Site) -> tuple[OutputKind, ...]:
    node = fields.value("outputs")
    if node is None:
        return default.outputs
    words = "one of " + ", ".join(OutputKind)
    pattern = re.compile("|".join(OutputKind))
    return tuple(OutputKind(text) for text in fields.take_texts("outputs", Rule(pattern, words)))


def _proxies(fields: Fields, default: Site) -> Mapping[OutputKind, Proxy]:
    """Read how each proxy is checked and reloaded; one that is not named, and what it leaves out, is as by default."""
    given = fields.take_mapping("proxies")
    if given is None:
        return default.proxies
    inner = Fields(fields.document, "proxies", given)
    nodes = {kind: inner.take_mapping(kind) for kind in default.proxies}
    inner.finish()
    return {kind: _proxy(inner, kind, nodes[kind], usual) for kind, usual in default.proxies.items()}


def _proxy(proxies: Fields, kind: OutputKind, node: MappingNode | None, default: Proxy) -> Proxy:
    if node is None:
        return default
    inner = Fields(proxies.document, f"proxy '{kind}'", node)
    check = inner.value("check")
    if isinstance(check, Sequence) and not check.items:
        inner.wrong(check.place, "check is empty; null leaves the check out")
    proxy = Proxy(
        check=default.check if check is None else () if is_null(check) else _command(inner, "check"),
        unit=_or_null(inner, "unit", names.UNIT, default.unit),
    )
    inner.finish()
    return proxy


def _guards(fields: Fields) -> Guards:
    node = fields.take_mapping("guards")
    if node is None:
        return Guards()
    inner, default = Fields(fields.document, "guards", node), Guards()
    guards = Guards(
        inner.take_number("max_cuts", 0, 100_000, default.max_cuts),
        inner.take_number("max_cut_percent", 0, 100, default.max_cut_percent),
    )
    inner.finish()
    return guards


def _tier_source(fields: Fields) -> TierSource | None:
    node = fields.take_mapping("k8s_users")
    if node is None:
        return None
    inner = Fields(fields.document, "k8s_users", node)
    file = inner.take_text("file", names.PATH) or None
    command = _command(inner)
    timeout = inner.take_number("timeout", 1, 300, TierSource().timeout)
    both = inner.value("file") is not None and inner.value("command") is not None
    if both or (file is None) == (not command):
        inner.wrong(node.place, "name either a file or a command")
    inner.finish()
    return TierSource(file, command, timeout)


def _command(fields: Fields, key: str = "command") -> tuple[str, ...]:
    """Read an argument list; an argument may stand in it twice, the program is an absolute path."""
    arguments = tuple(fields.text_of(f"an argument of {key}", node, names.TEXT, "") for node in fields.take_list(key))
    if arguments and not arguments[0].startswith("/"):
        fields.wrong(fields.place(key), f"{key} must start with the absolute path of a program")
    return arguments


def _code(fields: Fields) -> Code:
    node = fields.take_mapping("code")
    if node is None:
        return Code()
    inner = Fields(fields.document, "code", node)
    code = Code(
        infra_url=_or_null(inner, "infra_url", GIT_URL),
        branch=_or_null(inner, "branch", BRANCH),
        repo_base=_or_null(inner, "repo_base", GIT_BASE),
    )
    inner.finish()
    return code


def _playwright(fields: Fields) -> Playwright:
    node = fields.take_mapping("playwright")
    if node is None:
        return Playwright()
    inner = Fields(fields.document, "playwright", node)
    snapshot_url = _or_null(inner, "snapshot_url", SNAPSHOT_URL, placeholders=("user",))
    token_file = _or_null(inner, "token_file", names.PATH, Playwright().token_file)
    inner.finish()
    return Playwright(snapshot_url, token_file)


def _or_null(
    fields: Fields,
    key: str,
    rule: Rule,
    default: str | None = None,
    placeholders: Collection[str] | None = SOURCE_PLACEHOLDERS,
) -> str | None:
    node = fields.value(key)
    if node is None:
        return default
    if placeholders is not None:
        refuse_unknown(fields, node, placeholders)
    return None if is_null(node) else fields.text_of(key, node, rule, "") or None


def _hooks(fields: Fields) -> Mapping[Step, Hook]:
    hooks = fields.take_each("hooks", lambda name, node: _hook(fields, name, node)) or {}
    return {Step(name): hook for name, hook in hooks.items()}


def _hook(fields: Fields, name: Scalar, node: Node) -> Hook | None:
    inner = _entry(fields, "hook", _STEP, name, node)
    if inner is None:
        return None
    command = _command(inner)
    if not command:
        inner.wrong(node.place, "command is missing; it is a list, as in [/usr/local/bin/revoke, '{k8s_user}']")
    for argument in command:
        for unknown in sorted(set(re.findall(r"\{[\w-]*\}", argument)) - set(HOOK_PLACEHOLDERS)):
            inner.wrong(inner.place("command"), f"{unknown} is none of {', '.join(HOOK_PLACEHOLDERS)}")
    hook = Hook(command, inner.take_number("timeout", 1, 3600, Hook(()).timeout))
    inner.finish()
    return hook


def _legacy_units(fields: Fields, services: Mapping[str, Service], default: Site) -> Mapping[str, tuple[str, ...]]:
    node = fields.take_mapping("legacy_units")
    if node is None:
        return {} if fields.value("legacy_units") is not None else default.legacy_units
    inner = Fields(fields.document, "legacy_units", node)
    return {name: inner.take_texts(name, names.UNIT) for name in _known_services(inner, services)}


def _known_services(inner: Fields, services: Mapping[str, Service]) -> list[str]:
    for name, _ in inner.node.entries:
        if name.text not in services:
            inner.wrong(name.place, f"'{printable(name.text)}' is no service; there are {', '.join(services)}")
        inner.refuse_other_than_text(name)
    return [name.text for name, _ in inner.node.entries if name.text in services]


def _entry(fields: Fields, what: str, rule: Rule, name: Scalar, node: Node) -> Fields | None:
    """Open one named entry of a catalogue, such as a tier; None, and a problem, if it is not one."""
    subject = f"{what} '{printable(name.text)}'"
    if name.kind != "str" or not rule.accepts(name.text):
        fields.document.problem(name.place, f"{subject}: the name must be {rule.words}")
        return None
    if not isinstance(node, MappingNode):
        fields.document.problem(node.place, f"{subject} is {shown(node)}; it must be a mapping, as in {{}}")
        return None
    return Fields(fields.document, subject, node)
