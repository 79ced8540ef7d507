"""How a coroutine waits for the end of its request: _native.Answer, without an engine."""
import asyncio
import contextvars
import gc
import os
import select
import sys
import weakref

import pytest

from inferneo import _bridge, _native
from inferneo.errors import NotFoundError


class Requests:
    """Stands in for an engine: submit() keeps the request, the test ends it."""

    def __init__(self):
        self.open = []
        self.cancelled = 0

    def submit(self, queue, request):
        self.open.append((queue, request))
        return self

    def cancel(self):
        self.cancelled += 1

    def end(self, index=0):
        queue, request = self.open[index]
        queue.put_result(request, "model", [(f"text {index}", "length")], 1, 0, 2, 0.5, 1.0)

    def fail(self, index=0):
        queue, request = self.open[index]
        queue.put_error(request, "not_found", "no such model", "model", 0)


async def ask(requests):
    return await _bridge.wait(requests.submit)


async def begun(*coroutines):
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)
    return tasks


async def test_a_result_and_an_error_reach_their_tasks():
    requests = Requests()
    first, second = await begun(ask(requests), ask(requests))
    assert _bridge.num_waiting() == 2
    requests.fail(1)
    requests.end(0)
    assert (await first).samples[0].text == "text 0"
    with pytest.raises(NotFoundError, match="no such model") as caught:
        await second
    assert caught.value.param == "model"
    assert _bridge.num_waiting() == 0 and requests.cancelled == 0


async def test_a_request_that_ended_before_it_was_awaited():
    requests = Requests()
    answer = _bridge.wait(requests.submit)
    requests.end()
    while not answer.done():
        await asyncio.sleep(0)
    assert (await answer).completion_tokens == 2


async def test_what_cannot_be_submitted_is_nobodys():
    def submit(queue, request):
        raise NotFoundError("no such model", "model")

    with pytest.raises(NotFoundError):
        await _bridge.wait(submit)
    assert _bridge.num_waiting() == 0


async def test_cancelling_cancels_the_request_once_and_keeps_the_message():
    requests = Requests()
    [task] = await begun(ask(requests))
    task.cancel("enough")
    task.cancel("again")
    requests.end()  # too late: it is cancelled already
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert requests.cancelled == 1 and _bridge.num_waiting() == 0
    if sys.version_info >= (3, 11):
        assert caught.value.args in {("enough",), ("again",)}
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(ask(requests), 0.01)
    assert requests.cancelled == 2


async def test_cancelling_what_has_no_ticket_or_a_broken_one(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: unraisable.append(str(report.exc_value)))

    class Broken:
        def cancel(self):
            raise ValueError("broken")

    async def wait_for(ticket):
        await _bridge.wait(lambda queue, request: ticket)

    tasks = await begun(wait_for(None), wait_for(Broken()))
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert unraisable == ["broken"] and _bridge.num_waiting() == 0


async def test_a_task_that_was_cancelled_before_it_began_to_wait():
    requests = Requests()

    async def cancels_itself():
        asyncio.current_task().cancel()
        return await _bridge.wait(requests.submit)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancels_itself())
    assert requests.cancelled == 1 and _bridge.num_waiting() == 0


async def test_a_cancelled_task_that_goes_on_can_ask_again():
    requests = Requests()

    async def stubborn():
        try:
            return await _bridge.wait(requests.submit)
        except asyncio.CancelledError:
            return await _bridge.wait(requests.submit)

    [task] = await begun(stubborn())
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    requests.end(1)
    assert (await task).samples[0].text == "text 1"


async def test_shielded_requests_outlive_who_waited():
    requests = Requests()
    [inner] = await begun(ask(requests))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(inner), 0.01)
    requests.end()
    assert (await inner).prompt_tokens == 1 and requests.cancelled == 0


async def test_a_coroutine_that_is_closed_or_thrown_into_cancels():
    requests = Requests()
    closed = ask(requests)
    closed.send(None)
    closed.close()
    assert requests.cancelled == 1
    thrown = ask(requests)
    thrown.send(None)
    with pytest.raises(KeyError, match="mine"):
        thrown.throw(KeyError("mine"))
    assert requests.cancelled == 2
    forgotten = ask(requests)
    forgotten.send(None)
    del forgotten
    gc.collect()
    assert requests.cancelled == 3 and _bridge.num_waiting() == 0


async def test_awaiting_twice_or_outside_a_task_is_refused():
    requests = Requests()
    answer = _bridge.wait(requests.submit)

    async def second():
        await answer

    [first] = await begun(second())
    with pytest.raises(RuntimeError, match="awaited once"):
        await asyncio.create_task(second())
    requests.end()
    await first
    pending = ask(requests)
    pending.send(None)
    with pytest.raises(RuntimeError, match="awaited once"):
        pending.send(None)
    assert _bridge.num_waiting() == 1  # of the refused one, whose answer still comes
    requests.end(1)


async def test_a_task_goes_on_in_its_own_context():
    requests = Requests()
    mine = contextvars.ContextVar("mine", default="nobody's")

    async def named(name):
        mine.set(name)
        await _bridge.wait(requests.submit)
        return mine.get()

    tasks = await begun(named("one"), named("two"))
    requests.end(0)
    requests.end(1)
    assert await asyncio.gather(*tasks) == ["one", "two"]
    assert mine.get() == "nobody's"


async def test_who_goes_on_is_the_current_task():
    requests = Requests()

    async def current():
        await _bridge.wait(requests.submit)
        return asyncio.current_task()

    [task] = await begun(current())
    requests.end()
    assert await task is task


def test_tasks_written_in_python():
    """As loops that are not asyncio's own may have them."""
    requests = Requests()

    async def main():
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(ask(requests)) for _ in range(3)]
        await asyncio.sleep(0)
        requests.end(0)
        requests.fail(1)
        tasks[2].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    loop = asyncio.new_event_loop()
    loop.set_task_factory(lambda loop, coroutine, **more: asyncio.tasks._PyTask(coroutine, loop=loop, **more))
    try:
        result, error, cancelled = loop.run_until_complete(main())
    finally:
        loop.close()
    assert result.completion_tokens == 2 and isinstance(error, NotFoundError)
    assert isinstance(cancelled, asyncio.CancelledError) and requests.cancelled == 1


def test_ctrl_c_in_one_task_loses_no_other_answer():
    requests = Requests()

    async def interrupted():
        await _bridge.wait(requests.submit)
        raise KeyboardInterrupt

    loop = asyncio.new_event_loop()
    try:
        first = loop.create_task(interrupted())
        second = loop.create_task(ask(requests))
        loop.run_until_complete(asyncio.sleep(0))
        requests.end(0)
        requests.end(1)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(second)
        assert loop.run_until_complete(second).samples[0].text == "text 1"
        assert isinstance(first.exception(), KeyboardInterrupt)
    finally:
        loop.close()


def test_a_loop_within_a_task_gets_its_answers():
    """As in notebooks: the loop that waits for the second runs within the task that the first has resumed."""
    requests = Requests()
    seen = []

    async def outer():
        await _bridge.wait(requests.submit)
        queue, _ = requests.open[0]
        queue.deliver(waiters)  # what the inner loop's reader would do
        seen.append(second.done())

    async def main():
        nonlocal second, waiters
        first = asyncio.create_task(outer())
        await asyncio.sleep(0)
        second = _bridge.wait(requests.submit)
        waiters = _bridge._bridge.events_of(asyncio.get_running_loop()).waiters
        requests.end(0)
        requests.end(1)
        await first
        return await second

    second = waiters = None
    assert asyncio.run(main()).samples[0].text == "text 1"
    assert seen == [True]


def test_a_loop_rests_when_its_wake_up_came_after_its_event_was_taken():
    """The engine's thread wakes the loop after it has put the event there, and the loop may have been faster."""
    queue = _native.EventQueue()
    os.write(queue.fileno(), (1).to_bytes(8, sys.byteorder))
    assert select.select([queue], [], [], 0)[0]
    queue.deliver({})
    assert not select.select([queue], [], [], 0)[0]


async def test_a_waiter_that_raises_keeps_nobody_else_from_its_answer(monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    requests = Requests()

    class Broken:
        ticket = None

        def on_event(self, kind, value):
            raise ValueError("broken")

    events = _bridge._bridge.events_of(asyncio.get_running_loop())
    broken = events.new_id()
    events.waiters[broken] = Broken()
    requests.submit(events.queue, broken)
    [task] = await begun(ask(requests))
    requests.end(0)
    requests.end(1)
    assert (await task).samples[0].text == "text 1"
    assert [str(report.exc_value) for report in unraisable] == ["broken"]


def test_a_loop_that_was_left_behind_goes_away():
    requests = Requests()

    async def main():
        task = asyncio.create_task(ask(requests))
        await asyncio.sleep(0)
        return weakref.ref(task)

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(main())
    loop.close()
    del loop
    _bridge._bridge.forget_closed_loops()
    gc.collect()
    assert task() is None and requests.cancelled >= 1 and _bridge.num_waiting() == 0
