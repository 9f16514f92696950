// The flags of one environment in the memory of a server app, kept new by signed webhooks.
//
// Here the parts are joined: `options` are checked, a `holder` has the flags, `reads` and a `keeper` bring
// newer ones, the `receiver` decides about deliveries, and `handlers` are its doors.

import { handlers } from './handlers.js';
import { holder as holderOf } from './copy.js';
import { keeper as keeperOf } from './keeper.js';
import { reads as readsOf } from './reads.js';
import { receiver as receiverOf } from './receiver.js';
import { settle } from './options.js';
import { told } from './reads.js';

/** Waits for a first set. A wait keeps the process alive: somebody is waiting. */
function readiness(holder, readyMs, clock) {
  let promise;
  let isOver = false;
  let finish = () => {};
  function begin(resolve) {
    if (isOver) return resolve(holder.held !== undefined);
    let timer;
    finish = () => {
      clock.clearTimeout(timer);
      cancel();
      resolve(holder.held !== undefined);
    };
    // For ever is as long as a timer can wait.
    timer = clock.setTimeout(() => finish(), readyMs || 2 ** 31 - 1);
    const cancel = holder.when(-Infinity, () => queueMicrotask(() => finish()));
  }
  return {
    get promise() {
      promise ??= new Promise(begin);
      return promise;
    },
    end() {
      isOver = true;
      finish();
    },
  };
}

/** Calls all listeners; one that fails is told to the log, and to nobody else. */
function listenersOf(log) {
  const listeners = new Set();
  const failed = (error) => log.error(`a listener failed: ${told(error)}`);
  return {
    listeners,
    call(flags) {
      for (const listener of [...listeners]) {
        try {
          const result = listener(flags);
          if (typeof result?.then === 'function') result.then(undefined, failed);
        } catch (error) {
          failed(error);
        }
      }
    },
  };
}

/** Follows one environment. README.md and index.d.ts say what the options are and what is returned. */
export function flagcast(options) {
  const { clientKey, keys, store, onChange, readyMs, applyMs, clock, log, ...reading } = settle(options);
  const { listeners, call } = listenersOf(log);
  let hasBegun = false; // what is there from the first moment is no change

  const holder = holderOf(() => {
    keeper?.save();
    if (hasBegun) call(flags);
  });
  const reads = readsOf({ ...reading, holder, clock, log });
  const keeper = store && keeperOf({ store, holder, clientKey, clock, log });
  const receiver = receiverOf({ clientKey, keys, holder, reads, applyMs, clock });
  const ready = readiness(holder, readyMs, clock);

  const flags = {
    ...handlers({ receive: receiver.receive, log }),
    get ready() {
      return ready.promise;
    },
    get revision() {
      return holder.held?.revision ?? -1;
    },
    get updatedAt() {
      return holder.held?.updatedAt ?? 0;
    },
    enabled: (flag, otherwise = false) => holder.held?.flags.get(flag)?.enabled ?? otherwise,
    value: (flag, otherwise) => holder.held?.flags.get(flag)?.value ?? otherwise,
    all: () => Object.fromEntries(holder.held?.flags ?? []),
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      listeners.clear();
      reads.close();
      keeper?.close();
      receiver.close();
      ready.end();
    },
  };

  if (onChange) flags.on(onChange);
  keeper?.start();
  hasBegun = true;
  reads.start();
  return flags;
}
