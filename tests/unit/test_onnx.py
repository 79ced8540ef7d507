"""Conversions and ONNX models through the Python face."""
import asyncio
import json
import pathlib
import threading

import pytest

import inferneo
from inferneo import _bridge
from inferneo.core.config import EngineConfig
from inferneo.models.onnx import ConvertedModel, ONNXConverter, ONNXModel, OnnxOperators, Precision


def run_or_skip(error):
    if "ONNX Runtime" in str(error) and isinstance(error, inferneo.UnsupportedError):
        pytest.skip(f"no ONNX Runtime here: {error}")
    raise error


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The smallest bundled model as ONNX in f32, as the command of the documents makes it."""
    draft = pathlib.Path(__file__).resolve().parents[2] / "models" / "inferneo-story-draft"
    output = tmp_path_factory.mktemp("onnx") / "model.onnx"
    done = ONNXConverter(EngineConfig(max_memory_gb=0.25)).convert_model(draft, output, precision=Precision.FLOAT32,
                                                                         verify=False)
    assert isinstance(done, ConvertedModel)
    return done


def test_a_conversion_says_what_it_has_written(converted):
    folder = pathlib.Path(converted.path)
    assert (folder / "model.onnx").stat().st_size == converted.graph_bytes > 0
    assert (folder / "model.onnx.data").stat().st_size == converted.data_bytes > converted.graph_bytes
    assert (folder / "genai_config.json").is_file()
    assert converted.max_model_len > 0 and converted.seconds > 0
    assert not converted.verification.done and converted.verification.reason
    with pytest.raises(TypeError):
        ConvertedModel()


async def test_a_converted_model_answers_as_the_native_one(converted, settings, draft):
    ask = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0.0, "logprobs": 1}
    async with inferneo.InferneoEngine(EngineConfig(model=draft, **settings)) as native:
        expected = (await native.generate(**ask)).samples[0]
    model = ONNXModel(converted.path, EngineConfig(**settings))
    try:
        await model.initialize()
    except inferneo.UnsupportedError as error:
        run_or_skip(error)
    got = (await model.generate(**ask)).samples[0]
    await model.stop()
    # The native one computes in bf16; where two tokens are as likely as each other, the texts may part.
    assert got.logprobs[0].logprob == pytest.approx(expected.logprobs[0].logprob, abs=0.05)
    assert got.tokens[0] == expected.tokens[0]
    assert len(got.tokens) == len(expected.tokens)
    assert repr(model) == f"ONNXModel({converted.path!r})"


def test_options_are_their_names_too(converted, draft, tmp_path):
    done = ONNXConverter().convert_model(draft, tmp_path / "a", precision="int8", operators="standard-21", verify=False)
    assert done.data_bytes < converted.data_bytes / 2
    for arguments, field in (({"precision": "int3"}, "precision"), ({"operators": "opset-9"}, "operators")):
        with pytest.raises(inferneo.InvalidArgumentError, match=f"{field}: expected one of") as refusal:
            ONNXConverter().convert_model(draft, tmp_path / "b", **arguments)
        assert refusal.value.param == field
    with pytest.raises(inferneo.InvalidArgumentError):
        ONNXConverter().convert_model(draft, tmp_path / "b", block_size=7)
    with pytest.raises(TypeError):
        ONNXConverter().convert_model(draft, tmp_path / "b", max_model_len="long")
    with pytest.raises(inferneo.AlreadyExistsError):
        ONNXConverter().convert_model(draft, done.path, verify=False)
    with pytest.raises(inferneo.NotFoundError):
        ONNXConverter().convert_model(tmp_path / "nothing", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_progress_is_told_and_what_it_raises_ends_the_conversion(draft, tmp_path):
    told = []
    ONNXConverter().convert_model(draft, tmp_path / "a", verify=False, on_progress=lambda *now: told.append(now))
    writing = [(done, total) for stage, done, total in told if stage == "writing weights"]
    assert writing and writing[-1][0] == writing[-1][1] > 0
    assert writing == sorted(writing)

    class Enough(Exception):
        pass

    def stop(*_):
        raise Enough

    with pytest.raises(Enough):
        ONNXConverter().convert_model(draft, tmp_path / "b", on_progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


async def test_a_cancelled_task_ends_its_conversion(draft, tmp_path):
    began, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    told = []

    def tell(*now):
        told.append(now)
        loop.call_soon_threadsafe(began.set)
        go_on.wait(60)

    converter = ONNXConverter()
    task = asyncio.create_task(converter.convert_model_async(draft, tmp_path / "model", on_progress=tell))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await asyncio.to_thread(converter.end)  # waits for what still runs
    assert len(told) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(inferneo.UnavailableError):
        converter.convert_model(draft, tmp_path / "model")


GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


async def started(model):
    try:
        await model.initialize()
    except inferneo.UnsupportedError as error:
        run_or_skip(error)
    return model


async def test_a_graph_of_embeddings_gives_the_vectors_of_its_route(settings):
    np = pytest.importorskip("numpy", reason="embeddings come as numpy arrays")
    answers = json.loads((GOLDEN / "onnx_embedding" / "golden.json").read_text())["answers"]
    texts = [row["text"] for row in answers]
    wanted = np.array([row["normalized"] for row in answers], np.float32)
    model = await started(ONNXModel(GOLDEN / "onnx_embedding" / "rows", EngineConfig(**settings, onnx_check="never")))
    vectors = await model.embed(texts)
    assert vectors.dtype == np.float32 and vectors.shape == wanted.shape and np.abs(vectors - wanted).max() < 2e-5
    vectors[0] = 0  # the caller's own
    assert np.abs(await model.embed(texts[0]) - wanted[0]).max() < 2e-5
    assert np.abs(await asyncio.to_thread(model.embed_sync, texts) - wanted).max() < 2e-5
    many = await model.embed(text for text in texts * 20)  # several requests, in order
    assert np.abs(many - np.concatenate([wanted] * 20)).max() < 2e-5
    for _ in range(20):  # whoever leaves leaves nothing behind
        task = asyncio.create_task(model.embed(texts * 20))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert _bridge.num_waiting() == 0
    assert np.abs(await model.embed(texts) - wanted).max() < 2e-5
    await model.stop()
    with pytest.raises(inferneo.UnavailableError):
        await model.embed(texts)


async def test_what_a_graph_cannot_embed_is_refused_by_kind(settings):
    vectors = ONNXModel(GOLDEN / "onnx_embedding" / "rows", EngineConfig(**settings, onnx_check="never"))
    await started(vectors)
    with pytest.raises(inferneo.ContextTooLongError, match=r"texts\[40\] has 25 tokens"):
        await vectors.embed(["w4"] * 40 + ["w4 " * 23])
    for fields in ({"pooling": "last"}, {"normalize": True}):
        with pytest.raises(inferneo.InvalidArgumentError, match="as its files say") as caught:
            await vectors.embed("w4", **fields)
        assert caught.value.param == next(iter(fields))
    for texts, place in (([], "at least one"), ("", "texts: must not"), (["w4", ""], r"texts\[1\]: must not")):
        with pytest.raises(inferneo.InvalidArgumentError, match=place):
            await vectors.embed(texts)
    for texts in (3, ["w4", 3], {"w4": 1}):
        with pytest.raises(TypeError, match="texts"):
            await vectors.embed(texts)
    with pytest.raises(TypeError, match="normalize"):
        await vectors.embed("w4", normalize="yes")
    with pytest.raises(inferneo.InvalidArgumentError, match="makes embeddings"):
        await vectors.generate("w4", max_tokens=1)
    with pytest.raises(inferneo.NotFoundError):
        await vectors.embed("w4", model="nobody")
    await vectors.stop()
    writer = await started(ONNXModel(GOLDEN / "onnx_exports" / "genai_llama3", EngineConfig(**settings, onnx_check="never")))
    assert (await writer.generate("w3 w4", max_tokens=2, ignore_eos=True)).completion_tokens == 2
    with pytest.raises(inferneo.UnsupportedError, match="no hidden states"):
        await writer.embed("w3")
    await writer.stop()


async def test_rules_send_embeddings_where_they_ask_for_them(settings, draft):
    np = pytest.importorskip("numpy", reason="embeddings come as numpy arrays")
    answers = json.loads((GOLDEN / "onnx_embedding" / "golden.json").read_text())["answers"]
    config = EngineConfig(**settings, onnx_check="never", enable_lazy_loading=True)
    async with inferneo.EnhancedInferneoEngine(config) as engine:
        await engine.register_model("story", "1", draft)
        await engine.register_model("vectors", "1", GOLDEN / "onnx_embedding" / "rows")
        engine.add_routing_rule(inferneo.RoutingRule(name="all", condition="true", model_name="story", applies_to="all"))
        engine.add_routing_rule(inferneo.RoutingRule(name="search", condition="embedding and user == 'search'",
                                                     model_name="vectors", priority=2))
        generated = await engine.embed("w4")
        assert generated.shape == (await engine.embed("w4", model="auto")).shape == (await engine.hidden_states("w4")).shape[1:]
        try:
            found = await engine.embed(answers[0]["text"], options=inferneo.RequestOptions(user="search"))
        except inferneo.UnsupportedError as error:
            run_or_skip(error)
        assert np.abs(found - np.array(answers[0]["normalized"])).max() < 2e-5
        named = await engine.embed(answers[0]["text"], model="vectors")
        assert np.abs(named - found).max() < 2e-5
        assert (await engine.generate("w4", max_tokens=1)).model == "story"
        with pytest.raises(inferneo.NotFoundError):
            await engine.embed("w4", model="nobody")


def test_enumerations_are_the_engines_own():
    assert [member.name for member in Precision] == ["FLOAT32", "FLOAT16", "INT8", "INT4"]
    assert [member.name for member in OnnxOperators] == ["GENAI", "STANDARD_21", "STANDARD_23"]
