// The form that adds a webhook. Its secret is shown in the row that appears.

import { el, setText, show } from "../dom.js";

const MODES = [
  { key: "state", title: "State: the newest revision" },
  { key: "events", title: "Events: each change, in order" },
];

/** The form. `create` answers with what was wrong, or null; `close` hides the form. */
export function webhookForm(create, close) {
  const url = el("input", {
    id: "webhook-url", required: true, inputmode: "url", spellcheck: "false", autocapitalize: "off", autocomplete: "off",
    placeholder: "https://app.example.com/flagcast", data: { testid: "webhook-url-input" },
  });
  const mode = el("select", { id: "webhook-mode", data: { testid: "webhook-mode-input" } },
    ...MODES.map(({ key, title }) => el("option", { value: key, text: title })));
  const description = el("input", {
    id: "webhook-description", autocomplete: "off", placeholder: "Shop, web servers", data: { testid: "webhook-description-input" },
  });
  const error = el("p", { class: "problem", role: "alert", hidden: true, data: { testid: "webhook-form-error" } });
  const submit = el("button", { type: "submit", class: "button primary", text: "Add webhook", data: { testid: "webhook-submit" } });
  const cancel = el("button", { type: "button", class: "button", text: "Cancel" });
  const form = el("form", { id: "webhook-form", class: "feature-form webhook-form", "aria-label": "New webhook", hidden: true },
    labelled("URL", "webhook-url", url, "wide"),
    labelled("What it is told", "webhook-mode", el("span", { class: "picker" }, mode)),
    labelled("Description", "webhook-description", description),
    error,
    el("div", { class: "buttons" }, submit, cancel));

  function reset() {
    form.reset();
    showError(null);
  }
  function showError(text) {
    setText(error, text ?? "");
    show(error, Boolean(text));
  }
  function leave() {
    reset();
    close();
  }
  cancel.addEventListener("click", leave);
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    const problem = await create({ url: url.value.trim(), mode: mode.value, description: description.value.trim() });
    submit.disabled = false;
    if (problem) return showError(problem);
    leave();
  });
  return { node: form, focus: () => url.focus(), reset };
}

function labelled(label, id, input, more = "") {
  return el("div", { class: `field ${more}`.trim() }, el("label", { for: id, text: label }), input);
}
