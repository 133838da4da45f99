"""People who are at work in every way that a workstation allows, what is left of that, and whether they can log in.

All of it with real programs: sshd, cron, atd, tmux, ssh-agent, people's own systemd. All of it looks with the host's
own tools, never with the code under test.
"""

from collections.abc import Iterable

from tests.machine.machine import Machine
from tests.machine.workstation import eventually

KEY = "/root/busy-key"
PASSWORD = "correct-horse-47"  # noqa: S105 - of people who live for a test
SECRETS = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid")
RAN = "/var/tmp/ran"

KNOWN = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
ASK = {"SSH_ASKPASS": "/root/askpass", "SSH_ASKPASS_REQUIRE": "force"}

# What a person leaves running over ssh, beyond the session. Each `sleep` has a number of its own, to be told apart.
AT_WORK = """
tmux new-session -d 'sleep 80001'
setsid -f sleep 80002 >/dev/null 2>&1 </dev/null
(setsid sh -c 'sleep 80003 & exit' &) >/dev/null 2>&1 </dev/null
ssh-agent -a "/tmp/agent-$(id -un)" >/dev/null
"""
# It does not end when asked to. Whoever ends it has to wait first.
STUBBORN = """
setsid -f python3 -c '
import signal, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
time.sleep(80004)' >/dev/null 2>&1 </dev/null
"""
# What root or the system runs for them. $1 is the name, $2 the uid, $3 the first of their subordinate ids.
RUN_FOR = """
runuser -u "$1" -- setsid -f sleep 80005 >/dev/null 2>&1 </dev/null
runuser -u "$1" -- unshare --user --map-auto --map-root-user setpriv --reuid 7 setsid -f sleep 80006 \
    >/dev/null 2>&1 </dev/null
setpriv --reuid $(($3 + 9)) --regid $(($3 + 9)) --clear-groups setsid -f sleep 80007 >/dev/null 2>&1 </dev/null
systemctl --quiet enable --now "errand-$1.service"
systemctl start "crashing-$1.service"
systemd-run --quiet --uid="$1" --unit="once-$1" sleep 80008
systemd-run --quiet --unit="roots-$1" setpriv --reuid "$2" --regid "$2" --clear-groups sleep 80011
loginctl enable-linger "$1"
until [ -S "/run/user/$2/bus" ]; do sleep 0.02; done
runuser -u "$1" -- env XDG_RUNTIME_DIR="/run/user/$2" systemctl --user --quiet enable --now mine.service
"""
JOBS = """
mkdir -p -m 1777 /var/tmp/ran
echo "* * * * * echo cron >>/var/tmp/ran/$1" | crontab -u "$1" -
echo "* * * * * $1 echo cron.d >>/var/tmp/ran/$1" >"/etc/cron.d/job-$1"
due() { runuser -u "$1" -- sh -c "cd /; echo 'echo at >>/var/tmp/ran/$1' | at -M $2" 2>/dev/null; }
due "$1" 'now + 1 minute'
due "$1" 'now + 3 days'
"""

ERRAND = "[Service]\nUser={}\nExecStart=/usr/bin/sleep 80009\nRestart=always\n[Install]\nWantedBy=multi-user.target\n"
CRASHING = (
    "[Unit]\nStartLimitIntervalSec=0\n[Service]\nUser={}\nExecStart=/usr/bin/false\nRestart=always\nRestartSec=600\n"
)
MINE = "[Service]\nExecStart=/usr/bin/sleep 80010\n[Install]\nWantedBy=default.target\n"


def let_in(machine: Machine, *names: str) -> None:
    """Give people a key and a password, as an administrator and they themselves would."""
    machine.sh("[ -e $1 ] || ssh-keygen -q -t ed25519 -N '' -f $1", KEY)
    # Else sshd turns some away when many knock at once.
    machine.write("/etc/ssh/sshd_config.d/many.conf", "MaxStartups 100\n")
    machine.run("systemctl", "reload", "ssh.service")
    script = """
        key=$1; shift
        for name; do
            runuser -u "$name" -- mkdir -p -m 700 "/home/$name/.ssh"
            runuser -u "$name" -- tee "/home/$name/.ssh/authorized_keys" <"$key.pub" >/dev/null
        done
    """
    machine.sh(script, KEY, *names)
    machine.run("chpasswd", input="".join(f"{name}:{PASSWORD}\n" for name in names))


def set_to_work(machine: Machine, name: str, *, stubborn: bool = False) -> None:
    """Have somebody who is let in do everything at once; with `stubborn`, something that does not end when asked to."""
    machine.write(f"/etc/systemd/system/errand-{name}.service", ERRAND.format(name))
    machine.write(f"/etc/systemd/system/crashing-{name}.service", CRASHING.format(name))
    machine.sh('runuser -u "$1" -- mkdir -p "/home/$1/.config/systemd/user"', name)
    machine.write(f"/home/{name}/.config/systemd/user/mine.service", MINE, owner=name)
    machine.run("systemctl", "daemon-reload")
    machine.run(*ssh(name, "sh", "-s"), input=AT_WORK + (STUBBORN if stubborn else ""))
    session = machine.start(*ssh(name, "-tt", "echo here; exec sleep 80000"))
    assert session.stdout is not None
    assert session.stdout.readline().strip() == "here"
    machine.sh(RUN_FOR, name, str(uid_of(machine, name)), str(subuids_of(machine, name).start))
    eventually(lambda: "(sleep)" not in commands_of(machine, name), within=5)  # before its exec
    running = commands_of(machine, name)
    missing = {number for number in range(80000, 80012) if str(number) not in running}
    assert missing == (set() if stubborn else {80004}), running
    for word in ("t3 serve", "ssh-agent", "tmux", "systemd --user", f"{name}@pts/"):
        assert word in running


def set_jobs(machine: Machine, name: str) -> None:
    """Give somebody two cron jobs for every minute, one of them root's, and at jobs for the next and for later."""
    machine.sh(JOBS, name)


def ssh(name: str, *command: str) -> tuple[str, ...]:
    """Return the command that runs something over ssh as a person, by their key."""
    return ("ssh", "-i", KEY, "-o", "BatchMode=yes", *KNOWN, f"{name}@127.0.0.1", *command)


# --- logins ---


EVERY_WAY = {"key": True, "password": True, "su": True}
NO_WAY = dict.fromkeys(EVERY_WAY, False)


def logins(machine: Machine, *names: str) -> dict[str, dict[str, bool]]:
    """Return by person which ways in there are: a key, a password, and `su`, which asks root for no password.

    All are tried at once: whoever is refused is let wait.
    """
    machine.write(ASK["SSH_ASKPASS"], f"#!/bin/sh\necho {PASSWORD}\n", mode=0o700)
    by_password = (
        "setsid",
        "--wait",
        "ssh",
        "-o",
        "PubkeyAuthentication=no",
        "-o",
        "NumberOfPasswordPrompts=1",
        *KNOWN,
    )
    tries = {
        name: {
            "key": machine.start(*ssh(name, "true")),
            "password": machine.start(*by_password, f"{name}@127.0.0.1", "true", env=ASK),
            "su": machine.start("su", name, "-c", "true"),
        }
        for name in names
    }
    return {name: {way: command.wait(20) == 0 for way, command in ways.items()} for name, ways in tries.items()}


def with_good_keys(machine: Machine, *names: str) -> set[str]:
    """Return those whom their keys let in."""
    tries = {name: machine.start(*ssh(name, "true")) for name in names}
    return {name for name, command in tries.items() if command.wait(20) == 0}


# --- processes ---


def uid_of(machine: Machine, name: str) -> int:
    """Return a person's uid."""
    return int(machine.run("id", "--user", name).out)


def subuids_of(machine: Machine, name: str) -> range:
    """Return a person's subordinate user ids."""
    line = machine.run("grep", f"^{name}:", "/etc/subuid").out
    first, count = map(int, line.split(":")[1:])
    return range(first, first + count)


def commands_of(machine: Machine, name: str) -> str:
    """Return what runs as a person or as one of their subordinate ids, in whatever cgroup; a line for each."""
    uid, subuids = uid_of(machine, name), subuids_of(machine, name)
    lines = machine.run("ps", "-e", "--format", "ruid=,suid=,pid=,stat=,args=").out.splitlines()
    found = []
    for line in lines:
        real, saved, _, state, _ = line.split(None, 4)
        if not state.startswith("Z") and any(int(one) == uid or int(one) in subuids for one in (real, saved)):
            found.append(line)
    return "\n".join(found)


# --- snapshots ---


def snapshot(machine: Machine, names: Iterable[str]) -> dict[str, str]:
    """Return all that a cut could take from people, by what it is, so that a difference can be read."""
    found = {
        path: machine.run("cat", path).out + machine.run("stat", "--format=%U:%G %a", path).out for path in SECRETS
    }
    found["maps and ports"] = machine.sh(
        "tail -n +1 /etc/ttyd-* /etc/t3-serve/*; stat -c '%n %U:%G %a' /etc/t3-serve/*"
    ).out
    found["links"] = machine.sh("find /etc/systemd/system -type l -printf '%p %l\\n' | sort").out
    for name in names:
        found |= {f"{what} of {name}": text for what, text in _of_one(machine, name)}
    return found


def _of_one(machine: Machine, name: str) -> Iterable[tuple[str, str]]:
    script = r"""
        find "/home/$1" -printf '%p %i %m %U:%G %s %T@ %l\n' | sort
        find "/home/$1" -type f -exec sha256sum {} + | sort
        echo ===
        crontab=/var/spool/cron/crontabs/$1
        [ ! -e "$crontab" ] || { stat -c '%n %i %U:%G %a %Y' "$crontab"; base64 "$crontab"; }
        echo ===
        [ -e "/var/lib/systemd/linger/$1" ] && echo yes || echo no
    """
    parts = machine.sh(script, name).out.split("===\n")
    return zip(("home", "crontab", "lingering"), parts, strict=True)


def at_queue(machine: Machine, name: str) -> list[str]:
    """Return the at jobs of a person: what atq tells of them, and the job files, content, owner and mode."""
    script = """
        atq | sort | sed -n "s/ $1\\$//p"
        find /var/spool/cron/atjobs -type f -user "$1" -printf '%f %i %U:%G %m\\n' -exec sha256sum {} +
    """
    return machine.sh(script, name).out.splitlines()


def differences(before: dict[str, str], after: dict[str, str]) -> str:
    """Return the lines in which two snapshots differ."""
    told = []
    for what in before.keys() | after.keys():
        one, other = before.get(what, "").splitlines(), after.get(what, "").splitlines()
        told += [f"{what}: - {line}" for line in one if line not in other]
        told += [f"{what}: + {line}" for line in other if line not in one]
    return "\n".join(told)
