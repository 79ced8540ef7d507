"""What the engine refuses or cannot do, as exceptions: one class for each of its error codes.

Every class is an ``InferneoError`` and, where Python has one that fits, a builtin as well, so that both
``except inferneo.NotFoundError`` and ``except LookupError`` catch an unknown model.
"""
from __future__ import annotations

from typing import Any

__all__ = [
    "InferneoError", "InvalidArgumentError", "NotFoundError", "AlreadyExistsError", "ConflictError", "UnsupportedError",
    "ContextTooLongError", "MalformedError", "RefusedError", "QueueFullError", "RateLimitedError", "UnavailableError",
    "OutOfMemoryError", "DiskFullError", "DeadlineExceededError", "RequestCancelledError", "InputOutputError",
    "NumericError", "PayloadTooLargeError", "UnauthorizedError", "ForbiddenError", "MethodNotAllowedError", "InternalError",
]


class InferneoError(Exception):
    """An expected failure. ``str()`` is a sentence that names the thing and the way out.

    Attributes:
        code: the name of the engine's error code, such as ``"not_found"``.
        param: the field or parameter at fault; empty when there is none.
        retry_after: seconds until another try has a chance; 0 when that is not known.
    """

    code: str = "internal_error"

    def __init__(self, message: str = "", param: str = "", retry_after: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        said = [repr(self.message)]
        if self.param:
            said.append(f"param={self.param!r}")
        if self.retry_after:
            said.append(f"retry_after={self.retry_after}")
        return f"{type(self).__name__}({', '.join(said)})"

    def __reduce__(self) -> Any:
        return type(self), (self.message, self.param, self.retry_after)


class InvalidArgumentError(InferneoError, ValueError):
    """A value is wrong; ``param`` names the field."""

    code = "invalid_argument"


class NotFoundError(InferneoError, LookupError):
    """There is no such model, file, rule or test; the message names the nearest."""

    code = "not_found"


class AlreadyExistsError(InferneoError, ValueError):
    """Registered or added twice."""

    code = "already_exists"


class ConflictError(InferneoError, RuntimeError):
    """The state of the thing does not allow it."""

    code = "conflict"


class UnsupportedError(InferneoError, NotImplementedError):
    """Understood, and not there (yet)."""

    code = "unsupported"


class ContextTooLongError(InferneoError, ValueError):
    """Prompt and wanted tokens exceed the model's context."""

    code = "context_length_exceeded"


class MalformedError(InferneoError, ValueError):
    """A file breaks its format."""

    code = "malformed"


class RefusedError(InferneoError, PermissionError):
    """Not allowed."""

    code = "refused"


class QueueFullError(InferneoError, RuntimeError):
    """Too many requests wait; try again after ``retry_after`` seconds."""

    code = "queue_full"


class RateLimitedError(InferneoError, RuntimeError):
    """The caller's own limit; try again after ``retry_after`` seconds."""

    code = "rate_limit_exceeded"


class UnavailableError(InferneoError, RuntimeError):
    """Not started, stopped, closed, or of a process that this one was forked from."""

    code = "unavailable"


class OutOfMemoryError(InferneoError, MemoryError):
    """Would exceed a budget."""

    code = "out_of_memory"


class DiskFullError(InferneoError, OSError):
    """The file system or a quota has no room."""

    code = "disk_full"


class DeadlineExceededError(InferneoError, TimeoutError):
    """Out of time."""

    code = "deadline_exceeded"


class RequestCancelledError(InferneoError, RuntimeError):
    """The request was cancelled by somebody other than the task that waits for it."""

    code = "cancelled"


class InputOutputError(InferneoError, OSError):
    """The system said no."""

    code = "io_error"


class NumericError(InferneoError, ArithmeticError):
    """NaN or infinite logits."""

    code = "numeric_error"


class PayloadTooLargeError(InferneoError, ValueError):
    """Over a byte limit."""

    code = "payload_too_large"


class UnauthorizedError(InferneoError, PermissionError):
    """No key, or a wrong one."""

    code = "invalid_api_key"


class ForbiddenError(InferneoError, PermissionError):
    """A routing rule refuses the request."""

    code = "forbidden"


class MethodNotAllowedError(InferneoError, RuntimeError):
    """Of the HTTP API alone."""

    code = "method_not_allowed"


class InternalError(InferneoError, RuntimeError):
    """A bug of Inferneo's."""

    code = "internal_error"


_BY_CODE: dict[str, type[InferneoError]] = {cls.code: cls for cls in InferneoError.__subclasses__()}


def from_code(code: str, message: str, param: str = "", retry_after: int = 0) -> InferneoError:
    """The exception of an error code."""
    return _BY_CODE.get(code, InternalError)(message, param, retry_after)


def _remake(cls: Any, values: dict[str, Any]) -> Any:
    """For pickle: an object from its fields."""
    return cls(**values)


def _remake_result(cls: Any, values: dict[str, Any]) -> Any:
    """The same of what users do not make."""
    return cls._of(**values)
