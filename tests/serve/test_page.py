"""The page in a real browser: classes are taught by the keyboard and by dropping, and queries answered."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Service, png

from raymeta.use.opening import open_model

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = os.environ.get("RAYMETA_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")]
TOKEN = "a-token-of-the-tests"
DROP = """([element, name, data]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(data)], name, { type: "image/png" }));
  document.querySelector(element).dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""


@pytest.fixture
def service(exported: Path, tmp_path: Path) -> Iterator[Service]:
    service = Service(open_model(str(exported)), tmp_path / "store", token=TOKEN)
    yield service
    service.stop()


@pytest.fixture(params=[1280, 360], ids=["desk", "phone"])
def page(request: pytest.FixtureRequest, service: Service) -> Iterator[Any]:
    """The page, with the token given; any request to another host fails the test."""
    elsewhere: list[str] = []
    home = f"http://127.0.0.1:{service.port}/"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": request.param, "height": 800})
        page.on(
            "request", lambda r: elsewhere.append(r.url) if not r.url.startswith((home, "blob:", "data:")) else None
        )
        page.on("pageerror", lambda error: elsewhere.append(str(error)))
        page.goto(home)
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        page.wait_for_selector("#access", state="hidden")
        yield page
        browser.close()
    assert elsewhere == []


def files(shape: str, count: int) -> list[dict[str, Any]]:
    return [{"name": f"{n}.png", "mimeType": "image/png", "buffer": png(shape, n)} for n in range(count)]


def fine(page: Any) -> None:
    assert axe.Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_classes_are_taught_and_queries_answered(page: Any, service: Service) -> None:
    for number, shape in enumerate(("ring", "line"), 1):
        page.fill(f"#name{number}", shape)
        page.set_input_files(f"#files{number}", files(shape, 3))
    page.focus("#create")
    page.keyboard.press("Enter")
    page.wait_for_selector("#choice option", state="attached")
    assert "guessing gives 50 %" in page.inner_text("#trust")
    page.evaluate(DROP, ["#drop", "dropped.png", list(png("ring", 1))])
    page.wait_for_selector("#answers li")
    assert page.inner_text("#answers li strong") == "ring"
    assert "% sure" in page.inner_text("#answers li")
    fine(page)
    page.click("#remove")
    page.wait_for_selector("#choice option", state="detached")
    assert service.ask("GET", "/api/classifiers")[2] == {"classifiers": []}


def test_a_mistake_is_one_sentence_on_the_page(page: Any) -> None:
    page.set_input_files("#files1", files("ring", 1))
    page.click("#create")
    page.wait_for_selector("#alert:not(:empty)")
    assert page.inner_text("#alert") == "give every class that has examples a name"
    fine(page)


def test_the_page_of_the_api_shows_every_call(page: Any) -> None:
    page.click("nav a[href='/docs']")
    page.wait_for_selector("#calls section")
    assert "POST /api/classifiers/{id}/predict" in page.inner_text("#calls")
    fine(page)
