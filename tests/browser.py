"""A headless Chromium for the console's tests."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

WAIT_S = 60.0  # the machine may be busy with other tests
_BINARIES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--window-size=1280,900",
)  # fmt: skip


class Browser:
    """One tab, with waits that have a deadline."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Open a page and wait until its live connection stands."""
        self.driver.get(url)
        self.until("return window.socket?.connected && window.did_handshake", f"the connection of {url}")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script; its result."""
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, what: str) -> Any:
        """Wait for a script that gives something true."""
        deadline = time.monotonic() + WAIT_S
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, f"not within {WAIT_S:g} s: {what}; the page says:\n{self.text()}"
            time.sleep(0.1)
        return found

    def until_text(self, *parts: str) -> None:
        """Wait until the page shows each text."""
        for part in parts:
            deadline = time.monotonic() + WAIT_S
            while part not in (shown := self.text()):
                assert time.monotonic() < deadline, f"{part!r} not within {WAIT_S:g} s; the page says:\n{shown}"
                time.sleep(0.1)

    def text(self) -> str:
        """What the page shows."""
        return str(self.run("return document.body.innerText"))

    def find(self, selector: str) -> WebElement:
        """The first element, once it is there."""
        self.until(f"return document.querySelector({selector!r})", selector)
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def click(self, label: str) -> None:
        """Click the button with this text, once it is there."""
        button = f"[...document.querySelectorAll('button')].find(e => e.innerText.trim() == {label!r})"
        self.until(f"return {button}", label)
        self.run(f"{button}.click()")

    def errors(self) -> list[str]:
        """What the page has reported since the last call: errors of scripts and violations of the policy."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def resize(self, width: int, height: int) -> None:
        """Make the viewport that of another screen."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def unnamed(self) -> list[str]:
        """Controls that a screen reader would call by no name."""
        nodes = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        controls = {"button", "link", "textbox", "combobox", "spinbutton", "checkbox"}
        return [
            node["role"]["value"]
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in controls and not node.get("name", {}).get("value")
        ]


@contextmanager
def headless() -> Iterator[Browser]:
    """Run a browser; skip the test where there is none."""
    binary = next(filter(None, map(shutil.which, _BINARIES)), None)
    driver_binary = shutil.which("chromedriver")
    if binary is None or driver_binary is None:
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(driver_binary))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
