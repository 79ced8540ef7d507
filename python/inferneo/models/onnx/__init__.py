"""ONNX models, which run in ``InferneoEngine`` as any others do. What is here can be imported, and says so when it is used."""
from __future__ import annotations

from typing import Any

from inferneo.errors import UnsupportedError

__all__ = ["ONNXConverter", "ONNXModel"]


class ONNXModel:
    """A model in an ONNX file. Raises UnsupportedError: EngineConfig(model=PATH) runs it, in InferneoEngine."""

    def __init__(self, path: str, config: Any = None) -> None:
        raise UnsupportedError(
            "the Python package has no class of its own for ONNX models; give the path of the directory or of its .onnx file "
            "to InferneoEngine, in EngineConfig(model=PATH)", "format")


class ONNXConverter:
    """Makes an ONNX file of a Hugging Face directory. Raises UnsupportedError: the command `inferneo convert` does it."""

    def __init__(self, config: Any = None) -> None:
        raise UnsupportedError(
            "the Python package converts no models; run the command: inferneo convert MODEL OUTPUT", "format")
