import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Flagsmith, LocalFileHandler } from 'flagsmith-nodejs';
import { serve } from './gateway.mjs';

let gateway;
before(async () => (gateway = await serve()));
after(() => gateway.stop());

const options = () => ({ environmentKey: 'ser.test', apiUrl: `${gateway.url}/api/v1/` });

test('remote evaluation', async () => {
  const flags = await new Flagsmith(options()).getIdentityFlags('ada', { plan: 'pro' });
  assert.equal(flags.getFeatureValue('banner'), 'Welcome, professional!');
  assert.equal(flags.isFeatureEnabled('new-checkout'), true);
});

test('local evaluation', async () => {
  const flagsmith = new Flagsmith({ ...options(), enableLocalEvaluation: true });
  const flags = await flagsmith.getIdentityFlags('ada', { plan: 'pro' });
  assert.equal(flags.getFeatureValue('banner'), 'Welcome, professional!');
  await flagsmith.close();
});

test('without a process', async () => {
  // With a document that was saved before: here from the fixture, else from production.
  const headers = { 'X-Environment-Key': 'ser.test' };
  const document = await fetch(`${gateway.url}/api/v1/environment-document/`, { headers });
  const saved = join(mkdtempSync(join(tmpdir(), 'flags-')), 'environment.json');
  writeFileSync(saved, await document.text());
  const offlineHandler = new LocalFileHandler(saved);
  const flags = await new Flagsmith({ offlineMode: true, offlineHandler }).getEnvironmentFlags();
  assert.equal(flags.getFeatureValue('page-size'), 24);
});
