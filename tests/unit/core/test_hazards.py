"""Hazards: each is found where it is, with what was seen, and not where it is not; of many people one is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.desired import Desired
from reconciler.core.hazard_case import Hazard, HazardKind
from reconciler.core.hazards import Accepted, find_hazards, hazards_json, hazards_text
from reconciler.core.last_run import LastRun
from reconciler.core.observed import Group, Home, HomeKind, Listener, UnitState
from reconciler.core.sightings import FileLook, ServiceLook, SharedPlace, Sightings, UnitLink, named_after, words_for
from reconciler.core.site import PortRule, Service, Site
from tests.unit.facts import Machine, bare, desired, person

T3_OF_ALICE, T3_OF_BOB = "t3-serve@alice.service", "t3-serve@bob.service"
BROWSER_OF_ALICE = "playwright-mcp@alice.service"
ALICE, BOB = 1000, 1001
TMP = "/tmp"  # noqa: S108 (not opened)
WELL = ServiceLook(private_tmp=True, memory_max=1 << 30, cgroup="/system.slice/some.service")
SECRET = FileLook("/etc/t3-serve/alice.env", 0, 0, 0o600)
EVERYBODY = desired(person("alice"), person("bob"))


def box() -> Machine:
    """Return a machine with two people on it for whom all is well."""
    return bare().person("alice", ALICE, 3773, 8931).person("bob", BOB, 3774, 8932)


def well() -> Sightings:
    """Return what the doctor sees where all is well."""
    units = (T3_OF_ALICE, T3_OF_BOB, BROWSER_OF_ALICE)
    return Sightings(
        services=dict.fromkeys(units, WELL),
        slice_caps={"alice": 1 << 30, "bob": 1 << 30},
        now=dict.fromkeys(units, 0),
        secrets=(SECRET,),
        links=(UnitLink("/etc/systemd/system/multi-user.target.wants/" + T3_OF_ALICE, T3_OF_ALICE, has_template=True),),
    )


def found(
    machine: Machine, seen: Sightings | None = None, wanted: Desired = EVERYBODY, accepted: Accepted = ()
) -> tuple[Hazard, ...]:
    return find_hazards(wanted, machine.observed, seen or well(), accepted)


def the_one(machine: Machine, seen: Sightings | None = None, wanted: Desired = EVERYBODY) -> Hazard:
    (one,) = found(machine, seen, wanted)
    return one


def without_listener(machine: Machine, port: int) -> Machine:
    return machine.having(listeners=tuple(one for one in machine.observed.listeners if one.port != port))


def test_where_all_is_well_there_is_no_hazard() -> None:
    assert found(box()) == ()


# --- ports ---


def test_a_port_of_a_service_that_somebody_else_listens_on() -> None:
    machine = without_listener(box(), 3773).listener(3773, BOB, "session-3.scope", 4711)
    one = the_one(machine)
    assert (one.kind, one.users) == (HazardKind.PORT_HELD, ("alice",))
    assert one.evidence == (
        "port 3773, t3 of alice, is held by another process (pid 4711, user bob, unit session-3.scope)"
    )
    assert one.remedy == (
        "kill 4711; or give alice another port, T3_PORT=3775 in /etc/t3-serve/alice.env; then: rosterd"
    )


def test_a_service_of_the_system_that_holds_a_port_is_stopped_by_its_name() -> None:
    machine = without_listener(box(), 3773).listener(3773, 0, "stranger.service", 9)
    assert the_one(machine).remedy.startswith("systemctl stop -- stranger.service; or ")


def test_a_service_of_a_persons_own_manager_is_ended_by_its_process_not_with_the_whole_manager() -> None:
    listener = Listener(3773, BOB, "user@1001.service", 9, "web.service")
    machine = without_listener(box(), 3773)
    machine = machine.having(listeners=(*machine.observed.listeners, listener))
    assert the_one(machine).remedy.startswith("kill 9; or ")


def test_a_person_who_does_not_have_the_service_can_lose_no_port() -> None:
    off = desired(person("alice", services={"t3": False}), person("bob"))
    machine = without_listener(box(), 3773).listener(3773, BOB, "session-3.scope", 4711)
    assert found(machine, wanted=off) == ()


def test_two_people_with_one_port_are_one_hazard_and_who_listens_keeps_it() -> None:
    machine = without_listener(box().env_file("t3", "bob", "3773"), 3774)
    one = the_one(machine)
    assert (one.kind, one.users) == (HazardKind.PORT_SHARED, ("alice", "bob"))
    assert one.evidence == (
        "port 3773 stands in the env files of alice (t3, /etc/t3-serve/alice.env), bob (t3, /etc/t3-serve/bob.env);"
        " who listens there: alice"
    )
    assert one.remedy == (
        "T3_PORT=3774 in /etc/t3-serve/bob.env; then: rosterd && systemctl restart -- t3-serve@bob.service"
    )


def test_a_service_that_listens_on_another_port_than_its_env_file_says() -> None:
    one = the_one(box().env_file("t3", "alice", "3790"))
    assert (one.kind, one.users) == (HazardKind.WRONG_PORT, ("alice",))
    assert one.evidence == f"{T3_OF_ALICE} listens on 3773, but /etc/t3-serve/alice.env says 3790"
    assert one.remedy == f"when it suits alice: systemctl restart -- {T3_OF_ALICE}"


def test_a_service_that_listens_on_a_second_port_beside_its_own_is_well() -> None:
    assert found(box().listener(3900, ALICE, T3_OF_ALICE)) == ()


def test_a_service_that_the_network_reaches_is_told_by_its_template() -> None:
    opened = (Listener(3773, ALICE, T3_OF_ALICE, loopback=False), Listener(3774, BOB, T3_OF_BOB, loopback=False))
    machine = without_listener(without_listener(box(), 3773), 3774)
    one = the_one(machine.having(listeners=(*machine.observed.listeners, *opened)))
    assert (one.kind, one.users) == (HazardKind.OPEN_LISTENER, ("alice", "bob"))
    assert one.evidence == (
        "t3-serve@.service listens on an address that others than this machine reach: alice on 3773, bob on 3774"
    )
    assert "systemctl edit -- t3-serve@.service" in one.remedy


def test_another_program_of_a_person_that_the_network_reaches_is_told_by_person() -> None:
    opened = tuple(Listener(port, BOB, loopback=False) for port in (5173, 8080))
    one = the_one(box().having(listeners=(*box().observed.listeners, *opened)))
    assert (one.kind, one.users) == (HazardKind.OPEN_LISTENER, ("bob",))
    assert "listens on 2 ports that others than this machine reach: 5173, 8080" in one.evidence
    assert "ss -ltnp 'sport = :5173 or sport = :8080'" in one.remedy


@pytest.mark.parametrize("uid", [pytest.param(0, id="root's"), pytest.param(33, id="a system account's")])
def test_what_is_no_persons_may_be_open(uid: int) -> None:
    opened = Listener(22, uid, loopback=False)
    assert found(box().having(listeners=(*box().observed.listeners, opened))) == ()


# --- files ---


@pytest.mark.parametrize(
    ("uid", "gid", "mode", "words"),
    [
        (0, 0, 0o644, "mode 644 and owner root:root"),
        (0, 0, 0o602, "mode 602 and owner root:root"),
        (0, 27, 0o640, "mode 640 and owner root:sudo"),
        (BOB, BOB, 0o600, "mode 600 and owner bob:bob"),
    ],
)
def test_a_file_with_secrets_that_is_not_roots_alone(uid: int, gid: int, mode: int, words: str) -> None:
    one = the_one(box(), replace(well(), secrets=(FileLook("/etc/t3-serve/bo b.env", uid, gid, mode),)))
    assert one.kind is HazardKind.READABLE_SECRET
    assert one.evidence == f"1 file has {words}, not 600 and root:root: /etc/t3-serve/bo b.env"
    assert one.remedy.startswith("chown root:root -- '/etc/t3-serve/bo b.env' && chmod 600 -- '/etc/t3-serve/bo b.env'")


def test_many_files_with_secrets_are_one_hazard_whose_remedy_has_all_of_them() -> None:
    files = tuple(FileLook(f"/etc/t3-serve/u{number:02}.env", 0, 0, 0o644) for number in range(100))
    one = the_one(box(), replace(well(), secrets=files))
    assert one.evidence.endswith("/etc/t3-serve/u00.env, /etc/t3-serve/u01.env, /etc/t3-serve/u02.env and 97 more")
    assert all(file.path in one.remedy for file in files)


def test_the_group_of_root_may_read_a_secret() -> None:
    assert found(box(), replace(well(), secrets=(replace(SECRET, mode=0o640),))) == ()


def place(name: str, uid: int, *sockets: str, is_socket: bool = False) -> Sightings:
    shared = SharedPlace(f"{TMP}/{name}", uid, 0o755, is_socket, sockets)
    return replace(well(), shared=(shared,))


@pytest.mark.parametrize("name", ["agent-alice.sock", "alice", "mcp_1000.sock", "a.1000"])
def test_a_socket_that_bears_a_persons_name_and_is_another_persons(name: str) -> None:
    one = the_one(box(), place(name, BOB, is_socket=True))
    assert (one.kind, one.users) == (HazardKind.FOREIGN_SOCKET, ("alice",))
    assert one.evidence == f"{TMP}/{name} is a socket of bob (uid 1001, mode 755), and is named after alice"
    assert one.remedy == f"ask bob what it is; if nothing that alice trusts: rm -- {TMP}/{name}"


def test_a_folder_that_bears_a_persons_name_and_holds_a_socket_of_others() -> None:
    one = the_one(box(), place("run-alice", BOB, "a.sock", "b.sock"))
    assert one.evidence.startswith(
        f"{TMP}/run-alice is a folder with 2 sockets in it (a.sock, b.sock) of bob (uid 1001"
    )
    assert one.remedy.endswith(f"rm -r -- {TMP}/run-alice")


@pytest.mark.parametrize("name", ["tmux-1000", "claude-1000", ".claude-alice", "t3-alice"])
def test_a_folder_that_a_program_would_take_for_its_own_is_a_hazard_while_it_is_empty(name: str) -> None:
    assert the_one(box(), place(name, BOB)).kind is HazardKind.FOREIGN_SOCKET


@pytest.mark.parametrize(
    ("name", "uid", "is_socket"),
    [
        pytest.param("agent-alice.sock", ALICE, True, id="her own"),
        pytest.param("agent-alice.sock", 0, True, id="root's"),
        pytest.param(".s.1000", 110, True, id="a system account's"),
        pytest.param("bob-for-alice.sock", BOB, True, id="named after its owner too"),
        pytest.param("alice-report", BOB, False, id="a folder without sockets"),
        pytest.param("bench-1000", BOB, False, id="a folder with a number"),
        pytest.param("malice.sock", BOB, True, id="no word of its own"),
        pytest.param("10001.sock", BOB, True, id="another number"),
    ],
)
def test_what_is_no_foreign_socket(name: str, uid: int, *, is_socket: bool) -> None:
    assert found(box(), place(name, uid, is_socket=is_socket)) == ()


def test_a_name_with_a_dash_is_not_taken_for_the_shorter_name_in_it() -> None:
    words = words_for({"bob": 1001, "bob-smith": 1002})
    assert named_after("agent-bob-smith.sock", words) == {"bob", "bob-smith"}
    both = box().person("bob-smith", 1002, 3775, 8933)
    assert found(both, place("agent-bob-smith.sock", 1002, is_socket=True)) == ()


def test_homes_that_everybody_can_enter_are_one_hazard() -> None:
    homes = {"alice": Home(HomeKind.FOLDER, ALICE, 0o755), "bob": Home(HomeKind.FOLDER, BOB, 0o711)}
    one = the_one(box().having(homes=homes))
    assert (one.kind, one.users) == (HazardKind.READABLE_HOME, ("alice", "bob"))
    assert one.evidence == "2 homes open to everybody: /home/alice (755), /home/bob (711)"
    assert one.remedy == "chmod o= -- /home/alice /home/bob"


@pytest.mark.parametrize("home", [Home(HomeKind.FOLDER, ALICE, 0o750), Home(HomeKind.SYMLINK, ALICE, 0o777)])
def test_a_home_that_is_open_to_its_group_or_is_a_link_is_not_one(home: Home) -> None:
    assert found(box().having(homes={"alice": home})) == ()


# --- services ---


def looked_twice(before: int | None, now: int, *, restarting: bool = False) -> Sightings:
    return replace(
        well(),
        before={} if before is None else {T3_OF_ALICE: before},
        now={T3_OF_ALICE: now},
        restarting=frozenset({T3_OF_ALICE}) if restarting else frozenset(),
    )


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (looked_twice(3, 5), "restarted 2 times between two looks, 5 in all, now up again"),
        (looked_twice(0, 1, restarting=True), "restarted 1 time between two looks, 1 in all, now activating"),
        (looked_twice(None, 4, restarting=True), "restarted 4 times, now activating (auto-restart)"),
        (looked_twice(4, 4, restarting=True), "restarted 4 times, now activating (auto-restart)"),
    ],
)
def test_a_crash_loop(seen: Sightings, words: str) -> None:
    one = the_one(box(), seen)
    assert (one.kind, one.users) == (HazardKind.CRASH_LOOP, ("alice",))
    assert words in one.evidence
    assert f"journalctl -n 50 -u {T3_OF_ALICE}" in one.remedy


@pytest.mark.parametrize(("before", "told"), [(4, True), (5, False), (9, False)])
def test_a_service_that_was_restarted_often_since_the_last_run(before: int, *, told: bool) -> None:
    last = LastRun("id", 0, 0, 1.0, restarts={T3_OF_ALICE: before})
    hazards = found(box().having(last_run=last), looked_twice(7, 7))
    words = [f"{T3_OF_ALICE} restarted 3 times since the last run, 7 in all, now up again"]
    assert [one.evidence for one in hazards] == (words if told else [])


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(looked_twice(7, 7), id="restarted long ago"),
        pytest.param(looked_twice(None, 7), id="one look"),
        pytest.param(looked_twice(None, 0, restarting=True), id="its first crash"),
        pytest.param(looked_twice(7, 0), id="started by hand"),
    ],
)
def test_what_is_no_crash_loop(seen: Sightings) -> None:
    assert found(box(), seen) == ()


def test_slices_and_services_without_a_cap() -> None:
    seen = replace(
        well(),
        slice_caps={"alice": None, "bob": 1 << 30},
        services={**well().services, T3_OF_BOB: replace(WELL, memory_max=None)},
    )
    sessions, services = sorted(found(box(), seen), key=lambda one: one.users)
    assert sessions.kind is services.kind is HazardKind.NO_MEMORY_CAP
    assert sessions.users == ("alice",)
    assert sessions.evidence == "1 slice has no MemoryMax for a person's sessions: user-1000.slice (alice)"
    assert services.users == ("bob",)
    assert services.evidence == "t3-serve@.service: 1 instance has no MemoryMax, nor one of the person's slice: bob"
    assert "at tier power-user: limits: {memory_max: 8G}" in services.remedy


@pytest.mark.parametrize(
    ("cgroup", "capped"),
    [
        ("/user.slice/user-1001.slice/t3-serve@bob.service", True),
        ("/user.slice/user-1000.slice/t3-serve@bob.service", False),
        ("/system.slice/system-t3.slice/t3-serve@bob.service", False),
    ],
)
def test_a_service_is_capped_by_the_slice_of_its_own_person_that_it_runs_in(cgroup: str, *, capped: bool) -> None:
    look = ServiceLook(private_tmp=True, memory_max=None, cgroup=cgroup)
    hazards = found(box(), replace(well(), services={**well().services, T3_OF_BOB: look}))
    assert (hazards == ()) is capped


def test_a_slice_without_a_cap_caps_no_service_in_it() -> None:
    look = ServiceLook(private_tmp=True, memory_max=None, cgroup="/user.slice/user-1001.slice/t3-serve@bob.service")
    seen = replace(well(), services={T3_OF_BOB: look}, slice_caps={"bob": None})
    assert len(found(box(), seen)) == 2


def test_a_hundred_services_without_a_private_tmp_are_one_hazard() -> None:
    names = [f"user{number:02}" for number in range(100)]
    machine = bare()
    for number, name in enumerate(names):
        machine = machine.account(name, 2000 + number)
    look = ServiceLook(private_tmp=False, memory_max=1 << 30)
    seen = Sightings(services={f"t3-serve@{name}.service": look for name in names})
    one = the_one(machine, seen, desired())
    assert (one.kind, one.users) == (HazardKind.NO_PRIVATE_TMP, tuple(names))
    assert one.evidence == (
        "t3-serve@.service: 100 running instances have no PrivateTmp: user00, user01, user02 and 97 more"
    )
    assert "/etc/systemd/system/t3-serve@.service.d/private-tmp.conf" in one.remedy


# --- what nobody has any more ---


def link(unit: str, *, has_template: bool = True) -> Sightings:
    return replace(well(), links=(UnitLink(f"/etc/systemd/system/multi-user.target.wants/{unit}", unit, has_template),))


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (link("t3-serve@ghost.service"), "there is no account ghost"),
        (link("old-server@alice.service", has_template=False), "there is no template old-server@.service"),
    ],
)
def test_a_link_that_enables_what_is_nobodys(seen: Sightings, why: str) -> None:
    one = the_one(box(), seen)
    assert (one.kind, one.users) == (HazardKind.STRAY_LINK, ())
    assert one.evidence == f"{why}, but 1 link: {seen.links[0].path}"
    assert one.remedy == f"rm -- {seen.links[0].path} && systemctl daemon-reload"


@pytest.mark.parametrize("unit", ["getty@tty1.service", T3_OF_ALICE, "t3-serve@comes.service", "t3-serve@gone.service"])
def test_a_link_of_another_template_or_of_somebody_is_not_stray(unit: str) -> None:
    wanted = desired(person("alice"), person("bob"), person("comes"))
    assert found(box().buried("gone", 1009), link(unit), wanted) == ()


def test_an_env_file_of_nobody_that_keeps_a_port() -> None:
    one = the_one(box().env_file("t3", "ghost", "3780"))
    assert (one.kind, one.users) == (HazardKind.STRAY_ENV_FILE, ())
    assert one.evidence == "/etc/t3-serve/ghost.env keeps port 3780 of t3 for ghost, and there is no such account"
    assert one.remedy == "if nobody needs what is in it: rm -- /etc/t3-serve/ghost.env"


def test_an_env_file_that_is_also_read_as_anothers_is_not_stray() -> None:
    # /etc/t3-serve/playwright-bob.env, as the file of a person playwright-bob.
    assert found(box().env_file("t3", "playwright-bob", "9999")) == ()


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(box().env_file("t3", "ghost", None), id="no port"),
        pytest.param(box().env_file("t3", "gone", "3780").buried("gone", 1009), id="deleted, can come back"),
        pytest.param(box().account("zoe", 1010, managed=False).env_file("t3", "zoe", "3780"), id="not managed"),
    ],
)
def test_an_env_file_of_somebody_or_without_a_port_is_not_stray(machine: Machine) -> None:
    assert found(machine) == ()


# --- all of them ---


def with_two() -> Machine:
    homes = {name: Home(HomeKind.FOLDER, uid, 0o755) for name, uid in (("alice", ALICE), ("bob", BOB))}
    return box().having(homes=homes).env_file("t3", "alice", "3790")


def test_the_worst_comes_first() -> None:
    machine = box().having(homes={"alice": Home(HomeKind.FOLDER, ALICE, 0o755)}).env_file("t3", "bob", "3790")
    worst, other = found(machine)
    assert (worst.kind, worst.users) == (HazardKind.WRONG_PORT, ("bob",))
    assert (other.kind, other.users) == (HazardKind.READABLE_HOME, ("alice",))


def test_a_kind_that_is_accepted_is_left_out() -> None:
    hazards = found(with_two(), accepted={(HazardKind.READABLE_HOME, None)})
    assert [one.kind for one in hazards] == [HazardKind.WRONG_PORT]


def test_what_is_accepted_of_one_person_is_still_told_of_others() -> None:
    _, home = found(with_two(), accepted={(HazardKind.READABLE_HOME, "alice")})
    assert home.users == ("bob",)


def test_whoever_works_here_without_being_managed_is_looked_at_only_on_the_roster() -> None:
    machine = bare().account("zoe", 1010, managed=False)
    machine = machine.having(homes={"zoe": Home(HomeKind.FOLDER, 1010, 0o755)})
    assert found(machine, Sightings(), desired()) == ()
    assert the_one(machine, Sightings(), desired(person("zoe"))).users == ("zoe",)


def test_the_text_has_the_evidence_the_remedy_and_a_last_line() -> None:
    text = hazards_text(found(with_two()), {(HazardKind.NO_PRIVATE_TMP, None)}, ["shadow lines"])
    assert text.splitlines() == [
        "wrong-port: a service listens on another port than its env file says",
        f"  - {T3_OF_ALICE} listens on 3773, but /etc/t3-serve/alice.env says 3790",
        f"    > when it suits alice: systemctl restart -- {T3_OF_ALICE}",
        "",
        "readable-home: a home is open to everybody on this machine",
        "  - 2 homes open to everybody: /home/alice (755), /home/bob (755)",
        "    > chmod o= -- /home/alice /home/bob",
        "",
        "Could not be seen, so nothing is known of its hazards: shadow lines",
        "2 hazards: 1 wrong-port, 1 readable-home; accepted: no-private-tmp.",
    ]


def test_the_text_of_none() -> None:
    assert hazards_text([], (), []) == "No hazards.\n"
    assert hazards_text([], (), ["shadow lines"]).endswith("\nNo hazards seen.\n")


def test_a_name_that_would_move_the_cursor_is_shown_and_can_be_pasted() -> None:
    seen = replace(well(), secrets=(FileLook("/etc/t3-serve/a\x1b[2J'.env", 0, 0, 0o644),))
    text = hazards_text(found(box(), seen), (), [])
    assert "\x1b" not in text
    assert r"/etc/t3-serve/a\x1b[2J'.env" in text
    assert r"chmod 600 -- $'\x2f\x65\x74\x63" in text


def test_the_json_is_versioned() -> None:
    document = hazards_json(found(with_two()), {(HazardKind.CRASH_LOOP, "bob")}, ["shadow lines"])
    assert document["version"] == 1
    assert document["hazards"][1] == {
        "kind": "readable-home",
        "users": ["alice", "bob"],
        "evidence": "2 homes open to everybody: /home/alice (755), /home/bob (755)",
        "remedy": "chmod o= -- /home/alice /home/bob",
    }
    assert (document["accepted"], document["unseen"]) == (["crash-loop:bob"], ["shadow lines"])


def test_a_service_without_a_port_is_no_trouble() -> None:
    site = Site(
        services={
            "plain": Service("plain", ("plain@.service",)),
            "web": Service("web", ("web@.service",), PortRule("WEB", 5000, 5001, "/etc/web/{user}.env")),
        }
    )
    machine = bare().account("alice", ALICE).unit("plain@alice.service", UnitState("active", "running"))
    machine = machine.env_file("web", "alice", "5000").listener(5000, 0, "x.service", 3).listener(5001, 0)
    machine = machine.having(groups={**machine.observed.groups, "web": Group("web", 950, frozenset())})
    one = the_one(machine, Sightings(), desired(person("alice"), site=site))
    assert "WEB=(one that is free) in /etc/web/alice.env" in one.remedy
