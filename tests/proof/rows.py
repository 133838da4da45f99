"""The rows of docs/reliability.md: what can go wrong, what must come of it, and which tests show it."""

from dataclasses import dataclass

MACHINE, UNIT = "tests/machine", "tests/unit"


@dataclass(frozen=True)
class Row:
    """One row: a fault or an attack, what must come of it, the tests, and what they do not cover.

    A test is a file, or one function of it: `tests/machine/test_x.py::test_y`, whatever its parameters.
    """

    key: str
    fault: str
    outcome: str
    tests: tuple[str, ...]
    uncovered: str = ""


def machine(*names: str) -> tuple[str, ...]:
    """Return tests in machines: `services` is tests/machine/test_services.py, `services::x` its function test_x."""
    return tuple(_test(MACHINE, name) for name in names)


def unit(*names: str) -> tuple[str, ...]:
    """Return tests without a machine, likewise; `core/roster` lies in a folder of its own."""
    return tuple(_test(UNIT, name) for name in names)


def _test(folder: str, name: str) -> str:
    path, _, function = name.partition("::")
    before, slash, last = path.rpartition("/")
    file = f"{folder}/{before}{slash}test_{last}.py"
    return f"{file}::test_{function}" if function else file


KILLED: tuple[Row, ...] = (
    Row(
        "useradd",
        "SIGKILL anywhere inside `useradd`, alone or with the run that started it",
        "the next run completes the account",
        machine("interrupted_useradd"),
    ),
)


FAILING: tuple[Row, ...] = ()


FUZZED: tuple[Row, ...] = ()


TOGETHER: tuple[Row, ...] = ()


ATTACKED: tuple[Row, ...] = (
    Row(
        "other-homes",
        "a home is a link, is another's, or is no folder",
        "refused by name and not touched, no step is taken in it, others are done",
        machine(
            "faults::a_home_that_is_not_a_folder_of_the_persons_is_refused_and_not_touched",
            "faults::nobody_gets_an_account_on_a_home_that_is_there_already",
            "home_attack::no_step_is_taken_in_a_home_that_is_not_the_person_s",
        ),
    ),
    Row(
        "symlinks",
        "somebody swaps links under every step in their home, in two processes",
        "nothing outside of the home is touched; root looks below it by lstat, and opens and changes nothing",
        machine(
            "home_attack::an_attack_by_links_reaches_nothing_outside_of_the_home",
            "home_attack::nor_does_root_s_part_of_the_unit_that_takes_the_steps",
            "home_attack::every_kind_of_step_is_raced_and_none_is_lost",
        ),
        "a race is a step during which at least one link was swapped. Those counted by kind are of rosterd's own worker"
        " in a loop, as the person; those in whole runs come on top and are not counted. A home that is just being made"
        " is not attacked: root makes it, and nobody can log in yet",
    ),
    Row(
        "liars",
        "a person's own process lies about the steps, or their agent's file is a FIFO, a link, cut off",
        "believed of that home alone; the file is left as it is and named; no run is held up",
        machine(
            "home_attack::a_forged_result_is_believed_of_that_home_alone_and_stops_no_run",
            "home_attack::a_configuration_that_the_agent_could_not_read_is_left_alone_and_named",
        ),
    ),
    Row(
        "ailing-units",
        "a service fails to start, ends at once or soon, crashes again and again, lacks its program or template",
        "that person's service is named, exit 3, all others run, a mended one is started again",
        machine(
            "services::a_run_in_which_services_fail_exits_3",
            "services::a_service_that_does_not_come_up_is_named",
            "services::the_others_and_their_other_services_run",
            "services::accounts_and_ports_of_those_whose_service_fails_are_there",
            "services::a_unit_that_failed_for_good_is_started_again_once_it_is_mended",
        ),
    ),
    Row(
        "leaving",
        "somebody leaves who has keys, an open session, tmux, cron and at jobs, lingering services, processes of"
        " subordinate ids, others' units with their User=, a program that ignores signals",
        "within 30 s no process and no way in; nothing of theirs starts again; the return gives back what was, exactly",
        machine("leaving", "returning"),
        "what runs as root on their behalf, such as containers of a daemon: named, not ended",
    ),
    Row(
        "secrets",
        "a word of its own in every place that holds a secret; runs that work, fail, break off, cut, delete, restore",
        "it is in no argument, foreign environment, output, journal field, metric, record, page or file but its own",
        (
            *machine("secrets", "snapshot::nobody_sees_the_token"),
            *machine("homes::a_secret_is_seen_in_no_argument_environment_journal_or_record"),
            *unit("core/site_homes::a_refusal_shows_no_password_of_an_address"),
        ),
        "what a site's own command, a person's git or their agent says of its own secrets; an address with a token that"
        " a person has written into a clone of theirs, which git itself gives to its helper as an argument; what is"
        " wrong in roster.yaml or site.yaml is shown, but for passwords in addresses; memory and swap",
    ),
    Row(
        "sandbox",
        "every kind of action, by the service as it is installed, started by systemd alone",
        "done in its sandbox, exposed to 2.5 at most by systemd's own measure, and seen on the host",
        machine(
            "every_action",
            "package::a_service_is_exposed_to_2_5_at_most",
            "package::the_service_makes_a_whole_first_run_in_its_sandbox",
            "package::the_sandbox_costs_the_skel_none_of_its_modes",
        ),
        "one kind, set_cut_reason, is asked for by commands alone; they, and destroy, restore and forget, are root's by"
        " hand and run outside of the sandbox",
    ),
)


OTHERS: tuple[Row, ...] = (
    Row(
        "bad-files",
        "a bad roster or site file, of every kind that there is",
        "refused whole, exit code 5, nothing changed, every error with line and column",
        (*machine("bad_rosters"), *unit("core/roster", "core/site", "core/site_homes", "core/document", "schema")),
    ),
    Row(
        "guards",
        "a roster with nobody in it, or with half the people gone",
        "cuts are held, whatever is new is done, exit code 4",
        machine(
            "bad_rosters::an_empty_list_of_users_is_held_and_not_refused",
            "bad_rosters::half_of_the_users_gone_are_held_while_new_ones_are_added",
            "leaving::an_empty_roster_holds_every_cut",
            "leaving::a_mass_removal_is_held_while_whoever_is_new_comes_until_it_is_let_through_once",
        ),
    ),
    Row(
        "held",
        "an account of nobody on the roster, a stranger's port, a secret over several lines with `PORT=` in it",
        "left as it is and named, or kept byte for byte; everybody else is done",
        machine("existing"),
    ),
    Row(
        "ids",
        "people are created and destroyed, one after the other",
        "no uid is ever given twice, nothing of theirs stays",
        machine("destroy::no_uid_is_ever_given_twice"),
    ),
)


ROWS = (*KILLED, *FAILING, *FUZZED, *TOGETHER, *ATTACKED, *OTHERS)
