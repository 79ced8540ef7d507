"""url=: the same classes against the real program."""
import asyncio
import contextlib
import http.server
import os
import pathlib
import re
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

import inferneo
from inferneo import _bridge
from inferneo import (ABTestConfig, EnhancedInferneoEngine, InferneoEngine, ModelManager, RequestOptions, RoutingRule,
                      SamplingParams, ShadowConfig)

GREEDY = {"temperature": 0, "max_tokens": 6, "ignore_eos": True}


@contextlib.contextmanager
def serving(home, *arguments):
    program = pathlib.Path(inferneo.__file__).parent.parent.parent / "inferneo"
    if not program.is_file():
        pytest.skip("the program inferneo has not been built")
    command = [program, "serve", *arguments, "--port", "0", "--log-level", "info", "--max-memory-gb", "0.5", "--num-threads", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                          env={**os.environ, "INFERNEO_HOME": str(home)}) as server:
        lines = []
        try:
            for line in server.stderr:
                lines.append(line)
                if match := re.search(r"(?:serving .*|ready) at (http://127\.0\.0\.1:\d+)/v1", line):
                    break
            else:
                raise AssertionError("".join(lines))
            threading.Thread(target=server.stderr.read, daemon=True).start()
            yield match.group(1)
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server"), ROOT / "models" / "inferneo-story", ROOT / "models" / "inferneo-story-draft",
                 "--model-roots", ROOT / "models") as address:
        yield address


async def test_a_server_says_what_an_engine_of_the_process_says(url, settings, story):
    async with InferneoEngine(inferneo.EngineConfig(model=story, **settings)) as here:
        expected = await here.generate("Once upon a time", **GREEDY)
    async with InferneoEngine(url=url) as engine:
        assert engine.is_running and engine.url == url
        result = await engine.generate("Once upon a time", model="inferneo-story", **GREEDY)
        assert (result.text, result.completion_tokens) == (expected.text, 6)
        assert result.prompt_tokens == expected.prompt_tokens and result.model.startswith("inferneo-story")
        assert 0 < result.time_to_first_token <= result.total_time
        assert result.samples[0].finish_reason == "length"
        stream = engine.generate_stream("Once upon a time", model="inferneo-story", **GREEDY)
        assert "".join([str(chunk) async for chunk in stream]) == expected.text == stream.result.text
        assert (await asyncio.to_thread(engine.generate_sync, "Once upon a time", model="inferneo-story", **GREEDY)).text == expected.text
        pieces = await asyncio.to_thread(lambda: list(engine.generate_stream_sync("Once upon a time", model="inferneo-story", **GREEDY)))
        assert "".join(map(str, pieces)) == expected.text
        several = await engine.generate("Once", n=3, seed=1, max_tokens=4, ignore_eos=True)
        assert len(several.samples) == 3 and several.completion_tokens == 12
        answers = await asyncio.gather(*(engine.generate(f"{i} times", **GREEDY) for i in range(40)))
        assert all(answer.completion_tokens == 6 for answer in answers)


async def test_every_sampling_field_is_understood_there(url):
    async with InferneoEngine(url=url) as engine:
        params = SamplingParams(temperature=0.5, top_k=20, top_p=0.9, min_p=0.01, typical_p=0.9, repetition_penalty=1.1,
                                presence_penalty=0.1, frequency_penalty=0.1, logit_bias=[(5, -10.0)], seed=2**63, stop=["###"],
                                stop_token_ids=[3], ignore_eos=True, min_tokens=1, max_tokens=3, num_speculative_tokens=0, n=2)
        assert (await engine.generate("Once", params)).completion_tokens <= 6
        assert (await engine.generate("Is a fox red? ", choices=["yes", "no"], max_tokens=4)).text in ("yes", "no")
        assert re.fullmatch(r"[ab]{3}", (await engine.generate("x", regex="[ab]{3}", max_tokens=8)).text)
        assert (await engine.generate("x", json_object=True, max_tokens=3)).text
        assert (await engine.generate("x", json_schema='{"enum": [1]}', max_tokens=8)).text == "1"
        assert (await engine.generate("x", grammar='start: "ab"', max_tokens=8)).text == "ab"
        everything = await engine.generate("Once", temperature=0)  # up to the end of the context
        assert everything.completion_tokens > 16 or everything.samples[0].finish_reason == "stop"


async def test_what_the_server_refuses_is_the_engines_own_exception(url):
    async with InferneoEngine(url=url) as engine:
        with pytest.raises(inferneo.NotFoundError):
            await engine.generate("Once", model="nobody", **GREEDY)
        with pytest.raises(inferneo.ContextTooLongError):
            await engine.generate("once " * 3000, **GREEDY)
        with pytest.raises(inferneo.InvalidArgumentError) as caught:
            await engine.generate("Once", temperature=3.0)
        assert caught.value.param == "temperature"
        with pytest.raises(ValueError, match="surrogate"):
            await engine.generate("\ud800")
        for fields in ({"prompt_rows": "logits"}, {"logprobs": 1}):
            with pytest.raises(inferneo.UnsupportedError, match="url="):
                await engine.generate("Once", **fields)
        assert (await engine.generate("a\0b", **GREEDY)).completion_tokens == 6
    with pytest.raises(inferneo.UnavailableError, match="stopped"):
        await engine.generate("Once")


async def test_embeddings_are_those_of_the_route(url, settings, story):
    np = pytest.importorskip("numpy", reason="embeddings come as numpy arrays")
    texts = ["Once upon a time", "A fox.", "A red kite."] * 15
    async with InferneoEngine(inferneo.EngineConfig(model=story, **settings)) as here:
        expected = await here.embed(texts)
    async with InferneoEngine(url=url) as engine:
        there = await engine.embed(texts, model="inferneo-story")
        assert there.shape == expected.shape and there.dtype == np.float32 and np.allclose(there, expected, atol=0.02)
        alone = await asyncio.to_thread(engine.embed_sync, texts[1], model="inferneo-story")
        assert alone.shape == expected.shape[1:] and np.allclose(alone, expected[1], atol=0.02)
        for fields in ({"pooling": "last"}, {"normalize": False}):
            with pytest.raises(inferneo.UnsupportedError, match="url="):
                await engine.embed("A fox.", **fields)
        with pytest.raises(inferneo.NotFoundError):
            await engine.embed("A fox.", model="nobody")
        with pytest.raises(inferneo.ContextTooLongError):
            await engine.embed(["A fox.", "once " * 3000])
        task = asyncio.create_task(engine.embed(texts))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert _bridge.num_waiting() == 0
    async with ModelManager(url=url) as manager:
        model = await manager.load_model("inferneo-story")
        assert (await model.embed("A fox.")).shape == expected.shape[1:]


async def test_cancelling_reaches_the_server(url):
    async with EnhancedInferneoEngine(url=url) as engine:
        endless = {"max_tokens": 400, "ignore_eos": True, "model": "inferneo-story"}
        async for _ in engine.generate_stream("Once", **endless):
            break
        whole = {**endless, "max_tokens": 16}
        tasks = [asyncio.create_task(engine.generate("Once", **(whole if i % 2 else endless))) for i in range(12)]
        await asyncio.sleep(0.05)
        for task in tasks[::2]:
            task.cancel()
        sync = threading.Thread(target=lambda: engine.generate_stream_sync("Once", **endless).close())
        sync.start()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        sync.join()
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
        assert all(outcome.completion_tokens == 16 for outcome in outcomes[1::2])
        while (await asyncio.to_thread(engine.get_stats))["running"] > 0:
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(engine.generate("Once", **endless)) for _ in range(3)]
        await asyncio.sleep(0)
        await engine.stop()
        for task in waiting:
            with pytest.raises(inferneo.UnavailableError):
                await task


async def test_models_rules_tests_and_numbers_of_a_server(tmp_path):
    with serving(tmp_path, "--model-roots", ROOT / "models") as url:
        async with EnhancedInferneoEngine(url=url) as engine, ModelManager(url=url) as manager:
            assert await engine.register_model("story", "1.0", str(ROOT / "models" / "inferneo-story"), aliases=["tale"]) == "story:1.0"
            assert await manager.register_model("code:2", path=str(ROOT / "models" / "inferneo-code"),
                                                settings={"max_num_seqs": "8"}, keep_alive=60) == "code:2"
            with pytest.raises(inferneo.AlreadyExistsError):
                await engine.register_model("story", "1.0", str(ROOT / "models" / "inferneo-story"))
            engine.add_routing_rule(RoutingRule(name="code_routing", condition="prompt contains 'code'", model_name="code", priority=10))
            assert (await engine.generate("some code", model="auto", **GREEDY)).model == "code"
            assert any("code_routing" in step for step in engine.explain("some code"))
            engine.replace_routing_rule(RoutingRule(name="code_routing", condition="header['x-tier'] == 'gold'", model_name="code"))
            gold = await engine.generate("x", model="auto", options=RequestOptions(headers={"x-tier": "gold"}), **GREEDY)
            assert gold.model == "code"
            engine.remove_routing_rule("code_routing")
            with pytest.raises(inferneo.NotFoundError):
                engine.remove_routing_rule("code_routing")
            with pytest.raises(inferneo.InvalidArgumentError):
                engine.add_routing_rule(RoutingRule(name="bad", condition="prompt contains", model_name="code"))
            engine.set_routing_options(inferneo.core.enhanced_engine.RoutingOptions(default_model="code"))
            engine.set_routing_options(inferneo.core.enhanced_engine.RoutingOptions())

            engine.add_ab_test(ABTestConfig(name="comparison", model_a="story", model_b="code", traffic_split=0.5))
            models = {user: (await engine.generate("hello", model="story", options=RequestOptions(user=user), **GREEDY)).model
                      for user in "abcdefgh"}
            assert set(models.values()) == {"story", "code"}
            forced = await engine.generate("hello", model="story", options=RequestOptions(user="a", forced_arm="B"), **GREEDY)
            assert forced.model == "code"
            for change in (engine.pause_ab_test, engine.resume_ab_test, lambda name: engine.promote(name, "A"), engine.remove_ab_test):
                change("comparison")
            engine.add_shadow(ShadowConfig(name="next", model="story", shadow_model="code"))
            engine.replace_shadow(ShadowConfig(name="next", model="story", shadow_model="code", share=0.5))
            stats = engine.get_stats()
            assert [shadow["name"] for shadow in stats["shadows"]] == ["next"]
            engine.remove_shadow("next")
            local = EnhancedInferneoEngine()
            assert set(stats) == set(local.get_stats()) and stats["total_requests"] > 8
            assert stats["model_metrics"]["story:1.0"]["time_to_first_token"]["p95"] > 0

            model = await manager.load_model("tale")
            assert model.id == "story:1.0" and (await model.generate("Once", **GREEDY)).completion_tokens == 6
            info = manager.model_info("story")
            assert (info.state, info.aliases, info.active) == ("ready", ["tale"], True) and info.memory_bytes > 0
            assert isinstance(info, inferneo.ModelInfo) and {i.id for i in manager.list_models()} == {"story:1.0", "code:2"}
            assert 0 < manager.memory_used <= manager.memory_budget
            manager.pin("story")
            assert manager.model_info("story").pinned
            manager.pin("story", False)
            manager.set_keep_alive("story", -1)
            manager.set_alias("it", "story")
            manager.remove_alias("it")
            await manager.register_model("story", "2", str(ROOT / "models" / "inferneo-story-draft"))
            await manager.switch_version("story", "2")
            assert manager.model_info("story").version == "2"
            with pytest.raises(inferneo.ConflictError):
                await manager.rollback("code")
            with pytest.raises(inferneo.InferneoError, match="computes on the CPU"):
                await manager.sleep("story:2")
            await manager.wake_up("story:2")
            await manager.unload_model("story:1.0")
            assert manager.model_info("story:1.0").state == "unloaded"
            with pytest.raises(inferneo.ConflictError):
                await manager.wake_up("story:1.0")
            await manager.remove_model("story:1.0")
            with pytest.raises(inferneo.NotFoundError):
                manager.model_info("story:1.0")


def test_wrong_addresses_and_what_does_not_go_together(tmp_path):
    for bad in ("ftp://x", "http://", "http://x:99999999", "http://user:word@x", "http://[::1", "http://[zz]:1", "http://h/a b",
                "http://h\u00f6st", "http://x?y=1", "http://x\r\nX-Other: 1", 8000):
        with pytest.raises(inferneo.InvalidArgumentError, match="url") as refused:
            InferneoEngine(url=bad)
        assert "word" not in str(refused.value)
    with pytest.raises(inferneo.InvalidArgumentError, match="config"):
        InferneoEngine(inferneo.EngineConfig(), url="http://127.0.0.1:1")
    with pytest.raises(inferneo.InvalidArgumentError, match="api_key"):
        InferneoEngine(api_key="x")
    with pytest.raises(inferneo.InvalidArgumentError, match="api_key"):
        InferneoEngine(url="http://127.0.0.1:1", api_key="a\r\nb")
    with pytest.raises(inferneo.InvalidArgumentError, match="url"):
        ModelManager(max_models=3, url="http://127.0.0.1:1")
    with pytest.raises(inferneo.UnavailableError, match="127.0.0.1:1 cannot be asked"):
        InferneoEngine(url="http://127.0.0.1:1").generate_sync("Once")
    for no_host in ("http://a..b", "http://" + "x" * 70):
        engine = InferneoEngine(url=no_host)
        with pytest.raises(inferneo.UnavailableError, match="cannot be asked"):
            engine.start_sync()
        engine._started = True
        with pytest.raises(inferneo.UnavailableError, match="cannot be asked"):
            engine.generate_sync("Once", **GREEDY)
    with serving(tmp_path, ROOT / "models" / "inferneo-story-draft", "--api-key", "sk-word") as url:
        with pytest.raises(inferneo.UnauthorizedError):
            InferneoEngine(url=url).start_sync()
        with InferneoEngine(url=url, api_key="sk-word") as engine:
            assert engine.generate_sync("Once", **GREEDY).completion_tokens == 6


async def test_what_is_no_inferneo_is_said():
    class Other(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            status, said = answers[self.headers["X-Session-Id"]]
            self.send_response(status)
            self.send_header("Retry-After", "9" * 30)
            self.end_headers()
            self.wfile.write(said + b"\n\n")

    usage = rb'{"choices": [], "usage": {"prompt_tokens": %s, "completion_tokens": 1}}'
    answers = {None: (200, b"data: nonsense"), "s": (502, b"data: nonsense"),
               "words": (200, b"data: " + usage % b'"many"'), "none": (200, b"data: " + usage % b"null"),
               "huge": (200, b"data: " + usage % b"99999999999"),
               "half": (200, rb'data: {"model": "\ud800", ' + (usage % b"1")[1:]),
               "wait": (503, rb'{"error": {"code": "unavailable", "message": "half a pair: \ud800"}}')}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        engine = EnhancedInferneoEngine(url=f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(inferneo.UnavailableError, match="does not answer as Inferneo"):
            await engine.generate("Once", **GREEDY)
        engine._started = True
        with pytest.raises(inferneo.UnavailableError):
            await engine.generate("Once", **GREEDY)
        with pytest.raises(inferneo.InferneoError, match="502"):
            await engine.generate("Once", options=RequestOptions(session="s"), **GREEDY)
        for session in ("words", "none", "huge", "half"):  # values of other types: an end all the same
            with pytest.raises(inferneo.UnavailableError, match="does not answer as Inferneo"):
                await asyncio.wait_for(engine.generate("Once", options=RequestOptions(session=session), **GREEDY), 20)
        with pytest.raises(inferneo.UnavailableError, match="half a pair") as refused:
            await asyncio.wait_for(engine.generate("Once", options=RequestOptions(session="wait"), **GREEDY), 20)
        assert refused.value.retry_after == 24 * 3600
    finally:
        server.shutdown()


def test_the_interpreter_may_end_while_a_server_answers(url):
    script = f"""
import asyncio, os, threading
from inferneo import InferneoEngine
engine = InferneoEngine(url={url!r})
endless = dict(max_tokens=400, ignore_eos=True, model="inferneo-story")
threading.Thread(target=lambda: engine.generate_sync("Once", **endless), daemon=True).start()
async def main():
    stream = engine.generate_stream("Once", **endless)
    await stream.__anext__()
    return stream, [asyncio.ensure_future(engine.generate("Once", **endless)) for _ in range(3)]
loop = asyncio.new_event_loop()
held = loop.run_until_complete(main())
child = os.fork()
if child == 0:
    try:
        engine.generate_sync("Once")
        os._exit(3)
    except Exception as error:
        if "forked" not in str(error): os._exit(4)
    own = InferneoEngine(url={url!r})
    os._exit(0 if own.generate_sync("Once", max_tokens=2, ignore_eos=True).completion_tokens == 2 else 5)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "0\n", done.stdout + done.stderr
    assert "Fatal" not in done.stderr
