"""The faults to come: made by name, and kept in order until they strike."""

from __future__ import annotations

import threading
from dataclasses import MISSING, Field, dataclass, fields
from typing import TypeVar

from .checks import check_count
from .connection_faults import ConnectionFault
from .faults import FAULTS, Fault

__all__ = ["Armed", "FaultQueue", "make"]


def make(name: str, **params: object) -> Fault | ConnectionFault:
    """The fault of that name.

    Raises ValueError that lists the names if there is none, or for a parameter out
    of range; TypeError that lists the parameters for one the fault does not take
    or of a wrong type.
    """
    kind = FAULTS.get(name)
    if kind is None:
        raise ValueError(f"no fault {name!r}; there are: {', '.join(FAULTS)}")
    known = [parameter.name for parameter in fields(kind)]
    unknown = [given for given in params if given not in known]
    if unknown:
        takes = f"takes {', '.join(known)}" if known else "takes no parameters"
        raise TypeError(f"fault {name!r} {takes}, not {', '.join(unknown)}")
    return kind(**params)


@dataclass(frozen=True, slots=True)
class Armed:
    """A fault that has not struck yet, as it is shown."""

    name: str
    parameters: tuple[tuple[str, object], ...]
    times: int | None
    """How often it will strike; None: until cleared."""
    strikes_connections: bool


class FaultQueue:
    """The faults to come, first in, first to strike.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[tuple[Fault, int | None]] = []
        self._connections: list[tuple[ConnectionFault, int | None]] = []

    def add(self, fault: Fault | ConnectionFault, times: int | None) -> None:
        """Let it strike `times` times; None: until cleared."""
        if times is not None:
            check_count("times", times, least=1)
        with self._lock:
            if isinstance(fault, Fault):
                self._calls.append((fault, times))
            else:
                self._connections.append((fault, times))

    def next_for_call(self) -> Fault:
        with self._lock:
            return _take(self._calls) or Fault()

    def next_for_connection(self) -> ConnectionFault:
        with self._lock:
            return _take(self._connections) or ConnectionFault()

    def armed(self) -> list[Armed]:
        """Those to come, first to strike first; of calls, then of connections."""
        with self._lock:
            queued: list[tuple[Fault | ConnectionFault, int | None]]
            queued = [*self._calls, *self._connections]
        return [
            Armed(
                name=str(fault.name),
                parameters=tuple(
                    (it.name, getattr(fault, it.name)) for it in _set(fault)
                ),
                times=times,
                strikes_connections=isinstance(fault, ConnectionFault),
            )
            for fault, times in queued
        ]

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()
            self._connections.clear()


def _set(fault: Fault | ConnectionFault) -> list[Field[object]]:
    """Its parameters that differ from the default; scripted bytes are too long."""
    return [
        it
        for it in fields(fault)
        if it.default is not MISSING and getattr(fault, it.name) != it.default
    ]


_Q = TypeVar("_Q", Fault, ConnectionFault)


def _take(queue: list[tuple[_Q, int | None]]) -> _Q | None:
    if not queue:
        return None
    fault, times = queue[0]
    if times == 1:
        del queue[0]
    elif times is not None:
        queue[0] = (fault, times - 1)
    return fault
