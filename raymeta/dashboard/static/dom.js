// Elements from plain data, and updating them in place. Text only ever enters as text nodes: nothing is parsed as HTML.
"use strict";
const raymeta = { state: new Map() };

(function (r) {
  const HANDLERS = ["onclick", "oninput", "onchange", "ontoggle", "onkeydown"];

  // h("p", {class: "quiet", onclick: f}, "text", child, null): handlers are properties, all else attributes.
  r.h = function (tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element[name] = value;
      else if (name === "key") element.dataset.key = value;
      else element.setAttribute(name, value === true ? "" : String(value));
    }
    append(element, children);
    return element;
  };

  function append(element, children) {
    for (const child of children) {
      if (Array.isArray(child)) append(element, child);
      else if (child !== null && child !== undefined && child !== false) element.append(child);
    }
  }

  // What a person changed and what has the focus survives: `old` becomes like `fresh` with the fewest changes.
  r.morph = function (old, fresh) {
    const focused = document.activeElement;
    morphElement(old, fresh);
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  };

  function morphElement(old, fresh) {
    if (fresh.update) { // it draws itself; what plotly.js made of it stays
      old.setAttribute("aria-label", fresh.getAttribute("aria-label"));
      fresh.update(old);
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of [...fresh.attributes]) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const name of HANDLERS) old[name] = fresh[name];
    if (old.tagName === "INPUT" && old.type === "checkbox") old.checked = fresh.hasAttribute("checked");
    if (old.tagName === "INPUT" && old !== document.activeElement && fresh.hasAttribute("value")) {
      old.value = fresh.getAttribute("value");
    }
    if (old.tagName === "SELECT") queueMicrotask(() => { old.value = old.dataset.value; });
    morphChildren(old, fresh);
  }

  function morphChildren(old, fresh) {
    const keyed = new Map();
    for (const child of old.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const match = next.dataset && next.dataset.key ? keyed.get(next.dataset.key) : alike(at, next) ? at : null;
      if (!match || match.nodeName !== next.nodeName) {
        old.insertBefore(next, at);
        continue;
      }
      if (match === at) at = at.nextSibling;
      else old.insertBefore(match, at);
      if (match.nodeType === Node.ELEMENT_NODE) morphElement(match, next);
      else if (match.data !== next.data) match.data = next.data;
    }
    while (at) {
      const after = at.nextSibling;
      at.remove();
      at = after;
    }
  }

  function alike(old, fresh) {
    return old && old.nodeName === fresh.nodeName && !(old.dataset && old.dataset.key);
  }

  // State of the parts of a page, kept while the page is drawn again.
  r.get = (key, otherwise) => (r.state.has(key) ? r.state.get(key) : otherwise);
  r.set = function (key, value) {
    r.state.set(key, value);
    r.draw();
  };

  r.download = function (name, blob) {
    const link = r.h("a", { href: URL.createObjectURL(blob), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  r.csv = function (columns, rows) {
    const cell = (value) => {
      const text = value === null || value === undefined ? "" : String(value.text === undefined ? value : value.text);
      // A spreadsheet runs what begins like a formula; a number may begin with a minus.
      const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) && isNaN(Number(text)) ? "'" + text : text;
      return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
    };
    return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  };
})(raymeta);
