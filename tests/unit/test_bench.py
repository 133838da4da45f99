"""What the benchmark works out from what it measures."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from tests.bench.page import page
from tests.bench.plot import LABEL_HEIGHT, plot, spread
from tests.bench.results import Counts, Measurement, NotRun, Results, Sample, exponent, predicted
from tests.bench.tracing import counted
from tests.bench.words import duration, ratio

ABOUT = dict.fromkeys(
    ("date", "systemd", "python", "processor", "cores", "memory", "kernel", "load", "rosterd", "ansible", "pyinfra"),
    "?",
) | {"longest": "2.0 min"}


def sample(seconds: float) -> Sample:
    return Sample(seconds, cpu=seconds, systemd_cpu=0.0, bus_cpu=0.0, peak_kb=40_000, pids=4)


def results() -> Results:
    found = Results(ABOUT, (10, 100))
    for users, own, floor, other in ((10, 0.25, 0.125, 20.0), (100, 0.5, 0.25, 180.0)):
        found.measurements += [
            Measurement("rosterd", "converged", users, [sample(own)] * 3, [sample(floor)] * 3),
            Measurement("floor", "converged", users, [sample(floor)] * 3),
            Measurement("ansible", "converged", users, [sample(other)]),
        ]
    found.measurements.append(Measurement("pyinfra", "converged", 10, [sample(9.0)]))
    found.not_run.append(NotRun("pyinfra", "converged", 100, 90.0))
    found.counts["rosterd", "converged"] = Counts(programs=0, bus_calls=3, files_changed=1, bytes_written=204)
    return found


def test_programs_calls_and_bytes_are_counted_from_a_trace() -> None:
    trace = [
        'execve("/usr/sbin/rosterd", ["rosterd"], 0x7ffd /* 6 vars */) = 0',
        'execve("/sbin/useradd", ["useradd"], 0x7ffd /* 6 vars */) = -1 ENOENT (No such file or directory)',
        'execve("/usr/sbin/useradd", ["useradd"], 0x7ffd /* 6 vars */) = 0',
        r'sendmsg(5<socket:[1]>, {msg_name=NULL, msg_iov=[{iov_base="l\1\0\1\0\0\0\0\1"..., iov_len=128}]}, 0) = 128',
        r'sendmsg(5<socket:[1]>, {msg_name=NULL, msg_iov=[{iov_base="l\2\1\1\0\0\0\0\1"..., iov_len=128}]}, 0) = 128',
        r'sendmsg(5<socket:[1]>, {msg_name=NULL, msg_iov=[{iov_base="\0AUTH EXTERNAL"..., iov_len=14}]}, 0) = 14',
        'write(3</etc/passwd+>, "root:x:0:0:root:"..., 900) = 900',
        'pwrite64(3</etc/passwd+>, "x", 1, 0) = 1',
        "sendfile(4</etc/group>, 3</etc/group->, NULL, 500) = 500",
        "copy_file_range(3</etc/a>, NULL, 4</etc/b>, NULL, 100, 0) = 100",
        'write(1<pipe:[12]>, "done", 4) = 4',
        'write(1</dev/null>, "done", 4) = 4',
        'write(3</etc/full>, "x", 1) = -1 ENOSPC (No space left on device)',
    ]
    assert counted(trace) == Counts(programs=1, bus_calls=1, files_changed=3, bytes_written=1501)


def test_the_exponent_of_a_power_law_is_found() -> None:
    assert exponent([(n, 0.01 * n**1.5) for n in (10, 100, 1000)]) == pytest.approx(1.5)


def test_what_is_not_run_goes_on_as_between_the_last_two_sizes() -> None:
    assert predicted([], 100) is None
    assert predicted([(10, 20.0)], 100) == pytest.approx(200)
    assert predicted([(1, 5.0), (10, 20.0), (100, 400.0)], 1000) == pytest.approx(8000)


def test_a_ratio_to_the_floor_is_that_of_pairs_not_of_medians() -> None:
    one = Measurement(
        "rosterd", "converged", 10, [sample(2), sample(20), sample(3)], [sample(1), sample(10), sample(3)]
    )
    assert one.times_floor == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.004, "4 ms"), (0, "0 s"), (0.25, "0.25 s"), (9.06, "9.1 s"), (97.2, "97 s"), (180, "3.0 min"), (7300, "2.0 h")],
)
def test_times_are_written_with_what_counts_of_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_ratios_are_written_with_what_counts_of_them() -> None:
    assert [ratio(value) for value in (1.857, 36.4, 1240.0)] == ["1.86 times", "36 times", "1,240 times"]


def test_names_in_the_picture_do_not_lie_over_each_other() -> None:
    heights = sorted(spread({"a": 10.0, "b": 12.0, "c": 13.0, "d": 90.0}).values())
    assert all(below - above >= LABEL_HEIGHT for above, below in pairwise(heights))
    assert heights[-1] == 90.0


def test_the_page_tells_what_was_measured_from_what_was_not() -> None:
    lines = page(results()).splitlines()
    assert "| rosterd | 0.25 s | 0.50 s |" in lines
    assert "| Ansible | **80 times** (20 s) | **360 times** (3.0 min) |" in lines
    assert "| pyinfra | **36 times** (9.0 s) | *not run, some 90 s* |" in lines
    assert any("as fast as Ansible | 360 times | held |" in line for line in lines)
    assert any("as fast as pyinfra | not measured | - |" in line for line in lines)


def test_the_picture_has_a_dot_for_each_measurement_and_a_hollow_one_for_what_was_worked_out() -> None:
    shapes = [one.get("class") for one in ET.fromstring(plot(results())).iter("{http://www.w3.org/2000/svg}circle")]  # noqa: S314 (our own)
    assert (shapes.count("dot"), shapes.count("hollow")) == (7, 1)
