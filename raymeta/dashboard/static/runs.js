// The page of all runs: sort, filter, tick to compare. What is chosen stands in the address, so that it can be shared.
"use strict";

(function (r) {
  const h = r.h;
  const FIRST_ROWS = 100;
  const COLUMNS = [
    ["Run", (row) => row.name], ["Status", (row) => row.ending], ["Progress", (row) => (row.steps ? row.step / row.steps : 0)],
    ["Test score", (row) => row.rank], ["Algorithm", (row) => row.algorithm], ["Tasks", (row) => row.tasks],
    ["Model", (row) => row.model], ["Created", (row) => row.created],
  ];
  const DOWN_FIRST = ["Progress", "Test score", "Created"];

  r.runsPage = function (page) {
    if (!page.runs.length && !page.sweeps.length) return empty(page);
    const address = new URLSearchParams(location.search);
    const filter = address.get("filter") || "";
    const sort = Math.max(-1, COLUMNS.findIndex(([title]) => title === address.get("sort")));
    const down = address.get("order") === "down";
    const picked = r.get("picked", []).filter((id) => page.runs.some((row) => row.id === id));
    let rows = page.runs.filter((row) => !filter || r.matches(words(row), filter));
    if (sort >= 0) rows = [...rows].sort((a, b) => r.compare(COLUMNS[sort][1](a), COLUMNS[sort][1](b), down));
    const shown = r.get("all runs", false) ? rows : rows.slice(0, FIRST_ROWS);
    return h("div", { class: "page" },
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, page.title), h("p", { class: "quiet id" }, page.folder)),
      page.sweeps.length ? sweeps(page) : null,
      h("section", { key: "runs" }, h("h2", { id: "all-runs" }, "All runs"),
        bar(filter, rows.length, page.runs.length, picked),
        r.scroller("All runs", h("table", { class: "runs" }, h("caption", { class: "hidden" }, "All runs"),
          h("thead", null, h("tr", null, h("th", { scope: "col" }, h("span", { class: "hidden" }, "Compare")),
            COLUMNS.map(([title], i) => r.heading(title, sort === i ? (down ? -1 : 1) : 0, () => sortBy(title, sort === i, down))))),
          h("tbody", null, shown.map((row) => line(row, picked))))),
        rows.length ? null : h("p", { class: "quiet" }, "No run matches the filter."),
        rows.length > shown.length ? h("button", { type: "button", class: "small", onclick: () => r.set("all runs", true) },
          `Show all ${rows.length} runs`) : null));
  };

  const words = (row) => [row.id, row.name, row.status, row.ending, row.algorithm, row.tasks, row.model, ...row.tags].join(" ");

  function empty(page) {
    return h("div", { class: "page empty" }, h("h1", { tabindex: "-1" }, "No runs yet"),
      h("p", null, "This page looks at ", h("code", null, page.folder), ". Runs appear here by themselves as soon as one starts:"),
      h("pre", { tabindex: "0", role: "group", "aria-label": "Command" }, page.start),
      h("p", { class: "quiet" }, "Runs somewhere else? raymeta dashboard DIR looks there."));
  }

  function sortBy(title, same, down) {
    r.address({ sort: title, order: (same ? !down : DOWN_FIRST.includes(title)) ? "down" : null });
  }

  function bar(filter, matching, count, picked) {
    const compare = "/compare?runs=" + picked.map(encodeURIComponent).join(",");
    return h("div", { class: "bar" },
      h("label", { class: "filter" }, "Filter ", h("input", { type: "search", id: "filter", value: filter,
        placeholder: "maml failed …", oninput: (event) => r.address({ filter: event.target.value.trim() || null }) })),
      h("span", { class: "quiet", role: "status" }, filter ? `${matching} of ${count}` : `${count} runs`),
      picked.length > 1 ? h("a", { class: "button", href: compare }, `Compare ${picked.length} runs`)
        : h("span", { class: "quiet" }, "Tick two or more to compare them."));
  }

  function line(row, picked) {
    const tick = (event) => {
      const others = r.get("picked", []).filter((id) => id !== row.id);
      r.set("picked", event.target.checked ? [...others, row.id] : others);
    };
    const share = row.steps ? Math.min(100, Math.round((100 * row.step) / row.steps)) : 0;
    const progress = h("span", { class: "progress", "aria-hidden": "true" }, h("span"));
    progress.firstChild.style.width = share + "%";
    return h("tr", { key: row.id },
      h("td", null, h("input", { type: "checkbox", checked: picked.includes(row.id), "aria-label": `Compare ${row.id}`, onchange: tick })),
      h("td", null, r.runLink(row.id, row.name), h("small", null, row.id),
        row.problem ? h("small", { class: "bad" }, row.problem) : null),
      h("td", null, r.status(row.status, row.ending), row.reason ? h("small", { class: "reason" }, row.reason) : null),
      h("td", { class: "num" }, `${row.step.toLocaleString("en")} / ${row.steps.toLocaleString("en")}`, progress),
      h("td", { class: "num" }, row.score), h("td", null, row.algorithm), h("td", null, row.tasks),
      h("td", null, row.model), h("td", null, row.created));
  }

  function sweeps(page) {
    return h("section", { key: "sweeps" }, h("h2", { id: "sweeps" }, "Sweeps"),
      r.scroller("Sweeps", h("table", null, h("caption", { class: "hidden" }, "Sweeps"),
        h("thead", null, h("tr", null, ["Sweep", "Status", "Trials", "Best score"].map((t) => h("th", { scope: "col" }, t)))),
        h("tbody", null, page.sweeps.map((s) => h("tr", { key: "sweep:" + s.id },
          h("td", null, h("a", { href: "/sweep/" + encodeURIComponent(s.id) }, s.id)), h("td", null, r.status(s.status)),
          h("td", { class: "num" }, String(s.trials)), h("td", { class: "num" }, s.score)))))));
  }
})(raymeta);
