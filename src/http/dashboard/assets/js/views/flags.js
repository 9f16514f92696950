// The flags of the environment: states as every client reads them, joined with the descriptions
// and tags that the management API knows.

import { el, keyed, setAttr, setText, show } from "../dom.js";
import { count } from "../format.js";
import { mayEdit } from "../state.js";
import { featureForm } from "./feature-form.js";
import { flagRow } from "./flag-row.js";

/** The flags panel. */
export function flagsView(store, actions) {
  const filter = el("input", {
    type: "search", placeholder: "Filter by key, description or tag", "aria-label": "Filter flags", class: "filter",
    autocomplete: "off", spellcheck: "false", data: { testid: "flag-filter" },
  });
  const create = el("button", {
    type: "button", class: "button primary", text: "New feature", "aria-expanded": "false", "aria-controls": "feature-form",
    data: { testid: "feature-new" },
  });
  const form = featureForm(actions, () => toggleForm(false));
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const list = el("ul", { class: "flag-list", "aria-label": "Flags" });
  const empty = emptyState(() => toggleForm(true));
  const head = headView(store);
  const node = el("section", { class: "card flags", "aria-labelledby": "flags-title" },
    head, el("div", { class: "toolbar" }, filter, create), form.node, problem, list, empty.node);

  function toggleForm(open) {
    show(form.node, open);
    setAttr(create, "aria-expanded", String(open));
    if (open) form.focus();
    else create.focus();
  }
  create.addEventListener("click", () => toggleForm(form.node.hidden));

  function draw(held, details, pending, rowErrors, flashes) {
    const flags = held === null ? [] : join({ held, details, pending, rowErrors, flashes });
    const wanted = filter.value.trim().toLowerCase();
    const shown = flags.filter((flag) => matches(flag, wanted));
    keyed(list, shown, (flag) => flag.key, (flag) => flagRow(flag, store, actions));
    show(list, shown.length > 0);
    empty.update({ loading: held === null, flags: flags.length, shown: shown.length, wanted: filter.value });
  }
  const select = (s) => [s.held, s.details, s.pending, s.rowErrors, s.flashes, s.caller];
  store.watch(select, draw);
  filter.addEventListener("input", () => draw(...select(store.get())));

  store.watch((s) => [s.caller], (caller) => {
    show(create, mayEdit(caller));
    empty.allow(mayEdit(caller));
  });
  store.watch((s) => [s.environment], () => {
    filter.value = "";
    show(form.node, false);
    setAttr(create, "aria-expanded", "false");
  });
  store.watch((s) => [s.readError], (readError) => {
    setText(problem, readError === null ? "" : `${readError} Trying again.`);
    show(problem, readError !== null);
  });
  return node;
}

function headView(store) {
  const total = el("span", { class: "muted" });
  const reads = el("span", { class: "chip", text: "read only" });
  const revision = el("span", { class: "mono", data: { testid: "revision" } });
  const state = el("span", { class: "revision", title: "Grows by one with every change of the environment" }, "revision ", revision);
  store.watch((s) => [s.held, s.caller], (held, caller) => {
    setText(total, held === null ? "" : count(Object.keys(held.flags).length, "flag"));
    setText(revision, held === null ? "" : held.revision);
    show(state, held !== null);
    show(reads, !mayEdit(caller));
  });
  return el("div", { class: "card-head" }, el("h2", { id: "flags-title", text: "Flags" }), total, reads, el("span", { class: "spacer" }), state);
}

function emptyState(openForm) {
  const title = el("p", { class: "empty-title" });
  const text = el("p", { class: "hint" });
  const button = el("button", { type: "button", class: "button primary", text: "Create the first feature", on: { click: openForm } });
  const node = el("div", { class: "empty", data: { testid: "flags-empty" } }, title, text, button);
  let allowed = false;
  function update({ loading, flags, shown, wanted }) {
    show(node, shown === 0);
    show(button, !loading && flags === 0 && allowed);
    if (loading) return write("Loading flags…", "");
    if (flags > 0) return write("Nothing matches", `No flag has “${wanted.trim()}” in its key, description or tags.`);
    const next = allowed
      ? "Create a feature: it becomes a flag in every environment of this project."
      : "Ask an editor to create a feature: it becomes a flag in every environment of this project.";
    return write("No flags yet", next);
  }
  function write(first, second) {
    setText(title, first);
    setText(text, second);
  }
  return { node, update, allow: (yes) => { allowed = yes; } };
}

function join({ held, details, pending, rowErrors, flashes }) {
  return Object.keys(held.flags).sort((a, b) => a.localeCompare(b)).map((key) => ({
    key,
    enabled: held.flags[key].enabled,
    value: held.flags[key].value ?? null,
    description: details?.[key]?.description ?? "",
    tags: details?.[key]?.tags ?? [],
    pending: pending[key] ?? null,
    error: rowErrors[key] ?? null,
    flash: flashes[key],
  }));
}

function matches({ key, description, tags }, wanted) {
  if (wanted === "") return true;
  return [key, description, ...tags].some((text) => text.toLowerCase().includes(wanted));
}
