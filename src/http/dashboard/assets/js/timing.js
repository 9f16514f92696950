// Waiting and repeating, always with a way to stop.

/** Resolves after `ms`, or at once when `signal` aborts. */
export function delay(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}

/** Waiting time before the next try: doubles from `first` to `most`, with half of it random. */
export function backoff(failures, first = 1000, most = 15000) {
  const full = Math.min(most, first * 2 ** Math.max(0, failures - 1));
  return full / 2 + (Math.random() * full) / 2;
}

/** Wraps an async task: one run at a time, and calls during a run lead to one more run after it. */
export function coalesced(task, gapMs, signal) {
  let running = false;
  let again = false;
  return async function run() {
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      await task();
      await delay(gapMs, signal);
    } while (again && !signal.aborted);
    running = false;
  };
}

/** Runs `task` every `ms` as long as `wanted()`; `soon()` brings the next run forward. */
export function poll(task, ms, wanted, signal) {
  let wake = new AbortController();
  (async () => {
    while (!signal.aborted) {
      if (wanted()) await task();
      wake = new AbortController();
      await delay(ms, AbortSignal.any([signal, wake.signal]));
    }
  })();
  return { soon: () => wake.abort() };
}
