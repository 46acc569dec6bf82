"""A real browser, and a page opened in it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
)
"""The options that chromium is started with."""

SENT = "Network.requestWillBeSent"


def missing() -> list[str]:
    """Return what a browser test needs and the machine lacks."""
    programs = {"chromium": chromium(), "chromedriver": shutil.which("chromedriver")}
    absent = [name for name, found in programs.items() if not found]
    return absent + ["selenium"] * (importlib.util.find_spec("selenium") is None)


def chromium() -> str | None:
    """Return the path of chromium, by any of its names."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def driver(profile: Path) -> Iterator[Any]:
    """Yield a browser, or skip; fail instead where ``MOE_ROUTING_BROWSER=required``."""
    if absent := missing():
        words = f"no {', '.join(absent)}"
        if os.environ.get("MOE_ROUTING_BROWSER") == "required":
            pytest.fail(f"{words}, but MOE_ROUTING_BROWSER=required", pytrace=False)
        pytest.skip(words)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium() or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield made
    made.quit()


class Page:
    """An opened page, and the few actions that the tests need."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.browser = browser
        self.url = path.as_uri()
        self.open()

    def open(self) -> None:
        self.browser.get_log("browser"), self.browser.get_log("performance")
        self.browser.get(self.url)

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def shown(self, css: str) -> list[Any]:
        return self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter(each => each.getClientRects().length)",
            css,
        )

    def emulate(self, command: str, **values: object) -> None:
        self.browser.execute_cdp_cmd(f"Emulation.{command}", values)

    def prefer(self, scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.emulate("setEmulatedMedia", features=[feature])

    def requests(self) -> list[str]:
        entries = self.browser.get_log("performance")
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [each["params"] for each in messages if each["method"] == SENT]
        return [each["request"]["url"] for each in sent if each["documentURL"] == self.url]
