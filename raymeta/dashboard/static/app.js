// The dashboard: which page the address means, asking the server for it, and keeping it current in place.
"use strict";

(function (r) {
  const h = r.h;
  const LIVE_MS = 2000, CALM_MS = 8000;
  const main = document.getElementById("main");
  let page = null, version = "", entered = "", timer = 0, asked = 0;

  r.runLink = (id, text) => h("a", { href: "/run/" + encodeURIComponent(id) }, text);
  r.fileLink = (name, text) => h("a", { href: `/files/${encodeURIComponent(page.id)}/${name}`, target: "_blank", rel: "noopener" }, text);

  r.draw = function () {
    if (!page) return;
    r.morph(main, h("main", { id: "main", tabindex: "-1" }, r.page(page)));
    r.drawCharts();
  };

  // Change parts of the address without a new entry in the history.
  r.address = function (parts) {
    const search = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(parts)) {
      if (value === null) search.delete(name);
      else search.set(name, value);
    }
    const text = search.toString();
    history.replaceState(null, "", location.pathname + (text ? "?" + text : "") + location.hash);
    r.draw();
  };

  r.choose = function (name, value) {
    r.address({ [name]: value });
    ask();
  };

  function source() {
    const path = location.pathname === "/" ? "/runs" : location.pathname;
    return "/api/pages" + path + (["/compare", "/bench"].includes(path) ? location.search : "");
  }

  async function ask() {
    clearTimeout(timer);
    const mine = ++asked;
    const from = source();
    try {
      const answer = await fetch(from, { headers: version ? { "If-None-Match": version } : {}, cache: "no-store" });
      if (mine !== asked) return;
      if (answer.status === 304) alertWith("");
      else if (answer.ok) show(await answer.json(), answer.headers.get("ETag"));
      else refused(answer.status, await answer.text());
    } catch (error) {
      if (mine === asked) alertWith("The server does not answer; this is what was seen last.");
    }
    const wait = page && page.live ? LIVE_MS : CALM_MS;
    if (mine === asked && !document.hidden) timer = setTimeout(ask, wait);
  }

  function show(next, tag) {
    const first = !page;
    page = next;
    version = tag || "";
    alertWith("");
    document.title = `${page.title} · raymeta`;
    document.getElementById("live").textContent = page.live ? "● live" : "";
    r.draw();
    if (first) arrive();
  }

  function arrive() {
    const target = location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    if (target) target.scrollIntoView();
  }

  function refused(status, text) {
    if (page) alertWith(status === 404 ? "This is gone from the disk; what was seen last stays here." : text);
    else main.replaceChildren(h("h1", null, status === 404 ? "There is nothing here" : "Refused"), h("p", null, text),
      h("p", null, h("a", { href: "/" }, "All runs")));
  }

  function alertWith(text) {
    const alert = document.getElementById("alert");
    if (alert.textContent !== text) alert.textContent = text;
  }

  function enter() {
    page = null;
    version = "";
    entered = source();
    r.state.delete("brush");
    for (const link of document.querySelectorAll("header nav a")) {
      if (link.getAttribute("href") === location.pathname) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    ask();
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[href]");
    if (!link || link.target || link.download || link.origin !== location.origin || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (link.getAttribute("href").startsWith("#")) return;
    event.preventDefault();
    history.pushState(null, "", link.href);
    scrollTo(0, 0);
    main.replaceChildren(h("p", { class: "quiet" }, "Loading …"));
    main.focus();
    enter();
  });
  addEventListener("popstate", () => { if (source() !== entered) enter(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  document.addEventListener("keydown", (event) => {
    const filter = document.getElementById("filter");
    if (event.key !== "/" || !filter || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
    event.preventDefault();
    filter.focus();
  });
  enter();
})(raymeta);
