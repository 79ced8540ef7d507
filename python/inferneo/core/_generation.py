"""What every class that generates has in common: sampling arguments, results, streams."""
from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from inferneo import _bridge, _native
from inferneo._native import GenerationResult, SamplingParams
from inferneo.errors import InvalidArgumentError, UnavailableError

#: submit(queue, id, stream) of a native object, with the request bound.
Submission = Callable[["_native.EventQueue", int, bool], "_bridge.Ticket"]


def sampling_of(sampling: SamplingParams | None, fields: dict[str, Any]) -> SamplingParams:
    """A request object, keyword arguments, or the one changed by the others."""
    if sampling is None:
        return SamplingParams(**fields)
    if not isinstance(sampling, SamplingParams):
        raise TypeError(f"sampling: expected SamplingParams, got {sampling!r}; pass its fields as keyword arguments")
    return sampling.replace(**fields) if fields else sampling


def text_of(prompt: str) -> str:
    if not isinstance(prompt, str):
        raise TypeError(f"prompt: expected str, got {type(prompt).__name__}")
    if not prompt.isascii():
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(f"prompt: half a surrogate pair at character {error.start}", "prompt") from None
    return prompt


@dataclass(frozen=True)
class GenerationChunk:
    """A piece of text of a stream. ``str()`` is the text."""

    text: str
    sample: int = 0  #: which of the ``n`` samples it belongs to

    def __str__(self) -> str:
        return self.text


class GenerationStream(AsyncIterator[GenerationChunk]):
    """The text of one generation as it comes: ``async for chunk in stream``.

    The request starts with the first ``__anext__``. Leaving the loop early cancels it once the stream is closed
    (``aclose()``, ``async with``) or nobody holds it any more; so does cancelling the task. ``result`` is there at the end.
    """

    def __init__(self, submit: Submission, ready: Callable[[], Any]) -> None:
        self._submit = submit
        self._ready = ready
        self._events: _bridge.Events | None = None
        self._ended = False
        #: The whole result, once the stream has ended by itself.
        self.result: GenerationResult | None = None

    def __aiter__(self) -> GenerationStream:
        return self

    async def __anext__(self) -> GenerationChunk:
        if self._ended:
            raise StopAsyncIteration
        if self._events is None:
            await self._ready()
            self._events = _bridge.Events(lambda queue, request: self._submit(queue, request, True))
        try:
            kind, value = await self._events.next()
        except asyncio.CancelledError:
            self._cancel()
            raise
        if _bridge.is_closed(kind):
            raise StopAsyncIteration
        if _bridge.is_error(kind):
            self._ended = True
            raise value
        if _bridge.is_result(kind):
            self._ended = True
            self.result = value
            raise StopAsyncIteration
        return GenerationChunk(value, kind)

    async def text(self) -> str:
        """The rest of the first sample's text."""
        return "".join([chunk.text async for chunk in self if chunk.sample == 0])

    async def aclose(self) -> None:
        """Cancels the request if it is still running; a task that waits for its next piece finds the end."""
        self._cancel()
        if self._events is not None:
            self._events.wake()

    async def __aenter__(self) -> GenerationStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _cancel(self) -> None:
        if not self._ended:
            self._ended = True
            if self._events is not None:
                self._events.cancel()

    def __del__(self) -> None:
        if getattr(self, "_events", None) is not None:
            self._cancel()


async def generate(submit: Submission) -> GenerationResult:
    result: GenerationResult = await _bridge.wait(lambda queue, request: submit(queue, request, False))
    return result


def generate_sync(submit: Submission) -> GenerationResult:
    result: GenerationResult = _bridge.wait_sync(lambda queue, request: submit(queue, request, False))
    return result


def stream_sync(submit: Submission) -> Iterator[GenerationChunk]:
    for kind, value in _bridge.events_sync(lambda queue, request: submit(queue, request, True)):
        if _bridge.is_error(kind):
            raise value
        if not _bridge.is_result(kind):
            yield GenerationChunk(value, kind)


class OwnedByProcess:
    """Of the process that made it: its threads do not exist in a forked child."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be copied: it belongs to this process; make another where it is needed")

    def _require_owner(self) -> None:
        if os.getpid() != self._pid:
            raise UnavailableError(
                "this object was made before the process was forked, and its threads do not exist here; make a new one "
                "in the child, or start processes with the method 'spawn'")
