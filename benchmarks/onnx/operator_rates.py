"""Rows/s of MatMulNBits alone, of one row and of so many at once: one JSON object. Run by report.py.

    PATH/python benchmarks/onnx/operator_rates.py --threads 2 --rows 16 --inputs 1024 --weights 300000000

A graph of one node in ONNX Runtime, int4 in blocks of 32 with zero points, products in int8, with as many weights as a model
has, so that they come from memory as they do in a model. Needs numpy, onnx and onnxruntime.
"""
import argparse
import json
import statistics
import time

import numpy
import onnx
import onnxruntime

BLOCK = 32


def session(inputs, outputs, threads):
    random = numpy.random.default_rng(1)
    blocks = inputs // BLOCK
    weights = {"b": random.integers(0, 256, (outputs, blocks, BLOCK // 2), numpy.uint8),
               "scales": random.random((outputs, blocks), numpy.float32) / 64,
               "zero_points": random.integers(0, 256, (outputs, (blocks + 1) // 2), numpy.uint8)}
    node = onnx.helper.make_node("MatMulNBits", ["x", *weights], ["y"], domain="com.microsoft", K=inputs, N=outputs, bits=4,
                                 block_size=BLOCK, accuracy_level=4)
    graph = onnx.helper.make_graph(
        [node], "operator", [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", inputs])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", outputs])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()])
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21),
                                                                        onnx.helper.make_opsetid("com.microsoft", 1)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("--threads", "--rows", "--inputs", "--weights"):
        parser.add_argument(flag, type=int, required=True)
    args = parser.parse_args()
    run = session(args.inputs, args.weights // args.inputs, args.threads)
    rates = {}
    for rows in (1, args.rows):
        x = numpy.random.default_rng(2).standard_normal((rows, args.inputs), numpy.float32)
        seconds = []
        for _ in range(12):
            begin = time.perf_counter()
            run.run(None, {"x": x})
            seconds.append(time.perf_counter() - begin)
        rates["one" if rows == 1 else "many"] = rows / statistics.median(seconds[2:])
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
