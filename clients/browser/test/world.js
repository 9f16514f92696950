// A small world for the client: several tabs of one browser, a gateway, and a clock that a test moves.
//
// The client is the served file, loaded once for each tab with that tab's own globals. Locks,
// channels and storage are those of the browser, so they join the tabs; everything is as simple as
// the rules of the client allow. Nothing here takes real time.

import { readFileSync } from 'node:fs';

export const KEY = 'mUA6';
export const BASE = 'https://flags.example.com';
const SOURCE = readFileSync(new URL('../flagcast.js', import.meta.url), 'utf8');

/** Lets everything happen that needs no time. */
export const settle = async () => {
  for (let turn = 0; turn < 4; turn++) await new Promise(setImmediate);
};

/** A clock with timers that belong to somebody, so that they end with a tab. */
class Clock {
  now = 0;
  #timers = new Map();
  #next = 1;

  set(owner, then, wait = 0, ...values) {
    const at = this.now + Math.max(0, wait || 0);
    this.#timers.set(this.#next, { at, owner, then: () => then(...values) });
    return this.#next++;
  }

  clear(timer) {
    this.#timers.delete(timer);
  }

  forget(owner) {
    for (const [id, timer] of this.#timers) if (timer.owner === owner) this.#timers.delete(id);
  }

  /** Moves on by `ms`; tabs that are frozen miss their timers until they thaw. */
  async move(ms) {
    const end = this.now + ms;
    await settle();
    for (;;) {
      let first;
      for (const [id, { at, owner }] of this.#timers)
        if (at <= end && !owner?.frozen && (!first || at < first.at)) first = { id, at };
      if (!first) break;
      const { then } = this.#timers.get(first.id);
      this.#timers.delete(first.id);
      this.now = Math.max(this.now, first.at);
      then();
      await settle();
    }
    this.now = end;
  }
}

/** Exclusive locks as the Web Locks API has them, as far as the client uses them. */
class Locks {
  #queues = new Map();

  of(tab) {
    return { request: (name, options, then) => this.#request(tab, name, options, then) };
  }

  #request(tab, name, options, then) {
    if (tab.world.locksAreForbidden) return Promise.reject(new DOMException('no', 'SecurityError'));
    return new Promise((resolve, reject) => {
      const queue = this.#queues.get(name) ?? [];
      this.#queues.set(name, queue);
      const request = { tab, then, resolve, reject, granted: false };
      const robbed = options.steal ? queue.filter((other) => other.granted) : [];
      if (options.steal) queue.unshift(request);
      else queue.push(request);
      for (const held of robbed) this.#drop(name, held, true);
      options.signal?.addEventListener('abort', () => {
        if (!request.granted) this.#drop(name, request, true);
      });
      this.#grant(name);
    });
  }

  #drop(name, request, aborted) {
    const queue = this.#queues.get(name);
    if (!queue.includes(request)) return;
    queue.splice(queue.indexOf(request), 1);
    if (aborted) request.tab.run(() => request.reject(new DOMException('aborted', 'AbortError')));
    this.#grant(name);
  }

  #grant(name) {
    const first = this.#queues.get(name)[0];
    if (!first || first.granted) return;
    first.granted = true;
    queueMicrotask(async () => {
      const held = (async () => first.then({ name }))();
      await held.then(first.resolve, first.reject);
      this.#drop(name, first, false);
    });
  }

  /** What the browser does when a tab is gone. */
  forget(tab) {
    for (const [name, queue] of this.#queues)
      for (const request of queue.filter((other) => other.tab === tab))
        this.#drop(name, request, false);
  }
}

function channelClass(tab) {
  const { channels } = tab.world;
  return class BroadcastChannel {
    constructor(name) {
      this.name = name;
      this.tab = tab;
      channels.add(this);
    }
    postMessage(message) {
      if (!channels.has(this)) throw new DOMException('closed', 'InvalidStateError');
      const data = structuredClone(message);
      for (const other of channels) {
        if (other === this || other.name !== this.name) continue;
        other.tab.run(() => channels.has(other) && other.onmessage?.({ data }));
      }
    }
    close() {
      channels.delete(this);
    }
  };
}

function eventSourceClass(tab) {
  const { world } = tab;
  return class EventSource {
    readyState = 0;
    constructor(url) {
      Object.assign(this, { url, tab, at: world.clock.now });
      world.streams.push(this);
      world.clock.set(tab, () => this.readyState === 0 && world.onStream(this), world.latency);
    }
    open() {
      if (this.readyState !== 0) return;
      this.readyState = 1;
      this.onopen?.({});
    }
    say(event) {
      if (this.readyState !== 1) return;
      this.onmessage?.({ data: typeof event === 'string' ? event : JSON.stringify(event) });
    }
    /** Ends: `fatally` after an answer that is no stream, else as at the end of a body. */
    fail(fatally = false) {
      if (this.readyState === 2) return;
      this.readyState = fatally ? 2 : 0;
      this.onerror?.({});
    }
    close() {
      this.readyState = 2;
    }
  };
}

/** One tab; `flags` is its client. */
class Tab {
  frozen = false;
  #late = [];
  errors = [];
  changes = [];

  constructor(world, options) {
    this.world = world;
    this.number = world.tabs.push(this) - 1;
    this.window = new EventTarget();
    this.document = new EventTarget();
    this.document.hidden = options.hidden ?? false;
    if (world.hasChannels) this.window.BroadcastChannel = channelClass(this);
    this.flags = this.#load()({
      key: KEY,
      onChange: (flags) => this.changes.push(flags.revision),
      ...options.client,
    });
  }

  #load() {
    const { world } = this;
    const { clock } = world;
    const globals = {
      globalThis: this.window,
      document: this.document,
      navigator: { locks: world.hasLocks ? world.locks.of(this) : undefined },
      localStorage: world.storage,
      BroadcastChannel: this.window.BroadcastChannel,
      EventSource: eventSourceClass(this),
      fetch: (url, init) => world.fetch(this, url, init),
      setTimeout: (then, wait, ...values) => clock.set(this, then, wait, ...values),
      clearTimeout: (timer) => clock.clear(timer),
      console: { error: (error) => this.errors.push(error) },
      Math: Object.assign(Object.create(Math), { random: () => world.random() }),
    };
    const script = SOURCE.replace('import.meta.url', `"${BASE}/client.js"`).replace(
      'export function flagcast',
      'return function flagcast',
    );
    return new Function(...Object.keys(globals), script)(...Object.values(globals));
  }

  /** As the browser tells it when another tab comes to the front, or this one does. */
  hide(hidden = true) {
    this.document.hidden = hidden;
    this.document.dispatchEvent(new Event('visibilitychange'));
  }

  /** Lets the tab do something soon; when it is frozen, once it thaws. */
  run(what) {
    if (this.frozen) this.#late.push(what);
    else queueMicrotask(what);
  }

  thaw() {
    this.frozen = false;
    this.#late.splice(0).forEach((what) => queueMicrotask(what));
  }

  /** The process of the tab is gone, and nothing of it runs any more. */
  crash() {
    const { world } = this;
    world.clock.forget(this);
    for (const stream of world.streams) if (stream.tab === this) stream.readyState = 2;
    for (const channel of world.channels) if (channel.tab === this) world.channels.delete(channel);
    world.locks.forget(this);
  }

  get streams() {
    return this.world.streams.filter((stream) => stream.tab === this);
  }
}

class Storage {
  items = new Map();
  getItem(name) {
    return this.items.get(name) ?? null;
  }
  setItem(name, value) {
    this.items.set(name, value);
  }
}

/** The browser and the gateway. A test may set any of the fields, also while tabs are open. */
export class World {
  clock = new Clock();
  locks = new Locks();
  channels = new Set();
  storage = new Storage();
  tabs = [];
  streams = [];
  reads = [];
  hasLocks = true;
  hasChannels = true;
  locksAreForbidden = false;
  /** What `Math.random` says. */
  random = () => 0.5;

  /** How long an answer takes. */
  latency = 20;
  revision = 1;
  heartbeat = 5;
  isUp = true;
  /** What a stream does once it is connected; a test may put something else here. */
  onStream = (stream) => this.serveStream(stream);
  /** What a read answers; `undefined` for the gateway's own answer. */
  onRead = () => undefined;

  open(options = {}) {
    return new Tab(this, options);
  }

  move(ms) {
    return this.clock.move(ms);
  }

  ping(more = {}) {
    return { type: 'refetchEvaluation', revision: this.revision, heartbeat_s: this.heartbeat, ...more };
  }

  /** Streams that are open now. */
  get listening() {
    return this.streams.filter((stream) => stream.readyState < 2);
  }

  serveStream(stream) {
    if (!this.isUp) return stream.fail();
    stream.open();
    stream.say(this.ping({ spread_ms: 0 }));
    const beat = () => {
      if (stream.readyState !== 1 || !this.isUp) return;
      stream.say({ type: 'state', revision: this.revision, heartbeat_s: this.heartbeat });
      this.clock.set(null, beat, this.heartbeat * 1000);
    };
    this.clock.set(null, beat, this.heartbeat * 1000);
  }

  /** A change is committed, and told to every stream. */
  change(more = {}) {
    this.revision += 1;
    for (const stream of this.streams) if (stream.readyState === 1) stream.say(this.ping(more));
  }

  /** The gateway is gone, with all its streams. */
  crash() {
    this.isUp = false;
    for (const stream of this.listening) stream.fail();
  }

  body(revision = this.revision) {
    return {
      environment: 'production',
      revision,
      flags: {
        'dark-mode': { enabled: revision % 2 === 0, value: null },
        banner: { enabled: true, value: `at ${revision}` },
      },
    };
  }

  fetch(tab, url, init = {}) {
    const read = { tab, url, init, at: this.clock.now };
    this.reads.push(read);
    const answer = this.onRead(read) ?? (this.isUp ? { body: this.body() } : new TypeError('down'));
    return new Promise((resolve, reject) => {
      init.signal?.addEventListener('abort', () => reject(init.signal.reason));
      if (answer === 'never') return;
      this.clock.set(tab, () => {
        if (answer instanceof Error) return reject(answer);
        const { status = 200, body } = answer;
        resolve({ ok: status === 200, status, json: async () => structuredClone(body) });
      }, this.latency);
    });
  }
}

/** The URL of a read, pinned when there is a revision. */
export const readUrl = (revision) =>
  `${BASE}/sdk/v1/environments/${KEY}/flags${revision ? `?rev=${revision}` : ''}`;

export const STORED = `flagcast ${BASE} ${KEY}`;
