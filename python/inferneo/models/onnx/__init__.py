"""ONNX models. This build has no ONNX runner: everything here can be imported, and says so when it is used."""
from __future__ import annotations

from typing import Any, NoReturn

from inferneo.errors import UnsupportedError

__all__ = ["ONNXConverter", "ONNXModel"]

_MISSING = "this build of Inferneo has no ONNX runner; use the Hugging Face directory of the model with TransformersModel"


class ONNXModel:
    """A model in an ONNX file. Raises UnsupportedError: there is no runner for it in this build."""

    def __init__(self, path: str, config: Any = None) -> None:
        _refuse()


class ONNXConverter:
    """Makes an ONNX file of a Hugging Face directory. Raises UnsupportedError: this build cannot."""

    def __init__(self, config: Any = None) -> None:
        _refuse()


def _refuse() -> NoReturn:
    raise UnsupportedError(_MISSING, "format")
