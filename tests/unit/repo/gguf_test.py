"""tools/make_gguf.py: what it writes reads back as what it read, and what it does not know it refuses. Needs numpy."""
import json
import math
import pathlib
import struct
import sys
import tempfile
import unittest

try:
    import numpy
except ImportError:
    print("skipped: no numpy")
    sys.exit(77)

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))
import make_gguf  # noqa: E402

CONFIG = dict(architectures=["LlamaForCausalLM"], hidden_act="silu", hidden_size=64, intermediate_size=96, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=2, head_dim=32, vocab_size=40, max_position_embeddings=128,
              rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, eos_token_id=2, bos_token_id=None,
              rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                original_max_position_embeddings=64))
TOKENIZER = dict(pre_tokenizer=dict(type="ByteLevel", use_regex=True), added_tokens=[dict(id=2, content="<end>")],
                 model=dict(type="BPE", vocab={"a": 0, "b": 1, "ab": 3}, merges=[["a", "b"]]))


def tensors_of(config, seed=1):
    """name: bf16 bits."""
    generator = numpy.random.default_rng(seed)
    shape = make_gguf.read_shape(config)
    return {source: make_gguf.bf16(generator.standard_normal(wanted).astype(numpy.float32))
            for _, source, wanted, _ in make_gguf.plan(shape)}


def write_model(folder, config=None, tensors=None, tokenizer=None):
    config = CONFIG if config is None else config
    tensors = tensors_of(CONFIG) if tensors is None else tensors
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, bits in tensors.items():
        raw = bits.tobytes()
        kind = {2: "BF16", 4: "F32"}[bits.dtype.itemsize]
        header[name] = dict(dtype=kind, shape=list(bits.shape), data_offsets=[len(data), len(data) + len(raw)])
        data += raw
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER if tokenizer is None else tokenizer))
    return tensors


class Reader:
    """The format again, from its description."""

    def __init__(self, path):
        self.data, self.at = path.read_bytes(), 0
        assert self.data[:4] == b"GGUF"
        self.at = 4
        version, num_tensors, num_pairs = self.take("<IQQ")
        assert version == 3
        self.pairs = {}
        for _ in range(num_pairs):
            key = self.text()
            self.pairs[key] = self.value(self.take("<I")[0])
        self.tensors, entries = {}, []
        for _ in range(num_tensors):
            name, dims = self.text(), self.take("<I")[0]
            entries.append((name, self.take(f"<{dims}Q")[::-1], *self.take("<IQ")))
        begin = -(-self.at // 32) * 32
        end = begin
        for name, shape, kind, offset in entries:
            assert offset % 32 == 0 and begin + offset == -(-end // 32) * 32, name
            size = math.prod(shape) * {0: 4, 1: 2, 30: 2, 8: 34 / 32, 2: 18 / 32}[kind]
            end = begin + offset + int(size)
            assert end <= len(self.data), name
            self.tensors[name] = (kind, shape, self.data[begin + offset:end])

    def take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def text(self):
        length = self.take("<Q")[0]
        self.at += length
        return self.data[self.at - length:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            element, count = self.take("<IQ")
            return [self.value(element) for _ in range(count)]
        return self.take({4: "<I", 5: "<i", 6: "<f"}[kind])[0]

    def values(self, name):
        kind, shape, data = self.tensors[name]
        if kind == 0:
            return numpy.frombuffer(data, "<f4").reshape(shape)
        if kind == 1:
            return numpy.frombuffer(data, "<f2").astype(numpy.float32).reshape(shape)
        if kind == 30:
            return make_gguf.to_f32(numpy.frombuffer(data, "<u2"), "BF16").reshape(shape)
        blocks = numpy.frombuffer(data, numpy.uint8).reshape(-1, 34 if kind == 8 else 18)
        scale = blocks[:, :2].copy().view("<f2").astype(numpy.float32)
        codes = blocks[:, 2:]
        if kind == 8:
            return (codes.view(numpy.int8) * scale).reshape(shape)
        return ((numpy.concatenate([codes & 15, codes >> 4], axis=1).astype(numpy.float32) - 8) * scale).reshape(shape)


class Gguf(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.folder = pathlib.Path(self._folder.name)
        self.out = self.folder / "model.gguf"

    def refusal(self, *arguments, **settings):
        with self.assertRaises(make_gguf.Refused) as caught:
            make_gguf.write(self.folder, self.out, *arguments, **settings)
        self.assertEqual([p.name for p in self.folder.iterdir() if "gguf" in p.name], [])
        return str(caught.exception)

    def expected(self, tensors):
        """name in the file: f32 values in its order of rows."""
        result = {}
        for name, source, _, heads in make_gguf.plan(make_gguf.read_shape(CONFIG)):
            values = make_gguf.to_f32(tensors[source], "BF16")
            if heads:  # row 2 i of a head was row i, row 2 i + 1 was row i + 16
                rows = [h * 32 + j // 2 + 16 * (j % 2) for h in range(heads) for j in range(32)]
                values = values[rows]
            result[name] = values
        return result

    def test_values_read_back_as_they_were(self):
        tensors = write_model(self.folder)
        for kind in ("f32", "bf16", "f16"):
            make_gguf.write(self.folder, self.out, kind)
            read = Reader(self.out)
            for name, values in self.expected(tensors).items():
                wanted = values.astype("<f2").astype(numpy.float32) if kind == "f16" and values.ndim > 1 else values
                self.assertTrue(numpy.array_equal(read.values(name), wanted), f"{kind} {name}")
            self.assertEqual(read.tensors["output_norm.weight"][0], 0)
            self.assertEqual(read.tensors["output.weight"][0], {"f32": 0, "bf16": 30, "f16": 1}[kind])
            self.assertEqual(read.pairs["general.file_type"], {"f32": 0, "bf16": 32, "f16": 1}[kind])

    def test_pieces_are_seams_that_nobody_sees(self):
        write_model(self.folder)
        make_gguf.write(self.folder, self.out, "q8_0")
        whole, piece = self.out.read_bytes(), make_gguf.PIECE
        try:
            make_gguf.PIECE = 4 * 64 * 3
            make_gguf.write(self.folder, self.out, "q8_0")
        finally:
            make_gguf.PIECE = piece
        self.assertEqual(self.out.read_bytes(), whole)

    def test_blocks_hold_their_values_within_their_scale(self):
        tensors = write_model(self.folder)
        for kind, code, share in (("q8_0", 8, 0.5), ("q4_0", 2, 1.0)):
            make_gguf.write(self.folder, self.out, kind)
            read = Reader(self.out)
            self.assertEqual(read.tensors["token_embd.weight"][0], 8, "the ends are kept in 8 bits")
            self.assertEqual(read.tensors["blk.1.ffn_up.weight"][0], code)
            values = self.expected(tensors)["blk.1.ffn_up.weight"].reshape(-1, 32)
            got = read.values("blk.1.ffn_up.weight").reshape(-1, 32)
            largest = numpy.abs(values).max(axis=1, keepdims=True)
            scale = largest / (127 if code == 8 else 8)
            # Half a step, or a whole one at the end that the sign of the largest value leaves over; and the scale as f16.
            allowed = share * scale + largest * 2.0 ** -11
            self.assertTrue((numpy.abs(got - values) <= allowed * 1.0001).all(), kind)

    def test_blocks_by_hand(self):
        row = numpy.zeros((1, 32), numpy.float32)
        row[0, :4] = [-127.0, 63.5, 0.5, -0.49]
        block = make_gguf.q8_0(row)[0]
        self.assertEqual(block[:2].tobytes(), struct.pack("<e", 1.0))
        self.assertEqual(list(block[2:6].view(numpy.int8)), [-127, 64, 1, 0], "halves go away from zero")
        row[0, :4] = [8.0, -8.0, 0.4, -0.6]
        row[0, 16:18] = [-3.0, 3.0]
        block = make_gguf.q4_0(row)[0]
        self.assertEqual(block[:2].tobytes(), struct.pack("<e", -1.0))
        self.assertEqual([int(b) & 15 for b in block[2:6]], [0, 15, 8, 9])
        self.assertEqual([int(b) >> 4 for b in block[2:5]], [11, 5, 8])
        zeros = numpy.zeros((1, 32), numpy.float32)
        self.assertEqual(bytes(make_gguf.q8_0(zeros)[0]), bytes(34))
        self.assertEqual(bytes(make_gguf.q4_0(zeros)[0]), b"\0\x80" + b"\x88" * 16, "0 / -8")

    def test_bf16_rounds_to_even(self):
        values = numpy.array([1.0, 1.00390625, 1.01171875, 1.004, math.inf, -math.inf, math.nan], numpy.float32)
        self.assertEqual([hex(b) for b in make_gguf.bf16(values)][:6], ["0x3f80", "0x3f80", "0x3f82", "0x3f81", "0x7f80", "0xff80"])
        self.assertTrue(math.isnan(make_gguf.to_f32(make_gguf.bf16(values), "BF16")[6]))

    def test_metadata_says_what_the_model_is(self):
        write_model(self.folder)
        make_gguf.write(self.folder, self.out)
        read = Reader(self.out)
        for key, value in {"general.architecture": "llama", "llama.block_count": 2, "llama.attention.head_count_kv": 2,
                           "llama.rope.dimension_count": 32, "llama.vocab_size": 40, "tokenizer.ggml.pre": "gpt-2",
                           "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.merges": ["a b"]}.items():
            self.assertEqual(read.pairs[key], value, key)
        self.assertNotIn("tokenizer.ggml.bos_token_id", read.pairs)
        self.assertEqual(read.pairs["tokenizer.ggml.tokens"][:5], ["a", "b", "<end>", "ab", "[PAD4]"])
        self.assertEqual(read.pairs["tokenizer.ggml.token_type"][:5], [1, 1, 3, 1, 5])
        self.assertEqual(len(read.pairs["tokenizer.ggml.tokens"]), 40)
        # Wavelengths below 64 / 4 stay, those above 64 are stretched 8 times, between them it goes up.
        factors = read.values("rope_freqs.weight")
        self.assertEqual((factors[0], factors[-1], len(factors)), (1.0, 8.0, 16))
        self.assertTrue((numpy.diff(factors) >= 0).all())
        make_gguf.write(self.folder, self.out, with_vocabulary=False)
        self.assertEqual(Reader(self.out).pairs["tokenizer.ggml.model"], "no_vocab")

    def test_tied_models_have_no_output(self):
        tensors = tensors_of(CONFIG)
        del tensors["lm_head.weight"]
        config = CONFIG | dict(tie_word_embeddings=True, rope_scaling=None)
        write_model(self.folder, config, tensors)
        make_gguf.write(self.folder, self.out)
        self.assertNotIn("output.weight", Reader(self.out).tensors)
        self.assertNotIn("rope_freqs.weight", Reader(self.out).tensors)

    def test_what_it_does_not_know_is_refused(self):
        for change, words in ((dict(architectures=["Qwen3ForCausalLM"]), "Qwen3ForCausalLM"), (dict(architectures=None), "not named"),
                              (dict(hidden_act="gelu"), "hidden_act"), (dict(attention_bias=True), "attention_bias"),
                              (dict(rope_scaling=dict(rope_type="yarn")), "yarn"), (dict(hidden_size="many"), "hidden_size"),
                              (dict(num_key_value_heads=3), "heads"), (dict(vocab_size=41), "shape"),
                              (dict(num_hidden_layers=3), "model.layers.2"), (dict(num_hidden_layers=1), "model.layers.1"),
                              (dict(quantization_config=dict(bits=4)), "quantization_config")):
            write_model(self.folder, CONFIG | change)
            self.assertIn(words, self.refusal())
        write_model(self.folder, tokenizer=TOKENIZER | dict(pre_tokenizer=dict(type="Metaspace")))
        self.assertIn("--no-vocabulary", self.refusal())
        write_model(self.folder, tokenizer=TOKENIZER | dict(added_tokens=[dict(id=40, content="x")]))
        self.assertIn("vocab_size is 40", self.refusal())

    def test_damaged_files_and_values_are_refused(self):
        tensors = write_model(self.folder)
        path = self.folder / "model.safetensors"
        whole = path.read_bytes()
        for damage in (b"", whole[:4], b"\xff" * 8 + whole[8:], whole[:-1], whole[:8] + b"x" + whole[9:]):
            path.write_bytes(damage)
            self.assertIn("model.safetensors", self.refusal())
        path.unlink()
        self.assertIn("there is no model.safetensors", self.refusal())
        for value, kind in ((math.inf, "q8_0"), (math.nan, "q4_0"), (1e6, "f16"), (3e7, "q8_0")):
            spoiled = tensors["model.layers.0.mlp.up_proj.weight"].copy()
            spoiled[1, 2] = make_gguf.bf16(numpy.float32([value]))[0]
            write_model(self.folder, tensors=tensors | {"model.layers.0.mlp.up_proj.weight": spoiled})
            self.assertIn("up_proj", self.refusal(kind))
        odd = CONFIG | dict(intermediate_size=80)
        write_model(self.folder, odd, tensors_of(odd))
        self.assertIn("takes them by 32", self.refusal("q8_0"))

    def test_a_file_that_is_there_outlives_a_refusal(self):
        write_model(self.folder)
        make_gguf.write(self.folder, self.out)
        before = self.out.read_bytes()
        (self.folder / "config.json").write_text("[]")
        with self.assertRaises(make_gguf.Refused):
            make_gguf.write(self.folder, self.out)
        self.assertEqual(self.out.read_bytes(), before)


if __name__ == "__main__":
    unittest.main()
