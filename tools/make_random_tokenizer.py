#!/usr/bin/env python3
"""Makes a byte-level BPE tokenizer of a real size whose tokens mean nothing, for measuring how long one takes to load.

    python3 tools/make_random_tokenizer.py 128256 /tmp/models/small-128k

Like Llama 3's: 256 bytes, then tokens each of which is a merge of two before it, with every way to split it listed as a
merge (about two a token), then 256 control tokens. Writes tokenizer.json and tokenizer_config.json. Seeded.
"""
import argparse
import json
import pathlib
import random

NUM_CONTROL = 256
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
           r"|\s+(?!\S)|\s+")


def byte_alphabet():
    """The printable character that stands for each byte in byte-level vocabularies."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters, extra = {}, 256
    for byte in range(256):
        if byte not in plain:
            letters[byte], extra = chr(extra), extra + 1
        else:
            letters[byte] = chr(byte)
    return [letters[byte] for byte in range(256)]


def grow(alphabet, size, generator):
    letters = [c for c in "abcdefghijklmnopqrstuvwxyz"]
    tokens = dict.fromkeys(alphabet)
    usable = letters + ["Ġ" + c for c in letters]
    for token in usable[len(letters):]:
        tokens[token] = None
    pick = lambda: usable[int(len(usable) * generator.random() ** 6)]  # early ones often, as in a language
    while len(tokens) < size:
        left, right = pick(), pick()
        token = left + right
        if right.startswith("Ġ") or len(token) > 14 or token in tokens:
            continue
        tokens[token] = None
        usable.append(token)
    return list(tokens)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", type=int, help="tokens, control tokens included")
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tokens = grow(byte_alphabet(), args.size - NUM_CONTROL, random.Random(args.seed))
    known = set(tokens)
    merges = [[token[:i], token[i:]] for token in tokens if len(token) > 1 for i in range(1, len(token))
              if token[:i] in known and token[i:] in known]
    names = ["<|begin_of_text|>", "<|end_of_text|>"] + [f"<|reserved_{i}|>" for i in range(NUM_CONTROL - 2)]
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
    split = dict(type="Split", pattern=dict(Regex=PATTERN), behavior="Isolated", invert=False)
    tokenizer = dict(
        version="1.0", truncation=None, padding=None,
        added_tokens=[dict(id=len(tokens) + i, content=name, **flags) for i, name in enumerate(names)],
        normalizer=None, pre_tokenizer=dict(type="Sequence", pretokenizers=[split, byte_level]),
        post_processor=None, decoder=byte_level | dict(use_regex=True),
        model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                   fuse_unk=False, byte_fallback=False, ignore_merges=True,
                   vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    args.directory.mkdir(parents=True, exist_ok=True)
    (args.directory / "tokenizer.json").write_text(json.dumps(tokenizer, indent=2, ensure_ascii=False))
    config = dict(bos_token=names[0], eos_token=names[1], tokenizer_class="PreTrainedTokenizerFast")
    (args.directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{len(tokens) + NUM_CONTROL} tokens, {len(merges)} merges")


if __name__ == "__main__":
    main()
