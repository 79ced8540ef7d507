"""Of the page as a whole: keys, emptiness, narrow screens, the keyboard, themes, a server that is gone."""

from openai_cases.harness import check, equal
from dashboard_cases.harness import ADMIN_KEY, API_KEY, case, dialog, no_sideways, settled

VIEWS = ("overview", "models", "routing", "experiments", "playground")


@case()
def asks_for_keys(browser):
    """where the server wants keys the page asks for them, says when they are wrong, and keeps them in its tab alone"""
    with browser.other_server(browser.models[0], "--api-key", API_KEY, "--admin-key", ADMIN_KEY) as (server, _):
        server.wait_ready()
        with browser.page("models", url=server.url, refusals=(401,)) as page:
            box = dialog(page)
            box.wait_for()
            box.get_by_label("API key").fill("wrong")
            box.get_by_label("Admin key").fill("wrong")
            box.get_by_role("button", name="Use these keys").click()
            box.get_by_text("The key was refused.").first.wait_for()
            box.get_by_label("API key").fill(API_KEY)
            box.get_by_label("Admin key").fill(ADMIN_KEY)
            box.get_by_role("button", name="Use these keys").click()
            page.get_by_text("inferneo-story").first.wait_for()
            page.wait_for_timeout(1500)
            check(not box.is_visible(), "the keys are right, and the page asks again")
            check(ADMIN_KEY not in page.url and API_KEY not in page.url, page.url)
            stored = page.evaluate("[JSON.stringify(localStorage), document.cookie, JSON.stringify(sessionStorage)]")
            check(ADMIN_KEY not in stored[0] + stored[1] and ADMIN_KEY in stored[2], stored)
            page.reload()
            page.get_by_text("inferneo-story").first.wait_for()
        check(ADMIN_KEY not in server.log() and API_KEY not in server.log(), "a key stands in the log")


@case()
def dismissed_keys(browser):
    """who gives no key is asked once, and no route is asked again and again"""
    with browser.other_server(browser.models[0], "--api-key", API_KEY, "--admin-key", ADMIN_KEY) as (server, _):
        server.wait_ready()
        with browser.page("models", url=server.url, refusals=(401,)) as page:
            dialog(page).get_by_role("button", name="Cancel").click()
            refused = []
            page.on("response", lambda response: refused.append(response.url))
            page.locator("#connection", has_text="Needs a key").wait_for()
            page.wait_for_timeout(4000)
            check(not refused, lambda: f"asked again: {refused}")
            page.get_by_role("button", name="Keys").click()
            dialog(page).get_by_label("API key").wait_for()


@case()
def says_what_to_do_first(browser):
    """without a model the page says what to do next, and leads to the form for it"""
    with browser.other_server() as (server, _):
        with browser.page(url=server.url, refusals=(503,)) as page:
            page.get_by_text("No model is registered yet").wait_for()
            page.get_by_role("link", name="Register a model").click()
            dialog(page).get_by_label("Source").wait_for()
            page.keyboard.press("Escape")
            dialog(page).wait_for(state="detached")


@case()
def fits_a_phone(browser):
    """no view is wider than a screen of 360 pixels, and every view can be reached there"""
    with browser.page(width=360, height=740) as page:
        for view in VIEWS:
            page.get_by_role("link", name=view.capitalize(), exact=True).click()
            page.wait_for_timeout(700)
            no_sideways(page)
            equal(page.locator("nav a[aria-current]").inner_text(), view.capitalize())
        page.get_by_role("link", name="Models", exact=True).click()
        page.get_by_role("button", name="Register a model").click()
        no_sideways(page)


@case()
def works_by_keyboard(browser):
    """the keyboard reaches every view, and focus is to be seen"""
    with browser.page() as page:
        page.keyboard.press("Tab")
        equal(page.evaluate("document.activeElement.textContent"), "Skip to the content")
        page.keyboard.press("Tab")
        for view in VIEWS:
            page.keyboard.press("Tab")
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            equal((page.evaluate("document.activeElement.textContent.trim()"), outline), (view.capitalize(), "solid"))
            page.keyboard.press("Enter")
            current = page.locator("nav a[aria-current]")
            settled(lambda view=view: current.get_attribute("data-view") == view, what=f"the view {view}")
        unnamed = page.evaluate("""[...document.querySelectorAll('button, input, select, textarea, a')]
            .filter((node) => !(node.textContent.trim() || node.getAttribute('aria-label') || node.labels?.length > 0))
            .map((node) => node.outerHTML)""")
        equal(unnamed, [], "controls without a name")


@case()
def has_two_themes(browser):
    """light and dark follow the system, until the button says otherwise, which is remembered"""
    colour = "getComputedStyle(document.body).backgroundColor"
    with browser.page(theme="dark") as page:
        dark = page.evaluate(colour)
        page.get_by_role("button", name="Light or dark").click()
        light = page.evaluate(colour)
        check(dark != light, dark)
        page.reload()
        equal(page.evaluate(colour), light, "after a reload")
        page.emulate_media(color_scheme="light")
        equal(page.evaluate(colour), light, "in a light system")


@case()
def nothing_jumps(browser):
    """while the numbers move nothing else does"""
    with browser.page() as page:
        page.wait_for_timeout(1500)
        page.evaluate("""window.shifts = 0; new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) window.shifts += entry.value; }).observe({type: 'layout-shift'})""")
        browser.complete("inferneo-story", max_tokens=64)
        page.wait_for_timeout(3000)
        moved = page.evaluate("window.shifts")
        check(moved < 0.02, f"a layout shift of {moved}")


@case()
def survives_a_lost_server(browser):
    """when the server is gone the page says so calmly, asks more and more rarely, and finds it again"""
    with browser.other_server(browser.models[0]) as (server, _):
        server.wait_ready()
        with browser.page("models", url=server.url, refusals=("net::ERR_INTERNET_DISCONNECTED",)) as page:
            page.get_by_text("Connected").wait_for()
            page.context.set_offline(True)
            asked = []
            page.on("requestfailed", lambda request: asked.append(request.url))
            page.get_by_text("Disconnected").wait_for()
            page.get_by_text("The server does not answer. What you see is from before").wait_for()
            page.wait_for_timeout(6000)
            check(2 <= len(asked) < 16, lambda: f"{len(asked)} requests in some seconds: {asked}")
            page.context.set_offline(False)
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            settled(lambda: page.get_by_text("Connected", exact=True).is_visible(), 30)
