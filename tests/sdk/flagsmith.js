// Runs a published Flagsmith JavaScript SDK, unmodified, and reports what it sees.
//
// Usage: node flagsmith.js PACKAGE BASE_URL CLIENT_KEY
// Prints one JSON line when the SDK is ready, for every change of a flag, and for every error.
// Reads commands from standard input: `refetch`, `exit`.
'use strict';

require('./browser.js');
const readline = require('node:readline');
const { report } = require('./lines.js');
const { describe } = require('./versions.js');

const [packageName, baseUrl, clientKey] = process.argv.slice(2);

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
    report({ event: 'ready', ...describe(packageName) });
  })
  .catch((error) => report({ event: 'failed', message: String(error) }));
