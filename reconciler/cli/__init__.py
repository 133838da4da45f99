"""The command line: the composition root. It reads the arguments, puts the parts together, gives the exit code.

`parser` knows the arguments, `exits` the exit codes; each other module has the commands of one kind, and what
destroys is in `removal` alone.
"""

from __future__ import annotations

import errno
import gc
import io
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from reconciler import log
from reconciler.cli.common import tell
from reconciler.cli.exits import Exit, exit_for
from reconciler.cli.parser import parser_of_all, with_command
from reconciler.errors import FileRefused, RosterdError


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its exit code."""
    # A collection goes through all that was read, which holds no cycles, and the process ends soon.
    gc.disable()
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what is observed need not be valid text
    try:
        options = parser_of_all().parse_args(with_command(list(sys.argv[1:] if arguments is None else arguments)))
        code = options.command(options)
        sys.stdout.flush()
    except RosterdError as error:
        tell(str(error) if isinstance(error, FileRefused) else f"rosterd: {error}")
        code = exit_for(error)
    except KeyboardInterrupt:
        tell("rosterd: interrupted; the next run finishes what was begun, or the same command once more")
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # of a command that only reads; whoever wanted its output has left
        log.discard(sys.stdout)
        code = Exit.OK
    except ImportError as error:  # what a command needs is loaded when it is called
        tell(f"rosterd: a part of it cannot be loaded: {error}")
        code = Exit.CANNOT_RUN
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise  # it is not of writing what the command has to say
        tell(f"rosterd: the output cannot be written: {error.strerror}")
        log.discard(sys.stdout)
        code = Exit.CANNOT_RUN
    sys.exit(code)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
