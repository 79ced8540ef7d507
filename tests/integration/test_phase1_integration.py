"""The whole workflow as documents show it, word for word. The names that they use are served from a hub cache and from
folders that the fixtures make of the bundled models."""
import pytest

import inferneo


@pytest.fixture
def small(settings):
    """What keeps these engines small, beside what a snippet says."""
    return {"max_memory_gb": settings["max_memory_gb"], "num_threads": 2, "max_num_batched_tokens": 256}


async def test_model_manager_snippet(working_folder):
    from inferneo.models.manager import ModelFormat, ModelManager

    manager = ModelManager(max_models=5, max_memory_gb=16.0, enable_lazy_loading=True)
    model_id = await manager.register_model(name="gpt-3.5-turbo", version="1.0", path="models/gpt-3.5-turbo",
                                            format=ModelFormat.HUGGINGFACE)
    assert manager.model_info(model_id).state == "unloaded"
    model = await manager.load_model(model_id)
    assert (await model.generate("Once upon a time", max_tokens=2, ignore_eos=True)).completion_tokens == 2
    model = await manager.get_model("gpt-3.5-turbo")
    assert model.id == "gpt-3.5-turbo:1.0"
    await manager.close()


async def test_enhanced_engine_snippet(working_folder, small):
    from inferneo.core.config import EngineConfig
    from inferneo.core.enhanced_engine import ABTestConfig, EnhancedInferneoEngine, RoutingRule

    config = EngineConfig(model="models/code-llama", enable_lazy_loading=True, **small)
    engine = EnhancedInferneoEngine(config)
    engine.add_routing_rule(RoutingRule(name="code_routing", condition="prompt contains 'code'", model_name="code-llama",
                                        priority=10))
    engine.add_ab_test(ABTestConfig(name="model_comparison", model_a="gpt-3.5-turbo", model_b="code-llama",
                                    traffic_split=0.3))
    await engine.register_model("gpt-3.5-turbo", "1.0", "models/gpt-3.5-turbo")
    result = await engine.generate("Write a Python function", max_tokens=8)
    assert result.completion_tokens > 0
    stats = engine.get_stats()
    print(f"Requests per second: {stats['requests_per_second']}")
    print(f"Model metrics: {stats['model_metrics']}")
    assert stats["requests_per_second"] > 0
    assert set(stats["model_metrics"]) == {"gpt-3.5-turbo:1.0", "code-llama:1"}
    await engine.stop()


async def test_multi_model_snippet(working_folder, small):
    from inferneo.core.config import EngineConfig
    from inferneo.core.enhanced_engine import ABTestConfig, EnhancedInferneoEngine, RoutingRule

    config = EngineConfig(**small)
    code_rule = RoutingRule(name="code_routing", condition="prompt contains 'function'", model_name="code-llama")
    ab_test = ABTestConfig(name="model_comparison", model_a="gpt-3.5-turbo", model_b="code-llama", traffic_split=0.3)
    engine = EnhancedInferneoEngine(config)
    await engine.register_model("gpt-3.5-turbo", "1.0", "models/gpt-3.5-turbo")
    await engine.register_model("code-llama", "1.0", "models/code-llama")
    engine.add_routing_rule(code_rule)
    engine.add_ab_test(ab_test)
    result = await engine.generate("Write a Python function", max_tokens=8)
    assert result.model == "code-llama"
    await engine.stop()


async def test_engine_snippet(hub_cache, small):
    from inferneo.core.config import EngineConfig
    from inferneo.core.engine import InferneoEngine

    config = EngineConfig(model="meta-llama/Llama-2-7b-chat-hf", max_model_len=4096, gpu_memory_utilization=0.9,
                          enable_cuda_graph=True, enable_paged_attention=True, enable_speculative_decoding=True, **small)
    engine = InferneoEngine(config)
    await engine.start()
    result = await engine.generate("Hello, world!", max_tokens=8, min_tokens=4)
    await engine.stop()
    assert result.model == "meta-llama/Llama-2-7b-chat-hf" and result.text


async def test_environment_snippet(hub_cache, small, monkeypatch):
    from inferneo.core.config import EngineConfig

    monkeypatch.setenv("INFERNEO_MODEL", "meta-llama/Llama-2-7b-chat-hf")
    monkeypatch.setenv("INFERNEO_MAX_MODEL_LEN", "4096")
    monkeypatch.setenv("INFERNEO_GPU_MEMORY_UTIL", "0.9")
    config = EngineConfig(**small)
    assert (config.model, config.max_model_len) == (["meta-llama/Llama-2-7b-chat-hf"], 4096)
    async with inferneo.InferneoEngine(config) as engine:
        assert (await engine.generate("Hello, world!", max_tokens=2)).completion_tokens > 0


async def test_transformers_model_snippet(hub_cache, small):
    from inferneo.core.config import EngineConfig
    from inferneo.models.transformers import TransformersModel

    config = EngineConfig(**small)
    model = TransformersModel("meta-llama/Llama-2-7b-chat-hf", config)
    await model.initialize(config)
    result = await model.generate("Hello, world!", max_tokens=8, min_tokens=4)
    assert result.text
    await model.initialize(config)
    await model.stop()


async def test_formats_can_be_imported_everywhere():
    from inferneo.models.onnx import ONNXConverter, ONNXModel  # noqa: F401
    from inferneo.models.tensorrt import TensorRTModel

    with pytest.raises(inferneo.UnsupportedError):
        TensorRTModel("model.trt", None)
