"""Goes through all sizes, tools and situations, from the smallest size on, and notes what each took."""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.place import Place, command, place
from tests.bench.results import PEERS, SCENARIOS, TOOLS, Measurement, NotRun, Results, predicted

# Beyond that many people, what would take the other tools longer than this many seconds is not run.
ALWAYS_RUN = 100
LONGEST = 120.0
# From here on people are put there ahead, and nobody is added: useradd, and systemd 252 for each start and each reload,
# take longer than all the rest.
AHEAD_FROM = 10_000

# Rounds of rosterd and its floor by the number of users; of the other tools; of first runs, each in a new machine.
ROUNDS = {10: 9, 100: 9, 1_000: 7, 10_000: 5}
PEER_ROUNDS = {10: 1}
FIRST_ROUNDS = {10: 5, 100: 3, 1_000: 2}
ADDED_ROUNDS = {10: 3}
ANSWERS = {10: 3, 100: 5}


def rounds(table: Mapping[int, int], users: int) -> int:
    """Return how many rounds there are for a number of users, which need not be in the table."""
    return table.get(users, table[max((size for size in table if size <= users), default=min(table))])


@dataclass
class Measuring:
    """Measures into `results`; `deb` is the package."""

    deb: Path
    results: Results
    started: float = field(default_factory=time.monotonic)

    def everything(self) -> None:
        """Measure every size."""
        for users in self.results.sizes:
            if users == self.results.sizes[0]:
                self._count(users)
            self._rosterd(users)
            for tool in PEERS:
                self._peer(tool, users)

    # --- rosterd and its floor, in turns ---

    def _rosterd(self, users: int) -> None:
        if users < AHEAD_FROM:
            first = Measurement("rosterd", "first", users)
            for number in range(rounds(FIRST_ROUNDS, users)):
                self._say(f"{users} users, first runs, round {number + 1}")
                with place(self.deb, users) as there:
                    first.floors.append(there.measured("floor", "first"))
                    there.check()
                with place(self.deb, users) as there:
                    first.samples.append(there.measured("rosterd", "first"))
                    there.check()
                    if number == rounds(FIRST_ROUNDS, users) - 1:
                        self._note_with_floor(first)
                        self._later(there, users)
        else:
            with place(self.deb, users) as there:
                self._say(f"{users} users, put there ahead")
                there.put_people_ahead()
                there.measured("rosterd", "first")  # only writes the maps
                there.check()
                self._later(there, users)

    def _later(self, there: Place, users: int) -> None:
        """Measure all that comes after a first run, on the same machine."""
        # Of a service that has just been started the next run asks whether it was restarted.
        time.sleep(2)
        there.measured("rosterd", "converged")
        quiet = {name: Measurement("rosterd", name, users) for name in ("converged", "dry-run", "status")}
        self._say(f"{users} users, nothing to do")
        for _ in range(rounds(ROUNDS, users)):
            for name, one in quiet.items():
                one.floors.append(there.measured("floor", name))
                one.samples.append(there.measured("rosterd", name))
        for one in quiet.values():
            self._note_with_floor(one)
        self.results.reloads[users] = there.reload()
        if users < AHEAD_FROM:
            self._added(there, users)
            self._say(f"{users} users, from the edit to the answer")
            self.results.answers[users] = [there.edit_to_answer() for _ in range(rounds(ANSWERS, users))]

    def _added(self, there: Place, users: int) -> None:
        """Add one person by the floor, let rosterd write its maps, add the next by rosterd, and so on."""
        self._say(f"{users} users and one more")
        added = Measurement("rosterd", "added", users)
        for _ in range(rounds(ADDED_ROUNDS, users)):
            there.expect_one_more()
            added.floors.append(there.measured("floor", "added"))
            there.measured("rosterd", "converged")
            there.expect_one_more()
            added.samples.append(there.measured("rosterd", "added"))
            there.check()
        self._note_with_floor(added)

    def _note_with_floor(self, one: Measurement) -> None:
        self.results.measurements += [one, Measurement("floor", one.scenario, one.users, one.floors)]

    # --- the other tools ---

    def _peer(self, tool: str, users: int) -> None:
        """Measure what of a tool does not take too long; without a first run there is nothing to come after it."""
        wanted = [name for name in SCENARIOS if command(tool, name) is not None]
        left_out = [name for name in wanted if self._is_too_long(tool, name, users)]
        if "first" in left_out or users >= AHEAD_FROM:
            left_out = wanted
        for name in left_out:
            self._leave_out(tool, name, users)
        if left_out == wanted:
            return
        found = {name: Measurement(tool, name, users) for name in wanted if name not in left_out}
        with place(self.deb, users) as there:
            for name in ("first", *(name for name in found if name not in ("first", "added")), "added"):
                for number in range(1 if name == "first" else rounds(PEER_ROUNDS, users)):
                    if name in found:
                        self._say(f"{users} users, {tool} {name}, round {number + 1}")
                        if name == "added":
                            there.expect_one_more()
                        found[name].samples.append(there.measured(tool, name))
                        there.check()
        self.results.measurements += found.values()

    def _leave_out(self, tool: str, scenario: str, users: int) -> None:
        """Note what it would take, where a smaller size tells."""
        seconds = predicted(self.results.line(tool, scenario), users)
        if seconds is not None:
            self.results.not_run.append(NotRun(tool, scenario, users, seconds))

    def _is_too_long(self, tool: str, scenario: str, users: int) -> bool:
        seconds = predicted(self.results.line(tool, scenario), users)
        return users > ALWAYS_RUN and seconds is not None and seconds > LONGEST

    # --- counting ---

    def _count(self, users: int) -> None:
        """Count what each tool does in each situation, once, on a machine of its own."""
        for tool in TOOLS:
            self._say(f"{users} users, counting what {tool} does")
            with place(self.deb, users) as there:
                for scenario in self._in_order(tool):
                    if scenario == "added":
                        there.expect_one_more()
                    self.results.counts[tool, scenario] = there.counts(tool, scenario)
                    there.check()
                    if tool == "rosterd" and scenario == "first":
                        time.sleep(2)
                        there.measured("rosterd", "converged")

    def _in_order(self, tool: str) -> Iterator[str]:
        yield "first"
        yield from (name for name in ("converged", "dry-run", "status") if command(tool, name) is not None)
        yield "added"

    def _say(self, what: str) -> None:
        minutes, seconds = divmod(round(time.monotonic() - self.started), 60)
        sys.stderr.write(f"bench {minutes:2}:{seconds:02}: {what}\n")
        sys.stderr.flush()
