// The last known copy: where it is kept, when it counts, and how processes share it.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { fileStore } from '../src/store.js';
import { KEY, World, directory, eventually, settle } from './world.js';

const read = (path) => JSON.parse(readFileSync(path, 'utf8'));

const holds = (path, revision) => {
  try {
    return read(path).revision === revision;
  } catch {
    return false;
  }
};
const saved = (path, revision) => eventually(`revision ${revision} is in ${path}`, () => holds(path, revision));

/** Lets a receiver look at its file, as it does once a second. */
async function look(world, what, check) {
  await eventually(what, async () => {
    await world.clock.move(1_000);
    return check();
  });
}

/** A world, and a file with what it had at revision 1. */
async function withCopy(context) {
  const world = new World();
  const path = join(directory(context), 'flags.json');
  const flags = await world.following({ store: path });
  await saved(path, 1);
  flags.close();
  return { world, path };
}

test('the copy is all that is known, and only its owner can read it', async (context) => {
  const { world, path } = await withCopy(context);
  const { revision, updated_at, flags } = world.state;
  assert.deepEqual(read(path), { client_key: KEY, environment: 'production', revision, updated_at, flags });
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(join(path, '..')), ['flags.json'], 'no draft is left');
});

test('an app starts from its copy when the gateway is down', async (context) => {
  const { world, path } = await withCopy(context);
  world.isUp = false;
  const changes = [];
  const flags = world.open({ store: path, onChange: () => changes.push(1) });
  assert.equal(flags.revision, 1, 'from the first moment');
  assert.equal(flags.value('banner'), 'at 1');
  assert.equal(await flags.ready, true);
  assert.deepEqual(changes, [], 'what is there from the start is no change');

  world.change();
  world.isUp = true;
  await world.clock.move(1_000);
  assert.equal(flags.revision, 2);
  assert.deepEqual(changes, [1]);
  await saved(path, 2);
  flags.close();
});

test('each newer set is saved, the answer does not wait for it', async (context) => {
  const world = new World();
  const saves = [];
  let finish;
  const store = { load: () => null, save: (text) => new Promise((resolve) => ((finish = resolve), saves.push(text))) };
  const flags = await world.following({ store });
  for (let change = 0; change < 5; change++)
    assert.equal((await world.deliver(flags, world.change())).status, 200);
  assert.equal(saves.length, 1, 'the first save is still at work');
  finish();
  await settle();
  assert.deepEqual(saves.map((text) => JSON.parse(text).revision), [1, 6], 'then the newest is next');
});

for (const [what, text] of Object.entries({
  'is empty': '',
  'is no JSON': '{"client_key":"mUA6","revision":1,',
  'is no object': 'null',
  'is of another environment': '{"client_key":"zzz9","revision":9,"updated_at":9e9,"flags":{}}',
  'has no flags': '{"client_key":"mUA6","revision":9,"updated_at":9e9}',
  'has a flag that is none': '{"client_key":"mUA6","revision":9,"updated_at":9e9,"flags":{"a":1}}',
}))
  test(`a copy that ${what} is left aside, told, and replaced`, async (context) => {
    const world = new World();
    const path = join(directory(context), 'flags.json');
    writeFileSync(path, text);
    world.isUp = false;
    const flags = world.open({ store: path });
    assert.equal(flags.revision, -1);
    assert.equal(flags.enabled('dark-mode', true), true);
    assert.match(world.log[0], /^warn: flagcast: the stored copy of the flags is left aside: /);
    world.isUp = true;
    await world.clock.move(1_000);
    assert.equal(flags.revision, 1);
    await saved(path, 1);
    flags.close();
  });

test('a copy that cannot be read is told, and harms nothing', async (context) => {
  const world = new World();
  const path = join(directory(context), 'flags.json');
  mkdirSync(path); // a folder is no file
  const flags = world.open({ store: path });
  await settle();
  assert.equal(flags.revision, 1);
  await eventually('the failure is told', () => world.log.some((line) => line.includes('cannot keep a copy')));
  assert.match(world.log[0], /cannot read the stored copy/);
  for (const change of [2, 3]) assert.equal((await world.deliver(flags, world.change())).applied, change);
  assert.equal(world.log.length, 2, world.log.join('\n'));
  assert.deepEqual(readdirSync(join(path, '..')), ['flags.json'], 'no draft is left');
  flags.close();
});

test('the folder of the copy is made when it is missing', async (context) => {
  const world = new World();
  const path = join(directory(context), 'a', 'b', 'flags.json');
  const flags = await world.following({ store: path });
  await saved(path, 1);
  flags.close();
});

test('a save that failed is tried again, and told once', async () => {
  const world = new World();
  const saves = [];
  let isFull = true;
  const save = (text) => {
    if (isFull) throw new Error('disk full');
    saves.push(JSON.parse(text).revision);
  };
  const flags = await world.following({ store: { load: () => undefined, save } });
  await world.deliver(flags, world.change());
  await world.clock.move(200_000);
  assert.deepEqual(world.log, ['warn: flagcast: cannot keep a copy of the flags: disk full; going on without']);
  isFull = false;
  await world.clock.move(60_000);
  assert.deepEqual(saves, [2]);
});

const FAULTS = {
  'throws': () => {
    throw new Error('broken');
  },
  'rejects': () => Promise.reject(new Error('broken')),
  'hangs': () => new Promise(() => {}),
};
for (const [how, fault] of Object.entries(FAULTS))
  test(`a store that ${how} harms nothing`, async () => {
    const world = new World();
    const watch = how === 'hangs' ? () => undefined : fault;
    const flags = await world.following({ store: { load: fault, save: fault, watch } });
    assert.equal((await world.deliver(flags, world.change())).applied, 2);
    await world.clock.move(1_000_000);
    assert.equal((await world.deliver(flags, world.change())).applied, 3);
    if (how !== 'hangs') assert.ok(world.log.some((line) => line.includes('broken')));
    await flags.close();
  });

test('a store of the app may take its time', async (context) => {
  const { world, path } = await withCopy(context);
  const text = readFileSync(path, 'utf8');
  world.isUp = false;
  let changed;
  const flags = world.open({
    store: {
      load: () => new Promise((resolve) => world.clock.setTimeout(() => resolve(text), 500)),
      save() {},
      watch: (then) => (changed = then, () => (changed = undefined)),
    },
  });
  assert.equal(flags.revision, -1);
  const { ready } = flags;
  await world.clock.move(500);
  assert.equal(await ready, true);
  assert.equal(flags.revision, 1);
  assert.equal(typeof changed, 'function');
  flags.close();
  assert.equal(changed, undefined, 'the watch ends');
});

test('the ETag of a read is not that of a set from another process', async () => {
  const world = new World();
  let text = null;
  let changed;
  const store = { load: () => text, save: (newer) => (text = newer), watch: (then) => void (changed = then) };
  const flags = await world.following({ store, pollSeconds: 10 });
  await settle();
  world.change();
  text = JSON.stringify({ client_key: KEY, ...world.body() });
  changed();
  await settle();
  assert.equal(flags.revision, 2);
  await world.clock.move(12_000);
  assert.equal(world.reads.length, 1);
  assert.equal(world.reads[0].headers['if-none-match'], undefined);
  flags.close();
});

test('a watch that begins late ends with the receiver all the same', async () => {
  const world = new World();
  let begin;
  let isWatching = true;
  const watch = () => new Promise((resolve) => (begin = () => resolve(() => (isWatching = false))));
  const flags = await world.following({ store: { load: () => null, save() {}, watch } });
  flags.close();
  begin();
  await settle();
  assert.ok(!isWatching);
});

test('a copy that comes after the network does not undo it', async (context) => {
  const { world, path } = await withCopy(context);
  const text = readFileSync(path, 'utf8');
  world.change();
  const load = () => new Promise((resolve) => world.clock.setTimeout(() => resolve(text), 500));
  const flags = await world.following({ store: { load, save() {} } });
  await world.clock.move(1_000);
  assert.equal(flags.revision, 2);
});

test('processes that share a file converge, whoever was told', async (context) => {
  const { world, path } = await withCopy(context);
  const processes = [world.open({ store: path }), world.open({ store: path }), world.open({ store: path })];
  await settle();
  world.reads.length = 0;
  const changes = [];
  processes[2].on(({ revision }) => changes.push(revision));
  for (const revision of [2, 3, 4]) {
    world.change();
    await world.deliver(processes[revision % 2], world.news());
    await look(world, 'all have it', () => processes.every((flags) => flags.revision === revision));
  }
  assert.equal(world.reads.length, 3, 'each change was read once');
  assert.deepEqual(changes, [2, 3, 4]);
  processes.forEach((flags) => flags.close());
});

test('a delivery that waits is answered when another process has saved its flags', async (context) => {
  const { world, path } = await withCopy(context);
  const one = world.open({ store: path });
  const other = world.open({ store: path });
  await settle();
  const news = world.change();
  world.onRead = () => new Response('', { status: 500 });
  const waiting = world.deliver(one, news);
  await settle();
  world.onRead = () => undefined;
  assert.equal((await world.deliver(other, news)).applied, 2);
  await saved(path, 2);
  await world.clock.move(1_000);
  assert.equal((await waiting).applied, 2);
  one.close();
  other.close();
});

test('saves at the same time do not hinder each other, wherever they come from', async (context) => {
  const path = join(directory(context), 'flags.json');
  // As two bundles of one process have it, or two containers with the same process id.
  const modules = await Promise.all([1, 2].map((copy) => import(`../src/store.js?${copy}`)));
  const stores = modules.map(({ fileStore }) => fileStore(path, new World().clock));
  const saves = Array.from({ length: 20 }, (_, save) => stores[save % 2].save(`${save}`.repeat(1000)));
  await Promise.all(saves);
  assert.match(readFileSync(path, 'utf8'), /^(\d\d?)\1{999}$/);
  assert.deepEqual(readdirSync(join(path, '..')), ['flags.json']);
});

test('an older copy never takes the place of a newer one', async (context) => {
  const { world, path } = await withCopy(context);
  const old = readFileSync(path, 'utf8');
  const flags = world.open({ store: path });
  await settle();
  await world.deliver(flags, world.change());
  await saved(path, 2);

  // Another process saves late what it has read early.
  writeFileSync(path, old);
  await look(world, 'the newer one is back', () => read(path).revision === 2);
  assert.equal(flags.revision, 2);

  rmSync(path);
  await look(world, 'the copy is back', () => holds(path, 2));
  flags.close();
});

test('who saves looks first, and takes what is newer', async (context) => {
  const { world, path } = await withCopy(context);
  const late = world.open({ store: path });
  await settle();
  const news = world.change();
  const response = Response.json(world.body());
  world.change();
  const early = world.open({ store: path });
  await saved(path, 3);
  // `late` reads revision 2 from a cache, and has not looked at the file yet.
  world.onRead = () => response;
  await world.deliver(late, news);
  await eventually('it has taken revision 3', () => late.revision === 3);
  assert.equal(read(path).revision, 3);
  early.close();
  late.close();
});

test('two apps that share a file by mistake do not write in turns', async (context) => {
  const world = new World();
  const path = join(directory(context), 'flags.json');
  const saves = [];
  const one = await world.following({ store: path });
  await saved(path, 1);
  const other = world.open({ store: path, clientKey: 'zzz9' });
  await eventually('the other has saved', () => read(path).client_key === 'zzz9');
  await look(world, 'the first one has seen it', () => world.log.some((line) => line.includes('`zzz9`, not of')));
  for (let second = 0; second < 10; second++) {
    await world.clock.move(1_000);
    saves.push(read(path).client_key);
  }
  assert.deepEqual([...new Set(saves)], ['zzz9']);
  assert.equal(world.log.length, 2, world.log.join('\n'));
  one.close();
  other.close();
});

test('a place that is gone is a change once', async (context) => {
  const { clock } = new World();
  const folder = join(directory(context), 'a');
  const store = fileStore(join(folder, 'flags.json'), clock);
  await store.save('{}');
  assert.equal(store.loadNow(), '{}');
  let changes = 0;
  const end = store.watch(() => {
    changes++;
    store.load().catch(() => {});
  });
  rmSync(folder, { recursive: true });
  writeFileSync(folder, 'a file where the folder was');
  for (let second = 0; second < 5; second++) {
    await clock.move(1_000);
    await eventually('it has looked', () => clock.timers.size === 1);
  }
  assert.equal(changes, 1);
  end();
});

test('a file that stays as it is is not read again', async (context) => {
  const { world, path } = await withCopy(context);
  const flags = world.open({ store: path });
  await settle();
  writeFileSync(path, 'oops');
  await look(world, 'it is told', () => world.log.length === 1);
  for (let second = 0; second < 20; second++) await world.clock.move(1_000);
  assert.equal(world.log.length, 1, world.log.join('\n'));
  flags.close();
});
