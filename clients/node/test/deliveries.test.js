// What is answered to deliveries, good and bad ones.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { replays } from '../src/replays.js';
import { FLAGS, KEY, OTHER, SECRET, World, settle } from './world.js';

/** A receiver that knows revision 1, and its world. */
async function following(options) {
  const world = new World();
  return { world, flags: await world.following(options) };
}

const seconds = (world) => Math.floor(world.clock.time / 1000);

test('a delivery is answered when its flags are held', async () => {
  const { world, flags } = await following();
  const { status, applied, body, headers } = await world.deliver(flags, world.change());
  assert.deepEqual([status, applied, body], [200, 2, { applied_revision: 2 }]);
  assert.equal(headers.get('content-type'), 'application/json');
  assert.equal(headers.get('cache-control'), 'no-store');
  assert.equal(flags.enabled('dark-mode'), true);
  assert.deepEqual(world.reads.map(({ url }) => url), [`${FLAGS}?rev=2`]);
});

test('every type of delivery is treated alike', async () => {
  const { world, flags } = await following();
  for (const type of ['flag.updated', 'segment.deleted', 'anything'])
    assert.equal((await world.deliver(flags, world.change(), { type })).applied, world.state.revision);
  world.reads.length = 0;
  const { status, applied } = await world.deliver(flags, world.news(), { type: 'webhook.test' });
  assert.deepEqual([status, applied, world.reads.length], [200, 4, 0]);
});

test('what is held already is not read again', async () => {
  const { world, flags } = await following();
  const old = world.news();
  assert.equal((await world.deliver(flags)).applied, 1);
  await world.deliver(flags, world.change());
  world.reads.length = 0;
  assert.equal((await world.deliver(flags, old)).applied, 2, 'it comes late, and out of order');
  assert.equal(world.reads.length, 0);
});

test('only POST is a delivery', async () => {
  const { world, flags } = await following();
  for (const method of ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS']) {
    const response = await flags.fetch(new Request('http://app.example/flagcast', { method }));
    assert.equal(response.status, 405);
    assert.equal(response.headers.get('allow'), 'POST');
    assert.equal(response.headers.get('x-flagcast-applied-revision'), null);
  }
  assert.equal(world.reads.length, 0);
});

test('bodies have a limit of 256 KiB', async () => {
  const { world, flags } = await following();
  const long = (length) => {
    const text = JSON.stringify({ data: world.news() });
    return text + ' '.repeat(length - text.length);
  };
  assert.equal((await world.deliver(flags, null, { body: long(262_144) })).status, 200);
  const { status, applied } = await world.deliver(flags, null, { body: long(262_145) });
  assert.deepEqual([status, applied], [413, null]);
  const headers = { 'content-length': '262145' };
  const early = await world.deliver(flags, world.news(), { headers });
  assert.equal(early.status, 413, 'it need not be read to be refused');
});

const GARBLED = {
  'webhook-id': [undefined, '', 'two words', `msg_${'x'.repeat(260)}`],
  'webhook-timestamp': [undefined, '', 'now', '-5', '1e9', '1234567890123', '1.5', '1, 2'],
  'webhook-signature': [undefined, ''],
};
for (const [name, values] of Object.entries(GARBLED))
  test(`a delivery without a good \`${name}\` is refused`, async () => {
    const { world, flags } = await following();
    for (const value of values) {
      const { status, body, applied } = await world.deliver(flags, world.news(), { headers: { [name]: value } });
      assert.equal(status, 400, value);
      assert.match(body.error, new RegExp(name));
      assert.equal(applied, null);
    }
  });

test('who has not signed learns nothing and moves nothing', async () => {
  const { world, flags } = await following();
  const news = world.change();
  for (const how of [{ secrets: [OTHER] }, { sent: '{}' }, { headers: { 'webhook-signature': 'v1,AAAA' } }]) {
    const { status, applied, body } = await world.deliver(flags, news, how);
    assert.equal(status, 401);
    assert.equal(applied, null);
    assert.deepEqual(Object.keys(body), ['error']);
    assert.ok(!JSON.stringify(body).includes('whsec'));
  }
  const old = { secrets: [OTHER], timestamp: seconds(world) - 1000 };
  assert.equal((await world.deliver(flags, news, old)).status, 401, 'the signature counts first');
  assert.equal(world.reads.length, 0);
  assert.equal(flags.revision, 1);
});

test('a timestamp may be 300 s off, either way', async () => {
  const { world, flags } = await following();
  for (const [off, status, which] of [
    [-300, 200],
    [300, 200],
    [-301, 400, /too old/],
    [301, 400, /too new/],
  ]) {
    const answer = await world.deliver(flags, world.news(), { timestamp: seconds(world) + off });
    assert.equal(answer.status, status, String(off));
    assert.equal(answer.applied, 1);
    if (which) {
      assert.match(answer.body.error, which);
      assert.match(answer.body.error, /check the clocks/);
    }
  }
});

test('both secrets count while they are rotated', async () => {
  const { world, flags } = await following({ secret: [OTHER, SECRET] });
  for (const secrets of [[SECRET], [OTHER], [OTHER, SECRET], [SECRET, OTHER]])
    assert.equal((await world.deliver(flags, world.change(), { secrets })).status, 200);
  const single = await world.following();
  assert.equal((await world.deliver(single, world.news(), { secrets: [OTHER, SECRET] })).status, 200);
  assert.equal((await world.deliver(single, world.news(), { secrets: [OTHER] })).status, 401);
});

test('a delivery for another environment is refused, with both keys', async () => {
  const { world, flags } = await following();
  const { status, body, applied } = await world.deliver(flags, { ...world.change(), client_key: 'zzz9' });
  assert.equal(status, 400);
  assert.match(body.error, /zzz9/);
  assert.match(body.error, new RegExp(KEY));
  assert.equal(applied, null, 'it would be taken for the revision of the other environment');
  assert.equal(world.reads.length, 0);
});

test('a signed body that tells nothing is refused', async () => {
  const { world, flags } = await following();
  const bodies = ['', 'x', 'null', '7', '[]', '{}', '{"data":null}', '{"data":7}'];
  for (const wrong of [{ revision: '2' }, { revision: 1.5 }, { revision: -1 }, { updated_at: null }, { client_key: 7 }])
    bodies.push(JSON.stringify({ data: world.news(wrong) }));
  for (const body of bodies) {
    const { status, body: told } = await world.deliver(flags, null, { body });
    assert.equal(status, 400, body);
    assert.match(told.error, /revision/);
  }
  assert.equal(world.reads.length, 0);
});

test('the same attempt twice is a replay', async () => {
  const { world, flags } = await following();
  const attempt = { id: 'msg_1', timestamp: seconds(world) };
  assert.equal((await world.deliver(flags, world.news(), attempt)).status, 200);
  for (const later of [0, 1, 299_000]) {
    await world.clock.move(later);
    const { status, applied } = await world.deliver(flags, world.news(), attempt);
    assert.deepEqual([status, applied], [409, 1]);
  }
});

test('a replay is known while the first is still at work', async () => {
  const { world, flags } = await following();
  world.latency = 1_000;
  const attempt = { id: 'msg_1', timestamp: seconds(world) };
  const first = world.deliver(flags, world.change(), attempt);
  await settle();
  assert.equal((await world.deliver(flags, world.news(), attempt)).status, 409);
  await world.clock.move(1_000);
  assert.equal((await first).status, 200);
});

test('what was forged is not remembered as an attempt', async () => {
  const { world, flags } = await following();
  const attempt = { id: 'msg_1', timestamp: seconds(world) };
  assert.equal((await world.deliver(flags, world.news(), { ...attempt, secrets: [OTHER] })).status, 401);
  assert.equal((await world.deliver(flags, world.news(), attempt)).status, 200);
});

test('the same id with a new timestamp is a retry: read only if still behind', async () => {
  const { world, flags } = await following();
  const news = world.change();
  const id = 'msg_1';
  assert.equal((await world.deliver(flags, news, { id })).status, 200);
  await world.clock.move(5_000);
  const { status, applied } = await world.deliver(flags, news, { id });
  assert.deepEqual([status, applied, world.reads.length], [200, 2, 1]);
});

test('the memory of attempts is pruned by time, and has a bound', () => {
  let now = 0;
  const attempts = replays(() => now);
  for (let attempt = 0; attempt < 100; attempt++) assert.ok(attempts.isNew('msg_1', attempt));
  now = 600_000; // a timestamp of 300 s ahead is only then too old
  assert.ok(attempts.isNew('msg_0', 1));
  assert.ok(!attempts.isNew('msg_1', 99));
  now = 600_001;
  assert.ok(attempts.isNew('msg_2', 1));
  assert.equal(attempts.size, 2);
  for (let attempt = 0; attempt < 25_000; attempt++) attempts.isNew('msg_3', attempt);
  assert.ok(attempts.size <= 10_000, String(attempts.size));
  assert.ok(!attempts.isNew('msg_3', 24_999), 'the newest are kept');
});

test('flags that cannot be read in time: 503, and the reads go on', async () => {
  const { world, flags } = await following();
  const news = world.change();
  world.isUp = false;
  const waiting = world.deliver(flags, news);
  await world.clock.move(7_999);
  let isAnswered = false;
  waiting.then(() => (isAnswered = true));
  await settle();
  assert.ok(!isAnswered, 'it is tried for 8 s');
  await world.clock.move(1);
  const { status, applied, headers } = await waiting;
  assert.deepEqual([status, applied], [503, 1]);
  assert.equal(headers.get('retry-after'), '5');
  assert.ok(world.reads.length >= 6, String(world.reads.length));

  world.isUp = true;
  await world.clock.move(60_000);
  assert.equal(flags.revision, 2);
});

test('the first delivery of a receiver that holds nothing', async () => {
  const world = new World();
  world.isUp = false;
  const flags = world.open();
  await world.clock.move(1_000);
  const waiting = world.deliver(flags);
  await world.clock.move(8_000);
  const { status, applied } = await waiting;
  assert.deepEqual([status, applied], [503, null]);
  world.isUp = true;
  assert.equal((await world.deliver(flags)).applied, 1);
});

test('a closed receiver sends deliveries back at once', async () => {
  const { world, flags } = await following();
  world.latency = 3_000;
  const waiting = world.deliver(flags, world.change());
  await settle();
  flags.close();
  assert.equal((await waiting).status, 503);
  assert.equal((await world.deliver(flags, world.change())).status, 503);
  assert.equal(world.reads.length, 1);
  assert.ok(world.reads[0].signal.aborted, 'its read is ended');
  assert.equal(world.clock.timers.size, 1, 'only the answer of the gateway is on its way');
  assert.equal(flags.enabled('dark-mode'), false, 'the flags stay as they are');
});
