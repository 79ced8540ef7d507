"""What every class that generates has in common: sampling arguments, results, streams."""
from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from inferneo import _bridge, _check, _native
from inferneo._native import GenerationResult, SamplingParams
from inferneo.errors import InvalidArgumentError, UnavailableError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

#: submit(queue, id, stream) of a native object, with the request bound.
Submission = Callable[["_native.EventQueue", int, bool], "_bridge.Ticket"]


def sampling_of(sampling: SamplingParams | None, fields: dict[str, Any]) -> SamplingParams:
    """A request object, keyword arguments, or the one changed by the others."""
    if "sampling_params" in fields:
        raise TypeError("sampling_params: the argument is called sampling, or comes second: generate(prompt, params)")
    if sampling is None:
        return SamplingParams(**fields)
    if not isinstance(sampling, SamplingParams):
        raise TypeError(f"sampling: expected SamplingParams, got {sampling!r}; pass its fields as keyword arguments")
    return sampling.replace(**fields) if fields else sampling


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
            if self._ended:  # closed meanwhile
                raise StopAsyncIteration
        if self._events is None:  # of several consumers the first begins
            self._events = _bridge.Events(lambda queue, request: self._submit(queue, request, True))
        try:
            kind, value = self._events.next_now() or await self._events.next()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if not _bridge.is_end(kind):
            return GenerationChunk(value, kind)
        self._ended = True
        self._events.wake()  # who else waits for a piece
        if _bridge.is_error(kind):
            raise value
        if _bridge.is_result(kind):
            self.result = value
        raise StopAsyncIteration

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

    def __repr__(self) -> str:
        state = "ended" if self._ended else "not begun" if self._events is None else "running"
        return f"<GenerationStream, {state}>"

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


class ReadsPrompts:
    """Numbers about texts instead of more text; of everything that generates. They come as numpy arrays.

    ``where`` says which model reads, as in generate() of the same object (``model=``, ``options=``).

    Raises: as generate(); ContextTooLongError also where one request would have more than 256 MiB of numbers;
    UnsupportedError: over ``url=``, or what runs the model gives no hidden states.
    """

    generate: Callable[..., Any]
    generate_sync: Callable[..., GenerationResult]

    async def logits(self, prompt: str, **where: Any) -> NDArray[np.float32]:
        """float32 [prompt tokens, vocabulary]: row i is of the token that follows token i, before temperature and filters.
        Read-only: the engine's own memory, not a copy."""
        return rows_of(await self.generate(prompt, prompt_rows="logits", **where))

    async def hidden_states(self, prompt: str, **where: Any) -> NDArray[np.float32]:
        """float32 [prompt tokens, hidden size]: what the last layer makes of each token, after the final norm."""
        return rows_of(await self.generate(prompt, prompt_rows="hidden", **where))

    async def embed(self, texts: str | Iterable[str], *, pooling: str = "mean", normalize: bool = True,
                    **where: Any) -> NDArray[np.float32]:
        """Embeddings: of one text float32 [hidden size], of several [texts, hidden size], computed in one batch.

        Args:
            pooling: "mean" of the hidden states of all tokens, or the "last" token's.
            normalize: to the length 1.
        """
        check_pooling(pooling)
        if isinstance(texts, str):
            return pooled(await self.hidden_states(texts, **where), pooling, normalize)
        chosen = _check.texts("texts", texts)
        return stacked(await _in_order(lambda text: self.embed(text, pooling=pooling, normalize=normalize, **where), chosen))

    def logits_sync(self, prompt: str, **where: Any) -> NDArray[np.float32]:
        """As logits(), for threads without an event loop."""
        return rows_of(self.generate_sync(prompt, prompt_rows="logits", **where))

    def hidden_states_sync(self, prompt: str, **where: Any) -> NDArray[np.float32]:
        """As hidden_states(), for threads without an event loop."""
        return rows_of(self.generate_sync(prompt, prompt_rows="hidden", **where))

    def embed_sync(self, texts: str | Iterable[str], *, pooling: str = "mean", normalize: bool = True,
                   **where: Any) -> NDArray[np.float32]:
        """As embed(), for threads without an event loop; several texts one after the other."""
        check_pooling(pooling)
        if isinstance(texts, str):
            return pooled(self.hidden_states_sync(texts, **where), pooling, normalize)
        return stacked([pooled(self.hidden_states_sync(text, **where), pooling, normalize) for text in _check.texts("texts", texts)])


def rows_of(result: GenerationResult) -> NDArray[np.float32]:
    try:
        rows = result.prompt_rows
    except ImportError:
        raise UnsupportedError("logits and embeddings come as numpy arrays; pip install numpy", "numpy") from None
    if rows is None:
        raise AssertionError("a prompt has at least one token")
    return rows


def check_pooling(pooling: str) -> None:
    if pooling not in ("mean", "last"):
        raise InvalidArgumentError(f"pooling: expected 'mean' or 'last', got {pooling!r}", "pooling")


def pooled(rows: NDArray[np.float32], pooling: str, normalize: bool) -> NDArray[np.float32]:
    vector = rows.mean(axis=0) if pooling == "mean" else rows[-1].copy()
    length = float((vector * vector).sum()) ** 0.5
    return vector / length if normalize and length > 0 else vector


def stacked(vectors: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    if not vectors:
        raise InvalidArgumentError("texts: expected at least one", "texts")
    import numpy

    return numpy.stack(vectors)


async def _in_order(ask: Callable[[str], Awaitable[T]], texts: list[str], at_once: int = 64) -> list[T]:
    """The answers in the order of the texts; never more than so many under way. The first error cancels the others."""
    answers: dict[int, T] = {}
    numbers = iter(range(len(texts)))

    async def work() -> None:
        for number in numbers:
            answers[number] = await ask(texts[number])

    workers = [asyncio.ensure_future(work()) for _ in range(min(at_once, len(texts)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
    return [answers[number] for number in range(len(texts))]


class OwnedByProcess:
    """Of the process that made it: its threads do not exist in a forked child."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __reduce__(self) -> Any:
        raise TypeError(f"{type(self).__name__} objects cannot be copied: each belongs to its process; make another where it is needed")

    def _require_owner(self) -> None:
        if os.getpid() != self._pid:
            raise UnavailableError(
                "this object was made before the process was forked, and its threads do not exist here; make a new one "
                "in the child, or start processes with the method 'spawn'")
