"""inferneo.core.engine and what it stands on: configuration, sampling, streams, cancelling, ends."""
import asyncio
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import threading

import pytest
from conftest import scaled

import inferneo
from inferneo import _bridge, _native
from inferneo.core.config import EngineConfig
from inferneo.core.engine import InferneoEngine


# ---- errors
def test_every_error_code_has_a_class_of_its_own():
    from inferneo import errors

    codes = _native.error_codes()
    assert sorted(errors._BY_CODE) == sorted(codes)
    for code in codes:
        error = errors.from_code(code, "what", "field", 3)
        assert type(error).code == code and error.param == "field" and error.retry_after == 3
        assert isinstance(error, inferneo.InferneoError) and type(error).__name__ in errors.__all__
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and str(again) == "what" and again.retry_after == 3


# ---- configuration
@pytest.mark.parametrize("tool", ["make_python_stubs.py", "make_api_reference.py"])
def test_what_is_made_of_the_package_is_current(tool):
    root = os.path.join(os.path.dirname(__file__), "..", "..")
    done = subprocess.run([sys.executable, os.path.join(root, "tools", tool), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_unknown_fields_are_errors_that_name_the_nearest():
    with pytest.raises(ValueError, match="no field 'max_modl_len', did you mean 'max_model_len'"):
        EngineConfig(max_modl_len=3)
    config = EngineConfig()
    with pytest.raises(inferneo.InvalidArgumentError, match="did you mean 'max_num_seqs'"):
        config.max_num_seq = 3
    with pytest.raises(AttributeError):
        config.max_num_seq


@pytest.mark.parametrize("field, value", [
    ("max_model_len", 0), ("max_model_len", "many"), ("max_model_len", 1.5), ("max_model_len", {}), ("dtype", "f8"),
    ("gpu_memory_utilization", 1.5), ("gpu_memory_utilization", float("nan")), ("max_models", None), ("port", True),
    ("enable_cuda_graph", 7), ("max_num_seqs", 10**30), ("model", b"bytes"), ("routing_rules", ["x"]),
])
def test_bad_values_are_errors_that_name_the_field(field, value):
    with pytest.raises((ValueError, TypeError)) as caught:
        EngineConfig(**{field: value})
    assert field in str(caught.value) or field == "routing_rules"
    config = EngineConfig()
    before = getattr(config, field)
    with pytest.raises((ValueError, TypeError)):
        setattr(config, field, value)
    assert getattr(config, field) == before


def test_every_field_of_the_table_can_be_read_and_set_to_what_it_is():
    config = EngineConfig()
    for row in EngineConfig.fields():
        value = getattr(config, row["name"])
        if row["name"] != "seed":
            setattr(config, row["name"], value)
        assert getattr(config, row["name"]) == value, row["name"]


def test_a_keyword_wins_over_the_environment_and_that_over_the_file(monkeypatch, tmp_path):
    file = tmp_path / "inferneo.yaml"
    file.write_text("max_model_len: 100\nmax_num_seqs: 7\ngpu_memory_utilization: 0.1\n"
                    "routing_rules:\n  - {name: code, condition: \"prompt contains 'code'\", model_name: code}\n")
    monkeypatch.setenv("INFERNEO_MODEL", "one,two")
    monkeypatch.setenv("INFERNEO_MAX_MODEL_LEN", "200")
    monkeypatch.setenv("INFERNEO_GPU_MEMORY_UTIL", "0.8")
    config = EngineConfig(config_file=file, max_model_len=300)
    assert (config.max_model_len, config.max_num_seqs, config.model) == (300, 7, ["one", "two"])
    assert config.gpu_memory_utilization == 0.8
    assert [rule.name for rule in config.routing_rules] == ["code"]
    assert EngineConfig().max_model_len == 200
    assert EngineConfig(use_environment=False).max_model_len is None
    monkeypatch.setenv("INFERNEO_MAX_MODEL_LEN", "x")
    with pytest.raises(ValueError, match="INFERNEO_MAX_MODEL_LEN"):
        EngineConfig()
    with pytest.raises(OSError):
        EngineConfig(config_file=tmp_path / "absent.yaml")


def test_configurations_can_be_copied_compared_pickled_and_hide_secrets():
    rule = inferneo.RoutingRule(name="r", condition="true", model_name="m")
    config = EngineConfig(model=["a", "b"], api_key="secret-word", max_model_len=5, routing_rules=[rule])
    assert "secret-word" not in repr(config) and "***" in repr(config)
    changed = config.replace(max_model_len=6)
    assert (config.max_model_len, changed.max_model_len) == (5, 6) and changed != config
    again = pickle.loads(pickle.dumps(config))
    assert again == config and again.api_key == ["secret-word"] and again.routing_rules == [rule]


def test_log_levels_are_words():
    with pytest.raises(ValueError, match="expected debug, info, warning, error or off, got 'loud'"):
        inferneo.set_log_level("loud")
    inferneo.set_log_level("warning")


# ---- plain data
def test_sampling_parameters_know_their_fields():
    params = inferneo.SamplingParams(temperature=0.8, max_tokens=4, stop=["x"])
    assert repr(params) == "SamplingParams(temperature=0.8, stop=['x'], max_tokens=4)"
    assert params.replace(temperature=0) == inferneo.SamplingParams(temperature=0, max_tokens=4, stop=["x"])
    assert params != inferneo.SamplingParams() and params != 3
    assert pickle.loads(pickle.dumps(params)) == params
    with pytest.raises(ValueError, match="no field 'max_token', did you mean 'max_tokens'"):
        inferneo.SamplingParams(max_token=4)
    with pytest.raises(TypeError, match="max_tokens: expected int | None, got 'x'"):
        inferneo.SamplingParams(max_tokens="x")
    params.regex = "a+"
    params.choices = ["b"]
    assert params.regex is None and params.choices == ["b"]


# ---- generating
async def test_an_engine_starts_itself_once_at_the_first_generate(settings, draft):
    engine = InferneoEngine(EngineConfig(model=draft, **settings))
    assert not engine.is_running
    results = await asyncio.gather(*(engine.generate("Once", max_tokens=2) for _ in range(8)))
    assert engine.is_running and all(result.completion_tokens == 2 for result in results)
    with pytest.raises(inferneo.AlreadyExistsError):
        await engine.start()
    await engine.stop()
    await engine.stop()
    with pytest.raises(inferneo.UnavailableError, match="stopped"):
        await engine.generate("Once")
    await engine.start()
    assert (await engine.generate("Once", max_tokens=1)).completion_tokens == 1
    await engine.stop()


async def test_a_start_that_fails_says_why_and_can_be_tried_again(settings, draft, tmp_path):
    engine = InferneoEngine(EngineConfig(model=tmp_path / "later", **settings))
    with pytest.raises(inferneo.InferneoError, match="later"):
        await engine.generate("Once")
    os.symlink(draft, tmp_path / "later")
    assert (await engine.generate("Once", max_tokens=1)).completion_tokens == 1
    await engine.stop()


async def test_streamed_text_is_the_text_and_sync_says_the_same(settings, draft):
    async with InferneoEngine(EngineConfig(model=draft, **settings)) as engine:
        whole = await engine.generate("Once upon a time", temperature=0, max_tokens=12)
        stream = engine.generate_stream("Once upon a time", temperature=0, max_tokens=12)
        pieces = [str(chunk) async for chunk in stream]
        assert "".join(pieces) == str(whole) == whole.text and pieces  # how many depends on who is faster
        assert stream.result.samples[0].tokens == whole.samples[0].tokens
        sync = await asyncio.to_thread(engine.generate_sync, "Once upon a time", temperature=0, max_tokens=12)
        assert sync.text == whole.text
        parts = await asyncio.to_thread(
            lambda: "".join(map(str, engine.generate_stream_sync("Once upon a time", temperature=0, max_tokens=12))))
        assert parts == whole.text
        params = inferneo.SamplingParams(temperature=0, max_tokens=5)
        assert (await engine.generate("Once upon a time", params, max_tokens=12)).text == whole.text
        both = engine.generate_stream("Once", n=2, seed=1, max_tokens=3)
        assert {chunk.sample async for chunk in both} == {0, 1}
        assert len(both.result.samples) == 2


async def test_bad_requests_fail_alone(settings, draft):
    async with InferneoEngine(EngineConfig(model=draft, max_model_len=64, **settings)) as engine:
        with pytest.raises(inferneo.InvalidArgumentError) as caught:
            await engine.generate("Once", n=17)
        assert caught.value.param == "n"
        with pytest.raises(inferneo.NotFoundError):
            await engine.generate("Once", model="nobody")
        with pytest.raises(inferneo.ContextTooLongError):
            await engine.generate("once " * 500)
        with pytest.raises(TypeError):
            await engine.generate(3)
        with pytest.raises(TypeError):
            await engine.generate("Once", {"max_tokens": 3})
        with pytest.raises(ValueError, match="max_tokens"):
            engine.generate_stream("Once", max_token=3)
        with pytest.raises(ValueError, match="surrogate"):
            await engine.generate("one \ud800", max_tokens=1)
        with pytest.raises(inferneo.InferneoError):
            async for _ in engine.generate_stream("Once", model="nobody"):
                pass
        assert _bridge.num_waiting() == 0
        assert (await engine.generate("Once", max_tokens=1)).completion_tokens == 1


async def test_what_is_plain_is_begun_at_once_and_everything_else_is_told_what_is_wrong(settings, draft):
    async with InferneoEngine(EngineConfig(model=draft, **settings)) as engine:
        native = engine._native
        assert native.begin("Once", None, None, {}) is None  # nobody knows this loop yet
        loop = asyncio.get_running_loop()
        events = _bridge._bridge.events_of(loop)
        assert _native.only_loop_events(loop) is events
        greedy = {"max_tokens": 3, "temperature": 0, "ignore_eos": True}
        plain = [native.begin("Once", None, None, greedy),
                 native.begin("Once", inferneo.SamplingParams(**greedy), os.path.basename(draft), {}),
                 native.begin("Once", inferneo.SamplingParams(temperature=0, max_tokens=900), "", {"max_tokens": 3, "ignore_eos": True}),
                 engine.generate("Once", **greedy)]
        texts = [(await answer).text for answer in plain]
        assert texts == [texts[0]] * 4 and texts[0]
        for odd in [(3, None, None, {}), ("one \ud800", None, None, {}), ("Once", greedy, None, {}), ("Once", None, 3, {}),
                    ("Once", None, None, {"max_token": 3}), ("Once", None, None, {"max_tokens": "3"})]:
            assert native.begin(*odd) is None and native.wait_for(*odd) is None
        assert native.wait_for("Once", None, None, greedy).text == texts[0]
        assert await asyncio.to_thread(native.begin, "Once", None, None, {}) is None  # a thread without a loop
        assert await asyncio.to_thread(asyncio.run, _begun_elsewhere(native)) is None
        assert _bridge.num_waiting() == 0
        await engine.stop()
        with pytest.raises(inferneo.UnavailableError):
            await native.begin("Once", None, None, greedy)
        with pytest.raises(inferneo.UnavailableError):
            native.wait_for("Once", None, None, greedy)
        assert _bridge.num_waiting() == 0


async def _begun_elsewhere(native):
    return native.begin("Once", None, None, {})


async def ended(engine):
    """The numbers of the engine's only model once nothing is under way."""
    while True:
        [model] = engine.get_stats()["model_metrics"].values()
        if model["running"] == model["waiting"] == 0 and model["kv_usage"] == 0:
            return model
        await asyncio.sleep(0.01)


async def test_cancelling_the_task_or_leaving_the_stream_cancels_the_request(settings, draft):
    async with inferneo.EnhancedInferneoEngine(EngineConfig(model=draft, **settings)) as engine:
        endless = {"max_tokens": 900, "ignore_eos": True}
        task = asyncio.create_task(engine.generate("Once", **endless))
        async for _ in engine.generate_stream("Once", **endless):  # both run
            break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with engine.generate_stream("Once", **endless) as stream:
            await stream.__anext__()
        with pytest.raises(StopAsyncIteration):
            await stream.__anext__()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(engine.generate("Once", **endless), 0.01)
        iterator = engine.generate_stream_sync("Once", **endless)
        await asyncio.to_thread(next, iterator)
        iterator.close()
        gc.collect()
        model = await ended(engine)
        assert model["requests"] == 0 and model["cancelled"] >= 4
        assert _bridge.num_waiting() == 0


async def test_a_stream_that_another_task_closes_ends(settings, draft):
    async with InferneoEngine(EngineConfig(model=draft, **settings)) as engine:
        stream = engine.generate_stream("Once", max_tokens=900, ignore_eos=True)
        await stream.__anext__()

        async def read():
            return [chunk async for chunk in stream]

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        await stream.aclose()
        await stream.aclose()
        await asyncio.wait_for(reading, 60)
        assert stream.result is None


async def test_ten_thousand_awaits_of_which_half_are_cancelled(settings, draft):
    count = scaled(10_000, 300)
    config = EngineConfig(model=draft, max_queue_requests=20_000, **settings)
    async with inferneo.EnhancedInferneoEngine(config) as engine:
        await engine.generate("Once", max_tokens=1)
        await ended(engine)
        memory = engine.get_stats()["memory_used"]
        tasks = [asyncio.create_task(engine.generate("Once upon a time", max_tokens=2, ignore_eos=True))
                 for _ in range(count)]
        await asyncio.sleep(0)  # all are submitted; the first may have ended already
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
        assert all(outcome.completion_tokens == 2 for outcome in outcomes[1::2])
        model = await ended(engine)
        # What was cancelled may have ended before, or before it was anybody's.
        assert model["requests"] >= 1 + count // 2 and model["requests"] + model["cancelled"] <= 1 + count
        assert model["errors"] == 0
        assert _bridge.num_waiting() == 0
        assert engine.get_stats()["memory_used"] <= memory + (64 << 20)


def test_several_loops_and_threads_share_an_engine(settings, draft):
    engine = InferneoEngine(EngineConfig(model=draft, **settings))
    results, lock = [], threading.Lock()

    async def several():
        return await asyncio.gather(*(engine.generate("Once", max_tokens=2) for _ in range(4)))

    def work():
        found = asyncio.run(several()) + [engine.generate_sync("Once", max_tokens=2)]
        with lock:
            results.extend(found)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20 and all(result.completion_tokens == 2 for result in results)
    engine.stop_sync()


def test_other_threads_go_on_while_one_waits(settings, draft):
    engine = InferneoEngine(EngineConfig(model=draft, **settings))
    engine.start_sync()
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (engine.generate_sync("Once", max_tokens=400, ignore_eos=True), done.set()))
    waiting.start()
    steps = 0
    while not done.is_set():
        steps += 1
    waiting.join()
    assert steps > 10
    engine.stop_sync()


async def test_stopping_ends_what_runs(settings, draft):
    engine = InferneoEngine(EngineConfig(model=draft, **settings))
    stream = engine.generate_stream("Once", max_tokens=400, ignore_eos=True)
    await stream.__anext__()
    running = asyncio.create_task(engine.generate("Once", max_tokens=400, ignore_eos=True))
    await asyncio.sleep(0)
    await engine.stop()
    with pytest.raises(inferneo.UnavailableError):
        await running
    with pytest.raises(inferneo.UnavailableError):
        while True:
            await stream.__anext__()


# ---- ends: each in a process of its own
def run_script(text, **environment):
    return subprocess.run([sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(text)], capture_output=True,
                          text=True, timeout=120, env={**os.environ, **environment})


START = """
import asyncio, os, sys, threading
from inferneo import EngineConfig, InferneoEngine, UnavailableError
def engine():
    return InferneoEngine(EngineConfig(model=os.environ["MODEL"], max_memory_gb=0.25, num_threads=2))
endless = {"max_tokens": 400, "ignore_eos": True}
"""


@pytest.mark.parametrize("end", ["sys.exit(0)", "pass", "raise SystemExit", "engine.closed = loop.close()"])
def test_the_interpreter_may_end_while_requests_run(draft, end):
    done = run_script(START + f"""
async def main(engine):
    stream = engine.generate_stream("Once", **endless)
    await stream.__anext__()
    return stream, [asyncio.ensure_future(engine.generate("Once", **endless)) for _ in range(3)]
engine = engine()
loop = asyncio.new_event_loop()
held = loop.run_until_complete(main(engine))
threading.Thread(target=lambda: engine.generate_sync("Once", **endless), daemon=True).start()
print("reached", flush=True)
{end}
""", MODEL=draft)
    assert done.returncode == 0 and "reached" in done.stdout, done.stderr
    assert "Fatal" not in done.stderr and "terminate" not in done.stderr


def test_ctrl_c_cancels_what_a_thread_waits_for(draft):
    done = run_script(START + """
import signal
engine = engine()
engine.start_sync()
pieces = engine.generate_stream_sync("Once", **endless)
next(pieces)
pieces.close()
from inferneo import _native
def interrupt():
    while _native.num_waits() == 0:
        pass
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    engine.generate_sync("Once", max_tokens=900, ignore_eos=True)
    print("not interrupted")
except KeyboardInterrupt:
    print(engine.generate_sync("Once", max_tokens=2).completion_tokens)
""", MODEL=draft)
    assert done.returncode == 0 and done.stdout == "2\n", done.stdout + done.stderr


def test_a_loop_that_ended_harms_no_later_one(draft):
    done = run_script(START + """
engine = engine()
async def leave():
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(engine.generate("Once", **endless)) for _ in range(3)]
    await engine.generate("Once", max_tokens=1)
loop = asyncio.new_event_loop()
loop.run_until_complete(leave())
loop.close()
print(asyncio.run(engine.generate("Once", max_tokens=2)).completion_tokens)
from inferneo import _bridge
print(_bridge.num_waiting())  # what the closed one had has been cancelled
""", MODEL=draft)
    assert done.returncode == 0 and done.stdout == "2\n0\n", done.stderr


def test_an_engine_in_a_forked_child_raises_and_a_new_one_works(draft):
    done = run_script(START + """
parent = engine()
parent.generate_sync("Once", max_tokens=1)
held = asyncio.run(parent.generate("Once", max_tokens=1))
child = os.fork()
if child == 0:
    for call in (lambda: parent.generate_sync("Once"), lambda: asyncio.run(parent.generate("Once")), parent.stop_sync,
                 lambda: asyncio.run(parent.generate_stream("Once").__anext__())):
        try:
            call()
            os._exit(3)
        except UnavailableError as error:
            if "forked" not in str(error): os._exit(4)
    own = engine()
    if own.generate_sync("Once", max_tokens=2).completion_tokens != 2: os._exit(5)
    if asyncio.run(own.generate("Once", max_tokens=2)).completion_tokens != 2: os._exit(6)
    sys.exit(0)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), parent.generate_sync("Once", max_tokens=2).completion_tokens)
""", MODEL=draft)
    assert done.returncode == 0 and done.stdout == "0 2\n", done.stdout + done.stderr


def ask_in_child(config):
    engine = InferneoEngine(config)
    return engine.generate_sync("Once", max_tokens=2).completion_tokens


def test_a_spawned_process_has_its_own(settings, draft):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(ask_in_child, (EngineConfig(model=draft, **settings),)) == 2


# ---- LLM
def test_llm_answers_in_the_order_of_the_prompts(settings, draft, capsys):
    with inferneo.LLM(draft, max_num_seqs=4, **settings) as llm:
        prompts = [f"{i} times upon a time" for i in range(25)]
        together = llm.generate(prompts, temperature=0, max_tokens=3, progress=True)
        assert [str(r) for r in together[:3]] == [str(llm.generate(p, temperature=0, max_tokens=3)) for p in prompts[:3]]
        assert len(together) == 25 and "25/25" in capsys.readouterr().err
        assert llm.generate([]) == []
        with pytest.raises(inferneo.InvalidArgumentError):
            llm.generate(["a", "b"], n=0)
        with pytest.raises(inferneo.ContextTooLongError):
            llm.generate(["a", "word " * 5000, "b"], max_tokens=2)
        assert len(llm.generate(iter(["a", "b"]), max_tokens=1)) == 2
