// What is shown while there is no environment to show: the next step, as a form for those who may
// take it.

import { el, setText, show } from "../dom.js";

/** The empty state of a server without projects or a project without environments. */
export function setupView(store, actions) {
  const title = el("h2");
  const text = el("p", { class: "hint" });
  const project = field("setup-project", "Project key", "web");
  const environment = field("setup-environment", "Environment key", "production");
  const submit = el("button", { type: "submit", class: "button primary wide", text: "Create" });
  const error = el("p", { class: "problem", role: "alert", hidden: true });
  const form = el("form", {}, project.node, environment.node, error, submit);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    const needsProject = store.get().route.project === null;
    const problem = await actions.createPlace({
      project: needsProject ? project.input.value.trim() : null,
      environment: environment.input.value.trim(),
    });
    submit.disabled = false;
    setText(error, problem ?? "");
    show(error, problem !== null);
  });

  store.watch((s) => [s.route, s.caller], (route, caller) => {
    const needsProject = route.project === null;
    const admin = caller?.role === "admin";
    setText(title, needsProject ? "No project yet" : "No environment yet");
    setText(text, explain(needsProject, admin));
    show(project.node, needsProject);
    project.input.required = needsProject;
    show(form, admin);
  });
  return el("section", { class: "card setup" }, title, text, form);
}

function explain(needsProject, admin) {
  const what = needsProject ? "A project holds features, and an environment holds their flags" : "An environment holds the flags of a project";
  return admin ? `${what}. Name them to begin.` : `${what}. Ask an admin to create one.`;
}

function field(id, label, value) {
  const input = el("input", {
    id, value, required: true, spellcheck: "false", autocapitalize: "off", autocomplete: "off",
    pattern: "[a-z0-9][a-z0-9_\\-]*", title: "Lower-case letters, digits, - and _",
  });
  return { input, node: el("div", { class: "field" }, el("label", { for: id, text: label }), input) };
}
