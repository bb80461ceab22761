"""Pictures of the dashboard's pages for docs/, from the runs of a folder: `python tools/screenshots.py DIR`.

Needs playwright and a chromium (RAYMETA_CHROMIUM, or `chromium` on the path). Look at what it makes before you keep it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import sync_playwright

OUT = Path(__file__).parents[1] / "docs" / "dashboard"
COLOURS = 128


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--run", default="", help="id of the run on the page of a run")
    parser.add_argument("--fit", default="", help="id of a run on sinusoids")
    parser.add_argument("--compare", nargs="+", default=[], help="ids of the compared runs")
    parser.add_argument("--sweep", default="", help="id of the sweep")
    parser.add_argument("--only", nargs="+", metavar="PICTURE", help="only these, which may need fewer ids [all]")
    arguments = parser.parse_args()
    run, fit = quote(arguments.run), quote(arguments.fit)
    pages = {
        "runs": ("/", "light", None),
        "run": (f"/run/{run}", "light", None),
        "run-dark": (f"/run/{run}", "dark", None),
        "episodes": (f"/run/{run}", "light", "section:has(#episodes)"),
        "fit": (f"/run/{fit}", "light", "section:has(#episodes)"),
        "compare": (f"/compare?runs={','.join(map(quote, arguments.compare))}", "light", None),
        "sweep": (f"/sweep/{quote(arguments.sweep)}", "light", None),
        "cluster": ("/cluster", "light", None),
        "bench": ("/bench", "light", "section:first-of-type"),
    }
    if arguments.only:
        pages = {name: pages[name] for name in arguments.only}
    OUT.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "raymeta.dashboard", str(arguments.directory), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = "http://" + server.stdout.readline().split("http://")[1].split()[0].rstrip("/")
    json.load(urllib.request.urlopen(f"{url}/api/runs"))
    try:
        take(url, pages)
    finally:
        server.terminate()
        server.wait()
    return 0


def take(url: str, pages: dict[str, tuple[str, str, str | None]]) -> None:
    chromium = os.environ.get("RAYMETA_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (address, scheme, part) in pages.items():
            size = {"width": 1240, "height": 820}
            page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
            page.goto(url + address)
            page.wait_for_selector("main h1")
            page.wait_for_timeout(2500)
            path = OUT / f"{name}.png"
            if part:
                page.locator(part).screenshot(path=path)
            else:
                page.screenshot(path=path, full_page=name not in ("run", "run-dark"))
            shrink(path)
            print(path)
        browser.close()


def shrink(path: Path) -> None:
    """Few colours are enough for a page, and keep the repository small."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
