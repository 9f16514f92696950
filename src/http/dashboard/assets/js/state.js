// The one store of the page. Views never hold data of their own: they watch a part of this state
// and draw it again when that part has changed.

/** What is known before anyone has signed in. */
export const INITIAL = {
  token: null,
  caller: null, // the token that asks: name, role, scope
  signIn: { busy: false, error: null },
  projects: null, // null: not read yet
  environments: null, // of the chosen project
  route: { project: null, environment: null, view: "flags" },
  notice: null, // {kind, text, secret}
};

/** The log of deliveries of an endpoint, while none is open. */
export const BLANK_LOG = {
  webhook: null, // whose log it is
  state: "", // only deliveries in this state; all if empty
  items: null, // null: not read yet
  wanted: 0, // rows to show
  more: false, // whether there are older ones
  opened: {}, // by delivery: its attempts {detail, busy, error}
  recovered: null, // how many were put back into the queue
  error: null,
};

/** What belongs to the chosen environment; it is blank again when another one is chosen. */
export const BLANK_ENVIRONMENT = {
  environment: null,
  connection: "connecting",
  held: null, // the newest flag set, read like any client reads it
  readError: null,
  details: null, // description and tags by flag key, from the management API
  pending: {}, // by flag key: a change that is not read back yet
  rowErrors: {}, // by flag key
  flashes: {}, // by flag key: the revision that changed it on this page
  log: { pings: [], clicks: [] },
  announcement: "",
  streams: null,
  streamsError: null,
  audit: { items: null, cursor: null, busy: false, error: null },
  webhooks: { items: null, error: null },
  webhookNotes: {}, // by endpoint, what was done to it here: {busy, error, said, secret}
  deliveries: BLANK_LOG,
};

/** Makes a store. Watchers run once per task, after all changes of that task. */
export function createStore(initial) {
  let state = initial;
  let queued = false;
  const watchers = new Set();

  function flush() {
    queued = false;
    for (const run of [...watchers]) run();
  }

  return {
    get: () => state,

    /** Replaces the named parts; `change` is an object or a function of the present state. */
    set(change) {
      state = { ...state, ...(typeof change === "function" ? change(state) : change) };
      if (queued) return;
      queued = true;
      queueMicrotask(flush);
    },

    /** Calls `react(...parts)` now and whenever one of `select(state)` is another object. */
    watch(select, react) {
      let last = null;
      const run = () => {
        const parts = select(state);
        if (last !== null && parts.every((part, i) => Object.is(part, last[i]))) return;
        last = parts;
        react(...parts);
      };
      watchers.add(run);
      run();
      return () => watchers.delete(run);
    },
  };
}

/** Whether the signed-in token may change flags. */
export function mayEdit(caller) {
  return caller?.role === "editor" || caller?.role === "admin";
}

/** Whether it may make, change and delete webhooks. */
export function mayAdminister(caller) {
  return caller?.role === "admin";
}

/** A copy of `map` without `key`. */
export function without(map, key) {
  const { [key]: _, ...rest } = map;
  return rest;
}
