"""The app in a real browser. Skipped where no Chromium is installed."""

import sqlite3

import pytest

from experiments.browser import browser, chromium, first_paint, sentence, server, settled, slider, timed, watch_requests

pytest.importorskip("playwright", reason="no playwright: pip install playwright")
PATH = chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PATH is None, reason="no chromium: apt install chromium"),
    pytest.mark.xdist_group("browser"),
]
SMALL = (
    "preset=fast&seeds=5:7&a.budget.rounds=2&a.budget.evaluations=2&a.task.points=400&a.task.held_out=50"
    "&a.cluster.local_steps=3&a.cluster.grace=0"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def address(folder):
    with server(folder, {"TOYBENCH_STORE": str(folder / "runs.sqlite")}) as address:
        yield address


@pytest.fixture
def page():
    with browser(PATH) as page:
        yield page


def lines(page):
    """The drawn curves, as paths."""
    return page.locator("[data-testid='stVegaLiteChart'] .mark-line path").evaluate_all(
        "all => all.map(p => p.getAttribute('d'))"
    )


def test_a_slider_bends_the_curve_and_nothing_is_asked_of_the_world(page, address):
    outside = watch_requests(page)
    first_paint(
        page, f"{address}/?{SMALL}&panel=![x](http://example.invalid/x.png)&b.outer.lr=<img src=//example.invalid>"
    )
    settled(page)
    before, words = lines(page), sentence(page)
    timed(page, lambda: slider(page, "local steps H").press("ArrowRight"))
    assert lines(page) != before and sentence(page) != words
    assert "a.cluster.local_steps=4" in page.url
    assert outside == []


def test_a_shared_address_shows_the_same(page, address):
    first_paint(page, f"{address}/?{SMALL}")
    settled(page)
    page.get_by_role("tab", name="Outer").click()
    timed(page, lambda: slider(page, "learning rate").press("ArrowRight"))
    shown, link = sentence(page), page.url
    first_paint(page, link)
    settled(page)
    assert sentence(page) == shown and page.url == link


def test_two_pages_do_not_disturb_each_other(page, address):
    first_paint(page, f"{address}/?{SMALL}")
    settled(page)
    words = sentence(page)
    other = page.context.browser.new_page()
    first_paint(other, f"{address}/?{SMALL}")
    settled(other)
    timed(other, lambda: slider(other, "local steps H").press("ArrowRight"))
    settled(page)
    assert sentence(page) == words and "local_steps=4" in other.url and "local_steps=3" in page.url


def test_the_timeline_is_scrubbed(page, address):
    first_paint(page, f"{address}/?{SMALL}&a.budget.rounds=20")
    settled(page)
    chart = page.locator("[data-testid='stVegaLiteChart']").nth(2)
    chart.scroll_into_view_if_needed()
    axis = chart.locator(".role-axis-label text")
    before = axis.all_text_contents()
    title = chart.get_by_text("drag here to move the window").bounding_box()
    y = title["y"] - 60  # within the strip above its axis
    page.mouse.move(title["x"] + title["width"], y)
    page.mouse.down()
    page.mouse.move(title["x"] + 1.5 * title["width"], y, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    assert axis.all_text_contents() != before


def test_a_small_sweep_runs_from_the_page_into_the_store(page, address, folder):
    first_paint(page, f"{address}/?{SMALL}")
    settled(page)
    page.get_by_role("link", name="Sweep").click()
    page.get_by_role("button", name="Run").first.click()
    page.wait_for_function("() => /all [0-9,]+ runs are done/i.test(document.body.innerText)")
    page.wait_for_selector("[data-testid='stVegaLiteChart'] :is(canvas, svg.marks)")
    with sqlite3.connect(folder / "runs.sqlite") as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone()[0] > 0


def test_every_page_opens_without_a_traceback(page, address):
    for name in ("explore", "sweep", "compare", "promote"):
        page.goto(f"{address}/{name}?{SMALL}&x=%3Cscript%3E")
        page.wait_for_selector("h3")
        settled(page)
        assert page.locator("[data-testid='stException']").count() == 0
        assert "This page failed" not in page.inner_text("body")
