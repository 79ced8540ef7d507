"""The configuration of engines. Its fields, ranges and words come from the engine's own table: docs/configuration.md."""
from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

from inferneo import _check, _native

__all__ = ["EngineConfig"]

_log = logging.getLogger("inferneo")
_FIELDS: dict[str, dict[str, Any]] = {row["name"]: row for row in _native.Config.fields()}
# What only a file and programs can give.
_LISTS: dict[str, type[Any]] = {"routing_rules": _native.RoutingRule, "ab_tests": _native.ABTestConfig,
                                "shadow": _native.ShadowConfig}


def _written(name: str, value: Any) -> list[str]:
    """A value as the table reads it."""
    field = _FIELDS.get(name, {})
    if name == "model" and not isinstance(value, (str, os.PathLike)) and (value is not None or not field.get("unset_word")):
        if isinstance(value, (bytes, dict)) or not isinstance(value, Iterable):
            raise TypeError(f"model: expected a directory or a hub id, got {_check.shown(value)}")
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, (int, float)):
        return [repr(value)]
    if isinstance(value, str):
        value = _check.text(name, value)
        return [os.path.expanduser(value) if field.get("is_path") else value]
    if isinstance(value, os.PathLike):
        return [_check.text(name, os.fspath(value))]
    if isinstance(value, Iterable) and not isinstance(value, (bytes, dict)) and field.get("type", "list").startswith("list"):
        return [text for entry in value for text in _written(name, entry)]
    if value is None and field.get("unset_word"):
        return [field["unset_word"]]
    from inferneo.errors import InvalidArgumentError

    expected = field.get("expected", "text, a number, a flag or a list")
    raise InvalidArgumentError(f"{name}: expected {expected}, got {value!r}", name)


class EngineConfig:
    """What an engine is told. Fields and their ranges: docs/configuration.md; ``EngineConfig.fields()`` lists them.

    A keyword wins over its environment variable (``INFERNEO_MAX_MODEL_LEN`` and so on), that over ``config_file`` (or the
    file that ``INFERNEO_CONFIG`` names), that over the default.

    Args:
        config_file: a YAML file like the one of ``inferneo serve``.
        use_environment: False: ``INFERNEO_*`` variables are not looked at.
        **fields: any field of the table; also ``routing_rules``, ``ab_tests`` and ``shadow`` as lists.

    Raises:
        InvalidArgumentError (a ValueError): an unknown field (the message names the nearest) or a value out of range.
        InputOutputError (an OSError): the file cannot be read.
    """

    __slots__ = ("_native", "_fixed")
    _native: _native.Config
    _fixed: bool  # an engine has been made with it

    def __init__(self, *, config_file: str | os.PathLike[str] | None = None, use_environment: bool = True,
                 **fields: Any) -> None:
        lists = {name: fields.pop(name) for name in _LISTS if name in fields}
        values = {name: _written(name, value) for name, value in fields.items()}
        file = None if config_file is None else os.fspath(config_file)
        native = _native.Config.load(values, file, use_environment)
        for warning in native.warnings:
            _log.warning("%s", warning)
        for notice in native.notices:
            _log.info("%s", notice)
        self._adopt(native)
        for name, entries in lists.items():
            setattr(self, name, entries)

    def _adopt(self, native: _native.Config, fixed: bool = False) -> None:
        object.__setattr__(self, "_native", native)
        object.__setattr__(self, "_fixed", fixed)

    def _as_used(self) -> EngineConfig:
        """A copy for an engine to show: no change of it would have an effect, so that none is taken."""
        copy: EngineConfig = object.__new__(type(self))
        copy._adopt(self._native.copy(), fixed=True)
        return copy

    @staticmethod
    def fields() -> list[dict[str, Any]]:
        """One dictionary for each field: name, type, group, help, expected, default, environment."""
        return _native.Config.fields()

    def replace(self, **fields: Any) -> EngineConfig:
        """A copy with these fields changed; nothing is read from the environment again."""
        copy = object.__new__(type(self))
        copy._adopt(self._native.copy())
        for name, value in fields.items():
            setattr(copy, name, value)
        return copy

    def __getattr__(self, name: str) -> Any:
        if name in _FIELDS:
            return self._native.get(name)
        if name in _LISTS:
            return getattr(self._native, name)
        raise AttributeError(f"EngineConfig has no field '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        if self._fixed:
            raise AttributeError(f"{name}: what has been made with this configuration does not change any more; make another with "
                                 f"config.replace({name}=...)")
        if name in _LISTS:
            setattr(self._native, name, _check.instances(name, value, _LISTS[name]))
        else:
            self._native.set(name, _written(name, value))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_FIELDS, *_LISTS]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EngineConfig):
            return NotImplemented
        return (self._native.written() == other._native.written()
                and all(getattr(self, name) == getattr(other, name) for name in _LISTS))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """What has been set to something else than the default; secrets come as ``***``."""
        shown = (f"{name}={'***' if _FIELDS[name]['secret'] else repr(getattr(self, name))}" for name in self._native.changed())
        return f"EngineConfig({', '.join(shown)})"

    def __reduce__(self) -> Any:
        lists = {name: getattr(self, name) for name in _LISTS}
        return _restore, (self._native.written(), lists, self._native.given)


def _restore(values: dict[str, list[str]], lists: dict[str, Any], given: list[str]) -> EngineConfig:
    config = object.__new__(EngineConfig)
    config._adopt(_native.Config.load(values, None, False))
    for name, entries in lists.items():
        setattr(config, name, entries)
    config._native.given = given
    return config
