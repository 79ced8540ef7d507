"""Offline batches: a list of prompts in, a list of results out."""
from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, overload

from inferneo import _bridge, _check, _native
from inferneo._native import GenerationResult, SamplingParams
from inferneo.core import _generation
from inferneo.core.config import EngineConfig
from inferneo.core.engine import InferneoEngine
from inferneo.errors import InferneoError, from_code

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LLM"]

T = TypeVar("T")


class _Progress:
    """One line on a terminal, at most ten times a second; nothing elsewhere unless it is asked for."""

    def __init__(self, total: int, wanted: bool | None, to: TextIO | None = None) -> None:
        self._to = sys.stderr if to is None else to
        self._shown = self._to.isatty() if wanted is None else wanted
        self._total = total
        self._began = self._last = time.monotonic()
        self._tokens = 0

    def show(self, done: int, new_tokens: int) -> None:
        self._tokens += new_tokens
        now = time.monotonic()
        if not self._shown or (now - self._last < 0.1 and done < self._total):
            return
        self._last = now
        filled = 30 * done // max(self._total, 1)
        rate = self._tokens / max(now - self._began, 1e-9)
        end = "\n" if done == self._total else ""
        self._to.write(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done}/{self._total}  {rate:.0f} tokens/s {end}")
        self._to.flush()


class LLM:
    """A model for blocking use: ``LLM(model).generate([...])``.

    Args:
        model: a directory or a hub id.
        config: everything else; None: EngineConfig(**fields).
        **fields: fields of EngineConfig.
    """

    def __init__(self, model: str | os.PathLike[str], config: EngineConfig | None = None, **fields: Any) -> None:
        if config is None:
            config = EngineConfig(model=model, **fields)
        else:
            config = config.replace(model=model, **fields)
        self.engine = InferneoEngine(config)
        self.engine.start_sync()

    @overload
    def generate(self, prompts: str, sampling: SamplingParams | None = None, *, progress: bool | None = None,
                 **fields: Any) -> GenerationResult: ...
    @overload
    def generate(self, prompts: Iterable[str], sampling: SamplingParams | None = None, *, progress: bool | None = None,
                 **fields: Any) -> list[GenerationResult]: ...

    def generate(self, prompts: str | Iterable[str], sampling: SamplingParams | None = None, *,
                 progress: bool | None = None, **fields: Any) -> GenerationResult | list[GenerationResult]:
        """Continues all prompts in one batch; results come in the order of the prompts.

        Args:
            sampling: for all; its fields may also be given as keyword arguments.
            progress: a progress bar on stderr; None: only on a terminal.

        Raises: the first request's error, once the others have been cancelled. Ctrl-C cancels all.
        """
        chosen = _generation.sampling_of(sampling, fields)
        if isinstance(prompts, str):
            return self.engine.generate_sync(prompts, chosen)
        return self._run("prompts", _check.texts("prompts", prompts), chosen, progress, lambda result: result)

    def logits(self, prompt: str) -> NDArray[np.float32]:
        """float32 [prompt tokens, vocabulary]: row i is of the token that follows token i. Needs numpy."""
        return self.engine.logits_sync(prompt)

    def embed(self, texts: str | Iterable[str], *, pooling: str | None = None, normalize: bool | None = None,
              progress: bool | None = None) -> NDArray[np.float32]:
        """Embeddings: of one text float32 [dimensions], of several [texts, dimensions], computed together; arguments and errors
        as InferneoEngine.embed(). Needs numpy."""
        if isinstance(texts, str):
            return self.engine.embed_sync(texts, pooling=pooling, normalize=normalize)
        parts = self.engine._embeddings(texts, pooling, normalize, {})
        bar = _Progress(len(parts), progress)
        results, tokens = [], 0
        for done, part in enumerate(parts, 1):
            results.append(part.wait_sync())
            tokens += results[-1].prompt_tokens
            bar.show(done, tokens)
        return _generation.joined(results, alone=False)

    def _run(self, what: str, prompts: Sequence[str], sampling: SamplingParams, progress: bool | None,
             take: Callable[[GenerationResult], T]) -> list[T]:
        # More than a step takes, so that no seat stays empty, and fewer than the queue may hold.
        window = min(2 * self.engine.config.max_num_seqs, self.engine.config.max_queue_requests)
        bar = _Progress(len(prompts), progress)
        queue = _native.EventQueue()
        results: dict[int, T] = {}
        running: dict[int, _native.Ticket] = {}
        begun = done = 0
        try:
            while done < len(prompts):
                while begun < len(prompts) and len(running) < window:
                    running[begun] = self.engine._native.submit(queue, begun, prompts[begun], sampling, "", False)
                    begun += 1
                for index, kind, value in _bridge.take(queue):
                    del running[index]
                    if isinstance(value, InferneoError):
                        raise from_code(value.code, f"{what}[{index}]: {value.message}", value.param, value.retry_after)
                    results[index] = take(value)
                    done += 1
                    bar.show(done, value.completion_tokens)
        finally:
            for ticket in running.values():
                ticket.cancel()
        return [results[index] for index in range(len(prompts))]

    def close(self) -> None:
        """Gives the memory back; later calls raise UnavailableError."""
        self.engine.end()

    def __repr__(self) -> str:
        return f"LLM({self.engine!r})"

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
