"""An engine with one model, whatever its format is."""
from __future__ import annotations

import os

from inferneo.core.config import EngineConfig
from inferneo.core.engine import InferneoEngine

__all__ = ["OneModel"]


class OneModel(InferneoEngine):
    """An engine with this one model.

    Args:
        path: a directory, or a hub id.
        config: everything else; its own models are not looked at.
    """

    def __init__(self, path: str | os.PathLike[str], config: EngineConfig | None = None) -> None:
        self.path = os.fspath(path)
        super().__init__((EngineConfig() if config is None else config).replace(model=self.path))

    async def initialize(self, config: EngineConfig | None = None) -> None:
        """Loads the model, with another configuration if one is given. Again: nothing happens."""
        if self.is_running:
            return
        if config is not None:
            self._configure(config.replace(model=self.path))
        await self._ready()

    @property
    def model_id(self) -> str:
        """The path or hub id that it was made from."""
        return self.path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"
