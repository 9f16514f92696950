// The form that asks for a management token.

import { el, setAttr, setText, show } from "../dom.js";

/** The sign-in card. */
export function signInView(store, actions) {
  const input = el("input", {
    id: "token", name: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true,
    "aria-describedby": "token-hint token-error", data: { testid: "token-input" },
  });
  const submit = el("button", {
    type: "submit", class: "button primary wide", text: "Sign in", data: { testid: "token-submit" },
  });
  const error = el("p", { id: "token-error", class: "problem", role: "alert", data: { testid: "token-error" } });
  const form = el("form", { class: "card sign-in" },
    el("h2", { text: "Sign in" }),
    el("label", { for: "token", text: "Management token" }),
    input,
    error,
    submit,
    el("p", { id: "token-hint", class: "hint" },
      "The server prints a token at its first start. More are made with ",
      el("code", { text: "flagcast token create" }),
      ". It stays in this tab.",
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim() !== "") actions.signIn(input.value.trim());
  });
  store.watch((s) => [s.signIn, s.token], ({ busy, error: message }, token) => {
    submit.disabled = busy;
    setText(submit, busy ? "Signing in…" : "Sign in");
    setText(error, message ?? "");
    show(error, message !== null);
    setAttr(input, "aria-invalid", message === null ? null : "true");
    if (token !== null) input.value = "";
  });
  return el("div", { class: "sign-in-place" }, form);
}
