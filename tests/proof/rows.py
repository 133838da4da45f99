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
    Row(
        "tools",
        "SIGKILL anywhere inside `groupadd`, `gpasswd` or `usermod`, alone or with the run that started it",
        "the next run completes the account",
        machine("interrupted_useradd::another_tool_killed_anywhere_is_finished_by_the_next_run"),
        "`groupadd` is killed for people's own groups; killed for the group `rosterd` or a tier's, it can leave that"
        " group without a line in gshadow, which stays so and which nothing of rosterd's needs.",
    ),
    Row(
        "killed",
        "SIGKILL before each change of a run's own, and before each message to systemd that changes something (also"
        " between enabling and the reload): a first run, one person more, a changed limit, a lost home",
        "the next run leaves all that an undisturbed one leaves, byte for byte: accounts, services, maps, ports,"
        " records, a secret over several lines; no temporary file, no record left open",
        (
            *machine("sweep::a_run_killed_at_any_change_is_completed_by_the_next"),
            *machine("sweep::a_run_killed_between_enabling_and_the_reload_has_it_active_after_the_next"),
            *machine("interrupted_useradd::a_run_killed_anywhere_while_it_makes_a_home_is_completed_by_the_next"),
        ),
        "One kill, and not two in a row; and not before an fsync, which changes no file as another process sees it"
        " (power cuts are another row).",
    ),
    Row(
        "unit",
        "SIGKILL for the whole of rosterd.service, or its main process, at moments spread evenly over a first run",
        "as above, by the next start of the service",
        machine("sweep::the_whole_unit_killed_at_any_moment_is_completed_by_its_next_run"),
        "Moments are some ten milliseconds apart.",
    ),
    Row(
        "cut",
        "SIGKILL at any change of a cut or a return, in the `usermod` that it starts, and after any of its actions",
        "the next run finishes it, the same command where nothing was on record yet; what is closed stays closed, by"
        " logins tried in between; after the return all is as before",
        machine("interrupted_cut"),
        "Messages to systemd and the child that kills processes are passed between actions only, not one by one.",
    ),
    Row(
        "destroyed",
        "SIGKILL at any change of `destroy` or `restore`, or at every other one of a tool that they start",
        "the same command finishes; nothing is gone that no sound archive on record holds; every archive restores,"
        " with all as before; nobody gets in",
        machine("destroy_killed"),
        "`tar` changes nothing itself while it archives, so `gzip`, which writes, is killed for it. `find` and `sync`"
        " only look or wait.",
    ),
    Row(
        "homes",
        "SIGKILL at any change of rosterd's while steps in homes are taken, of the child that takes them, or of"
        " `git clone`",
        "the next run finishes the steps; each home as after an undisturbed run, each clone sound by `git fsck`",
        machine("sweep_homes"),
        "What a killed `git clone` has started itself ends by itself. The agent's own command is not there, so not"
        " killed.",
    ),
)


FAILING: tuple[Row, ...] = (
    Row(
        "power",
        "the power goes after any change that `reconcile`, `cut`, `destroy`, `restore` or `uncut` makes on disk",
        "every env file, map, record, limit and archive is old or new; nobody is deleted before they are archived; the"
        " next run, on that disk, puts all right",
        machine("power_loss"),
        "one file system for all (ext4, data=ordered, without auto_da_alloc); no disk that lies about what it has"
        " written or writes out of order; what a step has a tool write in a home (a clone) is not looked at",
    ),
    Row(
        "errors",
        "EIO, ENOSPC, EMFILE or EACCES at a file call of a run, a cut, a deletion, or where steps are handed to a home",
        "no byte lost, the file and the error named, an exit code that is true, put right by the next run",
        machine("error_injection", "faults::an_error_of_any_step_of_a_write_keeps_the_old_text"),
        "calls that only read are all tried in a run with nothing to do, else one in ten or fewer; not those that load"
        " libraries, nor those of the tools that rosterd starts; one call fails at a time; a step in a home that failed"
        " so is tried again after its pause, here with --retry",
    ),
    Row(
        "full",
        "a full disk, a read-only folder, a read-only /etc; few open files allowed, small files only",
        "old content kept, named, exit 1 or 3, put right by the next run",
        machine(
            "error_injection::few_open_files_are_enough_or_it_is_named",
            "error_injection::a_limit_on_the_size_of_files_is_named",
            "faults::a_full_disk_keeps_what_was_there_and_harms_nothing_else",
            "faults::a_read_only_folder_of_env_files_harms_nothing_else",
            "faults::a_read_only_etc_is_named_and_changes_nothing",
        ),
    ),
)


FUZZED: tuple[Row, ...] = (
    Row(
        "made",
        "rosters and site files made by chance: everything in them that may be, and in most one thing broken",
        "a good one is read as it was meant; of a broken one, nothing is accepted that a checker of its own, written"
        " from the pages, refuses; each error has its line and column; no traceback, no hang",
        unit("fuzz_files", "strict_checker", "schema"),
        "both readers of YAML that the checker can use have one author",
    ),
    Row(
        "damaged",
        "bytes of rosters, site files, environment files, records, account files, maps and of what the kernel tells,"
        " damaged by chance",
        "refused with the documented error, or read as a reader of its own reads it; no traceback, none takes a second",
        unit("fuzz_bytes"),
        "crontabs, at jobs and unit files are never read by rosterd, so not tried; what systemd makes of a damaged"
        " environment file is compared for chosen ones alone (`test_fakes_are_true.py`)",
    ),
    Row(
        "histories",
        "random histories on the host in memory: edits, killed and failing runs, breakage by hand, cuts, returns,"
        " parking, jumps of the clock",
        "the next run sets it right, another has nothing to do; never two people on one uid or port, nothing taken from"
        " who is on the roster, no way in for who is cut off, unmanaged accounts as they were",
        unit("histories", "properties", "leaving_properties"),
        "nobody is deleted or restored in them; the host in memory is held to the real one by `test_fakes_are_true.py`",
    ),
    Row(
        "histories_machine",
        "a random history on a real machine, with real kills",
        "the same, by the host's own tools, to the byte and the process",
        machine("histories"),
        "no jumps of the clock, which the machine shares with its host; nobody is deleted",
    ),
)


TOGETHER: tuple[Row, ...] = (
    Row(
        "together",
        "twenty runs at once, with `cut`, `uncut`, `status`, `--dry-run`, `explain`, `doctor` between them, while the"
        " roster, a limit and a service change",
        "one applies at a time, no id and no port is given twice, each ends as documented, the machine is as asked for",
        machine(
            "together::of_twenty_runs_at_once_one_works_at_a_time_and_all_end_well",
            "services::of_two_runs_at_once_one_waits_and_both_end_well",
            "services::a_run_by_hand_gives_up_when_another_holds_the_lock_for_too_long",
        ),
        "which run comes next is left to the kernel; waiting in vain (exit 75) is shown with a short wait only",
    ),
    Row(
        "locks",
        "rosterd's own lock: held, left over by a killed run, removed or replaced by a file, a link, a folder, a FIFO",
        "never two at work; who cannot get it says so, exit 75 or 1; a lock that nobody holds is no hindrance",
        (
            *machine(
                "together::whatever_is_done_to_a_lock_that_is_held_nobody_else_gets_to_work",
                "together::the_lock_of_a_run_that_was_killed_holds_nobody_up",
            ),
            *unit("host/lock"),
        ),
        "who removes the whole folder /run/rosterd while a run goes lets in a second one",
    ),
    Row(
        "account_locks",
        "`passwd.lock`, `group.lock`, `shadow.lock`, `gshadow.lock`, `subuid.lock`, `subgid.lock` empty, garbage, of"
        " another live process, of a dead one; `.pwd.lock` held",
        "named, what needs no account is done in bounded time, no lock is deleted; that of a dead process is no"
        " hindrance",
        machine(
            "faults::a_held_lock_of_passwd_fails_the_accounts_only_and_stays",
            "faults::a_lock_of_any_other_file_of_accounts_is_named_and_stays",
            "faults::the_lock_of_a_dead_process_is_no_hindrance",
            "faults::a_process_that_holds_the_lock_costs_its_wait_once_and_not_for_each_person",
        ),
        "a lock of each file in one state only, but for `passwd.lock`, which is tried in all",
    ),
    Row(
        "isolation",
        "one of fifty people hangs in a step in the home: a command, a clone, a folder, a file, the agent, a change"
        " of layout",
        "the others lose 5 s at most, the step is named, nothing half-made and no process stays",
        machine(
            "isolation",
            "homes::one_who_hangs_delays_nobody_and_is_tried_again_with_growing_pauses",
            "homes::a_cut_by_a_command_does_not_wait_for_who_hangs",
            "homes::an_edit_of_the_roster_does_not_wait_for_who_hangs",
            "homes::a_worker_that_is_killed_is_a_named_failure_of_that_person_s_alone",
            "homes::a_worker_that_is_stopped_holds_up_nobody_and_can_be_ended",
        ),
        "a disk that does not answer is a system call that strace delays; old units of a person's own systemd are not"
        " tried; more than 16 people who hang at once hold up the others",
    ),
    Row(
        "bus",
        "the bus or systemd is down, frozen, dies or freezes while services start",
        "bounded; accounts, ports and maps are done; named; the next run does the rest",
        machine(
            "faults::without_the_bus_all_but_the_services_is_done_and_the_next_run_brings_them_up",
            "faults::a_frozen_bus_holds_up_a_run_for_seconds_only",
            "faults::a_systemd_that_does_not_answer_holds_up_a_run_for_seconds_only",
            "faults::a_bus_that_fails_while_services_start_ends_the_wait_for_them",
            "services::without_a_bus_the_accounts_are_done_and_the_services_named",
            "services::with_a_frozen_bus_the_accounts_are_done_and_the_services_named_in_time",
            "homes::without_the_bus_accounts_are_made_and_the_steps_are_named_as_not_done",
        ),
    ),
    Row(
        "restarts",
        "the bus is restarted or killed, systemd is executed anew or reloaded, before and during each batch of a"
        " run's actions",
        "bounded; the accounts are done; what is not known to have started is named; the next run does the rest",
        machine("restarts"),
        "between two calls of one batch the moment is what it happens to be, a third of a second after its beginning",
    ),
    Row(
        "swaps",
        "roster and site file are swapped hundreds of times a second while runs go: two good versions, links, FIFOs,"
        " files cut off, and such as others could have written",
        "the machine is as one version asks for, never a mixture; none that is not to be trusted is applied",
        machine("swaps::each_run_goes_by_one_version_of_the_files_and_by_no_untrusted_one"),
        "each file is one snapshot; roster and site file may be of two moments. A folder above the file is looked at"
        " right after the file was opened, not at the same time",
    ),
    Row(
        "folders",
        "the folder of the roster, or one above it, is a link, somebody's, or writable for others, also from the"
        " middle of a run on; so are /etc/t3-serve and the maps",
        "refused by name, what was read before is done whole; nothing is written into a folder of somebody's or"
        " through a link",
        (
            *machine(
                "swaps::a_folder_that_is_changed_during_a_run_is_seen_and_the_run_goes_by_what_it_had_read",
                "swaps::a_roster_is_trusted_no_more_than_any_folder_above_it",
                "swaps::nothing_is_written_where_somebody_else_could_change_it_nor_through_a_link",
                "bad_rosters::a_roster_that_others_could_have_written_is_refused",
                "bad_rosters::a_site_file_that_others_could_have_written_is_refused",
            ),
            *unit("host/sources"),
        ),
        "environment files that lie in such a folder already are read, and services that have them are started: only"
        " what a run would write there is refused",
    ),
    Row(
        "clock",
        "the clock is set back an hour, a day, a month; forward a day; right again",
        "nobody is cut off, what failed is tried once at most and then rests",
        machine("clock"),
        "what is set is what the program takes for the time: a machine for tests shares the clock of its host."
        " systemd's own timers, and jobs of at, are not tried",
    ),
    Row(
        "agents_file",
        "`~/.claude.json` is a FIFO, a link, cut off, no configuration, being written all the time",
        "its bytes are unchanged, it is named, the run is not held up",
        machine("agent"),
    ),
    Row(
        "clones",
        "a clone hangs, is killed, or has no credentials",
        "the others finish in time, no partial folder stays, the next run has it",
        machine(
            "code::who_hangs_leaves_nothing_half_made_and_holds_nobody_up",
            "code::a_clone_that_is_killed_in_its_middle_is_whole_after_the_next_run",
            "code::of_a_clone_whose_git_is_killed_nothing_stays",
            "code::a_person_without_credentials_is_told_of_and_holds_nobody_up",
            "isolation",
        ),
        "the network that swallows everything is a port of the machine's own whose queue is full",
    ),
    Row(
        "taken_ports",
        "a port is held by a stranger, or by a unit of the person's own; two people claim one",
        "nothing is moved by itself, the holder is named with pid, user and unit; an own old unit makes way once it"
        " is known as such",
        machine("existing", "legacy_units"),
    ),
    Row(
        "second_run",
        "a second run with nothing to do",
        "no process is started, nothing but its own record is written, no home is looked into",
        machine(
            "reconcile::a_second_run_starts_no_process_and_writes_no_file_but_its_own_record",
            "reconcile::a_second_run_has_nothing_to_do_and_changes_nothing",
            "reconcile::a_second_run_looks_into_nobodys_home",
            "counts",
            "homes::a_second_run_starts_no_process_opens_nothing_below_home_and_writes_nothing",
        ),
    ),
    Row(
        "dry_run",
        "`--dry-run`",
        "no system call that changes anything, no lock",
        machine(
            "reconcile::a_dry_run_makes_no_system_call_that_changes_anything",
            "reconcile::a_dry_run_takes_no_lock",
        ),
    ),
)


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


GROUPS = {
    "Killed": KILLED,
    "Power and errors": FAILING,
    "By chance": FUZZED,
    "At the same time": TOGETHER,
    "Attacks and secrets": ATTACKED,
    "What people write, and who they are": OTHERS,
}
ROWS = tuple(row for group in GROUPS.values() for row in group)
