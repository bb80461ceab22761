// Figures: drawn by plotly.js in the page's colours, with a name for screen readers, their data as a table, downloads.
"use strict";

(function (r) {
  const h = r.h;
  const SHOWN_ROWS = 300;
  const CONFIG = { displayModeBar: false, responsive: true, showTips: false, doubleClick: "reset" };

  r.chart = function (block) {
    const meta = block.spec.layout.meta;
    const plot = h("div", { class: "plot", role: "img", "aria-label": `${meta.title}. ${meta.about}` });
    plot.spec = block.spec;
    plot.style.minHeight = (block.spec.layout.height || 330) + "px";
    plot.update = (old) => {
      if (old.spec === block.spec || JSON.stringify(old.spec) === JSON.stringify(block.spec)) return;
      old.spec = block.spec;
      draw(old);
    };
    const save = (format) => () => Plotly.downloadImage(figureOf(block.key), { format, filename: fileName(meta), scale: 2 });
    const csv = () => r.download(fileName(meta) + ".csv", new Blob([r.csv(...dataOf(block.spec))], { type: "text/csv" }));
    const button = (text, what, onclick) =>
      h("button", { type: "button", class: "small", "aria-label": `Download ${meta.title} as ${what}`, onclick }, text);
    return h("figure", { class: block.wide ? "chart wide" : "chart", key: block.key },
      h("figcaption", null, h("h3", null, meta.title), h("p", { class: "quiet" }, meta.about)),
      plot,
      h("div", { class: "tools" },
        button("PNG", "PNG", save("png")), button("SVG", "SVG", save("svg")), button("CSV", "CSV", csv)),
      data(block));
  };

  function figureOf(key) {
    return document.querySelector(`figure[data-key="${CSS.escape(key)}"] .plot`);
  }

  function fileName(meta) {
    return "raymeta-" + meta.title.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "").toLowerCase();
  }

  function data(block) {
    const key = "data:" + block.key;
    const open = r.get(key, false);
    const ontoggle = (event) => { if (event.target.open !== r.get(key, false)) r.set(key, event.target.open); };
    return h("details", { class: "data", ontoggle }, h("summary", null, "Show data"),
      open ? dataTable(block.spec) : null);
  }

  function dataTable(spec) {
    const [columns, rows] = dataOf(spec);
    const more = rows.length > SHOWN_ROWS ? h("p", { class: "quiet" },
      `The first ${SHOWN_ROWS} of ${rows.length} rows; CSV has all.`) : null;
    return h("div", null, r.plainTable(spec.layout.meta.title, columns, rows.slice(0, SHOWN_ROWS)), more);
  }

  // Rows of what is drawn: faint copies and the edges of bands that hover ignores are left out.
  function dataOf(spec) {
    const axis = (name, otherwise) => r.plain(((spec.layout[name] || {}).title || {}).text || otherwise);
    const columns = ["series", axis("xaxis", "x"), axis("yaxis", "y")];
    const rows = [];
    for (const trace of spec.data) {
      if (trace.hoverinfo === "skip") continue;
      const name = r.plain(trace.name || "");
      if (trace.type === "heatmap") {
        trace.z.forEach((line, i) => line.forEach((z, j) => rows.push([r.plain(trace.y[i]), trace.x[j], z])));
        continue;
      }
      (trace.x || []).forEach((x, i) => rows.push([name, r.plain(x), trace.y ? r.plain(trace.y[i]) : null]));
    }
    return [columns, rows];
  }

  // The figures' texts are escaped for plotly.js; here they are plain text again.
  r.plain = (text) => typeof text !== "string" ? text
    : text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

  r.drawCharts = function () {
    for (const plot of document.querySelectorAll(".plot")) if (!plot.drawn) draw(plot);
  };

  function draw(plot) {
    plot.drawn = true;
    Plotly.react(plot, plot.spec.data.map(lined), themed(plot.spec.layout), CONFIG).then(() => brush(plot));
  }

  // Lines of error on bars stand out from any bar in the colour of the text.
  function lined(trace) {
    if (trace.type !== "bar" || !trace.error_x) return trace;
    const color = getComputedStyle(document.documentElement).getPropertyValue("--text").trim();
    return { ...trace, error_x: { color, ...trace.error_x } };
  }

  function themed(layout) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const small = innerWidth < 560;
    const result = {
      height: 330, ...layout,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--text"), size: small ? 11 : 12.5, family: style.fontFamily },
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--text") } },
    };
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      const title = { ...layout[name].title, font: { size: small ? 11 : 12.5 } };
      const lines = { gridcolor: colour("--grid"), linecolor: colour("--line"), tickcolor: colour("--line") };
      result[name] = { ...lines, ...layout[name], title };
    }
    if (layout.annotations) result.annotations = layout.annotations.map((a) => ({ bgcolor: colour("--card"), ...a }));
    if (layout.showlegend === false && !layout.annotations) result.margin = { ...layout.margin, t: 14 };
    return result;
  }

  // Parallel coordinates: a box drawn over lines keeps these trials, here and in the table of trials.
  function brush(plot) {
    if (!plot.spec.data.some((trace) => trace.meta && trace.meta.trial !== undefined)) return;
    const shade = () => {
      const chosen = r.get("brush", null);
      const opacity = plot.spec.data.map((t) => (!chosen || chosen.includes(r.plain(t.meta.trial)) ? 1 : 0.07));
      Plotly.restyle(plot, { opacity });
    };
    plot.removeAllListeners("plotly_selected");
    plot.removeAllListeners("plotly_deselect");
    plot.on("plotly_selected", (event) => {
      if (!event || !event.points.length) return;
      r.set("brush", [...new Set(event.points.map((p) => r.plain(p.data.meta.trial)))]);
      shade();
    });
    plot.on("plotly_deselect", () => { r.set("brush", null); shade(); });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const plot of document.querySelectorAll(".plot")) if (plot.drawn) draw(plot);
  });
})(raymeta);
