"""The front end's order of answers, in Node: the page in view is never overwritten by an answer that came too late."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import raymeta.dashboard

APP = Path(raymeta.dashboard.__file__).parent / "static" / "app.js"
# What app.js asks of a browser, and a server whose answers come when the test says so.
BROWSER = """
const element = () => ({ textContent: "", replaceChildren() {}, focus() {}, removeAttribute() {} });
const elements = {}, shown = [], asked = [], listeners = {};
globalThis.document = {
  hidden: false, title: "", getElementById: (id) => (elements[id] ||= element()), querySelectorAll: () => [],
  addEventListener: (name, call) => { listeners[name] = call; },
};
globalThis.location = { pathname: "/run/first", search: "", hash: "", origin: "http://here" };
globalThis.history = { pushState: (state, title, path) => { location.pathname = path; } };
globalThis.addEventListener = globalThis.scrollTo = () => {};
const h = (tag, attributes, ...children) => children;
const morph = (old, fresh) => shown.push(fresh[0]);
globalThis.raymeta = { h, state: new Map(), morph, page: (page) => page.title, drawCharts() {} };
globalThis.setTimeout = () => 0;
globalThis.fetch = (url, options) => new Promise((resolve) => asked.push({ url, options, resolve }));
const settled = () => new Promise((resolve) => setImmediate(resolve));
const answer = async (at, title, status = 200) => {
  asked[at].resolve({ status, ok: status === 200, json: async () => ({ title }), text: async () => "gone",
    headers: { get: () => `"${title}"` } });
  await settled();
};
const go = async (path) => {
  const link = { href: path, origin: location.origin, getAttribute: () => path };
  listeners.click({ target: { closest: () => link }, preventDefault() {} });
  await settled();
};
"""


def told(script: str) -> list[object]:
    """What a script tells of app.js in that browser."""
    if (node := shutil.which("node")) is None:
        pytest.skip("no node")
    text = f"{BROWSER}\n{APP.read_text()}\n(async () => {{ {script} }})();"
    done = subprocess.run([node, "-e", text], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout)
    return found


def test_an_answer_for_a_page_that_was_left_is_not_shown() -> None:
    script = """
      await settled();
      await go("/run/second");
      await answer(1, "second");
      await answer(0, "first");
      console.log(JSON.stringify([asked.map((a) => a.url), shown, document.title]));
    """
    urls, shown, title = told(script)
    assert urls == ["/api/pages/run/first", "/api/pages/run/second"]
    assert shown == ["second"]
    assert title == "second · raymeta"


def test_the_next_question_names_what_was_seen_and_a_gone_page_stays() -> None:
    script = """
      await answer(0, "first");
      listeners.visibilitychange();
      await answer(1, "", 304);
      listeners.visibilitychange();
      await answer(2, "", 404);
      console.log(JSON.stringify([asked.map((a) => a.options.headers), shown, elements.alert.textContent]));
    """
    headers, shown, alert = told(script)
    assert headers == [{}, {"If-None-Match": '"first"'}, {"If-None-Match": '"first"'}]
    assert shown == ["first"]
    assert "gone from the disk" in str(alert)
