"""What stands behind the classes when ``url=`` names a running server: the calls of the native objects, over HTTP.

Nothing is decided here: requests become those of docs/admin-api.md and of the OpenAI routes, answers the plain data that
the native objects give, refusals the same exceptions. Streams deliver into the same queues as the engine's threads do.
"""
from __future__ import annotations

import asyncio
import base64
import os
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

from inferneo import _http, _native
from inferneo._native import ModelFormat, ModelInfo, ModelRegistration, SamplingParams
from inferneo.errors import InferneoError, InvalidArgumentError, UnavailableError, UnsupportedError

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine

# Fields that have another name in requests; the others have their own.
_GRAMMARS = {"json_schema": "guided_json", "regex": "guided_regex", "grammar": "guided_grammar", "choices": "guided_choice"}
_HERE_ALONE = ("logprobs", "prompt_logprobs")


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="/:@")


def _header(name: str, value: str) -> str:
    if any(character in value for character in "\r\n\0"):
        raise InvalidArgumentError(f"{name}: may not hold line breaks", name)
    return value.encode().decode("latin-1")


def sampling_fields(params: SamplingParams) -> dict[str, Any]:
    """As /v1/completions reads them. Every field is said, since a server's defaults may be those of the model."""
    if params.prompt_rows != "none":
        raise UnsupportedError("logits and hidden states cannot be had over url=; use an engine of this process",
                               "prompt_rows")
    for name in _HERE_ALONE:
        if getattr(params, name) is not None:
            raise UnsupportedError(f"{name} cannot be had over url=; use an engine of this process", name)
    fields: dict[str, Any] = {}
    for name, _, _ in SamplingParams.__fields__:  # type: ignore[attr-defined]
        value = getattr(params, name)
        if name in _HERE_ALONE or name == "prompt_rows" or value is None:
            continue
        if name == "logit_bias":
            fields[name] = {str(token): bias for token, bias in value}
        elif name == "json_object":
            if value:
                fields["response_format"] = {"type": "json_object"}
        elif name in _GRAMMARS:
            if value:
                fields[_GRAMMARS[name]] = value
        else:
            fields[name] = value
    return fields


def _whose(body: dict[str, Any], model: str, user: str, session: str, headers: dict[str, str] | None,
           forced_arm: str) -> dict[str, str]:
    """Says in the body which model is meant and who asks; the headers that say the rest."""
    if model:
        body["model"] = model
    if user:
        body["user"] = user
    fields = {name: _header(name, value) for name, value in (headers or {}).items()}
    if session:
        fields["X-Session-Id"] = _header("session", session)
    if forced_arm:
        fields["X-Inferneo-Arm"] = _header("forced_arm", forced_arm)
    return fields


class _Teller:
    """What a request has to tell, and that it ends once: by its answer, or by a cancel that came before."""

    def __init__(self, queue: _native.EventQueue, request: int) -> None:
        self.queue = queue
        self.request = request
        self._lock = threading.Lock()
        self._ended = False

    def text(self, sample: int, text: str) -> None:
        if not self._ended:
            self.queue.put_text(self.request, sample, text)

    def result(self, *values: Any) -> None:
        """Raises TypeError where the values are not of their types; the request has not ended then."""
        with self._lock:
            if not self._ended:
                self.queue.put_result(self.request, *values)
                self._ended = True

    def embedding(self, *values: Any) -> None:
        """As result()."""
        with self._lock:
            if not self._ended:
                self.queue.put_embedding(self.request, *values)
                self._ended = True

    def error(self, code: str, message: str, param: str = "", retry_after: int = 0) -> None:
        """Takes whatever a server may have said: somebody waits for this."""
        code, message, param = (text.encode(errors="replace").decode() for text in (code, message, param))
        with self._lock:
            if not self._ended:
                self._ended = True
                self.queue.put_error(self.request, code, message, param, retry_after)


class Ticket:
    """Of a request under way."""

    def __init__(self, future: concurrent.futures.Future[None], teller: _Teller) -> None:
        self._future = future
        self._teller = teller
        self._pid = os.getpid()

    def cancel(self, code: str = "cancelled", why: str = "the request was cancelled") -> None:
        if os.getpid() == self._pid:
            self._future.cancel()
            self._teller.error(code, why)  # it may never have begun


class _Face:
    """What the faces of a server have in common: its address, the requests under way, an end."""

    def __init__(self, address: _http.Address) -> None:
        self.address = address
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._running: dict[concurrent.futures.Future[None], Ticket] = {}
        self._ended = ""

    def begin(self, *_: Any) -> None:
        """Nothing here is done in one native call (python/native/asking.h)."""

    wait_for = begin

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self._require()
        return _http.call(self.address, method, path, body)

    def _require(self) -> None:
        if os.getpid() != self._pid:
            raise UnavailableError("this object was made before the process was forked; make a new one in the child")
        if self._ended:
            raise UnavailableError(self._ended)

    def start(self) -> None:
        """Whether there is a server, and whether it knows the key."""
        with self._lock:
            self._ended = ""
        self.call("GET", "/v1/models")

    def stop(self) -> None:
        """Ends this object's requests; the server and its models go on."""
        self._end("the engine has been stopped; call start() first")

    def end(self) -> None:
        if os.getpid() == self._pid:
            self._end("it has been closed")

    def _end(self, why: str) -> None:
        with self._lock:
            self._ended = why
            running = list(self._running.values())
        for ticket in running:
            ticket.cancel("unavailable", why)

    def ask(self, queue: _native.EventQueue, request: int, prompt: str, sampling: SamplingParams, model: str, stream: bool,
            user: str = "", session: str = "", headers: dict[str, str] | None = None, forced_arm: str = "") -> Ticket:
        """As submit() of a native engine."""
        body: dict[str, Any] = {"prompt": prompt, "stream": True, "stream_options": {"include_usage": True},
                                **sampling_fields(sampling)}
        fields = _whose(body, model, user, session, headers, forced_arm)
        teller = _Teller(queue, request)
        return self._begin(teller, lambda: self._generate(teller, body, fields, stream, sampling.n))

    def embed(self, queue: _native.EventQueue, request: int, texts: list[str], pooling: str, normalize: bool | None, model: str,
              user: str = "", session: str = "", headers: dict[str, str] | None = None, forced_arm: str = "") -> Ticket:
        """As embed() of a native engine."""
        for name, value in (("pooling", pooling or None), ("normalize", normalize)):
            if value is not None:
                raise UnsupportedError(f"{name} cannot be said over url=; use an engine of this process", name)
        body: dict[str, Any] = {"input": texts, "encoding_format": "base64"}
        fields = _whose(body, model, user, session, headers, forced_arm)
        teller = _Teller(queue, request)
        return self._begin(teller, lambda: self._embed(teller, body, fields))

    def _begin(self, teller: _Teller, work: Callable[[], Coroutine[Any, Any, None]]) -> Ticket:
        self._require()
        future = _http.start(work())
        ticket = Ticket(future, teller)
        with self._lock:
            self._running[future] = ticket
        future.add_done_callback(self._forget)
        if self._ended:  # meanwhile
            ticket.cancel("unavailable", self._ended)
        return ticket

    def _forget(self, future: concurrent.futures.Future[None]) -> None:
        with self._lock:
            self._running.pop(future, None)

    async def _generate(self, teller: _Teller, body: dict[str, Any], headers: dict[str, str], stream: bool, n: int) -> None:
        begin = time.perf_counter()
        first = 0.0
        samples = [["", ""] for _ in range(n)]
        answer: dict[str, Any] = {}
        try:
            if "max_tokens" not in body:
                body["max_tokens"] = await self._room(body)
            async for event in _http.events(self.address, "/v1/completions", body, headers):
                for choice in event.get("choices", ()):
                    sample = samples[choice["index"]]
                    if choice.get("text"):
                        first = first or time.perf_counter() - begin
                        sample[0] += choice["text"]
                        if stream:
                            teller.text(choice["index"], choice["text"])
                    sample[1] = choice.get("finish_reason") or sample[1]
                answer.update((key, event[key]) for key in ("model", "usage") if event.get(key))
            usage = answer["usage"]
            teller.result(answer.get("model", ""), [(text, reason) for text, reason in samples], usage["prompt_tokens"],
                          (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0), usage["completion_tokens"],
                          first, time.perf_counter() - begin)
        except InferneoError as error:
            teller.error(error.code, error.message, error.param, error.retry_after)
        except Exception as error:  # whatever it was, somebody waits
            teller.error("unavailable", f"{self.address.shown} does not answer as Inferneo does: {error!r}")

    async def _embed(self, teller: _Teller, body: dict[str, Any], headers: dict[str, str]) -> None:
        try:
            answer = await _http.post(self.address, "/v1/embeddings", body, headers)
            rows = [base64.b64decode(row["embedding"]) for row in sorted(answer["data"], key=lambda row: int(row["index"]))]
            if len(rows) != len(body["input"]) or len(set(map(len, rows))) != 1:
                raise ValueError("another number of vectors than of texts")
            teller.embedding(answer.get("model", ""), b"".join(rows), len(rows[0]) // 4, answer["usage"]["prompt_tokens"])
        except InferneoError as error:
            teller.error(error.code, error.message, error.param, error.retry_after)
        except Exception as error:  # whatever it was, somebody waits
            teller.error("unavailable", f"{self.address.shown} does not answer as Inferneo does: {error!r}")

    async def _room(self, body: dict[str, Any]) -> int:
        """max_tokens=None: up to the end of the context, which the route has no word for."""
        asked = {"prompt": body["prompt"], **({"model": body["model"]} if "model" in body else {})}
        counted = await asyncio.to_thread(_http.call, self.address, "POST", "/tokenize", asked)
        room: int = counted["max_model_len"] - counted["count"]
        return max(1, room)


class Engine(_Face):
    submit = _Face.ask


def _fields_of(value: Any) -> Any:
    """Plain data of the package as JSON has it; the names are the same. What is empty is left out."""
    if hasattr(value, "__fields__"):
        return {name: _fields_of(getattr(value, name)) for name, _, _ in value.__fields__
                if getattr(value, name) not in (None, "", [], {})}
    if isinstance(value, list):
        return [_fields_of(entry) for entry in value]
    return value


def _registration(record: ModelRegistration) -> dict[str, Any]:
    body: dict[str, Any] = _fields_of(record)
    if "path" in body:
        body["source"] = body.pop("path")
    if record.format is not None:
        body["format"] = record.format.name.lower()
    return body


def _test(config: _native.ABTestConfig) -> dict[str, Any]:
    body: dict[str, Any] = _fields_of(config)
    if config.arms:
        for name in ("model_a", "model_b", "traffic_split"):
            body.pop(name, None)
    return body


class EnhancedEngine(_Face):
    submit = _Face.ask

    def register_model(self, record: ModelRegistration) -> str:
        identity: str = self.call("POST", "/admin/models", _registration(record))["id"]
        return identity

    def remove_model(self, model_id: str) -> None:
        self.call("DELETE", f"/admin/models/{_quoted(model_id)}?timeout=30")

    # ---- rules
    def add_routing_rule(self, rule: _native.RoutingRule) -> None:
        self.call("POST", "/admin/routing-rules", _fields_of(rule))

    def replace_routing_rule(self, rule: _native.RoutingRule) -> None:
        self.call("PUT", f"/admin/routing-rules/{_quoted(rule.name)}", _fields_of(rule))

    def remove_routing_rule(self, name: str) -> None:
        self.call("DELETE", f"/admin/routing-rules/{_quoted(name)}")

    def set_routing_options(self, options: _native.RoutingOptions) -> None:
        body: dict[str, Any] = _fields_of(options)
        body["routed_names"] = self.call("GET", "/admin/routing").get("routed_names", [])  # they have no other place
        self.call("PUT", "/admin/routing", body)

    # ---- tests
    def add_ab_test(self, config: _native.ABTestConfig) -> None:
        self.call("POST", "/admin/ab-tests", _test(config))

    def pause_ab_test(self, name: str) -> None:
        self._change_test(name, "pause")

    def resume_ab_test(self, name: str) -> None:
        self._change_test(name, "start")

    def stop_ab_test(self, name: str) -> None:
        self._change_test(name, "stop")

    def _change_test(self, name: str, what: str) -> None:
        self.call("POST", f"/admin/ab-tests/{_quoted(name)}/{what}")

    def remove_ab_test(self, name: str) -> None:
        self.call("DELETE", f"/admin/ab-tests/{_quoted(name)}")

    def promote(self, name: str, arm: str) -> None:
        self.call("POST", f"/admin/ab-tests/{_quoted(name)}/promote", {"arm": arm})

    # ---- shadows
    def add_shadow(self, config: _native.ShadowConfig) -> None:
        self.call("POST", "/admin/shadow", _fields_of(config))

    def replace_shadow(self, config: _native.ShadowConfig) -> None:
        self.call("PUT", f"/admin/shadow/{_quoted(config.name)}", _fields_of(config))

    def remove_shadow(self, name: str) -> None:
        self.call("DELETE", f"/admin/shadow/{_quoted(name)}")

    # ---- looks
    def explain(self, prompt: str, model: str, user: str, session: str, headers: dict[str, str],
                forced_arm: str) -> list[str]:
        asked = {"prompt": prompt, "model": model, "user": user, "session": session, "headers": headers, "arm": forced_arm}
        steps: list[str] = self.call("POST", "/admin/explain", {key: value for key, value in asked.items() if value})["steps"]
        return steps

    def get_stats(self) -> dict[str, Any]:
        stats = self.call("GET", "/stats")
        memory = stats.pop("memory")
        stats["memory_used"], stats["memory_budget"] = memory["used"], memory["budget"]
        stats["model_metrics"] = {model.pop("id"): _metrics(model) for model in stats.pop("models")}
        for test in stats["ab_tests"]:
            for arm in test["arms"]:
                arm["stopped_because"] = arm.pop("stopped") or ""
        for name in ("object", "queue"):
            stats.pop(name, None)
        stats["shadows"] = [_shadow(shadow) for shadow in self.call("GET", "/admin/shadow")["data"]]
        return dict(stats)


def _metrics(model: dict[str, Any]) -> dict[str, Any]:
    """Numbers that there are none of are 0, as in an engine of this process."""
    for name in ("time_to_first_token", "inter_token", "end_to_end"):
        model[name] = {key: value or 0 for key, value in model[name].items()}
    model["mean_time_to_first_token"] = model["time_to_first_token"]["mean"]
    model["load_seconds"] = model["load_seconds"] or 0.0
    return model


def _shadow(shadow: dict[str, Any]) -> dict[str, Any]:
    copies, differences = shadow["copies"], shadow["differences"]
    return {"name": shadow["name"], **{name: copies[name] for name in ("sent", "completed", "dropped", "failed")},
            "same_text": differences["same_text"],
            "tokens_ratio": (differences["completion_tokens"]["ratio"] or {}).get("p50", 0.0),
            "compute_ratio": (differences["computing"]["end_to_end"]["ratio"] or {}).get("p50", 0.0)}


def _info(model: dict[str, Any]) -> ModelInfo:
    kind = model["format"]
    return _native.make_model_info(
        id=model["id"], name=model["name"], version=model["version"], path=model["source"],
        format=None if kind is None else ModelFormat[kind.upper()], state=model["state"],
        failure=(model["failure"] or {}).get("message", ""), active=model["active"], pinned=model["pinned"],
        aliases=model["aliases"], leases=model["leases"], memory_bytes=model["memory_bytes"],
        sleep_bytes=model["sleep_bytes"], load_count=model["load_count"], load_seconds=model["load_seconds"] or 0.0,
        last_used=model["last_used"] or 0)


class Lease(_Face):
    """A model of a server's. Nothing holds it in memory there; it is loaded again when it is asked for."""

    def __init__(self, address: _http.Address, identity: str) -> None:
        super().__init__(address)
        self._id = identity

    def id(self) -> str:
        return self._id

    def submit(self, queue: _native.EventQueue, request: int, prompt: str, sampling: SamplingParams, stream: bool) -> Ticket:
        return self.ask(queue, request, prompt, sampling, self._id, stream)

    def embed(self, queue: _native.EventQueue, request: int, texts: list[str], pooling: str, normalize: bool | None,  # type: ignore[override]
              ) -> Ticket:
        return super().embed(queue, request, texts, pooling, normalize, self._id)


class Manager(_Face):
    def register_model(self, record: ModelRegistration) -> str:
        identity: str = self.call("POST", "/admin/models", _registration(record))["id"]
        return identity

    def remove_model(self, model_id: str, patience: int) -> None:
        self.call("DELETE", f"/admin/models/{_quoted(model_id)}?timeout={patience}")

    def load(self, name: str) -> Lease:
        return Lease(self.address, self.call("POST", f"/admin/models/{_quoted(name)}/load?wait")["id"])

    def unload(self, name: str, patience: int) -> None:
        self.call("POST", f"/admin/models/{_quoted(name)}/unload?timeout={patience}&wait")

    def sleep(self, name: str, patience: int) -> None:
        self.call("POST", f"/admin/models/{_quoted(name)}/sleep?timeout={patience}&wait")

    def wake_up(self, name: str) -> None:
        self.call("POST", f"/admin/models/{_quoted(name)}/wake-up?wait")

    def pin(self, name: str, pinned: bool) -> None:
        self.call("POST", f"/admin/models/{_quoted(name)}/{'pin' if pinned else 'unpin'}")

    def set_keep_alive(self, name: str, seconds: int | None) -> None:
        self.call("PUT", f"/admin/models/{_quoted(name)}/keep-alive", {"keep_alive": seconds})

    def switch_version(self, name: str, version: str) -> None:
        self.call("PUT", f"/admin/models/{_quoted(name)}/active-version?wait", {"version": version})

    def rollback(self, name: str) -> None:
        self.call("PUT", f"/admin/models/{_quoted(name)}/active-version?wait", {"rollback": True})

    def set_alias(self, alias: str, target: str) -> None:
        self.call("PUT", f"/admin/aliases/{_quoted(alias)}", {"target": target})

    def remove_alias(self, alias: str) -> None:
        self.call("DELETE", f"/admin/aliases/{_quoted(alias)}")

    def models(self) -> list[ModelInfo]:
        return [_info(model) for model in self.call("GET", "/admin/models")["data"]]

    def model(self, name: str) -> ModelInfo:
        return _info(self.call("GET", f"/admin/models/{_quoted(name)}"))

    def memory_used(self) -> int:
        used: int = self.call("GET", "/admin/models")["memory"]["used_bytes"]
        return used

    def memory_budget(self) -> int:
        budget: int = self.call("GET", "/admin/models")["memory"]["budget_bytes"]
        return budget
