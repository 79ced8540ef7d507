"""The engine as an object: give it a configuration, ask it."""
from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Iterator
from typing import Any, NoReturn, cast

from inferneo import _bridge, _check, _http, _native, _remote
from inferneo._native import GenerationResult, SamplingParams
from inferneo.core import _generation
from inferneo.core._generation import GenerationChunk, GenerationStream
from inferneo.core.config import EngineConfig
from inferneo.errors import InferneoError, InvalidArgumentError, NotFoundError, UnavailableError, from_code

__all__ = ["EngineBase", "EngineConfig", "GenerationChunk", "GenerationResult", "GenerationStream", "InferneoEngine",
           "SamplingParams"]


def _with_bundled(error: InferneoError, models: list[str]) -> InferneoError:
    """Who writes the name of a bundled model alone means its folder."""
    from inferneo import bundled_model

    for model in models:
        try:
            if not os.path.isdir(model):
                bundled_model(model)
                return from_code(error.code, f"{error.message}; inferneo.bundled_model({model!r}) is the folder of the bundled "
                                 "model of that name", error.param, error.retry_after)
        except NotFoundError:
            continue
    return error


def _refuse(cls: type[Any], unknown: dict[str, Any]) -> None:
    """What is no argument of an engine is mostly a field of its configuration."""
    for name in unknown:
        raise TypeError(f"{cls.__name__} has no argument '{name}'; {cls.__name__}(EngineConfig({name}=...)) takes fields of the "
                        "configuration")


class EngineBase(_generation.OwnedByProcess):
    """Starting, stopping and what goes with it; of both engines.

    An engine starts itself once, at the first call that needs it running; ``start()`` does it earlier, so that its errors
    come there. Once stopped it stays stopped until ``start()``. Thread-safe; calls from several event loops are fine.

    With ``url="http://HOST:PORT"`` it attaches to a running server instead: the same calls over HTTP, with the server's
    models and configuration; ``stop()`` leaves the server alone. ``api_key`` is sent as a bearer token.
    """

    _native: Any

    def __init__(self, config: EngineConfig | None, native: type[Any], remote: type[Any], url: str | None,
                 api_key: str | None) -> None:
        super().__init__()
        if config is not None and not isinstance(config, EngineConfig):
            hint = f"; EngineConfig(model={os.fspath(config)!r}) makes one" if isinstance(config, (str, os.PathLike)) else ""
            raise InvalidArgumentError(f"config: expected EngineConfig, got {_check.shown(config)}{hint}", "config")
        self._make = native
        #: Where its server is; None: in this process.
        self.url = url
        if url is None:
            if api_key is not None:
                raise InvalidArgumentError("api_key: only a url= asks for one", "api_key")
            self._configure(EngineConfig() if config is None else config)
        else:
            if config is not None:
                raise InvalidArgumentError("config: the server at url= has its own", "config")
            self.config = EngineConfig(use_environment=False)
            self._native = remote(_http.Address(url, api_key))
        self._starting = threading.Lock()  # held while it starts or stops
        self._start_lock = threading.Lock()  # of the two that follow
        self._start: concurrent.futures.Future[None] | None = None  # under way, or the last one
        self._starter = _native.Starting()
        self._started = self._stopped = self._ended = False
        _bridge.keep(self)

    def _configure(self, config: EngineConfig) -> None:
        """Before the start alone."""
        self.config = config._as_used()
        self._native = self._make(config._native)
        if "log_level" in config._native.given:
            _native.set_log_level(config.log_level)

    def end(self) -> None:
        """Ends everything for good: stop_sync(), and no start() any more. Called at the interpreter's exit."""
        self._started, self._stopped, self._ended = False, True, True
        if os.getpid() == self._pid:
            self._starter.give_up()
        self._native.end()

    @property
    def is_running(self) -> bool:
        """Whether it has been started and not stopped."""
        return self._started

    # ---- starting and stopping
    def start_sync(self) -> None:
        """Loads the configured models. Raises what is wrong with them or with the configuration; AlreadyExistsError: it
        has been started."""
        self._wait_sync(self._begin(again=True))

    async def start(self) -> None:
        """As start_sync(), while the event loop goes on."""
        await asyncio.wrap_future(self._begin(again=True))

    def _begin(self, again: bool = False) -> concurrent.futures.Future[None]:
        """The start that is under way, else a new one. Everybody who waits for it gets the same answer.

        again: asked for by name, so that it also starts what has been stopped.
        """
        self._require_owner()
        with self._start_lock:
            if self._start is None or self._start.done():
                self._starter = starter = _native.Starting()
                self._start = _bridge.apart(lambda: self._start_now(again, starter), outlives_us=self.url is not None)
            return self._start

    def _start_now(self, again: bool, starter: _native.Starting) -> None:
        with self._starting:
            if self._ended:
                raise UnavailableError("it has been closed")
            if self._started and not again:
                return
            if self._stopped and not again:
                raise UnavailableError("the engine has been stopped; call start() first")
            try:
                self._native.start(*((starter,) if self.url is None else ()))
            except InferneoError as error:
                raise _with_bundled(error, self.config.model) from None
            self._started, self._stopped = not self._ended, self._ended  # by end(), meanwhile

    def _wait_sync(self, start: concurrent.futures.Future[None]) -> None:
        """Ctrl-C gives the start up: files that are read, a download."""
        try:
            start.result()
        except KeyboardInterrupt:
            with self._start_lock:
                if not start.done() and self._start is start:
                    self._start = None  # the next one is another
                    _bridge.apart(self._starter.give_up)
            raise

    def stop_sync(self) -> None:
        """Ends running generations with UnavailableError and gives all memory back. Again: nothing happens."""
        self._require_owner()
        with self._starting:
            self._started, self._stopped = False, True
            self._native.stop()

    async def stop(self) -> None:
        """As stop_sync(), while the event loop goes on."""
        await asyncio.to_thread(self.stop_sync)

    def _ready_sync(self) -> None:
        if not self._started:
            self._wait_sync(self._begin())

    async def _ready(self) -> None:
        if not self._started:
            await asyncio.wrap_future(self._begin())

    def __repr__(self) -> str:
        state = "running" if self._started else "closed" if self._ended else "stopped" if self._stopped else "not started"
        where = f"url={self.url!r}" if self.url is not None else f"model={self.config.model!r}"
        return f"<{type(self).__name__} {where}, {state}>"

    async def __aenter__(self) -> Any:
        await self._ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def __enter__(self) -> Any:
        self._ready_sync()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_sync()


class InferneoEngine(EngineBase, _generation.ReadsPrompts):
    """One or several models behind one engine.

    >>> engine = InferneoEngine(EngineConfig(model="models/inferneo-story"))     # doctest: +SKIP
    >>> result = await engine.generate("Once upon a time", max_tokens=40)        # doctest: +SKIP
    """

    def __init__(self, config: EngineConfig | None = None, *, url: str | None = None, api_key: str | None = None,
                 **unknown: NoReturn) -> None:
        _refuse(type(self), unknown)
        super().__init__(config, _native.Engine, _remote.Engine, url, api_key)

    def _submission(self, prompt: str, sampling: SamplingParams | None, model: str | None,
                    fields: dict[str, Any]) -> _generation.Submission:
        chosen = _generation.sampling_of(sampling, fields)
        text, which = _check.text("prompt", prompt), _check.model(model)
        return lambda queue, request, stream: self._native.submit(queue, request, text, chosen, which, stream)

    def _embedding(self, texts: list[str], pooling: str, normalize: bool | None, model: str | None = None) -> _bridge.Submit:
        which = _check.model(model)
        return lambda queue, request: self._native.embed(queue, request, texts, pooling, normalize, which)

    async def generate(self, prompt: str, sampling: SamplingParams | None = None, *, model: str | None = None,
                       **fields: Any) -> GenerationResult:
        """Continues ``prompt``.

        Args:
            sampling: how tokens are chosen; its fields may also be given as keyword arguments (``max_tokens=40``).
            model: one of the configured ones; None: the first.

        Raises:
            InvalidArgumentError, ContextTooLongError: the request. NotFoundError: the model. QueueFullError: too many
            wait. UnavailableError: the engine has been stopped. Cancelling the task cancels the request.
        """
        if self._started and (begun := self._native.begin(prompt, sampling, model, fields)) is not None:
            return cast(GenerationResult, await begun)
        submission = self._submission(prompt, sampling, model, fields)
        if not self._started:
            await self._ready()
        return await _generation.generate(submission)

    def generate_stream(self, prompt: str, sampling: SamplingParams | None = None, *, model: str | None = None,
                        **fields: Any) -> GenerationStream:
        """The same, piece by piece: ``async for chunk in engine.generate_stream(...)``."""
        return GenerationStream(self._submission(prompt, sampling, model, fields), self._ready)

    def generate_sync(self, prompt: str, sampling: SamplingParams | None = None, *, model: str | None = None,
                      **fields: Any) -> GenerationResult:
        """As generate(), for threads without an event loop; other Python threads go on. Ctrl-C cancels the request."""
        if self._started and (result := self._native.wait_for(prompt, sampling, model, fields)) is not None:
            return cast(GenerationResult, result)
        submission = self._submission(prompt, sampling, model, fields)
        self._ready_sync()
        return _generation.generate_sync(submission)

    def generate_stream_sync(self, prompt: str, sampling: SamplingParams | None = None, *, model: str | None = None,
                             **fields: Any) -> Iterator[GenerationChunk]:
        """As generate_stream(), for threads without an event loop. Closing the iterator cancels the request."""
        submission = self._submission(prompt, sampling, model, fields)
        self._ready_sync()
        return _generation.stream_sync(submission)
