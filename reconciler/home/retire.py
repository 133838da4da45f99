"""Units that a person once made in their own systemd, put out of the way of a service that takes their place."""

from __future__ import annotations

import os
from pathlib import Path

from reconciler.core.home_steps import USER_UNITS, Ending, RetireStep
from reconciler.home.place import Ended, Home
from reconciler.host.files import free_name

RETIRED = ".retired-by-rosterd"


def take_retire(step: RetireStep, home: Home) -> Ended:
    """Stop units, disable them, and rename their files so that a rename back undoes it. Raises `StepFailed`."""
    folder = home.inside(USER_UNITS)
    units = [unit for unit in step.units if os.path.lexists(folder / unit)]
    manager = Path(f"/run/user/{os.getuid()}/systemd/private").exists()
    if units and manager:
        # All in one transaction: a timer stopped after its service could start it again in between.
        home.run(("systemctl", "--user", "stop", "--", *units)).or_fail()
    for unit in units:
        for link in [*folder.glob(f"*.wants/{unit}"), *folder.glob(f"*.requires/{unit}")]:
            link.unlink(missing_ok=True)
        (folder / unit).rename(free_name(folder / f"{unit}{RETIRED}"))
    if units and manager:
        home.run(("systemctl", "--user", "daemon-reload")).or_fail()
    return Ended(Ending.DONE, f"renamed to *{RETIRED} in ~/{USER_UNITS}" if units else "already so")
