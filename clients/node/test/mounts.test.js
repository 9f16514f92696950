// Each way to mount the receiver, on the real server: Node's http, Express, Fastify, Hono, standard requests.

import assert from 'node:assert/strict';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { once } from 'node:events';
import { test } from 'node:test';

import { SECRET, World, eventually, load, settle, signed } from './world.js';

const express = load('express');
const Fastify = load('fastify');
const { Hono } = load('hono');

/** Starts a server for one test; its base address. */
async function listen(context, server) {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(() => {
    server.closeAllConnections?.();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

/** Posts a delivery as the gateway does; `[status, applied revision, body]`. */
async function post(address, world, data = world.news(), { padding = 0, ...more } = {}) {
  const body = JSON.stringify({ type: 'environment.updated', data }) + ' '.repeat(padding);
  const timestamp = Math.floor(world.clock.time / 1000);
  const headers = { 'content-type': 'application/json', ...signed(body, { id: world.id(), timestamp }) };
  const response = await fetch(address, { method: 'POST', body, headers, ...more });
  const text = await response.text();
  const applied = response.headers.get('x-flagcast-applied-revision');
  return [response.status, applied, JSON.parse(text), response];
}

/** Everything that a mount must be able to do; `address` is where it is. */
async function isMounted(address, world, flags) {
  assert.deepEqual((await post(address, world)).slice(0, 3), [200, '1', { applied_revision: 1 }]);
  const [status, applied] = await post(address, world, world.change());
  assert.deepEqual([status, applied], [200, '2']);
  assert.equal(flags.revision, 2);
  const forged = await fetch(address, { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } });
  assert.equal(forged.status, 400);
  assert.match((await forged.json()).error, /webhook-id/);
  const got = await fetch(address);
  assert.deepEqual([got.status, got.headers.get('allow')], [405, 'POST']);
  await got.body.cancel();
  assert.equal((await post(address, world, world.news(), { padding: 200_000 }))[0], 200);
  const [long, , body] = await post(address, world, world.news(), { padding: 300_000 });
  assert.equal(long, 413);
  assert.match(body.error, /262144 bytes/);
  assert.equal((await post(address, world, world.change()))[1], '3', 'it goes on');
}

async function following() {
  const world = new World();
  return { world, flags: await world.following() };
}

test('node:http', async (context) => {
  const { world, flags } = await following();
  const server = http.createServer((request, response) => {
    if (request.url === '/flagcast') return flags.handler(request, response);
    return response.end(`${flags.enabled('dark-mode')}`);
  });
  const base = await listen(context, server);
  await isMounted(`${base}/flagcast`, world, flags);
  assert.equal(await (await fetch(base)).text(), 'false');
});

test('node:http2, in the clear', async (context) => {
  const { world, flags } = await following();
  const server = http2.createServer((request, response) => flags.handler(request, response));
  const session = http2.connect(await listen(context, server));
  context.after(() => session.close());
  const ask = async (padding) => {
    const body = JSON.stringify({ data: world.news() }) + ' '.repeat(padding);
    const headers = signed(body, { id: world.id(), timestamp: Math.floor(world.clock.time / 1000) });
    const stream = session.request({ ':method': 'POST', ':path': '/', ...headers });
    stream.end(body);
    const [answer] = await once(stream, 'response');
    stream.resume();
    return answer[':status'];
  };
  const warnings = [];
  const warned = (warning) => warnings.push(warning.message);
  process.on('warning', warned);
  context.after(() => process.off('warning', warned));
  assert.equal(await ask(0), 200);
  assert.equal(await ask(300_000), 413);
  assert.deepEqual(warnings, [], 'connections are no business of HTTP/2');
});

for (const [how, mount] of Object.entries({
  'app.post': (app, flags) => app.post('/flagcast', flags.handler),
  'app.use': (app, flags) => app.use('/flagcast', flags.handler),
  'a router': (app, flags) => app.use('/flagcast', express.Router().all('/', flags.handler)),
}))
  test(`Express, by ${how}, before the body parser`, async (context) => {
    const { world, flags } = await following();
    const app = express();
    mount(app, flags);
    app.use(express.json());
    app.post('/echo', (request, response) => response.json(request.body));
    // `app.post` alone leaves other methods to Express.
    if (how === 'app.post') app.all('/flagcast', flags.handler);
    const base = await listen(context, http.createServer(app));
    await isMounted(`${base}/flagcast`, world, flags);
    const echoed = await fetch(`${base}/echo`, {
      method: 'POST',
      body: '{"a":1}',
      headers: { 'content-type': 'application/json' },
    });
    assert.deepEqual(await echoed.json(), { a: 1 });
  });

test('Express, after the body parser: it says what is wrong', async (context) => {
  const { world, flags } = await following();
  const app = express();
  app.use(express.json());
  app.post('/flagcast', flags.handler);
  const base = await listen(context, http.createServer(app));
  const [status, applied, body] = await post(`${base}/flagcast`, world, world.change());
  assert.equal(status, 500);
  assert.equal(applied, null);
  assert.match(body.error, /before body parsers such as express\.json\(\)/);
  assert.deepEqual(world.log, [`error: flagcast: ${body.error}`]);
  assert.equal(flags.revision, 1);
});

for (const [how, parser] of Object.entries({
  'a parser that keeps `rawBody`': express.json({
    verify: (request, _response, bytes) => (request.rawBody = bytes),
  }),
  'express.raw': express.raw({ type: '*/*', limit: '1mb' }),
}))
  test(`Express, after ${how}`, async (context) => {
    const { world, flags } = await following();
    const app = express();
    app.use(parser);
    app.post('/flagcast', flags.handler);
    const base = await listen(context, http.createServer(app));
    assert.deepEqual((await post(`${base}/flagcast`, world, world.change())).slice(0, 2), [200, '2']);
    const [status] = await post(`${base}/flagcast`, world, world.news(), { headers: { 'webhook-id': 'msg' } });
    assert.equal(status, 400);
  });

test('bytes that were put aside have the same limit', async () => {
  const { flags } = await following();
  let sent;
  const request = { method: 'POST', headers: {}, on() {}, rawBody: Buffer.alloc(262_145) };
  const response = { writeHead: (status) => (sent = status), end() {} };
  await flags.handler(request, response);
  assert.equal(sent, 413);
});

test('who has answered already is left alone', async () => {
  const { world, flags } = await following();
  const writeHead = () => assert.fail('headers cannot be sent twice');
  const response = { headersSent: true, writeHead, end: writeHead };
  await flags.handler({ method: 'GET', headers: {}, on() {} }, response);
  assert.deepEqual(world.log, []);
});

test('a parsed body that somebody calls `rawBody` is not trusted', async (context) => {
  const { world, flags } = await following();
  const app = express();
  app.use(express.json(), (request, _response, next) => {
    request.rawBody = request.body;
    next();
  });
  app.post('/flagcast', flags.handler);
  const base = await listen(context, http.createServer(app));
  assert.equal((await post(`${base}/flagcast`, world))[0], 500);
});

test('Fastify', async (context) => {
  const { world, flags } = await following();
  const app = Fastify();
  app.register(flags.fastify, { prefix: '/flagcast' });
  app.post('/echo', async (request) => request.body);
  const base = await app.listen({ port: 0, host: '127.0.0.1' });
  context.after(() => app.close());
  await isMounted(`${base}/flagcast`, world, flags);
  assert.equal((await post(`${base}/flagcast/`, world))[0], 200, 'with a slash at the end, too');
  const body = '{"a":1}';
  const headers = { 'content-type': 'application/json' };
  const echoed = await fetch(`${base}/echo`, { method: 'POST', body, headers });
  assert.deepEqual(await echoed.json(), { a: 1 }, 'the rest of the app keeps its parsers');
});

test('Fastify, mounted like Express: it says what is wrong', async (context) => {
  const { world, flags } = await following();
  const app = Fastify();
  app.post('/flagcast', flags.handler);
  const base = await app.listen({ port: 0, host: '127.0.0.1' });
  context.after(() => app.close());
  const [status, , body] = await post(`${base}/flagcast`, world);
  assert.equal(status, 500);
  assert.match(body.message, /node:http; see README\.md/);
});

test('Hono', async () => {
  const { world, flags } = await following();
  const app = new Hono();
  app.post('/flagcast', (c) => flags.fetch(c.req.raw));
  const answer = await app.request(world.request(world.change()));
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get('x-flagcast-applied-revision'), '2');
});

test('a route handler as Next.js has it', async () => {
  const { world, flags } = await following();
  const { POST } = { POST: flags.fetch };
  const request = world.request(world.change());
  const answer = await POST(request, { params: Promise.resolve({}) });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get('x-flagcast-applied-revision'), '2');

  const read = world.request(world.news());
  await read.json();
  const refused = await flags.fetch(read);
  assert.equal(refused.status, 500);
  assert.match((await refused.json()).error, /the body was read before/);
  assert.equal(world.log.length, 1);
});

test('a standard request whose body is too long, or breaks off', async () => {
  const { world, flags } = await following();
  const headers = signed('{}', { id: 'msg_1', timestamp: Math.floor(world.clock.time / 1000) });
  const ask = (pull) => {
    const body = new ReadableStream({ pull });
    return flags.fetch(new Request('http://app.example/', { method: 'POST', headers, body, duplex: 'half' }));
  };
  const chunk = new Uint8Array(65_536);
  let sent = 0;
  const long = await ask((controller) => controller.enqueue((sent++, chunk)));
  assert.equal(long.status, 413);
  assert.ok(sent < 10, String(sent));
  const broken = await ask((controller) => controller.error(new Error('gone')));
  assert.equal(broken.status, 400);
  assert.deepEqual(world.log, []);
});

test('a body without a length is refused when it is too long', async (context) => {
  const { world, flags } = await following();
  const base = await listen(context, http.createServer(flags.handler));
  const socket = net.connect(new URL(base).port, '127.0.0.1');
  socket.on('error', () => {});
  let answer = '';
  socket.on('data', (data) => (answer += data));
  socket.write('POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n');
  const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`;
  for (let sent = 0; sent < 5; sent++) socket.write(chunk);
  await eventually('it is answered before the end', () => answer.includes('\r\n\r\n{'));
  assert.match(answer, /^HTTP\/1\.1 413 /);
  assert.match(answer, /connection: close/i);
  socket.destroy();
  assert.deepEqual(world.log, []);
});

test('a body that is said to be too long is not waited for', async (context) => {
  const { flags } = await following();
  const base = await listen(context, http.createServer(flags.handler));
  const socket = net.connect(new URL(base).port, '127.0.0.1');
  let answer = '';
  socket.on('data', (data) => (answer += data));
  socket.write('POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 262145\r\n\r\n');
  await eventually('it is answered before the body', () => answer.includes('\r\n\r\n{'));
  assert.match(answer, /^HTTP\/1\.1 413 /);
  socket.destroy();
});

test('a sender that goes away harms nothing', async (context) => {
  const { world, flags } = await following();
  let open = 0;
  const server = http.createServer(async (request, response) => {
    open++;
    await flags.handler(request, response);
    open--;
  });
  const base = await listen(context, server);
  const socket = net.connect(new URL(base).port, '127.0.0.1');
  socket.write('POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc');
  await eventually('it has begun', () => open === 1);
  socket.destroy();
  await eventually('the handler ends', () => open === 0);
  assert.deepEqual(world.log, []);

  // The sender goes while its flags are read: they are read all the same.
  world.latency = 1_000;
  const limit = new AbortController();
  const sent = post(base, world, world.change(), { signal: limit.signal });
  await eventually('the read has begun', () => world.reads.length === 1);
  limit.abort();
  await assert.rejects(sent);
  await world.clock.move(1_000);
  await eventually('the handler ends', () => open === 0);
  assert.equal(flags.revision, 2);
});

test('a connection is used again after each kind of answer', async (context) => {
  const { world, flags } = await following();
  const server = http.createServer(flags.handler);
  let connections = 0;
  server.on('connection', () => connections++);
  const { port } = new URL(await listen(context, server));
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  context.after(() => agent.destroy());
  const ask = async (method, body, headers) => {
    const request = http.request({ port, host: '127.0.0.1', agent, method, headers });
    request.end(body);
    const [response] = await once(request, 'response');
    response.resume();
    await once(response, 'close');
    return response.statusCode;
  };
  const body = JSON.stringify({ data: world.news() });
  const good = () => signed(body, { id: world.id(), timestamp: Math.floor(world.clock.time / 1000) });
  assert.equal(await ask('POST', body, good()), 200);
  assert.equal(await ask('PUT', 'x'.repeat(100_000), {}), 405);
  assert.equal(await ask('POST', body, {}), 400);
  assert.equal(await ask('POST', body, good()), 200);
  assert.equal(connections, 1);
});

test('an error of ours is answered and logged, and none of the app', async () => {
  const { world, flags } = await following();
  const request = world.request(world.news());
  const broken = new Proxy(request, {
    get(target, name) {
      if (name === 'body') throw new Error('what nobody expects');
      const value = target[name];
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const answer = await flags.fetch(broken);
  assert.equal(answer.status, 500);
  assert.ok(!(await answer.text()).includes('nobody'), 'nothing of it is shown');
  assert.match(world.log[0], /^error: .*what nobody expects/);
  await settle();
  assert.ok(!world.log.join().includes(SECRET.slice(6)));
});
