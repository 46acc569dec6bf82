"""The HTML page in a real browser: quiet, filtered, walked with the keyboard, dark, on a phone.

Needs selenium, chromium and chromedriver. Without them the tests are skipped, unless
``MOE_ROUTING_BROWSER=required`` says that they must run, as ``.ci/run`` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Page, driver

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.report.html import html_page
from moe_routing.conformance.report.plain import printable
from moe_routing.conformance.report.text import broken

CONTRASTS = Path(__file__).parents[1] / "data" / "contrasts.js"
PHONE = {"width": 375, "height": 720, "deviceScaleFactor": 2, "mobile": True}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser with a profile of its own, which logs what it says and what it fetches."""
    yield from driver(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def page(browser: Any, wrong_run: RunResult, tmp_path: Path) -> Iterator[Page]:
    """The page of a run with failures."""
    yield from opened(browser, wrong_run, tmp_path)


@pytest.fixture
def hostile_page(browser: Any, every_status: RunResult, tmp_path: Path) -> Iterator[Page]:
    """The page of a run whose every name and message is hostile."""
    yield from opened(browser, every_status, tmp_path)


def opened(browser: Any, run: RunResult, folder: Path) -> Iterator[Page]:
    path = folder / "page.html"
    path.write_text(html_page(run), encoding="utf-8")
    page = Page(browser, path)
    yield page
    page.emulate("clearDeviceMetricsOverride")
    page.emulate("setEmulatedMedia")


def test_loads_without_a_word_and_without_a_request(page: Page) -> None:
    assert page.browser.get_log("browser") == [], "the console should be silent"
    assert page.requests() == [page.url], "the page itself, and nothing else"


def test_the_script_runs_under_its_own_policy(page: Page) -> None:
    assert page.shown("#filters")
    assert page.shown("#count")[0].text.endswith(" clauses")


class TestFilter:
    def rows(self, page: Page) -> list[str]:
        return [row.text.split()[0] for row in page.shown("tr[data-text]")]

    def test_finds_words(self, page: Page) -> None:
        all_rows = self.rows(page)
        page.shown("#words")[0].send_keys("WEIGHTS. sum")
        assert self.rows(page) == ["weights.sum"]
        assert page.shown("#count")[0].text == f"1 of {len(all_rows)} clauses"
        headings = [each.text for each in page.shown("tr.chapter")]
        assert headings == ["weights"], "a chapter without rows should go"

    def test_finds_statuses_and_their_stories(self, page: Page, wrong_run: RunResult) -> None:
        page.shown("button[data-status=fail]")[0].click()
        ids = {each.id for adapter in wrong_run.adapters for each in broken(adapter)}
        assert set(self.rows(page)) == ids
        assert page.shown("button[data-status=fail][aria-pressed=true]")
        page.shown("button[data-status=pass]")[0].click()
        assert set(self.rows(page)) > ids
        page.shown("button[data-status=fail]")[0].click()
        assert page.shown("article[data-status=fail]") == []

    def test_finds_a_chapter(self, page: Page) -> None:
        page.run(
            "const it = document.getElementById('chapter'); it.value = 'groups';"
            "it.dispatchEvent(new Event('change'))"
        )
        assert self.rows(page)
        assert all(row.startswith("groups.") for row in self.rows(page))

    def test_says_so_where_nothing_is_found(self, page: Page) -> None:
        page.shown("#words")[0].send_keys("no such thing")
        assert self.rows(page) == []
        assert page.shown("#count")[0].text.startswith("0 of ")


class TestKeyboard:
    def walk(self, page: Page, until: str, most: int = 60) -> list[str]:
        from selenium.webdriver.common.keys import Keys

        names = []
        for _ in range(most):
            page.press(Keys.TAB)
            names.append(page.run("return document.activeElement.outerHTML.slice(0, 80)"))
            if page.run("return document.activeElement.matches(arguments[0])", until):
                return names
        raise AssertionError(f"Tab never came to {until}: {names}")

    def test_reaches_a_story_from_the_matrix(self, page: Page) -> None:
        from selenium.webdriver.common.keys import Keys

        self.walk(page, ".matrix a")
        target = page.run("return document.activeElement.hash.slice(1)")
        page.press(Keys.ENTER)
        assert page.run("return document.activeElement.id") == target
        top = page.run("return document.activeElement.getBoundingClientRect().top")
        assert 0 <= top < page.run("return innerHeight")
        names = self.walk(page, f"#{target} .command", most=4)
        assert names, "the command should be next, so that it can be copied"

    def test_skips_to_what_is_broken(self, page: Page) -> None:
        from selenium.webdriver.common.keys import Keys

        page.press(Keys.TAB)
        assert page.run("return document.activeElement.textContent") == "Skip to what is broken"
        page.press(Keys.ENTER)
        assert page.run("return document.activeElement.id") == "broken"

    def test_what_has_the_focus_can_be_seen(self, page: Page) -> None:
        for css in ("#theme", "#words", "#chapter", ".chips button", ".scrolls", ".matrix a"):
            self.walk(page, css)
            style, box = page.run(
                "const it = document.activeElement, box = it.getBoundingClientRect();"
                "return [getComputedStyle(it).outlineStyle, box.width * box.height]"
            )
            assert style == "solid", f"{css} has no outline"
            assert box > 0

    def test_a_status_is_pressed_with_the_space_bar(self, page: Page) -> None:
        from selenium.webdriver.common.keys import Keys

        self.walk(page, ".chips button")
        page.press(Keys.SPACE)
        assert page.run("return document.activeElement.getAttribute('aria-pressed')") == "true"


class TestTheme:
    COLORS = (
        "return ['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name])"
    )

    def test_follows_the_system(self, page: Page) -> None:
        page.prefer("light")
        light = page.run(self.COLORS)
        page.prefer("dark")
        assert all(a != b for a, b in zip(light, page.run(self.COLORS), strict=True))

    def test_is_switched_by_its_button(self, page: Page) -> None:
        page.prefer("light")
        before = page.run(self.COLORS)
        button = page.shown("#theme")[0]
        assert button.text == "Dark"
        button.click()
        assert page.run(self.COLORS) != before
        assert button.text == "Light"
        button.click()
        assert page.run(self.COLORS) == before

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_words_stand_out_from_their_ground(self, page: Page, scheme: str) -> None:
        page.prefer(scheme)
        assert page.run(CONTRASTS.read_text()) == [], "WCAG AA requires 4.5"


class TestWidth:
    @pytest.mark.parametrize("width", [320, 375, 760, 900, 1024, 1440])
    def test_nothing_makes_the_page_scroll_sideways(self, page: Page, width: int) -> None:
        page.emulate("setDeviceMetricsOverride", **{**PHONE, "width": width})
        page.open()
        page.run("document.querySelectorAll('details').forEach(it => { it.open = true })")
        assert page.run("return document.documentElement.scrollWidth") == width
        wide = page.run(
            "return [...document.querySelectorAll('body *')].filter(it => !it.closest('.scrolls,"
            " pre, svg, .skip') && it.getBoundingClientRect().right > innerWidth + 1)"
            ".map(it => it.outerHTML.slice(0, 80))"
        )
        assert wide == []

    def test_a_hostile_name_does_not_either(self, hostile_page: Page) -> None:
        hostile_page.emulate("setDeviceMetricsOverride", **PHONE)
        hostile_page.open()
        assert hostile_page.run("return document.documentElement.scrollWidth") == PHONE["width"]

    def test_drawings_keep_their_names_and_their_width(self, page: Page) -> None:
        page.emulate("setDeviceMetricsOverride", **PHONE)
        page.open()
        strips = page.shown("article .strip")
        assert strips
        assert all(strip.get_attribute("aria-label") for strip in strips)
        assert all(strip.rect["width"] > 200 for strip in strips)


def test_hostile_text_is_shown_literally(hostile_page: Page, hostile: str) -> None:
    assert hostile_page.browser.title.startswith("moe-routing: ")
    heads = [each.text for each in hostile_page.shown(".matrix thead th")]
    assert heads == ["clause", printable(hostile)]
    assert hostile_page.run("return document.scripts.length") == 1
    said = [each["message"] for each in hostile_page.browser.get_log("browser")]
    assert said == []
    assert hostile_page.shown("#filters"), "the page's own script should have run to its end"
