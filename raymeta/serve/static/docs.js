// The OpenAPI description as a page.
"use strict";
(async function (r) {
  const schema = await (await fetch("/openapi.json")).json();
  const text = (value) => r.h("pre", { tabindex: 0 }, JSON.stringify(value, null, 2));
  const calls = [];
  for (const [path, methods] of Object.entries(schema.paths)) {
    for (const [method, call] of Object.entries(methods)) {
      calls.push(r.h("section", { class: "block" },
        r.h("h2", {}, r.h("code", {}, method.toUpperCase() + " " + path)),
        r.h("p", {}, call.summary),
        call.requestBody ? r.h("p", {}, call.requestBody.description) : null,
        (call.parameters || []).map((one) => r.h("p", {}, r.h("code", {}, one.name), " in the " + one.in + ": " + (one.description || "id of a classifier"))),
        r.h("p", {}, "Answers: " + Object.entries(call.responses).map(([status, one]) => status + " " + one.description).join("; "))));
    }
  }
  document.getElementById("calls").replaceChildren(...calls, r.h("h2", {}, "Schemas"), text(schema.components.schemas));
})(raymeta);
