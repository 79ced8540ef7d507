"""Starts that several wait for, that are given up, and streams that several read."""
import asyncio
import os
import subprocess
import sys
import textwrap
import threading

import pytest

import inferneo
from inferneo import EngineConfig, InferneoEngine


class SlowStart:
    """Stands for a native engine whose start fails when the test says so."""

    def __init__(self):
        self.starts = 0
        self.begun = threading.Event()
        self.may_fail = threading.Event()

    def start(self, starter):
        self.starts += 1
        self.begun.set()
        assert self.may_fail.wait(60)
        raise inferneo.UnavailableError(f"start {self.starts} failed")

    def stop(self):
        pass

    def end(self):
        self.may_fail.set()


def slow_engine():
    engine = InferneoEngine(EngineConfig(use_environment=False))
    engine._native = SlowStart()
    return engine, engine._native


async def test_all_who_wait_share_one_start_and_its_error():
    engine, native = slow_engine()
    tasks = [asyncio.create_task(engine.generate("a")) for _ in range(50)]
    while not native.begun.is_set():
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)
    tasks.append(asyncio.create_task(engine.start()))
    await asyncio.sleep(0)
    tasks[0].cancel()  # one that goes takes nothing from the others
    await asyncio.sleep(0)
    native.may_fail.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert [str(answer) for answer in answers[1:]] == ["start 1 failed"] * 50 and native.starts == 1
    with pytest.raises(inferneo.UnavailableError, match="start 2 failed"):
        await engine.generate("a")


def test_a_start_that_nobody_waits_for_any_more_keeps_no_loop():
    engine, native = slow_engine()

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(engine.generate("a"), 0.05)

    asyncio.run(main())  # would wait for the executor's threads
    assert native.starts == 1 and not native.may_fail.is_set()
    engine.end()


def test_a_server_that_never_answers_keeps_no_loop_and_no_interpreter(tmp_path):
    script = tmp_path / "ask.py"
    script.write_text(textwrap.dedent("""
        import asyncio, socket
        from inferneo import InferneoEngine
        server = socket.create_server(("127.0.0.1", 0))
        async def main():
            engine = InferneoEngine(url=f"http://127.0.0.1:{server.getsockname()[1]}")
            try:
                await asyncio.wait_for(engine.generate("a"), 0.2)
            except asyncio.TimeoutError:
                print("late", flush=True)
        asyncio.run(main())
    """))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "late\n" and done.returncode == 0, done.stderr


async def test_two_consumers_of_one_stream_both_end(settings, draft):
    async with InferneoEngine(EngineConfig(model=draft, **settings)) as engine:
        stream = engine.generate_stream("Once", max_tokens=8, temperature=0)

        async def read():
            return [str(chunk) async for chunk in stream]

        parts = await asyncio.wait_for(asyncio.gather(read(), read(), read()), 60)
        assert stream.result is not None and sum(map(len, parts)) >= 1
        assert len("".join("".join(part) for part in parts)) == len(stream.result.text)
        failing = engine.generate_stream("Once", model="nobody")

        async def fail():
            return [str(chunk) async for chunk in failing]

        ends = await asyncio.wait_for(asyncio.gather(fail(), fail(), return_exceptions=True), 60)
        assert any(isinstance(end, inferneo.NotFoundError) for end in ends)
        one, two = [asyncio.create_task(read()) for _ in range(2)]
        stream = engine.generate_stream("Once", max_tokens=900, ignore_eos=True)
        await asyncio.sleep(0.05)
        one.cancel()
        await asyncio.wait_for(asyncio.wait([one, two]), 60)


def test_ctrl_c_gives_a_start_up(tmp_path):
    # A hub that takes the connection and never answers.
    script = tmp_path / "load.py"
    script.write_text(textwrap.dedent("""
        import socket, sys, time, os, signal, threading
        import inferneo
        hub = socket.create_server(("127.0.0.1", 0))
        def interrupt():
            connection, _ = hub.accept()
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt, daemon=True).start()
        try:
            inferneo.LLM("org/model", hub_endpoint=f"http://127.0.0.1:{hub.getsockname()[1]}", hub_offline=False,
                         hub_cache=sys.argv[1], max_memory_gb=0.25)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """))
    done = subprocess.run([sys.executable, script, str(tmp_path / "cache")], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "INFERNEO_HOME": str(tmp_path)})
    assert done.stdout == "interrupted\n" and done.returncode == 0, done.stderr
