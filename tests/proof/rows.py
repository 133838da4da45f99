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


ATTACKED: tuple[Row, ...] = ()


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
