// Keeps the store and what is held at the same set, the newest: it loads first, saves what is new, and
// takes what another process has saved.
//
// Several processes of an app share a store, and a webhook reaches only one of them. Nothing here
// happens while somebody waits for a flag, and a store that fails harms nothing.

import { FlagSet } from './copy.js';
import { timersOf } from './clock.js';
import { told } from './reads.js';

/** When a save that failed is tried again, in milliseconds. */
const RETRY = 60_000;

/** Keeps `holder` in `store`: `{ load, save, watch?, loadNow? }`; it may answer at once or by a promise. */
export function keeper({ store, holder, clientKey, clock, log }) {
  const timers = timersOf(clock);
  let kept; // the set that the store has, as far as is known
  let isSaving = false;
  let isFailing = false;
  let isClosed = false;
  let unwatch;

  /** Whether the store has something that is not ours to replace unasked. */
  function take(text) {
    if (text === null || text === undefined) return false;
    try {
      const set = FlagSet.fromText(text, clientKey);
      kept = set;
      holder.swap(set);
      return false;
    } catch (error) {
      log.warn(`the stored copy of the flags is left aside: ${told(error)}`);
      return true;
    }
  }

  const isKept = () => kept !== undefined && kept.updatedAt >= (holder.held?.updatedAt ?? -Infinity);

  /** Saves what is held, unless the store has something as new. */
  async function saveOnce() {
    kept = undefined;
    try {
      const text = await store.load();
      if (text) kept = FlagSet.fromText(text, clientKey);
    } catch {
      // Whatever it is, it can be replaced: there is something better.
    }
    if (kept) holder.swap(kept);
    if (isKept()) return;
    const set = holder.held;
    await store.save(set.toText(clientKey));
    kept = set;
  }

  async function save() {
    if (isSaving || !holder.held) return;
    isSaving = true;
    timers.stop('retry');
    try {
      while (!isKept()) await saveOnce();
      isFailing = false;
    } catch (error) {
      if (!isFailing) log.warn(`cannot keep a copy of the flags: ${told(error)}; going on without`);
      isFailing = true;
      timers.after('retry', RETRY, save);
    }
    isSaving = false;
  }

  /** After the store has changed: takes what is newer, and puts back what is. */
  async function reload() {
    try {
      const text = await store.load();
      kept = undefined;
      const isForeign = take(text);
      // Two apps that share one place by mistake must not write in turns for ever.
      if (!isForeign && !isKept()) await save();
    } catch (error) {
      log.warn(`cannot read the stored copy of the flags: ${told(error)}`);
    }
  }

  async function follow() {
    try {
      const stop = await store.watch?.(reload);
      if (typeof stop !== 'function') return;
      unwatch = stop;
      if (isClosed) stop();
    } catch (error) {
      log.warn(`cannot watch the stored copy of the flags: ${told(error)}`);
    }
  }

  return {
    save,
    /** Loads what is there; before it returns, if the store answers at once. Then follows the store. */
    start() {
      const failed = (error) => log.warn(`cannot read the stored copy of the flags: ${told(error)}`);
      try {
        const text = store.loadNow ? store.loadNow() : store.load();
        if (typeof text?.then !== 'function') take(text);
        else text.then(take).catch(failed);
      } catch (error) {
        failed(error);
      }
      follow();
    },
    close() {
      isClosed = true;
      timers.end();
      unwatch?.();
    },
  };
}
