// What an app asks of its flags: values, readiness, listeners, the end.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { timersOf } from '../src/clock.js';
import { World } from './world.js';

async function following(options) {
  const world = new World();
  return { world, flags: await world.following(options) };
}

test('before anything is known there are defaults', async () => {
  const world = new World();
  const flags = world.open();
  assert.equal(flags.revision, -1);
  assert.equal(flags.updatedAt, 0);
  assert.equal(flags.enabled('dark-mode'), false);
  assert.equal(flags.enabled('dark-mode', true), true);
  assert.equal(flags.value('banner'), undefined);
  assert.equal(flags.value('banner', 'hello'), 'hello');
  assert.deepEqual(flags.all(), {});
});

test('answers are at hand', async () => {
  const { world, flags } = await following();
  assert.equal(flags.revision, 1);
  assert.equal(flags.updatedAt, world.state.updated_at);
  assert.equal(flags.enabled('dark-mode', true), false);
  assert.equal(flags.enabled('unknown'), false);
  assert.equal(flags.enabled('unknown', true), true);
  for (const name of ['constructor', '__proto__', 'toString']) {
    assert.equal(flags.enabled(name), false);
    assert.equal(flags.value(name), undefined);
  }
  assert.equal(flags.value('banner', 'hello'), 'at 1');
  assert.equal(flags.value('dark-mode', 'none'), 'none', 'a flag without a value');
  assert.equal(flags.value('dark-mode'), undefined);
  assert.deepEqual(flags.all(), world.state.flags);
  delete flags.all().banner;
  assert.throws(() => (flags.all().banner.enabled = false), TypeError);
  assert.equal(flags.value('banner'), 'at 1');
});

test('falsy values are values', async () => {
  const world = new World();
  world.set('zero', true, 0);
  world.set('empty', true, '');
  world.set('no', true, false);
  const flags = await world.following();
  assert.deepEqual([flags.value('zero', 1), flags.value('empty', 'x'), flags.value('no', true)], [0, '', false]);
});

test('`ready` waits as long as it was told, and not longer', async () => {
  const world = new World();
  world.isUp = false;
  const flags = world.open({ readyTimeoutSeconds: 2 });
  let known;
  flags.ready.then((answer) => (known = answer));
  await world.clock.move(1_999);
  assert.equal(known, undefined);
  await world.clock.move(1);
  assert.equal(known, false);

  const patient = world.open({ readyTimeoutSeconds: 0 });
  patient.ready.then((answer) => (known = answer));
  known = undefined;
  await world.clock.move(3_600_000);
  assert.equal(known, undefined);
  world.isUp = true;
  await world.clock.move(75_000);
  assert.equal(known, true);
});

test('listeners are called after each change, and disturb nobody', async () => {
  const seen = [];
  const { world, flags } = await following({ onChange: ({ revision }) => seen.push(`option ${revision}`) });
  flags.on(() => {
    throw new Error('one');
  });
  flags.on(async () => {
    throw new Error('two');
  });
  const off = flags.on((changed) => seen.push(changed === flags && changed.enabled('dark-mode')));
  assert.equal((await world.deliver(flags, world.change())).status, 200);
  off();
  await world.deliver(flags, world.change());
  assert.deepEqual(seen, ['option 1', 'option 2', true, 'option 3']);
  assert.ok(world.log.some((line) => /error: .*listener failed: one/.test(line)));
  assert.ok(world.log.some((line) => /error: .*listener failed: two/.test(line)));
});

test('timers that have ended begin no more', () => {
  const { clock } = new World();
  const timers = timersOf(clock);
  timers.after('one', 10, () => {});
  timers.after('one', 20, () => {});
  assert.equal(clock.timers.size, 1);
  timers.end();
  timers.after('two', 10, () => {});
  assert.equal(clock.timers.size, 0);
});

test('close ends everything', async () => {
  const { world, flags } = await following({ pollSeconds: 10 });
  const seen = [];
  flags.on(() => seen.push(1));
  flags.close();
  world.change();
  await world.clock.move(1_000_000);
  assert.equal(world.reads.length, 0);
  assert.equal(world.clock.timers.size, 0);
  assert.equal(flags.revision, 1);
  assert.deepEqual(seen, []);
  flags.close();

  world.isUp = false;
  const other = world.open();
  await world.clock.move(1_000);
  other.close();
  assert.equal(world.clock.timers.size, 0, 'also in the middle of a wait');
  assert.equal(await other.ready, false);
});
