#!/usr/bin/env python3
"""Writes tests/unit/sampling/data/goldens.json: what transformers' logits processors make of small rows of logits.

Each case runs Hugging Face's processors in the order in which the sampler applies them, in float64, and records which
tokens are left and with what probability. Presence and frequency penalties, which transformers does not have, follow
OpenAI's definition: logit -= presence * (count > 0) + frequency * count.

A case whose outcome hangs on rounding is drawn again: moving each threshold by 1e-5 must not change what is left.

Needs torch 2.8 and transformers 4.57; the tests do not.  Usage: tools/make_sampling_goldens.py OUTPUT.json
"""

import json
import sys

import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

PROBABILITY_OPTIONS = ("typical_p", "top_p", "min_p")

# name, vocabulary, options. Lists of tokens are drawn below.
CASES = [
    ("plain", 40, {}),
    ("temperature_low", 40, {"temperature": 0.3}),
    ("temperature_high", 40, {"temperature": 1.7}),
    ("top_k_1", 40, {"top_k": 1}),
    ("top_k_5", 40, {"top_k": 5}),
    ("top_k_above_vocab", 40, {"top_k": 1000}),
    ("top_k_many_blocks", 700, {"top_k": 7}),
    ("top_p_half", 40, {"top_p": 0.5}),
    ("top_p_most", 200, {"top_p": 0.95}),
    ("top_p_tiny", 40, {"top_p": 0.001}),
    ("top_p_many_blocks", 700, {"top_p": 0.3, "temperature": 0.8}),
    ("min_p_small", 200, {"min_p": 0.02}),
    ("min_p_large", 40, {"min_p": 0.6}),
    ("typical_low", 60, {"typical_p": 0.2}),
    ("typical_high", 200, {"typical_p": 0.9}),
    ("typical_hot", 200, {"typical_p": 0.5, "temperature": 1.5}),
    ("repetition_up", 60, {"repetition_penalty": 1.3, "prompt": 10, "output": 8}),
    ("repetition_down", 60, {"repetition_penalty": 0.7, "prompt": 10, "output": 8}),
    ("repetition_prompt_only", 60, {"repetition_penalty": 1.8, "prompt": 10}),
    ("presence", 60, {"presence_penalty": 0.9, "prompt": 6, "output": 12}),
    ("frequency", 60, {"frequency_penalty": 0.4, "prompt": 6, "output": 12}),
    ("presence_negative", 60, {"presence_penalty": -1.5, "output": 12}),
    ("penalties_all", 60, {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.3, "prompt": 9,
                           "output": 14}),
    ("logit_bias", 60, {"logit_bias": 6}),
    ("logit_bias_then_repetition", 60, {"logit_bias": 10, "repetition_penalty": 1.4, "output": 12}),
    ("banned", 60, {"banned": 9}),
    ("banned_and_bias", 60, {"banned": 20, "logit_bias": 20}),
    ("mask", 70, {"mask": 25}),
    ("mask_top_p", 150, {"mask": 70, "top_p": 0.8}),
    ("top_k_then_top_p", 200, {"top_k": 20, "top_p": 0.7}),
    ("top_k_then_min_p", 200, {"top_k": 30, "min_p": 0.1}),
    ("top_p_then_min_p", 200, {"top_p": 0.9, "min_p": 0.05}),
    ("typical_then_top_k", 200, {"typical_p": 0.8, "top_k": 10}),
    ("everything", 300, {"mask": 200, "banned": 5, "logit_bias": 10, "repetition_penalty": 1.1, "presence_penalty": 0.2,
                         "frequency_penalty": 0.1, "temperature": 0.9, "typical_p": 0.95, "top_k": 60, "top_p": 0.9,
                         "min_p": 0.02, "prompt": 20, "output": 20}),
]


def draw_case(options, vocab, generator):
    """The case's inputs: logits and lists of tokens."""

    def tokens(count, distinct):
        if distinct:
            return torch.randperm(vocab, generator=generator)[:count].tolist()
        return torch.randint(vocab // 2, (count,), generator=generator).tolist()

    case = {k: v for k, v in options.items() if k not in ("prompt", "output", "logit_bias", "banned", "mask")}
    logits = torch.randn(vocab, generator=generator, dtype=torch.float64) * 2.5
    case["logits"] = [round(v, 3) for v in logits.tolist()]
    for name in ("prompt", "output"):
        if name in options:
            case[name] = tokens(options[name], distinct=False)
    for name in ("banned", "mask"):
        if name in options:
            case[name] = sorted(tokens(options[name], distinct=True))
    if "logit_bias" in options:
        bias = torch.randn(options["logit_bias"], generator=generator) * 3
        case["logit_bias"] = [[t, round(b, 2)] for t, b in zip(tokens(options["logit_bias"], True), bias.tolist())]
    return case


def process(case):
    """Scores after every processor, in the sampler's order. [vocab] float64, -inf for what is out."""
    scores = torch.tensor(case["logits"], dtype=torch.float64)[None]
    vocab = scores.shape[1]
    prompt, output = case.get("prompt", []), case.get("output", [])
    if "mask" in case:
        rest = [t for t in range(vocab) if t not in case["mask"]]
        scores = SuppressTokensLogitsProcessor(rest)(None, scores)
    if "banned" in case:
        scores = SuppressTokensLogitsProcessor(case["banned"])(None, scores)
    if "logit_bias" in case:
        # float() of its bias tensor is float32 in transformers; the biases are short decimals, so add in float64 here
        # transformers adds in float32; added in float64 here, and checked against it.
        bias = {(t,): b for t, b in case["logit_bias"]}
        reference = SequenceBiasLogitsProcessor(bias)(torch.zeros((1, 1), dtype=torch.long), scores.float())
        for (token,), value in bias.items():
            scores[0, token] += value
        assert torch.allclose(reference.double(), scores, atol=1e-4)
    if "repetition_penalty" in case and prompt + output:
        scores = RepetitionPenaltyLogitsProcessor(case["repetition_penalty"])(torch.tensor([prompt + output]), scores)
    counts = torch.bincount(torch.tensor(output, dtype=torch.long), minlength=vocab).double()[None]
    scores = scores - case.get("presence_penalty", 0.0) * (counts > 0)
    scores = scores - case.get("frequency_penalty", 0.0) * counts
    if "temperature" in case:
        scores = TemperatureLogitsWarper(case["temperature"])(None, scores)
    if "typical_p" in case:
        scores = TypicalLogitsWarper(case["typical_p"])(None, scores)
    if "top_k" in case:
        scores = TopKLogitsWarper(case["top_k"])(None, scores)
    if "top_p" in case:
        scores = TopPLogitsWarper(case["top_p"])(None, scores)
    if "min_p" in case:
        scores = MinPLogitsWarper(case["min_p"])(None, scores)
    return scores[0]


def is_firm(case):
    """Whether what is left stays the same when thresholds move a little."""
    kept = torch.isfinite(process(case))
    for name in PROBABILITY_OPTIONS:
        for step in (-1e-5, 1e-5):
            if name in case and not torch.equal(kept, torch.isfinite(process({**case, name: case[name] + step}))):
                return False
    return True


def main():
    generator = torch.Generator().manual_seed(20240711)
    cases = []
    for name, vocab, options in CASES:
        while True:
            case = draw_case(options, vocab, generator)
            if is_firm(case):
                break
        scores = process(case)
        probabilities = torch.softmax(scores, 0)
        kept = torch.isfinite(scores).nonzero()[:, 0].tolist()
        expected = [[t, float(f"{probabilities[t].item():.8g}")] for t in kept]
        cases.append({"name": name, **case, "expected": expected})
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
