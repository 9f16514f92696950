// The log of the last pings and how long each took. Pure functions: a log goes in, a new log comes
// out. A change that is made on this page is timed from the click; any other from the server's
// clock, which is only as good as the two clocks agree.

const KEPT = 20;
const CLICK_LIFE_MS = 60000;

/** Adds a ping that just arrived. */
export function withPing(log, { revision, kind, arrivedAt, wallAt }) {
  const ping = {
    revision, kind, arrivedAt, wallAt,
    latencyMs: null, source: null, serverMs: null, changes: [],
  };
  return match({ ...log, pings: [ping, ...log.pings].slice(0, KEPT) });
}

/** Adds a change that was just asked for on this page; its revision is not known yet. */
export function withClick(log, { id, startedAt, seen }) {
  const fresh = log.clicks.filter((click) => startedAt - click.startedAt < CLICK_LIFE_MS);
  return { ...log, clicks: [...fresh, { id, startedAt, seen, revision: null }] };
}

/** Notes the answer to a change: its revision, or null when it failed. */
export function settleClick(log, id, revision) {
  const clicks = log.clicks.flatMap((click) => {
    if (click.id !== id) return [click];
    // Nothing was changed, so no ping will come for it.
    if (revision === null || revision <= click.seen) return [];
    return [{ ...click, revision }];
  });
  return match({ ...log, clicks });
}

/** Adds what the server knows about its last pings. The same log when there is nothing new. */
export function withServerPings(log, serverPings) {
  const byRevision = new Map(serverPings.map((ping) => [ping.revision, ping]));
  let changed = false;
  const pings = log.pings.map((ping) => {
    const server = byRevision.get(ping.revision);
    if (!server || ping.serverMs !== null) return ping;
    changed = true;
    return timed({ ...ping, serverMs: server.change_to_ping_ms ?? null }, server.committed_at);
  });
  return changed ? { ...log, pings } : log;
}

/** Notes which flags changed with the newest ping up to `revision`. */
export function withChanges(log, revision, changes) {
  const index = log.pings.findIndex((ping) => ping.revision <= revision);
  if (index < 0 || changes.length === 0) return log;
  const pings = [...log.pings];
  pings[index] = { ...pings[index], changes };
  return { ...log, pings };
}

/** The middle one of the known latencies, or null. */
export function median(pings) {
  const known = pings.map((ping) => ping.latencyMs).filter((ms) => ms !== null).sort((a, b) => a - b);
  if (known.length === 0) return null;
  const middle = known.length >> 1;
  return known.length % 2 ? known[middle] : (known[middle - 1] + known[middle]) / 2;
}

// Gives each answered click to the first ping that carries its revision. Pings are conflated, so
// one ping may end several clicks; the longest wait counts.
function match({ pings, clicks }) {
  const next = [...pings];
  const waiting = clicks.filter((click) => {
    if (click.revision === null) return true;
    const index = next.findLastIndex(
      (ping) => ping.revision >= click.revision && ping.arrivedAt >= click.startedAt,
    );
    if (index < 0) return true;
    const ping = next[index];
    const waited = ping.arrivedAt - click.startedAt;
    const longest = ping.source === "click" ? Math.max(ping.latencyMs, waited) : waited;
    next[index] = { ...ping, latencyMs: longest, source: "click" };
    return false;
  });
  return { pings: next, clicks: waiting };
}

function timed(ping, committedAt) {
  if (ping.source !== null || ping.kind !== "ping" || !committedAt) return ping;
  return { ...ping, latencyMs: ping.wallAt - Date.parse(committedAt), source: "clock" };
}
