"""How long after a descriptor is ready a thread that reads it goes on, and how long after an event loop calls who watches
it, while a model's steps have the processor and its caches. What the loop takes longer is its own, whatever package wakes it.

  python benchmarks/latency/waking.py
"""
import argparse
import asyncio
import ctypes
import os
import pathlib
import statistics
import struct
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path += [str(ROOT / "build" / preset / "python") for preset in ("release", "dev", "ci")]

CLOCK_MONOTONIC, TFD_TIMER_ABSTIME = 1, 1  # of Linux; the clock is time.perf_counter()'s


class Timer:
    """A timerfd; Python's os has it from 3.13 on."""

    def __init__(self):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self._libc.timerfd_create(CLOCK_MONOTONIC, 0)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def start(self, seconds):
        """When it will be ready, by time.perf_counter()."""
        ready = time.perf_counter() + seconds
        value = struct.pack("@qqqq", 0, 0, int(ready), int(ready % 1 * 1e9))
        if self._libc.timerfd_settime(self.descriptor, TFD_TIMER_ABSTIME, value, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        return ready

    def read(self):
        os.read(self.descriptor, 8)


async def by_loop(timer, seconds):
    loop = asyncio.get_running_loop()
    called = loop.create_future()
    loop.add_reader(timer.descriptor, lambda: called.done() or called.set_result(time.perf_counter()))
    ready = timer.start(seconds)
    late = await called - ready
    loop.remove_reader(timer.descriptor)
    timer.read()
    return late


def by_thread(timer, seconds):
    ready = timer.start(seconds)
    timer.read()
    return time.perf_counter() - ready


async def measure(options):
    """Medians in milliseconds, of the thread and of the loop."""
    from inferneo import EngineConfig, InferneoEngine

    engine = InferneoEngine(EngineConfig(model=str(ROOT / "models" / "inferneo-story"), max_memory_gb=1.0))
    await engine.start()
    timer = Timer()
    loop = asyncio.get_running_loop()
    late = {False: [], True: []}
    try:
        for number in range(options.rounds):
            for with_loop in (False, True) if number % 2 == 0 else (True, False):
                steps = loop.run_in_executor(None, lambda: engine.generate_sync(f"{number} Once upon a time", temperature=0,
                                                                                 max_tokens=options.max_tokens, ignore_eos=True))
                await asyncio.sleep(0.001)
                late[with_loop].append(await by_loop(timer, options.seconds) if with_loop else by_thread(timer, options.seconds))
                if steps.done():
                    raise RuntimeError("the model's steps ended first: more --max-tokens, or less --seconds")
                await steps
    finally:
        await engine.stop()
    return [statistics.median(late[with_loop]) * 1e3 for with_loop in (False, True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="waits of each kind (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.004, help="of a wait (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=128, help="of the request meanwhile (%(default)s)")
    options = parser.parse_args()
    try:
        thread, loop = asyncio.run(measure(options))
    except (OSError, RuntimeError) as error:
        print(f"waking: {error}", file=sys.stderr)
        return 1
    print(f"beside a model's steps a thread goes on {thread:.3f} ms after its descriptor is ready, an event loop calls after "
          f"{loop:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
