"""ONNX models: one of them as an engine, and making them of Hugging Face models."""
from __future__ import annotations

import asyncio
import enum
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from inferneo import _bridge, _native
from inferneo._native import ConvertedModel, ConvertVerification, OnnxOperators, Precision
from inferneo.core.config import EngineConfig
from inferneo.errors import InvalidArgumentError, RequestCancelledError
from inferneo.models._one_model import OneModel

__all__ = ["ConvertedModel", "ConvertVerification", "ONNXConverter", "ONNXModel", "OnnxOperators", "Precision"]

_Enum = TypeVar("_Enum", bound=enum.Enum)
Progress = Callable[[str, int, int], object]  #: stage, bytes done, bytes in all


class ONNXModel(OneModel):
    """An engine with this one model, of a directory with an .onnx file in it or of such a file.

    Its graph runs in ONNX Runtime, which is loaded when the model is; without that library the load raises
    UnsupportedError, which says how to get it. What the graph is for decides what it can be asked: a decoder generates, a
    graph of embeddings has ``embed()``, and others are asked over HTTP alone.
    """


def _member(kind: type[_Enum], value: _Enum | str, field: str) -> _Enum:
    if isinstance(value, kind):
        return value
    try:
        return kind[str(value).upper().replace("-", "_")]
    except KeyError:
        known = ", ".join(member.name.lower() for member in kind)
        raise InvalidArgumentError(f"{field}: expected one of {known}, got {str(value)[:60]!r}", field) from None


class ONNXConverter:
    """Makes ONNX models of models in Hugging Face layout, without PyTorch.

    Thread-safe: several conversions may run at once.

    Args:
        config: the hub's fields (``hub_cache``, ``hub_offline``, ...) and ``num_threads`` of it are looked at.
    """

    def __init__(self, config: EngineConfig | None = None) -> None:
        self._native = _native.Converter((EngineConfig() if config is None else config)._native)
        _bridge.keep(self)

    def convert_model(self, model: str | os.PathLike[str], output: str | os.PathLike[str], *,
                      precision: Precision | str = Precision.INT4, block_size: int = 0, accuracy_level: int = 4,
                      operators: OnnxOperators | str = OnnxOperators.GENAI, half_activations: bool = False,
                      max_model_len: int = 0, verify: bool = True, overwrite: bool = False,
                      on_progress: Progress | None = None) -> ConvertedModel:
        """Writes the directory ``output``, with model.onnx in it; it appears whole or not at all.

        Waits until it is done, while other threads go on; coroutines take ``convert_model_async()``.

        Args:
            model: a directory, or a hub id, which is downloaded when it is not in the cache yet.
            output: the directory that is to be written.
            precision: of the weights; Precision or its name.
            block_size: weights that share a scale, of int8 and int4: 16, 32, 64 or 128; 0: as each kind of matrix needs it.
            accuracy_level: of integer products: 0 as the runtime likes, 1 f32, 2 f16, 3 bf16, 4 int8.
            operators: of which the graph is made; OnnxOperators or its name.
            half_activations: activations and cache in f16, for int8 and int4.
            max_model_len: longest sequence that the graph serves; 0: the model's.
            verify: compare with the native model afterwards, and keep nothing that is out of bounds.
            overwrite: replace an earlier conversion at the same place.
            on_progress: called with stage, bytes done and bytes in all, on this thread; what it raises ends the conversion.

        Raises NotFoundError and those of downloads; UnsupportedError and MalformedError, which name the field or tensor;
        AlreadyExistsError; InvalidArgumentError, which names the argument; NumericError when verification fails.
        """
        return self._native.convert_model(
            model=os.fspath(model), output=os.fspath(output), precision=_member(Precision, precision, "precision"),
            block_size=block_size, accuracy_level=accuracy_level, operators=_member(OnnxOperators, operators, "operators"),
            half_activations=half_activations, max_model_len=max_model_len, verify=verify, overwrite=overwrite,
            on_progress=on_progress)

    async def convert_model_async(self, model: str | os.PathLike[str], output: str | os.PathLike[str], *,
                                  on_progress: Progress | None = None, **options: Any) -> ConvertedModel:
        """As convert_model(), in a thread, with the same arguments. A cancelled task ends the conversion; ``on_progress`` is
        called on that thread."""
        left = threading.Event()

        def tell(stage: str, done: int, total: int) -> None:
            if left.is_set():
                raise RequestCancelledError("the task was cancelled")
            if on_progress is not None:
                on_progress(stage, done, total)

        try:
            return await asyncio.to_thread(self.convert_model, model, output, on_progress=tell, **options)
        except asyncio.CancelledError:
            left.set()
            raise

    def end(self) -> None:
        """At the interpreter's exit: waits for conversions."""
        self._native.end()

    def __repr__(self) -> str:
        return "ONNXConverter()"
