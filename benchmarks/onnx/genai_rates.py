"""What onnxruntime-genai makes of a converted model: one JSON object of tokens/s. Run by report.py with the Python that has it.

    PATH/python benchmarks/onnx/genai_rates.py MODEL --threads 2 --prefill 512 --prompt 32 --output 64 --streams 8

Prefill: a prompt's tokens over the time to its first token. Decode: the tokens after the first one over their time, after a
prompt of --prompt tokens. in_turn: requests one after the other, as a server without batching answers them; three are timed,
since their rate does not depend on how many there are. batch: --streams requests by one generator of that batch size, which all
begin and end together. Both are generated tokens over the whole time, prompts included. Tokens are random, the best one is
taken, and no end is seen before --output tokens. With --slices it stays ready: for each line on its standard input it prints the
rate of one decode.
"""
import argparse
import json
import sys
import time

import numpy
import onnxruntime_genai

IN_TURN = 3  # requests


def generator(model, tokens, output):
    """Of prompts of the same length, [batch, length]; what it has computed by then is nothing."""
    params = onnxruntime_genai.GeneratorParams(model)
    length = tokens.shape[1] + output
    params.set_search_options(max_length=length, min_length=length, batch_size=len(tokens), do_sample=False)
    return onnxruntime_genai.Generator(model, params)


def generate(model, tokens, output):
    """Seconds to the first token, and of the others."""
    begin = time.perf_counter()
    made = generator(model, tokens, output)
    made.append_tokens(tokens if len(tokens) > 1 else tokens[0])
    made.generate_next_token()
    first = time.perf_counter()
    for _ in range(output - 1):
        made.generate_next_token()
    end = time.perf_counter()
    assert made.token_count() == tokens.shape[1] + output, "it stopped before it was to"
    return first - begin, end - first


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    for flag in ("--threads", "--prefill", "--prompt", "--output", "--streams"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--slices", action="store_true")
    args = parser.parse_args()
    config = onnxruntime_genai.Config(args.model)
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": args.threads}}}}))
    model = onnxruntime_genai.Model(config)
    with open(f"{args.model}/genai_config.json", encoding="utf-8") as file:
        vocabulary = json.load(file)["model"]["vocab_size"]
    random = numpy.random.default_rng(1)

    def prompts(count, length):
        return random.integers(16, vocabulary, (count, length), dtype=numpy.int32)

    generate(model, prompts(1, 16), 4)  # pays for threads and pages
    if args.slices:
        print("ready", flush=True)
        for _ in sys.stdin:
            print((args.output - 1) / generate(model, prompts(1, args.prompt), args.output)[1], flush=True)
        return
    rates = {"version": onnxruntime_genai.__version__}
    rates["prefill"] = args.prefill / generate(model, prompts(1, args.prefill), 2)[0]
    rates["decode"] = (args.output - 1) / generate(model, prompts(1, args.prompt), args.output)[1]
    requests = prompts(args.streams, args.prompt)
    seconds = sum(sum(generate(model, prompt, args.output)) for prompt in (prompts(1, args.prompt) for _ in range(IN_TURN)))
    rates["in_turn"] = IN_TURN * args.output / seconds
    rates["batch"] = args.streams * args.output / sum(generate(model, requests, args.output))
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
