"""What clients send stays theirs: planted words in everything that a request can hold, then a search of everything else.

The real program at its most verbose log level, with keys, rules and an A/B test. Each word ("canary") is sent in one
place: prompts, messages, tools, users, sessions, headers, keys, stop strings, broken bodies, paths, queries. Then it may
stand in no log line, metric, statistic, event, operators' list, file, trace, nor answer to anybody else. Exceptions:
  - the answer to the request itself may quote its own field (it is not searched, but for keys);
  - a client's x-request-id, which is there to be found in the log and in traces, may stand in both;
  - a client's tracestate, which is there to be handed on, may stand in traces;
  - the operator's own words (names of rules and tests, conditions, paths of models) may stand in operators' answers and
    in what the program says when it does not start.
One line per check; the last line is "N passed, N failed". Needs loopback and Python's own library, nothing else.
Usage: canary.py --binary build/dev/inferneo --model models/inferneo-story
"""

import argparse
import http.client
import http.server
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

STORY, CODE = "inferneo-story", "inferneo-code"
RUN = secrets.token_hex(4)
JSON_TYPE = {"Content-Type": "application/json"}


class Canaries:
    """Every planted word, by where it was put."""

    def __init__(self):
        self.words = {}

    def plant(self, place):
        word = f"Kanari{len(self.words):03d}x{RUN}"  # letters and digits: no escaping changes it
        self.words[word] = place
        return word

    def found_in(self, data, but=()):
        text = data.lower() if isinstance(data, bytes) else data.encode("utf-8", "replace").lower()
        return sorted(place for word, place in self.words.items()
                      if place not in but and word.lower().encode() in text)


CANARIES = Canaries()
plant = CANARIES.plant
API_KEY, ADMIN_KEY, COLLECTOR_KEY = plant("the api key"), plant("the admin key"), plant("the collector's key")
REQUEST_ID, TRACE_STATE = "x-request-id", "the tracestate of a traced request"

CONFIG = """
api_key: [{api}]
admin_key: [{admin}]
log_level: debug
otlp_endpoint: {collector}
otlp_headers: ["authorization=Bearer%20{collector_key}"]
routing_rules:
  - {{name: by-text, condition: "prompt contains 'quicksand' or conversation contains 'quicksand'", model_name: inferneo-code, priority: 9}}
  - {{name: by-header, condition: "header['x-tier'] == 'gold' or user == 'nobody'", model_name: inferneo-code}}
  - {{name: by-pattern, condition: "prompt matches /hourglass+/i", refusal: {{status: 400, message: Not here.}}}}
ab_tests:
  - {{name: split, model_a: inferneo-story, model_b: inferneo-code, traffic_split: 0.5, sticky_by: user}}
"""


class Collector:
    """Takes the traces, and keeps what it was sent."""

    def __init__(self):
        self.bodies, self.heads = [], []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # the name is the library's
                collector.heads.append((self.path, str(self.headers)))
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self):
        return [span for body in self.bodies for resource in json.loads(body)["resourceSpans"]
                for scope in resource["scopeSpans"] for span in scope["spans"]]

    def end(self):
        self.server.shutdown()
        self.server.server_close()


def config_for(collector):
    return CONFIG.format(api=API_KEY, admin=ADMIN_KEY, collector=collector, collector_key=COLLECTOR_KEY)


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


class Server:
    """The program with a home of its own; its log goes to a file."""

    def __init__(self, binary, models, folder, config):
        self.log_path = os.path.join(folder, "log")
        self.log_file = open(self.log_path, "wb")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("INFERNEO_", "OTEL_"))}
        self.home = os.path.join(folder, "home")
        arguments = ["--config", write(os.path.join(folder, "inferneo.yaml"), config), "--home", self.home]
        self.process = subprocess.Popen([binary, "serve", *models, "--host", "127.0.0.1", "--port", "0", *arguments],
                                        stdin=subprocess.DEVNULL, stdout=self.log_file, stderr=self.log_file,
                                        env=environment, cwd=folder)
        self.port = 0

    def log(self):
        with open(self.log_path, "rb") as file:
            return file.read()

    def wait_ready(self, seconds=90):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended: {self.log().decode(errors='replace')}")
            listening = re.search(rb"listening at http://127\.0\.0\.1:(\d+)", self.log())
            if listening:
                self.port = int(listening.group(1))
                if self.ask("GET", "/ready")[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("not ready in time")

    def ask(self, method, path, body=None, headers=None, seconds=60):
        """(status, header lines and body)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            payload = json.dumps(body) if isinstance(body, (dict, list)) else body
            connection.request(method, path, payload, headers or {})
            response = connection.getresponse()
            return response.status, str(response.headers).encode() + response.read()
        finally:
            connection.close()

    def raw(self, data, seconds=10):
        """Whatever comes back for these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), seconds) as peer:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            said = b""
            try:
                while piece := peer.recv(65536):
                    said += piece
            except OSError:
                pass
            return said

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.log_file.close()
        return self.process.returncode


def key(word=API_KEY):
    return {"Authorization": f"Bearer {word}", **JSON_TYPE}


def completions():
    """(path, body, status) of requests in /v1/completions; status None: any that is no error of the server"""
    base = {"model": STORY, "max_tokens": 4, "prompt": "Once"}
    ask = "/v1/completions"
    yield ask, {**base, "prompt": f"A fox named {plant('a prompt')}"}, 200
    yield ask, {**base, "prompt": [f"{plant('one prompt of several')}", "two"]}, 200
    yield ask, {**base, "prompt": f"the quicksand {plant('a prompt that a rule matches')}", "model": "auto"}, 200
    yield ask, {**base, "prompt": f"hourglasss {plant('a prompt that a rule refuses')}", "model": "auto"}, 400
    yield ask, {**base, "prompt": f"{plant('a prompt that is echoed')}", "echo": True, "logprobs": 1}, 200
    yield ask, {**base, "suffix": plant("a suffix")}, None
    yield ask, {**base, "stop": [plant("a stop string"), "\n\n"]}, 200
    yield ask, {**base, "stop": [plant("one of too many stop strings")] * 40}, 400
    yield ask, {**base, "user": plant("a user")}, 200
    yield ask, {**base, "user": plant("a user of a streamed request"), "stream": True}, 200
    yield ask, {**base, "cache_salt": plant("a cache salt")}, 200
    yield ask, {**base, "metadata": {plant("a metadata key"): plant("a metadata value")}}, None
    yield ask, {**base, plant("an unknown field"): 1}, None
    yield ask, {**base, "temperature": plant("text for a number")}, 400
    yield ask, {**base, "model": plant("an unknown model")}, 404
    yield ask, {**base, "model": f"{STORY}:{plant('an unknown version')}"}, 404
    yield ask, {**base, "logit_bias": {plant("a token to be biased"): 1}}, 400
    yield ask, {**base, "guided_regex": f"(unclosed {plant('a bad pattern')}"}, None
    yield ask, {**base, "guided_grammar": f"start: {plant('a bad grammar')} ((("}, None
    yield ask, {**base, "keep_alive": plant("a bad duration")}, 400
    yield ask, {**base, "prompt": (plant("a prompt that is too long") + " ") * 4000}, 400
    yield "/tokenize", {"model": STORY, "prompt": plant("text to tokenize")}, 200
    yield "/tokenize", {"model": plant("a model to tokenize with"), "prompt": "x"}, 404
    yield "/detokenize", {"model": STORY, "tokens": [plant("a token to detokenize")]}, 400


def chats():
    base = {"model": STORY, "max_tokens": 4}
    ask = "/v1/chat/completions"
    user = {"role": "user", "content": "Hello"}
    for role in ("system", "user", "assistant"):
        yield ask, {**base, "messages": [{"role": role, "content": plant(f"a message of the {role}")}, user]}, None
    yield ask, {**base, "messages": [{**user, "name": plant("a speaker's name")}]}, None
    yield ask, {**base, "messages": [{"role": plant("an unknown role"), "content": "x"}]}, 400
    yield ask, {**base, "messages": [{"role": "user", "content": [{"type": "text", "text": plant("a part")}]}]}, None
    yield ask, {**base, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {
        "url": f"https://example.invalid/{plant('an address of an image')}"}}]}]}, 400
    yield ask, {**base, "messages": [{"role": "user", "content": f"quicksand {plant('a chat that a rule matches')}"}],
                "model": "auto"}, 200
    call = {"id": plant("a call's id"), "type": "function",
            "function": {"name": "look", "arguments": json.dumps({"at": plant("a call's argument")})}}
    tool = {"type": "function", "function": {
        "name": "look", "description": plant("a tool's description"),
        "parameters": {"type": "object", "properties": {"at": {"type": "string", "enum": [plant("a tool's enum")]}}}}}
    history = [user, {"role": "assistant", "content": None, "tool_calls": [call]},
               {"role": "tool", "tool_call_id": call["id"], "content": plant("a tool's answer")}]
    yield ask, {**base, "messages": history, "tools": [tool]}, None
    yield ask, {**base, "messages": [user], "tools": [{**tool, "function": {"name": plant("a tool's name")}}]}, None
    yield ask, {**base, "messages": [user], "tool_choice": {"type": "function", "function": {
        "name": plant("a tool that is not there")}}}, 400
    yield ask, {**base, "messages": [user], "response_format": {"type": "json_schema", "json_schema": {
        "name": "n", "schema": {"type": "object", "properties": {plant("a schema's property"): {"type": "string"}}}}}}, None
    yield ask, {**base, "messages": [user], "response_format": {"type": "json_schema", "json_schema": {
        "name": "n", "schema": {"type": plant("a bad schema")}}}}, 400
    yield ask, {**base, "messages": [user], "response_format": {"type": plant("an unknown format")}}, 400
    yield ask, {**base, "messages": [{**user, "content": plant("a streamed chat")}], "stream": True,
                "user": plant("a chat's user")}, 200


def heads():
    """(method, path, headers, body) of requests whose canary is in their head"""
    body = {"model": "auto", "prompt": "Once", "max_tokens": 2}
    ask = "/v1/completions"
    for name in ("X-Session-Id", "X-Request-Key", "X-Inferneo-Arm", "X-Tier", "X-Custom", "User-Agent", "Cookie",
                 "Referer", "X-Forwarded-For", "X-Api-Key", "OpenAI-Organization", "Accept-Language", "traceparent"):
        yield "POST", ask, {**key(), name: plant(f"the header {name}")}, body
    yield "POST", ask, {**key(), "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01",
                        "tracestate": f"vendor={plant(TRACE_STATE)}"}, body
    yield "POST", ask, {**key(), "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00-{plant('a traceparent that is none')}",
                        "tracestate": f"vendor={plant('a tracestate of no trace')}"}, body
    yield "POST", ask, {**key(), plant("a header's name"): "x"}, body
    yield "POST", ask, {**key(), "X-Request-Id": plant(REQUEST_ID)}, body
    yield "POST", ask, {**key(), "X-Request-Id": plant("a bad x-request-id") + " \t/"}, body
    for scheme in ("Bearer", "Basic", "Token", "bearer"):
        yield "POST", ask, {**JSON_TYPE, "Authorization": f"{scheme} {plant(f'a wrong key as {scheme}')}"}, body
    yield "POST", ask, {**JSON_TYPE, "Authorization": plant("a key without a scheme")}, body
    yield "GET", "/admin/models", {"Authorization": f"Bearer {plant('a wrong admin key')}"}, None
    yield "GET", "/admin/events", {"Authorization": f"Bearer {API_KEY}"}, None
    yield "POST", ask, {**key(), "Origin": f"https://{plant('an origin')}.example"}, body
    yield "POST", ask, {**key(), "Host": f"{plant('a host')}.example"}, body
    yield "POST", ask, {**key(), "Content-Type": f"text/{plant('a content type')}"}, body
    yield "OPTIONS", ask, {"Origin": f"https://{plant('a preflight origin')}.example",
                           "Access-Control-Request-Method": "POST"}, None
    yield "POST", f"{ask}?api_key={plant('a query')}", key(), body
    yield "GET", f"/v1/{plant('a path')}", key(), None
    yield "GET", f"/{plant('a path without a key')}", {}, None
    yield "GET", f"/v1/models/{plant('the name of a model in a path')}", key(), None
    yield "GET", f"/stats?{plant('a query of statistics')}=1", key(), None
    yield "GET", f"/metrics?{plant('a query of metrics')}=1", key(), None
    yield "DELETE", f"/admin/models/{plant('a model to be removed')}", key(API_KEY), None
    yield "POST", f"/admin/{plant('a path of operators')}", key(ADMIN_KEY), {}
    yield plant("a method").upper(), "/v1/models", key(), None
    for text in (f'{{"model": "{STORY}", "prompt": {plant("a body that is no JSON")}', plant("a body of one word"),
                 f'{{"prompt": "{plant("a body that ends early")}', f'["{plant("a body that is a list")}"]',
                 "[" * 2000 + plant("a body that is too deep")):
        yield "POST", ask, key(), text
    yield "POST", "/admin/models", key(ADMIN_KEY), f'{{"name": {plant("a broken body of operators")}}}'
    facts = {"prompt": plant("a prompt to explain"), "user": plant("a user to explain"), "session": plant("a session to explain"),
             "headers": {"x-tier": plant("a header to explain")}, "model": "auto"}
    yield "POST", "/admin/explain", key(ADMIN_KEY), facts
    yield "POST", "/v1/feedback", key(), {"id": plant("an id of feedback"), "score": 1}
    yield "POST", "/admin/models", JSON_TYPE, {"name": "x", "source": plant("a source without a key")}


def raws():
    """bytes that are no proper requests"""
    yield f"{plant('bytes that are no HTTP')}\r\n\r\n"
    yield f"GET /{plant('a path with a bad version')} HTTP/9.9\r\nHost: a\r\n\r\n"
    yield f"GET / HTTP/1.1\r\nHost: a\r\n{plant('a line that is no header')}\r\n\r\n"
    yield f"GET / HTTP/1.1\r\nHost: a\r\nX: {plant('a header that is too long') * 8000}\r\n\r\n"
    yield f"GET /{plant('a path that is too long') * 8000} HTTP/1.1\r\nHost: a\r\n\r\n"
    yield f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {plant('a length')}\r\n\r\n"
    yield (f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {API_KEY}\r\nTransfer-Encoding: chunked\r\n"
           f"\r\n{plant('a bad chunk')}\r\n")
    yield (f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {API_KEY}\r\nContent-Length: 5000\r\n\r\n"
           f"{plant('a body whose client leaves')}")


class Run:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, title, faults):
        if faults:
            self.failed += 1
            print(f"FAILED  {title}: {faults}", flush=True)
        else:
            self.passed += 1
            print(f"ok      {title}", flush=True)


def send_all(server, run):
    """Sends everything; returns what the answers said."""
    answers, odd, leaked = [], [], []
    for path, body, wanted in [*completions(), *chats()]:
        status, said = server.ask("POST", path, body, key())
        answers.append(said)
        if status >= 500 or wanted not in (None, status):
            odd.append(f"{path} {json.dumps(body)[:160]} -> {status} {said[-200:]}")
    for method, path, headers, body in heads():
        status, said = server.ask(method, path, body, headers)
        answers.append(said)
        if status >= 500 and status != 501:
            odd.append(f"{method} {path} {headers} -> {status}")
    for text in raws():
        answers.append(server.raw(text.encode()))
    everything = b"".join(answers)
    run.check("the search finds a word where it is", [] if {"a prompt that is echoed", REQUEST_ID} <=
              set(CANARIES.found_in(everything)) else ["an echoed prompt and a request id were not found"])
    for said in answers:
        leaked += [place for place in CANARIES.found_in(said)
                   if place in ("the api key", "the admin key") or "wrong" in place or "without a scheme" in place]
    run.check(f"{len(answers)} requests are answered as they should be", odd)
    run.check("no answer holds a key, not even a wrong one", leaked)


def events(server):
    with socket.create_connection(("127.0.0.1", server.port), 2) as peer:
        peer.sendall(f"GET /admin/events?after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\r\n"
                     .encode())
        peer.settimeout(2)
        said = b""
        try:
            while piece := peer.recv(65536):
                said += piece
        except TimeoutError:
            pass
        return said


def other_answers(server):
    """What somebody else is told, good and bad."""
    said = b""
    for method, path, headers, body in (
            ("GET", "/nowhere", {}, None), ("GET", "/nowhere", key(), None), ("DELETE", "/v1/models", key(), None),
            ("POST", "/v1/completions", key(), "{"), ("POST", "/v1/completions", key(), {"prompt": 1}),
            ("POST", "/v1/completions", key(), {"prompt": "x", "model": "another"}),
            ("POST", "/v1/completions", key(), {"prompt": "Once", "max_tokens": 2, "model": "auto"}),
            ("POST", "/v1/chat/completions", key(), {"messages": []}), ("GET", "/v1/models", key(), None),
            ("GET", "/v1/models/another", key(), None), ("GET", "/version", {}, None), ("GET", "/ready", {}, None)):
        said += server.ask(method, path, body, headers)[1]
    return said


def files_below(folder):
    said = b""
    for path, _, names in os.walk(folder):
        for name in names:
            said += name.encode() + b"\n"
            with open(os.path.join(path, name), "rb") as file:
                said += file.read()
    return said


def search(server, run):
    operator = key(ADMIN_KEY)
    places = {"/metrics": server.ask("GET", "/metrics", headers=key()),
              "/stats": server.ask("GET", "/stats", headers=key()),
              "/admin/models": server.ask("GET", "/admin/models", headers=operator),
              "/admin/operations": server.ask("GET", "/admin/operations", headers=operator)}
    for name, (status, said) in places.items():
        run.check(f"{name} has none of the {len(CANARIES.words)} words",
                  CANARIES.found_in(said) or ([] if status == 200 and len(said) > 100 else [f"status {status}"]))
    for path in ("/admin/routing-rules", "/admin/routing", "/admin/ab-tests", "/admin/ab-tests/split", "/admin/shadow"):
        status, said = server.ask("GET", path, headers=operator)
        run.check(f"{path} has none of them" + ("" if status == 200 else f" (answers {status})"), CANARIES.found_in(said))
    heard = events(server)
    run.check("the events have none of them", CANARIES.found_in(heard) or ([] if b"event: state" in heard else [heard]))
    run.check("answers to others have none of them", CANARIES.found_in(other_answers(server)))
    stats = json.loads(places["/stats"][1].split(b"\n\n", 1)[1])
    run.check("what was sent was counted",
              [] if stats["total_requests"] > 20 and any(rule["hits"] for rule in stats["routing_rules"]) and
              sum(arm["requests"] for arm in stats["ab_tests"][0]["arms"]) > 5 else [stats])


def traces(collector, run):
    """After the server's end: by then it has sent what it had."""
    spans = collector.spans()
    names = {span["name"] for span in spans}
    wanted = {"POST /v1/completions", "POST /v1/chat/completions", "POST /tokenize", "route", "queue", "prefill", "decode",
              f"chat {STORY}", f"text_completion {STORY}"}
    run.check(f"the collector got {len(spans)} spans of all kinds", sorted(wanted - names) or
              ([] if len(spans) > 100 else ["too few"]))
    run.check("its key came in the head", [] if collector.heads and all(
        path == "/v1/traces" and f"Bearer {COLLECTOR_KEY}" in head for path, head in collector.heads) else collector.heads[:2])
    everything = b"".join(collector.bodies)
    run.check("the traces have none of them", CANARIES.found_in(everything, but=(REQUEST_ID, TRACE_STATE)))
    run.check("but what is to be handed on", [] if {REQUEST_ID, TRACE_STATE} <= set(CANARIES.found_in(everything)) else
              ["the request id and the tracestate were not found"])


def valid_metrics(server, run):
    """What a busy server says is what Prometheus reads; its tool says 3 where it dislikes names, which vLLM gave."""
    own = os.path.join(os.path.dirname(__file__), "..", "..", "build", "tools", "usr", "bin", "promtool")
    tool = shutil.which("promtool") or (own if os.path.exists(own) else None)
    if tool is None:
        print("skipped promtool reads /metrics: it is not there (it comes with the package prometheus)")
        return
    text = server.ask("GET", "/metrics", headers=key())[1].split(b"\n\n", 1)[1]
    said = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    run.check("promtool reads /metrics", [] if said.returncode in (0, 3) and text.count(b"\n") > 500 else
              [said.returncode, said.stderr[-500:]])


def refused_starts(run, binary, story):
    """A program that does not start says what is wrong with the file, and no key of it."""
    bad = {"a rule whose condition fails": ("prompt contains 'quicksand' or", "prompt contains or"),
           "a rule that leads nowhere": ("model_name: inferneo-code, priority", "model_name: nobody, priority"),
           "a test without a model": ("model_b: inferneo-code", "model_b: nobody"),
           "an unknown key in the file": ("log_level: debug", "log_levle: debug"),
           "a header for traces that is none": ("authorization=Bearer", "Bearer"),
           "an address for traces that is none": ("http://127.0.0.1:1", "http://user:1@127.0.0.1"),
           "a file that is no YAML": ("ab_tests:", "ab_tests: [")}
    for title, (old, new) in bad.items():
        with tempfile.TemporaryDirectory(prefix="inferneo-canary-") as folder:
            server = Server(binary, [story], folder, config_for("http://127.0.0.1:1").replace(old, new))
            try:
                code = server.process.wait(60)
            except subprocess.TimeoutExpired:
                code = 0
            server.end()
            said = server.log()
            run.check(f"{title} ends the start, and no key is told", CANARIES.found_in(said) or
                      ([] if code in (1, 2) and len(said) > 20 else [f"exit code {code}: {said!r}"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True, help="the bundled storyteller; its neighbour writes code")
    options = parser.parse_args()
    binary, story = os.path.abspath(options.binary), os.path.abspath(options.model)
    models = [story, os.path.join(os.path.dirname(story), CODE)]
    run = Run()
    with tempfile.TemporaryDirectory(prefix="inferneo-canary-") as folder:
        collector = Collector()
        server = Server(binary, models, folder, config_for(collector.address))
        try:
            server.wait_ready()
            send_all(server, run)
            search(server, run)
            valid_metrics(server, run)
        finally:
            code = server.end()
            collector.end()
        run.check("the server ended by itself", [] if code == 0 else [f"exit code {code}"])
        traces(collector, run)
        run.check("the log has none of them", CANARIES.found_in(server.log(), but=(REQUEST_ID,)) or
                  ([] if b"stopped" in server.log() else [server.log()[-500:]]))
        kept = files_below(server.home)
        run.check("the registry and the server's other files have none of them",
                  CANARIES.found_in(kept) or ([] if b"SQLite format 3" in kept else ["there is no registry"]))
    refused_starts(run, binary, story)
    print(f"{run.passed} passed, {run.failed} failed")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
