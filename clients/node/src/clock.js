// Time, as a test can move it, and timers that keep no process alive. All in milliseconds.

/** The machine's time. Options take another one of this shape. */
export const systemClock = {
  now: () => Date.now(),
  setTimeout: (then, wait) => setTimeout(then, wait),
  clearTimeout: (timer) => clearTimeout(timer),
  random: () => Math.random(),
};

/** Timers by name: to set one anew is to stop the old one. Those that are set end with `end`. */
export function timersOf(clock) {
  const timers = new Map();
  let hasEnded = false;

  function stop(name) {
    clock.clearTimeout(timers.get(name));
    timers.delete(name);
  }

  return {
    stop,
    after(name, wait, then) {
      stop(name);
      if (hasEnded) return;
      const timer = clock.setTimeout(() => {
        timers.delete(name);
        then();
      }, wait);
      timer?.unref?.();
      timers.set(name, timer);
    },
    end() {
      hasEnded = true;
      [...timers.keys()].forEach(stop);
    },
  };
}

/** `wait` up to a fifth shorter or longer, so that a crowd does not come at once. */
export const jittered = (clock, wait) => wait * (0.8 + 0.4 * clock.random());
