#!/usr/bin/env python3
"""Writes tests/unit/experiments/data/goldens.json: what others make of the numbers on which A/B tests rest.

SipHash is OpenSSL's. Moments and quantiles are numpy's. Special functions are scipy's. Boundaries are found the long way:
mixtures are integrated numerically, half widths are roots of the integral, intervals of rates are found by a general
optimiser, so that nothing here follows the closed forms of the program. Assignments are worked out with whole numbers and
fractions.

Needs numpy 2.4, scipy 1.17 and the openssl program (3.0); the tests do not.
Usage: tools/make_experiment_goldens.py OUTPUT.json
"""

import json
import subprocess
import sys
import tempfile
from fractions import Fraction

import numpy as np
from scipy import integrate, optimize, special, stats

MASK = (1 << 64) - 1


def openssl_siphash(key, message):
    with tempfile.NamedTemporaryFile() as file:
        file.write(message)
        file.flush()
        out = subprocess.run(["openssl", "mac", "-macopt", f"hexkey:{key.hex()}", "-macopt", "size:8", "-in", file.name,
                              "SIPHASH"], capture_output=True, text=True, check=True)
    return out.stdout.strip().lower()


def siphash(k0, k1, message):
    """SipHash-2-4 as the paper has it; checked against OpenSSL below."""
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(x, b):
        return ((x << b) | (x >> (64 - b))) & MASK

    def rounds(n):
        for _ in range(n):
            v[0] = (v[0] + v[1]) & MASK
            v[1] = rotate(v[1], 13) ^ v[0]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[3]) & MASK
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & MASK
            v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & MASK
            v[1] = rotate(v[1], 17) ^ v[2]
            v[2] = rotate(v[2], 32)

    padded = message + b"\0" * (7 - len(message) % 8) + bytes([len(message) & 0xFF])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def siphash_vectors():
    key = bytes(range(16))
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    vectors = []
    for length in range(64):
        message = bytes(range(length))
        theirs = openssl_siphash(key, message)
        assert theirs == siphash(k0, k1, message).to_bytes(8, "little").hex(), length
        vectors.append(theirs)
    assert vectors[15] == (0xA129CA6149BE45E5).to_bytes(8, "little").hex()  # the paper's own example
    return vectors


def assignments():
    """Arms of the keys user-0, user-1, ..., as one digit each."""
    cases = []
    for name, shares in (("model_comparison", [0.7, 0.3]), ("tone", [0.9, 0.1]), ("three", [0.5, 0.25, 0.25])):
        first = siphash(0x496E6665726E656F, 0x6578706572696D65, name.encode())
        second = siphash(0x6E74732061726D73, 0x6B65797320616E64, name.encode())
        text = ""
        for number in range(1000):
            value = siphash(first, second, f"user-{number}".encode())
            begin, chosen = 0, 0
            for arm in range(1, len(shares)):
                length = int(Fraction(shares[arm]) * 2**64)
                if begin <= value < begin + length:
                    chosen = arm
                begin += length
            text += str(chosen)
        cases.append({"name": name, "shares": shares, "arms": text})
    return cases


def functions():
    points = [1e-3, 0.5, 1.0, 1.5, 2.0, 9.99, 10.0, 57.5, 1234.5, 1e6]
    pairs = [(0.5, 0.5), (1.0, 9.0), (3.5, 98.5), (0.5, 100.5), (1500.5, 2500.5), (1e5, 2e6)]
    probabilities = [1e-12, 1e-6, 0.001, 0.025, 0.2, 0.5, 0.8, 0.975, 0.999, 1 - 1e-9]
    return {
        "log_gamma": [[x, float(special.gammaln(x))] for x in points],
        "log_beta": [[a, b, float(special.betaln(a, b))] for a, b in pairs],
        "normal_quantile": [[p, float(stats.norm.ppf(p))] for p in probabilities],
        "normal_probability": [[z, float(stats.norm.cdf(z))] for z in (-8.0, -3.0, -1.0, 0.0, 0.5, 2.0, 6.0)],
    }


def samples(rng):
    values = np.round(np.exp(rng.normal(-1.5, 1.2, 700)), 9)
    ranks = [0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0]
    return {
        "values": values.tolist(),
        "split_at": 300,  # for the merge
        "mean": float(np.mean(values)),
        "variance": float(np.var(values, ddof=1)),
        "least": float(np.min(values)),
        "greatest": float(np.max(values)),
        "quantiles": [[q, float(np.quantile(values, q, method="lower"))] for q in ranks],
    }


def unit_case(rng):
    """Requests of unlike users: their buckets, values and the variance of their mean with buckets as the units."""
    buckets = rng.integers(0, 64, 900)
    values = np.round(rng.normal(0, 1, 64)[buckets] * 0.8 + rng.normal(0, 1, 900), 9)
    mean, variance = np.mean(values), np.var(values, ddof=1)
    totals = np.array([np.sum(values[buckets == g] - mean) for g in range(64)])
    between = np.sum((totals - np.mean(totals)) ** 2) / 63 * 64  # of the sum of all residuals
    return {"units": buckets.tolist(), "values": values.tolist(), "variance_of_mean": float(between / len(values) ** 2),
            "design_effect": float(between / (len(values) * variance))}


def mixture_evidence(effect, variance, tau):
    """log of the integral of N(d; 0, tau^2) times the likelihood ratio of d to 0, at an estimate of d."""
    centre = effect * tau**2 / (tau**2 + variance)
    width = np.sqrt(variance * tau**2 / (variance + tau**2))
    peak = (2 * effect * centre - centre**2) / (2 * variance) + stats.norm.logpdf(centre, 0, tau)

    def inside(d):
        return np.exp((2 * effect * d - d**2) / (2 * variance) + stats.norm.logpdf(d, 0, tau) - peak)

    value, _ = integrate.quad(inside, centre - 12 * width, centre + 12 * width, epsabs=0, epsrel=1e-12, limit=500)
    return float(np.log(value) + peak)


def half_width(variance, tau, alpha):
    return float(optimize.brentq(lambda x: mixture_evidence(x, variance, tau) + np.log(alpha), 1e-9, 100 * np.sqrt(variance) + tau,
                                 xtol=1e-14, rtol=1e-13))


def means():
    rows = []
    for variance, tau, alpha, effect in ((0.01, 0.0953, 0.05, 0.2), (1e-3, 0.0953, 0.05, 0.1), (1e-4, 0.0953, 0.01, -0.05),
                                         (1e-5, 0.0488, 0.05, 0.01), (0.0953**2 / 8.78, 0.0953, 0.05, 0.0)):
        rows.append({"variance": variance, "tau": tau, "alpha": alpha, "effect": effect,
                     "log_evidence": mixture_evidence(effect, variance, tau), "half_width": half_width(variance, tau, alpha)})
    growth = []
    for variance, tau, alpha, effect, power in ((0.01, 0.0953, 0.05, 0.0953, 0.8), (0.002, 0.0488, 0.025, 0.0488, 0.9)):
        z = stats.norm.ppf(power)
        factor = optimize.brentq(lambda f: half_width(variance / f, tau, alpha) + z * np.sqrt(variance / f) - effect, 1, 1e5)
        growth.append({"variance": variance, "tau": tau, "alpha": alpha, "effect": effect, "power": power, "growth": float(factor)})
    return rows, growth


def log_likelihood(count, total, p):
    return special.xlogy(total, p) + special.xlog1py(count - total, -p)


def regret(warm, live):
    """Nine parts of the prior that the warm-up made, one of Jeffreys'."""
    best = log_likelihood(*live, live[1] / live[0])
    parts = []
    for weight, count, total in ((0.9, *warm), (0.1, 0, 0)):
        a, b = 0.5 + total, 0.5 + count - total
        mixed = special.betaln(a + live[1], b + live[0] - live[1]) - special.betaln(a, b)
        parts.append(np.log(weight) + mixed)
    return float(best - special.logsumexp(parts))


def predicted_one_by_one(warm, live):
    """The same for 0s and 1s, by multiplying the probability of each value given those before it."""
    logs = []
    for weight, count, ones in ((0.9, *warm), (0.1, 0, 0)):
        total, seen, events = 0.0, count, ones
        for value in [1] * live[1] + [0] * (live[0] - live[1]):
            p = (events + 0.5) / (seen + 1.0)
            total += np.log(p if value else 1 - p)
            seen += 1
            events += value
        logs.append(np.log(weight) + total)
    return float(log_likelihood(*live, live[1] / live[0]) - special.logsumexp(logs))


def rates():
    cases = []
    for warm_a, live_a, warm_b, live_b in (
        ((100, 60), (900, 540), (100, 66), (900, 610)),
        ((100, 2), (2400, 50), (100, 1), (400, 20)),
        ((100, 0), (500, 0), (100, 0), (300, 0)),
        ((100, 61.5), (400, 252.25), (100, 58.75), (420, 199.5)),
        ((100, 50), (300, 20), (100, 50), (300, 280)),
    ):
        alpha = 0.05
        for warm, live in ((warm_a, live_a), (warm_b, live_b)):
            if isinstance(live[1], int):
                assert abs(regret(warm, live) - predicted_one_by_one(warm, live)) < 1e-7
        bound = regret(warm_a, live_a) + regret(warm_b, live_b) - np.log(alpha)
        best = log_likelihood(*live_a, live_a[1] / live_a[0]) + log_likelihood(*live_b, live_b[1] / live_b[0])

        def apart(difference):
            """How far the nearest pair of rates with this difference is from what was seen."""
            low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
            found = optimize.minimize_scalar(
                lambda p: -log_likelihood(*live_a, p) - log_likelihood(*live_b, min(1.0, max(0.0, p + difference))),
                bounds=(low, high), method="bounded", options={"xatol": 1e-13})
            return best + found.fun - bound

        seen = live_b[1] / live_b[0] - live_a[1] / live_a[0]
        cases.append({
            "warm_a": warm_a, "live_a": live_a, "warm_b": warm_b, "live_b": live_b, "alpha": alpha,
            "regret_a": regret(warm_a, live_a), "regret_b": regret(warm_b, live_b),
            "log_evidence": float(apart(0.0) - np.log(alpha)),
            "lower": float(optimize.brentq(apart, -1 + 1e-9, seen, xtol=1e-12)),
            "upper": float(optimize.brentq(apart, seen, 1 - 1e-9, xtol=1e-12)),
        })
    return cases


def one_sided():
    """The smallest number of events among n that is certain to be above the limit."""
    rows = []
    for count, limit, alpha in ((100, 0.05, 0.01), (1000, 0.05, 0.01), (5000, 0.05, 0.01), (200, 0.2, 0.05), (400, 0.6, 0.05)):
        b = max(1.0, 0.5 / limit - 1.0)
        events = np.arange(count + 1)
        evidence = special.betaln(1 + events, b + count - events) - special.betaln(1, b) - log_likelihood(count, events, limit)
        certain = (events / count > limit) & (evidence >= -np.log(alpha))
        rows.append([count, limit, alpha, int(np.argmax(certain))])
    return rows


def quantile_counts():
    """Of n values, how many may lie at or below the q-th quantile: beta-binomial against binomial, both from scipy."""
    rows = []
    for count, q, alpha in ((100, 0.95, 0.025), (1000, 0.95, 0.025), (5000, 0.95, 0.01), (300, 0.5, 0.05)):
        below = np.arange(count + 1)
        evidence = stats.betabinom.logpmf(below, count, 200 * q, 200 * (1 - q)) - stats.binom.logpmf(below, count, q)
        possible = np.flatnonzero(evidence < -np.log(alpha))
        rows.append([count, q, alpha, int(possible[0]), int(possible[-1])])
    return rows


def main():
    rng = np.random.default_rng(20240117)
    rows, growth = means()
    goldens = {
        "siphash": siphash_vectors(), "assignments": assignments(), "functions": functions(), "samples": samples(rng),
        "units": unit_case(rng), "means": rows, "mean_growth": growth, "rates": rates(), "one_sided": one_sided(),
        "quantile_counts": quantile_counts(),
    }
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(goldens, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
