// Matches patterns by JavaScript's RegExp, as Flagsmith's engine for Node does.
//
// Reads from standard input, a line each: {"pattern": "…", "subjects": ["…"]}.
// Prints for each line: {"matches": [true], "slowest": milliseconds} or {"error": "…"}.
'use strict';

const readline = require('node:readline');

function answer({ pattern, subjects }) {
  let slowest = 0;
  const expression = new RegExp(pattern);
  const matches = subjects.map((subject) => {
    const begun = performance.now();
    const matched = subject.match(expression) !== null;
    slowest = Math.max(slowest, performance.now() - begun);
    return matched;
  });
  return { matches, slowest };
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  let told;
  try {
    told = answer(JSON.parse(line));
  } catch (error) {
    told = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
});
