// What is known of the flags: one set at a time, swapped as a whole, never for an older one.

/** A whole flag set of one environment. It never changes; a newer one takes its place. */
export class FlagSet {
  constructor({ environment, revision, updated_at: updatedAt, flags }) {
    if (!Number.isSafeInteger(revision)) throw new Error('`revision` is no whole number');
    if (!Number.isFinite(updatedAt)) throw new Error('`updated_at` is no number');
    if (!flags || typeof flags !== 'object') throw new Error('`flags` is no object');
    this.environment = environment;
    this.revision = revision;
    this.updatedAt = updatedAt;
    // A map: a flag may have the name of something that every object has.
    this.flags = new Map();
    for (const [key, flag] of Object.entries(flags)) {
      if (typeof flag?.enabled !== 'boolean') throw new Error(`flag \`${key}\` is neither on nor off`);
      this.flags.set(key, Object.freeze({ enabled: flag.enabled, value: flag.value ?? null }));
    }
    Object.freeze(this);
  }

  /** The set as the text that a store keeps. */
  toText(clientKey) {
    const { environment, revision, updatedAt, flags } = this;
    const copy = { client_key: clientKey, environment, revision, updated_at: updatedAt };
    return `${JSON.stringify({ ...copy, flags: Object.fromEntries(flags) })}\n`;
  }

  /** The set in such a text. Throws when there is none, or one of another environment. */
  static fromText(text, clientKey) {
    const copy = JSON.parse(text);
    if (copy?.client_key !== clientKey)
      throw new Error(`it is of client key \`${copy?.client_key}\`, not of \`${clientKey}\``);
    return new FlagSet(copy);
  }
}

/** Holds the newest set. `listen(set)` is called after each swap, and must not throw. */
export function holder(listen) {
  let held;
  const waiting = new Set();

  const holds = (updatedAt) => held !== undefined && held.updatedAt >= updatedAt;

  return {
    get held() {
      return held;
    },
    /** Whether what is held is at least as new as `updatedAt`. */
    holds,
    /**
     * Takes `set` if it is newer, and says whether it was. `updatedAt` decides: after a restore from a
     * backup revisions count from an earlier one again, and the time goes on.
     */
    swap(set) {
      if (holds(set.updatedAt)) return false;
      held = set;
      for (const check of [...waiting]) check();
      listen(set);
      return true;
    },
    /**
     * Calls `then` once something at least as new as `updatedAt` is held, maybe at once. Returns a
     * function that ends the wait.
     */
    when(updatedAt, then) {
      const check = () => {
        if (!holds(updatedAt)) return;
        waiting.delete(check);
        then();
      };
      waiting.add(check);
      check();
      return () => waiting.delete(check);
    },
  };
}
