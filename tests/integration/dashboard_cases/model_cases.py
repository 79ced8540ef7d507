"""Overview and models: numbers, registering, loading, pinning, events."""

import os

from openai_cases.harness import check, equal
from dashboard_cases.harness import case, dialog, row, settled


@case()
def registers_and_loads(browser):
    """a model is registered, loaded, pinned, unpinned, unloaded and removed from the page, which shows each of it"""
    with browser.page("models", refusals=(400, 409)) as page:
        page.get_by_role("button", name="Register a model").click()
        form = dialog(page)
        form.get_by_label("Name").fill("no name")
        form.get_by_label("Version").fill("1")
        form.get_by_label("Source").fill(browser.models[1])
        form.get_by_role("button", name="Register").click()
        form.locator("[role=alert]:visible").first.wait_for()
        form.get_by_label("Name").fill("draft")
        form.get_by_label("Keep-alive").fill("1h")
        form.get_by_label("Aliases").fill("sketch")
        form.get_by_role("button", name="Register").click()
        form.wait_for(state="detached")
        line = row(page, "draft:1")
        line.get_by_text("unloaded", exact=True).wait_for()
        line.get_by_role("button", name="Load", exact=True).click()
        line.get_by_text("ready", exact=True).wait_for()
        settled(lambda: "MiB" in line.inner_text() or "GiB" in line.inner_text(), what="its memory")
        line.get_by_role("button", name="Pin draft:1").click()
        line.get_by_role("button", name="Unpin draft:1").click()
        line.get_by_role("button", name="Pin draft:1").wait_for()
        line.get_by_role("button", name="Keep-alive").click()
        dialog(page).get_by_label("Idle time in memory").fill("90")
        dialog(page).get_by_role("button", name="Set").click()
        settled(lambda: browser.http.get("/admin/models/draft").json()["keep_alive"] == 90, what="the keep-alive")
        line.get_by_role("button", name="Unload", exact=True).click()
        line.get_by_text("unloaded", exact=True).wait_for()
        events = page.locator(".events")
        for text in ("draft:1 was registered", "draft:1 is loading", "draft:1 is ready", "draft:1 unloaded as asked"):
            settled(lambda text=text: text in events.inner_text(), what=f"the event '{text}'")
        line.get_by_role("button", name="Remove").click()
        dialog(page).get_by_role("button", name="Remove").click()
        line.wait_for(state="detached")
    equal(browser.http.get("/admin/models/draft").status_code, 404)


@case()
def shows_evictions(browser):
    """a model that leaves memory for another is seen to, as an event"""
    roots = os.path.dirname(browser.models[0])
    with browser.other_server("--model-roots", roots, "--max-memory-gb", "0.02") as (server, _):
        for name, source in (("one", browser.models[0]), ("two", browser.models[1])):
            model = {"name": name, "version": "1", "source": source}
            answer = browser.http.post(server.url + "/admin/models", json=model)
            equal(answer.status_code, 201, answer.text)
        with browser.page("models", url=server.url, refusals=(503, 507)) as page:
            row(page, "one:1").get_by_role("button", name="Load", exact=True).click()
            row(page, "one:1").get_by_text("ready", exact=True).wait_for()
            row(page, "two:1").get_by_role("button", name="Load", exact=True).click()
            row(page, "two:1").get_by_text("ready", exact=True).wait_for()
            settled(lambda: "one:1 evicted to make room" in page.locator(".events").inner_text(), what="the eviction")


@case("/stats")
def numbers_move(browser):
    """tokens, requests, memory and latencies of what was just asked are shown"""
    with browser.page() as page:
        page.get_by_text("Tokens per second").first.wait_for()
        before = browser.http.get("/stats").json()["total_requests"]
        for _ in range(4):
            browser.complete("inferneo-story", max_tokens=32)
        tile = page.locator(".tile").first
        settled(lambda: tile.locator("strong").inner_text() not in ("0", "–"), what="tokens per second")
        line = page.locator("table tbody tr", has_text="inferneo-story").first
        settled(lambda: " ms" in line.inner_text() or " s" in line.inner_text(), what="latencies")
        check(browser.http.get("/stats").json()["total_requests"] >= before + 4, "the requests were not counted")
        settled(lambda: page.locator(".series .line").first.get_attribute("d"), what="a line in the chart")
        check("inferneo-story" in page.locator(".legend").inner_text(), page.locator(".legend").inner_text())


@case()
def shows_memory(browser):
    """the memory bar names the models that are in memory"""
    with browser.page() as page:
        browser.complete("inferneo-story")
        settled(lambda: "inferneo-story" in page.locator(".legend").inner_text(), what="the model's memory")
        settled(lambda: "Free" in page.locator(".legend").inner_text(), what="what is free")
