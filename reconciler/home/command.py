"""A command that is to have been run."""

from __future__ import annotations

import os

from reconciler.core.home_steps import CommandStep, Ending, Watch
from reconciler.errors import StepFailed
from reconciler.home.place import Ended, Home
from reconciler.host.looks import exists


def take_command(step: CommandStep, home: Home) -> Ended:
    """Run a command unless what it is for is so already, and see that it is so afterwards. Raises `StepFailed`."""
    if _is_so(step, home):
        return Ended(Ending.DONE, "already so", _watches(step, home))
    home.run(step.run).or_fail()
    if not _is_so(step, home):
        missing = f"~/{step.creates} is not there" if step.creates else f"{step.unless[0]} still fails"
        raise StepFailed(f"{step.run[0]} exited 0, but {missing}")
    return Ended(Ending.DONE, "run", _watches(step, home))


def _is_so(step: CommandStep, home: Home) -> bool:
    if step.creates is not None:
        return os.path.lexists(home.inside(step.creates))
    return home.run(step.unless).code == 0


def _watches(step: CommandStep, home: Home) -> tuple[Watch, ...]:
    return () if step.creates is None else (exists(home.inside(step.creates)),)
