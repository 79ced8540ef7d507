"""inferneo.models: registering, loading, versions, memory; formats that are not there."""
import asyncio

import pytest

import inferneo
from inferneo.core.config import EngineConfig
from inferneo.models.manager import ModelFormat, ModelManager


def manager_of(settings, **options):
    config = EngineConfig(num_threads=settings["num_threads"], max_num_batched_tokens=256)
    return ModelManager(max_memory_gb=settings["max_memory_gb"], config=config, **options)


async def until(condition):
    """What the manager's own thread does soon after a call."""
    while not condition():
        await asyncio.sleep(0.005)


async def test_models_load_when_they_are_asked_for(settings, story, draft):
    async with manager_of(settings, max_models=5) as manager:
        model_id = await manager.register_model("story", "1.0", story, format=ModelFormat.HUGGINGFACE, aliases=["tale"])
        assert model_id == "story:1.0"
        info = manager.model_info("tale")
        assert (info.state, info.load_count, info.aliases, info.active) == ("unloaded", 0, ["tale"], True)
        assert manager.memory_used == 0 and manager.memory_budget == 256 << 20
        model, again = await asyncio.gather(manager.load_model(model_id), manager.get_model("tale"))
        assert model.id == again.id == "story:1.0"
        result = await model.generate("Once upon a time", temperature=0, max_tokens=4)
        assert result.completion_tokens == 4
        assert [str(c) async for c in model.generate_stream("Once upon a time", temperature=0, max_tokens=4)]
        while (info := manager.model_info("story")).leases > 2:  # the request lets go after it has told its end
            await asyncio.sleep(0.001)
        assert (info.state, info.load_count, info.leases) == ("ready", 1, 2)
        assert info.memory_bytes > 0 and info.format == ModelFormat.HUGGINGFACE
        model.release()
        with pytest.raises(inferneo.UnavailableError):
            await model.generate("Once")
        await until(lambda: manager.model_info("story").leases == 1)
        again.release()
        with pytest.raises(inferneo.UnsupportedError, match="story:1.0 computes on the CPU"):
            await manager.sleep("story")
        await manager.wake_up("story")  # it is awake
        assert manager.model_info("story").sleep_bytes == 0
        await manager.unload_model("story")
        await until(lambda: manager.model_info("story").state == "unloaded")
        for moved in (manager.sleep, manager.wake_up):
            with pytest.raises(inferneo.ConflictError):
                await moved("story")
        await manager.remove_model("story:1.0")
        assert manager.list_models() == []


async def test_without_lazy_loading_registering_loads(settings, draft, tmp_path):
    async with manager_of(settings, enable_lazy_loading=False) as manager:
        await manager.register_model("draft", path=draft)
        assert manager.model_info("draft").state == "ready"
        with pytest.raises(inferneo.InferneoError):
            await manager.register_model("bad", path=str(tmp_path / "absent"))
        assert [info.id for info in manager.list_models()] == ["draft:1"]


async def test_one_makes_room_for_another_but_not_while_it_is_held(settings, story, draft):
    async with manager_of(settings, max_models=1) as manager:
        await manager.register_model("a", path=draft)
        await manager.register_model("b", path=story)
        async with await manager.load_model("a"):
            waiting = asyncio.create_task(manager.load_model("b"))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        (await waiting).release()
        assert manager.model_info("a").state == "unloaded"
        held = await manager.load_model("b")
        waiting = asyncio.create_task(manager.load_model("a"))
        await asyncio.sleep(0)
        waiting.cancel()  # its lease, should it come, is nobody's
        with pytest.raises(asyncio.CancelledError):
            await waiting
        held.release()
        (await manager.load_model("b")).release()


async def test_versions_and_aliases(settings, story, draft):
    async with manager_of(settings) as manager:
        await manager.register_model("m:1", path=draft)
        await manager.register_model("m", "2", story)
        await manager.switch_version("m", "1")
        assert manager.model_info("m").version == "1" and manager.model_info("m:1").state == "ready"
        await manager.switch_version("m", "2")
        assert manager.model_info("m").version == "2"
        await manager.rollback("m")
        assert manager.model_info("m").version == "1"
        manager.set_alias("it", "m:2")
        assert manager.model_info("it").id == "m:2"
        manager.remove_alias("it")
        manager.pin("m:1")
        assert manager.model_info("m:1").pinned
        manager.set_keep_alive("m:1", -1)
        manager.set_keep_alive("m:1", None)
        for call in (lambda: manager.model_info("it"), lambda: manager.pin("nobody"), lambda: manager.remove_alias("x")):
            with pytest.raises(LookupError):
                call()
        with pytest.raises(inferneo.AlreadyExistsError):
            await manager.register_model("m", "2", story)
        with pytest.raises(inferneo.NotFoundError):
            await manager.load_model("nobody")
        with pytest.raises(inferneo.InvalidArgumentError, match="no field 'alias', did you mean 'aliases'"):
            await manager.register_model("x", path=story, alias=["y"])
        with pytest.raises(inferneo.InferneoError):
            await manager.switch_version("m", "9")


async def test_a_registry_file_remembers_and_belongs_to_one(settings, draft, tmp_path):
    file = str(tmp_path / "registry.db")
    async with manager_of(settings, registry=file) as manager:
        await manager.register_model("kept", "3", draft)
        with pytest.raises(inferneo.InferneoError):
            manager_of(settings, registry=file)
    async with manager_of(settings, registry=file) as manager:
        assert [info.id for info in manager.list_models()] == ["kept:3"]


async def test_what_never_fits_and_what_is_closed(settings, story):
    config = EngineConfig(num_threads=2)
    async with ModelManager(max_memory_gb=0.001, config=config) as manager:
        await manager.register_model("m", path=story)
        with pytest.raises(MemoryError):
            await manager.load_model("m")
    for call in (manager.list_models, lambda: manager.pin("m"), lambda: manager.load_model_sync("m")):
        with pytest.raises(inferneo.UnavailableError, match="closed"):
            call()
    with pytest.raises(ValueError):
        ModelManager(max_models=-1)


async def test_a_model_may_outlive_its_manager(settings, draft):
    manager = manager_of(settings)
    await manager.register_model("m", path=draft)
    model = await manager.load_model("m")
    await manager.close()
    with pytest.raises(inferneo.UnavailableError):
        await model.generate("Once")
    del manager, model


async def test_formats_that_are_not_there_say_so(settings, draft):
    from inferneo.models.tensorrt import TensorRTModel

    with pytest.raises(NotImplementedError, match="this build of Inferneo has no TensorRT runner"):
        TensorRTModel("model.trt", None)
