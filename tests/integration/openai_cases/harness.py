"""What the cases share: the program as a process, clients that look at what passes, and the list of cases."""

import asyncio
import contextlib
import inspect
import json
import os
import re
import signal
import subprocess
import tempfile
import time

import httpx
import openai

STORY, CODE = "inferneo-story", "inferneo-code"
API_KEY, ADMIN_KEY = "planted-api-key-5f1d", "planted-admin-key-a83c"
QUESTION = [{"role": "user", "content": "Tell me a story about a fox."}]
OPENING = "Once upon a time"
CASE_SECONDS = 60

CASES = []  # (title, function), in the order of definition


def case(function):
    """A function of the Api; its docstring is the law that it proves."""
    CASES.append((inspect.getdoc(function), function))
    return function


def check(condition, what):
    if not condition:
        raise AssertionError(what() if callable(what) else what)


def equal(got, wanted, what=""):
    check(got == wanted, lambda: f"{what}: got {got!r}, wanted {wanted!r}")


def eventually(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < deadline, lambda: f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.01)


@contextlib.contextmanager
def raises(kind, param=None, says=None):
    """The error of the official client's kind, with a request id, and with the parameter at fault."""
    try:
        yield
    except kind as error:
        if isinstance(error, openai.APIStatusError):
            check(error.request_id, f"{error!r} has no request id")
            equal(error.body["request_id"], error.request_id, "request id in header and body")
            check(error.code and error.type and error.body["message"], f"{error!r} lacks code, type or message")
        if param is not None:
            equal(error.param, param, str(error))
        if says is not None:
            check(says in str(error), f"{says!r} is not in {error}")
    else:
        raise AssertionError(f"no {kind.__name__}")


class Server:
    """The program; its log goes to a file, every wait has an end, and it never outlives the test."""

    def __init__(self, binary, arguments):
        self.log_file = tempfile.NamedTemporaryFile("w+", prefix="inferneo-client-", suffix=".log")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("INFERNEO_")}
        self.process = subprocess.Popen([binary, "serve", "--host", "127.0.0.1", "--port", "0", "--registry", "memory", *arguments],
                                        stdin=subprocess.DEVNULL, stdout=self.log_file, stderr=self.log_file,
                                        env=environment)
        self.url = None

    def log(self):
        with open(self.log_file.name, errors="replace") as file:
            return file.read()

    def wait_listening(self, seconds=30):
        def listening():
            check(self.process.poll() is None, lambda: f"the server ended:\n{self.log()}")
            return re.search(r"listening at (http://127\.0\.0\.1:\d+)", self.log())

        eventually(listening, seconds, "the line with the address")
        self.url = listening().group(1)
        return self

    def wait_ready(self, seconds=60):
        self.wait_listening()
        eventually(lambda: self.get("/ready").status_code == 200, seconds, "readiness")
        return self

    def get(self, path, **more):
        with httpx.Client(timeout=10) as http:  # a connection of its own, so that none is left open
            return http.get(self.url + path, **more)

    def gauges(self, name):
        """The values of one metric, over all models."""
        text = self.get("/metrics", headers={"Authorization": f"Bearer {API_KEY}"}).text
        values = [float(value) for value in re.findall(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.M)]
        check(values, lambda: f"no {name} in {text}")
        return values

    def idle(self):
        return not any(self.gauges("vllm:num_requests_running") + self.gauges("vllm:num_requests_waiting") +
                       self.gauges("vllm:kv_cache_usage_perc"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self, seconds=60):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.log_file.close()


class Api:
    """The official clients on one server, and plain HTTP beside them."""

    def __init__(self, server, binary, models):
        self.server, self.binary, self.models = server, binary, models
        self.errors = []  # bodies and header fields of every refused request, to look for secrets in
        self.http = httpx.Client(timeout=30, event_hooks={"response": [self._note]})
        self.client = openai.OpenAI(base_url=server.url + "/v1", api_key=API_KEY, max_retries=0, timeout=30,
                                    http_client=self.http)
        self.chat = self.client.chat.completions
        self.completions = self.client.completions

    def _note(self, response):
        if response.status_code >= 400:
            response.read()
            self.errors.append(str(response.headers) + response.text)

    def with_key(self, key):
        return openai.OpenAI(base_url=self.server.url + "/v1", api_key=key, max_retries=0, timeout=30,
                             http_client=self.http)

    def run(self, work, seconds=CASE_SECONDS):
        """Runs work(async client) to its end; the client's connections end with it."""

        async def main():
            async with openai.AsyncOpenAI(base_url=self.server.url + "/v1", api_key=API_KEY, max_retries=0,
                                          timeout=30) as client:
                return await asyncio.wait_for(work(client), seconds)

        return asyncio.run(main())

    def post(self, path, body, **headers):
        headers = {"Authorization": f"Bearer {API_KEY}", **headers}
        return self.http.post(self.server.url + path, json=body, headers=headers)

    def frames(self, path, body):
        """The raw event stream: each frame is `data: ` and JSON, one line; the last one is [DONE]."""
        response = self.post(path, {**body, "stream": True})
        equal(response.status_code, 200, response.text)
        equal(response.headers["content-type"], "text/event-stream; charset=utf-8")
        pieces = response.content.decode("utf-8", "strict").split("\n\n")
        equal(pieces.pop(), "", "the end of the stream")
        check(all(piece.startswith("data: ") and "\n" not in piece for piece in pieces), pieces)
        equal(pieces.pop(), "data: [DONE]", "the last frame")
        return [json.loads(piece[len("data: "):]) for piece in pieces]

    def close(self):
        self.http.close()


def text_of(reply):
    choice = reply.choices[0]
    return choice.text if hasattr(choice, "text") else choice.message.content
