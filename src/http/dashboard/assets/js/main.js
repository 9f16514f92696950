// Starts the page and owns what spans environments: signing in, the pickers' lists, and which
// environment is open. Everything else is a view of the store or part of an open environment.

import { createApi, environmentPath, path } from "./api.js";
import { openEnvironment } from "./environment.js";
import { readRoute, routeHash } from "./route.js";
import { BLANK_ENVIRONMENT, INITIAL, createStore } from "./state.js";
import { dropToken, keepToken, takeToken } from "./token.js";
import { mountShell } from "./views/shell.js";

const store = createStore({ ...INITIAL, ...BLANK_ENVIRONMENT });
let api = null;
let opened = null; // the open environment: {project, key, work}
let turn = 0; // grows with every navigation, so that a slow answer cannot undo a later one

const actions = {
  signIn,
  signOut: () => leave(null),
  go: (route) => {
    location.hash = routeHash({ ...store.get().route, ...route });
  },
  dismissNotice: () => store.set({ notice: null }),
  createPlace,
  setEnabled: (key, enabled) => opened?.work.setEnabled(key, enabled),
  setValue: (key, value) => opened?.work.setValue(key, value),
  createFeature: (feature) => opened?.work.createFeature(feature),
  refreshAudit: () => opened?.work.refreshAudit(),
  moreAudit: () => opened?.work.moreAudit(),
  webhooks: () => opened?.work.webhooks,
};

async function signIn(token) {
  store.set({ signIn: { busy: true, error: null } });
  const candidate = createApi(token, (error) => {
    if (candidate === api) leave(`You were signed out. ${error.message}`);
  });
  try {
    const caller = await candidate.get("/token");
    const projects = await readProjects(candidate, caller);
    closeEnvironment();
    api = candidate;
    keepToken(token);
    store.set({ token, caller, projects, signIn: { busy: false, error: null } });
    await navigate();
  } catch (error) {
    const wrong = error.status === 401;
    if (wrong) dropToken();
    const message = wrong
      ? "This token is not valid. Check that it is complete and has not been revoked."
      : error.message;
    store.set({ signIn: { busy: false, error: message } });
  }
}

function leave(message) {
  dropToken();
  closeEnvironment();
  api = null;
  store.set({ ...INITIAL, signIn: { busy: false, error: message } });
}

/** Follows the address bar: reads the lists it needs and opens the environment it names. */
async function navigate() {
  if (api === null) return;
  const mine = (turn += 1);
  const asked = readRoute();
  const { projects, caller } = store.get();
  const project = find(projects, asked.project);
  if (project === null) {
    store.set({ environments: [], route: { project: null, environment: null, view: asked.view } });
    return;
  }
  const environments = await environmentsOf(project.key, caller);
  if (mine !== turn || environments === null) return;
  const environment = find(environments, asked.environment);
  const route = { project: project.key, environment: environment?.key ?? null, view: asked.view };
  store.set({ environments, route, notice: missing(asked, route) ?? store.get().notice });
  history.replaceState(null, "", routeHash(route));
  if (environment === null) closeEnvironment();
  else open(project.key, environment);
}

async function environmentsOf(project, caller) {
  const { route, environments } = store.get();
  if (route.project === project && environments?.length) return environments;
  try {
    return await readEnvironments(api, caller, project);
  } catch (error) {
    if (api !== null) store.set({ notice: { kind: "error", text: error.message } });
    return null;
  }
}

function open(project, environment) {
  if (opened?.project === project && opened.key === environment.client_key) return;
  closeEnvironment();
  store.set({ environment });
  const work = openEnvironment({ api, store, project, environment });
  opened = { project, key: environment.client_key, work };
}

function closeEnvironment() {
  opened?.work.close();
  opened = null;
  store.set(BLANK_ENVIRONMENT);
}

// A token with a scope may not list what lies outside it; then the scope itself is the list.

function readProjects(client, { project }) {
  if (project === null) return client.list("/projects");
  return readOnly(client, path("projects", project), { key: project, name: project });
}

function readEnvironments(client, { environment }, project) {
  if (environment === null) return client.list(`${path("projects", project)}/environments`);
  return readOnly(client, environmentPath(project, environment), null);
}

async function readOnly(client, target, fallback) {
  try {
    return [await client.get(target)];
  } catch (error) {
    if (error.status === 403 && fallback !== null) return [fallback];
    throw error;
  }
}

/** Creates a project (when named) and an environment in it, and goes there. */
async function createPlace({ project, environment }) {
  const target = project ?? store.get().route.project;
  try {
    if (project !== null) await createUnlessThere("/projects", { key: project, name: project });
    const made = await api.post(`${path("projects", target)}/environments`, {
      key: environment,
      name: environment,
    });
    store.set({
      projects: await readProjects(api, store.get().caller),
      environments: null,
      notice: {
        kind: "secret",
        text: `Environment ${environment} is ready. This is its server key; it is shown only once.`,
        secret: made.server_key,
      },
    });
    history.replaceState(null, "", routeHash({ project: target, environment, view: "flags" }));
    await navigate();
    return null;
  } catch (error) {
    return error.message;
  }
}

async function createUnlessThere(target, body) {
  try {
    await api.post(target, body);
  } catch (error) {
    if (error.code !== "already_exists") throw error;
  }
}

function find(list, key) {
  return list.find((item) => item.key === key) ?? list[0] ?? null;
}

function missing(asked, route) {
  const other = (name, wanted, got) =>
    wanted !== null && wanted !== got
      ? { kind: "error", text: `There is no ${name} “${wanted}” here${got ? `, so this is “${got}”` : ""}.` }
      : null;
  return (
    other("project", asked.project, route.project) ??
    other("environment", asked.environment, route.environment)
  );
}

function start() {
  mountShell(document.getElementById("app"), store, actions);
  const token = takeToken();
  if (token !== null) signIn(token);
  addEventListener("hashchange", () => {
    if (location.hash.startsWith("#token=")) signIn(takeToken());
    else navigate();
  });
}

start();
