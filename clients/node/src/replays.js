// Which attempts have been here: the same id with the same timestamp is a recording, played again.
//
// An attempt is remembered for as long as its timestamp could still pass the check of the time.

/** How far a timestamp may be from now, in seconds. */
export const TOLERANCE = 300;

// Only who has the secret gets in here, so this is a matter of memory, not of defence.
const LIMIT = 10_000;

/** Remembers attempts; `now` gives milliseconds. */
export function replays(now) {
  const seen = new Map(); // attempt -> when it came; the oldest is first

  function prune() {
    for (const [attempt, at] of seen) {
      const isOver = now() - at > 2 * TOLERANCE * 1000;
      if (!isOver && seen.size < LIMIT) return;
      seen.delete(attempt);
    }
  }

  return {
    /** Whether this attempt is the first of its kind; from then on it is not. */
    isNew(id, timestamp) {
      const attempt = `${timestamp} ${id}`;
      if (seen.has(attempt)) return false;
      prune();
      seen.set(attempt, now());
      return true;
    },
    get size() {
      return seen.size;
    },
  };
}
