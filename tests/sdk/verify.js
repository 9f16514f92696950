// Verifies deliveries by npm's `standardwebhooks`, as a receiver does.
//
// Reads from standard input, a line each: {"secret":"whsec_…","headers":{…},"body":"…"}.
// Prints for each line: {"accepted":true} or {"accepted":false}.
'use strict';

const readline = require('node:readline');
const { Webhook } = require('standardwebhooks');
const { report } = require('./lines.js');

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { secret, headers, body } = JSON.parse(line);
  let accepted = true;
  try {
    new Webhook(secret).verify(body, headers);
  } catch {
    accepted = false;
  }
  report({ accepted });
});
