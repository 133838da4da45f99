"""Runs one command in the machine and writes what it took, as JSON.

    measure.py COMMAND [ARGUMENT...]

What the command writes goes to /run/bench.out. Times are in seconds, memory in kilobytes. `pids` is how many process
ids the machine gave out meanwhile: to processes and threads, whoever started them.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

OUTPUT = "/run/bench.out"
TICK = os.sysconf("SC_CLK_TCK")
# What systemd and the bus still have to do when the command has ended is its doing too.
AFTERWARDS = 0.2


def main() -> int:
    """Measure."""
    argv = sys.argv[1:]
    bus = dbus_daemon()
    systemd_before, bus_before = cpu_of(1), cpu_of(bus)
    pid_before = next_pid()
    with Path(OUTPUT).open("wb") as output:
        started = time.monotonic()
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - started
    time.sleep(AFTERWARDS)
    found = {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "systemd_cpu": cpu_of(1) - systemd_before,
        "bus_cpu": cpu_of(bus) - bus_before,
        "peak_kb": usage.ru_maxrss,
        "pids": (next_pid() - pid_before - 1) % int(Path("/proc/sys/kernel/pid_max").read_text()),
    }
    sys.stdout.write(json.dumps(found))
    return 0


def next_pid() -> int:
    """Return the process id that a process gets now."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def cpu_of(pid: int) -> float:
    """Return the processor time of a process so far (proc_pid_stat(5)); behind its name come fields 3 and on."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def dbus_daemon() -> int:
    """Return the process id of the system bus."""
    show = ("systemctl", "show", "--property=MainPID", "--value", "dbus.service")
    return int(subprocess.run(show, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
