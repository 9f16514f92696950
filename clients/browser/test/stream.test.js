// How the stream is kept: ends, failures, silence.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { World } from './world.js';

async function following(heartbeat = 5) {
  const world = new World();
  world.heartbeat = heartbeat;
  const tab = world.open();
  await world.move(2_000);
  assert.equal(world.listening.length, 1);
  return { world, tab };
}

/** The waits between a stream's end and the beginning of the next. */
const waits = (world, ends) =>
  ends.map((end) => world.streams.find(({ at }) => at >= end).at - end);

test('after a normal end it comes back in 0.5 to 1.5 s, always', async () => {
  for (const [random, wait] of [[0, 500], [0.5, 1000], [1, 1500]]) {
    const { world } = await following();
    world.random = () => random;
    const ends = [];
    for (let time = 0; time < 5; time++) {
      ends.push(world.clock.now);
      world.listening[0].fail();
      assert.equal(world.listening.length, 0, 'the browser itself must not reconnect');
      await world.move(10_000);
    }
    assert.deepEqual(waits(world, ends), Array(5).fill(wait));
    assert.equal(world.reads.length, 1, 'a reconnect needs no read');
  }
});

const FAILURES = {
  'ends of less than a second': (world, stream) => {
    world.serveStream(stream);
    world.clock.set(null, () => stream.fail(), 900);
  },
  'answers that are no stream': (world, stream) => stream.fail(true),
  'refused connections': (world, stream) => stream.fail(),
};
for (const [what, failure] of Object.entries(FAILURES)) {
  test(`${what} are failures: it backs off to 30 s`, async () => {
    const { world } = await following();
    for (const [random, factor] of [[0, 0.5], [0.5, 1], [1, 1.5]]) {
      world.random = () => random;
      const ends = [];
      world.onStream = (stream) => {
        const { fail } = stream;
        stream.fail = (fatally) => {
          ends.push(world.clock.now);
          fail.call(stream, fatally);
        };
        failure(world, stream);
      };
      world.listening[0].fail();
      await world.move(170_000);
      world.onStream = (stream) => world.serveStream(stream);
      const expected = [2_000, 4_000, 8_000, 16_000, 20_000].map((wait) => wait * factor);
      assert.deepEqual(waits(world, ends.slice(0, 5)), expected);
      await world.move(60_000);
      assert.equal(world.listening.length, 1);
    }
  });
}

test('a stream that sheds is left alone for 10 to 30 s', async () => {
  for (const [random, wait] of [[0, 10_000], [1, 30_000]]) {
    const { world } = await following();
    world.random = () => random;
    let end;
    world.onStream = (stream) => {
      stream.open();
      // `retry:` says nothing that a page can hear.
      world.clock.set(null, () => ((end = world.clock.now), stream.fail()), 3_000);
    };
    world.listening[0].fail();
    await world.move(5_000);
    world.onStream = (stream) => world.serveStream(stream);
    await world.move(40_000);
    assert.deepEqual(waits(world, [end]), [wait]);
  }
});

test('silence for three heartbeats ends a stream', async () => {
  for (const heartbeat of [5, 15]) {
    const { world } = await following(heartbeat);
    const [stream] = world.listening;
    world.isUp = false;
    const last = world.clock.now - 2_000 + world.latency;
    await world.move(last + heartbeat * 3_000 + 1_900 - world.clock.now);
    assert.equal(stream.readyState, 1);
    world.isUp = true;
    await world.move(1_500);
    assert.equal(stream.readyState, 2);
    await world.move(2_000);
    assert.equal(world.listening.length, 1);
  }
});

test('silence for 45 s ends a stream that has advertised nothing', async () => {
  const world = new World();
  world.onStream = (stream) => stream.open();
  world.open();
  await world.move(44_900);
  assert.equal(world.streams[0].readyState, 1);
  await world.move(200);
  assert.equal(world.streams[0].readyState, 2);
});

test('a stream that never answers is given up', async () => {
  const world = new World();
  world.onStream = () => {};
  world.open();
  await world.move(50_000);
  assert.equal(world.streams.length, 2);
  assert.equal(world.streams[0].readyState, 2);
});

test('heartbeats keep a stream', async () => {
  const { world } = await following();
  await world.move(3_600_000);
  assert.equal(world.streams.length, 1);
});

test('events that nobody understands do no harm', async () => {
  const { world, tab } = await following();
  const [stream] = world.listening;
  for (const event of ['', 'null', '{', '[]', '{"type":"new","revision":"x"}', '{"heartbeat_s":-1}'])
    stream.say(event);
  await world.move(1_000);
  world.change();
  await world.move(100);
  assert.equal(tab.flags.revision, 2);
  assert.equal(world.reads.length, 2);
});

test('a crash and a restart of the gateway: it converges', async () => {
  const { world, tab } = await following();
  world.crash();
  await world.move(20_000);
  world.isUp = true;
  world.revision = 12;
  await world.move(25_000);
  assert.equal(tab.flags.revision, 12);
  assert.equal(world.reads.length, 2);
});

test('back on the network it does not wait', async () => {
  const { world, tab } = await following();
  world.crash();
  await world.move(120_000);
  world.isUp = true;
  world.revision = 3;
  tab.window.dispatchEvent(new Event('online'));
  await world.move(100);
  assert.equal(tab.flags.revision, 3);
});

test('who looks again finds a patient client that begins anew', async () => {
  const { world, tab } = await following();
  world.crash();
  await world.move(120_000);
  tab.hide();
  await world.move(21_000);
  tab.hide(false);
  await world.move(500);
  world.isUp = true;
  world.revision = 3;
  await world.move(1_000);
  assert.equal(tab.flags.revision, 3);
});
