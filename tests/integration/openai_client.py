"""The official `openai` client against the real program and the bundled models.

One line per case; the last line is "N passed, N failed", and the exit code says whether all passed. After each case the
server must be idle again; after all of them the laws of the whole run are checked. Needs the package `openai` and
loopback, nothing else. Usage: openai_client.py --binary build/dev/inferneo --model models/inferneo-story [NAME...]
"""

import argparse
import os
import signal
import sys
import time
import traceback

# Each module registers its cases, in this order.
from openai_cases import text_cases, logprob_cases, structured_cases, error_cases, lifecycle_cases  # noqa: F401
from openai_cases.harness import (ADMIN_KEY, API_KEY, CASE_SECONDS, CASES, CODE, OPENING, QUESTION, STORY, Api, Server,
                                  check, eventually)


class Run:
    """Counts, prints, and bounds every case in time."""

    def __init__(self):
        self.passed = self.failed = 0
        signal.signal(signal.SIGALRM, self._out_of_time)

    @staticmethod
    def _out_of_time(_signal, _frame):
        raise TimeoutError(f"not done after {CASE_SECONDS} s")

    def case(self, title, work, *arguments):
        start = time.monotonic()
        signal.alarm(CASE_SECONDS)
        try:
            work(*arguments)
        except Exception:  # whatever it is, the other cases go on
            signal.alarm(0)
            self.failed += 1
            print(f"FAILED  {title}\n{traceback.format_exc()}", flush=True)
        else:
            signal.alarm(0)
            self.passed += 1
            print(f"ok      {title} ({time.monotonic() - start:.1f} s)", flush=True)


def with_idle_end(function):
    def work(api):
        function(api)
        eventually(api.server.idle, 2, "idle after the case")

    return work


def warm_up(api):
    for model in (STORY, CODE):
        api.completions.create(model=model, prompt=OPENING, max_tokens=2)
        api.chat.create(model=model, messages=QUESTION, max_tokens=2)


def nothing_is_left(api, descriptors):
    """afterwards nothing runs, waits or is referenced, and every file descriptor is back"""
    api.close()
    eventually(api.server.idle, 2, "idle")
    eventually(lambda: api.server.descriptors() <= descriptors, 5,
               lambda: f"{descriptors} descriptors at the beginning, {api.server.descriptors()} now")


def no_secrets(api, metrics):
    """the keys stand in no log line, no metric and no error"""
    check(len(api.errors) > 20, "too few errors were seen to say so")
    for place, text in (("log", api.server.log()), ("metrics", metrics), ("errors", "\n".join(api.errors))):
        check(len(text) > 200, f"hardly any {place}: {text!r}")
        for key in (API_KEY, ADMIN_KEY):
            check(key not in text and key.upper() not in text, f"a key stands in the {place}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True, help="the bundled storyteller; its neighbour writes code")
    parser.add_argument("names", nargs="*", help="run the cases of these names alone")
    options = parser.parse_args()
    binary, story = os.path.abspath(options.binary), os.path.abspath(options.model)
    models = [story, os.path.join(os.path.dirname(story), CODE)]
    run = Run()
    # deterministic: what is said among others, and with guesses, is compared with what is said alone.
    server = Server(binary, [*models, "--deterministic", "--enable-speculative-decoding", "--api-key", API_KEY, "--admin-key", ADMIN_KEY])
    try:
        api = Api(server.wait_ready(), binary, models)
        descriptors = server.descriptors()
        warm_up(api)
        for title, function in CASES:
            if not options.names or function.__name__ in options.names:
                run.case(title, with_idle_end(function), api)
        run.case(nothing_is_left.__doc__, nothing_is_left, api, descriptors)
        metrics = server.get("/metrics", headers={"Authorization": f"Bearer {API_KEY}"}).text
        run.case(lifecycle_cases.drains.__doc__, lifecycle_cases.drains, api)
        if not options.names:
            run.case(no_secrets.__doc__, no_secrets, api, metrics)
        if run.failed:
            print(f"the server's log:\n{server.log()[-8000:]}")
    finally:
        server.kill()
    print(f"{run.passed} passed, {run.failed} failed")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
