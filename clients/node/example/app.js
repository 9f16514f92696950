// A small app that follows its flags: `node clients/node/example/app.js`.
//
// It needs FLAGCAST_URL, FLAGCAST_CLIENT_KEY and FLAGCAST_WEBHOOK_SECRET (several are parted by commas);
// FLAGCAST_COPY is the file of the last known flags, PORT the port (0: a free one, which is printed).

import { createServer } from 'node:http';

import { flagcast } from '@flagcast/node';

const { env } = process;
const flags = flagcast({
  url: env.FLAGCAST_URL,
  clientKey: env.FLAGCAST_CLIENT_KEY,
  secret: env.FLAGCAST_WEBHOOK_SECRET?.split(','),
  store: env.FLAGCAST_COPY,
  pollSeconds: Number(env.FLAGCAST_POLL_SECONDS ?? 300),
});

function answer(response, status, content) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(content));
}

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  if (pathname === '/flagcast') return flags.handler(request, response);
  if (pathname === '/health') return answer(response, 200, { revision: flags.revision });
  const [, key] = /^\/flags\/([^/]+)$/.exec(pathname) ?? [];
  if (key === undefined) return answer(response, 404, { error: 'not found' });
  const flag = decodeURIComponent(key);
  const state = { enabled: flags.enabled(flag), value: flags.value(flag, null) };
  return answer(response, 200, { ...state, revision: flags.revision });
});

// Deliveries may come from the first moment: the app knows its flags, or its defaults.
server.listen(Number(env.PORT ?? 3000), '127.0.0.1', () => {
  console.log(`listening ${server.address().port}`);
});

for (const signal of ['SIGINT', 'SIGTERM'])
  process.once(signal, () => {
    flags.close();
    server.close();
    server.closeIdleConnections();
  });
