// Follows the flags of one environment, with one stream for all tabs of a browser.
// Served as it stands here, so it must stay below 3 kB compressed: README.md explains.
// Times are in milliseconds.

const jitter = () => 0.5 + Math.random();

/** Timers by name: to set one anew is to stop the old one. */
function clockwork() {
  const timers = {};
  const stop = (name) => {
    clearTimeout(timers[name]);
    delete timers[name];
  };
  const after = (name, wait, then) => {
    stop(name);
    timers[name] = setTimeout(() => {
      stop(name);
      then();
    }, wait);
  };
  return { timers, stop, after };
}

/** What is held and stored: it never grows older. */
function keep(name, storage, tell) {
  const store = () => (storage === true ? localStorage : storage);
  const keeper = {
    held: { revision: -1, flags: {} },
    stored() {
      try {
        return JSON.parse(store().getItem(name));
      } catch {}
    },
    /** Whether `news` were newer. */
    apply(news) {
      if (!news?.flags || !(news.revision > keeper.held.revision)) return;
      const { revision, flags } = news;
      keeper.held = { revision, flags };
      try {
        // Another tab may be ahead.
        if (!(keeper.stored()?.revision >= revision))
          store().setItem(name, JSON.stringify(keeper.held));
      } catch {}
      tell();
      return true;
    },
  };
  return keeper;
}

/** Reads, one at a time, the newest revision that is wanted. */
function reads({ timers, stop, after }, url, keeper, share) {
  let wanted = 0;
  let failures = 0;
  let active, reading, spread;

  const read = async () => {
    if (reading) return;
    stop("read");
    reading = true;
    spread = Infinity;
    const asked = wanted;
    const pinned = asked > 0 && asked > keeper.held.revision;
    const cut = new AbortController();
    const limit = setTimeout(() => cut.abort(), 10000);
    try {
      const response = await fetch(pinned ? `${url}?rev=${asked}` : url, {
        cache: pinned ? "default" : "no-cache",
        signal: cut.signal,
      });
      if (response.ok && keeper.apply(await response.json())) share();
    } catch {}
    clearTimeout(limit);
    reading = false;
    const failed = keeper.held.revision < asked;
    if (!failed) failures = 0;
    if (active && keeper.held.revision < wanted)
      readIn(Math.random() * (failed ? Math.min(30000, 200 * 2 ** failures++) : spread));
  };
  const readIn = (wait) =>
    after("read", wait, () => keeper.held.revision < wanted && read());
  const poll = () =>
    after("poll", 300000 * jitter(), () => {
      if (!timers.read) read();
      poll();
    });

  return {
    want(revision, wait = 0) {
      stop("first");
      if (!(revision > Math.max(wanted, keeper.held.revision))) return;
      wanted = revision;
      if (reading) spread = Math.min(spread, wait);
      else if (!timers.read || !(wait || failures)) readIn(Math.random() * wait);
    },
    begin() {
      active = true;
      poll();
      if (keeper.held.revision < 0) read();
      else after("first", 3000, read); // unless the stream speaks
    },
    end() {
      active = false;
      wanted = failures = 0;
    },
  };
}

/** Keeps a stream open; `heard` learns what each event says. */
function streams({ after }, url, heard) {
  let tries, stream;
  const connect = () => {
    let spoke, lasted;
    let patience = 45000;
    const own = (stream = new EventSource(url));
    const end = () => {
      own.close();
      // A stream that says nothing sheds load: 10 to 30 s.
      if (lasted) tries = spoke ? 0 : 9;
      after("stream", jitter() * Math.min(20000, 1000 * 2 ** tries++), connect);
    };
    const watch = () => after("stream", patience, end);
    own.onopen = () => after("lasts", 1000, () => (lasted = true));
    own.onerror = end;
    own.onmessage = ({ data }) => {
      spoke = true;
      try {
        const event = JSON.parse(data);
        if (event.heartbeat_s) patience = 3000 * event.heartbeat_s + 2000;
        heard(event.revision, event.spread_ms);
      } catch {}
      watch();
    };
    watch();
  };
  return {
    begin() {
      tries = 0;
      connect();
    },
    end: () => stream?.close(),
  };
}

/** Makes the tab that has the lock lead: it has the stream, and tells the other tabs. */
function elect({ timers, stop, after }, name, keeper, work) {
  const { locks } = navigator;
  let channel, ticket, leading;

  const share = () => channel?.postMessage(keeper.held);
  const lead = () => {
    leading = true;
    stop("ask");
    share();
    work.forEach((part) => part.begin());
  };
  const queue = (options) => {
    const own = (ticket = new AbortController());
    const { signal } = own;
    if (!locks || !channel) return lead();
    locks
      .request(name, options || { signal }, () => {
        if (signal.aborted) return;
        lead();
        return new Promise((free) => (signal.onabort = free));
      })
      .catch(() => {
        if (ticket !== own) return;
        // Locks are forbidden here; or another tab has stolen ours.
        if (!leading) return lead();
        rest();
        wake();
      });
  };
  const hear = ({ data }) => {
    if (!data) return leading && share();
    stop("ask");
    keeper.apply(data);
  };
  const wake = () => {
    if (ticket) return;
    if (!channel && globalThis.BroadcastChannel) {
      channel = new BroadcastChannel(name);
      channel.onmessage = hear;
    }
    queue();
    if (leading) return;
    channel.postMessage(0);
    // A leader that does not answer is frozen.
    after("ask", 1500 * jitter(), () => {
      ticket.abort();
      queue({ steal: true });
    });
  };
  const rest = () => {
    ticket?.abort();
    ticket = leading = null;
    Object.keys(timers).forEach(stop);
    work.forEach((part) => part.end());
  };
  const leave = () => {
    rest();
    channel?.close();
    channel = null;
  };
  return { share, wake, rest, leave };
}

/** Lets the tab take part while its page is looked at, and a while longer. */
function attend({ wake, rest, leave }, signal) {
  let hiding;
  const look = () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(rest, 20000);
    else wake();
  };
  const start = () => {
    wake();
    look();
  };
  const listen = (target, type, then) => target.addEventListener(type, then, { signal });
  listen(document, "visibilitychange", look);
  listen(document, "freeze", leave);
  listen(document, "resume", start);
  listen(globalThis, "pagehide", leave);
  listen(globalThis, "pageshow", start);
  listen(globalThis, "online", () => {
    if (document.hidden) return;
    rest();
    wake();
  });
  start();
}

export function flagcast({ key, url = "/", onChange, storage = true, timeout = 5000 }) {
  const base = new URL(url, import.meta.url).href.replace(/\/+$/, "");
  const name = `flagcast ${base} ${key}`; // of lock, channel and stored copy
  const listeners = new Set();
  const life = new AbortController();
  let known;

  const keeper = keep(name, storage, () => {
    known(true);
    for (const listener of [...listeners]) {
      try {
        listener(flags);
      } catch (error) {
        console.error(error);
      }
    }
  });
  const clock = clockwork();
  const reader = reads(clock, `${base}/sdk/v1/environments/${key}/flags`, keeper, () => tab.share());
  const stream = streams(clock, `${base}/ofrep/v1/streams/${key}`, reader.want);
  const tab = elect(clock, name, keeper, [stream, reader]);

  const flags = {
    ready: new Promise((resolve) => {
      known = resolve;
      if (timeout) setTimeout(resolve, timeout, false);
    }),
    get revision() {
      return keeper.held.revision;
    },
    enabled: (flag, otherwise = false) => keeper.held.flags[flag]?.enabled ?? otherwise,
    value: (flag, otherwise) => keeper.held.flags[flag]?.value ?? otherwise,
    all: () => ({ ...keeper.held.flags }),
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      life.abort();
      listeners.clear();
      tab.leave();
    },
  };

  keeper.apply(keeper.stored());
  if (onChange) flags.on(onChange);
  attend(tab, life.signal);
  return flags;
}
