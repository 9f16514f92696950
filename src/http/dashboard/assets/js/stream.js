// The stream of an environment and the reads that follow its pings. A ping only says "the newest
// revision is N"; the reader then fetches that revision, one fetch at a time, and skips what is
// already held.

import { ApiError, flagSetPath, readFlagSet } from "./api.js";
import { backoff, delay } from "./timing.js";

const EVENT = "environment_updated";
const RECONNECT_MS = 500;

/** One EventSource after the other. States: connecting, open, reconnecting. */
export class PingStream {
  #url;
  #onState;
  #onPing;
  #source = null;
  #timer = null;
  #failures = 0;
  #highest = -1;

  constructor({ clientKey, onState, onPing }) {
    this.#url = `/sse/environments/${encodeURIComponent(clientKey)}/stream`;
    this.#onState = onState;
    this.#onPing = onPing;
  }

  open() {
    this.#stop();
    const source = new EventSource(this.#url);
    let first = true;
    source.addEventListener("open", () => {
      this.#failures = 0;
      this.#onState("open");
    });
    source.addEventListener(EVENT, (event) => {
      this.#receive(event.data, first);
      first = false;
    });
    source.addEventListener("error", () => this.#reconnect());
    this.#source = source;
  }

  /** Whether there is a connection or a plan to make one. */
  get isOpen() {
    return this.#source !== null || this.#timer !== null;
  }

  close() {
    this.#stop();
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#source?.close();
    this.#source = null;
  }

  // Streams end by themselves from time to time. The pause that the server asks of large client
  // fleets would leave a person waiting, so the first new try comes sooner.
  #reconnect() {
    this.#stop();
    this.#failures += 1;
    this.#onState("reconnecting");
    this.#timer = setTimeout(() => this.open(), backoff(this.#failures, RECONNECT_MS));
  }

  #receive(data, first) {
    const arrivedAt = performance.now();
    const ping = parsePing(data);
    if (ping === null || ping.revision <= this.#highest) return; // an echo, or the state we have
    const known = this.#highest >= 0;
    this.#highest = ping.revision;
    // The first event of a stream is the present state: a ping that we missed, or nothing new.
    const kind = !first ? "ping" : known ? "catch-up" : "state";
    this.#onPing({ ...ping, kind, arrivedAt, wallAt: Date.now() });
  }
}

function parsePing(data) {
  try {
    const { revision, flags_url: flagsUrl = null } = JSON.parse(data);
    return Number.isSafeInteger(revision) ? { revision, flagsUrl } : null;
  } catch {
    return null;
  }
}

/** Holds the newest flag set that was read, and reads again only for a newer revision. */
export class FlagSetReader {
  #base;
  #signal;
  #onFlags;
  #onError;
  #held = -1;
  #wanted = 0;
  #url;
  #reading = false;
  #wake = new AbortController();

  constructor({ clientKey, signal, onFlags, onError }) {
    this.#base = flagSetPath(clientKey);
    this.#url = this.#base;
    this.#signal = signal;
    this.#onFlags = onFlags;
    this.#onError = onError;
  }

  /** Reads whatever is newest; for the start, before the first ping. */
  start() {
    this.#run();
  }

  /** Asks for `revision` or newer. */
  want(revision, flagsUrl = null) {
    if (revision <= this.#held || revision <= this.#wanted) return;
    this.#wanted = revision;
    this.#url = sameOrigin(flagsUrl) ?? `${this.#base}?rev=${revision}`;
    this.#wake.abort();
    this.#run();
  }

  async #run() {
    if (this.#reading) return;
    this.#reading = true;
    let failures = 0;
    while (this.#held < this.#wanted && !this.#signal.aborted) {
      if (await this.#readOnce()) {
        failures = 0;
      } else {
        failures += 1;
        this.#wake = new AbortController();
        await delay(1000 + backoff(failures, 200), AbortSignal.any([this.#signal, this.#wake.signal]));
      }
    }
    this.#reading = false;
  }

  async #readOnce() {
    const wanted = this.#wanted;
    try {
      const set = await readFlagSet(this.#url, this.#signal);
      if (this.#signal.aborted) return false;
      if (set.revision > this.#held) {
        this.#held = set.revision;
        this.#onFlags(set);
      }
      return set.revision >= wanted;
    } catch (error) {
      if (error instanceof ApiError) this.#onError(error);
      return false;
    }
  }
}

/** The URL of a ping when this page may read it; it may name another host of the same gateway. */
function sameOrigin(url) {
  if (url === null) return null;
  try {
    return new URL(url).origin === location.origin ? url : null;
  } catch {
    return null;
  }
}
