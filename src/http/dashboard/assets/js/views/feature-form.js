// The form that creates a feature, with its defaults for every environment of the project.

import { el, setAttr, setText, show } from "../dom.js";
import { valueField } from "./value-field.js";

/** The form. `close` hides it; it is called after success and on cancel. */
export function featureForm(actions, close) {
  const key = el("input", {
    id: "feature-key", required: true, maxlength: 100, spellcheck: "false", autocapitalize: "off", autocomplete: "off",
    pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", title: "Letters, digits, - _ and .",
    placeholder: "dark-mode", data: { testid: "feature-key" },
  });
  const description = el("input", { id: "feature-description", autocomplete: "off", data: { testid: "feature-description" } });
  const tags = el("input", { id: "feature-tags", autocomplete: "off", placeholder: "ui, beta", data: { testid: "feature-tags" } });
  const enabled = formSwitch("feature-enabled-label");
  const value = valueField("feature-value", null);
  const error = el("p", { class: "problem", role: "alert", hidden: true, data: { testid: "feature-error" } });
  const submit = el("button", { type: "submit", class: "button primary", text: "Create feature", data: { testid: "feature-submit" } });
  const cancel = el("button", { type: "button", class: "button", text: "Cancel" });
  const form = el("form", { id: "feature-form", class: "feature-form", "aria-label": "New feature", hidden: true },
    labelled("Key", "feature-key", key),
    labelled("Description", "feature-description", description),
    labelled("Tags, separated by commas", "feature-tags", tags),
    el("div", { class: "field" }, el("span", { class: "label", text: "Value" }), value.node),
    el("div", { class: "field row" }, enabled.node, el("span", { id: "feature-enabled-label", text: "Enabled in every environment" })),
    error,
    el("div", { class: "buttons" }, submit, cancel));

  function reset() {
    form.reset();
    value.reset(null);
    enabled.set(false);
    showError(null);
  }
  function showError(text) {
    setText(error, text ?? "");
    show(error, Boolean(text));
  }
  cancel.addEventListener("click", () => {
    reset();
    close();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const read = value.read();
    if (read.error !== undefined) return value.showError(read.error);
    submit.disabled = true;
    const problem = await actions.createFeature({
      key: key.value.trim(),
      description: description.value.trim(),
      enabled: enabled.get(),
      value: read.value,
      tags: splitTags(tags.value),
    });
    submit.disabled = false;
    if (problem) return showError(problem);
    reset();
    close();
  });
  return { node: form, focus: () => key.focus() };
}

function formSwitch(labelId) {
  const node = el("button", {
    type: "button", role: "switch", class: "switch", "aria-checked": "false", "aria-labelledby": labelId,
    data: { testid: "feature-enabled" },
  }, el("span", { class: "knob", "aria-hidden": "true" }));
  const get = () => node.getAttribute("aria-checked") === "true";
  const set = (on) => setAttr(node, "aria-checked", String(on));
  node.addEventListener("click", () => set(!get()));
  return { node, get, set };
}

function splitTags(text) {
  return [...new Set(text.split(",").map((tag) => tag.trim()).filter(Boolean))];
}

function labelled(label, id, input) {
  return el("div", { class: "field" }, el("label", { for: id, text: label }), input);
}
