// One webhook: where it stands, what can be done to it, and its log when that is open.

import { copyButton, el, setAttr, setText, show } from "../dom.js";
import { moment } from "../format.js";
import { adviceOf, behindOf, statusOf } from "../webhook-words.js";
import { deliveriesLog } from "./deliveries.js";

const ROTATE = "Make a new secret? The present one goes on signing beside it for a day, so that receivers can be given the new one.";
const ROTATE_AGAIN = "Make another secret? A rotation is under way: the secret before the present one stops signing at once.";
const DELETE = "Delete this webhook? What it was still to be told is dropped, and its log is gone.";

/** A row; `update` takes `{webhook, note, log, administers}`. `afterDelete` finds a place for the focus. */
export function webhookRow({ webhook: { id } }, work, afterDelete) {
  const head = headView();
  const facts = factsView();
  const controls = controlsView(id, work, afterDelete);
  const secret = secretBox(() => work().forgetSecret(id));
  const result = resultView();
  const place = el("div", { class: "deliveries-place" });
  const node = el("li", { class: "webhook", data: { testid: "webhook-row", id } },
    head.node, facts.node, secret.node, el("div", {}, controls.node, result.node), place);

  let log = null;
  function updateLog(state, webhook) {
    if (state === null) {
      log?.node.remove();
      log = null;
      return;
    }
    log ??= deliveriesLog(id, webhook, () => work().log);
    if (!log.node.isConnected) place.append(log.node);
    log.update(state);
  }
  function update({ webhook, note, log: state, administers }) {
    head.update(webhook);
    facts.update(webhook);
    controls.update(webhook, note, administers, state !== null);
    secret.update(note.secret ?? null, webhook);
    result.update(note);
    updateLog(state, webhook);
  }
  return { node, update };
}

function headView() {
  const url = el("h3", { class: "webhook-url mono", data: { testid: "webhook-url" } });
  const mode = el("span", { class: "chip", data: { testid: "webhook-mode" } });
  const format = el("span", { class: "chip" });
  const events = el("span", { class: "chip wrap" });
  const status = el("span", { class: "status", data: { testid: "webhook-status" } });
  const description = el("p", { class: "flag-description" });
  const advice = el("p", { class: "hint" });
  const error = el("p", { class: "problem", data: { testid: "webhook-error" } });
  const node = el("div", { class: "webhook-head" },
    el("div", { class: "webhook-title" }, url, el("span", { class: "tags" }, mode, format, events)), description,
    el("p", {}, status), error, advice);
  function update(webhook) {
    const { kind, text } = statusOf(webhook);
    setText(url, webhook.url);
    setText(mode, webhook.mode);
    setText(format, webhook.format);
    show(format, webhook.format !== "flagcast");
    setText(events, webhook.events.join(", "));
    show(events, webhook.events.length > 0);
    setText(description, webhook.description);
    show(description, webhook.description !== "");
    setAttr(status, "data-status", kind);
    setText(status, text);
    setText(error, `Last error: ${webhook.last_error}`);
    show(error, webhook.last_error !== "");
    setText(advice, adviceOf(webhook));
    show(advice, advice.textContent !== "");
  }
  return { node, update };
}

function factsView() {
  const values = new Map();
  const fact = (name, testid) => {
    const value = el("dd", { data: { testid } });
    values.set(testid, value);
    return el("div", {}, el("dt", { text: name }), value);
  };
  const dropped = fact("Dropped", "webhook-dropped");
  const node = el("dl", { class: "webhook-facts" },
    fact("Confirmed", "webhook-delivered"), fact("Applied", "webhook-applied"), fact("Behind", "webhook-behind"),
    fact("Waiting", "webhook-pending"), dropped, fact("Last attempt", "webhook-attempt"));
  function update(webhook) {
    const { delivered_revision: delivered, applied_revision: applied, last_attempt_at: at } = webhook;
    const write = (testid, text) => setText(values.get(testid), text);
    write("webhook-delivered", delivered === null ? "–" : `revision ${delivered}`);
    write("webhook-applied", applied !== null ? `revision ${applied}` : delivered === null ? "–" : "it does not say");
    write("webhook-behind", behindOf(webhook));
    write("webhook-pending", webhook.pending);
    write("webhook-dropped", webhook.dropped);
    write("webhook-attempt", at === null ? "none yet" : `${moment(at)}, ${webhook.last_outcome ?? "under way"}`);
    setAttr(values.get("webhook-behind"), "data-behind", webhook.behind > 0);
    show(dropped, webhook.dropped > 0);
  }
  return { node, update };
}

function controlsView(id, work, afterDelete) {
  const log = button("Deliveries", "webhook-log");
  const test = button("Test", "webhook-test");
  const pause = button("Pause", "webhook-pause");
  const rotate = button("Rotate secret", "webhook-rotate");
  const remove = button("Delete", "webhook-delete");
  const question = questionView();
  const node = el("div", {}, el("div", { class: "buttons wrap" }, log, test, pause, rotate, remove), question.node);

  let shown;
  let isOpen = false;
  let busy = null;
  log.addEventListener("click", () => work().log.open(isOpen ? null : id));
  test.addEventListener("click", () => work().test(id));
  pause.addEventListener("click", () => work().pause(id, !isResting(shown)));
  rotate.addEventListener("click", () => {
    question.ask(rotate, shown.rotating ? ROTATE_AGAIN : ROTATE, "Make a new secret", () => work().rotate(id));
  });
  remove.addEventListener("click", () => question.ask(remove, DELETE, "Delete webhook", async () => {
    await work().remove(id);
    if (!node.isConnected) afterDelete();
  }));
  function update(webhook, note, administers, logIsOpen) {
    shown = webhook;
    isOpen = logIsOpen;
    busy = note.busy ?? null;
    setAttr(log, "aria-expanded", String(isOpen));
    setText(test, busy === "test" ? "Testing…" : "Test");
    setText(pause, isResting(webhook) ? "Resume" : "Pause");
    for (const one of [test, pause, rotate, remove]) setAttr(one, "aria-disabled", busy === null ? null : "true");
    for (const one of [pause, rotate, remove]) show(one, administers);
  }
  return { node, update };
}

/** Whether nothing is sent to it until somebody resumes it. */
function isResting({ status }) {
  return status === "paused" || status === "stopped";
}

function button(text, testid) {
  return el("button", { type: "button", class: "button small", text, data: { testid } });
}

/** Asks before something that cannot be taken back. */
function questionView() {
  const text = el("p");
  const yes = el("button", { type: "button", class: "button small danger", data: { testid: "webhook-confirm" } });
  const no = el("button", { type: "button", class: "button small", text: "Cancel", data: { testid: "webhook-cancel" } });
  const node = el("div", { class: "question", role: "group", "aria-label": "Confirm", hidden: true }, text, el("div", { class: "buttons" }, yes, no));
  let asker = null;
  let go = null;
  function close() {
    show(node, false);
    asker?.focus();
  }
  function ask(from, words, label, act) {
    asker = from;
    go = act;
    setText(text, words);
    setText(yes, label);
    show(node, true);
    no.focus();
  }
  no.addEventListener("click", close);
  yes.addEventListener("click", () => {
    close();
    go();
  });
  node.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  return { node, ask };
}

/** A new secret, until somebody says that it is kept. */
function secretBox(forget) {
  const code = el("code", { class: "secret", data: { testid: "webhook-secret" } });
  const words = el("p");
  const copy = copyButton(() => code.textContent);
  const done = el("button", { type: "button", class: "button small", text: "I have kept it", data: { testid: "webhook-secret-kept" }, on: { click: forget } });
  const node = el("div", { class: "secret-box", role: "group", "aria-label": "Secret of the webhook", hidden: true }, words, code, el("div", { class: "buttons" }, copy, done));
  let held = null;
  function update(secret, webhook) {
    if (secret === held) return;
    held = secret;
    setText(code, secret ?? "");
    show(node, secret !== null);
    if (secret === null) return;
    setText(words, webhook.rotating
      ? "The new secret. Give it to the receiver; the one before it signs beside it for a day. It is shown only once."
      : "The secret of this webhook. Give it to the receiver, which checks the signatures with it. It is shown only once.");
    // The row may be new: the focus can go there once it is in the page.
    setTimeout(() => {
      copy.focus();
      node.scrollIntoView({ block: "nearest" });
    });
  }
  return { node, update };
}

/** How the last thing that was done to it went. */
function resultView() {
  const text = el("p", { data: { testid: "webhook-said" } });
  const answer = el("pre", { class: "answer", tabindex: "0", "aria-label": "Answer of the endpoint", data: { testid: "webhook-answer" } });
  const said = el("div", { class: "said", role: "status" }, text, answer);
  const error = el("p", { class: "problem", role: "alert", data: { testid: "webhook-problem" } });
  // It takes no place while it is empty, but is there to be announced from.
  const node = el("div", { class: "result" }, said, error);
  function update({ said: result, error: problem }) {
    setText(text, result?.text ?? "");
    setAttr(text, "class", result && !result.ok ? "problem" : null);
    setText(answer, result?.answer ?? "");
    show(answer, Boolean(result?.answer));
    show(text, Boolean(result));
    setText(error, problem ?? "");
    show(error, Boolean(problem));
  }
  return { node, update };
}
