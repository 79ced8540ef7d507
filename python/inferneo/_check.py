"""What users give, looked at before it reaches native code: errors name the argument and what it takes."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from inferneo.errors import InvalidArgumentError

T = TypeVar("T")


def text(name: str, value: Any) -> str:
    """A str that UTF-8 can hold."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected str, got {shown(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(f"{name}: half a surrogate pair at character {error.start}", name) from None
    return value


def model(value: Any) -> str:
    """Which model of several; None or empty: the first, or what the rules choose."""
    return "" if value is None else text("model", value)


def name(value: Any, argument: str = "name") -> str:
    """Of a model, which is never left out."""
    if not text(argument, value):
        raise InvalidArgumentError(f"{argument}: expected the name of a model, got an empty str", argument)
    return str(value)


def whole(argument: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{argument}: expected int, got {shown(value)}")
    return value


def flag(argument: str, value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{argument}: expected bool or None, got {shown(value)}")
    return value


def instance(argument: str, value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{argument}: expected {kind.__name__}, got {shown(value)}; {kind.__name__}(...) makes one")
    return value


def instances(argument: str, values: Any, kind: type[T]) -> list[T]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{argument}: expected a list of {kind.__name__}, got {shown(values)}")
    return [instance(f"{argument}[{index}]", value, kind) for index, value in enumerate(values)]


def texts(argument: str, values: Any) -> list[str]:
    """Several texts, each error with its place among them."""
    if isinstance(values, (str, bytes, bytearray, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{argument}: expected a str or several, got {shown(values)}")
    return [text(f"{argument}[{index}]", value) for index, value in enumerate(values)]


def shown(value: Any) -> str:
    """For an error: never more than a line of it."""
    written = repr(value)
    return written if len(written) <= 80 else f"{written[:76]} ..."
