// Runs the published Flagsmith SDK for Node, unmodified.
//
// Usage: node flagsmith_node.js remote|local BASE_URL SERVER_KEY
// Commands (`lines.js` says how they are given and answered):
//   {"do":"evaluate","users":[{"identifier":"ann","traits":{"plan":"pro"}}]}
//       for each user, and for a user without an identifier the environment's own:
//       {"banner":{"enabled":true,"value":"hello"},…}
//   {"do":"refresh"}  reads the environment document now, as the SDK's timer does
'use strict';

const { Flagsmith } = require('flagsmith-nodejs');
const { obeyLines, report, run } = require('./lines.js');
const { describe } = require('./versions.js');

const [mode, baseUrl, serverKey] = process.argv.slice(2);

// The SDK's own messages must not come between the lines.
const silent = { debug() {}, info() {}, warn() {}, error() {} };

async function evaluate(client, { identifier, traits }) {
  const flags = await (identifier === undefined
    ? client.getEnvironmentFlags()
    : client.getIdentityFlags(identifier, traits));
  const entries = flags.allFlags().map(({ featureName, enabled, value }) => [
    featureName,
    { enabled, value: value ?? null },
  ]);
  return Object.fromEntries(entries);
}

async function obey(client, command) {
  switch (command.do) {
    case 'evaluate': {
      const answers = [];
      for (const user of command.users) answers.push(await evaluate(client, user));
      return answers;
    }
    case 'refresh':
      return client.updateEnvironment();
    default:
      throw new Error(`unknown command ${command.do}`);
  }
}

run(async () => {
  const client = new Flagsmith({
    environmentKey: serverKey,
    apiUrl: `${baseUrl}/api/v1/`,
    enableLocalEvaluation: mode === 'local',
    // A test says when.
    environmentRefreshIntervalSeconds: 3600,
    logger: silent,
  });
  if (mode === 'local') await client.updateEnvironment();
  report({ event: 'ready', ...describe('flagsmith-nodejs') });
  await obeyLines((command) => obey(client, command));
});
