"""TensorRT engines. This build has no TensorRT runner: everything can be imported, and says so when it is used."""
from __future__ import annotations

from typing import Any

from inferneo.errors import UnsupportedError

__all__ = ["TensorRTModel"]


class TensorRTModel:
    """A serialized TensorRT engine. Raises UnsupportedError: there is no runner for it in this build."""

    def __init__(self, path: str, config: Any = None) -> None:
        raise UnsupportedError(
            "this build of Inferneo has no TensorRT runner, which needs an NVIDIA GPU and the TensorRT libraries; use the "
            "Hugging Face directory of the model with TransformersModel", "format")
