"""What nobody should do: wrong types, odd strings, huge prompts, races of starts and stops, ends in the middle."""
import asyncio
import copy
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import inferneo
from inferneo import EngineConfig, EnhancedInferneoEngine, InferneoEngine, ModelManager, RequestOptions, SamplingParams, _bridge, _native


def engine_of(model, settings, kind=InferneoEngine, **fields):
    return kind(EngineConfig(model=model, **{**settings, **fields}))


REFUSED = (TypeError, ValueError, inferneo.InferneoError)


async def test_wrong_types_are_refused_and_harm_nothing(settings, draft):
    async with engine_of(draft, settings, EnhancedInferneoEngine) as engine:
        calls = [
            lambda: engine.generate(b"bytes"), lambda: engine.generate(None), lambda: engine.generate(["a"]),
            lambda: engine.generate("a", model=3), lambda: engine.generate("a", options="user"),
            lambda: engine.generate("a", options=RequestOptions(headers={"x": 3})), lambda: engine.generate("a", sampling=3),
            lambda: engine.generate("a", stop=b"one"), lambda: engine.generate("a", stop=[3]), lambda: engine.generate("a", seed=-1),
            lambda: engine.generate("a", seed=2**64), lambda: engine.generate("a", temperature="hot"),
            lambda: engine.generate("a", max_tokens=2**40), lambda: engine.generate("a", logit_bias={1: 2}),
            lambda: engine.generate("a", logit_bias=[(10**9, 1.0)]), lambda: engine.generate("a", n="two"),
            lambda: engine.generate("a", stop_token_ids=[-1]), lambda: engine.generate("a", regex="("),
            lambda: engine.generate("a", json_schema="{"), lambda: engine.generate("a", choices=[""] * 3, grammar=""),
            lambda: engine.register_model(3), lambda: engine.register_model("m", path=None), lambda: engine.remove_model(None),
            lambda: engine.register_model("m", "1", draft, settings={"max_num_seqs": "many"}),
            lambda: engine.register_model("a b\0c", "1", draft), lambda: engine.embed(None), lambda: engine.logits(""),
        ]
        for number, call in enumerate(calls):
            with pytest.raises(REFUSED):
                await call()
                print(f"call {number} was taken")
        for call in (lambda: engine.add_routing_rule("x"), lambda: engine.add_ab_test(None), lambda: engine.explain(3),
                     lambda: engine.promote(1, 2), lambda: engine.set_routing_options({}), lambda: engine.remove_routing_rule(b"x"),
                     lambda: engine.generate_sync(3), lambda: engine.generate_stream(3)):
            with pytest.raises(REFUSED):
                call()
        assert _bridge.num_waiting() == 0
        assert (await engine.generate("Once", max_tokens=1)).completion_tokens == 1


def test_wrong_types_of_the_managers_calls(settings, draft):
    with ModelManager(config=EngineConfig(num_threads=2), max_memory_gb=0.25) as manager:
        for call in (lambda: manager.register_model_sync("m", path=3, format="onnx"), lambda: manager.load_model_sync(3),
                     lambda: manager.pin(None), lambda: manager.set_keep_alive("m", "long"), lambda: manager.model_info(b"m"),
                     lambda: manager.set_alias("a"), lambda: manager.register_model_sync("m", path=draft, keep_alive=-2),
                     lambda: manager.load_model_sync("a\0b"), lambda: manager.register_model_sync("m", path="a\0b")):
            with pytest.raises(REFUSED):
                call()
    for make in (lambda: ModelManager(max_models="x"), lambda: ModelManager(max_memory_gb=float("nan")), lambda: ModelManager(max_memory_gb=-1),
                 lambda: InferneoEngine("models/x"), lambda: inferneo.LLM(3), lambda: inferneo.bundled_model("../x")):
        with pytest.raises((*REFUSED, LookupError)):
            make()


async def test_odd_texts_go_through_or_are_refused(settings, draft):
    async with engine_of(draft, settings) as engine:
        for text in ("a\0b", "\0", "\U0010ffff", "\u202e\u200b", "<|endoftext|><s></s>", "\r\n\t", "é" * 100, "😀" * 50):
            result = await engine.generate(text, max_tokens=2, ignore_eos=True)
            assert result.completion_tokens == 2, repr(text)
            result.text.encode()
        for text in ("\ud800", "a\udfffb"):
            with pytest.raises(inferneo.InvalidArgumentError, match="surrogate"):
                await engine.generate(text)
        for call in (lambda: engine.generate("a", model="\ud800"), lambda: engine.generate("a", stop=["\ud800"]),
                     lambda: engine.generate("a", regex="\ud800")):
            with pytest.raises((TypeError, ValueError)):
                await call()
        assert (await engine.generate("a", stop=["\0"], max_tokens=2, ignore_eos=True)).completion_tokens == 2


async def test_a_huge_prompt_is_refused_in_time_and_its_neighbours_live(settings, draft):
    async with engine_of(draft, settings) as engine:
        neighbour = asyncio.create_task(engine.generate("Once", max_tokens=50, ignore_eos=True))
        for text in ("a" * 10_000_000, "word " * 1_000_000):
            with pytest.raises(inferneo.InferneoError):
                await engine.generate(text, max_tokens=1)
        assert (await neighbour).completion_tokens == 50


def test_starts_stops_and_requests_race(settings, draft):
    engine = engine_of(draft, settings)
    unexpected, stop = [], time.monotonic() + 3

    def work(what):
        while time.monotonic() < stop:
            try:
                what()
            except inferneo.InferneoError:
                pass
            except BaseException as error:
                unexpected.append(error)
                return

    asks = [lambda: engine.generate_sync("Once", max_tokens=3), lambda: list(engine.generate_stream_sync("Once", max_tokens=3)),
            lambda: asyncio.run(engine.generate("Once", max_tokens=3)), engine.start_sync, engine.stop_sync]
    threads = [threading.Thread(target=work, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not unexpected and not any(thread.is_alive() for thread in threads)
    engine.stop_sync()
    assert _bridge.num_waiting() == 0


async def test_what_is_dropped_while_it_runs(settings, draft):
    engine = engine_of(draft, settings)
    stream = engine.generate_stream("Once", max_tokens=400, ignore_eos=True)
    await stream.__anext__()
    task = asyncio.create_task(engine.generate("Once", max_tokens=400, ignore_eos=True))
    await asyncio.sleep(0)
    del engine, stream
    gc.collect()
    try:
        await asyncio.wait_for(task, 60)  # it holds what it needs, or has lost it: it ends
    except inferneo.UnavailableError:
        pass


async def test_a_callback_that_raises_harms_nobody_else(settings, draft):
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with engine_of(draft, settings) as engine:
        def raises(_):
            raise ZeroDivisionError("of a callback")

        tasks = [asyncio.ensure_future(engine.generate("Once", max_tokens=2, ignore_eos=True)) for _ in range(6)]
        for task in tasks[::2]:
            task.add_done_callback(raises)
        assert [result.completion_tokens for result in await asyncio.gather(*tasks)] == [2] * 6
        await asyncio.sleep(0)
        assert len(reported) == 3 and all(isinstance(context["exception"], ZeroDivisionError) for context in reported)


def test_what_cannot_be_copied_says_so_and_what_can_is(settings, draft):
    engine = engine_of(draft, settings)
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            way(engine)
    config = EngineConfig(model=draft, max_num_seqs=3)
    assert copy.copy(config) == copy.deepcopy(config) == config and copy.copy(config) is not config
    params = SamplingParams(stop=["a"], prompt_rows="logits", logprobs=3)
    assert copy.copy(params) == copy.deepcopy(params) == params
    for cls in (_native.Engine, _native.Manager, _native.Lease, _native.Ticket, _native.GenerationResult):
        with pytest.raises(TypeError):
            cls()
    with pytest.raises(AttributeError):
        EngineConfig.__new__(EngineConfig).model


def run_script(text, model, timeout=120):
    return subprocess.run([sys.executable, "-X", "faulthandler", "-W", "error::RuntimeWarning", "-c", textwrap.dedent(text)], text=True,
                          capture_output=True, timeout=timeout, env={**os.environ, "MODEL": model})


START = """
import asyncio, gc, os, signal, sys, threading
import inferneo
from inferneo import EngineConfig, InferneoEngine
config = EngineConfig(model=os.environ["MODEL"], max_memory_gb=0.25, num_threads=2)
endless = {"max_tokens": 900, "ignore_eos": True}
"""


@pytest.mark.parametrize("body", [
    # Ctrl-C in the middle of asyncio.run: it raises there, and the process ends by itself.
    """
    async def main():
        async with InferneoEngine(config) as engine:
            tasks = [asyncio.ensure_future(engine.generate("Once", **endless)) for _ in range(4)]
            await engine.generate("Once", max_tokens=1)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.gather(*tasks)
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
    """,
    # An engine in a module's global, a thread that asks without end, an exception that nobody catches.
    """
    engine = InferneoEngine(config)
    engine.generate_sync("Once", max_tokens=1)
    def ask():
        while True:
            engine.generate_sync("Once", max_tokens=3)
    threading.Thread(target=ask, daemon=True).start()
    print("interrupted")
    sys.excepthook = lambda *_: None
    raise SystemExit(0)
    """,
    # Loops that close over running requests, many times.
    """
    engine = InferneoEngine(config)
    for _ in range(20):
        loop = asyncio.new_event_loop()
        task = loop.create_task(engine.generate("Once", **endless))
        loop.run_until_complete(engine.generate("Once", max_tokens=1))
        task.cancel()
        loop.close()
        del loop, task
        gc.collect()
    print("interrupted" if engine.generate_sync("Once", max_tokens=2).completion_tokens == 2 else "lost")
    """,
    # os.fork() out of a thread that is in the middle of a request; the child goes its own way.
    """
    engine = InferneoEngine(config)
    engine.generate_sync("Once", max_tokens=1)
    statuses = []
    def forks():
        pieces = engine.generate_stream_sync("Once", **endless)
        next(pieces)
        child = os.fork()
        if child == 0:
            os._exit(7 if InferneoEngine(config).generate_sync("Once", max_tokens=2).completion_tokens else 8)
        pieces.close()
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    threads = [threading.Thread(target=forks) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print("interrupted" if statuses == [7, 7, 7] else statuses)
    """,
    # Several engines, one of which is stopped in a loop of its own while others run, then an exit without a word.
    """
    engines = [InferneoEngine(config) for _ in range(3)]
    async def main():
        tasks = [asyncio.ensure_future(engine.generate("Once", **endless)) for engine in engines]
        await asyncio.gather(*(engine.generate("Once", max_tokens=1) for engine in engines))
        await engines[0].stop()
        print("interrupted", flush=True)
        os._exit(0) if len(sys.argv) > 9 else sys.exit(0)
    asyncio.run(main())
    """,
])
def test_ends_in_the_middle(draft, body):
    done = run_script(START + textwrap.dedent(body), draft)
    assert done.returncode == 0 and done.stdout == "interrupted\n", done.stdout + done.stderr
    assert not any(word in done.stderr for word in ("Fatal", "terminate", "Segmentation", "corrupt")), done.stderr


def test_a_signal_while_a_batch_runs(draft):
    done = run_script(START + """
llm = inferneo.LLM(os.environ["MODEL"], max_memory_gb=0.25, num_threads=2)
def interrupt():
    from inferneo import _native
    while _native.num_waits() == 0:
        pass
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    llm.generate(["Once"] * 100, **endless)
    print("not interrupted")
except KeyboardInterrupt:
    print(len(llm.generate(["a", "b"], max_tokens=2)))
""", draft)
    assert done.returncode == 0 and done.stdout == "2\n", done.stdout + done.stderr
