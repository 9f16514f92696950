// The frame of the page: header with pickers, connection state and token menu, the navigation,
// and the place where one view is shown. All views are built once and stay; only the ones that the
// route names are visible, so switching does not flicker.

import { copyButton, el, keyed, setAttr, setText, show, svg } from "../dom.js";
import { LIVE_VIEWS, VIEWS, routeHash } from "../route.js";
import { auditView } from "./audit.js";
import { flagsView } from "./flags.js";
import { connectCard, listenersCard } from "./listeners.js";
import { pingsCard, serverPingsCard } from "./pings.js";
import { setupView } from "./setup.js";
import { signInView } from "./sign-in.js";
import { webhooksView } from "./webhooks.js";

const CONNECTION_TEXT = { connecting: "connecting", open: "live", reconnecting: "reconnecting" };

/** Builds the page into `root`. */
export function mountShell(root, store, actions) {
  const pickers = pickersView(store, actions);
  const connection = connectionView(store);
  const menu = tokenMenu(store, actions);
  const header = el("header", { class: "top" },
    el("div", { class: "top-inner" }, brand(), pickers, el("div", { class: "spacer" }), connection, menu),
  );
  const nav = navigation(store);
  const main = mainView(store, actions);
  const signIn = signInView(store, actions);
  root.append(header, nav, noticeView(store, actions), signIn, main, announcer(store));

  store.watch((s) => [s.token, s.environment, s.projects], (token, environment, projects) => {
    show(signIn, token === null);
    show(main, token !== null);
    show(pickers, token !== null && Boolean(projects?.length));
    show(menu, token !== null);
    show(connection, environment !== null);
    show(nav, environment !== null);
    document.title = environment === null ? "Flagcast" : `${environment.name} · Flagcast`;
  });
}

function brand() {
  const logo = svg("svg", { viewBox: "0 0 32 32", class: "logo", "aria-hidden": "true" },
    svg("rect", { width: 32, height: 32, rx: 8 }),
    svg("path", { d: "M10 7v18", class: "pole" }),
    svg("path", { d: "M10 8h8.2l-2 3.7 2 3.7H10z", class: "cloth" }),
    svg("path", { d: "M20.6 9.3a5 5 0 0 1 0 4.8M23.6 7.4a9 9 0 0 1 0 8.6", class: "waves" }),
  );
  return el("h1", { class: "brand" }, logo, el("span", { text: "Flagcast" }));
}

function pickersView(store, actions) {
  const project = picker("Project", "project-select", (key) => actions.go({ project: key, environment: null }));
  const environment = picker("Environment", "environment-select", (key) => actions.go({ environment: key }));
  store.watch((s) => [s.projects, s.route], (projects, route) => project.update(projects, route.project));
  store.watch((s) => [s.environments, s.route], (environments, route) =>
    environment.update(environments, route.environment));
  return el("div", { class: "pickers" }, project.node, el("span", { class: "slash", "aria-hidden": "true", text: "/" }), environment.node);
}

function picker(label, testid, choose) {
  const select = el("select", { "aria-label": label, data: { testid } });
  select.addEventListener("change", () => choose(select.value));
  const node = el("span", { class: "picker" }, select);
  const option = (item) => {
    const choice = el("option", { value: item.key });
    return { node: choice, update: (next) => setText(choice, next.name) };
  };
  function update(items, chosen) {
    keyed(select, items ?? [], (item) => item.key, option);
    if (chosen !== null && select.value !== chosen) select.value = chosen;
    select.disabled = !items?.length;
  }
  return { node, update };
}

function connectionView(store) {
  const text = el("span", { class: "connection", role: "status", data: { testid: "connection-state" } });
  store.watch((s) => [s.connection, s.environment], (connection) => {
    setAttr(text, "data-state", connection);
    setText(text, CONNECTION_TEXT[connection]);
  });
  // The dot beats once per ping.
  store.watch((s) => [s.log.pings[0]?.revision], (revision) => {
    if (revision !== undefined) setAttr(text, "data-beat", revision % 2 ? "odd" : "even");
  });
  return text;
}

function tokenMenu(store, actions) {
  const name = el("span", { class: "token-name" });
  const role = el("span", { class: "chip" });
  const button = el("button", {
    type: "button", class: "button quiet token-button", "aria-expanded": "false", "aria-controls": "token-menu",
    "aria-label": "Token", data: { testid: "token-menu" },
  }, name, role);
  const facts = el("dl", { class: "facts" });
  const out = el("button", {
    type: "button", class: "button wide", text: "Sign out", data: { testid: "sign-out" }, on: { click: actions.signOut },
  });
  const sheet = el("div", { id: "token-menu", class: "menu-sheet", hidden: true }, facts, out);
  const node = el("div", { class: "menu" }, button, sheet);

  const toggle = (open) => {
    show(sheet, open);
    setAttr(button, "aria-expanded", String(open));
  };
  button.addEventListener("click", () => toggle(sheet.hidden));
  document.addEventListener("click", (event) => node.contains(event.target) || toggle(false));
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || sheet.hidden) return;
    toggle(false);
    button.focus();
  });

  store.watch((s) => [s.caller], (caller) => {
    toggle(false);
    if (caller === null) return;
    setText(name, caller.name);
    setText(role, caller.role);
    facts.replaceChildren(
      ...fact("Token", caller.name),
      ...fact("Role", caller.role),
      ...fact("Reaches", [caller.project ?? "all projects", caller.environment].filter(Boolean).join(" / ")),
    );
  });
  return node;
}

function fact(term, text) {
  return [el("dt", { text: term }), el("dd", { text })];
}

function navigation(store) {
  const links = VIEWS.map(({ key, title }) => ({ key, node: el("a", { text: title, data: { testid: `nav-${key}` } }) }));
  store.watch((s) => [s.route], (route) => {
    for (const { key, node } of links) {
      if (route.environment !== null) setAttr(node, "href", routeHash({ ...route, view: key }));
      setAttr(node, "aria-current", route.view === key ? "page" : null);
    }
  });
  return el("nav", { class: "tabs", "aria-label": "Views" },
    el("div", { class: "tabs-inner" }, ...links.map(({ node }) => node)));
}

function mainView(store, actions) {
  const setup = setupView(store, actions);
  const flags = flagsView(store, actions);
  const live = el("div", { class: "live" },
    listenersCard(store), pingsCard(store), connectCard(store), serverPingsCard(store));
  const webhooks = webhooksView(store, actions);
  const audit = auditView(store, actions);
  const loading = el("p", { class: "loading", text: "Loading…" });
  const main = el("main", {}, loading, setup, flags, live, webhooks, audit);
  store.watch((s) => [s.route, s.environment, s.environments], ({ view }, environment, environments) => {
    const there = environment !== null;
    setAttr(main, "data-view", there ? view : "setup");
    show(loading, !there && environments === null);
    show(setup, !there && environments !== null);
    show(flags, there && view === "flags");
    show(live, there && LIVE_VIEWS.includes(view));
    show(webhooks, there && view === "webhooks");
    show(audit, there && view === "audit");
  });
  return main;
}

function noticeView(store, actions) {
  const text = el("p");
  const secret = el("code", { class: "secret" });
  const copy = copyButton(() => secret.textContent);
  const close = el("button", { type: "button", class: "button small", text: "Dismiss", on: { click: actions.dismissNotice } });
  const node = el("div", { class: "notice", role: "status" }, text, secret, copy, close);
  store.watch((s) => [s.notice], (notice) => {
    show(node, notice !== null);
    if (notice === null) return setText(secret, "");
    setAttr(node, "data-kind", notice.kind);
    setText(text, notice.text);
    setText(secret, notice.secret ?? "");
    show(secret, Boolean(notice.secret));
    show(copy, Boolean(notice.secret));
  });
  return node;
}

// Tells screen readers of new pings, at most about one a second.
function announcer(store) {
  const node = el("p", { class: "sr-only", role: "status", "aria-live": "polite", data: { testid: "announcement" } });
  let timer = null;
  store.watch((s) => [s.announcement], (announcement) => {
    if (announcement === "" || timer !== null) return;
    timer = setTimeout(() => {
      timer = null;
      setText(node, store.get().announcement);
    }, 1000);
  });
  return node;
}
