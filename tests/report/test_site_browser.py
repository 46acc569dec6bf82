"""The site in a real browser: quiet, readable on a desk and on a phone, in light and in dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Page, driver

from moe_routing.conformance.checking.results import RunResult
from moe_routing.conformance.report.files import json_text
from moe_routing.conformance.report.site import site

CONTRASTS = Path(__file__).parents[1] / "data" / "contrasts.js"
PHONE = {"width": 375, "height": 720, "deviceScaleFactor": 2, "mobile": True}
DESK = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
STORY = "biased-weights.2.html"
KINDS = ("index.html", "clauses.html", "biased-weights.html", STORY)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from driver(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def folder(
    wrong_run: RunResult, every_status: RunResult, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A site of two runs of three backends, and one of a hostile one."""
    found = tmp_path_factory.mktemp("site")
    now, hostile = json.loads(json_text(wrong_run)), json.loads(json_text(every_status))
    before = json.loads(json_text(wrong_run))
    hostile["environment"]["packages"] = {}
    for adapter in before["adapters"]:
        for clause in adapter["clauses"]:
            clause["status"] = "pass"
    for name, text in site([("before", before), ("now", now), ("x", hostile)]).items():
        (found / name).write_text(text, encoding="utf-8")
    return found


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Page]:
    page = Page(browser, folder / "index.html")
    yield page
    page.emulate("clearDeviceMetricsOverride")
    page.emulate("setEmulatedMedia")


def show(page: Page, folder: Path, name: str, screen: dict[str, Any] = DESK) -> None:
    page.emulate("setDeviceMetricsOverride", **screen)
    page.url = (folder / name).as_uri()
    page.open()


def test_every_page_loads_without_a_word_and_without_a_request(opened: Page, folder: Path) -> None:
    for path in folder.iterdir():
        show(opened, folder, path.name)
        assert opened.browser.get_log("browser") == [], path.name
        assert opened.requests() == [opened.url], "the page itself, and nothing else"
        assert opened.run("return document.scripts.length") == 0


@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_a_red_cell_leads_to_its_story(opened: Page, folder: Path, screen: dict[str, Any]) -> None:
    show(opened, folder, "index.html", screen)
    links = opened.shown(".board td[data-status=fail] a")
    (link, *_) = [each for each in links if STORY in (each.get_attribute("href") or "")]
    link.click()
    assert opened.browser.current_url.partition("#")[0].endswith(STORY)
    top = opened.run("return document.querySelector('article:target').getBoundingClientRect().top")
    assert 0 <= top < screen["height"] / 2, "the story is in sight"
    assert opened.shown("article:target .command"), "and ends in the command that repeats it"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_in_both_schemes(opened: Page, folder: Path, scheme: str) -> None:
    opened.prefer(scheme)
    grounds = set()
    for name in KINDS:
        for screen in (DESK, PHONE):
            show(opened, folder, name, screen)
            assert opened.run(CONTRASTS.read_text()) == [], f"{name}: WCAG AA requires 4.5"
        grounds.add(opened.run("return getComputedStyle(document.body).backgroundColor"))
    (ground,) = grounds
    dark = sum(int(each) for each in ground.strip("rgb()").split(",")) < 3 * 128
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("width", [320, 375, 760, 1280])
def test_no_page_scrolls_sideways(opened: Page, folder: Path, width: int) -> None:
    for path in folder.iterdir():
        show(opened, folder, path.name, {**PHONE, "width": width})
        opened.run("document.querySelectorAll('details').forEach(it => { it.open = true })")
        assert opened.run("return document.documentElement.scrollWidth") == width, path.name


def test_on_a_phone_each_backend_names_its_chapters(opened: Page, folder: Path) -> None:
    show(opened, folder, "index.html", PHONE)
    rows = [each.text for each in opened.shown(".board tbody tr")]
    (wrong,) = [each for each in rows if each.startswith("biased-weights")]
    assert "weights" in wrong
    assert "groups" in wrong
    sizes = opened.run(
        "return [...document.querySelectorAll('.board td a')].filter(it => it.offsetParent)"
        ".map(it => parseFloat(getComputedStyle(it).fontSize))"
    )
    assert min(sizes) >= 13, "to be read without glasses"


def test_the_keyboard_reaches_a_story(opened: Page, folder: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    show(opened, folder, "index.html")
    for _ in range(60):
        opened.press(Keys.TAB)
        if opened.run("return document.activeElement.matches('td[data-status=fail] a')"):
            break
    style = opened.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert style == "solid", "what has the focus can be seen"
    opened.press(Keys.ENTER)
    assert opened.shown("article:target")


def test_hostile_text_is_shown_literally(opened: Page, folder: Path) -> None:
    (name,) = [each.name for each in folder.iterdir() if each.name.startswith("script-script")][:1]
    show(opened, folder, name)
    assert opened.browser.title != "taken"
    assert opened.shown("h1")[0].text.startswith("</script><script>document.title='taken'")
