// The page to try a classifier. Text of others enters as text nodes only; nothing is asked of another host.
"use strict";
(function (r) {
  const get = (id) => document.getElementById(id);
  const classes = [];
  let token = "", known = [];

  function say(text) { get("alert").textContent = text; }

  async function ask(path, options) {
    const headers = token ? { Authorization: "Bearer " + token } : {};
    const answer = await fetch(path, { ...options, headers });
    if (answer.status === 401) get("access").hidden = false;
    const content = answer.status === 204 ? null : await answer.json();
    if (!answer.ok) throw new Error(content.error);
    return content;
  }

  // What a person does; its error becomes one sentence, and the button waits meanwhile.
  function doing(button, text, work) {
    return async () => {
      say("");
      if (button) button.disabled = true;
      get("busy").textContent = text;
      try { await work(); } catch (error) { say(error.message || "the service cannot be reached"); }
      get("busy").textContent = "";
      if (button) button.disabled = false;
    };
  }

  function picture(file) {
    const image = r.h("img", { alt: file.name, src: URL.createObjectURL(file) });
    image.onload = () => URL.revokeObjectURL(image.src);
    return image;
  }

  function droppable(element, take) {
    element.ondragover = (event) => { event.preventDefault(); element.classList.add("over"); };
    element.ondragleave = () => element.classList.remove("over");
    element.ondrop = (event) => {
      event.preventDefault();
      element.classList.remove("over");
      take([...event.dataTransfer.files]);
    };
  }

  function addClass(focus) {
    const number = classes.length + 1, one = { files: [] };
    const thumbs = r.h("ul", { class: "thumbs", "aria-label": "Examples of class " + number });
    one.name = r.h("input", { type: "text", id: "name" + number, maxlength: 100, autocomplete: "off" });
    const chosen = r.h("input", { type: "file", id: "files" + number, accept: "image/*", multiple: true });
    const take = (files) => {
      one.files.push(...files);
      thumbs.append(...files.map((file) => r.h("li", {}, picture(file))));
    };
    chosen.onchange = () => { take([...chosen.files]); chosen.value = ""; };
    const box = r.h("div", { class: "drop" },
      r.h("label", { for: "name" + number }, "Name of class " + number), one.name,
      r.h("label", { for: "files" + number }, "Its examples: choose pictures, or drop them here"), chosen, thumbs);
    droppable(box, take);
    classes.push(one);
    get("classes").append(box);
    if (focus) one.name.focus();
  }

  async function create() {
    const form = new FormData();
    for (const one of classes) {
      if (one.files.length && !one.name.value.trim()) throw new Error("give every class that has examples a name");
      for (const file of one.files) form.append(one.name.value.trim(), file, file.name);
    }
    const made = await ask("/api/classifiers", { method: "POST", body: form });
    await list(made.id);
  }

  async function list(wanted) {
    known = (await ask("/api/classifiers")).classifiers.filter((one) => !one.error);
    known.sort((a, b) => b.created.localeCompare(a.created));
    get("choice").replaceChildren(...known.map((one) =>
      r.h("option", { value: one.id }, one.classes.join(", ").slice(0, 60) + " (" + one.id.slice(0, 6) + ")")));
    if (wanted) get("choice").value = wanted;
    describe();
  }

  const percent = (share) => Math.round(100 * share) + " %";

  function describe() {
    const one = known.find((each) => each.id === get("choice").value);
    get("remove").disabled = !one;
    get("queries").disabled = !one;
    get("trust").textContent = one ? trust(one) : "There is none yet: create one from examples.";
  }

  function trust(one) {
    const tried = one.leave_one_out, guess = "; guessing gives " + percent(one.guessing) + ".";
    if (!tried) return "No class has a second example, so how often it is right is unknown" + guess;
    return "Tried on its own examples, each left out once, it is right in " + percent(tried.accuracy) + " (" +
      percent(tried.low) + " to " + percent(tried.high) + ")" + guess +
      (one.calibrated ? "" : " Confidence is not calibrated: that needs 20 examples.") +
      one.doubts.map((d) => " " + d.example + " looks like " + d.rather + ".").join("");
  }

  async function classify(files) {
    if (!files.length) return;
    const form = new FormData();
    for (const file of files) form.append("file", file, file.name);
    const path = "/api/classifiers/" + encodeURIComponent(get("choice").value) + "/predict";
    const { answers } = await ask(path, { method: "POST", body: form });
    get("answers").replaceChildren(...answers.map((answer, place) => r.h("li", {},
      picture(files[place]), r.h("strong", {}, answer.label), percent(answer.probability) + " sure",
      r.h("meter", { min: 0, max: 1, value: answer.probability, "aria-label": "confidence in " + answer.label }),
      r.h("small", {}, answer.alternatives.slice(0, 3).map((o) => o.label + " " + percent(o.probability)).join(", ")))));
  }

  async function remove() {
    await ask("/api/classifiers/" + encodeURIComponent(get("choice").value), { method: "DELETE" });
    get("answers").replaceChildren();
    await list();
  }

  async function begin() {
    const about = await ask("/api/model");
    get("access").hidden = true;
    get("about").textContent = "Model " + about.name + " takes " + about.item + "s. A few of each class are enough.";
    if (about.kind !== "pictures") say("This model takes " + about.item + "s: send them as JSON, see the page API.");
    await list();
  }

  function run(files) { doing(null, "Classifying …", () => classify(files))(); }

  addClass(false);
  addClass(false);
  get("more").onclick = () => addClass(true);
  get("create").onclick = doing(get("create"), "Creating the classifier …", create);
  get("remove").onclick = doing(get("remove"), "", remove);
  get("choice").onchange = () => { get("answers").replaceChildren(); describe(); };
  get("queries").onchange = () => { const files = [...get("queries").files]; get("queries").value = ""; run(files); };
  droppable(get("drop"), run);
  get("access").onsubmit = (event) => { event.preventDefault(); token = get("token").value; doing(null, "", begin)(); };
  describe();
  doing(null, "", begin)();
})(raymeta);
