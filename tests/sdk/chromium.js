// Starts Debian's Chromium for the scripts beside this file, without what it would look up elsewhere.
'use strict';

const { chromium } = require('playwright-core');

/** `args` and `options` are added to what every script needs. */
function launch(args = [], options = {}) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      // The pages come from the tests, and containers run tests as root.
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
      ...args,
    ],
    ...options,
  });
}

module.exports = { launch };
