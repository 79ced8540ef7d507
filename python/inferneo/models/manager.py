"""Many models in one process: registered with versions, loaded at their first use, kept within one memory budget."""
from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any, cast

from inferneo import _bridge, _check, _http, _native, _remote
from inferneo._native import GenerationResult, ModelFormat, ModelInfo, ModelRegistration, SamplingParams
from inferneo.core import _generation
from inferneo.core._generation import GenerationChunk, GenerationStream
from inferneo.core.config import EngineConfig
from inferneo.core.enhanced_engine import registration
from inferneo.errors import InvalidArgumentError, UnavailableError

__all__ = ["Model", "ModelFormat", "ModelInfo", "ModelManager", "ModelRegistration"]

_PATIENCE = 30  # seconds that running generations of a model get before it goes


class Model(_generation.OwnedByProcess, _generation.ReadsPrompts):
    """A model that is held in memory while this object lives, or until ``release()``.

    Nothing takes its place meanwhile, so let go of what is not needed: ``async with await manager.load_model(...)``.
    It may outlive its manager; generations then raise UnavailableError.
    """

    def __init__(self, native: _native.Lease | _remote.Lease) -> None:
        super().__init__()
        self._native = native
        self.id: str = native.id()  #: name:version
        _bridge.keep(self)

    def _submission(self, prompt: str, sampling: SamplingParams | None,
                    fields: dict[str, Any]) -> _generation.Submission:
        chosen = _generation.sampling_of(sampling, fields)
        text = _check.text("prompt", prompt)
        return lambda queue, request, stream: self._native.submit(queue, request, text, chosen, stream)

    def _embedding(self, texts: list[str], pooling: str, normalize: bool | None) -> _bridge.Submit:
        return lambda queue, request: self._native.embed(queue, request, texts, pooling, normalize)

    async def _ready(self) -> None:
        pass

    def _ready_sync(self) -> None:
        pass

    async def generate(self, prompt: str, sampling: SamplingParams | None = None, **fields: Any) -> GenerationResult:
        """Continues ``prompt``; arguments and errors as InferneoEngine.generate()."""
        if (begun := self._native.begin(prompt, sampling, fields)) is not None:
            return cast(GenerationResult, await begun)
        return await _generation.generate(self._submission(prompt, sampling, fields))

    def generate_stream(self, prompt: str, sampling: SamplingParams | None = None, **fields: Any) -> GenerationStream:
        """The same, piece by piece."""
        return GenerationStream(self._submission(prompt, sampling, fields), self._ready)

    def generate_sync(self, prompt: str, sampling: SamplingParams | None = None, **fields: Any) -> GenerationResult:
        """As generate(), for threads without an event loop."""
        if (result := self._native.wait_for(prompt, sampling, fields)) is not None:
            return result
        return _generation.generate_sync(self._submission(prompt, sampling, fields))

    def generate_stream_sync(self, prompt: str, sampling: SamplingParams | None = None,
                             **fields: Any) -> Iterator[GenerationChunk]:
        """As generate_stream(), for threads without an event loop."""
        return _generation.stream_sync(self._submission(prompt, sampling, fields))

    def release(self) -> None:
        """Lets go: the model may leave memory when room is needed. Later generations raise UnavailableError."""
        self._native.end()

    def end(self) -> None:
        """At the interpreter's exit."""
        self._native.end()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    async def __aenter__(self) -> Model:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"Model({self.id!r})"


def _config_of(config: EngineConfig | None, said: dict[str, Any]) -> EngineConfig:
    """What holds: the arguments, then the config, then lazy loading, which a manager has by default."""
    if config is None:
        config = EngineConfig()
    if "enable_lazy_loading" not in _check.instance("config", config, EngineConfig)._native.given:
        said = {"enable_lazy_loading": True, **said}
    return config.replace(**said)._as_used()


class ModelManager(_generation.OwnedByProcess):
    """Registers models, loads them when they are asked for, and unloads what has been idle longest to make room.

    Names: a call takes ``name`` (its active version), ``name:version`` or an alias.

    Args:
        max_models: in memory at once; 0: as many as fit. None, as of the next three: what the config says.
        max_memory_gb: GiB, never exceeded by a byte; 0: 0.8 of the memory that the process may use.
        enable_lazy_loading: False: register_model() loads the model before it returns. True unless the config says so.
        registry: a file that remembers what is registered, for one process at a time; "memory": forgotten at the end, as
            it is unless the config names a file.
        config: everything else; None: EngineConfig(), which reads the environment. Its models are registered too.
        url: of a running server, whose models these then are: the same calls over HTTP. It has its own limits, registry and
            configuration, so nothing else may be given; a Model does not hold its model in memory there.
        api_key: that the server asks operators for.

    Raises: InvalidArgumentError; ConflictError: another process holds the registry.
    """

    def __init__(self, max_models: int | None = None, max_memory_gb: float | None = None,
                 enable_lazy_loading: bool | None = None, *, registry: str | os.PathLike[str] | None = None,
                 config: EngineConfig | None = None, url: str | None = None, api_key: str | None = None) -> None:
        super().__init__()
        self._native: Any
        if url is None:
            if api_key is not None:
                raise InvalidArgumentError("api_key: only a url= asks for one", "api_key")
            said = {"max_models": max_models, "max_memory_gb": max_memory_gb, "enable_lazy_loading": enable_lazy_loading,
                    "registry": registry}
            self.config = _config_of(config, {name: value for name, value in said.items() if value is not None})
            self._native = _native.Manager(self.config.max_models, self.config.max_memory_gb, self.config.enable_lazy_loading,
                                           self.config.registry or "memory", self.config._native)
        else:
            if any(given is not None for given in (config, max_models, max_memory_gb, enable_lazy_loading, registry)):
                raise InvalidArgumentError("url: the server there has its own limits, registry and configuration", "url")
            self.config = EngineConfig(use_environment=False)
            self._native = _remote.Manager(_http.Address(url, api_key))
        _bridge.keep(self)

    # ---- registering
    def register_model_sync(self, name: str, version: str = "", path: str | os.PathLike[str] = "", format: ModelFormat | None = None,
                            **fields: Any) -> str:
        """Makes a model known.

        Args:
            name: or name:version.
            version: empty: as the name says it, else "1".
            path: a directory, or a hub id.
            format: None: found out from the files.
            **fields: further fields of ModelRegistration (aliases, pinned, keep_alive in seconds, settings, ...).

        Returns: its id, "name:version".

        Raises: AlreadyExistsError, InvalidArgumentError naming the field; without lazy loading also what the load says,
        and then nothing stays registered.
        """
        self._require_owner()
        identity: str = self._native.register_model(registration(name, version, path, format, fields))
        return identity

    async def register_model(self, name: str, version: str = "", path: str | os.PathLike[str] = "", format: ModelFormat | None = None,
                             **fields: Any) -> str:
        """As register_model_sync(), while the event loop goes on."""
        return await asyncio.to_thread(self.register_model_sync, name, version, path, format, **fields)

    async def remove_model(self, model_id: str, patience: int = _PATIENCE) -> None:
        """It is unknown at once; its running generations may end within ``patience`` seconds. NotFoundError."""
        await asyncio.to_thread(self._native.remove_model, _check.name(model_id, "model_id"), _check.whole("patience", patience))

    # ---- memory
    async def load_model(self, name: str) -> Model:
        """Loads it if need be, and holds it.

        Raises: NotFoundError names the nearest; OutOfMemoryError: it can never fit; what its files have wrong.
        """
        _check.name(name)
        if isinstance(self._native, _remote.Manager):
            return Model(await asyncio.to_thread(self._native.load, name))
        return Model(await _bridge.wait(lambda queue, request: self._native.acquire(queue, request, name)))

    async def get_model(self, name: str) -> Model:
        """The same as load_model(): models are loaded when they are asked for."""
        return await self.load_model(name)

    def load_model_sync(self, name: str) -> Model:
        """As load_model(), for threads without an event loop."""
        _check.name(name)
        if isinstance(self._native, _remote.Manager):
            return Model(self._native.load(name))
        return Model(_bridge.wait_sync(lambda queue, request: self._native.acquire(queue, request, name)))

    async def unload_model(self, name: str, patience: int = _PATIENCE) -> None:
        """Out of memory as soon as nobody holds it, or after ``patience`` seconds, which ends its generations."""
        await asyncio.to_thread(self._native.unload, _check.name(name), _check.whole("patience", patience))

    async def sleep(self, name: str, patience: int = _PATIENCE) -> None:
        """As unload_model(), and the weights go from the GPU into the host's memory; asking for the model wakes it.

        Raises: UnsupportedError: it computes on the CPU, or nothing may sleep; ConflictError: it is not in memory;
        OutOfMemoryError: there is no room for it, and it stays.
        """
        await asyncio.to_thread(self._native.sleep, _check.name(name), _check.whole("patience", patience))

    async def wake_up(self, name: str) -> None:
        """Waits until a model that sleeps is ready. ConflictError: it would have to be loaded."""
        await asyncio.to_thread(self._native.wake_up, _check.name(name))

    def pin(self, name: str, pinned: bool = True) -> None:
        """Never unloaded to make room."""
        self._native.pin(_check.name(name), bool(pinned))

    def set_keep_alive(self, name: str, seconds: int | None) -> None:
        """Idle seconds before it may be unloaded; None: the manager's default; -1: for ever."""
        self._native.set_keep_alive(_check.name(name), None if seconds is None else _check.whole("seconds", seconds))

    # ---- versions and aliases
    async def switch_version(self, name: str, version: str) -> None:
        """What the bare name means from now on. Loads that version first; when that fails, everything stays as it was."""
        await asyncio.to_thread(self._native.switch_version, _check.name(name), _check.text("version", version))

    async def rollback(self, name: str) -> None:
        """To the version before. ConflictError: there is none."""
        await asyncio.to_thread(self._native.rollback, _check.name(name))

    def set_alias(self, alias: str, target: str) -> None:
        """Another name for a name or name:version."""
        self._native.set_alias(_check.name(alias, "alias"), _check.name(target, "target"))

    def remove_alias(self, alias: str) -> None:
        """NotFoundError."""
        self._native.remove_alias(_check.name(alias, "alias"))

    # ---- looks
    def list_models(self) -> list[ModelInfo]:
        """In order of registration."""
        models: list[ModelInfo] = self._native.models()
        return models

    def model_info(self, name: str) -> ModelInfo:
        """NotFoundError names the nearest."""
        info: ModelInfo = self._native.model(_check.name(name))
        return info

    @property
    def memory_used(self) -> int:
        """Bytes of the ledger."""
        used: int = self._native.memory_used()
        return used

    @property
    def memory_budget(self) -> int:
        """Bytes."""
        budget: int = self._native.memory_budget()
        return budget

    # ---- the end
    def close_sync(self) -> None:
        """Ends running generations with UnavailableError and gives the memory back. Again: nothing happens."""
        self._native.end()

    async def close(self) -> None:
        """As close_sync(), while the event loop goes on."""
        await asyncio.to_thread(self._native.end)

    def end(self) -> None:
        """At the interpreter's exit."""
        self._native.end()

    def __repr__(self) -> str:
        if isinstance(self._native, _remote.Manager):
            return f"<ModelManager of the server {self._native.address.shown}>"
        try:
            return f"<ModelManager, {self.memory_used} of {self.memory_budget} bytes used>"
        except UnavailableError:  # closed, or of another process
            return "<ModelManager, closed>"

    def __enter__(self) -> ModelManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_sync()

    async def __aenter__(self) -> ModelManager:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
