"""Routing and experiments: rules, options, explanations, A/B tests. Skipped where the server has no such routes."""

from openai_cases.harness import check, equal, eventually
from dashboard_cases.harness import case, dialog, settled

CONDITION = "prompt contains 'once upon'"


def add_rule(page, name, condition):
    form = dialog(page)
    form.get_by_label("Name").fill(name)
    form.get_by_label("Condition").fill(condition)
    form.get_by_role("button", name="Add", exact=True).click()


@case("/admin/routing-rules")
def edits_rules(browser):
    """a rule is added, corrected where its condition is wrong, hit, switched off, changed and deleted"""
    with browser.page("routing", refusals=(400,)) as page:
        page.get_by_role("button", name="Add a rule").click()
        dialog(page).get_by_label("Model", exact=True).fill("inferneo-story")
        add_rule(page, "tales", "promt contains 'x'")
        place = dialog(page).locator(".field-error pre")
        place.wait_for()
        check("^" in place.inner_text(), place.inner_text())
        check("did you mean 'prompt'" in dialog(page).locator(".field-error:visible").inner_text(), "no suggestion")
        add_rule(page, "tales", CONDITION)
        dialog(page).wait_for(state="detached")
        line = page.locator("tr[data-rule='tales']")
        line.wait_for()
        browser.complete("auto", prompt="once upon a time", max_tokens=2)
        settled(lambda: line.locator("td[data-label=Hits]").inner_text() == "1", what="its hit")
        line.get_by_role("switch").uncheck()
        stored = lambda: browser.http.get("/admin/routing-rules/tales").json()  # noqa: E731
        eventually(lambda: not stored()["enabled"], 10, "the rule to be off")
        line.get_by_role("button", name="Edit").click()
        dialog(page).get_by_label("Priority").fill("7")
        dialog(page).get_by_role("button", name="Save").click()
        settled(lambda: line.locator("td[data-label=Priority]").inner_text() == "7", what="its priority")
        line.get_by_role("button", name="Delete").click()
        dialog(page).get_by_role("button", name="Delete").click()
        line.wait_for(state="detached")
    equal(browser.http.get("/admin/routing-rules/tales").status_code, 404)


@case("/admin/routing")
def edits_options(browser):
    """strategy, candidates and fallbacks are shown and changed"""
    before = browser.http.get("/admin/routing").json()
    with browser.page("routing") as page:
        facts = page.locator("dl.facts")
        settled(lambda: before["strategy"] in facts.inner_text(), what="the strategy")
        page.get_by_role("button", name="Edit", exact=True).first.click()
        form = dialog(page)
        form.get_by_label("Strategy").select_option("weighted")
        form.get_by_label("Candidates").fill("inferneo-story, inferneo-story-draft=0.5")
        form.get_by_label("Fallbacks").fill("inferneo-story: inferneo-story-draft")
        form.get_by_role("button", name="Save").click()
        form.wait_for(state="detached")
        settled(lambda: "inferneo-story-draft=0.5" in facts.inner_text(), what="the candidates")
    after = browser.http.get("/admin/routing").json()
    equal(after["fallbacks"], {"inferneo-story": ["inferneo-story-draft"]})
    given = {key: value for key, value in before.items() if key not in ("object", "source") and value not in (None, "")}
    equal(browser.http.put("/admin/routing", json=given).status_code, 200)


@case("/admin/routing-rules", "/admin/explain")
def explains(browser):
    """the page says where a request would go, and by which rule"""
    rule = {"name": "explained", "condition": CONDITION, "model_name": "inferneo-story-draft"}
    browser.post("/admin/routing-rules", rule)
    with browser.page("routing") as page:
        page.get_by_label("Prompt").fill("once upon a time")
        page.get_by_role("button", name="Explain").click()
        page.locator(".outcome").wait_for()
        check("inferneo-story-draft" in page.locator(".outcome").inner_text(), page.locator(".outcome").inner_text())
        check("explained" in page.locator(".explained").inner_text(), page.locator(".explained").inner_text())
        check(page.locator(".steps li").count() > 0, "no steps")
    browser.http.delete("/admin/routing-rules/explained")


@case("/admin/ab-tests")
def runs_a_test(browser):
    """an A/B test is made and started in the page, its numbers move with the traffic, and it is paused and promoted"""
    with browser.page("experiments") as page:
        page.get_by_role("button", name="New test").click()
        form = dialog(page)
        form.get_by_label("Name").fill("tellers")
        arms = form.get_by_label("Model", exact=True)
        arms.first.fill("inferneo-story")
        arms.last.fill("inferneo-story-draft")
        form.get_by_role("button", name="Create").click()
        page.get_by_role("heading", name="tellers").wait_for()
        page.get_by_text("running", exact=True).wait_for()
        for user in range(24):
            browser.complete("inferneo-story", max_tokens=2, user=f"user-{user}")
        requests = page.locator("td[data-label=Requests]")
        settled(lambda: sum(int(text) for text in requests.all_inner_texts()) == 24, what="24 requests in two arms")
        check(all(text != "0" for text in requests.all_inner_texts()), requests.all_inner_texts())
        settled(lambda: page.locator(".metric svg.interval").count() >= 7, what="an interval per metric")
        page.get_by_role("button", name="Pause").click()
        page.get_by_text("paused", exact=True).wait_for()
        page.get_by_role("button", name="Go on").click()
        page.get_by_text("running", exact=True).wait_for()
        page.get_by_role("button", name="Promote").click()
        dialog(page).get_by_label("Arm", exact=True).select_option("A")
        dialog(page).get_by_role("button", name="Promote").click()
        page.get_by_text("promoted A", exact=True).wait_for()
        page.get_by_role("link", name="All tests").click()
        page.locator("li[data-test=tellers]").wait_for()
    browser.http.delete("/admin/ab-tests/tellers")


@case()
def missing_routes_are_one_sentence(browser):
    """a route that this server does not have is one sentence in its panel, and is not asked for again and again"""
    with browser.page("routing") as page:
        refuse = '{"error": {"message": "There is no such route.", "type": "x", "param": null, "code": "not_found"}}'
        asked = []

        def missing(route):
            asked.append(route.request.url)
            route.fulfill(status=404, content_type="application/json", body=refuse)

        page.route("**/admin/routing-rules", missing)
        page.route("**/admin/routing", missing)
        page.reload()
        page.get_by_text("This server has no management of routing rules").wait_for()
        page.get_by_text("This server has no routing options").wait_for()
        page.wait_for_timeout(4000)
        equal(len(asked), 2, f"asked for {asked}")
