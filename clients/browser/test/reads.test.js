// What is read, when, and what is held afterwards: rules of one tab.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BASE, KEY, STORED, World, readUrl } from './world.js';

/** A world with one tab that knows the flags and has its stream. */
async function following() {
  const world = new World();
  const tab = world.open();
  await world.move(1000);
  assert.equal(world.reads.length, 1);
  world.reads.length = 0;
  return { world, tab };
}

const urls = (world) => world.reads.map(({ url }) => url);

test('the first load reads once, and revalidates', async () => {
  const world = new World();
  const tab = world.open();
  assert.equal(tab.flags.revision, -1);
  assert.equal(tab.flags.enabled('dark-mode', true), true);
  await world.move(30_000);
  assert.equal(await tab.flags.ready, true);
  assert.deepEqual(urls(world), [readUrl()]);
  assert.equal(world.reads[0].init.cache, 'no-cache');
  assert.equal(world.streams[0].url, `${BASE}/ofrep/v1/streams/${KEY}`);
});

test('answers are at hand', async () => {
  const { world, tab } = await following();
  const { flags } = tab;
  assert.equal(flags.revision, 1);
  assert.equal(flags.enabled('dark-mode', true), false);
  assert.equal(flags.enabled('unknown'), false);
  assert.equal(flags.enabled('unknown', true), true);
  assert.equal(flags.enabled('constructor'), false);
  assert.equal(flags.value('banner', 'hello'), 'at 1');
  assert.equal(flags.value('dark-mode', 'none'), 'none');
  assert.equal(flags.value('unknown'), undefined);
  assert.deepEqual(flags.all(), world.body().flags);
  delete flags.all().banner;
  assert.equal(flags.value('banner'), 'at 1');
});

test('a ping is followed by one pinned read, and one call', async () => {
  const { world, tab } = await following();
  tab.changes.length = 0;
  const seen = [];
  const off = tab.flags.on((flags) => seen.push(flags.enabled('dark-mode')));
  world.change();
  await world.move(100);
  assert.deepEqual(urls(world), [readUrl(2)]);
  assert.equal(world.reads[0].init.cache, 'default');
  assert.equal(world.reads[0].init.headers, undefined);
  assert.deepEqual(tab.changes, [2]);
  off();
  world.change();
  await world.move(100);
  assert.deepEqual(tab.changes, [2, 3]);
  assert.deepEqual(seen, [true]);
});

test('a burst takes two reads at most', async () => {
  const { world, tab } = await following();
  world.latency = 300;
  const bodies = [];
  world.onRead = () => {
    bodies.push(world.revision);
    return undefined;
  };
  for (let change = 0; change < 20; change++) {
    world.change();
    await world.move(10);
  }
  await world.move(5_000);
  assert.deepEqual(urls(world), [readUrl(2), readUrl(21)]);
  assert.equal(tab.flags.revision, 21);
});

test('a ping during a read needs no other when the answer is new enough', async () => {
  const { world, tab } = await following();
  world.latency = 300;
  world.onRead = () => ({ body: world.body(3) });
  world.change();
  await world.move(100);
  world.change();
  await world.move(5_000);
  assert.deepEqual(urls(world), [readUrl(2)]);
  assert.equal(tab.flags.revision, 3);
});

test('an older set never replaces a newer one', async () => {
  const { world, tab } = await following();
  world.revision = 7;
  world.change();
  await world.move(100);
  assert.equal(tab.flags.revision, 8);
  tab.changes.length = 0;
  // The safety poll meets a cache that is behind.
  world.onRead = () => ({ body: world.body(5) });
  await world.move(400_000);
  assert.ok(world.reads.length > 1);
  assert.equal(tab.flags.revision, 8);
  assert.equal(tab.flags.value('banner'), 'at 8');
  assert.equal(JSON.parse(world.storage.getItem(STORED)).revision, 8);
  assert.deepEqual(tab.changes, []);
});

const REFUSALS = {
  'not known yet': { status: 404, body: { title: 'revision not known yet' } },
  'a failure': { status: 503, body: null },
  'an error page': { status: 503, body: { revision: 99, flags: {} } },
  'no network': new TypeError('failed to fetch'),
  'an older body': { body: { revision: 1, flags: {} } },
  'no flag set': { body: { revision: 99 } },
};
for (const [what, answer] of Object.entries(REFUSALS)) {
  test(`backs off after ${what}, and wants the newest then`, async () => {
    const { world, tab } = await following();
    world.random = () => 0.999999;
    world.latency = 0;
    world.onRead = () => answer;
    world.change();
    await world.move(120_000);
    const waits = world.reads.slice(1).map(({ at }, nth) => Math.round(at - world.reads[nth].at));
    assert.deepEqual(waits.slice(0, 9), [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000]);
    assert.equal(tab.flags.revision, 1);
    // Pings do not shorten it.
    const before = world.reads.length;
    world.change();
    world.change();
    await world.move(100);
    assert.equal(world.reads.length, before);
    world.onRead = () => undefined;
    await world.move(30_000);
    assert.equal(world.reads.at(-1).url, readUrl(4));
    assert.equal(tab.flags.revision, 4);
    // And the next failure begins at the beginning.
    world.onRead = () => answer;
    world.reads.length = 0;
    world.change();
    await world.move(650);
    assert.equal(world.reads.length, 3);
  });
}

test('the back-off has full jitter', async () => {
  const { world } = await following();
  world.latency = 0;
  world.onRead = () => new TypeError('down');
  world.random = () => 0.25;
  world.change();
  await world.move(700);
  assert.deepEqual(
    world.reads.map(({ at }) => at - world.reads[0].at),
    [0, 50, 150, 350],
  );
});

test('what cannot be read is not read after the end', async () => {
  const world = new World();
  world.isUp = false;
  const tab = world.open();
  await world.move(1_000);
  world.latency = 500;
  const before = world.reads.length;
  tab.flags.close();
  await world.move(120_000);
  assert.equal(world.reads.length, before);
  // Nor when the end comes in the middle of a read.
  const other = world.open();
  await world.move(100);
  other.flags.close();
  await world.move(120_000);
  assert.equal(world.reads.length, before + 1);
});

test('there is one read at a time, also when the page leaves and returns', async () => {
  const world = new World();
  world.latency = 5_000;
  const tab = world.open();
  await world.move(1_000);
  tab.window.dispatchEvent(new Event('pagehide'));
  tab.window.dispatchEvent(new Event('pageshow'));
  await world.move(20_000);
  assert.equal(world.reads.length, 1);
  assert.equal(tab.flags.revision, 1);
});

test('what could not be read before the page left is read when it returns', async () => {
  const { world, tab } = await following();
  world.onRead = () => new TypeError('down');
  world.change();
  await world.move(20_000);
  tab.window.dispatchEvent(new Event('pagehide'));
  world.onRead = () => undefined;
  tab.window.dispatchEvent(new Event('pageshow'));
  await world.move(100);
  assert.equal(tab.flags.revision, 2);
});

test('a read that hangs is given up', async () => {
  const { world, tab } = await following();
  world.onRead = () => 'never';
  world.change();
  await world.move(5_000);
  world.onRead = () => undefined;
  assert.equal(world.reads.length, 1);
  await world.move(10_000);
  assert.equal(tab.flags.revision, 2);
});

test('without flags, reads go on until there are some', async () => {
  const world = new World();
  world.isUp = false;
  const tab = world.open();
  await world.move(20_000);
  assert.ok(world.reads.length > 3 && world.reads.length < 15, `${world.reads.length} reads`);
  assert.equal(await tab.flags.ready, false);
  world.isUp = true;
  await world.move(60_000);
  assert.equal(tab.flags.revision, 1);
});

test('spread_ms is obeyed: a newer ping does not begin the wait anew', async () => {
  const { world, tab } = await following();
  world.change({ spread_ms: 10_000 });
  await world.move(3_000);
  world.change({ spread_ms: 10_000 });
  await world.move(1_900);
  assert.equal(world.reads.length, 0);
  await world.move(200);
  assert.deepEqual(urls(world), [readUrl(3)]);
  assert.equal(tab.flags.revision, 3);
});

test('an urgent ping ends the wait', async () => {
  const { world, tab } = await following();
  world.change({ spread_ms: 10_000 });
  await world.move(1_000);
  world.change({ spread_ms: 0 });
  await world.move(50);
  assert.equal(tab.flags.revision, 3);
  await world.move(20_000);
  assert.deepEqual(urls(world), [readUrl(3)]);
});

test('a heartbeat that says nothing new does not end the wait', async () => {
  const { world } = await following();
  world.change({ spread_ms: 20_000 });
  await world.move(9_500);
  assert.equal(world.reads.length, 0);
  await world.move(1_000);
  assert.equal(world.reads.length, 1);
});

test('a ping that says nothing new begins no wait', async () => {
  const world = new World();
  world.storage.setItem(STORED, JSON.stringify({ revision: 1, flags: {} }));
  world.onStream = (stream) => {
    stream.open();
    stream.say(world.ping({ spread_ms: 10_000 }));
  };
  world.open();
  await world.move(4_000);
  world.change({ spread_ms: 10_000 });
  await world.move(4_500);
  assert.equal(world.reads.length, 0);
  await world.move(1_000);
  assert.equal(world.reads.length, 1);
});

test('a ping during a read obeys its spread too', async () => {
  const { world } = await following();
  world.latency = 500;
  world.onRead = () => ({ body: world.body(2) });
  world.change();
  await world.move(100);
  world.change({ spread_ms: 10_000 });
  world.onRead = () => undefined;
  await world.move(5_000);
  assert.deepEqual(urls(world), [readUrl(2)]);
  await world.move(1_000);
  assert.deepEqual(urls(world), [readUrl(2), readUrl(3)]);
});

test('a heartbeat with a newer revision stands for a missed ping', async () => {
  const { world, tab } = await following();
  world.revision = 5;
  await world.move(6_000);
  assert.deepEqual(urls(world), [readUrl(5)]);
  assert.equal(tab.flags.revision, 5);
});

test('a slow poll catches what the stream does not say, every 5 min ± 50 %', async () => {
  for (const [random, interval] of [[0, 150_000], [0.5, 300_000], [1, 450_000]]) {
    const world = new World();
    world.random = () => random;
    const tab = world.open();
    world.ping = () => ({ type: 'state', revision: 1, heartbeat_s: 5 });
    world.serveStream = (stream) => {
      stream.open();
      const beat = () => (stream.say(world.ping()), world.clock.set(null, beat, 5_000));
      beat();
    };
    await world.move(interval - 1_000);
    world.reads.length = 0;
    world.revision = 9;
    await world.move(interval * 3);
    assert.deepEqual(urls(world), Array(3).fill(readUrl()));
    assert.equal(world.reads[0].init.cache, 'no-cache');
    assert.equal(world.reads[2].at - world.reads[1].at, interval);
    assert.equal(tab.flags.revision, 9);
  }
});

test('flags of a stored copy are there at once, without a read', async () => {
  const world = new World();
  world.storage.setItem(STORED, JSON.stringify({ revision: 1, flags: world.body(1).flags }));
  const tab = world.open();
  assert.equal(tab.flags.revision, 1);
  assert.equal(await tab.flags.ready, true);
  await world.move(60_000);
  assert.equal(world.reads.length, 0);
  assert.deepEqual(tab.changes, [], 'what was there at the beginning is no change');
  world.change();
  await world.move(100);
  assert.deepEqual(tab.changes, [2]);
});

test('a stored copy is checked even when the stream stays silent', async () => {
  const world = new World();
  world.storage.setItem(STORED, JSON.stringify({ revision: 1, flags: {} }));
  world.revision = 4;
  world.onStream = () => {};
  const tab = world.open();
  await world.move(3_100);
  assert.deepEqual(urls(world), [readUrl()]);
  assert.equal(tab.flags.revision, 4);
});

test('the gateway may be away: the stored copy is what there is', async () => {
  const world = new World();
  world.open();
  await world.move(1_000);
  world.crash();
  const later = world.open();
  assert.equal(later.flags.value('banner'), 'at 1');
});

test('storage is a help, not a need', async () => {
  const broken = {
    getItem: () => assert.fail('denied'),
    setItem: () => assert.fail('full'),
  };
  for (const storage of [broken, false, { getItem: () => '{"revision":9}', setItem() {} }]) {
    const world = new World();
    const tab = world.open({ client: { storage } });
    await world.move(1_000);
    assert.equal(tab.flags.revision, 1);
    assert.equal(world.storage.items.size, 0);
  }
});

test('another storage can be given', async () => {
  const world = new World();
  const items = new Map();
  const storage = { getItem: (name) => items.get(name), setItem: (name, to) => items.set(name, to) };
  world.open({ client: { storage } });
  await world.move(1_000);
  assert.equal(JSON.parse(items.get(STORED)).revision, 1);
  assert.equal(world.storage.items.size, 0);
});

test('a newer stored copy of another tab stays', async () => {
  const { world, tab } = await following();
  const newer = JSON.stringify({ revision: 9, flags: {} });
  world.storage.setItem(STORED, newer);
  world.change();
  await world.move(100);
  assert.equal(tab.flags.revision, 2);
  assert.equal(world.storage.getItem(STORED), newer);
});

test('what a listener throws harms nobody', async () => {
  const { world, tab } = await following();
  const seen = [];
  tab.flags.on(() => {
    throw new Error('mine');
  });
  tab.flags.on((flags) => seen.push(flags.revision));
  world.change();
  await world.move(100);
  world.change();
  await world.move(100);
  assert.deepEqual(seen, [2, 3]);
  assert.equal(tab.errors.length, 2);
});

test('listeners may come and go while they are called', async () => {
  const { world, tab } = await following();
  let calls = 0;
  let off;
  const listener = () => {
    if (++calls > 9) return;
    off();
    off = tab.flags.on(listener);
  };
  off = tab.flags.on(listener);
  world.change();
  await world.move(100);
  assert.equal(calls, 1);
});

test('ready waits as long as it is told', async () => {
  const world = new World();
  world.isUp = false;
  const answers = [];
  const tabs = [5_000, 100, 0].map((timeout) => world.open({ client: { timeout } }));
  tabs.forEach(({ flags }, nth) => flags.ready.then((known) => answers.push([nth, known])));
  await world.move(200);
  assert.deepEqual(answers, [[1, false]]);
  await world.move(5_000);
  assert.deepEqual(answers, [[1, false], [0, false]]);
  world.isUp = true;
  await world.move(60_000);
  assert.deepEqual(answers, [[1, false], [0, false], [2, true]]);
});

test('the address may have a path', async () => {
  const world = new World();
  world.open({ client: { url: 'https://cdn.example.net/flags/' } });
  await world.move(100);
  assert.equal(world.streams[0].url, `https://cdn.example.net/flags/ofrep/v1/streams/${KEY}`);
  assert.equal(
    world.reads[0].url,
    `https://cdn.example.net/flags/sdk/v1/environments/${KEY}/flags`,
  );
});

test('reads go where the stream is, whatever the ping names', async () => {
  const { world } = await following();
  world.change({ flags_url: `https://origin.example.org/sdk/v1/environments/${KEY}/flags?rev=2` });
  await world.move(100);
  assert.deepEqual(urls(world), [readUrl(2)]);
});

test('after close nothing happens any more', async () => {
  const { world, tab } = await following();
  tab.changes.length = 0;
  world.latency = 200;
  world.change();
  await world.move(50);
  tab.flags.close();
  await world.move(1_000);
  tab.hide(true);
  tab.hide(false);
  tab.window.dispatchEvent(new Event('pageshow'));
  tab.window.dispatchEvent(new Event('online'));
  world.change();
  await world.move(600_000);
  assert.equal(world.listening.length, 0);
  assert.equal(world.reads.length, 1);
  assert.deepEqual(tab.changes, []);
  assert.deepEqual(tab.errors, []);
  assert.equal(world.channels.size, 0);
});
