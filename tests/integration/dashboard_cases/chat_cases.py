"""The playground: streaming, stopping, text that stays text, models without a template, thumbs."""

from openai_cases.harness import check, equal
from dashboard_cases.harness import case, settled

MARKUP = "<img src=x onerror=\"window.broken = 1\"><script>window.broken = 1</script> Tell me a story."

NO_TEMPLATE = {"error": {"message": "this model has no chat template; use /v1/completions, or start with --chat-template FILE",
                         "type": "invalid_request_error", "param": "messages", "code": "invalid_argument"}}
# In the page, since the story may be over before the test's own click arrives.
STOP_AT_ONCE = """() => new MutationObserver(() => {
    if (document.querySelector('.message.assistant .content')?.textContent) {
        [...document.querySelectorAll('.composer button')].find((button) => button.textContent === 'Stop').click();
    }
}).observe(document.querySelector('.log'), {childList: true, subtree: true, characterData: true})"""


def ask(page, text, model="inferneo-story", max_tokens="48"):
    models = page.get_by_label("Model", exact=True)
    settled(lambda: models.locator(f"option[value='{model}']").count() == 1, what="the model in the list")
    models.select_option(model)
    page.get_by_label("Max tokens").fill(max_tokens)
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


@case()
def streams(browser):
    """a chat is streamed, and what it took is said beside it; the next turn knows the one before"""
    with browser.page("playground") as page:
        ask(page, "Tell me a story about a fox.")
        reply = page.locator(".message.assistant").first
        settled(lambda: len(reply.locator(".content").inner_text()) > 40, what="an answer")
        reply.get_by_text("first token").wait_for()
        facts = reply.locator(".meta").inner_text()
        for word in ("tokens/s", "prompt", "answer", "ended", "length"):
            check(word in facts, facts)
        check("model=inferneo-story" in reply.locator(".route").inner_text(), facts)
        sent = []
        page.on("request", lambda request: sent.append(request.post_data_json) if "/chat/" in request.url else None)
        ask(page, "And then?")
        settled(lambda: page.locator(".message.assistant .route").count() == 2, what="the second answer")
        equal([message["role"] for message in sent[0]["messages"]], ["user", "assistant", "user"])
        check(sent[0]["stream"] and sent[0]["stream_options"] == {"include_usage": True}, sent)
        page.get_by_role("button", name="New conversation").click()
        equal(page.locator(".message").count(), 0)


@case()
def stops(browser):
    """the stop button ends an answer, at the server too"""
    with browser.page("playground") as page:
        # The model's own answer may be over in thirty milliseconds, before the page can stop anything.
        page.route("**/v1/chat/completions",
                   lambda route: route.continue_(post_data={**route.request.post_data_json, "ignore_eos": True}))
        page.evaluate(STOP_AT_ONCE)
        for _ in range(5):
            ask(page, "Tell me a story about a fox.", max_tokens="900")
            settled(lambda: page.locator(".message.assistant .meta").last.inner_text() != "", what="the end of the answer")
            page.get_by_role("button", name="Send").wait_for()
            if page.get_by_text("stopped by you").count():
                break
            page.get_by_role("button", name="New conversation").click()
        equal(page.get_by_text("stopped by you").count(), 1)
        settled(browser.server.idle, 5, "the server to end it")


@case()
def text_stays_text(browser):
    """markup in a message is shown and not run"""
    with browser.page("playground") as page:
        ask(page, MARKUP, max_tokens="4")
        page.get_by_text("ended").wait_for()
        equal(page.locator(".message.user .content").inner_text(), MARKUP)
        equal(page.locator(".message img, .message script").count(), 0)
        check(not page.evaluate("window.broken"), "it ran")


@case()
def continues_without_a_template(browser):
    """a model without a chat template gets the text as it is, and the page says so"""
    with browser.page("playground", refusals=(400,)) as page:
        page.route("**/v1/chat/completions", lambda route: route.fulfill(status=400, json=NO_TEMPLATE))
        ask(page, "Once upon a time")
        page.get_by_text("This model has no chat template").wait_for()
        check(len(page.locator(".message.assistant .content").inner_text()) > 10, "no answer")


@case()
def tells_refusals(browser):
    """what the server refuses is said where the answer would be, and the next question works"""
    with browser.page("playground", refusals=(400,)) as page:
        page.get_by_label("Temperature").fill("9")
        ask(page, "Hello")
        page.locator(".message.failed [role=alert]").wait_for()
        page.get_by_label("Temperature").fill("0")
        ask(page, "Tell me a story.")
        page.locator(".message.assistant .route").wait_for()


@case("/v1/feedback")
def takes_thumbs(browser):
    """a thumb goes to the server with the answer's id"""
    with browser.page("playground") as page:
        ask(page, "Tell me a story.", max_tokens="8")
        with page.expect_response("**/v1/feedback") as response:
            page.get_by_role("button", name="Good answer").click()
        equal(response.value.status, 200)
        equal(response.value.request.post_data_json["rating"], "up")
        check(response.value.request.post_data_json["id"].startswith("chatcmpl-"), response.value.request.post_data)
