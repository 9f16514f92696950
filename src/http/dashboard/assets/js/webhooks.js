// The webhooks of the open environment: who is told of changes and how that goes, the log of one
// endpoint, and what is done to them here. It reads only while their view is shown.

import { path } from "./api.js";
import { BLANK_LOG, mayEdit, without } from "./state.js";
import { coalesced, poll } from "./timing.js";
import { testResult } from "./webhook-words.js";

const EVERY_MS = 3000;
const GAP_MS = 300;
const LOG_PAGE = 30;
const LIMIT_MOST = 200; // rows that the API gives at a time

/** Starts the work below the API path `base`. `set` changes the store until `signal` aborts. */
export function openWebhooks({ api, store, set, base, signal }) {
  const list = `${base}/webhooks`;
  const target = (id, ...rest) => `${list}${path(String(id), ...rest.map(String))}`;
  let changes = 0; // grows with every change made here, so that an older answer cannot undo it

  const read = coalesced(async () => {
    if (!isShown()) return;
    const before = changes;
    try {
      const items = await api.list(list, { signal });
      if (before === changes) set({ webhooks: { items, error: null } });
    } catch (error) {
      if (error.name === "AbortError") return;
      set(({ webhooks }) => ({ webhooks: { ...webhooks, error: error.message } }));
    }
    await log.read();
  }, GAP_MS, signal);

  const log = openLog({ api, store, set, target, signal, read });
  poll(read, EVERY_MS, isShown, signal);

  function isShown() {
    const { route, caller } = store.get();
    // Viewers are refused: a URL can be a secret of its own.
    return document.visibilityState === "visible" && route.view === "webhooks" && mayEdit(caller);
  }

  /** Adds to what is known of what was done here to an endpoint. */
  function note(id, more) {
    set(({ webhookNotes }) => ({
      webhookNotes: { ...webhookNotes, [id]: { ...webhookNotes[id], ...more } },
    }));
  }

  /** Puts what the API answered with in the place of what was held. */
  function replace({ secret: _, ...webhook }) {
    changes += 1;
    set(({ webhooks }) => {
      const held = webhooks.items ?? [];
      const known = held.some(({ id }) => id === webhook.id);
      const items = known ? held.map((item) => (item.id === webhook.id ? webhook : item)) : [...held, webhook];
      return { webhooks: { items, error: null } };
    });
  }

  /** Does `task`, which answers with what to note, if anything. `busy` names it while it lasts. */
  async function act(id, busy, task) {
    if (store.get().webhookNotes[id]?.busy) return;
    note(id, { busy, error: null, said: null });
    try {
      const noted = await task();
      if (noted) note(id, { busy: null, ...noted });
    } catch (error) {
      if (error.name !== "AbortError") note(id, { busy: null, error: error.message });
    }
    read();
  }

  async function create(wanted) {
    try {
      const made = await api.post(list, wanted, { signal });
      replace(made);
      note(made.id, { secret: made.secret });
      return null;
    } catch (error) {
      return error.name === "AbortError" ? null : error.message;
    }
  }

  async function update(id, change) {
    replace(await api.patch(target(id), change, { signal }));
    return {};
  }

  async function rotate(id) {
    const rotated = await api.post(`${target(id)}/secret:rotate`, {}, { signal });
    replace(rotated);
    return { secret: rotated.secret };
  }

  async function remove(id) {
    await api.delete(target(id), { signal });
    changes += 1;
    set(({ webhooks, webhookNotes, deliveries }) => ({
      webhooks: { items: webhooks.items.filter((item) => item.id !== id), error: null },
      webhookNotes: without(webhookNotes, id),
      deliveries: deliveries.webhook === id ? BLANK_LOG : deliveries,
    }));
  }

  return {
    refresh: read,
    create,
    test: (id) => act(id, "test", async () => ({ said: testResult(await api.post(target(id, "test"), {}, { signal })) })),
    pause: (id, paused) => act(id, "pause", () => update(id, { paused })),
    rotate: (id) => act(id, "rotate", () => rotate(id)),
    remove: (id) => act(id, "delete", () => remove(id)),
    forgetSecret: (id) => note(id, { secret: null }),
    log,
  };
}

/** The log of deliveries of one endpoint at a time. */
function openLog({ api, store, set, target, signal, read }) {
  const held = () => store.get().deliveries;

  /** Changes the log as long as it is still the one of `webhook`. */
  function change(webhook, more) {
    set(({ deliveries }) => {
      if (deliveries.webhook !== webhook) return {};
      return { deliveries: { ...deliveries, ...(typeof more === "function" ? more(deliveries) : more) } };
    });
  }

  function changeOne(webhook, id, more) {
    change(webhook, ({ opened }) => ({ opened: { ...opened, [id]: { ...opened[id], ...more } } }));
  }

  async function readLog() {
    const { webhook, state, wanted } = held();
    if (webhook === null) return;
    try {
      const rows = await upTo(wanted, `${target(webhook)}/deliveries`, state === "" ? {} : { state });
      if (held().state !== state) return;
      change(webhook, { ...rows, error: null });
      const moved = rows.items.filter((row) => isOutdated(held().opened[row.id]?.detail, row));
      await Promise.all(moved.map(({ id }) => readOne(webhook, id)));
    } catch (error) {
      if (error.name !== "AbortError") change(webhook, { error: error.message });
    }
  }

  /** The newest `wanted` rows of a list, and whether there are more. */
  async function upTo(wanted, list, query) {
    const items = [];
    let cursor = null;
    do {
      const limit = Math.min(LIMIT_MOST, wanted - items.length);
      const page = await api.get(list, { signal, query: { ...query, limit, ...(cursor === null ? {} : { cursor }) } });
      items.push(...page.items);
      cursor = page.next_cursor ?? null;
    } while (cursor !== null && items.length < wanted);
    return { items, more: cursor !== null };
  }

  async function readOne(webhook, id) {
    try {
      changeOne(webhook, id, { detail: await api.get(target(webhook, "deliveries", id), { signal }), error: null });
    } catch (error) {
      if (error.name !== "AbortError") changeOne(webhook, id, { error: error.message });
    }
  }

  async function redeliver(id) {
    const { webhook, opened } = held();
    if (opened[id]?.busy) return;
    changeOne(webhook, id, { busy: true, error: null });
    try {
      const detail = await api.post(target(webhook, "deliveries", id, "redeliver"), {}, { signal });
      changeOne(webhook, id, { busy: false, detail });
    } catch (error) {
      if (error.name !== "AbortError") changeOne(webhook, id, { busy: false, error: error.message });
    }
    read();
  }

  async function recover(since) {
    const { webhook } = held();
    try {
      const { recovered } = await api.post(target(webhook, "recover"), { since }, { signal });
      change(webhook, { recovered, error: null });
    } catch (error) {
      if (error.name !== "AbortError") change(webhook, { recovered: null, error: error.message });
    }
    read();
  }

  return {
    read: readLog,
    /** Opens the log of an endpoint; null closes it. */
    open(webhook) {
      set({ deliveries: { ...BLANK_LOG, webhook, wanted: LOG_PAGE } });
      readLog();
    },
    /** Shows only deliveries in a state; all if it is empty. */
    filter(state) {
      change(held().webhook, { state, items: null, more: false, wanted: LOG_PAGE });
      readLog();
    },
    more() {
      change(held().webhook, ({ wanted }) => ({ wanted: wanted + LOG_PAGE }));
      readLog();
    },
    /** Shows or hides the attempts of a delivery. */
    toggle(id) {
      const { webhook, opened } = held();
      if (opened[id]) return change(webhook, { opened: without(opened, id) });
      changeOne(webhook, id, { detail: null });
      readOne(webhook, id);
    },
    redeliver,
    recover,
  };
}

/** Whether the attempts that are shown of a delivery may not be all of them. */
function isOutdated(detail, row) {
  if (!detail) return false;
  return row.state === "pending" || ["state", "attempts", "finished_at"].some((name) => row[name] !== detail[name]);
}
