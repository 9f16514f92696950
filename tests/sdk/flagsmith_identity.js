// Runs the published Flagsmith JavaScript SDK, unmodified, for a person who signs in.
//
// Usage: node flagsmith_identity.js BASE_URL CLIENT_KEY
// Commands (`lines.js` says how they are given and answered):
//   {"do":"identify","identifier":"ann","traits":{"plan":"pro"},"transient":false}
//   {"do":"set_traits","traits":{"plan":null}}   null takes a trait away
//   {"do":"logout"}
//   {"do":"look"}  {"identity":…,"traits":{…},"flags":{"banner":{"enabled":true,"value":"hello"},…}}
'use strict';

require('./browser.js');
const { createFlagsmithInstance } = require('@flagsmith/flagsmith/isomorphic');
const { obeyLines, report, run } = require('./lines.js');
const { describe } = require('./versions.js');

const [baseUrl, clientKey] = process.argv.slice(2);

function look(flagsmith) {
  const flags = Object.entries(flagsmith.getAllFlags()).map(([flag, { enabled, value }]) => [
    flag,
    { enabled, value: value ?? null },
  ]);
  return {
    identity: flagsmith.identity ?? null,
    traits: flagsmith.getAllTraits(),
    flags: Object.fromEntries(flags),
  };
}

async function obey(flagsmith, command) {
  switch (command.do) {
    case 'identify':
      return void (await flagsmith.identify(
        command.identifier,
        command.traits,
        command.transient,
      ));
    case 'set_traits':
      return void (await flagsmith.setTraits(command.traits));
    case 'logout':
      return void (await flagsmith.logout());
    case 'look':
      return look(flagsmith);
    default:
      throw new Error(`unknown command ${command.do}`);
  }
}

run(async () => {
  const flagsmith = createFlagsmithInstance();
  await flagsmith.init({
    environmentID: clientKey,
    api: `${baseUrl}/api/v1/`,
    eventSourceUrl: `${baseUrl}/`,
    realtime: true,
  });
  report({ event: 'ready', ...describe('@flagsmith/flagsmith') });
  await obeyLines((command) => obey(flagsmith, command));
});
