// The report: the same pages, drawn from what is written in this file.
"use strict";

(function (r) {
  const pages = JSON.parse(document.getElementById("pages").textContent);
  const main = document.getElementById("main");
  r.report = true;
  pages.forEach((page, i) => { page.prefix = pages.length > 1 ? `p${i}-` : ""; });

  r.draw = function () {
    r.morph(main, r.h("main", { id: "main", tabindex: "-1" }, pages.map((page) => r.page(page))));
    r.drawCharts();
  };
  r.draw();
})(raymeta);
