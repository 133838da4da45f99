"""Shows the whole job on the example roster, and fails where a step is not as it should be.

Boots a throwaway Debian 12, installs dist/rosterd_*.deb in it, and goes through a dry run, a run by the path
unit, a second run, what the machine then looks like, homes that are made ready, and a person who leaves, returns, is
deleted and restored. With KEEP=1 in the environment a shell in the machine follows.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.machine.machine import CHECKOUT, CommandError, Machine, Result
from tests.machine.rootfs import rootfs

STAND_IN = Path(__file__).with_name("stand_in.py")
ROSTER = CHECKOUT / "roster.yaml"
# From the edit of the roster to the end of the run: under 2 s, and the 5 s that services must stay up.
RUN_SECONDS = 30.0


SITE = """\
code: {infra_url: "file:///srv/git/infra.git", branch: main, repo_base: "file:///srv/git"}
homes:
  motd: {file: {path: .config/site/motd, content: "You are {user}, your agent is at port {port.t3}.\\n", keep: current}}
"""
MAKE_REPOSITORIES = """
git config --system safe.directory '*'
for name in infra api web; do
    git init --quiet --bare --initial-branch=main "/srv/git/$name.git"
    git clone --quiet "/srv/git/$name.git" "/tmp/$name" 2>/dev/null
    cd "/tmp/$name"
    git checkout --quiet -b main
    git -c user.name=team -c user.email=team@example.org commit --quiet --allow-empty --message=first
    git push --quiet origin main
done
"""


LIMITS = """\
tiers:
  admin: {groups: [code-shared, docker, sudo], admin: true, cluster: exempt}
  power-user: {limits: {memory_max: 2G, tasks_max: 1000}}
  namespace-owner: {namespaces: required}
"""


class DemoError(Exception):
    """A step did not show what it should."""


class Demo:
    """Commands in one machine, shown as a person would type them."""

    def __init__(self, machine: Machine) -> None:
        """Show what happens in `machine`."""
        self._machine = machine
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        """Head a step."""
        sys.stdout.write(f"\n{self._in('1', f'── {text}')}\n\n")
        sys.stdout.flush()

    def show(self, *argv: str, code: int = 0, has: tuple[str, ...] = (), hasnt: tuple[str, ...] = ()) -> Result:
        """Run a command, print it with its output, and check its exit code and its words."""
        result = self._machine.run(*argv, check=False)
        sys.stdout.write(f"{self._in('36', '$ ' + ' '.join(argv))}\n{result.out}{result.err}\n")
        sys.stdout.flush()
        said = result.out + result.err
        if result.code != code:
            raise DemoError(f"{argv[0]} exited {result.code}, not {code}")
        if missing := [word for word in has if word not in said]:
            raise DemoError(f"the output lacks: {', '.join(missing)}")
        if wrong := [word for word in hasnt if word in said]:
            raise DemoError(f"the output should not have: {', '.join(wrong)}")
        return result

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def prepare(machine: Machine) -> None:
    """Put in place what a site has: the tiers' groups, and programs for the services to run."""
    machine.sh("groupadd --system docker; groupadd --system code-shared")
    for program in ("/usr/bin/t3", "/usr/bin/npx"):
        machine.push(STAND_IN, program)
        machine.run("chmod", "755", program)


def before(demo: Demo) -> None:
    """Show that installing changes nobody's account, and what a run would do."""
    demo.say("The package is installed. The timer and the path unit wait, nothing was reconciled.")
    demo.show("systemctl", "is-enabled", "rosterd.timer", "rosterd.path", has=("enabled",))
    demo.show("systemctl", "is-active", "rosterd.timer", "rosterd.path", has=("active",))
    demo.show("getent", "passwd", "alice", "bob", "carol", code=2)

    demo.say("The roster says who works here. It is checked before it is put in place.")
    demo.show("rosterd", "validate", "--roster", "/root/roster.yaml", has=("no errors",))

    demo.say("The dry run: what would be done, person by person. It changes nothing.")
    demo.show("rosterd", "--dry-run", "--roster", "/root/roster.yaml", has=("+ account: none → uid 1000", "to add."))
    demo.show("getent", "passwd", "alice", code=2)


def run(demo: Demo, machine: Machine) -> None:
    """Show the run that the path unit starts, and that a second one has nothing to do."""
    demo.say("The roster is put in place. The path unit sees it, and runs rosterd.service.")
    demo.show("install", "--mode=644", "/root/roster.yaml", "/etc/rosterd/roster.yaml")
    wait_for(lambda: "run finished" in machine.run("journalctl", "-u", "rosterd").out, "the run")
    demo.show(
        *("journalctl", "--unit=rosterd", "--output=cat", "--grep=run finished"),
        has=("run finished",),
        hasnt=("failed", "problems"),
    )

    demo.say("A second run, by hand, has nothing to do.")
    demo.show("rosterd", has=("nothing to do",))


def after(demo: Demo, machine: Machine) -> None:
    """Show the machine itself, by its own tools."""
    demo.say("The accounts and their groups.")
    demo.show("getent", "passwd", "alice", "bob", "carol", "erin", "frances", has=("/home/alice", "/home/frances"))
    demo.show("id", "alice", has=("docker", "code-shared", "sudo", "rosterd"))
    demo.show("passwd", "--status", "bob", has=("bob L",))
    demo.show("stat", "--format=%A %U %n", "/home/alice", "/home/bob", has=("drwx------ alice",))

    demo.say("The services, each as its user. erin has no browser, frances is parked.")
    demo.show(
        *("systemctl", "list-units", "--no-pager", "--no-legend", "--plain", "t3-serve@*", "playwright-*@*"),
        has=("t3-serve@alice.service", "t3-serve@erin.service", "playwright-mcp@carol.service"),
        hasnt=("frances", "playwright-mcp@erin"),
    )
    main_pid = machine.run("systemctl", "show", "--property=MainPID", "--value", "t3-serve@carol").out.strip()
    demo.show("ps", "-o", "user,pid,args", "-p", main_pid, has=("carol",))

    demo.say("carol's port answers. (The server is a stand-in, which says whom it runs as.)")
    demo.show("cat", "/etc/t3-serve/carol.env", has=("T3_PORT=",))
    port = machine.read("/etc/t3-serve/carol.env").strip().removeprefix("T3_PORT=")
    demo.show("curl", "--silent", f"http://127.0.0.1:{port}/", has=("this is the server of carol",))

    demo.say("The maps for the programs in front.")
    demo.show("cat", "/etc/ttyd-user-map", has=("alice.archer=alice", "frances.f=frances"))
    demo.show("cat", "/etc/ttyd-admins", has=("alice",), hasnt=("bob",))
    demo.show("cat", "/etc/t3-serve/dispatch.json", has=(f'"port": {port}',), hasnt=("frances",))

    demo.say("The timer runs it every hour.")
    demo.show("systemctl", "list-timers", "--no-pager", "rosterd.timer", has=("rosterd.service",))

    demo.say("What the journal tells about one person.")
    demo.show(
        *("journalctl", "--no-pager", "--output=short", "OS_USER=erin"),
        has=("erin: account: none", "t3-serve@erin.service"),
        hasnt=("alice",),
    )


def homes(demo: Demo, machine: Machine) -> None:
    """Show how homes are made ready, by their owners, and that it is done once."""
    machine.sh(MAKE_REPOSITORIES)
    machine.write("/etc/rosterd/playwright-token", "a secret of root's\n", mode=0o600)
    machine.write("/root/site.yaml", SITE)

    demo.say("Homes. The site's policy names the team's repositories, a file for everybody, and a secret of root's.")
    demo.show("cat", "/root/site.yaml")
    demo.show("rosterd", "--dry-run", "--site", "/root/site.yaml", has=("carol", "home step code/api: not done yet"))
    demo.show("install", "--mode=644", "/root/site.yaml", "/etc/rosterd/site.yaml")
    wait_for(lambda: "cloned" in machine.run("journalctl", "-u", "rosterd").out, "the clones")
    state = ("systemctl", "show", "--property=ActiveState", "--value", "rosterd")
    wait_for(lambda: machine.run(*state).out == "inactive\n", "the end of the run")  # while it goes: "activating"

    demo.say("Everything in a home is its owner's. (A repository on this machine stands in for the team's server.)")
    demo.show("git", "-c", "safe.directory=*", "-C", "/home/carol/code/api", "log", "--oneline", has=("first",))
    look = "--format=%A %U %n"
    demo.show("stat", look, "/home/carol/code/infra", "/home/carol/code/api", has=("carol",), hasnt=("root",))
    demo.show("stat", look, "/home/bob/code", "/home/bob/.config/playwright/token", has=("-rw------- bob",))
    demo.show("cat", "/home/bob/.config/site/motd", has=("You are bob",))

    demo.say("What is so is not looked at again: the next run starts nothing for homes.")
    demo.show("rosterd", has=("nothing to do",))
    demo.show("journalctl", "--unit=rosterd-home@carol", "--output=cat", has=("Finished",))


def standing(demo: Demo, machine: Machine) -> None:
    """Show what an administrator sees where all is well, and where somebody's program is in the way."""
    demo.say("How everybody stands: the state of each service, who really listens on its port, what a run would do.")
    demo.show("rosterd", "status", has=("alice", "parked", "Nobody needs attention."), hasnt=("unhealthy",))

    demo.say("Now bob's server is down, and a program of erin's has taken its port.")
    machine.run("systemctl", "stop", "t3-serve@bob")
    erins = ("runuser", "-u", "erin", "--", "setsid", "--fork", "/usr/bin/t3", "serve", "--port", "3774")
    machine.start(*erins)
    wait_for(lambda: ":3774" in machine.run("ss", "-Hltn").out, "the start of erin's program")
    demo.show("rosterd", "status", has=("1 of 5 needs attention: bob.", "of erin"))
    demo.show("rosterd", "explain", "bob", has=("kept", "port 3774 is held by another process", "user erin"))
    demo.show("rosterd", "doctor", "--wait", "0", code=3, has=("port-held", "erin"))

    demo.say(
        "A run moves nothing and kills nobody: it says so, and exits 3. With the program gone, the next one mends it."
    )
    demo.show("rosterd", code=3, has=("port 3774 is held by another process",))
    machine.run("pkill", "-u", "erin", "-f", "port 3774")
    wait_for(lambda: ":3774" not in machine.run("ss", "-Hltn").out, "the end of erin's program")
    demo.show("rosterd", has=("t3-serve@bob.service: stopped → running",))

    demo.say("One ceiling a person: the site gives power users limits, for their logins and services together.")
    machine.write("/etc/rosterd/site.yaml", SITE + LIMITS)
    demo.show("rosterd", has=("user-1001.slice: memory_max none → 2G", "restart pending"))
    demo.show("systemctl", "restart", "t3-serve@bob", "playwright-mcp@bob")
    demo.show(
        *("systemctl", "show", "--property=MemoryMax,TasksMax,ControlGroup", "user-1001.slice", "t3-serve@bob"),
        has=("MemoryMax=2147483648", "ControlGroup=/user.slice/user-1001.slice/t3-serve@bob.service"),
    )
    machine.write("/etc/rosterd/site.yaml", SITE)


def leaving(demo: Demo, machine: Machine) -> None:
    """Show a person who leaves with everything open, and their return."""
    demo.say("carol has a password, a crontab, a lingering session and something that runs in the background.")
    machine.sh("echo carol:demo | chpasswd; loginctl enable-linger carol")
    machine.sh("printf '* * * * * true\n' | crontab -u carol -; runuser -u carol -- setsid -f sleep 3600 >&- 2>&-")
    machine.sh("cp /etc/shadow /root/shadow.before")
    wait_for(lambda: _has_manager(machine, "carol"), "the start of carol's own service manager")
    demo.show("ps", "-u", "carol", "-o", "pid,args", has=("sleep 3600", "systemd --user"))

    demo.say("carol leaves the roster. What would be done:")
    machine.sh("sed '/^  carol:/,/^$/d' /root/roster.yaml > /root/without-carol.yaml")
    demo.show(
        *("rosterd", "--dry-run", "--roster", "/root/without-carol.yaml"),
        has=("cut off (not on the roster)", "crontab: due → held", "expired, password locked", "- carol"),
    )

    demo.say("The run cuts carol off. No process is left, and no login; home, groups, uid and ports stay.")
    demo.show("install", "--mode=644", "/root/without-carol.yaml", "/etc/rosterd/roster.yaml")
    wait_for(lambda: _is_expired(machine, "carol"), "the cut")
    demo.show("rosterd", has=("nothing to do", "pending: revoke_cluster_rbac"))
    demo.show("ps", "-u", "carol", code=1, hasnt=("sleep",))
    demo.show("su", "carol", "-c", "true", code=1, has=("expired",))
    demo.show("stat", "--format=%A %U %n", "/home/carol", has=("drwx------ carol",))

    demo.say("carol comes back, and has everything that she had.")
    demo.show("install", "--mode=644", "/root/roster.yaml", "/etc/rosterd/roster.yaml")
    wait_for(lambda: not _is_expired(machine, "carol"), "the return")
    demo.show("rosterd", has=("nothing to do",))
    demo.show("diff", "/root/shadow.before", "/etc/shadow")
    demo.show("crontab", "-u", "carol", "-l", has=("* * * * * true",))
    wait_for(lambda: _has_manager(machine, "carol"), "the start of carol's own service manager")
    demo.show("loginctl", "show-user", "carol", "--property=Linger", has=("Linger=yes",))

    demo.say("bob lost a laptop: cut off at once, by hand, although bob is on the roster; and let in again.")
    demo.show("rosterd", "cut", "bob", has=("cut off (by command)",))
    demo.show("rosterd", has=("cut off by command; to end that: rosterd uncut bob",))
    demo.show("rosterd", "uncut", "bob", has=("cut off: yes → no",))


def deleting(demo: Demo, machine: Machine) -> None:
    """Show that a person is deleted by a command alone, after a cut and with an archive, and comes back from it."""
    demo.say("Deleting is a command of its own. It refuses whoever is on the roster, or is not cut off.")
    demo.show("rosterd", "destroy", "carol", "--yes", "carol", code=64, has=("is on the roster",))
    machine.sh("echo important | runuser -u carol -- tee /home/carol/notes")
    demo.show("install", "--mode=644", "/root/without-carol.yaml", "/etc/rosterd/roster.yaml")
    wait_for(lambda: _is_expired(machine, "carol"), "the cut")
    wait_for(lambda: not machine.run("pgrep", "-u", "carol", check=False).out, "the end of carol's processes")

    demo.say("carol is deleted. Every file was read back from the archive and compared before the first one went.")
    demo.show("rosterd", "destroy", "carol", "--yes", "carol", has=("read back and compared", "carol is deleted"))
    demo.show("getent", "passwd", "carol", code=2)
    demo.show("find", "/home", "-maxdepth", "1", "-name", "carol", hasnt=("carol",))
    demo.show("ls", "-l", "/var/lib/rosterd/archives", has=("carol-1002",))

    demo.say("Back on the roster, carol is not silently made anew.")
    demo.show("rosterd", "--dry-run", "--roster", "/root/roster.yaml", has=("was deleted", "rosterd restore carol"))

    demo.say("Restored, with the same ids, ports and files; the next run lets carol in again.")
    demo.show("rosterd", "restore", "carol", has=("carol is restored, and cut off as before",))
    demo.show("rosterd", "--roster", "/root/roster.yaml", has=("cut off: yes → no",))
    demo.show("getent", "passwd", "carol", has=("carol:x:1002:1002:",))
    demo.show("runuser", "-u", "carol", "--", "cat", "/home/carol/notes", has=("important",))
    demo.show("cat", "/etc/t3-serve/carol.env", has=("T3_PORT=3775",))
    demo.show("install", "--mode=644", "/root/roster.yaml", "/etc/rosterd/roster.yaml")


def _has_manager(machine: Machine, name: str) -> bool:
    return "systemd --user" in machine.run("ps", "-u", name, "-o", "args", check=False).out


def _is_expired(machine: Machine, name: str) -> bool:
    return "Jan 02, 1970" in machine.run("chage", "--list", name).out


def wait_for(reached: Callable[[], bool], what: str) -> None:
    """Return when something has come about; raises DemoError after RUN_SECONDS."""
    deadline = time.monotonic() + RUN_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            raise DemoError(f"{what} did not end within {RUN_SECONDS:.0f} s")
        time.sleep(0.2)


def main() -> int:
    """Go through the demo; return the exit code."""
    (deb,) = (CHECKOUT / "dist").glob("rosterd_*.deb")
    sys.stdout.write("Booting a throwaway Debian 12 and installing the package in it ...\n")
    with Machine(rootfs("bookworm")) as machine:
        demo = Demo(machine)
        try:
            prepare(machine)
            machine.install(deb)
            machine.push(ROSTER, "/root/roster.yaml")
            before(demo)
            run(demo, machine)
            after(demo, machine)
            homes(demo, machine)
            standing(demo, machine)
            leaving(demo, machine)
            deleting(demo, machine)
        except (DemoError, CommandError) as error:
            sys.stderr.write(f"\ndemo: FAILED: {error}\n")
            return 1
        finally:
            if os.environ.get("KEEP"):
                sys.stdout.write("\nA shell in the machine; it is gone when you leave.\n")
                machine.shell()
    sys.stdout.write("\ndemo: every step was as it should be\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
