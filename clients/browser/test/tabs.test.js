// Several tabs of one browser: one stream, one read, and somebody who leads.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { STORED, World, readUrl } from './world.js';

/** A world with `count` tabs; the first leads. */
async function browser(count, setting = {}) {
  const world = Object.assign(new World(), setting);
  const tabs = [];
  for (let tab = 0; tab < count; tab++) {
    tabs.push(world.open());
    await world.move(3_000);
  }
  return { world, tabs };
}

const revisions = (tabs) => tabs.map(({ flags }) => flags.revision);
const fire = (target, type) => target.dispatchEvent(new Event(type));

/** The number of the tab that has the only stream. */
function leader(world) {
  assert.equal(world.listening.length, 1);
  return world.listening[0].tab.number;
}

test('three tabs have one stream, and one read for each change', async () => {
  const { world, tabs } = await browser(3);
  assert.equal(leader(world), 0);
  assert.equal(world.streams.length, 1);
  assert.deepEqual(revisions(tabs), [1, 1, 1]);
  assert.equal(world.reads.length, 1);
  for (const change of [2, 3, 4]) {
    world.change();
    await world.move(100);
    assert.deepEqual(revisions(tabs), Array(3).fill(change));
    assert.equal(world.reads.length, change);
  }
  assert.deepEqual(tabs[2].changes, [2, 3, 4]);
  assert.deepEqual(tabs[2].flags.all(), world.body().flags);
});

test('tabs that open at once read once', async () => {
  const world = new World();
  const tabs = [world.open(), world.open(), world.open()];
  await world.move(10_000);
  assert.deepEqual(revisions(tabs), [1, 1, 1]);
  assert.equal(world.reads.length, 1);
  assert.equal(world.streams.length, 1);
});

test('a tab without a stored copy asks the leader', async () => {
  const { world } = await browser(1);
  world.storage.items.clear();
  const late = world.open();
  await world.move(1);
  assert.equal(late.flags.revision, 1);
  assert.equal(await late.flags.ready, true);
  await world.move(10_000);
  assert.equal(world.reads.length, 1);
  assert.equal(world.streams.length, 1);
});

test('a tab does not hurry a leader that has no flags yet', async () => {
  const world = new World();
  world.isUp = false;
  const tabs = [world.open(), world.open()];
  await world.move(30_000);
  assert.equal(tabs[1].streams.length, 0);
  assert.ok(world.reads.every(({ tab }) => tab === tabs[0]));
});

for (const [how, go] of [
  ['closes', (tab) => (fire(tab.window, 'pagehide'), tab.crash())],
  ['crashes', (tab) => tab.crash()],
  ['closes its client', (tab) => tab.flags.close()],
]) {
  test(`when the leader ${how}, another leads within a moment`, async () => {
    const { world, tabs } = await browser(3);
    go(tabs[0]);
    await world.move(50);
    assert.equal(leader(world), 1);
    world.change();
    await world.move(100);
    assert.deepEqual(revisions(tabs), [1, 2, 2]);
    assert.equal(world.reads.length, 2);
  });
}

test('a change while nobody leads is learnt by the next leader', async () => {
  const { world, tabs } = await browser(2);
  world.latency = 1_000;
  world.change();
  await world.move(500);
  tabs[0].crash();
  await world.move(5_000);
  assert.equal(tabs[1].flags.revision, 2);
  assert.equal(world.reads.length, 3);
});

test('a leader hidden for 20 s gives way to a visible tab', async () => {
  const { world, tabs } = await browser(2);
  tabs[0].hide();
  await world.move(19_000);
  assert.equal(leader(world), 0);
  await world.move(1_500);
  assert.equal(leader(world), 1);
  // The hidden tab is told still.
  world.change();
  await world.move(100);
  assert.deepEqual(revisions(tabs), [2, 2]);
  // And does not take the lead back.
  tabs[1].crash();
  await world.move(60_000);
  assert.equal(world.listening.length, 0);
});

test('a glance at another tab changes nothing', async () => {
  const { world, tabs } = await browser(1);
  tabs[0].hide();
  await world.move(15_000);
  tabs[0].hide(false);
  await world.move(60_000);
  assert.equal(world.streams.length, 1);
  assert.equal(leader(world), 0);
});

test('nobody looks: no stream, no reads; who looks again knows at once', async () => {
  const { world, tabs } = await browser(2);
  for (const tab of tabs) tab.hide();
  await world.move(21_000);
  assert.equal(world.listening.length, 0);
  world.change();
  fire(tabs[0].window, 'online');
  await world.move(3_600_000);
  assert.equal(world.listening.length, 0);
  assert.equal(world.reads.length, 1);
  tabs[1].hide(false);
  await world.move(100);
  assert.equal(leader(world), 1);
  assert.deepEqual(revisions(tabs), [2, 2]);
  assert.deepEqual(world.reads.map(({ url }) => url), [readUrl(), readUrl(2)]);
});

test('a tab that opens behind others leaves after a while', async () => {
  const world = new World();
  const tab = world.open({ hidden: true });
  await world.move(1_000);
  assert.equal(tab.flags.revision, 1);
  await world.move(20_000);
  assert.equal(world.listening.length, 0);
});

for (const [target, away, back] of [
  ['window', 'pagehide', 'pageshow'],
  ['document', 'freeze', 'resume'],
]) {
  test(`${away} ends everything, ${back} begins it again`, async () => {
    const { world, tabs } = await browser(1);
    fire(tabs[0][target], away);
    await world.move(60_000);
    assert.equal(world.listening.length, 0);
    assert.equal(world.channels.size, 0);
    world.change();
    fire(tabs[0][target], back);
    await world.move(100);
    assert.equal(tabs[0].flags.revision, 2);
    assert.equal(leader(world), 0);
    assert.equal(world.channels.size, 1);
  });
}

test('the first pageshow changes nothing', async () => {
  const { world, tabs } = await browser(1);
  fire(tabs[0].window, 'pageshow');
  await world.move(10_000);
  assert.equal(world.streams.length, 1);
});

test('the lead is taken from a leader that is frozen, and is not taken back', async () => {
  const { world, tabs } = await browser(1);
  tabs[0].frozen = true;
  world.storage.items.clear();
  const second = world.open();
  await world.move(2_500);
  assert.equal(second.flags.revision, 1);
  assert.equal(second.streams.length, 1);
  tabs[0].thaw();
  await world.move(5_000);
  assert.equal(leader(world), second.number);
  world.change();
  await world.move(100);
  assert.deepEqual(revisions([tabs[0], second]), [2, 2]);
  // Who lost it waits for its turn like everybody.
  second.flags.close();
  await world.move(100);
  assert.equal(leader(world), 0);
});

test('only a leader answers, so that a frozen one is noticed', async () => {
  const { world, tabs } = await browser(2);
  tabs[0].frozen = true;
  const third = world.open();
  await world.move(2_500);
  assert.equal(third.streams.length, 1);
  world.change();
  await world.move(100);
  assert.deepEqual(revisions(tabs), [1, 2]);
});

test('a frozen leader is replaced once', async () => {
  const { world, tabs } = await browser(1);
  tabs[0].frozen = true;
  world.open();
  await world.move(500);
  world.open();
  await world.move(10_000);
  assert.deepEqual(world.tabs.map(({ streams }) => streams.length), [1, 1, 0]);
});

test('a client that is closed at once never leads', async () => {
  const world = new World();
  world.open().flags.close();
  await world.move(10_000);
  assert.equal(world.streams.length, 0);
  assert.equal(world.reads.length, 0);
});

test('without locks, tabs still spare each other reads', async () => {
  const { world, tabs } = await browser(2, { hasLocks: false });
  world.reads.length = 0;
  for (const [change, chances] of [[2, [0.1, 0.9]], [3, [0.9, 0.1]]]) {
    world.random = () => chances.shift() ?? 0.5;
    world.change({ spread_ms: 10_000 });
    await world.move(2_000);
    assert.deepEqual(revisions(tabs), [change, change]);
    await world.move(10_000);
    assert.equal(world.reads.length, change - 1);
  }
});

for (const [what, setting] of [
  ['locks', { hasLocks: false }],
  ['channels', { hasChannels: false }],
  ['either', { hasLocks: false, hasChannels: false }],
  ['permission for locks', { locksAreForbidden: true }],
]) {
  test(`without ${what}, each tab has its own stream`, async () => {
    const { world, tabs } = await browser(2, setting);
    assert.equal(world.listening.length, 2);
    world.change();
    await world.move(500);
    assert.deepEqual(revisions(tabs), [2, 2]);
    tabs[0].hide();
    await world.move(21_000);
    assert.equal(leader(world), 1);
    fire(tabs[1].window, 'pagehide');
    fire(tabs[1].window, 'pageshow');
    await world.move(100);
    assert.equal(leader(world), 1);
    assert.deepEqual(tabs.flatMap(({ errors }) => errors), []);
  });
}

test('an older set from another tab is not taken', async () => {
  const { world, tabs } = await browser(2);
  world.revision = 6;
  world.change();
  await world.move(100);
  const [channel] = [...world.channels].filter(({ tab }) => tab === tabs[0]);
  channel.postMessage({ revision: 3, flags: {} });
  await world.move(100);
  assert.deepEqual(revisions(tabs), [7, 7]);
});

test('every tab heals a stored copy that another wrote too late', async () => {
  const { world } = await browser(2);
  const late = JSON.stringify({ revision: 1, flags: {} });
  const { setItem } = world.storage;
  let writes = 0;
  world.storage.setItem = (name, value) => {
    setItem.call(world.storage, name, value);
    // Two tabs compared at the same time; the older one wrote last.
    if (++writes === 1) setItem.call(world.storage, name, late);
  };
  world.change();
  await world.move(100);
  assert.equal(JSON.parse(world.storage.getItem(STORED)).revision, 2);
});

test('environments and gateways do not mix', async () => {
  const { world, tabs } = await browser(1);
  world.open({ client: { key: 'other' } });
  world.open({ client: { url: 'https://other.example.com' } });
  await world.move(1_000);
  assert.equal(world.listening.length, 3);
  assert.equal(new Set(world.listening.map(({ url }) => url)).size, 3);
  assert.equal(world.storage.items.size, 3);
  assert.equal(tabs[0].flags.revision, 1);
});
