import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createFlagsmithInstance } from '@flagsmith/flagsmith/isomorphic';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { OpenFeature } from '@openfeature/web-sdk';
import { serve } from './gateway.mjs';

let gateway;
before(async () => (gateway = await serve()));
after(() => gateway.stop());

test('Flagsmith in the browser', async () => {
  const flags = createFlagsmithInstance();
  await flags.init({
    environmentID: 'test',
    api: `${gateway.url}/api/v1/`,
    identity: 'ada',
    traits: { plan: 'pro' },
    cacheFlags: false,
  });
  assert.equal(flags.getValue('banner'), 'Welcome, professional!');
  assert.equal(flags.hasFeature('old-search'), false);
});

test('OpenFeature in the browser', async () => {
  await OpenFeature.setContext({ targetingKey: 'ada', plan: 'pro' });
  await OpenFeature.setProviderAndWait(
    new OFREPWebProvider({
      baseUrl: gateway.url,
      headers: [['Authorization', 'Bearer test']],
      cacheMode: 'disabled',
      changeDetection: 'none',
    }),
  );
  const client = OpenFeature.getClient();
  assert.equal(client.getStringValue('banner', ''), 'Welcome, professional!');
  assert.equal(client.getNumberValue('page-size', 0), 24);
  assert.equal(client.getBooleanValue('new-checkout', false), true);
  await OpenFeature.close();
});
