"""Logprobs, logits, hidden states and embeddings: what they are to each other, and where they end."""
import asyncio
import gc
import json
import pathlib
import struct

import pytest

import inferneo
from inferneo.core.config import EngineConfig
from inferneo.core.engine import InferneoEngine

np = pytest.importorskip("numpy", reason="logits and embeddings come as numpy arrays")
PROMPT = "Once upon a time there was a fox who"


def engine_of(model, settings, **fields):
    return InferneoEngine(EngineConfig(model=model, **{**settings, **fields}))


def log_softmax(rows):
    rows = rows.astype(np.float64)
    top = rows.max(axis=-1, keepdims=True)
    return rows - top - np.log(np.exp(rows - top).sum(axis=-1, keepdims=True))


def tensor(model, name):
    """A bf16 tensor of a safetensors file."""
    data = (pathlib.Path(model) / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8:8 + size])[name]
    assert entry["dtype"] == "BF16"
    begin, end = (8 + size + offset for offset in entry["data_offsets"])
    halves = np.frombuffer(data[begin:end], dtype="<u2").astype(np.uint32)
    return (halves << 16).view(np.float32).reshape(entry["shape"])


async def test_logits_are_those_that_tokens_are_chosen_from(settings, draft):
    async with engine_of(draft, settings) as engine:
        logits = await engine.logits(PROMPT)
        result = await engine.generate(PROMPT, temperature=0, max_tokens=1, logprobs=5, prompt_logprobs=2, ignore_eos=True)
        assert logits.dtype == np.float32 and logits.ndim == 2 and logits.shape[0] == result.prompt_tokens
        [sample] = result.samples
        [first] = sample.logprobs
        assert first.token == sample.tokens[0] == int(logits[-1].argmax()) and first.text == sample.text
        ours = log_softmax(logits)
        assert first.logprob == pytest.approx(ours[-1, first.token], abs=1e-3)
        assert [token for token, _ in first.top] == list(np.argsort(-logits[-1], kind="stable")[:5])
        assert len(result.prompt_logprobs) == result.prompt_tokens - 1
        for position, entry in enumerate(result.prompt_logprobs):
            assert entry.logprob == pytest.approx(ours[position, entry.token], abs=1e-3), position
            assert len(entry.top) == 2


async def test_logits_are_the_hidden_states_through_the_last_matrix(settings, story):
    config = json.loads((pathlib.Path(story) / "config.json").read_text())
    name = "model.embed_tokens.weight" if config.get("tie_word_embeddings") else "lm_head.weight"
    async with engine_of(story, settings) as engine:
        hidden, logits = await asyncio.gather(engine.hidden_states(PROMPT), engine.logits(PROMPT))
    assert hidden.shape == (logits.shape[0], config["hidden_size"])
    expected = hidden @ tensor(story, name).T
    # The product rounds its inputs to bf16: 2^-9 of the longest row, over independent errors.
    scale = np.linalg.norm(hidden, axis=1, keepdims=True) * np.linalg.norm(tensor(story, name), axis=1).max()
    assert np.abs(expected - logits).max() <= 2**-9 * scale.max()


async def test_rows_are_the_same_in_chunks_and_beside_others(settings, draft):
    text = PROMPT + " lived in a house by the river and had a red kite" * 6
    async with engine_of(draft, settings) as engine:
        alone = await engine.hidden_states(text)
    async with engine_of(draft, settings, max_num_batched_tokens=32) as engine:
        await engine.generate(text, max_tokens=1)  # what is cached may not be left out
        chunked, *others = await asyncio.gather(engine.hidden_states(text),
                                                *(engine.generate(PROMPT, max_tokens=20, ignore_eos=True) for _ in range(4)))
        assert chunked.shape == alone.shape and np.allclose(chunked, alone, atol=0.05)
        assert all(other.completion_tokens == 20 for other in others)


async def test_the_array_is_the_results_own_memory_and_outlives_it(settings, draft):
    async with engine_of(draft, settings) as engine:
        result = await engine.generate(PROMPT, prompt_rows="logits", max_tokens=30)
        assert result.samples[0].tokens == [] and result.completion_tokens == 0 and result.time_to_first_token == 0
        rows = result.prompt_rows
        assert rows.__array_interface__["data"] == result.prompt_rows.__array_interface__["data"]
        with pytest.raises(ValueError):
            rows[0, 0] = 1
        copy = rows.copy()
        del result
        gc.collect()
        assert (rows == copy).all()
        assert (await engine.generate(PROMPT, max_tokens=1)).prompt_rows is None
    assert (rows == copy).all()


async def test_embeddings(settings, draft):
    async with engine_of(draft, settings) as engine:
        hidden = await engine.hidden_states(PROMPT)
        mean = await engine.embed(PROMPT, normalize=False)
        assert np.allclose(mean, hidden.mean(axis=0), atol=1e-5)
        last = await engine.embed(PROMPT, pooling="last")
        assert np.allclose(last, hidden[-1] / np.linalg.norm(hidden[-1]), atol=1e-5)
        texts = [PROMPT, "def add(a, b):", "Once upon a time there was a fox that"] + [f"number {i}" for i in range(70)]
        together = await engine.embed(texts)
        assert together.shape == (73, hidden.shape[1]) and np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        assert np.allclose(together[0], await engine.embed(PROMPT), atol=0.02)
        assert together[0] @ together[2] > together[0] @ together[1]
        assert np.allclose(await asyncio.to_thread(engine.embed_sync, texts[:2]), together[:2], atol=0.02)
        with pytest.raises(inferneo.InvalidArgumentError, match="mean"):
            await engine.embed(PROMPT, pooling="max")
        with pytest.raises(inferneo.InvalidArgumentError, match="at least one"):
            await engine.embed([])
        with pytest.raises(TypeError):
            await engine.embed(["a", 3])
        with pytest.raises(inferneo.ContextTooLongError):
            await engine.embed(["short", "long " * 3000, "short"])
        assert (await engine.generate("Once", max_tokens=1)).completion_tokens == 1


def test_llm_embeds_a_list_in_one_batch(settings, draft):
    with inferneo.LLM(draft, **settings) as llm:
        texts = [f"number {i}" for i in range(20)]
        rows = llm.embed(texts, normalize=False)
        assert rows.shape[0] == 20 and np.allclose(rows[3], llm.embed(texts[3], normalize=False), atol=0.05)
        assert llm.logits("Once").ndim == 2


async def test_what_cannot_be_asked_is_refused(settings, draft):
    async with engine_of(draft, settings) as engine:
        with pytest.raises(inferneo.InvalidArgumentError) as caught:
            await engine.generate(PROMPT, prompt_rows="logits", n=2)
        assert caught.value.param == "n"
        with pytest.raises(TypeError, match="prompt_rows: expected Literal"):
            await engine.generate(PROMPT, prompt_rows="everything")
        for field, value in (("temperature", -1.0), ("temperature", float("nan")), ("top_p", 0.0), ("logprobs", 21),
                             ("max_tokens", 0), ("top_k", -2)):
            with pytest.raises(inferneo.InvalidArgumentError) as caught:
                await engine.generate(PROMPT, **{field: value})
            assert caught.value.param == field


async def test_a_model_of_a_manager_and_a_routed_engine_read_as_well(settings, draft):
    config = EngineConfig(num_threads=2, max_num_batched_tokens=256)
    async with inferneo.ModelManager(max_memory_gb=0.25, config=config) as manager:
        await manager.register_model("m", path=draft)
        async with await manager.load_model("m") as model:
            assert (await model.logits("Once")).ndim == 2 and (await model.embed("Once")).ndim == 1
    async with inferneo.EnhancedInferneoEngine(EngineConfig(enable_lazy_loading=True, **settings)) as engine:
        await engine.register_model("m", "1", draft)
        await engine.register_model("n", "1", draft)
        engine.add_ab_test(inferneo.ABTestConfig(name="t", model_a="m", model_b="n", traffic_split=0.5))
        engine.add_shadow(inferneo.ShadowConfig(name="s", model="m", shadow_model="n"))
        assert (await engine.logits("Once", model="m")).ndim == 2
        assert (await engine.embed("Once", options=inferneo.RequestOptions(user="u"))).ndim == 1
        assert engine.get_stats()["shadows"][0]["sent"] == 0
