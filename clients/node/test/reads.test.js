// What is read, when, and what is held afterwards.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FLAGS, World, settle } from './world.js';

const urls = (world) => world.reads.map(({ rev }) => rev);

async function following(options) {
  const world = new World();
  return { world, flags: await world.following(options) };
}

test('it reads at the start, without a revision', async () => {
  const world = new World();
  const flags = world.open();
  assert.equal(await flags.ready, true);
  assert.equal(world.reads[0].url, FLAGS);
  assert.equal(world.reads[0].cache, 'no-store', 'frameworks keep answers unless told otherwise');
  assert.match(world.reads[0].headers['user-agent'], /^flagcast-node\//);
  assert.equal(world.clock.timers.size, 0, 'nothing is left running');
});

test('order rule: a set is taken when its time is greater, whatever its revision', async () => {
  const { world, flags } = await following();
  for (let change = 0; change < 40; change++) world.change();
  await world.deliver(flags);
  assert.equal(flags.revision, 41);
  const before = structuredClone(world.state);

  // The gateway was restored from a backup of revision 1, and a flag was changed since.
  world.state.revision = 1;
  const { status, applied } = await world.deliver(flags, world.change());
  assert.deepEqual([status, applied, flags.revision], [200, 2, 2]);
  assert.equal(flags.updatedAt, world.state.updated_at);

  // A cache or a node that lags has the former 41 still: it is older, and not taken.
  const newest = world.state;
  world.state = before;
  const poll = world.open({ pollSeconds: 10 });
  await settle();
  assert.equal(poll.revision, 41);
  world.state = newest;
  await world.clock.move(12_000);
  assert.equal(poll.revision, 2, 'down in revisions, on in time');
  world.state = before;
  await world.clock.move(12_000);
  assert.equal(poll.revision, 2, 'up in revisions, back in time');
  world.state = newest;
  await world.clock.move(12_000);
  assert.equal(world.reads.at(-1).headers['if-none-match'], 'W/"mUA6.2"', 'what was not taken changes nothing');
  poll.close();
});

test('a set of the same time is not taken twice', async () => {
  const changes = [];
  const { world } = await following({ onChange: ({ revision }) => changes.push(revision), pollSeconds: 10 });
  world.onRead = () => Response.json(world.body());
  await world.clock.move(60_000);
  assert.ok(world.reads.length >= 4);
  assert.deepEqual(changes, [1]);
});

test('a cache with an old answer for the number is asked past', async () => {
  const { world, flags } = await following();
  const cached = { ...world.body(), revision: 5, updated_at: world.state.updated_at - 10 };
  world.state.revision = 4;
  world.onRead = ({ rev }) => (rev === undefined ? undefined : Response.json(cached));
  const waiting = world.deliver(flags, world.change());
  await world.clock.move(1_000);
  const { status, applied } = await waiting;
  assert.deepEqual([status, applied], [200, 5]);
  assert.deepEqual(urls(world), [5, undefined]);
  assert.equal(world.reads[1].headers['cache-control'], 'no-cache');
  assert.equal(world.reads[1].headers['if-none-match'], undefined);
});

test('what was announced and is gone does not hide what is there', async () => {
  const { world, flags } = await following();
  // The gateway announces revision 5, and is restored from a backup of revision 1.
  const lost = world.news({ revision: 5, updated_at: world.state.updated_at + 5 });
  world.deliver(flags, lost);
  await world.clock.move(9_000);
  assert.ok(urls(world).every((rev) => rev === 5), String(urls(world)));
  world.state.updated_at += 6;
  world.change(); // nobody tells of it
  await world.clock.move(120_000);
  assert.equal(flags.revision, 2);
  const { headers } = world.reads.at(-1);
  assert.deepEqual([headers['cache-control'], headers['if-none-match']], ['no-cache', undefined]);
  const { length } = world.reads;
  await world.clock.move(600_000);
  assert.equal(world.reads.length, length, 'and then it is calm');
});

test('a revision that is not there yet is read again after a second', async () => {
  const { world, flags } = await following();
  const news = world.news({ revision: 2, updated_at: world.state.updated_at + 1 / 64 });
  const waiting = world.deliver(flags, news);
  await world.clock.move(1_500);
  assert.deepEqual(urls(world), [2, 2]);
  assert.deepEqual(world.waits, [1_000]);
  world.change();
  await world.clock.move(1_500);
  assert.equal((await waiting).applied, 2);
  assert.equal(world.reads.length, 3);
});

test('`max-age` of a 404 is a bound, jitter only makes it longer', async () => {
  for (const [random, least, most] of [
    [0, 5_000, 5_000],
    [1, 5_000, 6_000],
  ]) {
    const { world, flags } = await following();
    world.clock.random = () => random;
    const headers = { 'cache-control': 'public, s-maxage=0, max-age=5' };
    world.onRead = () => new Response('{}', { status: 404, headers });
    world.deliver(flags, world.change());
    await world.clock.move(6_500);
    assert.ok(world.waits[0] >= least && world.waits[0] <= most, String(world.waits));
  }
});

test('`Retry-After` is honoured, up to a minute', async () => {
  for (const [status, wish, wait] of [
    [503, '20', 20_000],
    [429, '7200', 60_000],
    [503, 'soon', 100],
  ]) {
    const { world, flags } = await following();
    world.onRead = () => new Response('', { status, headers: { 'retry-after': wish } });
    world.deliver(flags, world.change());
    await world.clock.move(70_000);
    assert.equal(world.waits[0], wait, wish);
  }
});

test('it backs off to a minute, with jitter', async () => {
  const expected = [100, 300, 1_000, 1_000, 2_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000];
  for (const [random, factor] of [
    [0, 0.8],
    [0.5, 1],
    [1, 1.2],
  ]) {
    const world = new World();
    world.clock.random = () => random;
    world.isUp = false;
    const flags = world.open();
    await world.clock.move(300_000);
    const waits = expected.map((wait) => Math.min(60_000, wait * factor));
    assert.deepEqual(world.waits.slice(0, 12).map(Math.round), waits.map(Math.round));
    world.isUp = true;
    await world.clock.move(60_000);
    assert.equal(flags.revision, 1);
  }
});

test('a failure and its end are told once', async () => {
  const world = new World();
  world.isUp = false;
  const flags = world.open();
  await world.clock.move(200_000);
  world.deliver(flags, world.change());
  await world.clock.move(200_000);
  assert.equal(world.log.length, 1);
  assert.match(world.log[0], /^warn: flagcast: cannot read the flags from https:.*: fetch failed: ECONNREFUSED; trying/);
  world.isUp = true;
  await world.clock.move(60_000);
  assert.equal(world.log.length, 2);
  assert.match(world.log[1], /^info: .*revision 2$/);
  world.isUp = false;
  world.deliver(flags, world.change());
  await world.clock.move(1_000);
  assert.equal(world.log.length, 3, 'the next failure is another one');
});

test('the waits begin anew after a success', async () => {
  const world = new World();
  world.isUp = false;
  const flags = world.open({ pollSeconds: 300 });
  await world.clock.move(20_000);
  world.isUp = true;
  await world.clock.move(60_000);
  assert.equal(flags.revision, 1);
  world.reads.length = 0;
  world.isUp = false;
  await world.clock.move(221_000); // the poll
  assert.deepEqual(world.waits, [100, 300]);
  flags.close();
});

test('the waits begin anew with a delivery', async () => {
  const world = new World();
  world.isUp = false;
  const flags = world.open();
  await world.clock.move(300_000);
  world.reads.length = 0;
  const waiting = world.deliver(flags);
  await world.clock.move(2_000);
  assert.deepEqual(world.waits, [100, 300, 1_000]);
  await world.clock.move(6_000);
  assert.equal((await waiting).status, 503);
});

test('an older delivery that comes late does not take the place of a newer one', async () => {
  const { world, flags } = await following();
  const older = world.change();
  const newer = world.change();
  world.latency = 500;
  world.isUp = false;
  const first = world.deliver(flags, newer);
  await settle();
  const second = world.deliver(flags, older);
  world.isUp = true;
  await world.clock.move(2_000);
  assert.deepEqual([(await first).applied, (await second).applied], [3, 3]);
  assert.deepEqual(urls(world), [3, 3]);
});

test('what is refused is not left in the connection', async () => {
  const { world, flags } = await following();
  let isCancelled = false;
  const body = new ReadableStream({ cancel: () => (isCancelled = true) });
  world.onRead = () => (world.reads.length === 1 ? new Response(body, { status: 500 }) : undefined);
  const waiting = world.deliver(flags, world.change());
  await world.clock.move(1_000);
  assert.equal((await waiting).status, 200);
  assert.ok(isCancelled);
});

test('a delivery ends the wait after a failure', async () => {
  const world = new World();
  world.isUp = false;
  const flags = world.open();
  await world.clock.move(300_000);
  world.isUp = true;
  world.reads.length = 0;
  const { status, applied } = await world.deliver(flags);
  assert.deepEqual([status, applied, world.reads.length], [200, 1, 1]);
});

test('deliveries at the same time share one read', async () => {
  const { world, flags } = await following();
  world.latency = 500;
  const news = world.change();
  const waiting = Array.from({ length: 20 }, () => world.deliver(flags, news));
  await world.clock.move(500);
  for (const { status, applied } of await Promise.all(waiting)) assert.deepEqual([status, applied], [200, 2]);
  assert.deepEqual(urls(world), [2]);
  assert.equal(world.clock.timers.size, 0, 'nothing waits any more');
});

test('a newer delivery during a read is held in the end', async () => {
  const { world, flags } = await following();
  world.latency = 500;
  const first = world.deliver(flags, world.change());
  await world.clock.move(200);
  const second = world.deliver(flags, world.change());
  const third = world.deliver(flags, world.change());
  await world.clock.move(300);
  assert.equal((await first).applied, 2);
  await world.clock.move(500);
  assert.equal((await second).applied, 4);
  assert.equal((await third).applied, 4);
  assert.deepEqual(urls(world), [2, 4]);
  assert.deepEqual(world.log, []);
});

test('a newer delivery during a read that fails does not wait', async () => {
  const { world, flags } = await following();
  world.latency = 500;
  world.isUp = false;
  world.deliver(flags, world.change());
  await world.clock.move(200);
  world.isUp = true;
  const second = world.deliver(flags, world.change());
  await world.clock.move(800);
  assert.equal((await second).applied, 3);
  assert.deepEqual(urls(world), [2, 3]);
});

test('the poll is slow, jittered and conditional, and heals a lost delivery', async () => {
  for (const [random, wait] of [
    [0, 240_000],
    [0.5, 300_000],
    [1, 360_000],
  ]) {
    const world = new World();
    world.clock.random = () => random;
    const flags = world.open({ pollSeconds: undefined });
    await world.clock.move(wait * 2 + 1);
    assert.deepEqual(world.waits, [wait, wait]);
    assert.equal(world.reads[1].headers['if-none-match'], 'W/"mUA6.1"');
    assert.equal(world.reads[1].rev, undefined);
    world.change();
    await world.clock.move(wait);
    assert.equal(flags.revision, 2);
    flags.close();
  }
});

test('the poll can be off', async () => {
  const { world } = await following({ pollSeconds: 0 });
  await world.clock.move(86_400_000);
  assert.equal(world.reads.length, 0);
});

test('an ETag belongs to the set it came with', async () => {
  const { world, flags } = await following({ pollSeconds: 10 });
  world.onRead = () => Response.json(world.body());
  await world.deliver(flags, world.change());
  await world.clock.move(12_000);
  assert.equal(world.reads.at(-1).headers['if-none-match'], undefined, 'the one of revision 1 would be wrong');
});

test('a read that hangs is given up', async () => {
  const { world, flags } = await following({ readTimeoutSeconds: 2, applyTimeoutSeconds: 4 });
  world.latency = 1e9;
  const waiting = world.deliver(flags, world.change());
  await world.clock.move(2_000);
  world.latency = 0;
  await world.clock.move(100);
  assert.equal((await waiting).applied, 2);
  assert.match(world.log[0], /no answer within 2 s/);
});

test('a body that hangs is given up', async () => {
  const { world, flags } = await following();
  const { fetch } = world;
  const hanging = world.open({
    fetch: async (url, init) => {
      await fetch(url, init);
      if (world.reads.length > 1) return world.respond({});
      const pull = () => new Promise((_resolve, reject) => init.signal.addEventListener('abort', reject));
      return new Response(new ReadableStream({ pull }));
    },
  });
  await world.clock.move(6_000);
  assert.equal(hanging.revision, 1);
  flags.close();
});

const BODIES = {
  'no JSON': 'oops',
  'no object': '7',
  'nothing': 'null',
  'a text for the revision': '{"revision":"2","updated_at":1e12,"flags":{}}',
  'no time': '{"revision":2,"flags":{}}',
  'no flags': '{"revision":2,"updated_at":1e12}',
  'a flag that is neither on nor off': '{"revision":2,"updated_at":1e12,"flags":{"a":{}}}',
  'a flag that is null': '{"revision":2,"updated_at":1e12,"flags":{"a":null}}',
};
for (const [what, body] of Object.entries(BODIES))
  test(`an answer with ${what} is not taken`, async () => {
    const { world, flags } = await following();
    world.onRead = () => (world.reads.length === 1 ? new Response(body) : undefined);
    const waiting = world.deliver(flags, world.change());
    await settle();
    assert.equal(flags.revision, 1);
    await world.clock.move(200);
    assert.equal((await waiting).applied, 2);
    assert.equal(world.log.length, 2, world.log.join('\n'));
  });

test('an answer without an end is not taken', async () => {
  const { world, flags } = await following();
  const chunk = new Uint8Array(8 * 1024 * 1024);
  let sent = 0;
  const pull = (controller) => controller.enqueue((sent++, chunk));
  world.onRead = () => (world.reads.length === 1 ? new Response(new ReadableStream({ pull })) : undefined);
  const waiting = world.deliver(flags, world.change());
  await world.clock.move(200);
  assert.equal((await waiting).applied, 2);
  assert.ok(sent < 12, String(sent));
  assert.match(world.log[0], /longer than/);
});
