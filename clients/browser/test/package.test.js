// What is shipped: its size, its types, its names.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, gzipSync } from 'node:zlib';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const SERVED = readFileSync(path('../flagcast.js'));
const BUDGET = 3072;

test('it stays below 3 kB compressed', () => {
  assert.ok(gzipSync(SERVED, { level: 9 }).length < BUDGET);
  assert.ok(brotliCompressSync(SERVED).length < BUDGET);
});

test('it needs no build and no other file', async () => {
  assert.doesNotMatch(SERVED.toString(), /^import |\bimport\(|require\(/m);
  assert.deepEqual(Object.keys(await import('../flagcast.js')), ['flagcast']);
});

test('the types hold, and refuse what is wrong', () => {
  const compiler = path('../../../tests/sdk/node_modules/typescript/bin/tsc');
  assert.ok(existsSync(compiler), '`make test-deps` installs the compiler');
  try {
    execFileSync(process.execPath, [compiler, '--project', path('./tsconfig.json')]);
  } catch (error) {
    assert.fail(error.stdout.toString());
  }
});

test('the package has all that it names', () => {
  const manifest = JSON.parse(readFileSync(path('../package.json')));
  assert.equal(manifest.name, '@flagcast/browser');
  assert.equal(manifest.license, 'Apache-2.0');
  assert.equal(manifest.dependencies, undefined);
  const { types, default: code } = manifest.exports['.'];
  for (const name of [types, code, ...manifest.files])
    assert.ok(existsSync(path(`../${name}`)), name);
});
