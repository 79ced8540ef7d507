"""The page of side_by_side.py: medians, ranges and ratios as tables, and a picture of the ratios, also for other pages."""
import html
import statistics

QUIET = 0.05  # two measurements of the bandwidth of a quiet machine differ by less


def is_quiet(round_):
    """Whether the read bandwidth was the same before and after, within QUIET of the larger one."""
    reads = [round_[when]["read_bytes_per_second"] for when in ("before", "after")]
    return max(reads) - min(reads) <= QUIET * max(reads)


def measured(result):
    """Cases with a round; a run may have ended early."""
    cases = [case for case in result["cases"] if case["rounds"]]
    if not cases:
        raise ValueError("the results hold no round")
    return cases


def rates(case, whose):
    """One number for each round: the mean of its two measurements."""
    return [statistics.mean(round_[whose]) for round_ in case["rounds"]]


def is_time(case):
    """Seconds, of which fewer are better; else tokens/s."""
    return case.get("unit") == "s"


def ratios(case):
    return [sum(round_["ours"]) / sum(round_["theirs"]) for round_ in case["rounds"]]


def spread(values, digits):
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def digits(case):
    return 2 if is_time(case) else 1


def page(result, picture_name):
    setup, cases = result["setup"], measured(result)
    rounds = [round_ for case in cases for round_ in case["rounds"]]
    machines = [round_[when] for round_ in rounds for when in ("before", "after")]
    loud = sum(not is_quiet(round_) for round_ in rounds)
    rows = [f"| {case['type']} | {case['name']}{', s' if is_time(case) else ''} | {spread(rates(case, 'ours'), digits(case))} "
            f"| {spread(rates(case, 'theirs'), digits(case))} | {spread(ratios(case), 2)} "
            f"| {sum(not is_quiet(r) for r in case['rounds']) or ''} |" for case in cases]
    each = [f"| {case['type']} | {case['name']}{', s' if is_time(case) else ''} | {number} "
            f"| {statistics.mean(r['ours']):,.{digits(case)}f} | {statistics.mean(r['theirs']):,.{digits(case)}f} "
            f"| {sum(r['ours']) / sum(r['theirs']):.2f} | {r['before']['read_bytes_per_second'] / 1e9:.1f} "
            f"| {r['after']['read_bytes_per_second'] / 1e9:.1f} | {'' if is_quiet(r) else 'not quiet'} |"
            for case in cases for number, r in enumerate(case["rounds"], 1)]
    few = "" if min(len(case["rounds"]) for case in cases) >= 5 else "\nFewer than five rounds: a look at the programs, no measurement.\n"
    noise = "" if not loud else (f"\nIn {loud} of {len(rounds)} rounds the read bandwidth before and after differed by more than "
                                 f"{QUIET * 100:.0f} %: these are marked, and the machine was not quiet.\n")
    return f"""# Side by side with llama.cpp

Written by `benchmarks/throughput/side_by_side.py`, which says how it measures. {setup["model"]}, {setup["date"]}; medians and
ranges of {setup["rounds"]} rounds, each in the order A B B A. Tokens/s, of which a ratio above 1 means that Inferneo is faster;
where it says s, seconds, of which one below 1 does. Decoding after {setup["prompt"]} tokens, {setup["output"]} tokens for each
stream.

Machine: {setup["processor"]}, {setup["threads"]} threads, {machines[0]["isa"]}; bf16
{spread([m["bf16_flops"] / 1e9 for m in machines], 0)} GFLOP/s, read
{spread([m["read_bytes_per_second"] / 1e9 for m in machines], 1)} GB/s. llama.cpp: {setup.get("llama.cpp", "unknown")}.
The tensors are the same values; of a quantised type each engine keeps its own scheme (q8_0 beside int8, q4_0 beside int4), and
each keeps its cache in the type that it does by default.
{few}{noise}
| type | case | Inferneo | llama.cpp | ratio | marked rounds |
|---|---|---|---|---|---|
{chr(10).join(rows)}

![Ratios]({picture_name})

## Rounds
Read bandwidth in GB/s, before and after each.

| type | case | round | Inferneo | llama.cpp | ratio | before | after | |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(each)}
"""


def picture(result):
    """Each rate's median ratio as a dot on the range of its rounds; the line at 1 is where both are as fast."""
    cases = [case for case in measured(result) if not is_time(case)]
    left, right, top, step = 220, 60, 30, 28
    width, height = 760, top + step * len(cases) + 40
    most = max([1.0, *(ratio for case in cases for ratio in ratios(case))]) * 1.1

    def x(ratio):
        return left + (width - left - right) * ratio / most

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="white"/>']
    tick = 0.25 if most <= 2.5 else 1.0
    for number in range(int(most / tick) + 1):
        at = x(number * tick)
        colour = "#111" if number * tick == 1 else "#e5e7eb"
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top - 8}" y2="{height - 34}" stroke="{colour}"/>'
                     f'<text x="{at:.1f}" y="{height - 20}" text-anchor="middle">{number * tick:g}</text>')
    for number, case in enumerate(cases):
        values = ratios(case)
        y = top + step * number + step / 2
        middle = statistics.median(values)
        parts.append(f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{html.escape(case["type"] + ", " + case["name"])}</text>'
                     f'<line x1="{x(min(values)):.1f}" x2="{x(max(values)):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#2563eb" stroke-width="3"/>'
                     f'<circle cx="{x(middle):.1f}" cy="{y:.1f}" r="5" fill="#2563eb"/>'
                     f'<text x="{x(max(values)) + 10:.1f}" y="{y + 4:.1f}">{middle:.2f}</text>')
    parts.append(f'<text x="{left}" y="{height - 4}">tokens/s of Inferneo over those of {result["setup"].get("peer", "llama.cpp")}</text>')
    return "".join(parts) + "</svg>\n"
