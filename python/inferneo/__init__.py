"""Inferneo: language models in one process, from Python.

>>> import inferneo
>>> llm = inferneo.LLM(inferneo.bundled_model("inferneo-story"))      # doctest: +SKIP
>>> print(llm.generate("Once upon a time", max_tokens=40))            # doctest: +SKIP

The engine is the C++ one of the server, on its own threads; this package awaits it. docs/python.md is the manual.
"""
from __future__ import annotations

import os
import pathlib

try:
    from inferneo import _native
except ImportError as error:
    raise ImportError("the extension of the package inferneo is missing or of another Python: scripts/quickstart.sh builds it "
                      "into build/release/python, pip install . installs it") from error
from inferneo import _check
from inferneo._native import GenerationResult, GenerationSample, SamplingParams, TokenLogprob
from inferneo.core._generation import GenerationChunk, GenerationStream
from inferneo.core.config import EngineConfig
from inferneo.core.engine import InferneoEngine
from inferneo.core.enhanced_engine import ABTestConfig, EnhancedInferneoEngine, RequestOptions, RoutingRule, ShadowConfig
from inferneo.errors import *  # noqa: F403
from inferneo.errors import __all__ as _errors
from inferneo.errors import NotFoundError
from inferneo.llm import LLM
from inferneo.models.manager import Model, ModelFormat, ModelInfo, ModelManager
from inferneo.models.transformers import TransformersModel

__version__: str = _native.__version__
__all__ = [
    "ABTestConfig", "EngineConfig", "EnhancedInferneoEngine", "GenerationChunk", "GenerationResult", "GenerationSample",
    "GenerationStream", "InferneoEngine", "LLM", "Model", "ModelFormat", "ModelInfo", "ModelManager", "RequestOptions",
    "RoutingRule", "SamplingParams", "ShadowConfig", "TokenLogprob", "TransformersModel", "bundled_model", "set_log_level", *_errors,
]


def bundled_model(name: str) -> str:
    """The folder of a bundled demonstration model: "inferneo-story", "inferneo-code" or "inferneo-story-draft".

    Raises: NotFoundError.
    """
    here = pathlib.Path(os.path.realpath(__file__)).parent
    for folder in (here / "bundled", here.parent.parent / "models"):  # of a wheel, of a checkout
        if os.path.basename(_check.text("name", name)) == name and (folder / name / "config.json").is_file():
            return str(folder / name)
    raise NotFoundError(f"there is no bundled model '{name}'; there are inferneo-story, inferneo-code, inferneo-story-draft")


def set_log_level(level: str) -> None:
    """What the engine writes to stderr: "debug", "info", "warning" (as it is at first), "error" or "off".

    Raises: InvalidArgumentError.
    """
    _native.set_log_level(_check.text("level", level))


set_log_level("warning")  # until an EngineConfig sets log_level
