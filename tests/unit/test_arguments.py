"""What is given wrongly is refused with words that help: which argument, what it takes, what to do."""
import copy
import inspect
import pickle

import pytest

import inferneo
from inferneo import (LLM, EngineConfig, EnhancedInferneoEngine, InferneoEngine, InvalidArgumentError, ModelManager, RequestOptions,
                      SamplingParams)
from inferneo._native import ModelRegistration, RoutingOptions


@pytest.mark.parametrize("prompts, words", [
    ({"prompt_token_ids": [1, 2]}, "prompts: expected a str or several"), ({"prompt": "a"}, "prompts: expected a str or several"),
    (b"abc", "prompts: expected a str or several"), (None, "prompts: expected a str or several"),
    (["a", 3], r"prompts\[1\]: expected str, got 3"), (["a", "b\ud800"], r"prompts\[1\]: half a surrogate")])
def test_prompts_are_texts(settings, draft, prompts, words):
    with LLM(draft, **settings) as llm:
        with pytest.raises((TypeError, InvalidArgumentError), match=words):
            llm.generate(prompts, max_tokens=1)
        with pytest.raises((TypeError, InvalidArgumentError), match=words.replace("prompts", "texts")):
            llm.embed(prompts)


def test_an_error_of_a_batch_says_which_prompt(settings, draft):
    with LLM(draft, **settings) as llm:
        with pytest.raises(inferneo.ContextTooLongError, match=r"^prompts\[2\]: "):
            llm.generate(["a", "b", "word " * 5000], max_tokens=1)
        assert llm.generate(["a", "b"], max_tokens=1)[1].completion_tokens == 1
    with pytest.raises(inferneo.UnavailableError, match="closed"):
        llm.generate("a")


@pytest.mark.parametrize("call, words", [
    (lambda: InferneoEngine("models/x"), r"EngineConfig\(model='models/x'\)"), (lambda: LLM(5), "model: expected a directory"),
    (lambda: InferneoEngine(model="x"), r"no argument 'model'; InferneoEngine\(EngineConfig\(model=...\)\)"),
    (lambda: LLM("models/\ud800"), "model: half a surrogate"), (lambda: EngineConfig(routing_rules=[5]), r"routing_rules\[0\]: expected RoutingRule"),
    (lambda: EngineConfig(ab_tests="x"), "ab_tests: expected a list of ABTestConfig"), (lambda: EngineConfig(max_model_len=[1, 2]), "max_model_len: expected"),
    (lambda: ModelManager(config=5), "config: expected EngineConfig"), (lambda: ModelManager(max_models="x"), "max_models: expected"),
    (lambda: RequestOptions(user=5), "RequestOptions.user: expected str"), (lambda: RequestOptions(headers={"a": 1}), r"headers\['a'\]: expected str"),
    (lambda: inferneo.bundled_model(None), "name: expected str"),
    (lambda: inferneo.set_log_level(None), "level: expected str"), (lambda: inferneo.set_log_level(10), "level: expected str"),
    (lambda: SamplingParams(seed=-5), "seed: expected 0 to 18446744073709551615, got -5"), (lambda: SamplingParams(seed=2**64), "seed: expected 0 to"),
    (lambda: SamplingParams(max_tokens=10**30), "max_tokens: expected .* to 2147483647, got 1000"), (lambda: SamplingParams(seed="x"), "expected int | None")])
def test_what_is_made_with_wrong_values(call, words):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        call()
    assert "incompatible" not in str(caught.value)


async def test_what_is_asked_with_wrong_values(settings, draft):
    async with EnhancedInferneoEngine(EngineConfig(model=draft, **settings)) as engine:
        for call, words in ((lambda: engine.add_routing_rule({"name": "x"}), "rule: expected RoutingRule"),
                            (lambda: engine.set_routing_options({}), "options: expected RoutingOptions"),
                            (lambda: engine.add_shadow(5), "config: expected ShadowConfig"), (lambda: engine.explain("x", {}), "options: expected RequestOptions"),
                            (lambda: engine.generate_sync("x", model=5), "model: expected str"), (lambda: engine.promote("x", 5), "arm: expected str"),
                            (lambda: engine.generate_sync("x", sampling_params=SamplingParams()), "argument is called sampling")):
            with pytest.raises(TypeError, match=words):
                call()
        assert (await engine.generate("a", model=None, max_tokens=1)).completion_tokens == 1
        with pytest.raises(InvalidArgumentError, match="token -1; tokens are numbered from 0"):
            await engine.generate("a", stop_token_ids=[-1])
        with pytest.raises(InvalidArgumentError, match="^regex: .*unclosed group") as caught:
            await engine.generate("a", regex="(")
        assert caught.value.param == "regex"
        one, several = [await engine.generate("Once", temperature=0, max_tokens=40, stop=stop) for stop in ("a", ["a"])]
        assert one.text == several.text and "a" not in one.text
    async with InferneoEngine(EngineConfig(model=draft, **settings)) as plain:
        assert (await plain.generate("a", model=None, max_tokens=1)).completion_tokens == 1
        with pytest.raises(TypeError, match="model: expected str, got 5"):
            await plain.generate("a", model=5)


def test_names_of_the_managers_calls(settings):
    with ModelManager(config=EngineConfig(**settings)) as manager:
        for call, words in ((lambda: manager.load_model_sync(None), "name: expected str, got None"), (lambda: manager.load_model_sync(""), "name of a model"),
                            (lambda: manager.set_keep_alive("m", 1.5), "seconds: expected int, got 1.5"), (lambda: manager.pin(None), "name: expected str"),
                            (lambda: manager.register_model_sync("m", path=None), "path: expected a path or a hub id")):
            with pytest.raises((TypeError, InvalidArgumentError), match=words):
                call()
        assert "bytes used" in repr(manager)
    assert repr(manager) == "<ModelManager, closed>"


def test_a_manager_takes_its_limits_from_the_configuration(monkeypatch, settings, draft):
    with ModelManager(config=EngineConfig(**settings)) as manager:
        assert manager.memory_budget == 2**28 and manager.config.enable_lazy_loading and manager.config.max_models == 0
    with ModelManager(max_memory_gb=0.125, max_models=3, config=EngineConfig(**settings)) as manager:
        assert manager.memory_budget == 2**27 and manager.config.max_models == 3
    monkeypatch.setenv("INFERNEO_MAX_MEMORY_GB", "0.125")
    monkeypatch.setenv("INFERNEO_ENABLE_LAZY_LOADING", "false")
    with ModelManager() as manager:
        assert manager.memory_budget == 2**27 and not manager.config.enable_lazy_loading
        manager.register_model_sync("story", path=draft)
        assert [info.state for info in manager.list_models()] == ["ready"]


def test_the_registry_of_a_configuration(tmp_path, settings, draft):
    config = EngineConfig(registry=tmp_path / "registry", **settings)
    for known in ([], ["story:1"]):
        with ModelManager(config=config) as manager:
            assert [info.id for info in manager.list_models()] == known
            if not known:
                manager.register_model_sync("story", path=draft)


def test_a_log_level_that_is_the_default_is_set_as_well(monkeypatch, settings, draft):
    levels = []
    monkeypatch.setattr("inferneo._native.set_log_level", levels.append)
    InferneoEngine(EngineConfig(model=draft, **settings))
    InferneoEngine(EngineConfig(model=draft, log_level="info", **settings))
    InferneoEngine(pickle.loads(pickle.dumps(EngineConfig(log_level="info"))))
    monkeypatch.setenv("INFERNEO_LOG_LEVEL", "info")
    InferneoEngine(EngineConfig(model=draft, **settings))
    assert levels == ["info"] * 3


def test_two_constraints_are_an_error():
    for fields in ({"regex": "a", "choices": ["yes"]}, {"choices": ["yes"], "regex": "a"}, {"json_object": True, "grammar": "start: \"a\""}):
        with pytest.raises(InvalidArgumentError, match="two constraints"):
            SamplingParams(**fields)
    base = SamplingParams(json_object=True)
    with pytest.raises(InvalidArgumentError, match="regex and json_object are two constraints"):
        base.replace(regex="a")
    assert base.replace(regex="a", json_object=False) == SamplingParams(regex="a")
    assert SamplingParams(regex="a").replace(regex="b").regex == "b"
    assert SamplingParams(regex="a", choices=[], json_object=False, grammar=None).regex == "a"


async def test_results_can_be_pickled_copied_and_compared(settings, draft):
    async with InferneoEngine(EngineConfig(model=draft, **settings)) as engine:
        first = await engine.generate("Once", max_tokens=3, seed=1, n=2, logprobs=2, prompt_logprobs=1)
        other = await engine.generate("Twice", max_tokens=3, seed=1)
        rows = await engine.generate("Once", prompt_rows="hidden")
    for result in (first, other, rows):
        for again in (pickle.loads(pickle.dumps(result)), copy.copy(result), copy.deepcopy(result)):
            assert again == result and again is not result and repr(again) == repr(result)
    assert first != other and first != "text" and first.samples[0] == copy.copy(first).samples[0]
    assert copy.copy(first.samples[0].logprobs[0]) == first.samples[0].logprobs[0]
    numpy = pytest.importorskip("numpy")
    assert numpy.array_equal(pickle.loads(pickle.dumps(rows)).prompt_rows, rows.prompt_rows) and rows != first
    with ModelManager(config=EngineConfig(**settings)) as manager:
        manager.register_model_sync("story", path=draft)
        info = manager.model_info("story")
        assert pickle.loads(pickle.dumps(info)) == info and info != 3


def test_plain_data_tells_its_defaults():
    assert inspect.signature(SamplingParams).parameters["temperature"].default == SamplingParams().temperature
    for cls in (SamplingParams, ModelRegistration, RoutingOptions):
        assert cls(**cls.__defaults__) == cls()


def test_a_configuration_in_use_does_not_change_and_shows_what_was_set(settings, draft):
    config = EngineConfig(model=draft, **settings)
    engine = InferneoEngine(config)
    with pytest.raises(AttributeError, match=r"config.replace\(max_model_len=...\)"):
        engine.config.max_model_len = 8
    config.max_model_len = 8  # one's own is one's own
    assert engine.config.max_model_len != 8 and engine.config.replace(max_model_len=8) == config
    assert repr(EngineConfig(model="x", use_environment=False)) == "EngineConfig(model=['x'])"
    assert "not started" in repr(engine) and draft in repr(engine)
    assert repr(inferneo.QueueFullError("full", "", 3)) == "QueueFullError('full', retry_after=3)"


def test_a_misspelt_path_is_not_only_a_hub_id(tmp_path, monkeypatch, settings):
    (tmp_path / "models" / "story").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(inferneo.NotFoundError, match="no directory of that name here, did you mean 'models/story'?"):
        LLM("models/stroy", **settings)
    with pytest.raises(inferneo.NotFoundError, match="no bundled model"):
        inferneo.bundled_model("../models/inferneo-story")
    with pytest.raises(inferneo.NotFoundError, match="no such directory"):
        LLM("./models/../models/nope", **settings)
    with pytest.raises(inferneo.NotFoundError, match=r"inferneo.bundled_model\('inferneo-story'\)"):
        LLM("inferneo-story", **settings)
