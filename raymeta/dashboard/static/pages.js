// A page from its document. Shared by the dashboard and the report.
"use strict";

(function (r) {
  const h = r.h;
  const MARKS = { running: "●", finished: "✓", failed: "✗", lost: "?", stopped: "■", waiting: "…", "stopped early": "■" };

  // The report has no server to ask; the dashboard replaces these.
  r.runLink = (id, text) => h("span", null, text);
  r.fileLink = (name, text) => h("span", null, text);
  r.pictureAddress = (sheet) => sheet;

  // `ending` says more where a run ended otherwise than its status says: one that its time limit stopped is finished, too.
  r.status = function (status, ending) {
    if (!status) return null;
    const shown = ending || status;
    return h("span", { class: "status " + (MARKS[shown] ? shown.replace(" ", "-") : "stopped") },
      h("span", { "aria-hidden": "true" }, (MARKS[shown] || "■") + " "), shown);
  };

  r.page = function (page) {
    if (page.kind === "runs") return r.runsPage(page);
    const jumps = page.sections.length > 2 ? h("nav", { class: "jumps", "aria-label": `Parts of ${page.title} ${page.id}` },
      page.sections.map((s) => h("a", { href: "#" + r.anchor(page, s.id) }, s.title))) : null;
    return h("div", { class: "page" }, head(page), facts(page), jumps, controls(page),
      page.sections.map((s) => h("section", { key: s.id },
        h("h2", { id: r.anchor(page, s.id), tabindex: "-1" }, s.title),
        h("div", { class: "blocks" }, s.blocks.map((b) => block(b, page))))));
  };

  r.anchor = (page, id) => (page.prefix || "") + id;

  function head(page) {
    const sub = page.kind === "run" ? h("p", { class: "quiet id" }, `${page.id} · ${page.created}`) : null;
    const links = page.links && !r.report ? h("p", { class: "quiet" }, Object.entries(page.links).map(([label, id], i) =>
      [i ? " · " : "", r.runLink(id, label)])) : null;
    const ray = page.ray ? h("p", null, h("a", { href: page.ray, rel: "noreferrer" }, "Open the Ray dashboard")) : null;
    return h("div", { class: "head" }, h("h1", { tabindex: "-1" }, page.title), r.status(page.status, page.ending), sub, links, ray);
  }

  function facts(page) {
    return page.facts.length ? h("dl", { class: "facts" }, page.facts.map((f) => h("div", { key: "fact:" + f.label },
      h("dt", null, f.label), h("dd", null, f.value, f.hint ? h("small", null, f.hint) : null)))) : null;
  }

  function controls(page) {
    if (!page.controls || r.report) return null;
    return h("div", { class: "bar" }, page.controls.map((c) => {
      const select = h("select", { "data-value": c.value, onchange: (event) => r.choose(c.name, event.target.value) },
        c.options.map(([value, text]) => h("option", { value, selected: value === c.value }, text)));
      return h("label", null, c.label + " ", select);
    }));
  }

  function block(b, page) {
    if (b.type === "figure") return r.chart(page.prefix ? { ...b, key: page.prefix + b.key } : b);
    if (b.type === "table") return r.table(b, page);
    if (b.type === "episodes") return r.episodes(b, page);
    if (b.type === "code") return code(b);
    return h("p", { class: "note " + b.tone, role: "note" }, b.text);
  }

  function code(b) {
    const copy = (event) => {
      const button = event.target;
      const done = (word) => { button.textContent = word; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
      navigator.clipboard.writeText(b.text).then(() => done("Copied"), () => done("Select and copy by hand"));
    };
    return h("div", { class: "block code", key: "code:" + b.label }, h("div", { class: "bar" }, h("h3", null, b.label),
      navigator.clipboard ? h("button", { type: "button", class: "small", "aria-label": `Copy: ${b.label}`, onclick: copy }, "Copy") : null),
      h("pre", { tabindex: "0", role: "group", "aria-label": b.label }, b.text));
  }
})(raymeta);
