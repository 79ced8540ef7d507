"""Decoding of one stream, this engine over onnxruntime-genai, in short slices in turn: where both are bound by the same kernels,
a difference of a hundredth is lost in the rounds of report.py, whose parts are minutes apart.

    PYTHONPATH=build/release/python python benchmarks/onnx/decode_pairs.py MODEL --genai-python PATH [--rounds 60]

MODEL: a converted one (report.py keeps its own beside its results). Both engines stay ready, each in a process of its own with
its threads asleep, and decode --output tokens in the order A B, B A, ... The rates of each pair make one ratio; printed are
their median and the interval that holds it at 95 % (bootstrap). Needs the Python package of this engine.
"""
import argparse
import pathlib
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "latency")]

from overhead import Side, median_with_interval  # noqa: E402


def answer_slices(args):
    """This engine's side."""
    import inferneo

    engine = inferneo.InferneoEngine(inferneo.EngineConfig(
        model=args.model, num_threads=args.threads, max_num_seqs=1, max_model_len=args.prompt + args.output,
        **({"onnxruntime": args.onnxruntime} if args.onnxruntime else {})))
    engine.start_sync()
    # Tokens of a random model's text are not what the other engine gets; how many there are is what counts.
    prompt = "a " * (args.prompt - 2)

    def rate():
        result = engine.generate_sync(prompt, max_tokens=args.output, temperature=0, ignore_eos=True)
        return (result.completion_tokens - 1) / (result.total_time - result.time_to_first_token)

    rate()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(rate(), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--genai-python", help="the Python that has onnxruntime-genai")
    parser.add_argument("--onnxruntime", help="the library that this engine loads; else as configured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--output", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=60, help="pairs of slices (%(default)s)")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.answer:
        return answer_slices(args)
    if not args.genai_python:
        parser.error("--genai-python is needed")
    lengths = ["--threads", str(args.threads), "--prompt", str(args.prompt), "--output", str(args.output)]
    library = ["--onnxruntime", args.onnxruntime] if args.onnxruntime else []
    sides = []
    rates = ([], [])
    try:
        sides.append(Side([sys.executable, __file__, args.model, *lengths, *library, "--answer"], flags=()))
        sides.append(Side([args.genai_python, str(HERE / "genai_rates.py"), args.model, *lengths, "--prefill", "1", "--streams", "1"]))
        for number in range(args.rounds):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                rates[side].append(float(sides[side].slice("decode")))
    except RuntimeError as error:
        print(f"decode_pairs: {error}", file=sys.stderr)
        return 1
    finally:
        for side in sides:
            side.close()
    ours, theirs = (statistics.median(values) for values in rates)
    print(f"{args.model}: {ours:.2f} and {theirs:.2f} tokens/s; ratio of {args.rounds} pairs "
          f"{median_with_interval([a / b for a, b in zip(*rates)], 4)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
