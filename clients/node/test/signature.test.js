// Signatures: the official vector, and the same verdicts as the verifier of Standard Webhooks.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isSigned, keyOf, sign } from '../src/signature.js';
import { OTHER, SECRET, World, load, secretOf, signed } from './world.js';

const { Webhook } = load('standardwebhooks');

const VECTOR = {
  secret: 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD',
  id: 'msg_27UH4WbU6Z5A5EzD8u03UvzRbpk',
  timestamp: '1649367553',
  body: Buffer.from('{"email":"test@example.com","username":"test_user"}'),
  signatures: 'v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=',
};

test('the official vector', () => {
  const { secret, id, timestamp, body, signatures } = VECTOR;
  assert.equal(sign(keyOf(secret), id, timestamp, body), signatures);
  assert.ok(isSigned([keyOf(secret)], { id, timestamp, signatures }, body));
});

test('a secret is `whsec_` and the base64 of 24 to 64 bytes', () => {
  for (const length of [24, 25, 26, 32, 64]) {
    const bytes = Buffer.alloc(length, 0xfb);
    assert.deepEqual(keyOf(secretOf(bytes)), bytes);
    assert.deepEqual(keyOf(secretOf(bytes).replace(/=+$/, '')), bytes);
  }
  const refused = [undefined, null, 7, '', 'whsec_', SECRET.slice(6), `x${SECRET}`, `${SECRET}!`, ` ${SECRET}`];
  refused.push(SECRET.replace('whsec_', 'whsk_'), secretOf(Buffer.alloc(23)), secretOf(Buffer.alloc(65)));
  refused.push(SECRET.replace('B', '*'), `${SECRET}====`);
  for (const secret of refused) assert.equal(keyOf(secret), undefined, String(secret));
});

const change = (text, at) => {
  const other = text[at] === 'A' ? 'B' : 'A';
  return text.slice(0, at) + other + text.slice(at + 1);
};

/** What may be wrong or unusual: `[name, what it makes of headers, of the body]`. */
const DELIVERIES = {
  'as it was signed': {},
  'two signatures, the second ours': { secrets: [OTHER, SECRET] },
  'two signatures, the first ours': { secrets: [SECRET, OTHER] },
  'another secret': { secrets: [OTHER] },
  'a version that is not known, before ours': { list: (list) => `v1a,${list.slice(3)} ${list}` },
  'only a version that is not known': { list: (list) => `v1a,${list.slice(3)}` },
  'our digest under version 2': { list: (list) => `v2,${list.slice(3)}` },
  'no version': { list: (list) => list.slice(3) },
  'a list that is cut off': { list: (list) => list.slice(0, -1) },
  'a list that is cut off after the comma': { list: () => 'v1,' },
  'a list cut off in the second': { secrets: [OTHER, SECRET], list: (list) => list.slice(0, -3) },
  'a changed byte in the signature': { list: (list) => change(list, 10) },
  'another case': { list: (list) => list.toUpperCase() },
  'two spaces between': { secrets: [OTHER, SECRET], list: (list) => list.replace(' ', '  ') },
  'a signature and more': { list: (list) => `${list}A` },
  'a changed byte in the body': { sent: (body) => body.replace('42', '43') },
  'a body cut off': { sent: (body) => body.slice(0, -1) },
  'a body with one more byte': { sent: (body) => `${body} ` },
  'another id': { headers: { 'webhook-id': 'msg_other' } },
  'no id': { headers: { 'webhook-id': undefined } },
  'no timestamp': { headers: { 'webhook-timestamp': undefined } },
  'no signature': { headers: { 'webhook-signature': undefined } },
  'a timestamp that is no number': { headers: { 'webhook-timestamp': 'now' } },
  '299 s old': { age: 299 },
  '301 s old': { age: 301 },
  '299 s ahead': { age: -299 },
  '302 s ahead': { age: -302 },
  'a newer timestamp than the one signed': { age: 400, headers: { 'webhook-timestamp': 'present' } },
  'letters beyond ASCII': { text: 'Grüße 🙂' },
};

for (const [name, unusual] of Object.entries(DELIVERIES)) {
  test(`the same verdict as npm's standardwebhooks: ${name}`, async () => {
    const world = new World();
    world.clock.time = Date.now(); // the other verifier has no other clock
    const flags = await world.following();
    const now = Math.floor(world.clock.time / 1000);
    const data = world.news({ text: unusual.text, number: 42 });
    const body = JSON.stringify({ type: 'environment.updated', data });
    const sent = unusual.sent?.(body) ?? body;
    const timestamp = now - (unusual.age ?? 0);
    const headers = signed(body, { id: world.id(), timestamp, secrets: unusual.secrets });
    Object.assign(headers, unusual.headers);
    if (headers['webhook-timestamp'] === 'present') headers['webhook-timestamp'] = String(now);
    if (unusual.list) headers['webhook-signature'] = unusual.list(headers['webhook-signature']);

    let accepts = true;
    try {
      new Webhook(SECRET).verify(sent, headers);
    } catch {
      accepts = false;
    }
    const { status } = await world.deliver(flags, null, { body, sent, headers });
    assert.ok([200, 400, 401].includes(status), String(status));
    assert.equal(status === 200, accepts, `${status}`);
    flags.close();
  });
}

