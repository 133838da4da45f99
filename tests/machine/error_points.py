"""Where a file call of a program can fail, and how: each call in the trace of a run, with each error that it can give.

strace numbers the calls of one name on one path (`-P`), so that what the bus library does in between shifts nothing. A
run with an error need not make the same calls as one without, so what failed is what strace says was injected.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

WORDS = {
    "EIO": "Input/output error",
    "ENOSPC": "No space left on device",
    "EMFILE": "Too many open files",
    "EACCES": "Permission denied",
}

# What each call can give; a call on an open file never EACCES.
_ON_PATHS = ("EIO", "EACCES")
_MAKING = ("EIO", "ENOSPC", "EACCES")
_ON_FILES = ("EIO",)
_WRITING = ("EIO", "ENOSPC")
GIVES = {
    **dict.fromkeys(("newfstatat", "stat", "lstat", "statx", "access", "faccessat", "faccessat2"), _ON_PATHS),
    **dict.fromkeys(("readlink", "readlinkat", "statfs", "unlink", "unlinkat", "rmdir"), _ON_PATHS),
    **dict.fromkeys(("chmod", "fchmodat", "chown", "lchown", "fchownat", "utimensat"), _ON_PATHS),
    **dict.fromkeys(("rename", "renameat", "renameat2", "mkdir", "mkdirat", "link", "linkat"), _MAKING),
    **dict.fromkeys(("symlink", "symlinkat", "mknod", "mknodat"), _MAKING),
    **dict.fromkeys(("fstat", "read", "pread64", "getdents64", "close", "flock", "fchmod", "fchown"), _ON_FILES),
    **dict.fromkeys(("write", "pwrite64", "fsync", "fdatasync", "ftruncate"), _WRITING),
}
_CHANGING = re.compile(r"unlink|rmdir|f?chmod|[fl]?chown|utimens|flock")
_OPENING = re.compile(r"open(at2?)?")
_LINE = re.compile(r"(\w+)\((.*)")
_PATHS = re.compile(r'"(/?[^"]*)"|\d<(/[^>]*)>')
_LIBRARY = re.compile(
    r"/usr/(local/)?lib/(python|x86_64|aarch64|[^/]*linux-gnu|girepository)|/usr/share/zoneinfo|\.so\b"
)


@dataclass(frozen=True)
class Failure:
    """The `ordinal`th call of `call` on `path` gives `error`; `shown` is its line in the trace of a run without."""

    call: str
    path: str
    ordinal: int
    error: str
    shown: str = ""

    @property
    def inject(self) -> tuple[str, ...]:
        """The arguments of strace for it."""
        return (
            "-P",
            self.path,
            "-e",
            f"trace={self.call}",
            "-e",
            f"inject={self.call}:error={self.error}:when={self.ordinal}",
        )

    @property
    def is_changing(self) -> bool:
        """Whether the call is one that changes something, or makes a file."""
        return "ENOSPC" in errors_of(self.call, self.shown) or bool(_CHANGING.match(self.call))


def failures_in(trace: str, begin: str) -> Iterator[Failure]:
    """Yield what can fail from the first line on that has `begin` in it, in a trace with `-y` and `-s 300`.

    What the interpreter reads of its own to load a library is left out.
    """
    count: Counter[tuple[str, str]] = Counter()
    begun = False
    for line in trace.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        call, arguments = found.groups()
        given = [opened or name for name, opened in _PATHS.findall(line.partition(") = ")[0]) if opened or name]
        count.update((call, path) for path in set(given))
        begun = begun or begin in line
        if begun and (names := paths_of(line)) and not _LIBRARY.search(names[-1]):
            for error in errors_of(call, arguments):
                yield Failure(call, given[-1], count[call, given[-1]], error, line[:160])


def errors_of(call: str, arguments: str) -> tuple[str, ...]:
    """Return the errors that a call can give."""
    if _OPENING.fullmatch(call):
        return ("EIO", "EMFILE", "EACCES", *(("ENOSPC",) if "O_CREAT" in arguments else ()))
    if "AT_EMPTY_PATH" in arguments:
        return _ON_FILES
    return GIVES.get(call, ())


def paths_of(line: str) -> list[str]:
    """Return the paths in a line of a trace, those of open files too; a name alone is below the folder before it."""
    paths: list[str] = []
    for name, opened in _PATHS.findall(line.partition(") = ")[0]):
        if opened or name.startswith("/"):
            paths.append(opened or name)
        elif name and paths:
            paths.append(f"{paths[-1].rstrip('/')}/{name}")
    return paths
