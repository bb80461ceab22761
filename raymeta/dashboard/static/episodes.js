// The episode viewer: what the model saw, and how each inner step changed what it said.
"use strict";

(function (r) {
  const h = r.h;
  const SIDE = 52; // pixels of an image

  r.episodes = function (block, page) {
    const key = `episode:${page.id}`;
    const state = r.get(key, { place: 0, step: null });
    const place = Math.min(state.place, block.items.length - 1);
    const item = block.items[place];
    const last = item.steps.length - 1;
    const step = Math.min(state.step === null ? last : state.step, last);
    const change = (more) => r.set(key, { place, step, ...more });
    return h("div", { class: "block", key: block.key },
      h("div", { class: "bar", role: "group", "aria-label": "Test tasks, worst first" }, block.items.map((other, i) =>
        h("button", { type: "button", class: "pick", "aria-pressed": i === place ? "true" : "false", onclick: () => change({ place: i, step: null }) },
          `${nameOf(other, i, block.items.length)} · ${scoreText(other.steps[other.steps.length - 1], other.score)}`))),
      last > 0 ? slider(item, step, last, change, "inner-step" + (page.prefix || "")) : null,
      item.kind === "classes" ? classes(item, step, page) : item.kind === "fit" ? fit(item, step, page)
        : h("p", { class: "quiet" }, "This task has several inputs or outputs, so there is no picture of it."));
  };

  function nameOf(item, place, count) {
    if (item.rank === null) return `Task ${item.index}`;
    if (place === count - 1 && count > 1) return "Best";
    return place === count - 2 && count > 2 && item.rank > place + 1 ? "Middle" : item.rank === 1 ? "Worst" : `${item.rank}. worst`;
  }

  const scoreText = (value, name) => name === "accuracy" ? `${Math.round(100 * value)} %` : Number(value.toPrecision(3)).toString();

  function slider(item, step, last, change, id) {
    const words = step === 0 ? "before adapting" : `after ${step} of ${last} inner step${last > 1 ? "s" : ""}`;
    const name = item.score === "accuracy" ? "right answers" : "squared error";
    return h("div", { class: "slider" },
      h("label", { for: id }, "Inner step"),
      h("input", { type: "range", id, min: 0, max: last, step: 1, value: step, "aria-valuetext": words,
        oninput: (event) => change({ step: Number(event.target.value) }) }),
      h("output", { for: id }, `${words}: ${scoreText(item.steps[step], item.score)} ${name}`));
  }

  function fit(item, step, page) {
    const data = item.spec.data.map((trace) => {
      const at = trace.meta && trace.meta.inner_step;
      if (at === undefined || at === 0) return trace;
      return at === step ? { ...trace, visible: true, showlegend: true } : { ...trace, visible: false, showlegend: false };
    });
    const layout = { ...item.spec.layout, uirevision: String(item.index) };
    return r.chart({ key: (page.prefix || "") + "fit", spec: { data, layout } });
  }

  function classes(item, step, page) {
    const bars = item.steps.length > 1 ? "The small bars are the confidence in the true class before adapting and after each inner step."
      : "The small bar is the confidence in the true class.";
    const rows = item.names.map((name, label) => h("div", { class: "class-row", key: "class" + label },
      h("h3", null, `Class ${name}`, item.titles ? h("small", null, item.titles[label]) : null),
      h("ul", { class: "support", "aria-label": `Support images of class ${name}` },
        item.support.map((y, i) => y === label ? h("li", null, image(item, "support", i, `Support image of class ${name}`, page)) : null)),
      h("ul", { class: "queries", "aria-label": `Queries of class ${name}` },
        item.query.map((y, q) => y === label ? query(item, q, step, page) : null))));
    return h("div", { class: "episode" },
      h("p", { class: "quiet" }, "A row for each class of the task: what the model was shown, then the queries with its " +
        "answer and its confidence. " + bars),
      rows);
  }

  function query(item, q, step, page) {
    const truth = item.query[q];
    const answer = (t) => item.probabilities[t][q].indexOf(Math.max(...item.probabilities[t][q]));
    const said = answer(step);
    const right = said === truth;
    const percent = Math.round(100 * item.probabilities[step][q][said]);
    const history = item.probabilities.map((_, t) => item.names[answer(t)]).join(" → ");
    const label = `Query of class ${item.names[truth]}: answered ${item.names[said]} with ${percent} %, ` +
      `${right ? "right" : "wrong"}.` + (item.steps.length > 1 ? ` Answers by inner step: ${history}.` : "");
    const bars = item.probabilities.map((p, t) => {
      const bar = h("span", { class: (answer(t) === truth ? "bar-right" : "bar-wrong") + (t === step ? " now" : "") });
      bar.style.height = Math.max(2, Math.round(22 * p[q][truth])) + "px";
      return bar;
    });
    return h("li", { class: right ? "right" : "wrong" }, image(item, "query", q, label, page),
      h("span", { class: "answer", "aria-hidden": "true" }, `${right ? "✓" : "✗"} ${item.names[said]} ${percent} %`),
      h("span", { class: "history", "aria-hidden": "true" }, bars));
  }

  // One image of the sheet, which holds all of them.
  function image(item, side, position, label, page) {
    const box = item.boxes && item.boxes[side][position];
    if (!box || !item.sheet) return h("span", { class: "image none", role: "img", "aria-label": label }, "no image");
    const [left, top, width, height] = box;
    const scale = SIDE / Math.max(width, height);
    const sheet = h("img", { src: r.pictureAddress(item.sheet, page), alt: "", draggable: "false" });
    const frame = h("span", { class: "image", role: "img", "aria-label": label }, sheet);
    frame.style.width = Math.round(width * scale) + "px";
    frame.style.height = Math.round(height * scale) + "px";
    sheet.style.transform = `scale(${scale}) translate(${-left}px, ${-top}px)`;
    return frame;
  }
})(raymeta);
