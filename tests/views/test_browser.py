"""Dashboard and report in a real browser: Debian's chromium, driven by playwright, on real runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from looking import GLYPHS, HOSTILE
from test_dashboard import Server

from raymeta.report import main as report

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = os.environ.get("RAYMETA_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")]
LookedAt = tuple[Path, dict[str, Any]]
SWEEP = "2026-11-20_0930_rates_abcd"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(looked_at: LookedAt) -> Iterator[str]:
    server = Server(looked_at[0])
    yield f"http://127.0.0.1:{server.port}"
    server.stop()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages and fails the test at the end for any console error, script error, or request to another host."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def open_(url: str, *, scheme: str = "light", width: int = 1280, allowed: str = "") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        home = urlsplit(url).netloc

        def said(message: Any) -> None:
            if message.type in ("error", "warning") and not (allowed and allowed in message.text):
                wrong.append(message.text)

        page.on("console", said)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))

        def seen(request: Any) -> None:
            parts = urlsplit(request.url)
            if parts.scheme not in ("data", "blob", "about") and parts.netloc != home:
                wrong.append(f"request to {request.url}")

        page.on("request", seen)
        page.goto(url)
        ready(page)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


def ready(page: Any) -> None:
    """The page stands, and every chart in it is drawn."""
    page.wait_for_selector("main h1")
    until(page, "[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))")


def until(page: Any, expression: str, timeout_s: float = 30.0) -> None:
    """Wait until JavaScript is true; playwright's own waiting evaluates text in the page, which its policy forbids."""
    end = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def addresses(looked_at: LookedAt) -> dict[str, str]:
    ids = {name: quote(run.id, safe="") for name, run in looked_at[1].items()}
    return {
        "runs": "/",
        "run": f"/run/{ids['maml0']}",
        "sine": f"/run/{ids['sine']}",
        "failed": f"/run/{ids['failed']}",
        "lost": f"/run/{ids['lost']}",
        "hostile": f"/run/{ids['hostile']}",
        "compare": f"/compare?runs={ids['maml0']},{ids['maml1']},{ids['protonet']}",
        "sweep": f"/sweep/{SWEEP}",
        "cluster": "/cluster",
        "bench": "/bench",
    }


PAGES = ("runs", "run", "sine", "failed", "lost", "hostile", "compare", "sweep", "cluster", "bench")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(
    name: str, scheme: str, site: str, looked_at: LookedAt, open_page: Callable[..., Any]
) -> None:
    url = site + addresses(looked_at)[name]
    page = open_page(url, scheme=scheme)
    if page.locator("details.data summary").count():
        page.locator("details.data summary").first.click()
        page.wait_for_selector("details.data[open] table")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    phone = open_page(url, scheme=scheme, width=390)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert axe.Axe().run(phone).violations_count == 0


def test_axe_finds_nothing_in_an_empty_folder_and_it_says_how_to_start(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    server = Server(tmp_path)
    page = open_page(f"http://127.0.0.1:{server.port}/")
    assert "raymeta train" in page.text_content("main")
    assert axe.Axe().run(page).violations_count == 0
    page.context.close()
    server.stop()


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("table.runs tbody tr td:nth-child(2) a").all_text_contents()]


def test_sorting_and_filtering_by_the_keyboard_alone_stands_in_the_address(
    site: str, open_page: Callable[..., Any]
) -> None:
    page = open_page(site + "/")
    everything = names(page)
    page.keyboard.press("/")
    page.keyboard.type("sinusoid finished")
    until(page, "document.querySelectorAll('table.runs tbody tr').length === 2")
    assert page.evaluate("document.activeElement.id") == "filter"
    assert "filter=sinusoid+finished" in page.url
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    until(page, f"document.querySelectorAll('table.runs tbody tr').length === {len(everything)}")
    page.get_by_role("button", name="Run", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("th[aria-sort=ascending]")
    rising = names(page)
    assert sorted(rising) == sorted(everything)
    assert rising != everything
    assert page.evaluate("document.activeElement.textContent").startswith("Run")
    page.keyboard.press("Enter")
    page.wait_for_selector("th[aria-sort=descending]")
    assert names(page) == rising[::-1]
    assert names(open_page(page.url)) == rising[::-1]


def test_ticked_runs_are_compared_along_a_chosen_axis(
    site: str, looked_at: LookedAt, open_page: Callable[..., Any]
) -> None:
    page = open_page(site + "/?filter=glyphs")
    for name in ("maml0", "maml1"):
        page.get_by_role("checkbox", name=f"Compare {looked_at[1][name].id}").focus()
        page.keyboard.press("Space")
    page.get_by_role("link", name="Compare 2 runs").press("Enter")
    page.wait_for_selector("h1:has-text('Compare 2 runs')")
    ready(page)
    page.get_by_label("Along").select_option("time")
    page.wait_for_selector("h3:has-text('by minutes of training')")
    page.get_by_label("Lines").select_option("1")
    page.wait_for_selector("text=(2 runs)")
    assert "axis=time" in page.url
    assert page.locator("h3:has-text('Paired differences')").count() == 1
    shared = open_page(page.url)
    assert shared.locator("h3:has-text('by minutes of training')").count() == 1


def test_the_viewer_shows_how_each_inner_step_changed_the_answers(
    site: str, looked_at: LookedAt, open_page: Callable[..., Any]
) -> None:
    page = open_page(site + addresses(looked_at)["run"] + "#episodes")
    assert page.evaluate("document.getElementById('episodes').getBoundingClientRect().top < innerHeight")
    viewer = page.locator("section:has(#episodes)")
    assert viewer.locator(".pick").first.text_content().startswith("Worst")
    after = viewer.locator(".answer").all_text_contents()
    slider = viewer.get_by_role("slider", name="Inner step")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.wait_for_selector("output:has-text('before adapting')")
    before = viewer.locator(".answer").all_text_contents()
    assert len(before) == len(after) == 25
    assert before != after
    assert page.evaluate("document.activeElement.id") == "inner-step"
    right = viewer.locator("li.right").count()
    assert f"{round(100 * right / 25)} %" in viewer.locator("output").text_content()
    assert page.evaluate("[...document.querySelectorAll('.image img')].every(i => i.complete && i.naturalWidth > 0)")
    viewer.locator(".pick").last.click()
    page.wait_for_selector(".pick[aria-pressed=true]:has-text('Best')")


def test_a_fit_follows_the_slider(site: str, looked_at: LookedAt, open_page: Callable[..., Any]) -> None:
    page = open_page(site + addresses(looked_at)["sine"])
    plot = "document.querySelector('figure[data-key=fit] .plot')"
    shown = f"[...{plot}.data].filter(trace => trace.visible !== false).map(trace => trace.name)"
    assert "after 3 inner steps" in page.evaluate(shown)
    page.get_by_role("slider", name="Inner step").focus()
    page.keyboard.press("Home")
    page.wait_for_selector("output:has-text('before adapting')")
    assert [name for name in page.evaluate(shown) if name.startswith("after")] == []


def test_failures_say_why(site: str, looked_at: LookedAt, open_page: Callable[..., Any]) -> None:
    page = open_page(site + "/")
    row = page.locator("table.runs tr", has_text="too far")
    assert "NonFiniteGradient" in row.text_content()
    row.get_by_role("link").click()
    page.wait_for_selector(".note.bad:has-text('The run failed. NonFiniteGradient')")
    ready(page)
    lost = open_page(site + addresses(looked_at)["lost"])
    assert lost.locator(".status.lost").count() == 1
    sweep = open_page(site + f"/sweep/{SWEEP}")
    assert "NonFinite" in sweep.locator("section:has(#failures)").text_content()


def test_hostile_names_stay_text(site: str, looked_at: LookedAt, open_page: Callable[..., Any]) -> None:
    ids = [quote(looked_at[1][name].id, safe="") for name in ("hostile", "sine")]
    compared = "/compare?runs=" + ",".join(ids)
    for path in ("/", addresses(looked_at)["hostile"], compared, f"/sweep/{SWEEP}", "/bench"):
        page = open_page(site + path)
        page.wait_for_timeout(300)
        assert page.locator("img[src='x']").count() == 0
        assert page.evaluate("document.title") != "1"
        assert "onerror" in page.text_content("main")
    assert page.evaluate("[...document.querySelectorAll('main b, main script')].length") == 0
    assert HOSTILE in open_page(site + addresses(looked_at)["hostile"]).text_content("h1")


def test_another_result_is_chosen_and_stands_in_the_address(site: str, open_page: Callable[..., Any]) -> None:
    page = open_page(site + "/")
    page.get_by_role("link", name="Bench", exact=True).press("Enter")
    page.wait_for_selector("h2:has-text('sinusoid-maml')")
    ready(page)
    cases = "document.querySelectorAll('figure[data-key^=rates]').length"
    assert page.evaluate(cases) == 2
    page.get_by_label("Result").select_option("older.json")
    until(page, cases + " === 1")
    assert "result=older.json" in page.url
    assert open_page(page.url).evaluate(cases) == 1
    figure = page.locator("figure[data-key='rates:1']")
    figure.locator("summary").press("Enter")
    page.wait_for_selector("figure[data-key='rates:1'] tbody tr")
    assert figure.locator("tbody tr").count() == 5  # a row for each path; the numbers behind the bars are none


def test_brushing_keeps_the_trials_in_the_box(site: str, open_page: Callable[..., Any]) -> None:
    page = open_page(site + f"/sweep/{SWEEP}")
    rows = "document.querySelectorAll('section:has(#trials) tbody tr').length"
    assert page.evaluate(rows) == 6
    box = page.locator("figure[data-key=parallel] .nsewdrag").first.bounding_box()
    x, y, width, height = box["x"], box["y"], box["width"], box["height"]
    page.mouse.move(x + 2, y + height * 0.72)
    page.mouse.down()
    page.mouse.move(x + width * 0.1, y + height * 0.9, steps=5)
    page.mouse.move(x + width * 0.16, y + height - 2, steps=5)
    page.mouse.up()
    page.wait_for_selector("button:has-text('show all')")
    assert 0 < page.evaluate(rows) < 5
    page.get_by_role("button", name=re.compile("show all")).click()
    until(page, rows + " === 6")


def test_a_trial_opens_as_a_run_and_going_back_returns(site: str, open_page: Callable[..., Any]) -> None:
    page = open_page(site + f"/sweep/{SWEEP}")
    page.get_by_role("link", name="0000", exact=True).click()
    page.wait_for_selector("h1:has-text('sinusoid-maml')")
    ready(page)
    page.go_back()
    page.wait_for_selector(f"h1:has-text('{SWEEP}')")
    ready(page)


def test_charts_give_their_data_and_their_picture(
    site: str, looked_at: LookedAt, open_page: Callable[..., Any]
) -> None:
    page = open_page(site + addresses(looked_at)["run"])
    chart = page.locator("figure[data-key=losses]")
    assert "Loss in training" in chart.locator(".plot").get_attribute("aria-label")
    chart.locator("summary").press("Enter")
    page.wait_for_selector("figure[data-key=losses] tbody tr")
    assert chart.locator("tbody tr").count() == 24
    for name, start in (("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("CSV", b"series,outer step")):
        with page.expect_download() as waiting:
            chart.get_by_role("button", name=f"as {name}").click()
        assert Path(waiting.value.path()).read_bytes().startswith(start)


def test_a_page_grows_while_the_run_trains_and_the_focus_stays(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    options = [f"{key}={value}" for key, value in {**GLYPHS, "steps": 4000, "validate_every": 10}.items()]
    command = [sys.executable, "-m", "raymeta", "train", "--output", str(tmp_path), "-q", *options]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = Server(tmp_path)
    try:
        page = open_page(f"http://127.0.0.1:{server.port}/", allowed="404")
        page.wait_for_selector(".status.running", timeout=60_000)
        page.locator("table.runs a").click()
        page.wait_for_selector("figure[data-key=losses] .main-svg", timeout=60_000)
        summary = page.locator("figure[data-key=losses] summary")
        summary.press("Enter")
        summary.focus()
        points = "Math.max(...document.querySelector('figure[data-key=losses] .plot').data.map(t => t.x.length))"
        first = page.evaluate(points)
        page.evaluate("window.kept = document.querySelector('figure[data-key=losses] .plot')")
        until(page, f"{points} >= {first + 10}", 60)
        page.wait_for_selector("figure[data-key=scores] .main-svg", timeout=60_000)
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
        assert page.evaluate("document.querySelector('figure[data-key=losses] details').open")
        assert page.evaluate("window.kept === document.querySelector('figure[data-key=losses] .plot')")
        training.terminate()
        assert training.wait(60) == 130
        page.wait_for_selector("h1 + .status.stopped", timeout=30_000)
        assert "--resume" in page.text_content("main")
        (run,) = [path.parent for path in tmp_path.glob("*/run.json")]
        shutil.rmtree(run)
        page.wait_for_selector("#alert:has-text('gone from the disk')", timeout=30_000)
        assert page.locator("figure[data-key=losses] .main-svg").count() >= 1
        page.context.close()
    finally:
        training.kill()
        server.stop()


def test_a_server_that_ends_is_told_calmly(looked_at: LookedAt, browser: Any) -> None:
    server = Server(looked_at[0])
    page = browser.new_context().new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    ready(page)
    server.stop()
    page.wait_for_selector("#alert:has-text('does not answer')", timeout=30_000)
    assert names(page)
    page.context.close()


@pytest.mark.parametrize("what", ["maml0", "sine", "hostile", "failed", "sweep", "several"])
def test_a_report_opens_from_the_disk_without_any_request(
    what: str, looked_at: LookedAt, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    sweep = looked_at[0] / "sweeps" / SWEEP
    chosen = {"sweep": [sweep], "several": [looked_at[1][name].path for name in ("maml0", "maml1", "protonet")]}
    out = tmp_path / "report.html"
    assert report([*map(str, chosen.get(what) or [looked_at[1][what].path]), "-o", str(out)]) == 0
    requests: list[str] = []
    for scheme in ("light", "dark"):
        page = open_page(out.as_uri(), scheme=scheme)
        page.on("request", lambda request: requests.append(request.url))
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    if what == "maml0":
        page.get_by_role("slider", name="Inner step").focus()
        page.keyboard.press("Home")
        page.wait_for_selector("output:has-text('before adapting')")
        assert page.evaluate("[...document.querySelectorAll('.image img')].every(i => i.naturalWidth > 0)")
    phone = open_page(out.as_uri(), width=390)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    time.sleep(0.2)
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == []
