// Runs OpenFeature's SDK for servers with its OFREP provider, unmodified.
//
// Usage: node openfeature_server.js BASE_URL KEY
// Commands (`lines.js` says how they are given and answered):
//   {"do":"resolve","flag":"banner","type":"string","default":"x","context":{"targetingKey":"ann"}}
//       answered as `openfeature_details.mjs` says
'use strict';

const { OpenFeature } = require('@openfeature/server-sdk');
const { OFREPProvider } = require('@openfeature/ofrep-provider');
const { obeyLines, report, run } = require('../lines.js');
const { describe } = require('../versions.js');

const [baseUrl, key] = process.argv.slice(2);

run(async () => {
  const headers = [['X-API-Key', key]];
  await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl, headers }));
  const client = OpenFeature.getClient();
  report({ event: 'ready', ...describe('@openfeature/ofrep-provider', __dirname) });
  const { resolve } = await import('../openfeature_details.mjs');
  await obeyLines((command) => {
    if (command.do !== 'resolve') throw new Error(`unknown command ${command.do}`);
    return resolve(client, command);
  });
});
