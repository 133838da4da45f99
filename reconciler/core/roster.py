"""Who works on the machine, read from roster.yaml.

Everything is checked here, once; the rest of the program trusts a `Roster`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from reconciler.core import names
from reconciler.core.document import Document, Node, Place, Scalar, Sequence, read_document
from reconciler.core.document import Mapping as MappingNode
from reconciler.core.fields import Fields, shown
from reconciler.core.home_steps import CodeLayout
from reconciler.core.site import Namespaces, Site, Tier
from reconciler.core.text import printable

IMPLICIT_REPO = "infra"


@dataclass(frozen=True, slots=True)
class User:
    """One person of the roster. `line` is where the entry starts in the file."""

    name: str
    authentik_user: str
    k8s_user: str
    tier: str
    namespaces: tuple[str, ...] = ()
    code_layout: CodeLayout = CodeLayout.SINGLE
    repos: tuple[str, ...] = ()
    parked: bool = False
    services: tuple[tuple[str, bool], ...] = ()
    adopt: bool = False
    line: int = 0


@dataclass(frozen=True, slots=True)
class Roster:
    """The people by name, sorted."""

    users: Mapping[str, User]


def parse_roster(name: str, data: bytes, site: Site, reserved: Collection[str]) -> Roster:
    """Read a roster's bytes against the site's tiers and services.

    `reserved` are names that no person can have beside those that are always reserved: the
    host's system accounts. Raises `FileRefused` with every problem of the file.
    """
    document, root = read_document(name, data)
    users = _users(document, root)
    taken = names.ALWAYS_RESERVED | set(reserved)
    read = [_user(document, key, node, site, taken) for key, node in users.entries] if users else []
    found = [user for user in read if user is not None]
    _note_shared_identities(document, users, found)
    _note_shared_env_files(document, users, found, site)
    document.refuse_if_wrong()
    return Roster({user.name: user for user in sorted(found, key=lambda user: user.name)})


def _users(document: Document, root: Node | None) -> MappingNode | None:
    if root is None:
        place = Place(1, 1)
        document.problem(place, "the roster is empty; write 'users: {}' for a roster with nobody in it")
        return None
    if not isinstance(root, MappingNode):
        document.problem(root.place, f"a roster is a mapping with the key 'users', this is {shown(root)}")
        return None
    fields = Fields(document, "", root)
    node = fields.value("users")
    fields.finish()
    if node is None:
        document.problem(root.place, "users is missing; write 'users: {}' for a roster with nobody in it")
    elif not isinstance(node, MappingNode):
        document.problem(node.place, f"users is {shown(node)}; write 'users: {{}}' for nobody")
    return node if isinstance(node, MappingNode) else None


def _user(document: Document, key: Scalar, node: Node, site: Site, reserved: Collection[str]) -> User | None:
    subject = f"user '{printable(key.text)}'"
    _check_name(document, subject, key, site, reserved)
    if not isinstance(node, MappingNode):
        document.problem(
            node.place,
            f"{subject} is {shown(node)}; it must be a mapping with authentik_user, k8s_user and tier",
        )
        return None
    fields = Fields(document, subject, node)
    tier = _tier(fields, site)
    layout = CodeLayout(fields.take_choice("code_layout", CodeLayout, CodeLayout.SINGLE))
    user = User(
        name=key.text,
        authentik_user=fields.take_required("authentik_user", names.IDENTITY),
        k8s_user=fields.take_required("k8s_user", names.IDENTITY),
        tier=tier.name if tier else "",
        namespaces=_namespaces(fields, tier),
        code_layout=layout,
        repos=_repos(fields, layout),
        parked=fields.take_flag("parked", default=False),
        services=_switches(fields, site),
        adopt=fields.take_flag("adopt", default=False),
        line=key.place.line,
    )
    fields.finish()
    return user


def _check_name(document: Document, subject: str, key: Scalar, site: Site, reserved: Collection[str]) -> None:
    if key.kind != "str":
        document.problem(key.place, f"{subject}: YAML takes this for {key.kind}, not text; quote it or rename")
    elif not names.OS_USER.accepts(key.text):
        document.problem(key.place, f"{subject}: the name must be {names.OS_USER.words}")
    elif key.text in reserved:
        document.problem(key.place, f"{subject}: this name belongs to the system; choose another")
    elif clash := _env_file_clash(key.text, site):
        document.problem(key.place, f"{subject}: {clash}; choose another name")


def _env_file_clash(user: str, site: Site) -> str | None:
    """Say whose env file this user's could be: playwright-bob's t3 file is bob's playwright file."""
    rules = [service.port for service in site.services.values() if service.port]
    for mine in rules:
        folder, _, file_name = mine.path_for(user).rpartition("/")
        for other in rules:
            owner = other.owner_of(file_name) if other.folder == folder else None
            if owner is not None and len(owner) < len(user):
                return f"{folder}/{file_name} would be an env file of '{owner}' too"
    return None


def _tier(fields: Fields, site: Site) -> Tier | None:
    node = fields.value("tier")
    allowed = ", ".join(site.tiers)
    if node is None:
        fields.wrong(fields.node.place, f"tier is missing; allowed: {allowed}")
        return None
    if isinstance(node, Scalar) and node.kind == "str" and node.text in site.tiers:
        return site.tiers[node.text]
    fields.wrong(node.place, f"tier is {shown(node)}; allowed: {allowed}")
    return None


def _namespaces(fields: Fields, tier: Tier | None) -> tuple[str, ...]:
    namespaces = fields.take_texts("namespaces", names.NAMESPACE)
    given = fields.value("namespaces")
    if tier is None:
        return namespaces
    if tier.namespaces is Namespaces.FORBIDDEN and given is not None:
        fields.wrong(given.place, f"namespaces is not allowed for the tier '{tier.name}'; leave it out")
    if tier.namespaces is Namespaces.REQUIRED and given is None:
        fields.wrong(fields.node.place, f"namespaces is missing; the tier '{tier.name}' needs at least one")
    elif tier.namespaces is Namespaces.REQUIRED and isinstance(given, Sequence) and not given.items:
        fields.wrong(given.place, f"namespaces is empty; the tier '{tier.name}' needs at least one")
    return namespaces


def _repos(fields: Fields, layout: CodeLayout) -> tuple[str, ...]:
    repos = fields.take_texts("repos", names.REPO, _refuse_repo)
    node = fields.value("repos")
    if node is not None and layout is not CodeLayout.WORKSPACE:
        fields.wrong(node.place, "repos needs code_layout: workspace")
    return repos


def _refuse_repo(repo: str) -> str | None:
    if repo == IMPLICIT_REPO:
        return f"'{IMPLICIT_REPO}' is always there; leave it out of repos"
    return f"write '{repo.removesuffix('.git')}' without .git in repos" if repo.endswith(".git") else None


def _switches(fields: Fields, site: Site) -> tuple[tuple[str, bool], ...]:
    node = fields.take_mapping("services")
    if node is None:
        return ()
    inner = Fields(fields.document, f"{fields.subject}: services", node)
    switches = tuple(
        (service, inner.take_flag(service, default=site.services[service].enabled))
        for service in site.services
        if inner.value(service) is not None
    )
    inner.finish()
    return switches


def _note_shared_identities(document: Document, users: MappingNode | None, found: list[User]) -> None:
    """Note doubled identities: one would take over another person's route."""
    owners: dict[str, str] = {}
    places = {key.text: _identity_place(node) for key, node in users.entries} if users else {}
    for user in found:
        if not user.authentik_user:
            continue
        first = owners.setdefault(user.authentik_user, user.name)
        if first != user.name:
            document.problem(
                places[user.name],
                f"user '{user.name}': authentik_user '{user.authentik_user}' is that of '{first}' already;"
                " each person needs their own",
            )


def _note_shared_env_files(document: Document, users: MappingNode | None, found: list[User], site: Site) -> None:
    """Root writes one person's port into each env file; two persons in one file would share it."""
    rules = [service.port for service in site.services.values() if service.port]
    places = {key.text: key.place for key, _ in users.entries} if users else {}
    owners: dict[str, str] = {}
    for user in found:
        for path in {rule.path_for(user.name) for rule in rules}:
            first = owners.setdefault(path, user.name)
            if first != user.name:
                document.problem(
                    places[user.name],
                    f"user '{user.name}': {path} would be an env file of '{first}' too; choose another name",
                )


def _identity_place(node: Node) -> Place:
    if isinstance(node, MappingNode):
        for key, value in node.entries:
            if key.text == "authentik_user":
                return value.place
    return node.place
