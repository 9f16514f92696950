// Who may speak to the receiver: signatures as Standard Webhooks 1.0.0 has them.
//
// The bytes that came are what is signed; JSON that was parsed and written again is not the same.

import { createHmac, timingSafeEqual } from 'node:crypto';

const PREFIX = 'whsec_';

/**
 * The key in a secret, `whsec_` and the base64 of 24 to 64 bytes; `undefined` when it is none.
 * Nothing here may put the secret into a message.
 */
export function keyOf(secret) {
  if (typeof secret !== 'string' || !secret.startsWith(PREFIX)) return undefined;
  const text = secret.slice(PREFIX.length);
  const key = Buffer.from(text, 'base64');
  // `Buffer.from` skips what is no base64 in silence.
  const bare = (base64) => base64.replace(/={0,2}$/, '');
  const isExact = bare(key.toString('base64')) === bare(text);
  return isExact && key.length >= 24 && key.length <= 64 ? key : undefined;
}

/** The signature of `body` (bytes) as the header has it, `v1,<base64>`. */
export function sign(key, id, timestamp, body) {
  const digest = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body);
  return `v1,${digest.digest('base64')}`;
}

function isSame(left, right) {
  const [ours, theirs] = [Buffer.from(left), Buffer.from(right)];
  return ours.length === theirs.length && timingSafeEqual(ours, theirs);
}

/**
 * Whether one of the signatures in the list (parted by spaces) was made with one of the keys.
 * There are several of each while a secret is rotated. Other versions than `v1` never match.
 */
export function isSigned(keys, { id, timestamp, signatures }, body) {
  const offered = signatures.split(' ');
  return keys.some((key) => {
    const expected = sign(key, id, timestamp, body);
    return offered.some((signature) => isSame(signature, expected));
  });
}
