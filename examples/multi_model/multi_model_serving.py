"""Several models behind one engine: each request is routed by rules, enters an A/B test, and is measured.

  python examples/multi_model/multi_model_serving.py

The package is found where it is installed, or in a build of this checkout.
"""
import asyncio
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path += [str(ROOT / "build" / preset / "python") for preset in ("release", "dev", "ci")]

from inferneo import bundled_model  # noqa: E402
from inferneo.core.config import EngineConfig  # noqa: E402
from inferneo.core.enhanced_engine import ABTestConfig, EnhancedInferneoEngine, RequestOptions, RoutingRule  # noqa: E402


async def main():
    engine = EnhancedInferneoEngine(EngineConfig(max_memory_gb=1.0))
    for name, folder in (("story", "inferneo-story"), ("draft", "inferneo-story-draft"), ("code", "inferneo-code")):
        model_id = await engine.register_model(name, "1.0", bundled_model(folder))
        print(f"registered {model_id}; it is loaded at its first request")

    engine.add_routing_rule(RoutingRule(name="code_routing", condition="prompt contains 'function'", model_name="code",
                                        priority=10))
    engine.add_ab_test(ABTestConfig(name="model_comparison", model_a="story", model_b="draft", traffic_split=0.3))

    print("\n== why a request goes where")
    for sentence in engine.explain("Write a Python function"):
        print(f"   {sentence}")

    print("\n== who answers")
    for prompt in ("Write a Python function", "Once upon a time"):
        result = await engine.generate(prompt, max_tokens=24, seed=3)
        print(f"   {result.model}: {prompt}{result.text}".replace("\n", "\n      "))

    print("\n== twenty users of whom 30 % try the other storyteller; the same user always gets the same one")
    results = await asyncio.gather(*(
        engine.generate("Once upon a time", max_tokens=12, options=RequestOptions(user=f"user-{number}"))
        for number in range(20)))
    for name in ("story", "draft"):
        print(f"   {name}: {sum(result.model == name for result in results)} users")

    print("\n== numbers")
    stats = engine.get_stats()
    print(f"   requests per second: {stats['requests_per_second']:.1f}")
    for model_id, numbers in stats["model_metrics"].items():
        print(f"   {model_id:<12} {numbers['state']:<9} {numbers['requests']:>3} requests, first token after "
              f"{numbers['mean_time_to_first_token'] * 1e3:.1f} ms on average, {numbers['memory_bytes'] / 2**20:.1f} MiB")
    for test in stats["ab_tests"]:
        print(f"   {test['name']}: {test['verdict']}")
    await engine.stop()


if __name__ == "__main__":
    asyncio.run(main())
