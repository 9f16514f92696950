// Everything that runs while one environment is chosen: its stream, the reads that follow pings,
// the poll of who is listening, and the changes made here. Closing it stops all of that.

import { environmentPath, path } from "./api.js";
import { settleClick, withChanges, withClick, withPing, withServerPings } from "./pings.js";
import { LIVE_VIEWS } from "./route.js";
import { without } from "./state.js";
import { FlagSetReader, PingStream } from "./stream.js";
import { coalesced, poll } from "./timing.js";
import { textOf } from "./value.js";
import { duration } from "./format.js";
import { openWebhooks } from "./webhooks.js";

const STREAMS_EVERY_MS = 2000;
const DETAILS_GAP_MS = 500;
const UNREAD_AFTER_MS = 1500;
const HIDDEN_LIFE_MS = 120000;
const AUDIT_PAGE = 30;

/** Starts the work for `environment` of `project`. `store` must hold a blank environment. */
export function openEnvironment({ api, store, project, environment }) {
  const ending = new AbortController();
  const { signal } = ending;
  const base = environmentPath(project, environment.key);
  let nextClick = 0;

  const set = (change) => {
    if (!signal.aborted) store.set(change);
  };

  // Reading: ping, then flag set, then the descriptions and tags that only the management API has.

  const reader = new FlagSetReader({
    clientKey: environment.client_key,
    signal,
    onFlags: receiveFlags,
    onError: (error) => set({ readError: error.message }),
  });

  const stream = new PingStream({
    clientKey: environment.client_key,
    onState: (connection) => {
      set({ connection });
      if (connection === "open") streamsPoll.soon();
    },
    onPing: receivePing,
  });

  const readDetails = coalesced(async () => {
    try {
      const flags = await api.list(`${base}/flags`, { signal });
      set({ details: Object.fromEntries(flags.map((flag) => [flag.key, flag])) });
    } catch (error) {
      report(error);
    }
  }, DETAILS_GAP_MS, signal);

  function receivePing(ping) {
    if (ping.kind !== "state") {
      set(({ log }) => ({ log: withPing(log, ping) }));
      streamsPoll.soon();
    }
    // Without a URL the flags live in another system and there is nothing to read here.
    if (ping.flagsUrl !== null) reader.want(ping.revision, ping.flagsUrl);
  }

  function receiveFlags(flagSet) {
    set((state) => {
      const changes = state.held === null ? [] : difference(state.held.flags, flagSet.flags);
      const flashes = { ...state.flashes };
      for (const { key } of changes) flashes[key] = flagSet.revision;
      const log = withChanges(state.log, flagSet.revision, changes);
      return {
        held: flagSet,
        readError: null,
        flashes,
        log,
        pending: stillPending(state.pending, flagSet.revision),
        announcement: changes.length ? announce(flagSet.revision, log, changes) : state.announcement,
      };
    });
    readDetails();
  }

  // Who is listening. The same answer heals a lost ping: when the flags held here stay behind the
  // revision of the environment, they are read again.

  let behind = 0;
  const streamsPoll = poll(async () => {
    try {
      const streams = await api.get(`${base}/streams`, { signal });
      set(({ log }) => ({ streams, streamsError: null, log: withServerPings(log, streams.pings) }));
      healIfBehind(streams.revision);
    } catch (error) {
      if (error.name !== "AbortError") set({ streamsError: error.message });
    }
  }, STREAMS_EVERY_MS, isLiveShown, signal);

  function isLiveShown() {
    return document.visibilityState === "visible" && LIVE_VIEWS.includes(store.get().route.view);
  }

  function healIfBehind(revision) {
    const { held } = store.get();
    behind = held !== null && revision > held.revision ? behind + 1 : 0;
    if (behind < 2) return;
    behind = 0;
    reader.want(revision);
    stream.open();
  }

  // Changing. A change shows as pending until the new state has been read back.

  async function change(key, wanted) {
    const id = (nextClick += 1);
    const startedAt = performance.now();
    const { held, pending, log } = store.get();
    const seen = Math.max(held?.revision ?? -1, log.pings[0]?.revision ?? -1);
    set(({ rowErrors }) => ({
      pending: { ...pending, [key]: { ...wanted, id, revision: null } },
      rowErrors: without(rowErrors, key),
      log: withClick(log, { id, startedAt, seen }),
    }));
    try {
      const { revision } = await api.patch(`${base}${path("flags", key)}`, wanted, { signal });
      settle(key, id, revision);
      setTimeout(() => signal.aborted || reader.want(revision), UNREAD_AFTER_MS);
      return null;
    } catch (error) {
      settle(key, id, null);
      return error.name === "AbortError" ? null : error.message;
    }
  }

  function settle(key, id, revision) {
    set(({ pending, log, held }) => {
      const mine = pending[key]?.id === id;
      const rest = mine && revision !== null ? { ...pending, [key]: { ...pending[key], revision } } : pending;
      return {
        pending: mine && revision === null ? without(pending, key) : stillPending(rest, held?.revision ?? -1),
        log: settleClick(log, id, revision),
      };
    });
  }

  async function setEnabled(key, enabled) {
    const problem = await change(key, { enabled });
    if (problem) set(({ rowErrors }) => ({ rowErrors: { ...rowErrors, [key]: problem } }));
  }

  async function createFeature(feature) {
    try {
      const created = await api.post(`${path("projects", project)}/features`, feature, { signal });
      const revision = created.revisions?.[environment.key];
      if (revision !== undefined) setTimeout(() => signal.aborted || reader.want(revision), UNREAD_AFTER_MS);
      return null;
    } catch (error) {
      return error.name === "AbortError" ? null : error.message;
    }
  }

  // The audit view: the newest entries, more on request, and new ones as they come.

  let auditStale = false;
  async function readAudit(more) {
    const { audit } = store.get();
    if (audit.busy) auditStale = true;
    if (audit.busy || (more && audit.cursor === null)) return;
    auditStale = false;
    set({ audit: { ...audit, busy: true } });
    try {
      const query = { project, environment: environment.key, limit: AUDIT_PAGE };
      if (more) query.cursor = audit.cursor;
      const page = await api.get("/audit", { query, signal });
      set({ audit: joinAudit(audit, page, more) });
    } catch (error) {
      if (error.name !== "AbortError") set({ audit: { ...audit, busy: false, error: error.message } });
    }
    if (auditStale && !signal.aborted) readAudit(false);
  }

  function report(error) {
    if (error.name !== "AbortError") set({ readError: error.message });
  }

  // A page that nobody sees gives its connection back after a while: browsers allow only a few
  // per host, and an open stream counts as a listener.

  let hiddenTimer;
  function onVisibility() {
    clearTimeout(hiddenTimer);
    if (document.visibilityState === "hidden") {
      hiddenTimer = setTimeout(() => stream.close(), HIDDEN_LIFE_MS);
      return;
    }
    streamsPoll.soon();
    webhooks.refresh();
    if (!stream.isOpen) reopen();
  }

  function reopen() {
    set({ connection: "connecting" });
    stream.open();
  }

  const webhooks = openWebhooks({ api, store, set, base, signal });

  document.addEventListener("visibilitychange", onVisibility, { signal });
  addEventListener("online", reopen, { signal });
  reader.start();
  stream.open();

  return {
    setEnabled,
    setValue: (key, value) => change(key, { value }),
    createFeature,
    refreshAudit: () => readAudit(false),
    moreAudit: () => readAudit(true),
    webhooks,
    close() {
      clearTimeout(hiddenTimer);
      ending.abort();
      stream.close();
    },
  };
}

/** What differs between two flag sets, in words: `[{key, text}]`. */
function difference(before, after) {
  const changes = [];
  for (const [key, flag] of Object.entries(after)) {
    const old = before[key];
    if (old === undefined) changes.push({ key, text: "added" });
    else if (old.enabled !== flag.enabled) changes.push({ key, text: flag.enabled ? "on" : "off" });
    else if (old.value !== flag.value) changes.push({ key, text: `= ${textOf(flag.value)}` });
  }
  for (const key of Object.keys(before)) {
    if (!(key in after)) changes.push({ key, text: "removed" });
  }
  return changes;
}

function stillPending(pending, revision) {
  const left = Object.entries(pending).filter(
    ([, change]) => change.revision === null || change.revision > revision,
  );
  return Object.fromEntries(left);
}

function announce(revision, log, changes) {
  const what = changes.map(({ key, text }) => `${key} ${text}`).slice(0, 3).join(", ");
  const { latencyMs } = log.pings.find((ping) => ping.revision === revision) ?? { latencyMs: null };
  return `Revision ${revision}: ${what}${latencyMs === null ? "" : `, after ${duration(latencyMs)}`}`;
}

// A first page either adds what is new above the entries shown, or replaces them when it does not
// reach down to them.
function joinAudit(audit, page, more) {
  const blank = { busy: false, error: null };
  const cursor = page.next_cursor ?? null;
  if (more) return { ...blank, items: [...audit.items, ...page.items], cursor };
  const newest = audit.items?.[0]?.id;
  const meets = newest !== undefined && page.items.some((entry) => entry.id <= newest);
  if (!meets) return { ...blank, items: page.items, cursor };
  const fresh = page.items.filter((entry) => entry.id > newest);
  return { ...blank, items: [...fresh, ...audit.items], cursor: audit.cursor };
}
