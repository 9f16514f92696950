// What a delivery does: it is checked, the flags that it tells of are read, and the answer says what is
// held now. Statuses and headers of the answers are decided here, whatever server is in front.

import { isSigned } from './signature.js';
import { TOLERANCE, replays } from './replays.js';
import { timersOf } from './clock.js';

/** What a body may be long, in bytes. */
export const BODY_LIMIT = 256 * 1024;

/** When the gateway shall come again, in seconds. */
const RETRY_AFTER = 5;

/** An answer of `{ status, headers, body }`. */
export function answer(status, content, headers = {}) {
  const body = JSON.stringify(content);
  const always = { 'content-type': 'application/json', 'cache-control': 'no-store' };
  return { status, headers: { ...always, ...headers }, body };
}

export const refusal = (status, error, headers) => answer(status, { error }, headers);

export const tooLong = () =>
  refusal(413, `the body is longer than ${BODY_LIMIT} bytes`);

/** The three headers of Standard Webhooks; a text that says what is wrong with them. */
function read(header) {
  const id = header('webhook-id') ?? '';
  const timestamp = header('webhook-timestamp') ?? '';
  const signatures = header('webhook-signature') ?? '';
  if (!/^[\x21-\x7e]{1,256}$/.test(id)) return 'webhook-id';
  if (!/^\d{1,12}$/.test(timestamp)) return 'webhook-timestamp';
  if (!/^[\x20-\x7e]+$/.test(signatures)) return 'webhook-signature';
  return { id, timestamp, signatures };
}

/** What the body tells, as `{ clientKey, revision, updatedAt }`; `undefined` when it tells nothing. */
function parse(body) {
  let data;
  try {
    ({ data } = JSON.parse(body.toString()));
  } catch {
    return undefined;
  }
  const { client_key: clientKey, revision, updated_at: updatedAt } = data ?? {};
  const isNews = typeof clientKey === 'string' && Number.isSafeInteger(revision) && revision >= 0;
  return isNews && Number.isFinite(updatedAt) ? { clientKey, revision, updatedAt } : undefined;
}

/**
 * Answers deliveries. `header(name)` gives a header or nothing, `body` is what came, byte for byte.
 * `applyMs` is how long a delivery waits for its flags.
 */
export function receiver({ clientKey, keys, holder, reads, applyMs, clock }) {
  const attempts = replays(clock.now);
  const timers = timersOf(clock);
  const waiting = new Set(); // what ends the waits of deliveries
  let deliveries = 0;
  let isClosed = false;

  /** What is held, for those who have signed. */
  const state = () =>
    holder.held ? { 'x-flagcast-applied-revision': String(holder.held.revision) } : {};

  /** Waits until `news` is held, or for so long that the gateway should come again. */
  function applied(news) {
    reads.want(news);
    return new Promise((resolve) => {
      if (isClosed) return resolve();
      const timer = `delivery ${++deliveries}`;
      const end = () => {
        cancel();
        timers.stop(timer);
        waiting.delete(end);
        resolve();
      };
      waiting.add(end);
      timers.after(timer, applyMs, end);
      const cancel = holder.when(news.updatedAt, () => queueMicrotask(end));
    });
  }

  async function receive(header, body) {
    const signed = read(header);
    if (typeof signed === 'string')
      return refusal(400, `the header \`${signed}\` is missing or not as Standard Webhooks has it`);
    if (!isSigned(keys, signed, body))
      return refusal(401, 'no signature fits: is the secret the one of this endpoint?');
    const ahead = Number(signed.timestamp) - Math.floor(clock.now() / 1000);
    if (Math.abs(ahead) > TOLERANCE) {
      const which = ahead < 0 ? 'too old' : 'too new';
      return refusal(400, `the timestamp is ${which}: check the clocks`, state());
    }
    const news = parse(body);
    if (!news) return refusal(400, 'the body does not tell a client key, a revision and its time');
    if (news.clientKey !== clientKey) {
      const both = `\`${news.clientKey}\`, and this receiver follows \`${clientKey}\``;
      return refusal(400, `the delivery is about client key ${both}`);
    }
    if (!attempts.isNew(signed.id, signed.timestamp))
      return refusal(409, 'this attempt was delivered before', state());
    if (!holder.holds(news.updatedAt)) await applied(news);
    if (holder.holds(news.updatedAt))
      return answer(200, { applied_revision: holder.held.revision }, state());
    const error = `revision ${news.revision} could not be read in time; the receiver goes on trying`;
    return refusal(503, error, { 'retry-after': String(RETRY_AFTER), ...state() });
  }

  return {
    receive,
    /** Answers those who wait: they shall come again, to the next process. */
    close() {
      isClosed = true;
      [...waiting].forEach((end) => end());
      timers.end();
    },
  };
}
