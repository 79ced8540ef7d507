"""Writes tests/golden/tokenizers/bpe_options.json: small random BPE models of every option that tokenizer.json has for one,
and what the Python package `tokenizers` makes of random words with them. Seeded.

    python tools/make_bpe_goldens.py        (tokenizers 0.23)
"""

import json
import pathlib
import random

import tokenizers

PLACE = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "tokenizers" / "bpe_options.json"
SEED = 21
MODELS, WORDS = 40, 16
ALPHABET = ["a", "b", "c", "d", "e", "Ġ", " ", "é", "漢", "🙂", '"', "\\", "\n"]
STRANGE = ["?", "ß", "字"]


def vocabulary(characters, prefix, suffix):
    words = []
    for character in characters:
        words += [character, prefix + character, character + suffix, prefix + character + suffix]
    return list(dict.fromkeys(words))


def merges_of(rng, words, prefix, count):
    """Random pairs; what each becomes is added to `words`. Some stand there twice."""
    merges = []
    while len(merges) < count:
        left, right = rng.choice(words), rng.choice(words)
        if not right.startswith(prefix):
            continue
        merges.append([left, right])
        if left + right[len(prefix):] not in words:
            words.append(left + right[len(prefix):])
        if rng.random() < 0.05:
            merges.append(rng.choice(merges))
    return merges


def model(rng, index):
    characters = ALPHABET[: rng.randint(4, len(ALPHABET))]
    prefix = "##" if rng.random() < 0.25 else ""
    suffix = "</w>" if rng.random() < 0.25 else ""
    fallback = rng.random() < 0.4
    unknown = "<unk>" if rng.random() < 0.6 else None
    words = vocabulary(characters, prefix, suffix)
    words += [unknown] if unknown else []
    # Where one byte has no token, its characters are unknown.
    words += [f"<0x{byte:02X}>" for byte in range(256) if rng.random() < 0.99] if fallback else []
    merges = merges_of(rng, words, prefix, rng.randint(0, 400 if index % 8 == 0 else 40))
    ids = list(range(len(words)))
    rng.shuffle(ids)
    # Of these the older form knows no token with a space.
    if index % 2 and not any(" " in word for merge in merges for word in merge):
        merges = ["#version: 0.2"] + [" ".join(merge) for merge in merges]
    return {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": prefix or None,
        "end_of_word_suffix": suffix or None, "fuse_unk": rng.random() < 0.5, "byte_fallback": fallback,
        "ignore_merges": rng.random() < 0.4, "vocab": dict(zip(words, ids)), "merges": merges,
    }, characters


def main():
    rng = random.Random(SEED)
    lines = []
    for index in range(MODELS):
        bpe, characters = model(rng, index)
        tree = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": bpe}
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(tree))
        cases = []
        for number in range(WORDS):
            length = rng.randint(60, 120) if number == 0 else rng.randint(1, 12)
            word = "".join(rng.choice(characters if rng.random() < 0.95 else STRANGE) for _ in range(length))
            cases.append([word, tokenizer.encode(word).ids])
        lines.append(json.dumps({"model": bpe, "cases": cases}, ensure_ascii=False, separators=(",", ":")))
    PLACE.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print("tokenizers", tokenizers.__version__, MODELS, "models", PLACE.stat().st_size // 1024, "KiB")


if __name__ == "__main__":
    main()
