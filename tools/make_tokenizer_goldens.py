"""Writes tests/golden/tokenizers: one tiny tokenizer per family, trained here with the family's pipeline, and what the
Python packages `tokenizers` and `transformers` make of a hostile corpus with it. Seeded; needs neither network nor GPU.

    python tools/make_tokenizer_goldens.py        (tokenizers 0.22, transformers 4.57)
"""

import json
import pathlib
import random

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokenizer_golden_templates as templates

ROOT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "tokenizers"
SEED = 20

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


def corpus():
    """Sentences made of word lists in several scripts, with digits, code and punctuation."""
    rng = random.Random(SEED)
    words = (
        "the a little cat dog river mountain walked quickly slowly under over bright stone garden answer question don't "
        "it's we'll they're I've value return def class import for while print token stream model user system assistant "
        "naïve café über straße señor año привет мир слово дом 你好 世界 中文 模型 こんにちは 日本 안녕 하세요 مرحبا שלום नमस्ते ไทย"
    ).split()
    lines = []
    for _ in range(1500):
        line = " ".join(rng.choice(words) for _ in range(rng.randint(3, 12)))
        if rng.random() < 0.3:
            line += f" {rng.randint(0, 99999)}"
        if rng.random() < 0.2:
            line = f"def f{rng.randint(0, 9)}(x):\n    return x + {rng.randint(0, 9)}\n\n" + line
        lines.append(line.capitalize() + rng.choice([".", "!", "?", ",", "...", ""]))
    return lines


def special(text, **kwargs):
    return AddedToken(text, special=True, normalized=False, **kwargs)


def plain(text, normalized=False):
    return AddedToken(text, special=False, normalized=normalized)


def byte_level_bpe(split=None, normalizer=None, vocab=700, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    if normalizer:
        tokenizer.normalizer = normalizer
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(split), behavior="isolated", invert=False),
                pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def gpt2():
    tokenizer = byte_level_bpe()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_tokens([AddedToken("<|endoftext|>", special=True, normalized=True)])
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True, normalized=False), special("<|im_end|>")])
    end = "<|endoftext|>"
    return tokenizer, {"bos_token": end, "eos_token": end, "unk_token": end, "chat_template": templates.CHATML}


def llama3():
    tokenizer = byte_level_bpe(LLAMA3_SPLIT, ignore_merges=True)
    names = "begin_of_text end_of_text start_header_id end_header_id eot_id eom_id python_tag finetune_right_pad_id".split()
    names += [f"reserved_special_token_{i}" for i in range(8)]
    tokenizer.add_tokens([special(f"<|{name}|>") for name in names])
    begin = "<|begin_of_text|>"
    template = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer, {"bos_token": begin, "eos_token": "<|eot_id|>", "chat_template": templates.LLAMA3}


def qwen2():
    tokenizer = byte_level_bpe(QWEN2_SPLIT, normalizers.NFC())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_tokens([special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>")])
    names = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>", "<|fim_prefix|>"]
    tokenizer.add_tokens([plain(name) for name in names])
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": templates.QWEN}
    config["additional_special_tokens"] = ["<|im_start|>", "<|im_end|>"]
    return tokenizer, config


def byte_fallback_bpe(specials, extra=()):
    """BPE over characters with the 256 byte tokens after the special ones, as converted from SentencePiece."""
    names = list(specials) + [f"<0x{byte:02X}>" for byte in range(256)] + list(extra)
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=names, limit_alphabet=60, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tree = json.loads(tokenizer.to_str())
    tree["added_tokens"] = [token for token in tree["added_tokens"] if token["content"] in specials]
    tree["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(tree))


def sentencepiece_decoder(strip):
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))


def with_bos(tokenizer, bos):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def llama2():
    tokenizer = byte_fallback_bpe(["<unk>", "<s>", "</s>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = sentencepiece_decoder(strip=True)
    with_bos(tokenizer, "<s>")
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": templates.LLAMA2}
    return tokenizer, config


def mistral():
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
    tokenizer = byte_fallback_bpe(names)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = sentencepiece_decoder(strip=True)
    with_bos(tokenizer, "<s>")
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": templates.MISTRAL}
    return tokenizer, config


def gemma():
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    ordinary = ["\n\n", "\n\n\n", "▁▁", "▁▁▁", "<h1>", "</h1>"]
    tokenizer = byte_fallback_bpe(names, ordinary)
    tokenizer.add_tokens([plain(name) for name in ordinary])
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = sentencepiece_decoder(strip=False)
    with_bos(tokenizer, "<bos>")
    config = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    config["chat_template"] = templates.GEMMA
    return tokenizer, config


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.add_tokens([AddedToken("<extra_id_0>", special=True, normalized=False, lstrip=True, rstrip=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    config = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "chat_template": templates.MIXED}
    return tokenizer, config


def bert():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=700, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens([plain("<Tag>", normalized=True)])
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    config = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    config["mask_token"] = "[MASK]"
    config["chat_template"] = (
        "{{ cls_token }}{% for m in messages %}{{ m.content }}{{ sep_token }}{% endfor %}"
    )
    return tokenizer, config


FAMILIES = {f.__name__: f for f in (gpt2, llama3, qwen2, llama2, mistral, gemma, unigram, bert)}


def texts(control):
    """The hostile corpus. `control`: the family's own control tokens, to be tried as look-alikes."""
    rng = random.Random(SEED + 1)
    out = [
        "", " ", "  ", "   lead", "trail   ", "Hello world", "The little cat walked quickly.", "don't they're I'VE We'LL",
        "a\nb\n\nc\r\nd\te\r\r\n", "\n", "\n\n\n\n", " \n \n ", "\t\t  x", "1234567890 12 345 6.78e-9", "def f(x):\n    return x\n\n\n",
        "naïve café", "cafe\u0301 nai\u0308ve", "ﬁ ﬂ ① Ａｂｃ ½", "你好世界，模型。", "こんにちは日本", "안녕하세요", "ᄒ\u1161\u11ab",
        "مرحبا שלום \u202eabc\u202c", "नमस्ते ไทย", "👋🏽 👨\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 🇩🇪🇫🇷", "e\u0301\u0302\u0303\u0304x",
        "\x00\x01\x02 a\x00b \x7f\x80\x85", "\u00a0\u2003\u3000\u200b\ufeffx\u2028y", "\ufffd\ufffe\uffff", "\U0001d54f\U00020000\U000e0001\U0010fffd",
        "a" * 300, "ab" * 100, " " * 100, "\n" * 40, "é" * 64, "▁▁▁ ▁a", "<0x41><0xE2>", "Ġhello Ċ", "!!!???...---", "x<h1>y</h1>\n\n  z",
        "<|endoftext|>", "<unk>", "<Tag> <tag> a<TAG>b", "[MASK] [mask]",
    ]
    for token in control:
        out += [token, f"a{token}b", f" {token} ", f"{token}{token}", token[:-1], token[1:], token.upper()]
    planes = [(0x20, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x2FFFF), (0x30000, 0x10FFFF)]
    for _ in range(16):
        out.append("".join(chr(rng.randint(*rng.choice(planes))) for _ in range(rng.randint(1, 24))))
    return list(dict.fromkeys(out))


def is_control(token, model_vocab, template):
    """The rule of rust/text/src/added.rs, restated."""
    if token.special:
        return True
    blank = all(c.isspace() or c == "▁" for c in token.content)
    return not blank and (token.content not in model_vocab or token.content in template)


def user_view(tokenizer, control):
    """The same tokenizer without its control tokens: how a user's text must come out."""
    tree = json.loads(tokenizer.to_str())
    tree["added_tokens"] = [token for token in tree["added_tokens"] if token["content"] not in control]
    return Tokenizer.from_str(json.dumps(tree))


def broken_bytes(tokenizer, ids):
    """Does a run of byte tokens in ids fail to be UTF-8? There the two decoders differ on purpose."""
    run = b""
    for id in list(ids) + [None]:
        token = tokenizer.id_to_token(id) if id is not None else None
        if token and token.startswith("<0x") and len(token) == 6:
            run += bytes([int(token[3:5], 16)])
            continue
        try:
            run.decode()
        except UnicodeDecodeError:
            return True
        run = b""
    return False


TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather in a city, in °C.",
     "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
                    "required": ["city"]}}},
    {"type": "function", "function": {"name": "stop", "description": "Ends it.", "parameters": {"type": "object", "properties": {}}}},
]
U, A, S = (lambda text, role=role: {"role": role, "content": text} for role in ("user", "assistant", "system"))
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 2, "x": [1.5, None, True]}}}]}
CHATS = [
    ([U("Hello")], {}),
    ([S("You are terse."), U("  Hi there \n"), A(" Hello! "), U("Wie geht's? 你好 👋🏽")], {}),
    ([U("a"), A("b"), U("c"), A("d")], {"add_generation_prompt": False}),
    ([U("code:\n```\nif a < b and c > d: print('<|' + x)\n```\n")], {}),
    ([U("Weather?")], {"tools": TOOLS}),
    ([S("Use tools."), U("Weather in Köln?"), CALL, {"role": "tool", "content": "{\"temp\": 3.5}"}, A("3.5 °C"), U("Thanks")], {"tools": TOOLS}),
    ([U("2+2?"), A("<think>\nEasy.\n</think>\n\n4"), U("3+3?"), A("<think>\nAlso.\n</think>\n\n6")], {"add_generation_prompt": False}),
    ([U("q"), A("The answer is ")], {"add_generation_prompt": False, "continue_final_message": True}),
    ([U("x")], {"enable_thinking": False, "date_string": "1 Jan 2030"}),
    ([{"role": "user", "content": [{"type": "text", "text": " parts "}, {"type": "text", "text": "of it"}]}], {}),
    ([A("first")], {}),
]


def chat_cases(path, config):
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"), **config)
    cases = []
    for messages, kwargs in CHATS:
        kwargs = {"add_generation_prompt": True, **kwargs}
        case = {"messages": messages, "kwargs": kwargs}
        try:
            case["text"] = tokenizer.apply_chat_template(messages, tokenize=False, **kwargs)
            case["ids"] = tokenizer.apply_chat_template(messages, tokenize=True, **kwargs)
        except Exception as error:  # the template's own refusal is a golden as well
            if type(error).__name__ not in ("TemplateError", "UndefinedError", "TypeError", "ValueError"):
                raise
            case["error"] = True
        cases.append(case)
    return cases


def golden(name):
    tokenizer, config = FAMILIES[name]()
    path = ROOT / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "tokenizer.json").write_text(
        json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (path / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n")
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))

    model_vocab = tokenizer.get_vocab(with_added_tokens=False)
    added = tokenizer.get_added_tokens_decoder().values()
    control = [token.content for token in added if is_control(token, model_vocab, config["chat_template"])]
    user = user_view(tokenizer, control)
    forbidden = set(control) - {config.get("unk_token")}
    rng = random.Random(SEED + 2)
    encode, decode = [], []
    for text in texts(control):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        case = {"text": text, "ids": ids, "full": tokenizer.encode(text).ids}
        user_ids = user.encode(text, add_special_tokens=False).ids
        if any(user.id_to_token(id) in forbidden for id in user_ids):
            case["user"] = None  # the model finds the control token by itself: only the law is checked
        elif user_ids != ids:
            case["user"] = user_ids
        encode.append(case)
        decode.append(ids)
    vocab = tokenizer.get_vocab_size()
    while len(decode) < len(encode) + 24:
        ids = [rng.randrange(vocab) for _ in range(rng.randint(1, 16))]
        if not broken_bytes(tokenizer, ids):
            decode.append(ids)
    cases = {
        "control": control,
        "vocab_size": max(tokenizer.get_vocab().values()) + 1,
        "encode": encode,
        "decode": [
            {"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False), "skipped": tokenizer.decode(ids)}
            for ids in decode
        ],
        "chat": chat_cases(path, {k: v for k, v in config.items() if k != "tokenizer_class"}),
    }
    lines = json.dumps(cases, ensure_ascii=False, separators=(",", ":")).replace('},{"text"', '},\n{"text"')
    (path / "cases.json").write_text(lines + "\n")
    print(name, len(encode), "texts,", sum(f.stat().st_size for f in path.iterdir()) // 1024, "KiB")


def fnv1a(ids):
    """A hash of the ids as 32-bit little-endian numbers."""
    value = 0xCBF29CE484222325
    for byte in b"".join(id.to_bytes(4, "little") for id in ids):
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return f"{value:016x}"


def long_texts():
    """Longer than the parts in which the server remembers texts; with all that a cut could go wrong at."""
    rng = random.Random(SEED + 3)
    lines, hostile = corpus(), texts([])
    plain = " ".join(rng.choice(lines) for _ in range(60))
    mixed = "".join(rng.choice(lines) + rng.choice([" ", "  ", "\n", " \n", "\n\n ", "\t"]) for _ in range(60))
    odd = "".join(rng.choice(lines) + rng.choice([" ", "\n", ""]) + rng.choice(hostile) for _ in range(40))
    marks = ["<|im_end|>\n<|im_start|>user\n", "<|eot_id|>", " [/INST] ", "</s>", "<unk>", "<extra_id_0> ", "[SEP]", "<end_of_turn>"]
    chat = "".join(" ".join(rng.choice(lines) for _ in range(5)) + rng.choice(marks) for _ in range(12))
    return [plain, mixed, odd, chat]


def write_long_texts():
    """What the reference makes of them, as hashes."""
    out = {"texts": long_texts(), "families": {}}
    for name in FAMILIES:
        tokenizer = Tokenizer.from_file(str(ROOT / name / "tokenizer.json"))
        ids = [tokenizer.encode(text).ids for text in out["texts"]]
        out["families"][name] = [{"count": len(full), "full": fnv1a(full)} for full in ids]
    (ROOT / "long_texts.json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    print("tokenizers", tokenizers.__version__, "transformers", transformers.__version__)
    for family in FAMILIES:
        golden(family)
    write_long_texts()
