"""HTTP/1.1 to a running server, with the standard library alone: single calls, and streams of server-sent events.

Calls block their thread. Streams run on one event loop of this module's own, in a thread of its own, so that thousands
of them need no threads and serve callers with and without a loop alike. One connection for each request.
"""
from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import ssl
import threading
import urllib.parse
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

from inferneo.errors import InferneoError, InvalidArgumentError, UnavailableError, from_code

if TYPE_CHECKING:
    import concurrent.futures

_LONGEST_HEADERS = 256 * 1024
_LONGEST_WAIT = 24 * 3600  # seconds that a server may ask for


class Address:
    """Where a server is, and the key that it wants."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        got = "one with a user's name; give api_key" if "@" in str(url) else repr(url)  # a password is not repeated
        wrong = InvalidArgumentError(f"url: expected http://HOST[:PORT], got {got}", "url")
        # Other alphabets, blanks and line ends have no place in the head of a request as they are.
        if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
            raise wrong
        try:
            parts = urllib.parse.urlsplit(url if "://" in url else "http://" + url)
            port = parts.port
        except ValueError:  # brackets without an IPv6 address between them; a port that is none
            raise wrong from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.query:
            raise wrong
        if api_key is not None and not (isinstance(api_key, str) and api_key.isprintable() and api_key.isascii()):
            raise InvalidArgumentError("api_key: expected printable ASCII", "api_key")
        self.host: str = parts.hostname
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.port: int = port or (443 if self.tls else 80)
        self.base = parts.path.rstrip("/").removesuffix("/v1")
        shown = f"[{self.host}]" if ":" in self.host else self.host
        self.shown = f"{parts.scheme}://{shown}:{self.port}{self.base}"
        self.headers = {"Host": f"{shown}:{self.port}", "Connection": "close", "Accept-Encoding": "identity"}
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"

    def unreachable(self, error: BaseException) -> InferneoError:
        return UnavailableError(f"{self.shown} cannot be asked: {error or type(error).__name__}")


def _refusal(address: Address, status: int, body: bytes, retry_after: str | None) -> InferneoError:
    """An answer that is no success, as the exception that the engine itself would have raised."""
    try:
        error = json.loads(body)["error"]
        code, message, param = error.get("code") or "", error["message"], error.get("param") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        code, message, param = "", f"{address.shown} answers {status}: {body[:200].decode(errors='replace')}", ""
    if not isinstance(code, str) or not code:
        code = {401: "invalid_api_key", 403: "forbidden", 404: "not_found", 429: "queue_full",
                503: "unavailable"}.get(status, "internal_error")
    wait = 0
    if retry_after is not None and retry_after.isascii() and retry_after.isdecimal():
        wait = min(int(retry_after[:9]), _LONGEST_WAIT)
    return from_code(code, str(message), str(param), wait)


def call(address: Address, method: str, path: str, body: Any = None, timeout: float | None = None) -> Any:
    """One request with JSON in and JSON out. Blocks, with the interpreter released.

    Raises: what the server refuses, as its exception; UnavailableError: it cannot be reached.
    """
    kind = http.client.HTTPSConnection if address.tls else http.client.HTTPConnection
    options: dict[str, Any] = {"context": address.tls} if address.tls else {}
    connection = kind(address.host, address.port, timeout=timeout, **options)
    headers = dict(address.headers)
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, address.base + path, data, headers)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException, UnicodeError) as error:  # the last: no name of a host
        raise address.unreachable(error) from error
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        raise _refusal(address, answer.status, content, answer.getheader("Retry-After"))
    try:
        return json.loads(content) if content else None
    except ValueError as error:
        raise UnavailableError(f"{address.shown} does not answer as Inferneo does: {error}") from error


@contextlib.asynccontextmanager
async def _posted(address: Address, path: str, body: Any, headers: dict[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
    """The parts of the answer's body. Whatever goes wrong meanwhile is raised as call() does; leaving closes the connection."""
    try:
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=address.tls, limit=_LONGEST_HEADERS)
    except (OSError, UnicodeError) as error:
        raise address.unreachable(error) from error
    try:
        writer.write(_head(address, path, body, headers))
        await writer.drain()
        status, fields = await _answer(reader)
        parts = _chunks(reader) if "chunked" in fields.get("transfer-encoding", "") else _rest(reader, fields)
        if status != 200:
            content = b"".join([part async for part in parts])
            raise _refusal(address, status, content, fields.get("retry-after"))
        yield parts
    except (OSError, EOFError, ValueError, IndexError) as error:
        if isinstance(error, InferneoError):
            raise
        raise address.unreachable(error) from error
    finally:
        writer.close()


async def events(address: Address, path: str, body: Any, headers: dict[str, str]) -> AsyncIterator[Any]:
    """The JSON of each server-sent event of the answer to a POST. Raises as call(); an error event as its exception."""
    async with _posted(address, path, body, headers) as parts:
        line = b""
        async for part in parts:
            *lines, line = (line + part).split(b"\n")
            for event in lines:
                if event.startswith(b"data:") and event[5:].strip() != b"[DONE]":
                    yield _event(address, json.loads(event[5:]))


async def post(address: Address, path: str, body: Any, headers: dict[str, str]) -> Any:
    """As call(), without a thread that waits; cancelling it closes the connection, so that the server's work ends, too."""
    async with _posted(address, path, body, headers) as parts:
        return json.loads(b"".join([part async for part in parts]))


def _event(address: Address, event: Any) -> Any:
    if isinstance(event, dict) and "error" in event:
        raise _refusal(address, 500, json.dumps(event).encode(), None)
    return event


def _head(address: Address, path: str, body: Any, headers: dict[str, str]) -> bytes:
    data = json.dumps(body).encode()
    fields = {**address.headers, "Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
    lines = [f"POST {address.base}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    status = int((await reader.readline()).split()[1])
    fields: dict[str, str] = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.lower()] = value.strip()
    return status, fields


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readline()


async def _rest(reader: asyncio.StreamReader, fields: dict[str, str]) -> AsyncIterator[bytes]:
    length = fields.get("content-length")
    yield await (reader.read() if length is None else reader.readexactly(int(length)))


# ---- the loop that streams run on
class _Loop:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="inferneo-http", daemon=True).start()


_lock = threading.Lock()
_running: _Loop | None = None


def start(work: Coroutine[Any, Any, None]) -> concurrent.futures.Future[None]:
    """Runs it on the module's loop; cancelling the future cancels it there."""
    global _running
    with _lock:
        if _running is None:
            _running = _Loop()
    return asyncio.run_coroutine_threadsafe(work, _running.loop)


def _after_fork() -> None:  # the thread is not here, and its lock may be held for ever
    global _running, _lock
    _running = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
