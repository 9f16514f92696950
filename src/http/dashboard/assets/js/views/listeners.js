// Who is listening now, and how to join them.

import { copyButton, el, keyed, setText, show } from "../dom.js";

/** Open streams of the environment, by client family. */
export function listenersCard(store) {
  const open = el("span", { class: "big", data: { testid: "listeners-open" }, text: "–" });
  const noun = el("span", { class: "muted", text: "open streams" });
  const bars = el("ul", { class: "bars", "aria-label": "Open streams by client" });
  const note = el("p", { class: "hint", hidden: true });
  store.watch((s) => [s.streams, s.streamsError], (streams, problem) => {
    setText(note, problem ?? "");
    show(note, problem !== null);
    setText(open, streams === null ? "–" : streams.open.toLocaleString("en"));
    setText(noun, streams?.open === 1 ? "open stream" : "open streams");
    const clients = [...(streams?.clients ?? [])].sort((a, b) => b.open - a.open);
    keyed(bars, clients.map((client) => ({ ...client, most: clients[0].open })), ({ client }) => client, bar);
  });
  return el("section", { class: "card listeners", "aria-labelledby": "listeners-title" },
    el("div", { class: "card-head" }, el("h2", { id: "listeners-title", text: "Listening now" })),
    el("p", { class: "figure" }, open, " ", noun), bars, note);
}

function bar({ client }) {
  const fill = el("span", { class: "bar-fill" });
  const number = el("span", { class: "bar-number mono" });
  const node = el("li", { data: { testid: "listeners-client", client } },
    el("span", { class: "bar-name", text: client }), el("span", { class: "bar-track", "aria-hidden": "true" }, fill), number);
  function update({ open, most }) {
    fill.style.width = `${Math.max(2, (100 * open) / Math.max(1, most))}%`;
    setText(number, open.toLocaleString("en"));
  }
  return { node, update };
}

/** The command that opens one more stream. */
export function connectCard(store) {
  const code = el("code", { class: "command" });
  store.watch((s) => [s.environment], (environment) => {
    const key = environment?.client_key ?? "";
    setText(code, `curl -N ${location.origin}/sse/environments/${key}/stream`);
  });
  return el("section", { class: "card connect", "aria-labelledby": "connect-title" },
    el("div", { class: "card-head" }, el("h2", { id: "connect-title", text: "Listen too" }),
      el("span", { class: "spacer" }), copyButton(() => code.textContent)),
    code);
}
