"""What the browser cases share: servers, pages that note what went wrong in them, and the list of cases."""

import contextlib
import inspect
import re

import httpx

from openai_cases.harness import Server, check, eventually

CASES = []  # (title, function, routes it needs), in the order of definition
API_KEY, ADMIN_KEY = "planted-api-key-77c0", "planted-admin-key-1b9e"
# What Chromium writes into the console for every answer of 400 and above; which of them a case means, it says.
REFUSED = re.compile(r"Failed to load resource: (?:the server responded with a status of )?(\d+|net::\w+)")


def case(*routes):
    """A function of the Browser; its docstring is the law that it proves. `routes`: without them it is skipped."""

    def add(function):
        CASES.append((inspect.getdoc(function), function, routes))
        return function

    return add


class Browser:
    """One Chromium, and the server of the models that most cases share."""

    def __init__(self, chromium, binary, models, url, server):
        self.chromium, self.binary, self.models, self.url, self.server = chromium, binary, models, url, server
        self.http = httpx.Client(timeout=60, base_url=url)

    def has(self, route):
        """A route that is there may refuse a GET without a body; one that is not says 404."""
        return self.http.get(route).status_code != 404

    @contextlib.contextmanager
    def page(self, view="overview", url=None, refusals=(), width=1280, height=860, theme="light", missing=True):
        """A page of a fresh profile. At its end nothing may have gone wrong in it but what `refusals` names; `missing`:
        routes that this server does not have may have been asked for."""
        size = {"width": width, "height": height}
        context = self.chromium.new_context(viewport=size, color_scheme=theme, locale="en-GB")
        page = context.new_page()
        page.set_default_timeout(20000)
        wrong = []
        page.on("pageerror", lambda error: wrong.append(f"uncaught: {error}"))
        page.on("console", lambda message: self._note(message, wrong, refusals, missing))
        page.on("request", lambda request: None if request.url.startswith((url or self.url) + "/") else
                wrong.append(f"asked for {request.url}"))
        try:
            page.goto(f"{url or self.url}/#/{view}")
            yield page
            check(not wrong, lambda: "in the page: " + "; ".join(wrong))
        finally:
            context.close()

    @staticmethod
    def _note(message, wrong, refusals, missing):
        refused = REFUSED.search(message.text)
        status = refused.group(1) if refused else "none"
        if status in map(str, refusals) or (missing and status == "404"):
            return
        if message.type in ("error", "warning"):
            wrong.append(f"{message.type}: {message.text}")

    @contextlib.contextmanager
    def other_server(self, *arguments):
        server = Server(self.binary, list(arguments))
        try:
            yield server.wait_listening(), server
        finally:
            server.kill()

    def post(self, path, body=None):
        response = self.http.post(path, json=body)
        check(response.status_code < 300, lambda: f"{path}: {response.status_code} {response.text}")
        return response

    def complete(self, model, prompt="Once upon a time", max_tokens=8, **more):
        return self.post("/v1/completions", {"model": model, "prompt": prompt, "max_tokens": max_tokens, **more})


def settled(read, seconds=20, what="the page to show it"):
    """The first true value of read()."""
    found = []

    def look():
        found[:] = [read()]
        return found[0]

    eventually(look, seconds, what)
    return found[0]


def row(page, model):
    return page.locator(f"tr[data-model='{model}']")


def dialog(page):
    return page.get_by_role("dialog")


def no_sideways(page):
    """The page itself never scrolls sideways."""
    wide, seen = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    check(wide <= seen, f"the page is {wide} pixels wide in a window of {seen}")
