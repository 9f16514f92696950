// How the scripts beside this file speak with the tests: one JSON object a line.
'use strict';

const readline = require('node:readline');

/** Prints one line. */
const report = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

/** The message of an error with those of its causes, which libraries hide there. */
function told(error) {
  const cause = error?.cause ? `: ${told(error.cause)}` : '';
  return `${error?.message ?? error}${cause}`;
}

/**
 * Reads commands from standard input until it ends, and answers each with one line:
 * {"event":"done","answer":…} or {"event":"failed","message":"…"}.
 */
async function obeyLines(obey) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    await Promise.resolve()
      .then(() => obey(JSON.parse(line)))
      .then((answer) => report({ event: 'done', answer }))
      .catch((error) => report({ event: 'failed', message: `${line}: ${told(error)}` }));
  }
}

/** Runs a script to its end; an error of its own is one more line. */
function run(main) {
  main()
    .then(() => process.exit(0))
    .catch((error) => {
      report({ event: 'failed', message: told(error) });
      process.exit(1);
    });
}

module.exports = { obeyLines, report, run };
