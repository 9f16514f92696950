// Who is told of changes by webhooks, and how that goes.

import { el, keyed, setAttr, setText, show } from "../dom.js";
import { count } from "../format.js";
import { mayAdminister, mayEdit } from "../state.js";
import { webhookForm } from "./webhook-form.js";
import { webhookRow } from "./webhook-row.js";

const DENIED = "Your token may only read, and whoever may only read does not see webhooks: a URL can be a secret. "
  + "Ask for a token with the role editor or admin.";
const EMPTY = "No webhook yet. A webhook tells an app of every change of a flag, signed and in order, until the app confirms it.";

/** The webhooks panel. It reads when it is opened, after each new revision and every few seconds. */
export function webhooksView(store, actions) {
  const work = () => actions.webhooks();
  const add = el("button", {
    type: "button", class: "button primary", text: "Add webhook", "aria-expanded": "false", "aria-controls": "webhook-form",
    data: { testid: "webhook-new" },
  });
  const form = webhookForm((wanted) => work().create(wanted), () => toggleForm(false));
  const total = el("span", { class: "muted" });
  const problem = el("p", { class: "problem", role: "alert", hidden: true, data: { testid: "webhooks-error" } });
  const sentence = el("p", { class: "hint", data: { testid: "webhooks-empty" } });
  const list = el("ul", { class: "webhook-list", "aria-label": "Webhooks" });

  function toggleForm(open) {
    show(form.node, open);
    setAttr(add, "aria-expanded", String(open));
    if (open) form.focus();
    else add.focus();
  }
  add.addEventListener("click", () => toggleForm(form.node.hidden));

  store.watch((s) => [s.webhooks, s.webhookNotes, s.deliveries, s.caller], ({ items, error }, notes, log, caller) => {
    const allowed = mayEdit(caller);
    const rows = (items ?? []).map((webhook) => ({
      webhook,
      note: notes[webhook.id] ?? {},
      log: log.webhook === webhook.id ? log : null,
      administers: mayAdminister(caller),
    }));
    keyed(list, allowed ? rows : [], ({ webhook }) => webhook.id, (row) => webhookRow(row, work, () => add.focus()));
    show(list, allowed && rows.length > 0);
    setText(total, items?.length ? count(items.length, "endpoint") : "");
    setText(sentence, allowed ? explain(items, caller) : DENIED);
    show(sentence, !allowed || (rows.length === 0 && error === null));
    setText(problem, error === null ? "" : `${error} Trying again.`);
    show(problem, error !== null);
    show(add, mayAdminister(caller));
  });
  store.watch((s) => [s.route.view, s.environment, s.held?.revision], (view, environment) => {
    if (view === "webhooks" && environment !== null) queueMicrotask(() => work()?.refresh());
  });
  store.watch((s) => [s.environment, s.caller], () => {
    form.reset();
    show(form.node, false);
    setAttr(add, "aria-expanded", "false");
  });
  return el("section", { class: "card webhooks", "aria-labelledby": "webhooks-title" },
    el("div", { class: "card-head" }, el("h2", { id: "webhooks-title", text: "Webhooks" }), total, el("span", { class: "spacer" }), add),
    form.node, problem, sentence, list);
}

function explain(items, caller) {
  if (items === null) return "Loading…";
  return mayAdminister(caller) ? EMPTY : `${EMPTY} Ask an admin to add one.`;
}
