"""Counts, in what strace wrote, programs, D-Bus calls and what was written into files."""

import re
from collections.abc import Sequence

from tests.bench.results import Counts

_WRITES = "write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range"
# One file for each thread, or calls of two would be cut up. With --seccomp-bpf other calls are not held up.
OPTIONS = (
    *("--seccomp-bpf", "--follow-forks", "--output-separately", "--quiet=all", "--decode-fds=path"),
    *("--string-limit=16", "--signal=none", f"--trace=execve,sendmsg,{_WRITES}"),
)

# A path in the file system; not /dev/null, a pipe or a socket.
_PATH = r"\d+<(/(?!dev/)[^>]*)>"
_WRITTEN = re.compile(rf"(?:p?writev?\d*\({_PATH}|sendfile\({_PATH}|copy_file_range\([^,]+, [^,]+, {_PATH}).* = (\d+)$")
# The first two bytes of a message are the order of its bytes, and that it is a call (D-Bus specification).
_BUS_CALL = re.compile(r'^sendmsg\(.*iov_base="l\\1\\')


def counted(calls: Sequence[str]) -> Counts:
    """Return what a command and all that it started did; the first program is the command itself."""
    written = [(found.group(1, 2, 3), int(found[4])) for call in calls if (found := _WRITTEN.match(call))]
    return Counts(
        programs=sum(call.startswith("execve(") and call.endswith(" = 0") for call in calls) - 1,
        bus_calls=sum(_BUS_CALL.match(call) is not None for call in calls),
        files_changed=len({next(filter(None, paths)) for paths, _ in written}),
        bytes_written=sum(size for _, size in written),
    )
