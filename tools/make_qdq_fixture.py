"""Makes tests/golden/onnx_qdq: the decoder of make_onnx_fixtures.py with its products quantised as quantisers of ONNX write
them (QuantizeLinear and DequantizeLinear around each MatMul), and what it answers as numpy computes it.

Weights are int8, symmetric, with a scale for each column, activations uint8 with a scale and a zero point for each product,
from the largest value that the prompts lead to. Weights use seven bits: instructions of older processors add two products of
eight bits in sixteen and would saturate.

Needs numpy and onnx:  python3 tools/make_qdq_fixture.py [tests/golden/onnx_qdq]
"""
import json
import pathlib
import sys

import numpy as np
import onnx

import make_onnx_fixtures as base

ANSWER = 5  # tokens: fewer doubts than ten would leave
MATRICES = ("q", "k", "v", "o", "gate", "up", "down", "head")
ZERO = 128


def is_matrix(name):
    return name.split(".")[-1] in MATRICES


def quantised(weights):
    found = {}
    for name, matrix in weights.items():
        if is_matrix(name):
            scale = (np.abs(matrix).max(0) / 63).astype(np.float32)
            found[name] = (np.clip(np.rint(matrix / scale), -63, 63).astype(np.int8), scale)
    return found


class Arrays(dict):
    """The weights of the reference, whose products go through `multiply`."""

    def __init__(self, weights, multiply):
        super().__init__(weights)
        self.multiply = multiply

    def items(self):
        return [(name, Matrix(name, value, self.multiply) if is_matrix(name) else value) for name, value in super().items()]


class Matrix:
    __array_priority__ = 100
    __array_ufunc__ = None

    def __init__(self, name, value, multiply):
        self.name, self.value, self.multiply = name, value, multiply

    def astype(self, _):
        return self

    def __rmatmul__(self, x):
        return self.multiply(self.name, x, self.value)


class QdqGraph(base.Graph):
    scales = {}

    def weight(self, name):
        return name if is_matrix(name) else super().weight(name)

    def op(self, kind, *inputs, **how):
        if kind != "MatMul" or not is_matrix(inputs[1]) or inputs[1] not in self.weights:
            return super().op(kind, *inputs, **how)
        x, name = inputs
        integers, scale = quantised({name: self.weights[name]})[name]
        step = self.constant(np.array(self.scales[name], np.float32), f"{name}.step")
        zero = self.constant(np.array(ZERO, np.uint8), "zero_point")
        x = super().op("DequantizeLinear", super().op("QuantizeLinear", x, step, zero), step, zero)
        w = super().op("DequantizeLinear", self.constant(integers, name), self.constant(scale, f"{name}.scale"),
                       self.constant(np.zeros(len(scale), np.int8), f"{name}.zero"), axis=1)
        return super().op("MatMul", x, w, **how)


def main():
    base.ANSWER = ANSWER
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/onnx_qdq")
    for seed in range(1000):
        weights = base.make_weights(seed)
        largest = {}

        def observe(name, x, w):
            largest[name] = max(largest.get(name, 0.0), float(np.abs(x).max()))
            return x @ w.astype(np.float64)

        for prompt in base.PROMPTS:
            base.greedy(Arrays(weights, observe), prompt)
        scales = {name: np.float32(value * 2 / 255) for name, value in largest.items()}
        integers = quantised(weights)

        def multiply(name, x, _):
            step = float(scales[name])
            steps = np.clip(np.rint(x / step) + ZERO, 0, 255) - ZERO
            return (steps @ integers[name][0].astype(np.float64)) * step * integers[name][1].astype(np.float64)

        arrays = Arrays(weights, multiply)
        found = [base.greedy(arrays, prompt) for prompt in base.PROMPTS]
        if min(margin for _, margin in found) > 0.1 and min(len(set(answer)) for answer, _ in found) > 2:
            break
    else:
        sys.exit("no seed will do")
    plain, QdqGraph.scales, base.Graph = base.Graph, scales, QdqGraph
    model = base.copied(weights)
    base.Graph = plain
    root.mkdir(parents=True, exist_ok=True)
    onnx.save(model, root / "model.onnx")
    (root / "config.json").write_text(json.dumps(base.CONFIG, indent=1) + "\n")
    (root / "tokenizer.json").write_text(json.dumps(base.tokenizer()) + "\n")
    answers = [{"prompt": prompt, "answer": answer, "margin": margin, "logits": [round(float(x), 6) for x in base.reference(arrays, prompt)[-1]]}
               for prompt, (answer, margin) in zip(base.PROMPTS, found)]
    (root / "golden.json").write_text(json.dumps({"answers": answers}, indent=1) + "\n")
    print(f"seed {seed}, margins", [round(margin, 2) for _, margin in found])


if __name__ == "__main__":
    main()
