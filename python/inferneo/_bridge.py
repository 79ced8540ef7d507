"""Between the engine's threads and Python's event loops.

The engine's threads never wait for the interpreter: they put what they have to tell into a native queue. Each loop has
one, whose descriptor it watches as it does sockets, and takes out of it itself, many events at a time, with no thread in
between. Those who wait without a loop have a queue of their own and take from it themselves, with the interpreter released.

Ends: at the interpreter's exit everything that is still running is ended first, while Python still works. A loop that is
closed loses its events; its requests are cancelled when the next one is made. After a fork the child has a new, empty
bridge; what the parent made raises there (owned.h).
"""
from __future__ import annotations

import asyncio
import atexit
import collections
import concurrent.futures
import os
import threading
import time
import weakref
from typing import Any, Awaitable, Callable, Iterator, Protocol

from . import _native

_RESULT = -1
_ERROR = -2
_CLOSED = -3
_PATIENCE = 3600.0  # seconds; whoever waits waits again


class Ends(Protocol):
    def end(self) -> None: ...


class Ticket(Protocol):
    """Of a request under way, here or at a server."""

    def cancel(self) -> None: ...


class _Waiter(Protocol):
    """Of one request: what its loop does with each event. on_event() of what is not an Answer (event_queue.cc)."""

    ticket: Ticket | None


class _LoopEvents:
    """Of one loop, and on its thread. It does not hold the loop, which holds it."""

    def __init__(self) -> None:
        self.queue = _native.EventQueue()
        self.waiters: dict[int, _Waiter] = {}

    def new_id(self) -> int:
        return self.queue.new_id()

    def remove(self, request: int) -> None:
        self.waiters.pop(request, None)

    def cancel_all(self) -> None:
        """The loop has been closed, and nobody waits any more."""
        for request, waiter in list(self.waiters.items()):
            self.remove(request)
            if waiter.ticket is not None:
                waiter.ticket.cancel()


class _Bridge:
    def __init__(self) -> None:
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopEvents] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._alive: weakref.WeakSet[Any] = weakref.WeakSet()  # what is to be ended at exit
        self._closed = False
        self._apart = 0  # threads of apart() that close() waits for
        self._left = threading.Condition(self._lock)

    def apart(self, work: Callable[[], None], outlives_us: bool) -> concurrent.futures.Future[None]:
        """Native work on a thread of its own, so that nobody's executor or Ctrl-C waits for it. close() waits for its end
        unless it may be left behind: a thread that came back from native code afterwards would take the process down."""
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()  # who stops waiting cancels nothing

        def run() -> None:
            try:
                work()
            except BaseException as error:  # it is of those who wait
                future.set_exception(error)
            else:
                future.set_result(None)
            finally:
                with self._lock:
                    self._apart -= not outlives_us
                    self._left.notify_all()

        with self._lock:
            if self._closed:
                raise RuntimeError("the interpreter is shutting down")
            self._apart += not outlives_us
        threading.Thread(target=run, name="inferneo-start", daemon=True).start()
        return future

    def events_of(self, loop: asyncio.AbstractEventLoop) -> _LoopEvents:
        """On the loop's own thread."""
        if self._closed:
            raise RuntimeError("the interpreter is shutting down")
        if (only := _native.only_loop_events(loop)) is not None:
            return only
        events = self._loops.get(loop)
        if events is None or len(self._loops) > 1:
            self.forget_closed_loops()
        if events is None:
            events = _LoopEvents()
            loop.add_reader(events.queue.fileno(), events.queue.deliver, events.waiters)
            with self._lock:
                self._loops[loop] = events
                if len(self._loops) == 1:  # the usual case; generate() is then one native call (python/native/asking.h)
                    _native.set_only_loop(loop, events)
                else:
                    _native.forget_only_loop()
        return events

    def forget_closed_loops(self) -> None:
        with self._lock:
            closed = [loop for loop in self._loops if loop.is_closed()]
            left = [self._loops.pop(loop) for loop in closed]
        for events in left:
            events.cancel_all()

    def num_waiting(self) -> int:
        with self._lock:
            return sum(len(events.waiters) for events in self._loops.values())

    def keep(self, owner: Ends) -> None:
        self._alive.add(owner)

    def close(self) -> None:
        """At the interpreter's exit: nothing of the engine's runs afterwards."""
        with self._lock:
            self._closed = True
            _native.forget_only_loop()
            _native.close_waits()
        for owner in list(self._alive):
            owner.end()
        # What they wait for has ended, so they are on their way.
        deadline = time.monotonic() + 10.0
        with self._lock:
            self._left.wait_for(lambda: self._apart == 0, timeout=10.0)
        while _native.num_waits() > 0 and time.monotonic() < deadline:
            time.sleep(0.001)


_bridge = _Bridge()
_left_behind: list[_Bridge] = []  # of the processes that this one was forked from


def _after_fork() -> None:
    global _bridge
    _left_behind.append(_bridge)
    _native.forget_only_loop()
    _native.reset_waits()
    _bridge = _Bridge()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _bridge.close())


def keep(owner: Ends) -> None:
    """Ends it at the interpreter's exit, unless it is gone by then."""
    _bridge.keep(owner)


def take(queue: _native.EventQueue) -> list[tuple[int, int, Any]]:
    """The next events of a queue of one's own; waits for the first."""
    return queue.take(_PATIENCE)


def apart(work: Callable[[], None], outlives_us: bool = False) -> concurrent.futures.Future[None]:
    """Native work on a thread of its own. outlives_us: the interpreter's end does not wait for it."""
    return _bridge.apart(work, outlives_us)


def num_waiting() -> int:
    """Requests whose end has not been told yet, over all loops."""
    return _bridge.num_waiting()


#: submit(queue, id, ...) of a native object.
Submit = Callable[..., "Ticket | None"]


def wait(submit: Submit, *more: Any) -> Awaitable[Any]:
    """Submits at once, and the end can be awaited, by the task that has called. Cancelling the task cancels the request."""
    loop = asyncio.get_running_loop()
    events = _bridge.events_of(loop)
    request = events.new_id()
    events.waiters[request] = answer = _native.Answer(loop, events.waiters, request)
    try:
        answer.ticket = submit(events.queue, request, *more)
    except BaseException:
        events.remove(request)
        raise
    return answer


class Events:
    """The events of one request for one loop, in order. Several tasks may wait; each event goes to one of them."""

    def __init__(self, submit: Submit, *more: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: collections.deque[tuple[int, Any]] = collections.deque()
        self._asking: collections.deque[asyncio.Future[None]] = collections.deque()
        self._events = _bridge.events_of(self._loop)
        self.ticket: Ticket | None = None
        self._request = self._events.new_id()
        self._events.waiters[self._request] = self
        try:
            self.ticket = submit(self._events.queue, self._request, *more)
        except BaseException:
            self._events.remove(self._request)
            raise

    def on_event(self, kind: int, value: Any) -> None:
        self._arrived.append((kind, value))
        self._tell_next()

    def _tell_next(self) -> None:
        while self._asking:
            asking = self._asking.popleft()
            if not asking.done():
                asking.set_result(None)
                return

    def next_now(self) -> tuple[int, Any] | None:
        """None: it has to be waited for."""
        return self._arrived.popleft() if self._arrived else None

    async def next(self) -> tuple[int, Any]:
        while not self._arrived:
            asking = self._loop.create_future()
            self._asking.append(asking)
            try:
                await asking
            except BaseException:
                if asking.done() and not asking.cancelled() and self._arrived:
                    self._tell_next()  # told, and gone before it could take
                raise
        return self._arrived.popleft()

    def wake(self) -> None:
        """Who waits in next() gets an event that is_end(). On the loop's own thread."""
        self.on_event(_CLOSED, None)

    def cancel(self) -> None:
        self._events.remove(self._request)
        if self.ticket is not None:
            self.ticket.cancel()


def is_error(kind: int) -> bool:
    return kind == _ERROR


def is_result(kind: int) -> bool:
    return kind == _RESULT


def is_end(kind: int) -> bool:
    """A result, an error, or the end of a stream that somebody closed."""
    return kind in (_RESULT, _ERROR, _CLOSED)


def wait_sync(submit: Submit, *more: Any) -> Any:
    """As wait(), for a thread without a loop. KeyboardInterrupt cancels the request."""
    for kind, value in events_sync(submit, *more):
        if kind == _ERROR:
            raise value
        if kind == _RESULT:
            return value
    raise AssertionError("a request ends")


def events_sync(submit: Submit, *more: Any) -> Iterator[tuple[int, Any]]:
    """The events of one request. Closing the iterator cancels it."""
    queue = _native.EventQueue()
    _bridge.forget_closed_loops()
    ticket = submit(queue, 0, *more)
    ended = False
    try:
        while not ended:
            for _, kind, value in queue.take(_PATIENCE):
                ended = kind < 0
                yield kind, value
    finally:
        if not ended and ticket is not None:
            ticket.cancel()
