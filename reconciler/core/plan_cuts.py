"""People who leave and people who come back: the reversible cut, held as long as it lasts, and its undoing.

A cut takes nothing that cannot be given back: home, groups, uid and ports stay. It is planned from what
is there, so whoever opens a part of it by hand finds it closed by the next run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from reconciler.core.actions import (
    Action,
    CompleteShadow,
    EndProcesses,
    HaltUnit,
    HoldJobs,
    LockAccount,
    RecordCut,
    SetCutReason,
    SetLinger,
)
from reconciler.core.desired import Desired
from reconciler.core.findings import Finding, conflict, warning
from reconciler.core.observed import Account, Login, Observed, Presence, SubidRange
from reconciler.core.plan_accounts import is_admin, managed_accounts
from reconciler.core.records import CutRecord, Identity, Records

EXPIRED_DAY = 1
"""The day of shadow(5) that a cut sets: 2 January 1970. Day 0 is ambiguous there."""
_DAY_SECONDS = 86400
# Members can start containers and machines as root, which no uid tells.
_CONTAINER_GROUPS = frozenset(["docker", "incus", "incus-admin", "libvirt", "lxd", "podman"])
_NO_LOGIN_SHELLS = frozenset(["/usr/sbin/nologin", "/sbin/nologin", "/usr/bin/false", "/bin/false"])


@dataclass(slots=True)
class CutPlan:
    """What becomes of those who leave."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def commanded(desired: Desired, observed: Observed) -> frozenset[str]:
    """Return whom a command cuts off, whether or not they are on the roster.

    A record that goes with no account, or with another one, says nothing about who has the name now.
    """
    cuts = observed.on_record.cuts
    named = frozenset(name for name in recorded(observed) if cuts[name].by_command)
    return (named | desired.cut) - desired.uncut


def recorded(observed: Observed) -> frozenset[str]:
    """Return the accounts that are on record as cut off."""
    cuts = observed.on_record.cuts
    accounts = observed.accounts
    return frozenset(name for name in cuts if name in accounts and accounts[name].uid == cuts[name].uid)


def misrecorded(observed: Observed) -> frozenset[str]:
    """Return the accounts whose name is on record for another one, which had the name before."""
    cuts = observed.on_record.cuts
    return frozenset((cuts.keys() & observed.accounts.keys()) - recorded(observed))


def other_account(name: str, observed: Observed) -> str:
    """Say of one of `misrecorded` what is wrong and what to do."""
    record = observed.on_record.cuts[name]
    return (
        f"is on record as cut off with uid {record.uid}, but the account has uid {observed.accounts[name].uid} and is"
        f" another person's. If the record is of no use any more: rosterd forget {name}"
    )


def concerned(desired: Desired, observed: Observed) -> frozenset[str]:
    """Return the people whose presence on the machine a plan has to know: who leaves, is cut off, or returns."""
    staying = desired.users.keys() - commanded(desired, observed)
    return (managed_accounts(observed) - staying) | recorded(observed)


def plan_cuts(desired: Desired, observed: Observed, leaving: Collection[str]) -> CutPlan:
    """Bring `leaving`, who all have an account, to the state of being cut off, and hold them there."""
    plan = CutPlan()
    records, logins = observed.records, observed.shadow
    if records is None or logins is None:
        return plan  # named in `unseen`
    by_command = commanded(desired, observed)
    for name in sorted(leaving):
        record = records.cuts.get(name)
        if record is None:
            plan.actions.append(RecordCut(name, record_of(name, desired, observed, records)))
        plan.actions += reason_of(name, record, desired, by_command)
        plan.actions += _closing(observed.accounts[name], logins.get(name), observed)
        plan.findings += _hazards(name, desired, observed)
        if name in by_command:
            plan.findings.append(warning(name, f"cut off by command; to end that: rosterd uncut {name}"))
    return plan


def last_admins(desired: Desired, observed: Observed, leaving: Collection[str]) -> frozenset[str]:
    """Return the administrators among `leaving`, if no other could log in any more without them."""
    if not leaving:
        return frozenset()
    able = {name for name in observed.accounts if is_admin(desired, observed, name) and _can_log_in(name, observed)}
    return frozenset(able & set(leaving)) if able <= set(leaving) else frozenset()


def _can_log_in(name: str, observed: Observed) -> bool:
    """Say whether nothing is known that keeps somebody out; keys lie in homes, which nobody looks into."""
    account = observed.accounts[name]
    login = (observed.shadow or {}).get(name, Login())
    expired = login.expiry is not None and login.expiry <= observed.now // _DAY_SECONDS
    return account.uid != 0 and account.shell not in _NO_LOGIN_SHELLS and not expired


def record_of(name: str, desired: Desired, observed: Observed, records: Records) -> CutRecord:
    """Return how somebody is now, as it goes on record."""
    account = observed.accounts[name]
    login = (observed.shadow or {}).get(name, Login())
    presence = observed.presence.get(name, Presence())
    user = desired.users.get(name)
    return CutRecord(
        uid=account.uid,
        gid=account.gid,
        since=observed.now,
        by_command=name in desired.cut,
        expiry=login.expiry,
        locked=login.locked,
        passwordless=login.passwordless,
        lingering=presence.lingering,
        running=tuple(unit.name for unit in presence.units if unit.active and not unit.transient),
        identity=Identity(user.identity, user.k8s_user) if user else records.identities.get(name),
    )


def reason_of(
    name: str, record: CutRecord | None, desired: Desired, by_command: Collection[str]
) -> Iterator[SetCutReason]:
    """Yield the change of who asks for a cut that is on record."""
    if record is None:
        return
    if name in by_command and not record.by_command:
        yield SetCutReason(name, by_command=True)
    elif name in desired.uncut and record.by_command:
        yield SetCutReason(name, by_command=False)


def _closing(account: Account, login: Login | None, observed: Observed) -> Iterator[Action]:
    """Yield what is still open of an account that is to be cut off, its instances aside."""
    name = account.name
    presence = observed.presence.get(name, Presence())
    alone = not _namesakes(account, observed)
    at_jobs = presence.at_jobs if alone else ()
    if presence.crontab or at_jobs:
        yield HoldJobs(name, presence.crontab, at_jobs)
    if login is None:
        yield CompleteShadow(name)  # a further look closes it
    elif not is_shut(login):
        yield LockAccount(name, login.expiry, login.locked)
    for unit in presence.units:
        if unit.active:
            why = f"its User= is {name}, who is cut off"
            yield HaltUnit(name, "", unit.name, disable=False, stop=True, before="running", why=why, kill=True)
    if presence.lingering:
        yield SetLinger(name, account.uid, on=False)
    if alone and (presence.slice_active or presence.processes):
        processes = tuple((process.pid, process.name) for process in presence.processes)
        yield EndProcesses(name, account.uid, id_spans(account, observed), presence.slice_active, processes)


def is_shut(login: Login | None) -> bool:
    """Say whether a login is as a cut leaves it: expired on its day, and the password locked."""
    return login is not None and login.expiry == EXPIRED_DAY and login.locked


def id_spans(account: Account, observed: Observed) -> tuple[tuple[int, int], ...]:
    """Return the (first, last) user ids that are a person's alone: their own, and those of their subordinate ranges."""
    spans = ((span.first, _last(span)) for span in _ranges(account, observed) if not _shared_with(span, observed))
    return ((account.uid, account.uid), *sorted(spans))


def _ranges(account: Account, observed: Observed) -> list[SubidRange]:
    """Return a person's lines of subuid(5), where a line names its owner or their uid."""
    owned = (account.name, str(account.uid))
    return [span for span in observed.subuids or () if span.owner in owned]


def _shared_with(span: SubidRange, observed: Observed) -> str | None:
    """Return who else has ids of a range, by a mistake in the file; None where it is one person's alone."""
    accounts = (found.name for found in observed.accounts.values() if span.first <= found.uid <= _last(span))
    ranges = (
        other.owner
        for other in observed.subuids or ()
        if other.owner != span.owner and other.first <= _last(span) and span.first <= _last(other)
    )
    return next(accounts, next(ranges, None))


def _last(span: SubidRange) -> int:
    return span.first + span.count - 1


def _namesakes(account: Account, observed: Observed) -> list[str]:
    """Return the other accounts with the same uid: what runs under it cannot be told apart."""
    others = observed.accounts.values()
    return sorted(other.name for other in others if other.uid == account.uid and other.name != account.name)


def _hazards(name: str, desired: Desired, observed: Observed) -> Iterator[Finding]:
    """Yield what a cut does not reach."""
    account = observed.accounts[name]
    if others := _namesakes(account, observed):
        text = f"has the uid {account.uid} of {', '.join(others)}; their sessions, processes and at jobs are left alone"
        yield conflict(name, text)
    for span in _ranges(account, observed):
        if other := _shared_with(span, observed):
            text = (
                f"/etc/subuid gives {name} ids of {other} ({span.first}-{_last(span)}); processes there are left alone"
            )
            yield conflict(name, text)
    own = {unit for service in desired.services.values() for unit in service.instances(name)}
    for unit in observed.presence.get(name, Presence()).units:
        if unit.enabled:
            yield warning(
                name,
                f"{unit.name}, whose User= is {name}, starts at boot, and only the next run would stop it."
                f" If it is not needed: systemctl disable {unit.name}",
            )
        for trigger in sorted(set(unit.triggers) - own):
            yield warning(
                name,
                f"{trigger} can start {unit.name}, whose User= is {name}; only the next run would stop it."
                f" If it is not needed: systemctl disable --now {trigger}",
            )
    if observed.containers and observed.groups_of(name) & _CONTAINER_GROUPS:
        told = ", ".join(observed.containers[:3])
        yield warning(
            name,
            f"could start containers, and those run as root, so they are not stopped; {len(observed.containers)} on"
            f" this machine ({told}): see whose they are, with docker ps or podman ps",
        )
    if is_admin(desired, observed, name):
        yield warning(name, "was an administrator; what they left running or due as root is not found by their uid")


def without(desired: Desired, names: Collection[str]) -> Desired:
    """Return what is wanted, leaving some people out."""
    return replace(desired, users={name: user for name, user in desired.users.items() if name not in names})
