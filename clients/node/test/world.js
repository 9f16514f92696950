// A small world for the receiver: a gateway that a test changes, breaks and delays, and a clock that it moves.
//
// Deliveries are signed here by hand and not with the code that is tested. Nothing takes real time.

import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { flagcast } from '@flagcast/node';

export const KEY = 'mUA6';
export const BASE = 'https://flags.example.com';
export const FLAGS = `${BASE}/sdk/v1/environments/${KEY}/flags`;
export const secretOf = (bytes) => `whsec_${bytes.toString('base64')}`;
export const SECRET = secretOf(Buffer.alloc(32, 7));
export const OTHER = secretOf(Buffer.alloc(32, 8));

/** Packages of tests/sdk, which has the lock file for all tests. */
export const load = createRequire(new URL('../../../tests/sdk/package.json', import.meta.url));

/** Lets everything happen that needs no time. */
export const settle = async () => {
  for (let turn = 0; turn < 12; turn++) await new Promise(setImmediate);
};

/** Waits for what needs the disk or another process. */
export async function eventually(what, check, limit = 60_000) {
  for (const end = Date.now() + limit; ; ) {
    const answer = await check();
    if (answer) return answer;
    assert.ok(Date.now() < end, `not within ${limit} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const endings = new WeakMap();

/** Ends something after the test, what began last first: a process must be gone before its folder. */
export function atEnd(context, end) {
  if (!endings.has(context)) {
    endings.set(context, []);
    context.after(async () => {
      for (const each of endings.get(context).reverse()) await each();
    });
  }
  endings.get(context).push(end);
}

/** A directory that is gone after the test. */
export function directory(context) {
  const path = mkdtempSync(join(tmpdir(), 'flagcast-node-'));
  // A save may still be at work.
  atEnd(context, () => rmSync(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 }));
  return path;
}

/** The three headers of a delivery as Standard Webhooks has them. */
export function signed(body, { secrets = [SECRET], id, timestamp }) {
  const signatures = secrets.map((secret) => {
    const hmac = createHmac('sha256', Buffer.from(secret.slice(6), 'base64'));
    return `v1,${hmac.update(`${id}.${timestamp}.`).update(body).digest('base64')}`;
  });
  return {
    'webhook-id': id,
    'webhook-timestamp': String(timestamp),
    'webhook-signature': signatures.join(' '),
  };
}

/** A clock whose timers run when it is moved. */
class Clock {
  time = 1_795_850_000_000;
  timers = new Map();
  random = () => 0.5;
  #next = 1;

  now = () => this.time;

  setTimeout = (then, wait) => {
    this.timers.set(this.#next, { at: this.time + wait, then });
    return this.#next++;
  };

  clearTimeout = (timer) => this.timers.delete(timer);

  /** Moves on by `ms`, timer by timer. */
  async move(ms) {
    const end = this.time + ms;
    await settle();
    for (;;) {
      const [first] = [...this.timers].sort(([, left], [, right]) => left.at - right.at);
      if (!first || first[1].at > end) break;
      this.timers.delete(first[0]);
      this.time = Math.max(this.time, first[1].at);
      first[1].then();
      await settle();
    }
    this.time = end;
  }
}

/** A gateway with one environment, and receivers that follow it. */
export class World {
  clock = new Clock();
  state = { revision: 1, updated_at: 1_795_840_000, flags: {} };
  /** What was read: `{ url, rev, headers, at }`. */
  reads = [];
  log = [];
  latency = 0;
  isUp = true;
  /** May answer a read in the gateway's place. */
  onRead = () => undefined;
  #ids = 0;

  constructor() {
    this.set('dark-mode', false);
    this.set('banner', true, 'at 1');
    this.state.revision = 1;
  }

  set(flag, enabled, value = null) {
    const { revision, updated_at: updatedAt, flags } = this.state;
    const changed = { ...flags, [flag]: { enabled, value } };
    this.state = { revision: revision + 1, updated_at: updatedAt + 1 / 64, flags: changed };
  }

  /** Turns `dark-mode`; what a delivery says of it. */
  change() {
    this.set('dark-mode', !this.state.flags['dark-mode'].enabled);
    return this.news();
  }

  /** What a delivery says now. */
  news(more = {}) {
    const { revision, updated_at } = this.state;
    return { client_key: KEY, revision, updated_at, changed: ['dark-mode'], flags_url: 'http://evil.example', ...more };
  }

  body() {
    return { environment: 'production', ...structuredClone(this.state) };
  }

  respond(headers, rev) {
    if (rev > this.state.revision)
      return new Response('{}', { status: 404, headers: { 'cache-control': 'public, max-age=1' } });
    const etag = `W/"${KEY}.${this.state.revision}"`;
    if (headers['if-none-match'] === etag) return new Response(null, { status: 304 });
    return Response.json(this.body(), { headers: { etag } });
  }

  fetch = async (url, { headers, signal, cache }) => {
    const rev = new URL(url).searchParams.get('rev');
    const read = { url, rev: rev === null ? undefined : Number(rev), headers, signal, cache, at: this.clock.time };
    this.reads.push(read);
    // What is slow is the way back: the answer is of now.
    const answer = this.isUp ? ((await this.onRead(read)) ?? this.respond(headers, read.rev)) : undefined;
    await new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason));
      if (this.latency) this.clock.setTimeout(resolve, this.latency);
      else resolve();
    });
    if (!answer) throw new TypeError('fetch failed', { cause: new Error('ECONNREFUSED') });
    return answer;
  };

  /** The times between the reads, in milliseconds. */
  get waits() {
    return this.reads.slice(1).map(({ at }, index) => at - this.reads[index].at);
  }

  get logger() {
    const write = (level) => (message) => this.log.push(`${level}: ${message}`);
    return { info: write('info'), warn: write('warn'), error: write('error') };
  }

  /** A receiver that has only begun. */
  open(options = {}) {
    const { clock, fetch, logger } = this;
    const own = { url: BASE, clientKey: KEY, secret: SECRET, pollSeconds: 0 };
    return flagcast({ ...own, clock, fetch, logger, ...options });
  }

  /** A receiver that knows the flags; its reads are forgotten. */
  async following(options) {
    const flags = this.open(options);
    await settle();
    assert.equal(flags.revision, this.state.revision);
    this.reads.length = 0;
    return flags;
  }

  /** A delivery as it comes; everything can be wrong with it. */
  request(data, { type = 'environment.updated', method = 'POST', headers = {}, ...signing } = {}) {
    const timestamp = signing.timestamp ?? Math.floor(this.clock.time / 1000);
    const body = signing.body ?? JSON.stringify({ type, timestamp: new Date(this.clock.time), data });
    const id = signing.id ?? this.id();
    const all = { 'content-type': 'application/json', ...signed(body, { ...signing, id, timestamp }), ...headers };
    for (const [name, value] of Object.entries(all)) if (value === undefined) delete all[name];
    return new Request('http://app.example/flagcast', {
      method,
      headers: all,
      body: method === 'POST' ? signing.sent ?? body : undefined,
    });
  }

  id() {
    return `msg_${++this.#ids}${randomBytes(6).toString('hex')}`;
  }

  /** Delivers; the answer as `{ status, applied, body, headers }`. */
  async deliver(flags, data = this.news(), how) {
    const response = await flags.fetch(this.request(data, how));
    const applied = response.headers.get('x-flagcast-applied-revision');
    const { status, headers } = response;
    return { status, headers, applied: applied === null ? null : Number(applied), body: await response.json() };
  }
}
