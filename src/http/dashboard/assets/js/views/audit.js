// The change events of the environment, newest first, with what each one changed.

import { el, keyed, setText, show } from "../dom.js";
import { dayUnlessToday, timeOfDay } from "../format.js";

/** The audit panel. It reads when it is opened and after each new revision. */
export function auditView(store, actions) {
  const list = el("ol", { class: "audit-list", "aria-label": "Change events" });
  const empty = el("p", { class: "hint" });
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const more = el("button", { type: "button", class: "button", text: "Load more", data: { testid: "audit-more" }, on: { click: actions.moreAudit } });
  store.watch((s) => [s.audit], ({ items, cursor, busy, error }) => {
    keyed(list, items ?? [], (entry) => entry.id, auditEntry);
    show(list, Boolean(items?.length));
    setText(empty, items === null ? "Loading…" : "No change yet. Every change of a flag appears here.");
    show(empty, !items?.length && error === null);
    setText(problem, error ?? "");
    show(problem, error !== null);
    show(more, cursor !== null);
    more.disabled = busy;
  });
  store.watch((s) => [s.route.view, s.environment, s.held?.revision], (view, environment) => {
    if (view === "audit" && environment !== null) queueMicrotask(actions.refreshAudit);
  });
  return el("section", { class: "card audit", "aria-labelledby": "audit-title" },
    el("div", { class: "card-head" }, el("h2", { id: "audit-title", text: "Audit" }), el("span", { class: "muted", text: "newest first" })),
    problem, empty, list, el("div", { class: "buttons center" }, more));
}

function auditEntry(entry) {
  const day = dayUnlessToday(entry.at);
  const node = el("li", { data: { testid: "audit-entry", id: entry.id } },
    el("div", { class: "audit-when" },
      el("time", { class: "mono", datetime: entry.at, text: timeOfDay(entry.at).slice(0, 8) }),
      day ? el("span", { class: "muted", text: day }) : null),
    el("div", { class: "audit-what" },
      el("p", {}, el("strong", { class: "mono", text: entry.subject ?? "" }), " ", el("span", { class: "chip", text: entry.action })),
      changeList(entry),
      el("p", { class: "muted", text: [entry.actor, entry.origin].filter(Boolean).join(" from ") })),
    el("span", { class: "audit-revision mono", title: "Revision", text: entry.revision ?? "" }));
  return { node, update: () => {} };
}

function changeList({ before, after }) {
  const changes = fieldsOf(before, after);
  if (changes.length === 0) return null;
  return el("ul", { class: "changes" }, ...changes.map(({ name, old, now }) =>
    el("li", {},
      el("span", { class: "muted", text: name }), " ",
      ...(old === undefined ? [] : [el("del", { class: "mono", text: asText(old), title: asText(old) })]),
      ...(old === undefined || now === undefined ? [] : [el("span", { class: "arrow", "aria-label": "became", text: "→" })]),
      ...(now === undefined ? [] : [el("ins", { class: "mono", text: asText(now), title: asText(now) })]),
    )));
}

function fieldsOf(before, after) {
  const names = [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])];
  return names
    .map((name) => ({ name, old: before?.[name], now: after?.[name] }))
    .filter(({ old, now }) => JSON.stringify(old) !== JSON.stringify(now));
}

function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}
