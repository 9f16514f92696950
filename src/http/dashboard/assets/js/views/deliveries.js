// The log of a webhook: what it is owed and was told, attempt by attempt. What an endpoint answered
// is somebody else's text and is shown as text.

import { el, keyed, setAttr, setText, show } from "../dom.js";
import { count, duration, moment } from "../format.js";
import { attemptsText, deliveryText } from "../webhook-words.js";

const STATES = [
  { key: "", title: "All deliveries" },
  { key: "pending", title: "Waiting" },
  { key: "delivered", title: "Delivered" },
  { key: "failed", title: "Failed" },
  { key: "dropped", title: "Dropped" },
];

/** The log of a webhook; `update` takes the state of the log. */
export function deliveriesLog(id, webhook, work) {
  const filter = el("select", { "aria-label": "Which deliveries", data: { testid: "delivery-filter" } },
    ...STATES.map(({ key, title }) => el("option", { value: key, text: title })));
  filter.addEventListener("change", () => work().filter(filter.value));
  const recover = recoverForm(id, webhook, work);
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const empty = el("p", { class: "hint", data: { testid: "deliveries-empty" } });
  const list = el("ol", { class: "delivery-list", "aria-label": "Deliveries, newest first" });
  const more = el("div", { class: "buttons center" },
    el("button", { type: "button", class: "button small", text: "Load more", on: { click: () => work().more() } }));
  const node = el("section", { class: "deliveries", "aria-label": `Deliveries to ${webhook.url}`, data: { testid: "deliveries" } },
    el("div", { class: "deliveries-head" }, el("span", { class: "picker" }, filter), recover.node),
    problem, empty, list, more);

  function update(log) {
    const { items, opened, error } = log;
    const rows = (items ?? []).map((delivery) => ({ delivery, opened: opened[delivery.id] ?? null }));
    keyed(list, rows, ({ delivery }) => delivery.id, (row) => deliveryRow(row, work));
    if (filter.value !== log.state) filter.value = log.state;
    show(list, rows.length > 0);
    setText(empty, items === null ? "Loading…" : log.state === "" ? "No delivery yet. The next change of a flag is told." : "None is in this state.");
    show(empty, rows.length === 0 && error === null);
    setText(problem, error ?? "");
    show(problem, error !== null);
    show(more, log.more);
    recover.update(log.recovered);
  }
  return { node, update };
}

/** Puts events back that failed or were dropped. States need no such thing: the newest is told anyway. */
function recoverForm(id, { mode, failing_since: failing, created_at: created }, work) {
  const since = el("input", {
    id: `recover-${id}`, type: "datetime-local", step: "1", required: true, value: localTime(failing ?? created),
    data: { testid: "recover-since" },
  });
  const submit = el("button", { type: "submit", class: "button small", text: "Recover", data: { testid: "recover-submit" } });
  const said = el("p", { class: "hint", role: "status", data: { testid: "recovered" } });
  const node = el("form", { class: "recover", hidden: mode !== "events" },
    el("label", { for: `recover-${id}`, text: "Send again what failed since" }), since, submit, said);
  node.addEventListener("submit", (event) => {
    event.preventDefault();
    work().recover(new Date(since.value).toISOString());
  });
  function update(recovered) {
    const nothing = "No event failed or was dropped since then.";
    setText(said, recovered === null ? "" : recovered === 0 ? nothing : `${count(recovered, "event")} put back into the queue.`);
    show(said, recovered !== null);
  }
  return { node, update };
}

/** A time as the input wants it: local, to the second below. */
function localTime(at) {
  const date = new Date(at);
  const shifted = new Date(date.getTime() - date.getTimezoneOffset() * 60000);
  return shifted.toISOString().slice(0, 19);
}

function deliveryRow({ delivery: { id } }, work) {
  const state = el("span", { class: "status", data: { testid: "delivery-state" } });
  const what = el("span", { class: "delivery-what" });
  const facts = el("span", { class: "delivery-facts muted" });
  const toggle = el("button", { type: "button", class: "delivery-toggle", "aria-expanded": "false", data: { testid: "delivery-toggle" }, on: { click: () => work().toggle(id) } },
    state, what, facts);
  const again = el("button", { type: "button", class: "button small", text: "Redeliver", data: { testid: "redeliver" }, on: { click: () => work().redeliver(id) } });
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const log = el("ol", { class: "attempt-list", "aria-label": "Attempts" });
  const none = el("p", { class: "hint" });
  const body = el("div", { class: "delivery-body", hidden: true }, none, log);
  const node = el("li", { class: "delivery", data: { testid: "delivery", id } },
    el("div", { class: "delivery-head" }, toggle, again), problem, body);

  function update({ delivery, opened }) {
    const detail = opened?.detail ?? null;
    setAttr(state, "data-status", delivery.state);
    setText(state, delivery.state === "pending" ? "waiting" : delivery.state);
    setText(what, deliveryText(delivery));
    setText(facts, `${moment(delivery.at)} · ${attemptsText(delivery)}`);
    setAttr(toggle, "aria-expanded", String(opened !== null));
    setAttr(again, "aria-label", `Redeliver ${deliveryText(delivery)}`);
    setAttr(again, "aria-disabled", opened?.busy ? "true" : null);
    setText(again, opened?.busy ? "Sending…" : "Redeliver");
    setText(problem, opened?.error ?? "");
    show(problem, Boolean(opened?.error));
    show(body, opened !== null);
    const attempts = (detail?.log ?? []).map((attempt, i) => ({ ...attempt, key: `${attempt.at} ${i}` }));
    keyed(log, attempts, ({ key }) => key, attemptItem);
    setText(none, detail === null ? "Loading…" : "Not attempted yet.");
    show(none, attempts.length === 0 && !opened?.error);
  }
  return { node, update };
}

function attemptItem(attempt) {
  const { at, outcome, status, duration_ms: ms, error, answer, applied_revision: applied } = attempt;
  const words = [status === null ? "no answer" : `status ${status}`, duration(ms)];
  if (applied !== null) words.push(`applied revision ${applied}`);
  const node = el("li", { class: "attempt", data: { testid: "attempt" } },
    el("p", {},
      el("time", { class: "mono", datetime: at, text: moment(at) }), " ",
      el("span", { class: "status", data: { status: outcome === "delivered" ? "delivered" : "failed" }, text: outcome }), " ",
      el("span", { class: "muted", text: words.join(" · ") })),
    error === "" ? null : el("p", { class: "problem", text: error }),
    // It can be scrolled, so it can be reached by keyboard.
    answer === "" ? null : el("pre", { class: "answer", tabindex: "0", "aria-label": "Answer of the endpoint", data: { testid: "attempt-answer" }, text: answer }));
  return { node, update: () => {} };
}
