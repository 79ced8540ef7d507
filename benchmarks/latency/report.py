"""Statistics of latencies, and the page that shows them."""
import html
import math

COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#111")  # in the order of the modes


def percentile(values, share):
    """Linear between the two nearest ranks, as numpy's default; `share` in [0, 1]."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def statistics_of(values):
    """None for nothing; seconds in, seconds out."""
    if not values:
        return None
    mean = sum(values) / len(values)
    return {"count": len(values), "mean": mean, "median": percentile(values, 0.5), "p95": percentile(values, 0.95),
            "p99": percentile(values, 0.99), "min": min(values), "max": max(values),
            "stdev": math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)) if len(values) > 1 else 0.0}


def mode_report(samples, seconds, batch_seconds=()):
    """`seconds` is the wall time of the whole mode."""
    tokens = sum(sample.tokens for sample in samples)
    report = {
        "requests": len(samples), "tokens": tokens, "seconds": seconds,
        "requests_per_second": len(samples) / seconds, "tokens_per_second": tokens / seconds,
        "latency": statistics_of([sample.total for sample in samples]),
        "time_to_first_token": statistics_of([sample.first_token for sample in samples]),
        "inter_token": statistics_of([gap for sample in samples if (gap := sample.inter_token) is not None]),
        "outside_engine": statistics_of([sample.total - sample.engine for sample in samples if sample.engine is not None]),
        "latencies": [sample.total for sample in samples],
    }
    if batch_seconds:
        report["batch_latency"] = statistics_of(list(batch_seconds))
    return report


ROWS = (("latency", "request latency"), ("batch_latency", "whole batch"), ("time_to_first_token", "time to first token"),
        ("inter_token", "inter-token"))
COLUMNS = ("mean", "median", "p95", "p99")


def text_table(modes):
    lines = [f"{'':<12}{'milliseconds':<22}" + "".join(f"{name:>10}" for name in COLUMNS)]
    for mode, report in modes.items():
        for key, title in ROWS:
            if report.get(key):
                cells = "".join(f"{report[key][name] * 1e3:>10.2f}" for name in COLUMNS)
                lines.append(f"{mode:<12}{title:<22}{cells}")
        lines.append(f"{mode:<12}{'throughput':<22}{report['requests_per_second']:>10.1f} requests/s"
                     f"{report['tokens_per_second']:>12.1f} tokens/s")
    return "\n".join(lines)


def svg(modes, width=760, height=320):
    """The share of requests that were answered within a time, one line for each mode."""
    left, bottom = 50, 40
    longest = max(max(report["latencies"]) for report in modes.values()) * 1.02 or 1.0
    across, up = width - left - 20, height - bottom - 20
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="white"/>']
    for share in (0, 0.25, 0.5, 0.75, 0.95, 1):
        y = height - bottom - share * up
        parts.append(f'<line x1="{left}" x2="{width - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>'
                     f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{share * 100:g} %</text>')
    for step in range(6):
        x = left + across * step / 5
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{longest * step / 5 * 1e3:.1f}</text>')
    parts.append(f'<text x="{left + across / 2}" y="{height - 6}" text-anchor="middle">request latency in ms</text>')
    for number, (mode, report) in enumerate(modes.items()):
        ordered = sorted(report["latencies"])
        points = [f"{left:.1f},{height - bottom:.1f}"]
        for rank, value in enumerate(ordered):
            x = left + across * value / longest
            points.append(f"{x:.1f},{height - bottom - up * rank / len(ordered):.1f}")
            points.append(f"{x:.1f},{height - bottom - up * (rank + 1) / len(ordered):.1f}")
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(points)}"/>'
                     f'<text x="{left + 10}" y="{34 + 16 * number}" fill="{colour}">{html.escape(mode)}</text>')
    return "".join(parts) + "</svg>"


def page(result):
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    body = []
    for mode, report in result["modes"].items():
        for key, title in ROWS:
            if report.get(key):
                cells = "".join(f"<td>{report[key][name] * 1e3:.2f}</td>" for name in COLUMNS)
                body.append(f"<tr><td>{html.escape(mode)}</td><td>{title} (ms)</td>{cells}</tr>")
        body.append(f"<tr><td>{html.escape(mode)}</td><td>throughput</td><td colspan=4>{report['requests_per_second']:.1f} "
                    f"requests/s, {report['tokens_per_second']:.1f} tokens/s</td></tr>")
    facts = "".join(f"<li>{html.escape(str(name))}: {html.escape(str(value))}</li>" for name, value in result["setup"].items())
    return ("<!doctype html><meta charset=utf-8><title>Latency</title><style>body{font:14px sans-serif;margin:2em}"
            "td,th{padding:.2em .8em;text-align:right}td:nth-child(-n+2){text-align:left}</style>"
            f"<h1>Latency</h1><ul>{facts}</ul>{svg(result['modes'])}"
            f"<table><tr><th></th><th></th>{head}</tr>{''.join(body)}</table>\n")
