"""The one place that speaks D-Bus: systemd's manager and its login manager, through pydbus.

pydbus has no default timeout, its connection kills the process when the bus goes away, and its
proxy introspects each time it is made. So: every call names its timeout, the connection is told not to
exit, one proxy is kept, and after the first call without an answer no further one is tried.

Interface: org.freedesktop.systemd1(5). Loading gi and pydbus takes as long as loading the rest of the
program, so only `machine`, which the commands that look at the host load, leads here.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import cache, partial
from itertools import islice
from typing import Any, NamedTuple

from gi.repository import Gio, GLib
from pydbus.bus import Bus

from reconciler.core.observed import UnitState
from reconciler.errors import StepFailed

_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_PEER = "org.freedesktop.DBus.Peer"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_LOGIND = "org.freedesktop.login1"
_LOGIND_PATH = "/org/freedesktop/login1"
_CONNECT_SECONDS = 5.0
# How long jobs may take without a word before systemd is asked whether it is still there.
_SILENCE_SECONDS = 5.0
_CALL_SECONDS = 15.0
# A reload of the manager runs every generator, and systemd 252 compares all instances of a template with each other:
# with 20,000 of them a reload takes two minutes, and enabling some half a minute.
_RELOAD_SECONDS = 300.0
# dbus-daemon lets a connection wait for 128 replies at once (max_replies_per_connection).
_IN_FLIGHT = 100
# For each job that is under way systemd has the bus watch who asked for it. dbus-daemon lets a connection have 512 such
# rules (max_match_rules_per_connection); with more, systemd 252 is cut off from the bus, and nobody hears of any job.
_UNDER_WAY = 256
_ASCII_END = 128


class Job(StrEnum):
    """The methods of the manager that queue a job for one unit."""

    START = "StartUnit"
    STOP = "StopUnit"
    RELOAD = "ReloadUnit"


class Property(NamedTuple):
    """A property of a unit. `interface` is the last part of its name: Unit, Service, Slice."""

    unit: str
    interface: str
    name: str


class BusUnavailable(StepFailed):
    """The system bus, or systemd on it, does not answer."""


class Systemd:
    """A connection to the service manager, made at the first call."""

    def __init__(self) -> None:
        """Connect to nothing yet."""
        self._bus: Any = None
        self._manager: Any = None
        self._dead: str | None = None
        self._listening = False
        self._results: dict[str, str] = {}

    def states(self, patterns: Sequence[str]) -> Mapping[str, UnitState]:
        """Return the loaded units whose names match, in one call. Raises `BusUnavailable`."""
        return {name: state for name, (state, _) in self.services(patterns).items()}

    def enable(self, units: Iterable[str]) -> bool:
        """Enable unit files; return whether a link was made."""
        only_until_reboot, replace_links = False, False
        _, changes = self._call(
            "EnableUnitFiles", list(units), only_until_reboot, replace_links, timeout=_RELOAD_SECONDS
        )
        return bool(changes)

    def disable(self, units: Iterable[str]) -> bool:
        """Disable unit files; return whether a link was removed."""
        only_until_reboot = False
        return bool(self._call("DisableUnitFiles", list(units), only_until_reboot, timeout=_RELOAD_SECONDS))

    def reload(self) -> None:
        """Let systemd read its unit files again."""
        self._call("Reload", timeout=_RELOAD_SECONDS)

    def reset_failed(self, unit: str) -> None:
        """Clear a unit's failed state and its start limit."""
        self._call("ResetFailedUnit", unit)

    def kill(self, unit: str) -> None:
        """Kill every process of a unit, of a slice with all that is below it, with SIGKILL."""
        self._call("KillUnit", unit, "all", int(signal.SIGKILL))

    def hang_up(self, unit: str) -> None:
        """Send SIGHUP to the main process of a service."""
        self._call("KillUnit", unit, "main", int(signal.SIGHUP))

    def services(self, patterns: Sequence[str]) -> Mapping[str, tuple[UnitState, str]]:
        """Return state and object path of the loaded units whose names match, in one call."""
        rows = self._call("ListUnitsByPatterns", [], list(patterns))
        return {row[0]: (UnitState(row[3], row[4]), row[6]) for row in rows}

    def property_of(self, path: str, interface: str, name: str) -> Any:  # noqa: ANN401 (whatever type it has)
        """Return a property of the unit at an object path, None where the unit has gone meanwhile.

        `interface` is the last part of its name: Unit, Service. Raises `BusUnavailable`.
        """
        arguments = GLib.Variant("(ss)", (f"{_NAME}.{interface}", name))
        try:
            return self._raw(_NAME, path, _PROPERTIES, "Get", arguments)[0]
        except BusUnavailable:
            raise
        except StepFailed:
            return None

    def restarts(self, services: Sequence[str]) -> dict[str, int]:
        """Return how often systemd has restarted each service by itself, of many at once, by name.

        One that has gone meanwhile is left out. Raises `BusUnavailable`.
        """
        counts = self.properties([Property(name, "Service", "NRestarts") for name in services])
        return {name: count for name, count in zip(services, counts, strict=True) if count is not None}

    def properties(self, asked: Sequence[Property]) -> list[Any]:
        """Return one property each, None where there is none; all in flight at once. Raises `BusUnavailable`.

        A unit that is not loaded, systemd loads for the answer and drops again, as for `systemctl show`.
        """
        self._connect()
        answers: list[Any] = [None] * len(asked)
        unsent = iter(enumerate(asked))
        awaited: set[int] = set()
        while self._dead is None:
            for number, one in islice(unsent, _IN_FLIGHT - len(awaited)):
                awaited.add(number)
                self._ask(one, partial(_note, answers, awaited, number))
            if not awaited:
                return answers
            self._iterate(0.5)
        raise BusUnavailable(self._dead)

    def _ask(self, one: Property, answered: Callable[[Any], None]) -> None:
        """Send for one property without waiting; `answered` gets it, or None."""

        def reply(connection: Any, result: Any) -> None:  # noqa: ANN401 (GObjects have no static types)
            try:
                (value,) = connection.call_finish(result).unpack()
            except GLib.Error as error:
                self._explain(error)
                value = None
            answered(value)

        arguments = GLib.Variant("(ss)", (f"{_NAME}.{one.interface}", one.name))
        self._send((unit_path(one.unit), _PROPERTIES, "Get"), arguments, "(v)", reply)

    def set_linger(self, uid: int, *, on: bool) -> None:
        """Let the services of a user run without a session, or no more (org.freedesktop.login1(5))."""
        interactive = False
        arguments = GLib.Variant("(ubb)", (uid, on, interactive))
        self._raw(_LOGIND, _LOGIND_PATH, f"{_LOGIND}.Manager", "SetUserLinger", arguments)

    def run_jobs(self, job: Job, units: Iterable[str], seconds: float) -> dict[str, str]:
        """Queue one job for each unit, as many at once as the bus allows, and wait for them together.

        Returns for each unit the job's result as JobRemoved has it ("done", "failed", …), the error
        text if it could not be queued, or "timeout" if it had not ended after `seconds`.
        """
        wanted = list(units)
        results = dict(self.each_job(job, wanted, seconds))
        return {unit: results.get(unit, self._dead or "timeout") for unit in wanted}

    def each_job(
        self,
        job: Job,
        units: Iterable[str],
        seconds: float,
        *,
        at_once: int = _UNDER_WAY,
        enough: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[str, str]]:
        """Queue one job for each unit, and yield each with its result, as `run_jobs` has it, when it has ended.

        `at_once` is how many jobs may be under way together, which the next unit waits for. Twice a second `enough` is
        asked: once it is true what has not ended is yielded as "timeout". A unit whose turn did not come is not taken
        from `units`, and not yielded.
        """
        self._listen_for_jobs()
        waiting = _Jobs(self, job, units, at_once)
        deadline = time.monotonic() + seconds
        next_ping = time.monotonic() + _SILENCE_SECONDS
        waiting.send_more()
        while not waiting.done and time.monotonic() < deadline and self._dead is None and not enough():
            self._iterate(0.5)
            if time.monotonic() >= next_ping:
                self._ping()
                next_ping = time.monotonic() + _SILENCE_SECONDS
            yield from waiting.take_ended()
            waiting.send_more()
        yield from waiting.take_ended()
        yield from waiting.left(self._dead or "timeout")

    def _ping(self) -> None:
        """See whether systemd still answers: a job that takes long and a dead bus look the same from here."""
        seconds = int(_CONNECT_SECONDS * 1000)
        try:
            self._bus.con.call_sync(_NAME, _PATH, _PEER, "Ping", None, None, Gio.DBusCallFlags.NONE, seconds, None)
        except GLib.Error as error:
            self._explain(error)

    def result_of(self, path: str) -> str | None:
        """Return the result of a job that has ended."""
        return self._results.get(path)

    def queue(self, job: Job, unit: str, answered: Callable[[str | None, str], None]) -> None:
        """Send one request without waiting; `answered` gets the job's path, or None and the error."""

        def reply(connection: Any, result: Any) -> None:  # noqa: ANN401 (GObjects have no static types)
            try:
                (path,) = connection.call_finish(result).unpack()
            except GLib.Error as error:
                answered(None, self._explain(error))
            else:
                answered(path, "")

        arguments = GLib.Variant("(ss)", (unit, "replace"))
        self._send((_PATH, _MANAGER, job.value), arguments, "(o)", reply)

    def _send(self, method: tuple[str, str, str], arguments: Any, answer: str, reply: Callable[..., None]) -> None:  # noqa: ANN401 (a GLib.Variant)
        """Call a method of systemd without waiting; it is named by path, interface and name.

        `answer` is the type of what the call returns, which `reply` gets.
        """
        seconds, no_cancel = int(_CALL_SECONDS * 1000), None
        self._bus.con.call(
            _NAME, *method, arguments, GLib.VariantType.new(answer), Gio.DBusCallFlags.NONE, seconds, no_cancel, reply
        )

    def _raw(self, name: str, path: str, interface: str, method: str, arguments: Any) -> Any:  # noqa: ANN401 (the parts of a D-Bus call)
        """Call a method of an object that is asked too seldom to introspect it first."""
        self._connect()
        try:
            answer = self._bus.con.call_sync(
                name, path, interface, method, arguments, None, Gio.DBusCallFlags.NONE, int(_CALL_SECONDS * 1000), None
            )
        except GLib.Error as error:
            why = self._explain(error)
            if self._dead is not None:
                raise BusUnavailable(self._dead) from error
            raise StepFailed(f"{name} {method}: {why}") from error
        return answer.unpack()

    def _call(self, method: str, *arguments: object, timeout: float = _CALL_SECONDS) -> Any:  # noqa: ANN401
        self._connect()
        try:
            return getattr(self._manager, method)(*arguments, timeout=timeout)
        except GLib.Error as error:
            why = self._explain(error)
            if self._dead is not None:
                raise BusUnavailable(self._dead) from error
            raise StepFailed(f"systemd {method}: {why}") from error

    def _connect(self) -> None:
        if self._dead is not None:
            raise BusUnavailable(self._dead)
        if self._manager is not None:
            return

        try:
            connection = _open_system_bus()
            connection.set_exit_on_close(False)
            self._bus = Bus(connection)
            proxy = self._bus.get(_NAME, _PATH, timeout=_CALL_SECONDS)
            self._manager = proxy[_MANAGER]
        except (GLib.Error, TimeoutError) as error:
            self._dead = f"the system bus or systemd does not answer ({_words(error)})"
            raise BusUnavailable(self._dead) from error

    def _listen_for_jobs(self) -> None:
        """Ask for the signals of jobs that end, before the first is queued: a short one ends at once."""
        if self._listening:
            return
        self._call("Subscribe")
        self._bus.subscribe(
            sender=_NAME, iface=_MANAGER, signal="JobRemoved", object=_PATH, signal_fired=self._job_removed
        )
        self._listening = True

    def _job_removed(self, _sender: str, _object: str, _iface: str, _signal: str, params: Any) -> None:  # noqa: ANN401
        _, path, _, result = params
        self._results[path] = result

    def _explain(self, error: Any) -> str:  # noqa: ANN401 (a GLib.Error)
        """Return the words of an error; one that means "no answer" ends the use of this connection."""
        silent = (
            error.matches(Gio.io_error_quark(), Gio.IOErrorEnum.TIMED_OUT)
            or error.matches(Gio.io_error_quark(), Gio.IOErrorEnum.CLOSED)
            or Gio.DBusError.get_remote_error(error)
            in ("org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected")
        )
        if silent:
            self._dead = f"the system bus or systemd does not answer ({_words(error)})"
        return _words(error)

    def _iterate(self, seconds: float) -> None:
        """Let replies and signals come in until something did, or `seconds` have passed."""
        context = GLib.MainContext.default()
        timer = GLib.timeout_source_new(int(seconds * 1000))
        timer.set_callback(lambda *_: False)
        timer.attach(context)
        with _signals_put_off():
            context.iteration(True)  # noqa: FBT003 (GLib takes no keywords)
        timer.destroy()


class _Jobs:
    """The jobs of one batch: what is still to send, what awaits a reply, what awaits its end."""

    def __init__(self, systemd: Systemd, job: Job, units: Iterable[str], at_once: int) -> None:
        self._systemd = systemd
        self._job = job
        self._unsent: Iterator[str] = iter(units)
        self._all_sent = False
        self._at_once = at_once
        self._unanswered: set[str] = set()
        self._queued: dict[str, str] = {}
        self._refused: dict[str, str] = {}

    @property
    def done(self) -> bool:
        """Whether every job has been refused or has ended."""
        return self._all_sent and not (self._unanswered or self._queued or self._refused)

    def send_more(self) -> None:
        """Send as many requests as may await their reply, and as may be under way together."""
        while not self._all_sent and self._has_room():
            unit = next(self._unsent, None)
            if unit is None:
                self._all_sent = True
            else:
                self._unanswered.add(unit)
                self._systemd.queue(self._job, unit, partial(self._note, unit))

    def _has_room(self) -> bool:
        under_way = len(self._unanswered) + len(self._queued)
        return len(self._unanswered) < _IN_FLIGHT and under_way < self._at_once

    def take_ended(self) -> Iterator[tuple[str, str]]:
        """Yield each unit whose job was refused or has ended since the last call, with its result."""
        ended = {unit: result for unit, path in self._queued.items() if (result := self._systemd.result_of(path))}
        ended |= self._refused
        self._refused = {}
        for unit in ended:
            self._queued.pop(unit, None)
        yield from ended.items()

    def left(self, otherwise: str) -> Iterator[tuple[str, str]]:
        """Yield `otherwise` for each unit whose job has not ended."""
        for unit in [*self._queued, *sorted(self._unanswered)]:
            yield unit, otherwise

    def _note(self, unit: str, path: str | None, error: str) -> None:
        self._unanswered.discard(unit)
        if path is None:
            self._refused[unit] = error
        else:
            self._queued[unit] = path


@cache
def unit_path(unit: str) -> str:
    """Return the object path of a unit (sd_bus_path_encode(3))."""
    label = "".join(
        chr(byte)
        if chr(byte).isalnum() and byte < _ASCII_END and (place or not chr(byte).isdigit())
        else f"_{byte:02x}"
        for place, byte in enumerate(unit.encode("utf-8", "surrogateescape"))
    )
    return f"{_PATH}/unit/{label}"


def _note(answers: list[Any], awaited: set[int], number: int, value: Any) -> None:  # noqa: ANN401 (whatever type it has)
    answers[number] = value
    awaited.discard(number)


@contextmanager
def _signals_put_off() -> Iterator[None]:
    """Let SIGINT and SIGTERM have their effect afterwards.

    What their handlers raise within a callback, GLib prints, and then ends the process on the spot or goes on.
    """
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for one in came:
        signal.raise_signal(one)


def _open_system_bus() -> Any:  # noqa: ANN401 (a Gio.DBusConnection)
    """Connect to the system bus, within a time.

    A frozen bus accepts the connection and then says nothing. Neither pydbus nor g_bus_get_sync()
    ends its wait for the greeting.
    """
    answer: list[Any] = []
    cancel = Gio.Cancellable()
    Gio.bus_get(Gio.BusType.SYSTEM, cancel, lambda _source, result: answer.append(result))
    context = GLib.MainContext.default()
    expired: list[bool] = []
    timer = GLib.timeout_source_new(int(_CONNECT_SECONDS * 1000))
    timer.set_callback(lambda *_: expired.append(True))
    timer.attach(context)
    while not answer and not expired:
        context.iteration(True)  # noqa: FBT003 (GLib takes no keywords)
    timer.destroy()
    if not answer:
        cancel.cancel()
        raise TimeoutError(f"no greeting within {_CONNECT_SECONDS:.0f} s")
    return Gio.bus_get_finish(answer[0])


def _words(error: Any) -> str:  # noqa: ANN401 (a GLib.Error or a TimeoutError)
    message = str(getattr(error, "message", error))
    return message.removeprefix("GDBus.Error:").strip()
