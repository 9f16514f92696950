// One flag: what it is, its value with an inline editor, and its switch. The state shown is the one
// that was read back; a change that is still on its way shows as pending.

import { el, setAttr, setText, show } from "../dom.js";
import { mayEdit } from "../state.js";
import { textOf, typeOf } from "../value.js";
import { valueField } from "./value-field.js";

const FLASH_MS = 1800;
let nextId = 0;

/** A row for `flag`; `update` takes the flag as flagsView joins it. */
export function flagRow(flag, store, actions) {
  const id = `flag-${(nextId += 1)}`;
  const name = el("h3", { id, class: "flag-key", text: flag.key });
  const description = el("p", { class: "flag-description" });
  const tags = el("span", { class: "tags" });
  const toggle = flagSwitch(id, flag.key, actions);
  const value = valueCell(id, flag, actions);
  const error = el("p", { class: "problem row-problem", role: "alert", hidden: true, data: { testid: "flag-error" } });
  const node = el("li", { class: "flag-row", data: { testid: "flag-row", key: flag.key } },
    el("div", { class: "flag-what" }, el("div", { class: "flag-head" }, name, tags), description),
    value.node, toggle.node, error);

  let flashed;
  let flashTimer;
  function flash(revision) {
    if (revision === flashed) return;
    flashed = revision;
    if (revision === undefined) return;
    // Two names for one animation, so that a second change starts it again.
    setAttr(node, "data-flash", node.dataset.flash === "a" ? "b" : "a");
    clearTimeout(flashTimer);
    flashTimer = setTimeout(() => setAttr(node, "data-flash", null), FLASH_MS);
  }

  function update(next) {
    const editable = mayEdit(store.get().caller);
    setText(description, next.description);
    show(description, next.description !== "");
    if (tags.textContent !== next.tags.join("")) {
      tags.replaceChildren(...next.tags.map((tag) => el("span", { class: "chip", text: tag })));
    }
    toggle.update(next, editable);
    value.update(next, editable);
    setText(error, next.error ?? "");
    show(error, Boolean(next.error));
    flash(next.flash);
  }
  return { node, update };
}

function flagSwitch(labelId, key, actions) {
  const knob = el("span", { class: "knob", "aria-hidden": "true" });
  const button = el("button", {
    type: "button", role: "switch", class: "switch", "aria-labelledby": labelId, data: { testid: "flag-switch" },
  }, knob);
  const state = el("span", { class: "switch-text", "aria-hidden": "true" });
  let flag;
  button.addEventListener("click", () => {
    if (flag.pending === null) actions.setEnabled(key, !flag.enabled);
  });
  function update(next, editable) {
    flag = next;
    const pending = next.pending?.enabled !== undefined;
    setAttr(button, "aria-checked", String(next.enabled));
    setAttr(button, "aria-busy", pending ? "true" : null);
    setAttr(button, "data-pending", pending);
    setAttr(button, "title", editable ? null : "Your token may only read");
    if (button.disabled === editable) button.disabled = !editable;
    setText(state, pending ? "pending" : next.enabled ? "on" : "off");
  }
  return { node: el("div", { class: "flag-switch" }, state, button), update };
}

function valueCell(id, flag, actions) {
  const type = el("span", { class: "type" });
  const text = el("span", { class: "value", data: { testid: "flag-value" } });
  const edit = el("button", {
    type: "button", class: "button small edit", text: "Edit", "aria-label": `Edit the value of ${flag.key}`,
    data: { testid: "value-edit" },
  });
  const reading = el("div", { class: "value-reading" }, type, text, edit);
  const node = el("div", { class: "flag-value" }, reading);
  let shown = flag;
  let editor = null;

  function close() {
    editor?.node.remove();
    editor = null;
    show(reading, true);
    edit.focus();
  }
  edit.addEventListener("click", () => {
    editor = valueEditor(id, shown, actions, close);
    show(reading, false);
    node.append(editor.node);
    editor.focus();
  });
  function update(next, editable) {
    shown = next;
    const pending = next.pending !== null && "value" in next.pending;
    const value = pending ? next.pending.value : next.value;
    setText(text, textOf(value));
    setAttr(text, "title", textOf(value));
    setAttr(text, "data-type", typeOf(value));
    setText(type, typeOf(value) === "null" ? "" : typeOf(value));
    setAttr(node, "data-pending", pending);
    show(edit, editable);
    editor?.update(next);
  }
  return { node, update };
}

function valueEditor(id, flag, actions, close) {
  const field = valueField(`${id}-value`, flag.value);
  const save = el("button", { type: "submit", class: "button small primary", text: "Save", data: { testid: "value-save" } });
  const cancel = el("button", { type: "button", class: "button small", text: "Cancel", data: { testid: "value-cancel" }, on: { click: close } });
  const elsewhere = el("p", { class: "hint", role: "status", hidden: true });
  const form = el("form", { class: "value-editor", "aria-label": `Value of ${flag.key}` },
    field.node, elsewhere, el("div", { class: "buttons" }, save, cancel));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { value, error } = field.read();
    if (error !== undefined) return field.showError(error);
    save.disabled = true;
    const problem = await actions.setValue(flag.key, value);
    save.disabled = false;
    if (problem) field.showError(problem);
    else if (form.isConnected) close();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  function update(next) {
    const moved = next.value !== flag.value && next.pending === null;
    if (moved) setText(elsewhere, `Meanwhile it was changed to “${textOf(next.value)}”.`);
    show(elsewhere, moved);
  }
  return { node: form, update, focus: field.focus };
}
