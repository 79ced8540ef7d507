"""inferneo.core.enhanced_engine: rules, tests, shadows and numbers, through the Python face."""
import asyncio
import pickle

import pytest

import inferneo
from inferneo.core.config import EngineConfig
from inferneo.core.enhanced_engine import (ABTestArm, ABTestConfig, EnhancedInferneoEngine, RequestOptions, RoutingOptions,
                                           RoutingRefusal, RoutingRule, ShadowConfig)

GREEDY = {"temperature": 0, "max_tokens": 3, "ignore_eos": True}
CODE_RULE = RoutingRule(name="code_routing", condition="prompt contains 'code'", model_name="code", priority=10)


@pytest.fixture
def make(settings, story, code):
    async def make_engine(*names):
        engine = EnhancedInferneoEngine(EngineConfig(enable_lazy_loading=True, **settings))
        for name in names:
            await engine.register_model(name, "1.0", {"story": story, "code": code}[name])
        return engine

    return make_engine


async def test_registering_starts_the_engine_and_rules_choose(make):
    engine = await make("story", "code")
    assert engine.is_running
    engine.add_routing_rule(CODE_RULE)
    assert (await engine.generate("some code", **GREEDY)).model == "code"
    assert (await engine.generate("a tale", **GREEDY)).model == "story"
    assert (await engine.generate("some code", model="story", **GREEDY)).model == "story"
    assert (await asyncio.to_thread(engine.generate_sync, "some code", **GREEDY)).model == "code"
    stream = engine.generate_stream("some code", **GREEDY)
    assert [chunk async for chunk in stream] and stream.result.model == "code"
    assert any("code_routing" in sentence for sentence in engine.explain("some code"))
    engine.replace_routing_rule(CODE_RULE.replace(enabled=False))
    assert (await engine.generate("some code", **GREEDY)).model == "story"
    engine.remove_routing_rule("code_routing")
    with pytest.raises(inferneo.NotFoundError):
        engine.remove_routing_rule("code_routing")
    engine.add_routing_rule(RoutingRule(name="no", condition="header['x-tier'] == 'none'",
                                        refusal=RoutingRefusal(status=429, message="not for you")))
    with pytest.raises(inferneo.ForbiddenError, match="not for you"):
        await engine.generate("x", options=RequestOptions(headers={"x-tier": "none"}), **GREEDY)
    await engine.stop()


async def test_what_is_added_before_the_start_waits_for_its_models(make, settings, story, code):
    engine = await make()
    engine.add_routing_rule(RoutingRule(name="to_test", condition="prompt contains 'test'", ab_test="comparison"))
    engine.add_routing_rule(CODE_RULE)
    engine.add_ab_test(ABTestConfig(name="comparison", model_a="story", model_b="code", traffic_split=0.3))
    assert not engine.is_running
    with pytest.raises(inferneo.AlreadyExistsError):
        engine.add_routing_rule(CODE_RULE)
    with pytest.raises(inferneo.InvalidArgumentError):
        engine.add_routing_rule(RoutingRule(name="bad", condition="prompt contains", model_name="code"))
    with pytest.raises(inferneo.InvalidArgumentError):
        engine.add_ab_test(ABTestConfig(name="bad", model_a="story", model_b="code", traffic_split=1.5))
    await engine.register_model("story", "1.0", story)
    with pytest.raises(inferneo.NotFoundError, match="comparison|code"):
        await engine.generate("a tale", **GREEDY)
    await engine.register_model("code", "1.0", code)
    assert (await engine.generate("some code", **GREEDY)).model == "code"
    stats = engine.get_stats()
    assert {rule["name"] for rule in stats["routing_rules"]} == {"code_routing", "to_test"}
    assert [test["name"] for test in stats["ab_tests"]] == ["comparison"]
    with pytest.raises(inferneo.NotFoundError):  # from here on at once
        engine.add_routing_rule(RoutingRule(name="other", condition="true", model_name="nobody"))
    await engine.stop()


async def test_ab_tests_are_sticky_and_counted(make):
    engine = await make("story", "code")
    engine.add_ab_test(ABTestConfig(name="comparison", model_a="story", model_b="code", traffic_split=0.5))
    seen = {}
    for user in "abcdefgh" * 2:
        model = (await engine.generate("hello", options=RequestOptions(user=user), **GREEDY)).model
        assert seen.setdefault(user, model) == model
    assert set(seen.values()) == {"story", "code"}
    [test] = engine.get_stats()["ab_tests"]
    assert test["state"] == "running" and sum(arm["requests"] for arm in test["arms"]) == 16
    forced = await engine.generate("hello", options=RequestOptions(user="a", forced_arm="B"), **GREEDY)
    assert forced.model == "code"
    engine.pause_ab_test("comparison")
    engine.resume_ab_test("comparison")
    engine.promote("comparison", "B")
    assert (await engine.generate("hello", options=RequestOptions(user="a"), **GREEDY)).model == "code"
    engine.remove_ab_test("comparison")
    with pytest.raises(inferneo.NotFoundError):
        engine.stop_ab_test("comparison")
    await engine.stop()


async def test_shadows_options_and_removal(make):
    engine = await make("story", "code")
    engine.add_shadow(ShadowConfig(name="next", model="story", shadow_model="code", share=1.0))
    engine.replace_shadow(ShadowConfig(name="next", model="story", shadow_model="code", share=0.5))
    assert [shadow["name"] for shadow in engine.get_stats()["shadows"]] == ["next"]
    engine.remove_shadow("next")
    engine.set_routing_options(RoutingOptions(default_model="code"))
    assert (await engine.generate("a tale", **GREEDY)).model == "code"
    engine.set_routing_options(RoutingOptions())
    await engine.remove_model("code:1.0")
    with pytest.raises(inferneo.NotFoundError):
        await engine.generate("a tale", model="code", **GREEDY)
    await engine.stop()


async def test_statistics(make):
    engine = EnhancedInferneoEngine(EngineConfig())
    assert engine.get_stats()["total_requests"] == 0 and not engine.is_running
    engine = await make("story")
    await engine.generate("a tale", **GREEDY)
    # An engine's own numbers are those of its last whole step, and the answer comes within one.
    for _ in range(1000):
        stats = engine.get_stats()
        if stats["model_metrics"]["story:1.0"]["generation_tokens"] == 3:
            break
        await asyncio.sleep(0.005)
    assert stats["requests_per_second"] > 0 and stats["total_requests"] == 1
    model = stats["model_metrics"]["story:1.0"]
    assert (model["state"], model["requests"], model["generation_tokens"], model["loads"]) == ("ready", 1, 3, 1)
    assert model["time_to_first_token"]["p95"] > 0
    assert 0 < stats["memory_used"] <= stats["memory_budget"]
    await engine.stop()


def test_definitions_are_plain_data():
    rule = RoutingRule(name="r", condition="true", models=["a", "b"], applies_to="all", refusal=None)
    assert repr(rule) == "RoutingRule(name='r', condition='true', models=['a', 'b'], applies_to='all')"
    assert pickle.loads(pickle.dumps(rule)) == rule
    test = ABTestConfig(name="t", arms=[ABTestArm(model="a"), ABTestArm(model="b", weight=3)], sticky_by="session",
                        primary_metric="error_rate")
    assert test.arms[1].weight == 3 and pickle.loads(pickle.dumps(test)) == test
    for make_bad, error, text in (
        (lambda: RoutingRule(nam="x"), ValueError, "did you mean 'name'"),
        (lambda: RoutingRule(priority="high"), TypeError, "RoutingRule.priority: expected int"),
        (lambda: RoutingRule(applies_to="some"), TypeError, "applies_to"),
        (lambda: ABTestConfig(primary_metric="speed"), TypeError, "primary_metric"),
        (lambda: ABTestConfig(arms=["a"]), TypeError, "ABTestConfig.arms"),
        (lambda: RoutingRule("positional"), TypeError, "incompatible"),
    ):
        with pytest.raises(error, match=text):
            make_bad()
