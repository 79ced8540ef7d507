"""The engine from Python: start it, ask it, stream, many requests at once, its numbers.

  python examples/basic/basic_usage.py [MODEL] [PROMPT]

The package is found where it is installed, or in a build of this checkout.
"""
import asyncio
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path += [str(ROOT / "build" / preset / "python") for preset in ("release", "dev", "ci")]

from inferneo import bundled_model  # noqa: E402
from inferneo.core.config import EngineConfig  # noqa: E402
from inferneo.core.engine import InferneoEngine  # noqa: E402


async def main():
    model = sys.argv[1] if len(sys.argv) > 1 else bundled_model("inferneo-story")
    prompt = sys.argv[2] if len(sys.argv) > 2 else "Once upon a time"

    config = EngineConfig(model=model, max_memory_gb=1.0)
    engine = InferneoEngine(config)
    await engine.start()

    print(f"== one request: {prompt!r}")
    result = await engine.generate(prompt, max_tokens=40, temperature=0.8, seed=7)
    print(f"{prompt}{result}")
    print(f"   {result.completion_tokens} tokens, the first after {result.time_to_first_token * 1e3:.1f} ms, "
          f"all after {result.total_time:.2f} s")

    print("\n== the same, as it comes")
    print(prompt, end="", flush=True)
    async for chunk in engine.generate_stream(prompt, max_tokens=40, temperature=0.8, seed=7):
        print(chunk, end="", flush=True)
    print()

    print("\n== eight at once")
    begin = time.perf_counter()
    results = await asyncio.gather(*(engine.generate(prompt, max_tokens=20, seed=seed) for seed in range(8)))
    seconds = time.perf_counter() - begin
    tokens = sum(result.completion_tokens for result in results)
    for result in results[:3]:
        print(f"- {prompt}{result}".replace("\n", " "))
    print(f"  ... {tokens} tokens in {seconds:.2f} s: {tokens / seconds:.0f} tokens/s")

    print("\n== one that is cancelled")
    task = asyncio.create_task(engine.generate(prompt, max_tokens=500, ignore_eos=True))
    await asyncio.sleep(0.05)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("its place in the batch is free again")

    await engine.stop()


if __name__ == "__main__":
    asyncio.run(main())
