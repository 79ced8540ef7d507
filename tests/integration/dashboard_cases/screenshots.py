"""The manual's pictures, of a server under real traffic: small PNGs of few colours."""

import io
import os
import threading
import time

import httpx

from dashboard_cases.chat_cases import ask
from dashboard_cases.harness import settled

MAX_BYTES = 150_000
TRAFFIC_SECONDS = 75  # before the first picture, so that the charts show something
RULES = [
    {"name": "code", "condition": "prompt contains 'function' or 'class'", "model_name": "inferneo-story-draft",
     "priority": 10},
    {"name": "gold", "condition": "header['x-tier'] == 'gold' and prompt_tokens > 2000",
     "models": ["inferneo-story", "inferneo-story-draft"], "priority": 5},
    {"name": "no_keys", "condition": "prompt matches /sk-[a-z0-9]{20}/i",
     "refusal": {"status": 400, "message": "There is a key in it."}, "enabled": False},
]
TEST = {"name": "tellers", "sticky_by": "user", "minimum_samples": 100,
        "arms": [{"name": "A", "model": "inferneo-story"}, {"name": "B", "model": "inferneo-story-draft"}]}


class Traffic:
    """A few clients that tell each other stories, each request for another user."""

    def __init__(self, url):
        self.url, self.ended = url, threading.Event()
        self.threads = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(3)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join(30)

    def _client(self, number):
        model = ("inferneo-story", "inferneo-story", "auto")[number]
        with httpx.Client(base_url=self.url, timeout=30) as http:
            for turn in range(100000):
                if self.ended.is_set():
                    return
                prompt = "Write a function" if number == 2 and turn % 2 else "Once upon a time"
                http.post("/v1/completions", json={"model": model, "prompt": prompt, "user": f"{number}-{turn}",
                                                   "max_tokens": 12 + 9 * (turn % 4)})
                self.ended.wait(0.02 + 0.2 * (turn // 40 % 2))


def save(page, path):
    from PIL import Image

    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for colours in (None, 256, 64):
        data = io.BytesIO()
        fewer = picture.quantize(colours, dither=Image.Dither.NONE) if colours else picture
        fewer.save(data, "PNG", optimize=True)
        if data.tell() < MAX_BYTES:
            break
    with open(path, "wb") as file:
        file.write(data.getvalue())
    print(f"{path}: {picture.width} x {picture.height}, {data.tell()} bytes", flush=True)


def prepare(browser):
    made = []
    if browser.has("/admin/ab-tests"):
        browser.post("/admin/ab-tests", TEST)
        made.append("experiments/tellers")
    if browser.has("/admin/routing-rules"):
        for rule in RULES:
            browser.post("/admin/routing-rules", rule)
        made.append("routing")
    browser.post("/admin/models", {"name": "tale", "version": "1", "source": browser.models[0], "aliases": ["teller"],
                                   "keep_alive": 600})
    browser.post("/admin/models/tale/pin")
    return made


def chat(page):
    ask(page, "Tell me a story about a fox.", max_tokens="90")
    settled(lambda: page.locator(".message.assistant .route, .message.failed").count() == 1, 60)
    page.locator("body").click(position={"x": 5, "y": 5})


def take_screenshots(browser, folder):
    os.makedirs(folder, exist_ok=True)
    views = prepare(browser)
    with Traffic(browser.url), browser.page(height=940) as page, browser.page(theme="dark") as dark, \
            browser.page(width=360, height=740) as phone:
        time.sleep(TRAFFIC_SECONDS)
        save(page, f"{folder}/dashboard-overview.png")
        save(phone, f"{folder}/dashboard-phone.png")
        for view in ["models", *views]:
            page.goto(f"{browser.url}/#/{view}")
            page.set_viewport_size({"width": 1280, "height": 1240 if "/" in view else 860})
            page.wait_for_timeout(3000)
            save(page, f"{folder}/dashboard-{view.split('/')[0]}.png")
        dark.goto(f"{browser.url}/#/playground")
        chat(dark)
        save(dark, f"{folder}/dashboard-dark.png")
