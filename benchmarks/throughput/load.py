"""What is asked and when: lengths, arrivals, and the loop that keeps to them. The same seed gives the same requests."""
import asyncio
import math
import random
import time
from dataclasses import dataclass, field

WORDS = ("time river stone house light wind forest letter garden morning winter island market story mountain paper window "
         "music harvest journey lantern village ocean kitchen shadow summer engine captain violet thunder meadow silver").split()
# Means in tokens of the ShareGPT conversations as Kwon et al. 2023 (vLLM) give them; the spread of a log-normal.
SHAREGPT = {"input": 161.0, "output": 338.0, "sigma": 1.0}


@dataclass
class Request:
    prompt: str
    max_tokens: int
    arrival: float = 0.0  # seconds since the beginning; of an open loop alone


@dataclass
class Round:
    """What came of one round; `samples` are those that ended well."""

    seconds: float
    samples: list = field(default_factory=list)
    errors: list = field(default_factory=list)


def lengths(kind, options, rng):
    """(input words, output tokens) of one request."""
    if kind == "fixed":
        return options.input_len, options.output_len
    if kind == "random":  # uniform, as most benchmarks mean the word
        return rng.randint(1, options.input_len), rng.randint(1, options.output_len)

    def log_normal(mean, most):
        mu = math.log(mean) - SHAREGPT["sigma"] ** 2 / 2
        return max(1, min(most, round(rng.lognormvariate(mu, SHAREGPT["sigma"]))))

    return log_normal(SHAREGPT["input"], options.input_len), log_normal(SHAREGPT["output"], options.output_len)


def plan(options, seed):
    """Prompts differ from their first word on, so that no prefix cache answers; --shared-prefix gives it something to do."""
    rng = random.Random(seed)
    prefix = " ".join(rng.choice(WORDS) for _ in range(options.shared_prefix))
    requests, now = [], 0.0
    for number in range(options.num_requests):
        words, tokens = lengths(options.lengths, options, rng)
        text = " ".join([f"{seed}.{number}", *(rng.choice(WORDS) for _ in range(words - 1))])
        if options.rate:
            # Gamma-distributed gaps of mean 1 / rate; shape 1 is a Poisson process, smaller ones come in bursts.
            now += rng.gammavariate(options.burstiness, 1 / (options.rate * options.burstiness))
        requests.append(Request(f"{prefix} {text}".strip(), tokens, now))
    return requests


async def run(target, requests, options, step=lambda: None):
    """One round against one target."""
    begin = time.perf_counter()
    done = Round(0.0)

    async def ask(request):
        # Of an open loop times count from when a request was to be sent: one that this process sends late, because it was
        # busy or the target held it up, has waited as well.
        late = max(0.0, time.perf_counter() - begin - request.arrival) if options.rate else 0.0
        try:
            sample = await target.ask(request.prompt, request.max_tokens)
            sample.first_token += late
            sample.total += late
            done.samples.append(sample)
        except Exception as error:  # whatever it was, the request failed
            done.errors.append(f"{type(error).__name__}: {error}")
        step()

    if options.rate:  # an open loop: requests come whether or not the earlier ones have been answered
        tasks = []
        for request in requests:
            wait = request.arrival - (time.perf_counter() - begin)
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.ensure_future(ask(request)))
        await asyncio.gather(*tasks)
    else:  # a closed loop: each of so many clients asks again once it has been answered
        waiting = iter(requests)

        async def client():
            for request in waiting:
                await ask(request)

        await asyncio.gather(*(client() for _ in range(min(options.concurrency, len(requests)))))
    done.seconds = time.perf_counter() - begin
    return done
