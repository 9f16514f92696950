// How endpoints, deliveries and attempts are put into words.

import { count, duration, moment } from "./format.js";

/** Where an endpoint stands: `{kind, text}`; the kind is the colour. */
export function statusOf(webhook) {
  const { status, failing_since: since, stopped_at: stopped } = webhook;
  if (status === "failing") return { kind: status, text: `failing since ${moment(since)}` };
  if (status === "failed") return { kind: status, text: `failed, no success since ${moment(since)}` };
  if (status === "stopped") return { kind: status, text: `stopped, it answered 410 at ${moment(stopped)}` };
  if (status === "healthy" && webhook.last_attempt_at === null) return { kind: "new", text: "not tried yet" };
  return { kind: status, text: status };
}

/** What happens next to an endpoint that is not well; empty if it is. */
export function adviceOf({ status, pending }) {
  if (status === "failed") return "It is probed now and then. What it misses is told once it answers again.";
  if (status === "stopped") return "Nothing more is sent to it until somebody resumes it.";
  if (status === "paused" && pending > 0) return "What waits is sent once somebody resumes it.";
  return "";
}

/** How far behind an endpoint is. */
export function behindOf({ applied_revision: applied, delivered_revision: delivered, behind }) {
  if ((applied ?? delivered) === null) return "nothing confirmed yet";
  return behind === 0 ? "up to date" : count(behind, "revision");
}

/** How a test went: `{ok, text, answer}`. */
export function testResult({ state, log }) {
  const attempt = log[log.length - 1];
  if (attempt === undefined) return { ok: false, text: "The test is still under way. Look at the deliveries.", answer: "" };
  const ok = state === "delivered";
  const after = `after ${duration(attempt.duration_ms)}`;
  const text = ok
    ? `The test was delivered: status ${attempt.status} ${after}.`
    : `The test failed ${after} (${attempt.outcome}): ${attempt.error}.`;
  return { ok, text, answer: attempt.answer };
}

/** What a delivery tells. */
export function deliveryText({ kind, revision, changed, event_id: event }) {
  if (kind === "test") return `test at revision ${revision}`;
  const what = kind === "event" ? `event ${event} at revision ${revision}` : `revision ${revision}`;
  return changed.length === 0 ? what : `${what}: ${changed.join(", ")}`;
}

/** How often a delivery was attempted and when it is again. */
export function attemptsText({ attempts, state, next_attempt_at: next }) {
  const made = attempts === 0 ? "not attempted yet" : count(attempts, "attempt");
  if (state !== "pending") return made;
  return next === null ? `${made}, waits for those before it` : `${made}, next ${moment(next)}`;
}
