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


OTHERS: tuple[Row, ...] = ()


ROWS = (*KILLED, *FAILING, *FUZZED, *TOGETHER, *ATTACKED, *OTHERS)
