"""Many at once, clients that leave, pages of other origins; starting and stopping, with servers of their own."""

import asyncio
import contextlib
import json
import threading

import httpx
import openai

from .harness import (API_KEY, CODE, OPENING, QUESTION, STORY, Server, case, check, equal, eventually, text_of)

LONG = {"model": STORY, "temperature": 0, "max_tokens": 900, "extra_body": {"ignore_eos": True}}


@case
def many_streams(api):
    """32 streams at once, chats and completions of both models, each say what they say alone"""
    asked = []
    for i in range(32):
        model = (STORY, CODE)[i % 2]
        sampled = {"model": model, "temperature": 1, "seed": i, "max_tokens": 24}
        chat = i % 4 < 2
        asked.append(({("messages" if chat else "prompt"): QUESTION if chat else OPENING, **sampled}, chat))
    alone = [text_of((api.chat if chat else api.completions).create(**body)) for body, chat in asked]

    async def one(client, body, chat):
        create = client.chat.completions.create if chat else client.completions.create
        text = ""
        async for chunk in await create(stream=True, **body):
            text += (chunk.choices[0].delta.content if chat else chunk.choices[0].text) or ""
        return text

    async def work(client):
        return await asyncio.gather(*(one(client, body, chat) for body, chat in asked))

    together = api.run(work)
    different = [i for i in range(32) if together[i] != alone[i]]
    equal(different, [], "streams that differ from the same request alone")


@case
def clients_that_leave(api):
    """clients that leave in the middle of a stream free their places and their cache within a second"""
    with contextlib.ExitStack() as streams:
        for i in range(4):
            stream = streams.enter_context(api.chat.create(messages=QUESTION, stream=True, n=2, **LONG))
            next(iter(stream))
        check(sum(api.server.gauges("vllm:num_requests_running")) > 0, "nothing runs")
        check(sum(api.server.gauges("vllm:kv_cache_usage_perc")) > 0, "nothing is cached")
    eventually(api.server.idle, 1, "idle after the clients left")


@case
def clients_that_leave_unanswered(api):
    """a client that leaves before its answer, which is not streamed, is noticed too"""
    with contextlib.suppress(openai.APITimeoutError):
        api.completions.create(prompt=[OPENING] * 8, n=16, timeout=0.3, **LONG)
        raise AssertionError("answered before the client left")
    eventually(api.server.idle, 1, "idle after the client left")


@case
def other_origins(api):
    """pages of a listed origin may call the API, and only those"""
    page = "https://page.example"
    server = Server(api.binary, [api.models[0], "--api-key", API_KEY, "--allowed-origins", page])
    try:
        server.wait_ready()
        with httpx.Client(timeout=10, base_url=server.url) as http:
            ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
            allowed = http.options("/v1/chat/completions", headers={"Origin": page, **ask})
            equal((allowed.status_code, allowed.headers["access-control-allow-origin"]), (204, page))
            refused = http.options("/v1/chat/completions", headers={"Origin": "https://other.example", **ask})
            equal((refused.status_code, refused.headers.get("access-control-allow-origin")), (401, None))
            with http.stream("POST", "/v1/completions", json={"prompt": OPENING, "stream": True},
                             headers={"Origin": page, "Authorization": f"Bearer {API_KEY}"}) as stream:
                equal((stream.status_code, stream.headers["access-control-allow-origin"]), (200, page))
                check(stream.read().endswith(b"data: [DONE]\n\n"), "the end of the stream")
        equal(server.stop(), 0, "exit code")
    finally:
        server.kill()


@case
def while_loading(api):
    """while models are loaded /health says 200, /ready 503 with the reason, and the API 503 with Retry-After"""
    names = [f"story-{i}" for i in range(60)]  # the bundled models load in no time: many of them
    arguments = [api.models[0]] * len(names) + ["--api-key", API_KEY, "--num-threads", "1", "--kv-cache-gb", "0.5"]
    for name in names:
        arguments += ["--served-model-name", name]
    server = Server(api.binary, arguments)
    try:
        server.wait_listening()
        key = {"Authorization": f"Bearer {API_KEY}"}
        with httpx.Client(timeout=10, base_url=server.url) as http:
            ready = http.get("/ready")
            chat = http.post("/v1/chat/completions", json={"messages": QUESTION}, headers=key)
            health, keyless = http.get("/health"), http.get("/v1/models")
            metrics = http.get("/metrics", headers=key)
            equal((health.status_code, ready.status_code, chat.status_code), (200, 503, 503))
            equal((keyless.status_code, metrics.status_code), (401, 200))
            check("loading story-" in ready.json()["error"]["message"], ready.text)
            equal((chat.headers["retry-after"], chat.json()["error"]["code"]), ("1", "unavailable"))
            equal(chat.json()["error"]["request_id"], chat.headers["x-request-id"])
        # The official client waits as it is told to, and is answered in the end.
        with openai.OpenAI(base_url=server.url + "/v1", api_key=API_KEY, max_retries=60, timeout=30) as client:
            check(text_of(client.chat.completions.create(model=names[-1], messages=QUESTION, max_tokens=2)), "no text")
        equal(server.get("/ready").status_code, 200)
        equal(server.stop(), 0, "exit code")
    finally:
        server.kill()


@case
def failing_starts(api):
    """a load that fails ends the program with 1 and its reason, also when it was listening; so does a bad setting"""
    for arguments, reason, listened in (([api.models[0], "./absent"], "absent", True),
                                        ([api.models[0], "--port", "99999"], "port", False),
                                        ([api.models[0], "--host", "0.0.0.0"], "--insecure", False),
                                        ([api.models[0], "--device", "cuda"], "cuda", False)):
        server = Server(api.binary, arguments)
        try:
            check(server.process.wait(30) in (1, 2), server.log)
            check(reason in server.log(), server.log)
            equal("listening at" in server.log(), listened, server.log())
        finally:
            server.kill()


def drains(api):
    """SIGTERM lets a running stream come to its end, refuses new connections, and the program ends with 0"""
    frames, begun = [], threading.Event()

    def read():
        body = {"model": STORY, "messages": QUESTION, "max_tokens": 900, "ignore_eos": True, "stream": True, "n": 8}
        with httpx.Client(timeout=60) as http, http.stream(
                "POST", api.server.url + "/v1/chat/completions", json=body,
                headers={"Authorization": f"Bearer {API_KEY}"}) as response:
            for line in response.iter_lines():
                if line:
                    frames.append(line)
                    begun.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    check(begun.wait(30), "no first chunk")
    check(frames[-1] != "data: [DONE]", "the stream ended too early to be drained")
    code = api.server.stop()
    reader.join(30)
    check(not reader.is_alive(), "the stream did not end")
    equal(code, 0, "exit code")
    equal(frames[-1], "data: [DONE]", "the last frame")
    choices = [json.loads(frame[len("data: "):])["choices"][0] for frame in frames[:-1]]
    equal([c["finish_reason"] for c in choices if c["finish_reason"]], ["length"] * 8, "the stream's own end")
    try:
        api.server.get("/health")
    except httpx.ConnectError:
        return
    raise AssertionError("it still answers")
