"""Many models behind one engine: routing rules, A/B tests, shadows, numbers."""
from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from inferneo import _bridge, _check, _native, _remote
from inferneo._native import (ABTestArm, ABTestConfig, ABTestGuardrails, ABTestRampStep, GenerationResult, ModelFormat,
                              ModelRegistration, RoutingCandidate, RoutingOptions, RoutingRefusal, RoutingRule,
                              SamplingOverrides, SamplingParams, ShadowConfig)
from inferneo.core import _generation
from inferneo.core._generation import GenerationChunk, GenerationStream
from inferneo.core.config import EngineConfig
from inferneo.core.engine import EngineBase, _refuse

__all__ = ["ABTestArm", "ABTestConfig", "ABTestGuardrails", "ABTestRampStep", "EngineConfig", "EnhancedInferneoEngine",
           "RequestOptions", "RoutingCandidate", "RoutingOptions", "RoutingRefusal", "RoutingRule", "SamplingOverrides",
           "ShadowConfig"]


@dataclass(frozen=True)
class RequestOptions:
    """What routing and A/B tests may know of a request."""

    model: str = ""  #: empty or "auto": the rules choose
    user: str = ""  #: what an A/B test sticks to
    session: str = ""  #: the same, with sticky_by="session"
    headers: Mapping[str, str] = field(default_factory=dict)  #: for conditions, by lower-case name
    forced_arm: str = ""  #: for debugging: the arm of the test that it wants

    def __post_init__(self) -> None:
        for name in ("model", "user", "session", "forced_arm"):
            _check.text(f"RequestOptions.{name}", getattr(self, name))
        if not isinstance(self.headers, Mapping):
            raise TypeError(f"RequestOptions.headers: expected names and values, got {_check.shown(self.headers)}")
        for name, value in self.headers.items():
            _check.text("RequestOptions.headers: a name", name)
            _check.text(f"RequestOptions.headers[{name!r}]", value)

    def _arguments(self) -> tuple[str, str, str, dict[str, str], str]:
        return self.model, self.user, self.session, dict(self.headers), self.forced_arm


_NOTHING = RequestOptions()


def registration(name: str, version: str, path: str | os.PathLike[str], model_format: ModelFormat | None, fields: dict[str, Any],
                 ) -> ModelRegistration:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: expected a path or a hub id, got {_check.shown(path)}")
    return ModelRegistration(name=_check.name(name), version=_check.text("version", version), path=_check.text("path", os.fspath(path)),
                             format=model_format, **fields)


class EnhancedInferneoEngine(EngineBase, _generation.ReadsPrompts):
    """Routes each request by rules and A/B tests, loads its model if need be, and measures it.

    Rules, tests and shadows that are added before the engine has started come into force once their models are there;
    while one still waits for its models, ``generate()`` raises NotFoundError with what is missing. The registry is in
    memory unless ``EngineConfig(registry=PATH)`` names a file.
    """

    def __init__(self, config: EngineConfig | None = None, *, url: str | None = None, api_key: str | None = None,
                 **unknown: NoReturn) -> None:
        _refuse(type(self), unknown)
        super().__init__(config, _native.EnhancedEngine, _remote.EnhancedEngine, url, api_key)

    # ---- models
    def register_model_sync(self, name: str, version: str = "", path: str | os.PathLike[str] = "", *, format: ModelFormat | None = None,
                            **fields: Any) -> str:
        """Makes a model known; it is loaded at its first request.

        Args:
            name: or name:version.
            path: a directory, or a hub id.
            format: None: found out from the files.
            **fields: further fields of ModelRegistration (aliases, pinned, keep_alive in seconds, settings, ...).

        Returns: its id, "name:version".

        Raises: AlreadyExistsError, InvalidArgumentError naming the field, UnsupportedError for a format without a runner.
        """
        record = registration(name, version, path, format, fields)
        self._ready_sync()
        identity: str = self._native.register_model(record)
        return identity

    async def register_model(self, name: str, version: str = "", path: str | os.PathLike[str] = "", *, format: ModelFormat | None = None,
                             **fields: Any) -> str:
        """As register_model_sync(), while the event loop goes on."""
        return await asyncio.to_thread(self.register_model_sync, name, version, path, format=format, **fields)

    async def remove_model(self, model_id: str) -> None:
        """It is unknown at once; its running generations may end within 30 seconds. NotFoundError."""
        await self._ready()
        await asyncio.to_thread(self._native.remove_model, _check.name(model_id, "model_id"))

    # ---- routing: InvalidArgumentError points at the character, NotFoundError names what there is not.
    def add_routing_rule(self, rule: RoutingRule) -> None:
        """AlreadyExistsError; ConflictError: it would lead back to where it was."""
        self._require_owner()
        self._native.add_routing_rule(_check.instance("rule", rule, RoutingRule))

    def replace_routing_rule(self, rule: RoutingRule) -> None:
        """The one of its name."""
        self._ready_sync()
        self._native.replace_routing_rule(_check.instance("rule", rule, RoutingRule))

    def remove_routing_rule(self, name: str) -> None:
        """NotFoundError."""
        self._ready_sync()
        self._native.remove_routing_rule(_check.text("name", name))

    def set_routing_options(self, options: RoutingOptions) -> None:
        """How a model is chosen where no rule matches, and what follows a model that cannot serve."""
        self._ready_sync()
        self._native.set_routing_options(_check.instance("options", options, RoutingOptions))

    # ---- A/B tests
    def add_ab_test(self, config: ABTestConfig) -> None:
        """Adds and starts it. InvalidArgumentError names the field."""
        self._require_owner()
        self._native.add_ab_test(_check.instance("config", config, ABTestConfig))

    def pause_ab_test(self, name: str) -> None:
        """Its requests go to arm A until it is resumed."""
        self._ready_sync()
        self._native.pause_ab_test(_check.text("name", name))

    def resume_ab_test(self, name: str) -> None:
        """Goes on where it was."""
        self._ready_sync()
        self._native.resume_ab_test(_check.text("name", name))

    def stop_ab_test(self, name: str) -> None:
        """Ends it; its numbers stay."""
        self._ready_sync()
        self._native.stop_ab_test(_check.text("name", name))

    def remove_ab_test(self, name: str) -> None:
        """Forgets it. ConflictError: a rule leads to it."""
        self._ready_sync()
        self._native.remove_ab_test(_check.text("name", name))

    def promote(self, name: str, arm: str) -> None:
        """The arm gets everything from now on."""
        self._ready_sync()
        self._native.promote(_check.text("name", name), _check.text("arm", arm))

    # ---- shadows
    def add_shadow(self, config: ShadowConfig) -> None:
        """Copies requests for another model; what came of it is in get_stats()."""
        self._require_owner()
        self._native.add_shadow(_check.instance("config", config, ShadowConfig))

    def replace_shadow(self, config: ShadowConfig) -> None:
        """The one of its name."""
        self._ready_sync()
        self._native.replace_shadow(_check.instance("config", config, ShadowConfig))

    def remove_shadow(self, name: str) -> None:
        """NotFoundError."""
        self._ready_sync()
        self._native.remove_shadow(_check.text("name", name))

    # ---- looks
    def explain(self, prompt: str, options: RequestOptions = _NOTHING) -> Sequence[str]:
        """Why such a request would go where, in sentences, without doing it."""
        self._ready_sync()
        asked = _check.instance("options", options, RequestOptions)._arguments()
        sentences: list[str] = self._native.explain(_check.text("prompt", prompt), *asked)
        return sentences

    def get_stats(self) -> dict[str, Any]:
        """The numbers of this moment: ``requests_per_second`` and other rates over the last ten seconds,
        ``model_metrics`` by name:version, ``routing_rules``, ``ab_tests``, ``shadows``, memory in bytes, times in
        seconds. docs/metrics.md says how each is measured. Zeros before the start."""
        self._require_owner()
        stats: dict[str, Any] = self._native.get_stats()
        return stats

    # ---- generating
    def _submission(self, prompt: str, sampling: SamplingParams | None, options: RequestOptions,
                    fields: dict[str, Any]) -> _generation.Submission:
        chosen = _generation.sampling_of(sampling, fields)
        text = _check.text("prompt", prompt)
        model, *rest = options._arguments()
        return lambda queue, request, stream: self._native.submit(queue, request, text, chosen, model, stream, *rest)

    def _embedding(self, texts: list[str], pooling: str, normalize: bool | None, model: str | None = None,
                   options: RequestOptions | None = None) -> _bridge.Submit:
        which, *rest = _options(model, options)._arguments()
        return lambda queue, request: self._native.embed(queue, request, texts, pooling, normalize, which, *rest)

    async def generate(self, prompt: str, sampling: SamplingParams | None = None, *, model: str | None = None,
                       options: RequestOptions | None = None, **fields: Any) -> GenerationResult:
        """Continues ``prompt`` with the model that rules and tests choose, or with ``model``.

        Args:
            sampling: how tokens are chosen; its fields may also be given as keyword arguments.
            options: what routing may know; its ``model`` is the argument of that name, unless that is empty.

        Raises:
            As InferneoEngine.generate(); ForbiddenError: a rule refuses the request; OutOfMemoryError: the model can
            never fit.
        """
        if self._started and options is None and (begun := self._native.begin(prompt, sampling, model, fields)) is not None:
            return cast(GenerationResult, await begun)
        submission = self._submission(prompt, sampling, _options(model, options), fields)
        if not self._started:
            await self._ready()
        return await _generation.generate(submission)

    def generate_stream(self, prompt: str, sampling: SamplingParams | None = None, *, model: str | None = None,
                        options: RequestOptions | None = None, **fields: Any) -> GenerationStream:
        """The same, piece by piece."""
        return GenerationStream(self._submission(prompt, sampling, _options(model, options), fields), self._ready)

    def generate_sync(self, prompt: str, sampling: SamplingParams | None = None, *, model: str | None = None,
                      options: RequestOptions | None = None, **fields: Any) -> GenerationResult:
        """As generate(), for threads without an event loop. Ctrl-C cancels the request."""
        if (self._started and options is None
                and (result := self._native.wait_for(prompt, sampling, model, fields)) is not None):
            return cast(GenerationResult, result)
        submission = self._submission(prompt, sampling, _options(model, options), fields)
        self._ready_sync()
        return _generation.generate_sync(submission)

    def generate_stream_sync(self, prompt: str, sampling: SamplingParams | None = None, *, model: str | None = None,
                             options: RequestOptions | None = None, **fields: Any) -> Iterator[GenerationChunk]:
        """As generate_stream(), for threads without an event loop."""
        submission = self._submission(prompt, sampling, _options(model, options), fields)
        self._ready_sync()
        return _generation.stream_sync(submission)


def _options(model: str | None, options: RequestOptions | None) -> RequestOptions:
    model = _check.model(model)
    if options is None:
        return RequestOptions(model=model) if model else _NOTHING
    _check.instance("options", options, RequestOptions)
    if model:
        return RequestOptions(model, options.user, options.session, options.headers, options.forced_arm)
    return options
