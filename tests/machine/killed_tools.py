"""Tools that rosterd starts, put in place so that a test can have each killed in the middle, alone or with its run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.machine.kill_points import KILLED, Point, points_in
from tests.machine.machine import Machine

PLANS = "/run/sweep/tools"

# In place of a tool. What is planned for it lies in PLANS/TOOL/KEY: that it is traced, or where it is killed, and that
# the run that started it is too. KEY is the last part of one of its words, or `any`; for a certain user's, USER:KEY.
# A plan is for one time.
TOOL = f"""\
#!/bin/sh
tool=${{0##*/}}
for word in "$@" any; do
    key=${{word##*/}}
    [ -f "{PLANS}/$tool/$key" ] || key=${{USER-}}:$key
    plan={PLANS}/$tool/$key
    [ ! -f "$plan" ] || break
done
[ -f "$plan" ] || exec "$0.real" "$@"
read -r call ordinal last <"$plan"
/usr/bin/rm "$plan"
[ "$call" != trace ] || exec strace -y -qq -o "$plan.trace" "$0.real" "$@"
strace -qq -o /dev/null -e "trace=$call" -e "inject=$call:signal=SIGKILL:when=$ordinal" "$0.real" "$@"
code=$?
echo "$key $code" >>{PLANS}/ends
[ -z "$last" ] || [ "$code" != 137 ] || kill -KILL "$PPID"
exit "$code"
"""

# Some run as a person, who takes their plan away.
MAKE_PLANS = f"""
mkdir -p {PLANS}/"$1"
chmod -R a+rwX /run/sweep
"""


def make_killable(machine: Machine, *tools: str) -> None:
    """Put these tools in place: names, or paths where they are found before those of /usr/bin."""
    for tool in tools:
        path = tool if tool.startswith("/") else f"/usr/sbin/{tool}"
        name = path.rpartition("/")[2]
        if machine.exists(path):
            machine.run("mv", path, f"{path}.real")
        else:
            machine.run("ln", "--symbolic", f"/usr/bin/{name}", f"{path}.real")
        machine.write(path, TOOL, mode=0o755)
        machine.sh(MAKE_PLANS, name)


def plan(machine: Machine, tool: str, plans: Mapping[str, str]) -> None:
    """Put plans in place, by key; those of the last time are gone, and so is what they came to."""
    script = """
        cd "$1"; : >ends; chmod a+rw ends; find . -type f ! -name ends ! -name '*.trace' -delete
        while read -r key plan; do echo "$plan" >"$2/$key"; done
    """
    machine.sh(script, PLANS, tool, input="".join(f"{key} {text}\n" for key, text in plans.items()))


def plan_traces(machine: Machine, key: str, *tools: str) -> None:
    """Have each of these tools traced, the next time that it works on this key."""
    machine.sh('cd "$1"; key=$2; shift 2; for tool; do echo trace >"$tool/$key"; done', PLANS, key, *tools)


def plan_kills(machine: Machine, tool: str, points: Mapping[str, Point], *, last: Iterable[str] = ()) -> None:
    """Have the tool killed at a point for each key, and the run that started it with those that are `last`."""
    ends = frozenset(last)
    plan(machine, tool, {key: f"{one.call} {one.ordinal} {'last' * (key in ends)}" for key, one in points.items()})


def traced_points_of(machine: Machine, tool: str, key: str) -> list[Point]:
    """Return where a tool can be killed, from the trace that was planned."""
    return list(points_in(machine.read(f"{PLANS}/{tool}/{key}.trace")))


def kills(machine: Machine) -> dict[str, str]:
    """Return how the tool ended for each key, as the shell counts: 137 is SIGKILL."""
    return dict(line.split() for line in machine.read(f"{PLANS}/ends").splitlines())


@dataclass(frozen=True)
class Kill:
    """A point of rosterd itself, or of a tool that it starts; then rosterd is killed too, every other time."""

    point: Point
    tool: str = ""
    key: str = ""

    def __str__(self) -> str:
        """Show the place for a person."""
        return f"{self.tool or 'rosterd'} {self.point}"

    def by(self, machine: Machine, *argv: str) -> bool:
        """Run a command of rosterd's, and say whether the point was reached."""
        if not self.tool:
            strace = ("strace", "-qq", "-o", "/dev/null", *self.point.inject, "--")
            return machine.run(*strace, *argv, check=False).code == KILLED
        last = [self.key] if self.point.ordinal % 2 else []
        plan_kills(machine, self.tool, {self.key: self.point}, last=last)
        machine.run(*argv, check=False)
        return kills(machine) == {self.key: "137"}
