// Options that are wrong are refused when the app starts, and secrets stay secret.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';

import { flagcast } from '@flagcast/node';
import { BASE, FLAGS, KEY, OTHER, SECRET, World, secretOf, settle } from './world.js';

const GOOD = { url: BASE, clientKey: KEY, secret: SECRET };
const store = { load() {}, save() {} };

const WRONG = [
  ['url', [undefined, '', 'flags.example.com', 'ftp://flags.example.com', '/flags', 7]],
  ['url', ['https://me:pw@flags.example.com', `${BASE}?a=b`, `${BASE}#a`]],
  ['clientKey', [undefined, null, '', 7]],
  ['secret', [undefined, null, '', 'secret', [], secretOf(Buffer.alloc(8)), SECRET.slice(6)]],
  ['store', ['', 7, {}, { load() {} }, { save() {} }]],
  ['pollSeconds', ['300', NaN, -1, Infinity, 3e6]],
  ['readTimeoutSeconds', [0, '5', -1]],
  ['applyTimeoutSeconds', [0, false, NaN]],
  ['readyTimeoutSeconds', [-1, '5']],
  ['onChange', [null, 'log']],
  ['logger', [{}, 7, { warn() {} }]],
  ['fetch', [7]],
];
for (const [name, values] of WRONG)
  for (const value of values)
    test(`\`${name}\`: ${inspect(value)} is refused`, () => {
      assert.throws(
        () => flagcast({ ...GOOD, [name]: value }),
        (error) => error instanceof TypeError && error.message.startsWith(`flagcast: \`${name}\` `),
      );
    });

test('no options, and options that do not exist, are refused', () => {
  assert.throws(() => flagcast(), /`options` must be an object/);
  assert.throws(() => flagcast({ ...GOOD, client_key: KEY }), /`client_key` is no option; .*clientKey/);
});

test('a message names the secret that is wrong, and never shows one', () => {
  const wrong = secretOf(Buffer.alloc(10, 9));
  assert.throws(
    () => flagcast({ ...GOOD, secret: [SECRET, wrong] }),
    (error) => /`secret\[1\]`/.test(error.message) && !error.message.includes(wrong.slice(6)),
  );
});

test('what is right is taken', async () => {
  const world = new World();
  for (const more of [{ store }, { store: null }, { pollSeconds: 1.5 }, { secret: [SECRET, OTHER] }])
    world.open(more).close();
  world.reads.length = 0;
  for (const url of [BASE, `${BASE}/`, new URL(BASE), `${BASE}/a/path//`]) world.open({ url }).close();
  const path = '/sdk/v1/environments/mUA6/flags';
  assert.deepEqual(world.reads.map(({ url }) => url), [FLAGS, FLAGS, FLAGS, `${BASE}/a/path${path}`]);
  world.open({ clientKey: 'a/../b' }).close();
  assert.equal(world.reads.at(-1).url, `${BASE}/sdk/v1/environments/a%2F..%2Fb/flags`);
});

test('the object that is returned does not show its secret', async () => {
  const world = new World();
  const flags = await world.following();
  const shown = [inspect(flags, { depth: 9, showHidden: true, getters: true }), JSON.stringify(flags)];
  await world.deliver(flags, world.change(), { secrets: [OTHER] });
  world.isUp = false;
  world.deliver(flags, world.change());
  await world.clock.move(10_000);
  for (const text of [...shown, ...world.log]) assert.ok(!text.includes(SECRET.slice(6)), text);
});

test('a logger that fails harms nothing', async () => {
  const world = new World();
  const fail = () => {
    throw new Error('full');
  };
  world.isUp = false;
  const flags = world.open({ logger: { info: fail, warn: fail, error: fail } });
  await world.clock.move(1_000);
  world.isUp = true;
  await world.clock.move(5_000);
  await settle();
  assert.equal(flags.revision, 1);
});
