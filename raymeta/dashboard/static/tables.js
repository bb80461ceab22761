// Tables that sort by a click or the keyboard, filter, and scroll within themselves on a narrow screen.
"use strict";

(function (r) {
  const h = r.h;
  const FIRST_ROWS = 60;
  const FILTER_FROM = 12;

  const textOf = (cell) => cell === null || cell === undefined ? "" : String(cell.text === undefined ? cell : cell.text);

  r.matches = (text, filter) => filter.toLowerCase().split(/\s+/).every((word) => text.toLowerCase().includes(word));

  // Numbers before texts, empty cells last in either direction.
  r.compare = function (a, b, down) {
    const empty = (v) => v === null || v === undefined || v === "";
    if (empty(a) || empty(b)) return empty(a) - empty(b);
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    return down ? -order : order;
  };

  r.scroller = (label, ...children) => h("div", { class: "scroll", role: "group", tabindex: "0", "aria-label": label }, ...children);

  r.heading = function (title, sorted, onclick, numeric) {
    const direction = sorted === 0 ? null : sorted > 0 ? "ascending" : "descending";
    const mark = sorted === 0 ? "" : sorted > 0 ? " ▲" : " ▼";
    return h("th", { scope: "col", "aria-sort": direction, class: numeric ? "num" : null },
      h("button", { type: "button", onclick }, title, h("span", { "aria-hidden": "true" }, mark)));
  };

  r.plainTable = (label, columns, rows) => r.scroller(label, h("table", null,
    h("caption", { class: "hidden" }, label),
    h("thead", null, h("tr", null, columns.map((c) => h("th", { scope: "col" }, c)))),
    h("tbody", null, rows.map((row) => h("tr", null, row.map((cell) => cellOf(cell)))))));

  // An empty cell stands with the numbers of its column.
  function cellOf(cell, numeric) {
    if (cell && cell.run !== undefined) return h("td", null, r.runLink(cell.run, cell.text));
    if (cell && cell.file !== undefined) return h("td", null, r.fileLink(cell.file, cell.text));
    return h("td", { class: typeof cell === "number" || (cell === null && numeric) ? "num" : null }, cell === null || cell === undefined ? "–" : textOf(cell));
  }

  r.table = function (block, page) {
    const key = `table:${page.kind}:${page.id}:${block.key}`;
    const state = r.get(key, { sort: null, down: false, filter: "", all: false });
    const change = (more) => r.set(key, { ...state, ...more });
    let rows = block.rows.filter((row) => !state.filter || r.matches(row.map(textOf).join(" "), state.filter));
    const chosen = block.key === "trials" ? r.get("brush", null) : null;
    if (chosen) rows = rows.filter((row) => chosen.includes(textOf(row[0])));
    if (state.sort !== null) {
      const value = (row) => (typeof row[state.sort] === "number" ? row[state.sort] : textOf(row[state.sort]));
      rows = [...rows].sort((a, b) => r.compare(value(a), value(b), state.down));
    }
    const shown = state.all ? rows : rows.slice(0, FIRST_ROWS);
    const numeric = block.columns.map((_, i) => block.rows.some((row) => typeof row[i] === "number"));
    const heads = block.columns.map((title, i) => r.heading(title, state.sort === i ? (state.down ? -1 : 1) : 0,
      () => change({ sort: i, down: state.sort === i && !state.down }), numeric[i]));
    const filter = block.rows.length > FILTER_FROM ? h("label", { class: "filter" }, "Filter ",
      h("input", { type: "search", value: state.filter, "aria-label": `Filter ${block.label}`,
        oninput: (event) => change({ filter: event.target.value.trim() }) }),
      h("span", { class: "quiet" }, `${rows.length} of ${block.rows.length}`)) : null;
    const unbrush = chosen ? h("button", { type: "button", class: "small", onclick: () => r.set("brush", null) },
      `Only ${chosen.length} trials in the box: show all`) : null;
    const more = rows.length > shown.length
      ? h("button", { type: "button", class: "small", onclick: () => change({ all: true }) }, `Show all ${rows.length} rows`) : null;
    return h("div", { class: "block", key: block.key }, h("div", { class: "bar" }, filter, unbrush),
      r.scroller(block.label, h("table", null, h("caption", { class: "hidden" }, block.label),
        h("thead", null, h("tr", null, heads)),
        h("tbody", null, shown.map((row) => h("tr", null, row.map((cell, i) => cellOf(cell, numeric[i]))))))), more);
  };
})(raymeta);
