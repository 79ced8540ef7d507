"""The dashboard in a real Chromium, against the real program and the bundled models.

One line per case; the last line is "N passed, N failed", and the exit code says whether all passed. What needs a route
that the server does not have is named as skipped. Needs Chromium and the packages `playwright` and `openai`, and
`pillow` for the pictures.
Usage: dashboard.py --binary build/dev/inferneo --model models/inferneo-story [--screenshots docs/pictures] [NAME...]
"""

import argparse
import os
import shutil
import sys
import time
import traceback

from playwright.sync_api import sync_playwright

# Each module registers its cases, in this order.
from dashboard_cases import chat_cases, model_cases, page_cases, routing_cases  # noqa: F401
from dashboard_cases.harness import CASES, Browser
from dashboard_cases.screenshots import take_screenshots
from openai_cases.harness import Server


def find_chromium(given):
    for name in (given, "chromium", "chromium-browser", "google-chrome"):
        if name and shutil.which(name):
            return shutil.which(name)
    sys.exit("no Chromium here: apt-get install chromium, or give --chromium PATH")


def run_cases(browser, names):
    passed = failed = 0
    for title, function, routes in CASES:
        if names and function.__name__ not in names:
            continue
        missing = [route for route in routes if not browser.has(route)]
        if missing:
            print(f"skipped {title} (the server has no {', '.join(missing)})", flush=True)
            continue
        start = time.monotonic()
        try:
            function(browser)
        except Exception:  # whatever it is, the other cases go on
            failed += 1
            print(f"FAILED  {title} ({function.__name__})\n{traceback.format_exc()}", flush=True)
        else:
            passed += 1
            print(f"ok      {title} ({time.monotonic() - start:.1f} s)", flush=True)
    return passed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True, help="the bundled storyteller; its neighbour is its draft")
    parser.add_argument("--chromium", help="the browser; else the first in PATH")
    parser.add_argument("--screenshots", metavar="DIR", help="only make the manual's pictures, there")
    parser.add_argument("names", nargs="*", help="run the cases of these names alone")
    options = parser.parse_args()
    binary, story = os.path.abspath(options.binary), os.path.abspath(options.model)
    models = [story, story + "-draft"]
    if options.screenshots:  # a budget of which these models take a part that is to be seen; paths as people write them
        models = [os.path.relpath(model) for model in models]
    arguments = [*models, "--model-roots", os.path.dirname(models[0])]
    arguments += ["--max-memory-gb", "0.125"] if options.screenshots else []
    server = Server(binary, arguments)
    try:
        server.wait_ready()
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=find_chromium(options.chromium))
            browser = Browser(chromium, binary, models, server.url, server)
            if options.screenshots:
                take_screenshots(browser, options.screenshots)
                return 0
            passed, failed = run_cases(browser, options.names)
            chromium.close()
        if failed:
            print(f"the server's log:\n{server.log()[-8000:]}")
    finally:
        server.kill()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
