// What an app may ask for. Everything is checked once, here, before anything begins; a message says what
// is wrong, what is right, and never a secret.

import { keyOf } from './signature.js';
import { fileStore } from './store.js';
import { systemClock } from './clock.js';

const NAMES = new Set([
  'url',
  'clientKey',
  'secret',
  'store',
  'pollSeconds',
  'readTimeoutSeconds',
  'applyTimeoutSeconds',
  'readyTimeoutSeconds',
  'onChange',
  'logger',
  'fetch',
  'clock',
]);

/** The longest time that a timer of Node can wait, in seconds. */
const LONGEST = 2_147_483;

function refuse(name, rule) {
  throw new TypeError(`flagcast: \`${name}\` ${rule}`);
}

function urlOf(text) {
  const rule = 'must be the address of the gateway, such as "https://flags.example.com"';
  let url;
  try {
    url = new URL(text);
  } catch {
    refuse('url', rule);
  }
  if (!/^https?:$/.test(url.protocol)) refuse('url', rule);
  if (url.username || url.password) refuse('url', 'must not hold a user or a password');
  if (url.search || url.hash) refuse('url', 'must not have a query or a fragment: give the base address');
  return url.href.replace(/\/+$/, '');
}

function keysOf(secret) {
  const secrets = Array.isArray(secret) ? secret : [secret];
  if (secrets.length === 0) refuse('secret', 'must hold a secret: it was shown when the endpoint was made');
  return secrets.map((text, index) => {
    const name = secrets.length > 1 ? `secret[${index}]` : 'secret';
    const rule = '"whsec_" and the base64 of 24 to 64 bytes, as it was shown when the endpoint was made';
    return keyOf(text) ?? refuse(name, `must be ${rule}`);
  });
}

/** A time in milliseconds. */
function msOf(name, seconds, least) {
  const isTime = typeof seconds === 'number' && seconds >= least && seconds <= LONGEST;
  if (!isTime) refuse(name, `must be a number of seconds from ${least} to ${LONGEST}`);
  return seconds * 1000;
}

function storeOf(store, clock) {
  if (store === undefined || store === null) return undefined;
  if (typeof store === 'string' && store !== '') return fileStore(store, clock);
  if (typeof store?.load === 'function' && typeof store?.save === 'function') return store;
  return refuse('store', 'must be the path of a file, or an object with `load` and `save`');
}

/** A log that never throws, whatever logger it writes to. */
function logOf(logger) {
  const write = (level) => (message) => {
    try {
      logger[level](`flagcast: ${message}`);
    } catch {
      // There is nowhere to tell it.
    }
  };
  return { info: write('info'), warn: write('warn'), error: write('error') };
}

function functionOf(name, given) {
  return typeof given === 'function' ? given : refuse(name, 'must be a function');
}

function loggerOf(logger) {
  for (const level of ['info', 'warn', 'error'])
    if (typeof logger?.[level] !== 'function') refuse('logger', 'must have `info`, `warn` and `error`');
  return logOf(logger);
}

/** The options, checked and with their defaults. Throws a `TypeError`. */
export function settle(options) {
  if (!options || typeof options !== 'object') refuse('options', 'must be an object; README.md has all');
  for (const name of Object.keys(options))
    if (!NAMES.has(name)) refuse(name, `is no option; there are ${[...NAMES].join(', ')}`);
  const { clientKey, clock = systemClock, onChange } = options;
  if (typeof clientKey !== 'string' || clientKey === '')
    refuse('clientKey', 'must be the client key of the environment');
  return {
    url: `${urlOf(options.url)}/sdk/v1/environments/${encodeURIComponent(clientKey)}/flags`,
    clientKey,
    keys: keysOf(options.secret),
    store: storeOf(options.store, clock),
    pollMs: msOf('pollSeconds', options.pollSeconds ?? 300, 0),
    readMs: msOf('readTimeoutSeconds', options.readTimeoutSeconds ?? 5, 0.001),
    applyMs: msOf('applyTimeoutSeconds', options.applyTimeoutSeconds ?? 8, 0.001),
    readyMs: msOf('readyTimeoutSeconds', options.readyTimeoutSeconds ?? 5, 0),
    onChange: onChange === undefined ? undefined : functionOf('onChange', onChange),
    log: loggerOf(options.logger ?? console),
    // Looked up at each read: apps and their tests replace the global one.
    fetch: options.fetch ? functionOf('fetch', options.fetch) : (...request) => fetch(...request),
    clock,
  };
}
