"""What every class that generates has in common: sampling arguments, results, streams."""
from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from inferneo import _bridge, _check, _native
from inferneo._native import GenerationResult, SamplingParams
from inferneo.errors import InferneoError, InvalidArgumentError, UnavailableError, UnsupportedError, from_code

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Q = TypeVar("Q")
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
            self._events = _bridge.Events(self._submit, True)
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


def generate(submit: Submission) -> Awaitable[GenerationResult]:
    return _bridge.wait(submit, False)


def generate_sync(submit: Submission) -> GenerationResult:
    result: GenerationResult = _bridge.wait_sync(submit, False)
    return result


def stream_sync(submit: Submission) -> Iterator[GenerationChunk]:
    for kind, value in _bridge.events_sync(submit, True):
        if _bridge.is_error(kind):
            raise value
        if not _bridge.is_result(kind):
            yield GenerationChunk(value, kind)


class ReadsPrompts:
    """Numbers about texts instead of more text. They come as numpy arrays.

    ``where`` says which model reads, as in generate() of the same object (``model=``, ``options=``).

    Raises: as generate(); ContextTooLongError also where one request would have more than 256 MiB of numbers;
    UnsupportedError: logits and hidden states over ``url=``, or what runs the model gives no hidden states.
    """

    generate: Callable[..., Any]
    generate_sync: Callable[..., GenerationResult]
    _ready: Callable[[], Awaitable[None]]
    _ready_sync: Callable[[], None]
    #: (texts, pooling, normalize, **where) to what submits them
    _embedding: Callable[..., _bridge.Submit]

    async def logits(self, prompt: str, **where: Any) -> NDArray[np.float32]:
        """float32 [prompt tokens, vocabulary]: row i is of the token that follows token i, before temperature and filters.
        Read-only: the engine's own memory, not a copy."""
        return rows_of(await self.generate(prompt, prompt_rows="logits", **where))

    async def hidden_states(self, prompt: str, **where: Any) -> NDArray[np.float32]:
        """float32 [prompt tokens, hidden size]: what the last layer makes of each token, after the final norm."""
        return rows_of(await self.generate(prompt, prompt_rows="hidden", **where))

    async def embed(self, texts: str | Iterable[str], *, pooling: str | None = None, normalize: bool | None = None,
                    **where: Any) -> NDArray[np.float32]:
        """Embeddings, as /v1/embeddings gives them: of one text float32 [dimensions], of several [texts, dimensions],
        computed together.

        Of a graph of embeddings (ONNX) they are what its files say, and ``pooling`` and ``normalize`` are to be left out. Of
        a model that generates they are made of the hidden states of the texts' tokens.

        Args:
            pooling: "mean" of the hidden states of all tokens, or the "last" token's. None: the mean.
            normalize: to the length 1. None: yes.

        Raises: InvalidArgumentError: no text, an empty one, a model that takes tensors, or options that it has no use for;
        ContextTooLongError: a text is longer than the model reads; UnsupportedError: what runs the model gives no hidden
        states. Cancelling the task cancels the request.
        """
        parts = self._embeddings(texts, pooling, normalize, where)
        await self._ready()

        async def ask(part: EmbeddingPart) -> _native.Embeddings:
            try:
                return cast("_native.Embeddings", await _bridge.wait(part.submit))
            except InferneoError as error:
                raise part.placed(error) from None

        return joined(await _in_order(ask, parts, at_once=2), isinstance(texts, str))

    def logits_sync(self, prompt: str, **where: Any) -> NDArray[np.float32]:
        """As logits(), for threads without an event loop."""
        return rows_of(self.generate_sync(prompt, prompt_rows="logits", **where))

    def hidden_states_sync(self, prompt: str, **where: Any) -> NDArray[np.float32]:
        """As hidden_states(), for threads without an event loop."""
        return rows_of(self.generate_sync(prompt, prompt_rows="hidden", **where))

    def embed_sync(self, texts: str | Iterable[str], *, pooling: str | None = None, normalize: bool | None = None,
                   **where: Any) -> NDArray[np.float32]:
        """As embed(), for threads without an event loop. Ctrl-C cancels the request."""
        parts = self._embeddings(texts, pooling, normalize, where)
        self._ready_sync()
        return joined([part.wait_sync() for part in parts], isinstance(texts, str))

    def _embeddings(self, texts: str | Iterable[str], pooling: str | None, normalize: bool | None,
                    where: dict[str, Any]) -> list[EmbeddingPart]:
        """They are asked for a part at a time: a queue of requests holds only so many."""
        chosen = embedded_texts(texts)
        check_pooling(pooling)
        _check.flag("normalize", normalize)
        return [EmbeddingPart(begin, self._embedding(chosen[begin:begin + EMBEDDED_AT_ONCE], pooling or "", normalize, **where))
                for begin in range(0, len(chosen), EMBEDDED_AT_ONCE)]


#: Texts of one request of embed().
EMBEDDED_AT_ONCE = 32


@dataclass(frozen=True)
class EmbeddingPart:
    """One request of embed(): the texts from this one on."""

    begin: int
    submit: _bridge.Submit

    def wait_sync(self) -> _native.Embeddings:
        try:
            return cast("_native.Embeddings", _bridge.wait_sync(self.submit))
        except InferneoError as error:
            raise self.placed(error) from None

    def placed(self, error: InferneoError) -> InferneoError:
        """With the place of the text among all, under the name that the caller knows."""
        message = re.sub(r"\binput\[(\d+)\]", lambda place: f"texts[{self.begin + int(place.group(1))}]", error.message)
        return from_code(error.code, message, "texts" if error.param == "input" else error.param, error.retry_after)


def embedded_texts(texts: str | Iterable[str]) -> list[str]:
    chosen = [_check.text("texts", texts)] if isinstance(texts, str) else _check.texts("texts", texts)
    if not chosen:
        raise InvalidArgumentError("texts: expected at least one", "texts")
    for index, text in enumerate(chosen):
        if not text:
            raise InvalidArgumentError("texts: must not be empty" if isinstance(texts, str) else f"texts[{index}]: must not be empty",
                                       "texts")
    return chosen


def _as_array(take: Callable[[], Any]) -> Any:
    try:
        return take()
    except ImportError:
        raise UnsupportedError("logits and embeddings come as numpy arrays; pip install numpy", "numpy") from None


def rows_of(result: GenerationResult) -> NDArray[np.float32]:
    rows: NDArray[np.float32] | None = _as_array(lambda: result.prompt_rows)
    if rows is None:
        raise AssertionError("a prompt has at least one token")
    return rows


def check_pooling(pooling: str | None) -> None:
    if pooling not in (None, "mean", "last"):
        raise InvalidArgumentError(f"pooling: expected 'mean' or 'last', got {pooling!r}", "pooling")


def joined(parts: list[_native.Embeddings], alone: bool) -> NDArray[np.float32]:
    """[texts, dimensions], of all parts; alone: [dimensions], of the one text."""
    vectors: NDArray[np.float32] = _as_array(lambda: _concatenated([part.vectors for part in parts]))
    return vectors[0] if alone else vectors


def _concatenated(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    import numpy

    return numpy.concatenate(parts)


async def _in_order(ask: Callable[[Q], Awaitable[T]], asked: list[Q], at_once: int) -> list[T]:
    """The answers in the order of what is asked; never more than so many under way. The first error cancels the others."""
    answers: dict[int, T] = {}
    numbers = iter(range(len(asked)))

    async def work() -> None:
        for number in numbers:
            answers[number] = await ask(asked[number])

    workers = [asyncio.ensure_future(work()) for _ in range(min(at_once, len(asked)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
    return [answers[number] for number in range(len(asked))]


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
