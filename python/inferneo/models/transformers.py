"""One model from a Hugging Face directory or a hub id."""
from __future__ import annotations

from inferneo.models._one_model import OneModel

__all__ = ["TransformersModel"]


class TransformersModel(OneModel):
    """An engine with this one model, of a Hugging Face directory or a hub id."""
