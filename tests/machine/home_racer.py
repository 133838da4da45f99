"""Takes every kind of step in a home again and again, as its owner, while others swap links in it; run in a machine.

    home_racer.py LEAST_OF_EACH LEAST_OF_ALL COUNTER...
    home_racer.py in-peace

It is the code of rosterd's own worker, without the run around it, which would take a minute for each few hundred
steps. Each counter is a file in which an attacker counts their swaps. A race is a step during which they counted any.
Prints, as JSON, how many of each kind were raced, how they ended, and how many swaps came within steps. In peace, it
takes each step once and prints how each ended.
"""

import json
import mmap
import struct
import sys
import time
from collections import Counter
from pathlib import Path

from reconciler.core.home_steps import (
    CodeLayout,
    CommandStep,
    DirectoryStep,
    FileStep,
    GitStep,
    HomeStep,
    Keep,
    LayoutStep,
    McpStep,
    RetireStep,
    StepBody,
)
from reconciler.home.place import Home
from reconciler.home.worker import take

HOME = Path("/home/alice")
SOURCE = "/etc/rosterd/secret"
MOST_SECONDS = 1200
# What starts programs takes ten times as long as what does not.
SELDOM = 3

INFRA = "file:///srv/git/infra.git"
OFTEN_STEPS: tuple[StepBody, ...] = (
    DirectoryStep("notes", "0700"),
    DirectoryStep(".config/app/deep", "0750"),
    FileStep(".config/app/seed", content="seeded\n", mode="0640"),
    FileStep(".config/app/varied", content="%d\n", keep=Keep.CURRENT),
    FileStep(".config/app/secret", source=SOURCE, mode="0600"),
    LayoutStep(CodeLayout.WORKSPACE, "code", INFRA, ("api",)),
    LayoutStep(CodeLayout.SINGLE, "code", INFRA),
    RetireStep(("playwright-mcp.service",)),
)
SELDOM_STEPS: tuple[StepBody, ...] = (
    CommandStep(("/usr/bin/touch", str(HOME / "made")), creates="made"),
    GitStep("src/extra", "file:///srv/git/extra.git"),
    GitStep("code/infra", INFRA, "main", filters=("git-crypt",)),
    McpStep("other", "http://localhost:9/alice"),
)
KINDS = {body.kind for body in (*OFTEN_STEPS, *SELDOM_STEPS)}


def main() -> None:
    """Take each step once, or race until there were enough of each kind and of all."""
    home = Home(HOME, {SOURCE: b"secret-of-the-site\n"})
    told = in_peace(home) if sys.argv[1] == "in-peace" else race(home)
    sys.stdout.write(json.dumps(told) + "\n")


def in_peace(home: Home) -> list[str]:
    """Take each step once."""
    results = [result for body in (*OFTEN_STEPS, *SELDOM_STEPS) for result in take([_step(body, 0)], home)]
    return [f"{result.name} {result.ending.value}: {result.detail}" for result in results]


def race(home: Home) -> dict[str, object]:
    """Take the steps until there were enough of each kind and of all."""
    of_each, of_all = int(sys.argv[1]), int(sys.argv[2])
    counters = [_counter(path) for path in sys.argv[3:]]
    races: Counter[str] = Counter()
    endings: Counter[str] = Counter()
    swaps, rounds = 0, 0
    deadline = time.monotonic() + MOST_SECONDS
    while (races.total() < of_all or min(races[kind] for kind in KINDS) < of_each) and time.monotonic() < deadline:
        rounds += 1
        for body in (*OFTEN_STEPS, *(SELDOM_STEPS if rounds % SELDOM == 0 else ())):
            before = _swaps(counters)
            ended = [result.ending.value for result in take([_step(body, rounds)], home)]
            within = _swaps(counters) - before
            swaps += within
            if within:
                races[body.kind] += 1
                endings.update(f"{body.kind} {ending}" for ending in ended)
    return {"races": races, "endings": endings, "swaps": swaps}


def _step(body: StepBody, number: int) -> HomeStep:
    """Return a step that has another content each time."""
    if isinstance(body, FileStep) and body.content == "%d\n":
        body = FileStep(body.path, content=body.content % number, keep=body.keep)
    return HomeStep(body.kind, body, timeout=3)


def _counter(path: str) -> mmap.mmap:
    with Path(path).open("r+b") as file:
        return mmap.mmap(file.fileno(), 8)


def _swaps(counters: list[mmap.mmap]) -> int:
    return sum(struct.unpack("Q", counter[:8])[0] for counter in counters)


if __name__ == "__main__":
    main()
