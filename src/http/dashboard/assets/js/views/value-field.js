// The input of a flag's value: a type, and the input that fits it.

import { el, setAttr, setText, show } from "../dom.js";
import { TYPES, parseValue, textOf, typeOf } from "../value.js";

/** A field that starts with `value`. `read()` answers `{value}` or `{error}`. */
export function valueField(id, value) {
  const type = el("select", { id: `${id}-type`, "aria-label": "Type of the value", data: { testid: "value-type" } },
    ...TYPES.map(({ key, title }) => el("option", { value: key, text: title })));
  const errorId = `${id}-error`;
  const shared = { "aria-label": "Value", "aria-describedby": errorId, spellcheck: "false", data: { testid: "value-input" } };
  const inputs = {
    boolean: el("select", { ...shared }, el("option", { value: "true", text: "true" }), el("option", { value: "false", text: "false" })),
    integer: el("input", { ...shared, inputmode: "numeric", autocomplete: "off", placeholder: "0" }),
    string: el("textarea", { ...shared, rows: 1, placeholder: "Text" }),
  };
  const error = el("p", { id: errorId, class: "problem", role: "alert", data: { testid: "value-error" }, hidden: true });
  const node = el("div", { class: "value-field" }, el("span", { class: "picker" }, type), el("div", { class: "value-input" }), error);
  const place = node.children[1];

  const input = () => inputs[type.value] ?? null;
  function showError(text) {
    setText(error, text ?? "");
    show(error, Boolean(text));
    for (const each of Object.values(inputs)) setAttr(each, "aria-invalid", text ? "true" : null);
  }
  function swap() {
    const next = input();
    place.replaceChildren(...(next === null ? [] : [next]));
    show(place, next !== null);
    showError(null);
  }
  function reset(next) {
    type.value = typeOf(next);
    if (next !== null && next !== undefined) inputs[type.value].value = textOf(next);
    swap();
  }
  type.addEventListener("change", () => {
    swap();
    input()?.focus();
  });
  // Enter sends the form; a new line in a text takes Shift and Enter.
  inputs.string.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    node.closest("form")?.requestSubmit();
  });
  reset(value);

  return {
    node,
    reset,
    showError,
    read: () => parseValue(type.value, input()?.value ?? ""),
    focus: () => (input() ?? type).focus(),
  };
}
