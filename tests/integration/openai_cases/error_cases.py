"""What is refused, and how; models, tokens and what the wire looks like."""

import email.utils
import json
import time

import httpx
import openai

from .harness import ADMIN_KEY, API_KEY, CODE, OPENING, QUESTION, STORY, case, check, equal, raises

ASK = {"model": STORY, "messages": QUESTION, "max_tokens": 4}


@case
def keys(api):
    """a missing, wrong or admin key is an AuthenticationError on every API route; operators' routes are open"""
    for key in ("wrong", API_KEY.upper(), API_KEY + "x", ADMIN_KEY):
        with raises(openai.AuthenticationError):
            api.with_key(key).chat.completions.create(**ASK)
        with raises(openai.AuthenticationError):
            api.with_key(key).models.list()
    for method, path in (("GET", "/v1/models"), ("POST", "/tokenize"), ("POST", "/v1/embeddings"), ("GET", "/nowhere"),
                         ("OPTIONS", "/v1/models"), ("HEAD", "/v1/models")):
        response = api.http.request(method, api.server.url + path)
        equal((response.status_code, response.headers["www-authenticate"]), (401, "Bearer"), path)
    for path in ("/health", "/ready", "/version"):
        equal(api.http.get(api.server.url + path).status_code, 200, path)


@case
def unknown_models(api):
    """an unknown model is a NotFoundError that names the known ones, in chat, completions, models and tokenize"""
    with raises(openai.NotFoundError, param="model", says=STORY):
        api.chat.create(**{**ASK, "model": "absent"})
    with raises(openai.NotFoundError, param="model"):
        api.completions.create(model="absent", prompt="x", stream=True)
    with raises(openai.NotFoundError, param="model"):
        api.client.models.retrieve("absent")
    equal(api.post("/tokenize", {"model": "absent", "prompt": "x"}).status_code, 404)


@case
def models(api):
    """the models are listed, and each is found by its name"""
    listed = list(api.client.models.list())
    equal([(m.id, m.object, m.owned_by) for m in listed], [(m, "model", "inferneo") for m in (STORY, CODE)])
    one = api.client.models.retrieve(STORY)
    equal((one.id, one.max_model_len, one.state), (STORY, 1024, "ready"))
    check(one.created > 1_600_000_000, one)


@case
def bad_values(api):
    """a bad value is a BadRequestError that names its field"""
    rows = {"temperature": 3, "top_p": 0, "n": 0, "max_tokens": -1, "presence_penalty": 9, "logit_bias": {"x": 1},
            "stop": [""], "top_logprobs": 21, "seed": "x", "stream_options": {"include_usage": True},
            "response_format": {"type": "xml"}, "zebra": 1}
    for field, value in rows.items():
        param = "response_format.type" if field == "response_format" else field
        with raises(openai.BadRequestError, param=param, says=field):
            api.client.post("/chat/completions", body={**ASK, "logprobs": True, field: value}, cast_to=object)
    with raises(openai.BadRequestError, param="n"):
        api.completions.create(model=STORY, prompt="x", n=17)
    with raises(openai.BadRequestError, param="messages"):
        api.chat.create(model=STORY, messages=[])
    with raises(openai.BadRequestError, param="prompt"):
        api.client.post("/completions", body={"model": STORY}, cast_to=object)
    with raises(openai.BadRequestError, param="max_tokens"):
        api.completions.create(model=STORY, prompt="x", max_tokens=0)
    for bias in ({"1000000": 1}, {str(2**31): 1}):
        with raises(openai.BadRequestError, param="logit_bias"):
            api.completions.create(model=STORY, prompt="x", logit_bias=bias)
    with raises(openai.BadRequestError, param="prompt"):
        api.completions.create(model=STORY, prompt=[1, 2, 1_000_000])


@case
def too_long(api):
    """more than the context is a BadRequestError with OpenAI's code, streamed or not"""
    long = "fox " * 3000
    for stream in (False, True):
        for create, prompt, param in ((api.chat.create, {"messages": [{"role": "user", "content": long}]}, "messages"),
                                      (api.completions.create, {"prompt": long}, "prompt")):
            with raises(openai.BadRequestError, param=param, says="1024"):
                create(model=STORY, max_tokens=4, stream=stream, **prompt)
    response = api.post("/v1/chat/completions", {**ASK, "max_tokens": 5000})
    equal((response.status_code, response.json()["error"]["code"]), (400, "context_length_exceeded"))


@case
def not_there_yet(api):
    """responses answer 501 by name, once: the client does not try again"""
    before = len(api.errors)
    with raises(openai.InternalServerError, says="responses"):
        api.client.with_options(max_retries=2).responses.create(model=STORY, input="x")
    equal(len(api.errors) - before, 1, "tries")
    equal(json.loads(api.errors[-1][api.errors[-1].index('{"error"'):])["error"]["code"], "unsupported")


@case
def hostile_http(api):
    """broken JSON, other media, other methods and long bodies have OpenAI's error shape and a request id"""
    url, key = api.server.url, {"Authorization": f"Bearer {API_KEY}"}

    def send(content, media="application/json"):
        return api.http.post(url + "/v1/completions", content=content, headers={**key, "Content-Type": media})

    rows = [
        (400, send(b"{")),
        (400, send(b"[1]")),
        (400, send(b'{"prompt": "\xff"}')),
        (415, send(b"{}", "text/plain")),
        (413, send(b" " * (9 << 20))),
        (405, api.http.get(url + "/v1/completions", headers=key)),
        (404, api.http.get(url + "/v1/zebra", headers=key)),
        (403, api.http.get(url + "/v1/models", headers={**key, "Origin": "https://page.example"})),
        (403, api.http.get(url + "/v1/models", headers={**key, "Host": "page.example"})),
    ]
    for status, response in rows:
        equal(response.status_code, status, response.text)
        error = response.json()["error"]
        equal(sorted(error), ["code", "message", "param", "request_id", "type"], "fields of an error")
        equal(error["request_id"], response.headers["x-request-id"])
        date = email.utils.parsedate_to_datetime(response.headers["date"])
        check(abs(date.timestamp() - time.time()) < 60, response.headers)
    body = {"model": STORY, "prompt": "x", "max_tokens": 1}
    response = api.post("/v1/completions", body, **{"x-request-id": "mine-1"})
    equal((response.headers["x-request-id"], response.json()["id"]), ("mine-1", "cmpl-mine-1"))


@case
def tokens(api):
    """/tokenize and /detokenize bring every text back; a chat's tokens are as many as it is charged for"""
    for text in (OPENING, "äöü \u2603 \U0001f98a\n\tend", "", "<|im_end|>", " " * 40):
        reply = api.post("/tokenize", {"model": STORY, "prompt": text, "return_token_strs": True}).json()
        equal((reply["count"], reply["max_model_len"]), (len(reply["tokens"]), 1024))
        equal(len(reply["token_strs"]), reply["count"])
        equal(api.post("/detokenize", {"model": STORY, "tokens": reply["tokens"]}).json(), {"prompt": text})
    counted = api.post("/tokenize", {"model": STORY, "messages": QUESTION}).json()["count"]
    equal(counted, api.chat.create(**ASK).usage.prompt_tokens, "tokens of a chat")


def check_chunks(frames, kind, with_usage):
    equal({frame["object"] for frame in frames}, {kind})
    equal(len({(frame["id"], frame["created"], frame["model"]) for frame in frames}), 1, "id, created, model")
    body = frames[:-1] if with_usage else frames
    for frame in body:
        equal("usage" in frame and frame["usage"] is None, with_usage, "usage of a chunk before the last")
        choice = frame["choices"][0]
        check("finish_reason" in choice and "logprobs" in choice and "index" in choice, choice)
    check(all(frame["choices"][0]["finish_reason"] is None for frame in body[:-1]), "an early finish_reason")
    check(body[-1]["choices"][0]["finish_reason"] == "length", body[-1])
    if with_usage:
        equal(frames[-1]["choices"], [])
        check(frames[-1]["usage"]["total_tokens"] > 0, frames[-1])


@case
def wire_format(api):
    """every frame of a stream is one line of valid UTF-8 JSON with the fields of OpenAI's chunks, then [DONE]"""
    sampled = {"temperature": 2, "ignore_eos": True}
    for options in ({}, {"stream_options": {"include_usage": True}}):
        chat = api.frames("/v1/chat/completions", {**ASK, "max_tokens": 20, **sampled, **options})
        check_chunks(chat, "chat.completion.chunk", bool(options))
        equal(chat[0]["choices"][0]["delta"], {"role": "assistant", "content": ""}, "the first chunk")
        equal(chat[-2 if options else -1]["choices"][0]["delta"], {}, "the last chunk")
        ask = {"model": STORY, "prompt": OPENING, "max_tokens": 20}
        text = api.frames("/v1/completions", {**ask, **sampled, **options})
        check_chunks(text, "text_completion", bool(options))
    options = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    for path, ask in (("/v1/chat/completions", ASK), ("/v1/completions", {**ask, "max_tokens": 4})):
        counts = [frame["usage"]["completion_tokens"] for frame in api.frames(path, {**ask, **sampled, **options})]
        equal((counts, counts[-1]), (sorted(counts), 4), "tokens so far")
    many = api.frames("/v1/chat/completions", {**ASK, "n": 3, "logprobs": True, "top_logprobs": 3, "temperature": 2})
    equal({frame["choices"][0]["index"] for frame in many}, {0, 1, 2})


@case
def http10(api):
    """a client without keep-alive is served, and HEAD has no body"""
    with httpx.Client(headers={"Connection": "close"}, timeout=10) as http:
        equal(http.get(api.server.url + "/health").json(), {"status": "ok"})
    head = api.http.head(api.server.url + "/health")
    equal((head.status_code, head.content), (200, b""))
    check(int(head.headers["content-length"]) > 0, head.headers)
