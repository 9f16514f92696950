// Runs a published Flagsmith JavaScript SDK, unmodified, and reports what it sees.
//
// Usage: node flagsmith.js PACKAGE BASE_URL CLIENT_KEY
// Prints one JSON line when the SDK is ready, for every change of a flag, and for every error.
// Reads commands from standard input: `refetch`, `exit`.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');

const [packageName, baseUrl, clientKey] = process.argv.slice(2);

// What the SDK takes from a browser. They must be there before it is loaded.
globalThis.window = globalThis;
globalThis.EventSource = require('eventsource');
globalThis.localStorage = { getItem: () => null, setItem() {}, removeItem() {} };

// Not by `require`: the packages do not export it.
const manifest = path.join(__dirname, 'node_modules', packageName, 'package.json');

const report = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// The SDK does not catch a failed refetch after a ping: in a browser that is a line in the console.
process.on('unhandledRejection', (error) => report({ event: 'error', message: String(error) }));

const flagsmith = require(`${packageName}/isomorphic`).createFlagsmithInstance();
const shown = new Map();

function reportChanges() {
  for (const [flag, state] of Object.entries(flagsmith.getAllFlags() ?? {})) {
    const line = { event: 'flag', flag, enabled: state.enabled, value: state.value };
    const text = JSON.stringify(line);
    if (shown.get(flag) !== text) {
      shown.set(flag, text);
      report(line);
    }
  }
}

readline.createInterface({ input: process.stdin }).on('line', (command) => {
  if (command === 'exit') process.exit(0);
  if (command === 'refetch') {
    flagsmith
      .getFlags()
      .then(() => report({ event: 'refetched' }))
      .catch((error) => report({ event: 'refetched', error: String(error) }));
  }
});

flagsmith
  .init({
    environmentID: clientKey,
    api: `${baseUrl}/api/v1/`,
    eventSourceUrl: `${baseUrl}/`,
    realtime: true,
    onChange: reportChanges,
  })
  .then(() => {
    reportChanges();
    const { version } = JSON.parse(fs.readFileSync(manifest, 'utf8'));
    report({ event: 'ready', package: packageName, version });
  })
  .catch((error) => report({ event: 'failed', message: String(error) }));
