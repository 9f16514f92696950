// Drives pages that use the browser client, in Chromium: tabs of one browser, and other browsers.
//
// Usage: node client.js
// Reads commands from standard input, one JSON object a line, and answers each with one line,
// {"event":"done","answer":…} or {"event":"failed"}:
//   {"do":"open","browser":"first","tab":"one","key":"…","url":"http://…","own":false}
//       a page that loads the client from `<url>/client.js`, or with "own" from its own site, as
//       a bundled one is, and names the gateway; "site":"http://app.test" has no secure context
//   {"do":"expect","tab":"one","revision":7}     waits until the tab holds it, or a newer one
//   {"do":"look","tab":"one"}                    {"revision","flags","changes","ready","streams","reads"}
//   {"do":"hide","tab":"one"}, {"do":"show",…}   as if another tab came to the front, and back
//   {"do":"hang","tab":"one","ms":5000}          its script runs without a pause for so long
//   {"do":"leave","tab":"one"}, {"do":"return",…}  to another page, and back in the history
//   {"do":"close","tab":"one"}, {"do":"crash",…}
// Tabs of one browser share locks, channels and storage. `streams` and `reads` are the requests that
// a tab has made. Between the answers it reports errors of pages: {"event":"page_error"}.
'use strict';

const { createServer } = require('node:http');
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { launch } = require('./chromium.js');
const { obeyLines, report, run } = require('./lines.js');

const PATIENCE_MS = 30_000;
const CLIENT = join(__dirname, '../../clients/browser/flagcast.js');

const PAGE = `<!doctype html>
<title>A page with flags</title>
<link rel="icon" href="data:,">
<script type="module">
  const { client, ...options } = Object.fromEntries(new URLSearchParams(location.search));
  const { flagcast } = await import(client);
  window.changes = [];
  window.flags = flagcast({ ...options, onChange: ({ revision }) => changes.push(revision) });
  window.flags.ready.then((known) => (window.known = known));
</script>`;

const contexts = new Map();
const tabs = new Map();

/** The site of the pages: what an app's own server does. */
async function serveSite() {
  const server = createServer((request, response) => {
    const isClient = request.url === '/flagcast.js';
    response.setHeader('Content-Type', isClient ? 'text/javascript' : 'text/html');
    response.end(isClient ? readFileSync(CLIENT) : PAGE);
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  return server;
}

function watch(name, page) {
  const tab = { page, streams: 0, reads: [] };
  page.on('pageerror', (error) => report({ event: 'page_error', tab: name, message: String(error) }));
  page.on('request', (request) => {
    const { pathname, search } = new URL(request.url());
    if (pathname.includes('/ofrep/v1/streams/')) tab.streams += 1;
    if (pathname.includes('/sdk/v1/environments/')) tab.reads.push(pathname + search);
  });
  tabs.set(name, tab);
}

async function open({ browser, port }, command) {
  const { tab, url, key, own, site = 'http://127.0.0.1' } = command;
  if (!contexts.has(command.browser)) contexts.set(command.browser, await browser.newContext());
  const page = await contexts.get(command.browser).newPage();
  watch(tab, page);
  const options = own ? { client: '/flagcast.js', url } : { client: `${url}/client.js` };
  const query = new URLSearchParams({ ...options, key });
  await page.goto(`${site}:${port}/?${query}`);
  await page.waitForFunction(() => window.flags, undefined, { timeout: PATIENCE_MS });
}

async function expectRevision(page, { revision }) {
  const holds = (wanted) => window.flags.revision >= wanted;
  await page.waitForFunction(holds, revision, { timeout: PATIENCE_MS, polling: 20 });
}

async function look({ page, streams, reads }) {
  const seen = await page.evaluate(() => ({
    revision: window.flags.revision,
    flags: window.flags.all(),
    changes: window.changes,
    ready: window.known ?? null,
  }));
  return { ...seen, streams, reads };
}

/** Headless Chromium shows all its tabs at once, so the page is told otherwise. */
async function setHidden(page, hidden) {
  await page.evaluate((isHidden) => {
    Object.defineProperty(document, 'hidden', { value: isHidden, configurable: true });
    const state = isHidden ? 'hidden' : 'visible';
    Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
}

/** The page begins to hang soon, so that this can answer before. */
async function hang(page, { ms }) {
  await page.evaluate((length) => {
    setTimeout(() => {
      const end = performance.now() + length;
      while (performance.now() < end);
    });
  }, ms);
}

async function crash(page) {
  const session = await page.context().newCDPSession(page);
  const crashed = page.waitForEvent('crash', { timeout: PATIENCE_MS });
  session.send('Page.crash').catch(() => {});
  await crashed;
}

async function obey(setting, command) {
  if (command.do === 'open') return open(setting, command);
  const tab = tabs.get(command.tab);
  const { page } = tab;
  switch (command.do) {
    case 'expect':
      return expectRevision(page, command);
    case 'look':
      return look(tab);
    case 'hide':
      return setHidden(page, true);
    case 'show':
      return setHidden(page, false);
    case 'hang':
      return hang(page, command);
    case 'leave':
      return void (await page.goto('about:blank'));
    case 'return':
      return void (await page.goBack({ waitUntil: 'commit' }));
    case 'close':
      return page.close();
    case 'crash':
      return crash(page);
    default:
      throw new Error(`unknown command ${command.do}`);
  }
}

async function main() {
  const server = await serveSite();
  const browser = await launch(['--host-resolver-rules=MAP app.test 127.0.0.1'], {
    // Pages are to come back as they were left.
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
  });
  const setting = { browser, port: server.address().port };
  report({ event: 'ready', version: browser.version() });
  await obeyLines((command) => obey(setting, command));
  await browser.close();
  server.close();
}

run(main);
