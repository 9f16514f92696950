// What is shipped: its types, its names, and that it keeps no process alive. With real time and processes.

import assert from 'node:assert/strict';
import http from 'node:http';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { BASE, KEY, SECRET, World, atEnd, directory, eventually, signed } from './world.js';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const manifest = JSON.parse(readFileSync(path('../package.json')));

test('the types hold, and refuse what is wrong', () => {
  const compiler = path('../../../tests/sdk/node_modules/typescript/bin/tsc');
  assert.ok(existsSync(compiler), '`make test-deps` installs the compiler');
  try {
    execFileSync(process.execPath, [compiler, '--project', path('./tsconfig.json')]);
  } catch (error) {
    assert.fail(error.stdout.toString());
  }
});

test('the package has all that it names, and needs no other', () => {
  assert.equal(manifest.name, '@flagcast/node');
  assert.equal(manifest.license, 'Apache-2.0');
  assert.equal(manifest.dependencies, undefined);
  const { types, default: code } = manifest.exports['.'];
  for (const name of [types, code, ...manifest.files]) assert.ok(existsSync(path(`../${name}`)), name);
  for (const name of readdirSync(path('../src'))) {
    const source = readFileSync(path(`../src/${name}`), 'utf8');
    for (const [, from] of source.matchAll(/from '([^']+)'/g)) assert.match(from, /^(node:|\.\/)/, name);
    assert.ok(source.split('\n').length < 400, name);
  }
  const own = readFileSync(path('../src/reads.js'), 'utf8');
  assert.ok(own.includes(`'flagcast-node/${manifest.version}'`), 'the user agent has the version');
});

test('its only export is `flagcast`; `require` works where Node can require ES modules', async () => {
  assert.deepEqual(Object.keys(await import('@flagcast/node')), ['flagcast']);
  const { node } = process.versions;
  const [major, minor] = node.split('.').map(Number);
  const script = `console.log(typeof require('@flagcast/node').flagcast)`;
  const run = () => execFileSync(process.execPath, ['-e', script], { cwd: path('..'), stdio: ['ignore', 'pipe', 'ignore'] });
  if (major > 22 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19))
    assert.equal(run().toString().trim(), 'function');
  else assert.throws(run);
});

/** A gateway that is real to other processes. */
async function gateway(context, world) {
  let reads = 0;
  const server = http.createServer((request, response) => {
    reads++;
    if (world.hangs) return undefined;
    const rev = new URL(request.url, BASE).searchParams.get('rev');
    const isBehind = Number(rev) > world.state.revision;
    response.writeHead(isBehind ? 404 : 200, { 'content-type': 'application/json' });
    return response.end(JSON.stringify(world.body()));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(context, () => (server.closeAllConnections(), server.close()));
  return { url: `http://127.0.0.1:${server.address().port}`, server, reads: () => reads };
}

/** A process of Node with a script; its end is waited for by `ended`. */
function run(context, args, env = {}) {
  const child = spawn(process.execPath, args, { cwd: path('..'), env: { ...process.env, ...env } });
  const lines = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  let errors = '';
  child.stderr.on('data', (data) => (errors += data));
  const ended = new Promise((resolve) => child.on('close', (code) => resolve({ code, lines, errors })));
  atEnd(context, () => (child.kill('SIGKILL'), ended));
  return { child, lines, ended };
}

const script = (url, more) => [
  '--input-type=module',
  '-e',
  `import { flagcast } from '@flagcast/node';
   const own = { url: '${url}', clientKey: '${KEY}', secret: '${SECRET}' };
   ${more}`,
];

test('a process that has nothing else to do ends, and has saved its copy', async (context) => {
  const world = new World();
  const { url, reads } = await gateway(context, world);
  const store = join(directory(context), 'flags.json');
  const { code, errors } = await run(context, script(url, `flagcast({ ...own, store: '${store}' });`)).ended;
  assert.deepEqual([code, errors], [0, '']);
  assert.equal(reads(), 1);
  assert.equal(JSON.parse(readFileSync(store)).revision, 1);
});

test('a gateway that hangs or is gone keeps no process alive for long', async (context) => {
  const world = new World();
  world.hangs = true;
  const { url } = await gateway(context, world);
  const options = `{ ...own, readTimeoutSeconds: 0.2 }`;
  assert.equal((await run(context, script(url, `flagcast(${options});`)).ended).code, 0);
  assert.equal((await run(context, script('http://127.0.0.1:9', `flagcast(${options});`)).ended).code, 0);
});

test('`ready` keeps the process alive: somebody waits', async (context) => {
  const more = `console.log(await flagcast({ ...own, readyTimeoutSeconds: 0.5 }).ready);`;
  const { code, lines } = await run(context, script('http://127.0.0.1:9', more)).ended;
  assert.deepEqual([code, lines], [0, ['false']]);
});

/** Starts the example; its address, once it listens. */
async function example(context, env) {
  const app = run(context, [path('../example/app.js')], { PORT: '0', ...env });
  const listening = await eventually('the example listens', () => {
    assert.equal(app.child.exitCode, null, 'it has ended');
    return app.lines.find((line) => line.startsWith('listening '));
  });
  return { ...app, url: `http://127.0.0.1:${listening.slice('listening '.length)}` };
}

const ask = async (url) => (await fetch(url)).json();

/** Delivers what the gateway has, as it does. */
async function deliver(app, world) {
  const body = JSON.stringify({ type: 'environment.updated', data: world.news() });
  const headers = signed(body, { id: world.id(), timestamp: Math.floor(Date.now() / 1000) });
  const response = await fetch(`${app.url}/flagcast`, { method: 'POST', headers, body });
  return [response.status, response.headers.get('x-flagcast-applied-revision')];
}

test('the example follows, in two processes with one copy, and starts without the gateway', async (context) => {
  const world = new World();
  const { url, server } = await gateway(context, world);
  const env = {
    FLAGCAST_URL: url,
    FLAGCAST_CLIENT_KEY: KEY,
    FLAGCAST_WEBHOOK_SECRET: `${SECRET},${SECRET}`,
    FLAGCAST_COPY: join(directory(context), 'flags.json'),
    FLAGCAST_POLL_SECONDS: '0',
  };
  const [one, other] = [await example(context, env), await example(context, env)];
  const knows = (app, revision) =>
    eventually(`it knows revision ${revision}`, async () => (await ask(`${app.url}/health`)).revision === revision);
  await knows(one, 1);
  await knows(other, 1);
  world.change();
  assert.deepEqual(await deliver(one, world), [200, '2']);
  assert.deepEqual(await ask(`${one.url}/flags/dark-mode`), { enabled: true, value: null, revision: 2 });
  await knows(other, 2);

  const closed = once(one.child, 'exit');
  one.child.kill('SIGTERM');
  assert.deepEqual(await closed, [0, null], 'it ends in order');

  server.closeAllConnections();
  server.close();
  const late = await example(context, env);
  assert.deepEqual(await ask(`${late.url}/flags/dark-mode`), { enabled: true, value: null, revision: 2 });
  assert.deepEqual(await ask(`${late.url}/flags/unknown`), { enabled: false, value: null, revision: 2 });
});
