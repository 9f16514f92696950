// Runs OpenFeature's web SDK with its OFREP provider, in Node or in a page of Chromium.
//
// Usage: node openfeature_web.js node|chromium
// Commands: those of `openfeature_web_client.mjs`; `lines.js` says how they are given and answered.
// A page also reports its errors: {"event":"page_error"}.
'use strict';

const { createServer } = require('node:http');
const { readFile } = require('node:fs/promises');
const { join, normalize } = require('node:path');
const { launch } = require('./chromium.js');
const { obeyLines, report, run } = require('./lines.js');
const { describe } = require('./versions.js');

const CLIENT = 'openfeature_web_client.mjs';

/** Where a browser finds the packages: as modules, as they were published. */
const MODULES = {
  '@openfeature/core': '/node_modules/@openfeature/core/dist/esm/index.js',
  '@openfeature/web-sdk': '/node_modules/@openfeature/web-sdk/dist/esm/index.js',
  '@openfeature/ofrep-core': '/node_modules/@openfeature/ofrep-core/index.esm.js',
  '@openfeature/ofrep-web-provider': '/node_modules/@openfeature/ofrep-web-provider/index.esm.js',
};

const PAGE = `<!doctype html>
<title>A page with flags</title>
<link rel="icon" href="data:,">
<script type="importmap">${JSON.stringify({ imports: MODULES })}</script>
<script type="module">
  const { obey } = await import('/${CLIENT}');
  window.obey = obey;
</script>`;

/** The site of the page: what an app's own server does. */
async function serveSite() {
  const server = createServer(async (request, response) => {
    const isModule = /\.m?js$/.test(request.url);
    response.setHeader('Content-Type', isModule ? 'text/javascript' : 'text/html');
    response.end(isModule ? await readFile(join(__dirname, normalize(request.url))) : PAGE);
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  return server;
}

async function inNode() {
  globalThis.EventSource = require('eventsource');
  const { obey } = await import(`./${CLIENT}`);
  return { obey, close() {} };
}

async function inChromium() {
  const server = await serveSite();
  const browser = await launch();
  const page = await browser.newPage();
  const complain = (message) => report({ event: 'page_error', message });
  page.on('pageerror', (error) => complain(String(error)));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction(() => window.obey);
  const obey = (command) => page.evaluate((given) => window.obey(given), command);
  return { obey, close: () => browser.close() };
}

run(async () => {
  const [place] = process.argv.slice(2);
  const { obey, close } = await (place === 'chromium' ? inChromium() : inNode());
  report({ event: 'ready', ...describe('@openfeature/ofrep-web-provider') });
  await obeyLines(obey);
  await close();
});
