// Reads of the gateway: one at a time, of the newest revision that was heard of, until it is held.
//
// There are two reasons to read: somebody said that there is something newer (`want`), or it is time to
// look (at the start, and by the poll). Both wait in the same loop when the gateway does not answer.

import { FlagSet } from './copy.js';
import { jittered, timersOf } from './clock.js';
import { readStream } from './bytes.js';

/** What a flag set may be long, in bytes. A longer one is a mistake at the other end. */
const LIMIT = 64 * 1024 * 1024;

/** The longest wait between two reads, in milliseconds. */
const LONGEST = 60_000;

/** The waits after failures, in milliseconds; the last one lasts. After `FIRM` of them no delivery waits any more. */
const WAITS = [100, 300, 1_000, 1_000, 2_000, 2_000, 4_000, 8_000, 16_000, 32_000, LONGEST];
const FIRM = 6;

/** How long the other end asks to wait, in milliseconds; 0 when it does not. */
function asksToWait({ status, headers }) {
  const wish =
    status === 404
      ? /max-age=(\d+)/.exec(headers.get('cache-control') ?? '')?.[1]
      : headers.get('retry-after');
  return /^\d+$/.test(wish ?? '') ? Number(wish) * 1000 : 0;
}

/** The message of an error with those of its causes: `fetch` hides there what happened. */
export function told(error) {
  const cause = error?.cause ? `: ${told(error.cause)}` : '';
  return `${error?.message || error?.code || error}${cause}`;
}

/** One read. `pinned`: of a revision or newer. Throws `{ message, wait? }`; `null`: nothing new. */
async function readOnce({ fetch, url, readMs, timers }, signal, { pinned, etag, afresh }) {
  const headers = { accept: 'application/json', 'user-agent': 'flagcast-node/0.1.0' };
  if (etag) headers['if-none-match'] = etag;
  if (afresh) headers['cache-control'] = 'no-cache';
  const limit = new AbortController();
  const cut = () => limit.abort(new Error('the receiver was closed'));
  signal.addEventListener('abort', cut);
  const tooLong = new Error(`no answer within ${readMs / 1000} s`);
  timers.after('limit', readMs, () => limit.abort(tooLong));
  try {
    const address = pinned === undefined ? url : `${url}?rev=${pinned}`;
    // Next.js keeps answers of `fetch` unless told otherwise; one to a number may be kept.
    const cache = pinned === undefined ? 'no-store' : 'default';
    const response = await fetch(address, { headers, signal: limit.signal, cache });
    if (response.status === 304 && etag) return null;
    if (response.status !== 200) {
      await response.body?.cancel();
      throw Object.assign(new Error(`it answered ${response.status}`), { wait: asksToWait(response) });
    }
    const body = await readStream(response.body, LIMIT);
    if (!body) throw new Error(`the answer is longer than ${LIMIT} bytes`);
    const set = new FlagSet(JSON.parse(body.toString()));
    return { set, etag: response.headers.get('etag') };
  } catch (error) {
    throw limit.signal.aborted ? limit.signal.reason : error;
  } finally {
    timers.stop('limit');
    signal.removeEventListener('abort', cut);
  }
}

/**
 * Keeps `holder` at what was wanted and looked for. `url` is the address of the flags without a query,
 * `pollMs` the time between two looks (0: none), `readMs` how long one read may take.
 */
export function reads({ fetch, url, readMs, pollMs, holder, clock, log }) {
  const timers = timersOf(clock);
  const life = new AbortController();
  let wanted; // the newest { revision, updatedAt } that was heard of
  let isDue = false; // to look, whatever was heard
  let isRunning = false;
  let failures = 0; // since the last success or news: they make the waits longer
  let isFailing = false; // for the log
  let wake; // ends the wait of the loop
  let tagged; // the set that came with an ETag, and that
  let wasStale = false; // the last pinned read gave less than was told of

  const isBehind = () => wanted !== undefined && !holder.holds(wanted.updatedAt);
  const mustRead = () => !life.signal.aborted && (isDue || isBehind());

  async function attempt() {
    const asked = wanted;
    // A cache may keep an answer to this number from before a restore, and what was announced may be
    // gone with one: then ask for whatever is there.
    const afresh = wasStale || (failures > FIRM && failures % 2 === 0);
    const pinned = isBehind() && !afresh ? asked.revision : undefined;
    const isConditional = pinned === undefined && !afresh && tagged?.set === holder.held;
    const etag = isConditional ? tagged?.etag : undefined;
    wasStale = false;
    const answer = await readOnce({ fetch, url, readMs, timers }, life.signal, { pinned, etag, afresh });
    if (answer && holder.swap(answer.set)) tagged = answer;
    if (pinned === undefined || holder.held === answer.set) isDue = false;
    if (asked === undefined || holder.holds(asked.updatedAt)) return;
    wasStale = pinned !== undefined;
    const { held } = holder;
    throw new Error(`it has revision ${held.revision} of ${held.updatedAt}, and announced a newer one`);
  }

  const pause = (wait) =>
    new Promise((resolve) => {
      wake = resolve;
      timers.after('pause', wait, resolve);
    });

  /** Waits after a failure, unless something newer was heard of since. */
  async function backOff(error, asked) {
    if (!mustRead()) return;
    if (wanted !== asked) {
      failures = 0;
      return;
    }
    if (!isFailing) log.warn(`cannot read the flags from ${url}: ${told(error)}; trying again`);
    isFailing = true;
    const wait = Math.max(WAITS[Math.min(failures, WAITS.length - 1)], error.wait ?? 0);
    failures++;
    // Jitter must not come back before it was asked to.
    const spread = jittered(clock, wait);
    await pause(Math.min(LONGEST, error.wait ? Math.max(error.wait, spread) : spread));
  }

  async function run() {
    if (isRunning) return;
    isRunning = true;
    while (mustRead()) {
      const asked = wanted;
      try {
        await attempt();
        if (isFailing) log.info(`read the flags again: revision ${holder.held.revision}`);
        isFailing = false;
        failures = 0;
      } catch (error) {
        await backOff(error, asked);
      }
    }
    isRunning = false;
  }

  function look() {
    isDue = true;
    run();
    if (pollMs > 0) timers.after('poll', jittered(clock, pollMs), look);
  }

  return {
    /** Looks now, and from now on by the poll. */
    start: look,
    /** Reads until something at least as new as `news` is held; at once, also in the middle of a wait. */
    want(news) {
      if (wanted === undefined || news.updatedAt > wanted.updatedAt) wanted = news;
      failures = 0;
      wake?.();
      run();
    },
    close() {
      life.abort();
      timers.end();
      wake?.();
    },
  };
}
