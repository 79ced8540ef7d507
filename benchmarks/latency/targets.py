"""What a latency benchmark can ask: the library in this process, or any OpenAI-compatible endpoint."""
import asyncio
import json
import ssl
import time
import urllib.parse
from dataclasses import dataclass


@dataclass
class Sample:
    """One request as its client saw it; times in seconds since it was sent."""

    first_token: float
    total: float
    tokens: int
    prompt_tokens: int = 0
    engine: float | None = None  # of the total: from the engine's taking the request to its last token; None: not known

    @property
    def inter_token(self):
        """Mean gap between tokens; None with fewer than two."""
        return (self.total - self.first_token) / (self.tokens - 1) if self.tokens > 1 else None


class LibraryTarget:
    """The engine in this process, through the Python package."""

    def __init__(self, model, settings, stream=True, sync=False):
        from inferneo import EngineConfig, InferneoEngine

        self._stream, self._sync = stream, sync
        self.name = f"library, {model}"
        self._engine = InferneoEngine(EngineConfig(model=model, **settings))

    async def start(self):
        await self._engine.start()

    async def ask(self, prompt, max_tokens):
        if not self._stream:
            begin = time.perf_counter()
            if self._sync:  # as a program without an event loop
                result = self._engine.generate_sync(prompt, max_tokens=max_tokens, temperature=0, ignore_eos=True)
            else:
                result = await self._engine.generate(prompt, max_tokens=max_tokens, temperature=0, ignore_eos=True)
            total = time.perf_counter() - begin
            return Sample(result.time_to_first_token, total, result.completion_tokens, result.prompt_tokens, result.total_time)
        first = None
        begin = time.perf_counter()
        stream = self._engine.generate_stream(prompt, max_tokens=max_tokens, temperature=0, ignore_eos=True)
        async for _ in stream:
            first = first or time.perf_counter() - begin
        total = time.perf_counter() - begin
        result = stream.result
        return Sample(first or total, total, result.completion_tokens, result.prompt_tokens, result.total_time)

    async def stop(self):
        await self._engine.stop()


class EndpointTarget:
    """POST /v1/completions with a stream; one connection for each request, as a first request has it."""

    def __init__(self, url, model, api_key=None):
        parts = urllib.parse.urlsplit(url if "://" in url else "http://" + url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"--url: expected http://HOST[:PORT], got {url!r}")
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/").removesuffix("/v1") + "/v1"
        self._headers = f"Host: {parts.netloc}\r\nConnection: close\r\n"
        if api_key:
            self._headers += f"Authorization: Bearer {api_key}\r\n"
        self._model = model
        self.name = f"{url}, {model or 'its first model'}"

    async def start(self):
        if not self._model:
            body = b"".join([part async for part in self._exchange("GET", "/models", None)])
            self._model = json.loads(body)["data"][0]["id"]
            self.name = self.name.replace("its first model", self._model)

    async def ask(self, prompt, max_tokens):
        request = {"model": self._model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True,
                   "stream_options": {"include_usage": True}, "ignore_eos": True}
        begin = time.perf_counter()
        first = tokens = None
        pieces = prompt_tokens = 0
        rest = b""
        async for part in self._exchange("POST", "/completions", json.dumps(request).encode()):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
                    continue
                event = json.loads(line[5:])
                if "error" in event:
                    raise RuntimeError(event["error"].get("message", str(event["error"])))
                if any(choice.get("text") for choice in event.get("choices", [])):
                    first = first or time.perf_counter() - begin
                    pieces += 1
                if event.get("usage"):
                    tokens = event["usage"]["completion_tokens"]
                    prompt_tokens = event["usage"]["prompt_tokens"]
        total = time.perf_counter() - begin
        return Sample(first or total, total, pieces if tokens is None else tokens, prompt_tokens)

    async def stop(self):
        pass

    async def _exchange(self, method, path, body):
        """The body of the answer, part by part."""
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        try:
            head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._headers}"
            if body is not None:
                head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"\r\n" + (body or b""))
            await writer.drain()
            status = int((await reader.readline()).split()[1])
            headers = {}
            while line := (await reader.readline()).strip():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            parts = _chunks(reader) if "chunked" in headers.get("transfer-encoding", "") else _plain(reader, headers)
            if status != 200:
                text = b"".join([part async for part in parts]).decode(errors="replace")
                raise RuntimeError(f"{self._host}:{self._port} answers {status}: {text[:300]}")
            async for part in parts:
                yield part
        finally:
            writer.close()


async def _plain(reader, headers):
    length = headers.get("content-length")
    yield await (reader.read() if length is None else reader.readexactly(int(length)))


async def _chunks(reader):
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readline()
